//! The calls: messages made into values, the work done, and answers made. What a call asks for is done
//! on a task of its own: it comes to its end also when the client does not wait for it.

use std::{collections::BTreeMap, fs, time::Duration};

use controllers::{
    Sandbox,
    sandboxer::{
        answer,
        wire::{self, Ours, Rejected},
    },
};
use names::PodId;
use protobuf::Message as _;
use sandbox_api::{
    Any, TASKS, TASKS_FIELD, TASKS_URL, types,
    v1::{self, controller_server::Controller},
};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

use crate::{error::Error, sandboxes::Sandboxes};

type Answer<T> = Result<Response<T>, Status>;

pub(crate) struct Service {
    sandboxes: Sandboxes,
    tasks: TaskTracker,
    /// Turns true when the process ends: nobody is kept waiting for it.
    ending: watch::Receiver<bool>,
}

impl Service {
    pub(crate) fn new(
        sandboxes: Sandboxes,
        tasks: TaskTracker,
        ending: watch::Receiver<bool>,
    ) -> Self {
        Self { sandboxes, tasks, ending }
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Status> {
        let done = self.tasks.spawn(work).await.unwrap_or_else(|failed| {
            tracing::error!(%failed, "a call has panicked");
            Err(Error::Panicked)
        });
        Ok(done?)
    }

    /// The sandbox in a request that is meant for us.
    fn addressed(&self, id: &str, sandboxer: &str) -> Result<PodId, Error> {
        let ours = &self.sandboxes.world().name;
        if !sandboxer.is_empty() && sandboxer != ours {
            let why = format!("{sandboxer:?} is not served here, but {ours:?} is");
            return Err(Rejected::new("sandboxer", why).into());
        }
        Ok(wire::id(id)?)
    }

    fn sandbox(&self, request: v1::ControllerCreateRequest) -> Result<Sandbox, Error> {
        self.addressed(&request.sandbox_id, &request.sandboxer)?;
        let world = self.sandboxes.world();
        let (sandboxes, program) = (world.folder.as_path(), &world.program);
        let read = |path: &std::path::Path| fs::read(path);
        let sandbox = wire::sandbox(request, &Ours { sandboxes, program, read: &read })?;
        if let Some(netns) = sandbox.netns.as_ref().filter(|path| !sys::netns::is_netns(path)) {
            let why = format!("{} is no network namespace", netns.display());
            return Err(Rejected::new("netns_path", why).into());
        }
        Ok(sandbox)
    }
}

#[tonic::async_trait]
impl Controller for Service {
    async fn create(
        &self,
        request: Request<v1::ControllerCreateRequest>,
    ) -> Answer<v1::ControllerCreateResponse> {
        let sandbox = self.sandbox(request.into_inner())?;
        let id = sandbox.place.id.to_string();
        let sandboxes = self.sandboxes.clone();
        self.work(async move { sandboxes.create(sandbox).await }).await?;
        Ok(Response::new(v1::ControllerCreateResponse { sandbox_id: id }))
    }

    async fn start(
        &self,
        request: Request<v1::ControllerStartRequest>,
    ) -> Answer<v1::ControllerStartResponse> {
        let request = request.into_inner();
        let id = self.addressed(&request.sandbox_id, &request.sandboxer)?;
        let sandboxes = self.sandboxes.clone();
        let started = self.work(async move { sandboxes.start(&id).await }).await?;
        Ok(Response::new(answer::of_started(&request.sandbox_id, &started)))
    }

    async fn platform(
        &self,
        request: Request<v1::ControllerPlatformRequest>,
    ) -> Answer<v1::ControllerPlatformResponse> {
        let request = request.into_inner();
        let id = self.addressed(&request.sandbox_id, &request.sandboxer)?;
        let kept = self.sandboxes.find(&id).ok_or(Error::Unknown(id))?;
        let platform = self.sandboxes.world().controller.platform(&kept.place).await;
        Ok(Response::new(answer::of_platform(platform.map_err(Error::from)?)))
    }

    async fn stop(
        &self,
        request: Request<v1::ControllerStopRequest>,
    ) -> Answer<v1::ControllerStopResponse> {
        let request = request.into_inner();
        let id = self.addressed(&request.sandbox_id, &request.sandboxer)?;
        let grace = Duration::from_secs(request.timeout_secs.into());
        let sandboxes = self.sandboxes.clone();
        self.work(async move { sandboxes.stop(&id, grace).await }).await?;
        Ok(Response::new(v1::ControllerStopResponse {}))
    }

    async fn wait(
        &self,
        request: Request<v1::ControllerWaitRequest>,
    ) -> Answer<v1::ControllerWaitResponse> {
        let request = request.into_inner();
        let id = self.addressed(&request.sandbox_id, &request.sandboxer)?;
        let mut ending = self.ending.clone();
        tokio::select! {
            exit = self.sandboxes.wait(&id) => Ok(Response::new(answer::of_exit(exit?))),
            _ = ending.wait_for(|ending| *ending) => Err(Error::Ending.into()),
        }
    }

    async fn status(
        &self,
        request: Request<v1::ControllerStatusRequest>,
    ) -> Answer<v1::ControllerStatusResponse> {
        let request = request.into_inner();
        let id = self.addressed(&request.sandbox_id, &request.sandboxer)?;
        let (status, started) = self.sandboxes.status(&id).await?;
        let answer = answer::of_status(&request.sandbox_id, &status, started.as_ref());
        let mut answer = answer.ok_or_else(|| Error::Unknown(id.clone()))?;
        if request.verbose {
            answer.info.extend(self.info(&id));
        }
        Ok(Response::new(answer))
    }

    async fn shutdown(
        &self,
        request: Request<v1::ControllerShutdownRequest>,
    ) -> Answer<v1::ControllerShutdownResponse> {
        let request = request.into_inner();
        let id = self.addressed(&request.sandbox_id, &request.sandboxer)?;
        let sandboxes = self.sandboxes.clone();
        self.work(async move { sandboxes.shut_down(&id).await }).await?;
        Ok(Response::new(v1::ControllerShutdownResponse {}))
    }

    async fn metrics(
        &self,
        request: Request<v1::ControllerMetricsRequest>,
    ) -> Answer<v1::ControllerMetricsResponse> {
        let request = request.into_inner();
        let id = self.addressed(&request.sandbox_id, &request.sandboxer)?;
        let kept = self.sandboxes.find(&id).ok_or(Error::Unknown(id))?;
        let stats = self.sandboxes.world().controller.metrics(&kept.place).await;
        let metric = metric(request.sandbox_id, &stats.map_err(Error::from)?)?;
        Ok(Response::new(v1::ControllerMetricsResponse { metrics: Some(metric) }))
    }

    /// Taken is the list of tasks, which is how Kuasar's and iSulad's clients announce containers. It is
    /// read, so that a client hears of its mistakes, and nothing is done: a container here needs no
    /// more than what its Task.Create says, which is checked then. So the answer promises nothing that
    /// is not so.
    async fn update(
        &self,
        request: Request<v1::ControllerUpdateRequest>,
    ) -> Answer<v1::ControllerUpdateResponse> {
        let request = request.into_inner();
        let id = self.addressed(&request.sandbox_id, &request.sandboxer)?;
        self.sandboxes.find(&id).ok_or(Error::Unknown(id))?;
        check_update(&request)?;
        Ok(Response::new(v1::ControllerUpdateResponse {}))
    }
}

impl Service {
    /// What people may want to know.
    fn info(&self, id: &PodId) -> BTreeMap<String, String> {
        let Some(kept) = self.sandboxes.find(id) else { return BTreeMap::new() };
        let started = kept.record().and_then(|record| record.started);
        let text = serde_json::json!({
            "sandboxer": self.sandboxes.world().name,
            "dir": kept.place.dir,
            "cgroup": kept.place.cgroup,
            "namespaces": started.map(|started| started.namespaces),
        });
        [("podbay.sandbox".to_owned(), text.to_string())].into()
    }
}

fn metric(id: String, stats: &shim_api::Stats) -> Result<types::Metric, Status> {
    let (url, value) = match stats {
        shim_api::Stats::V1(metrics) => (shim_api::METRICS_V1_URL, metrics.write_to_bytes()),
        shim_api::Stats::V2(metrics) => (shim_api::METRICS_V2_URL, metrics.write_to_bytes()),
    };
    let value = value.map_err(|error| Status::internal(format!("the metrics: {error}")))?;
    let at = std::time::SystemTime::now();
    Ok(types::Metric {
        timestamp: Some(at.into()),
        id,
        data: Some(Any { type_url: url.to_owned(), value }),
    })
}

fn check_update(request: &v1::ControllerUpdateRequest) -> Result<(), Error> {
    if request.fields.is_empty() {
        return Err(Rejected::new("fields", "names nothing that is to be updated").into());
    }
    if let Some(other) = request.fields.iter().find(|field| *field != TASKS_FIELD) {
        return Err(Error::NotUpdated(other.clone()));
    }
    let field = format!("sandbox.extensions[{TASKS:?}]");
    let extension = request.sandbox.as_ref().and_then(|sandbox| sandbox.extensions.get(TASKS));
    let any = extension.ok_or_else(|| Rejected::new(&field, "is missing"))?;
    if any.type_url != TASKS_URL {
        let why = format!("{:?} is not {TASKS_URL:?}", any.type_url);
        return Err(Rejected::new(format!("{field}.type_url"), why).into());
    }
    let list = serde_json::from_slice::<Tasks>(&any.value);
    let list = list.map_err(|error| Rejected::new(format!("{field}.value"), error.to_string()))?;
    tracing::debug!(sandbox = request.sandbox_id, tasks = list.tasks.len(), "told of tasks");
    Ok(())
}

/// As much of a list of tasks as is looked at.
#[derive(serde::Deserialize)]
struct Tasks {
    tasks: Vec<Task>,
}

#[derive(serde::Deserialize)]
struct Task {
    #[serde(rename = "task_id")]
    _id: String,
}

#[cfg(test)]
mod tests {
    use names::Class;

    use super::*;

    fn update(url: &str, json: &str, fields: &[&str]) -> Result<(), Error> {
        let any = Any { type_url: url.to_owned(), value: json.as_bytes().to_vec() };
        let extensions = [(TASKS.to_owned(), any)].into();
        check_update(&v1::ControllerUpdateRequest {
            sandbox: Some(types::Sandbox { extensions, ..Default::default() }),
            fields: fields.iter().map(|field| (*field).to_owned()).collect(),
            ..Default::default()
        })
    }

    #[test]
    fn a_list_of_tasks_is_taken_and_nothing_else() {
        let list = r#"{"tasks":[{"task_id":"a","spec":{},"rootfs":[],"processes":[]}]}"#;
        update(TASKS_URL, list, &[TASKS_FIELD]).unwrap();
        let wrong: [(&str, &str, &[&str], Class); 5] = [
            (TASKS_URL, list, &[], Class::InvalidArgument),
            (TASKS_URL, list, &["extensions"], Class::Unimplemented),
            (TASKS_URL, list, &[TASKS_FIELD, "spec"], Class::Unimplemented),
            ("other", list, &[TASKS_FIELD], Class::InvalidArgument),
            (TASKS_URL, r#"{"tasks":[{}]}"#, &[TASKS_FIELD], Class::InvalidArgument),
        ];
        for (url, json, fields, class) in wrong {
            assert_eq!(update(url, json, fields).unwrap_err().class(), class, "{fields:?} {json}");
        }
    }
}
