//! What a sandboxer answers, made into values and made from them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use names::Nanos;
use sandbox_api::{EXIT_CODE, TASK_VERSION, Timestamp, label, state, types, v1};

use super::Fault;
use crate::{Exit, Namespaces, Platform, Started, Status};

/// The code of an exit that nobody saw, or told.
pub(super) const UNSEEN: i32 = 255;

const SECOND: i64 = 1_000_000_000;

/// A moment, as messages carry it.
pub fn timestamp(at: Nanos) -> Timestamp {
    let nanos = i32::try_from(at.rem_euclid(SECOND)).expect("a second has fewer than 2^31 ns");
    Timestamp { seconds: at.div_euclid(SECOND), nanos }
}

/// The reverse, if it says anything: Go writes the year 1 where it has none.
fn nanos(at: Option<Timestamp>) -> Option<Nanos> {
    let at = at?;
    let nanos = at.seconds.saturating_mul(SECOND).saturating_add(at.nanos.into());
    (nanos > 0).then_some(nanos)
}

/// The answer to Start.
pub fn of_started(id: &str, started: &Started) -> v1::ControllerStartResponse {
    v1::ControllerStartResponse {
        sandbox_id: id.to_owned(),
        pid: started.pid.unwrap_or(0),
        created_at: Some(timestamp(started.at)),
        labels: of_namespaces(&started.namespaces),
        address: started.address.to_string(),
        version: TASK_VERSION,
        spec: None,
    }
}

/// What started, by the answer to Start.
pub(super) fn started(answer: v1::ControllerStartResponse) -> Result<Started, Fault> {
    let address = answer.address.parse();
    let pid = Some(answer.pid).filter(|pid| *pid != 0);
    Ok(Started {
        pid,
        at: nanos(answer.created_at).unwrap_or_else(names::now),
        address: address.map_err(|bad: shim_api::BadAddress| Fault::Nonsense(bad.to_string()))?,
        namespaces: namespaces(&answer.labels, pid)?,
    })
}

fn of_namespaces(namespaces: &Namespaces) -> BTreeMap<String, String> {
    let all = [
        (label::NETWORK, &namespaces.network),
        (label::IPC, &namespaces.ipc),
        (label::UTS, &namespaces.uts),
        (label::PID, &namespaces.pid),
    ];
    let text = |path: &PathBuf| path.to_string_lossy().into_owned();
    all.into_iter().filter_map(|(key, path)| Some((key.to_owned(), text(path.as_ref()?)))).collect()
}

/// By our labels. A sandboxer that has none has the namespaces of its process, if it has one; without
/// a process they are out of our sight, as in a virtual machine.
fn namespaces(labels: &BTreeMap<String, String>, pid: Option<u32>) -> Result<Namespaces, Fault> {
    let known = [label::NETWORK, label::IPC, label::UTS, label::PID];
    let told = known.iter().any(|key| labels.contains_key(*key));
    let path = |key: &str, kind: &str| match (labels.get(key), pid) {
        // To take no notice of it would be to put containers into the host's.
        (Some(path), _) if !Path::new(path).is_absolute() => {
            Err(Fault::Nonsense(format!("the label {key} is {path:?}, which is no absolute path")))
        }
        (Some(path), _) => Ok(Some(PathBuf::from(path))),
        (None, Some(pid)) if !told => Ok(Some(PathBuf::from(format!("/proc/{pid}/ns/{kind}")))),
        (None, _) => Ok(None),
    };
    Ok(Namespaces {
        network: path(label::NETWORK, "net")?,
        ipc: path(label::IPC, "ipc")?,
        uts: path(label::UTS, "uts")?,
        pid: path(label::PID, "pid")?,
    })
}

/// The answer to Status, with what is known of the sandbox's start; none if there is no such sandbox.
pub fn of_status(
    id: &str,
    status: &Status,
    started: Option<&Started>,
) -> Option<v1::ControllerStatusResponse> {
    let (state, exit) = match status {
        Status::Created => (state::CREATED, None),
        Status::Running => (state::READY, None),
        Status::Stopped(exit) => (state::NOT_READY, Some(exit)),
        Status::Gone => return None,
    };
    let info = exit.map(|exit| (EXIT_CODE.to_owned(), exit.code.to_string()));
    Some(v1::ControllerStatusResponse {
        sandbox_id: id.to_owned(),
        pid: started.and_then(|started| started.pid).filter(|_| exit.is_none()).unwrap_or(0),
        state: state.to_owned(),
        info: info.into_iter().collect(),
        created_at: started.map(|started| timestamp(started.at)),
        exited_at: exit.map(|exit| timestamp(exit.at)),
        extra: None,
        address: started.map(|started| started.address.to_string()).unwrap_or_default(),
        version: TASK_VERSION,
    })
}

/// What the sandbox is in, by the answer to Status.
pub(super) fn status(answer: v1::ControllerStatusResponse) -> Result<Status, Fault> {
    match answer.state.as_str() {
        state::CREATED => Ok(Status::Created),
        state::READY => Ok(Status::Running),
        state::NOT_READY => {
            let code = answer.info.get(EXIT_CODE).and_then(|code| code.parse().ok());
            let at = nanos(answer.exited_at).unwrap_or_else(names::now);
            Ok(Status::Stopped(Exit { code: code.unwrap_or(UNSEEN), at }))
        }
        other => Err(Fault::Nonsense(format!("{other:?} is no state of a sandbox"))),
    }
}

/// The answer to Wait.
pub fn of_exit(exit: Exit) -> v1::ControllerWaitResponse {
    v1::ControllerWaitResponse {
        exit_status: exit.code.cast_unsigned(),
        exited_at: Some(timestamp(exit.at)),
    }
}

pub(super) fn exit(answer: v1::ControllerWaitResponse) -> Exit {
    let at = nanos(answer.exited_at).unwrap_or_else(names::now);
    Exit { code: answer.exit_status.cast_signed(), at }
}

pub fn of_platform(platform: Platform) -> v1::ControllerPlatformResponse {
    v1::ControllerPlatformResponse {
        platform: Some(types::Platform {
            os: platform.os,
            architecture: platform.architecture,
            variant: String::new(),
        }),
    }
}

pub(super) fn platform(answer: v1::ControllerPlatformResponse) -> Result<Platform, Fault> {
    let platform = answer.platform.unwrap_or_default();
    if platform.os.is_empty() || platform.architecture.is_empty() {
        return Err(Fault::Nonsense("it names no platform".to_owned()));
    }
    Ok(Platform { os: platform.os, architecture: platform.architecture })
}

/// Metrics are cgroups' own, or none that we know.
pub(super) fn stats(answer: v1::ControllerMetricsResponse) -> Result<shim_api::Stats, Fault> {
    let data = answer.metrics.and_then(|metric| metric.data);
    let data = data.ok_or_else(|| Fault::Nonsense("it has no metrics".to_owned()))?;
    let mut reply = shim_api::task::StatsResponse::default();
    let any = reply.stats.mut_or_insert_default();
    (any.type_url, any.value) = (data.type_url, data.value);
    reply.try_into().map_err(|error: shim_api::Error| Fault::Nonsense(error.to_string()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn started_with(labels: &[(&str, &str)], pid: u32) -> Result<Started, Fault> {
        let labels = labels.iter().map(|(key, path)| ((*key).to_owned(), (*path).to_owned()));
        started(v1::ControllerStartResponse {
            pid,
            address: "ttrpc+unix:///run/x.sock".into(),
            labels: labels.collect(),
            ..Default::default()
        })
    }

    #[test]
    fn a_start_survives_the_wire() {
        let before = Started {
            pid: None,
            at: 1_795_555_555_123_456_789,
            address: shim_api::Address::Unix("/run/s.sock".into()),
            namespaces: Namespaces {
                network: Some("/run/netns/a".into()),
                uts: Some("/u".into()),
                ..Default::default()
            },
        };
        assert_eq!(started(of_started("x", &before)).unwrap(), before);
    }

    #[test]
    fn a_sandboxer_without_our_labels_has_the_namespaces_of_its_process_or_none() {
        let of_process = started_with(&[("other", "x")], 7).unwrap();
        assert_eq!(of_process.namespaces.uts, Some("/proc/7/ns/uts".into()));
        assert_eq!(started_with(&[], 0).unwrap().namespaces, Namespaces::default());
        let told = started_with(&[(label::IPC, "/i")], 7).unwrap().namespaces;
        assert_eq!(told, Namespaces { ipc: Some("/i".into()), ..Default::default() });
    }

    #[test]
    fn a_namespace_that_is_no_absolute_path_is_not_taken_for_the_hosts() {
        let error = started_with(&[(label::UTS, "ns/uts")], 0).unwrap_err().to_string();
        assert!(error.contains(label::UTS), "{error}");
    }

    #[test]
    fn every_status_survives_the_wire_and_foreign_states_are_nonsense() {
        let exit = Exit { code: 137, at: 5 };
        for before in [Status::Created, Status::Running, Status::Stopped(exit)] {
            assert_eq!(status(of_status("x", &before, None).unwrap()).unwrap(), before);
        }
        assert!(of_status("x", &Status::Gone, None).is_none());
        let foreign = v1::ControllerStatusResponse { state: "FINE".into(), ..Default::default() };
        assert!(status(foreign).unwrap_err().to_string().contains("FINE"));
    }

    #[test]
    fn a_stop_that_tells_no_code_is_one_that_nobody_saw() {
        let answer =
            v1::ControllerStatusResponse { state: state::NOT_READY.into(), ..Default::default() };
        let Ok(Status::Stopped(exit)) = status(answer) else { panic!("it is stopped") };
        assert_eq!(exit.code, UNSEEN);
        assert!(exit.at > 0);
    }

    proptest! {
        #[test]
        fn times_and_exits_survive_the_wire(code: i32, at in 1..i64::MAX) {
            let before = Exit { code, at };
            prop_assert_eq!(exit(of_exit(before)), before);
        }

        #[test]
        fn no_answer_makes_it_panic(
            texts in proptest::collection::vec("\\PC{0,20}", 4),
            pid: u32,
            seconds: i64,
            nanos: i32,
            bytes: Vec<u8>,
        ) {
            let at = Some(Timestamp { seconds, nanos });
            let labels: BTreeMap<_, _> = [(label::IPC.to_owned(), texts[0].clone())].into();
            let _ = started(v1::ControllerStartResponse {
                pid, created_at: at, labels, address: texts[1].clone(), ..Default::default()
            });
            let _ = status(v1::ControllerStatusResponse {
                state: texts[2].clone(), exited_at: at, ..Default::default()
            });
            let url = [shim_api::METRICS_V1_URL, shim_api::METRICS_V2_URL, &texts[3]][pid as usize % 3];
            let data = Some(sandbox_api::Any { type_url: url.to_owned(), value: bytes });
            let metrics = Some(types::Metric { data, ..Default::default() });
            let _ = stats(v1::ControllerMetricsResponse { metrics });
        }
    }
}
