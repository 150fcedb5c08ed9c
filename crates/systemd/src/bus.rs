//! The connection to systemd: made when it is first needed, kept, and made again when it broke. What is
//! called is systemd's Manager; how its jobs end is told by a signal, listened for before they are begun.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt as _;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    sync::{Mutex, broadcast},
    task::JoinHandle,
};
use zbus::{
    Connection, DynamicType, MatchRule, MessageStream, OwnedObjectPath, OwnedVariant, Type,
    Variant, connection::Builder, message,
};

use crate::{Error, Property, Scope, scope::OOM_POLICY};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const UNIT: &str = "org.freedesktop.systemd1.Unit";

/// How many ends of jobs a waiter may be behind, before it looks at its unit instead.
const BEHIND: usize = 1024;
/// After so long without word of a job, the unit is looked at: a signal may have been sent while systemd
/// executed itself anew.
const SILENCE: Duration = Duration::from_secs(1);
/// How long systemd is left alone that has just gone away, and how often.
const AWAY: Duration = Duration::from_millis(100);
const TRIES: u32 = 3;

/// The systemd of this machine. Clones are the same.
#[derive(Clone)]
pub struct Systemd {
    inner: Arc<Inner>,
}

struct Inner {
    /// `None` for the system bus.
    address: Option<String>,
    within: Duration,
    link: Mutex<Option<Arc<Link>>>,
    knows_oom_policy: AtomicBool,
}

/// An open connection.
struct Link {
    connection: Connection,
    ends: broadcast::Sender<End>,
    listening: JoinHandle<()>,
}

/// The end of a job.
#[derive(Clone)]
struct End {
    job: OwnedObjectPath,
    result: String,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Systemd {
    /// By the system bus. No call takes longer than `within`.
    pub fn of_this_machine(within: Duration) -> Self {
        Self::new(None, within)
    }

    /// By a bus at this address (`unix:path=/x`).
    pub fn at(address: impl Into<String>, within: Duration) -> Self {
        Self::new(Some(address.into()), within)
    }

    fn new(address: Option<String>, within: Duration) -> Self {
        let (link, knows_oom_policy) = (Mutex::default(), AtomicBool::new(true));
        Self { inner: Arc::new(Inner { address, within, link, knows_oom_policy }) }
    }

    /// Which version answers.
    ///
    /// # Errors
    /// If none does.
    pub async fn version(&self) -> Result<String, Error> {
        let doing = "asking the version of";
        let asked = |link: Arc<Link>| async move {
            link.property(MANAGER_PATH, MANAGER, "Version", doing, "systemd").await
        };
        self.call(doing, "systemd", asked).await
    }

    /// Starts a transient scope, and returns when it is active.
    ///
    /// # Errors
    /// [`Error::Exists`] if there is one of that name; else if systemd will not, or does not in time. It
    /// may exist all the same then.
    pub async fn start(&self, scope: &Scope) -> Result<(), Error> {
        let known = self.inner.knows_oom_policy.load(Ordering::Relaxed);
        match self.start_with(scope, known).await {
            Err(Error::UnknownProperty { why, .. }) if known && why.contains(OOM_POLICY) => {
                self.inner.knows_oom_policy.store(false, Ordering::Relaxed);
                self.start_with(scope, false).await
            }
            started => started,
        }
    }

    async fn start_with(&self, scope: &Scope, knows_oom_policy: bool) -> Result<(), Error> {
        let properties = scope.properties(knows_oom_policy);
        let properties: Vec<_> = properties.iter().map(Property::on_the_wire).collect();
        let beside: Vec<(&str, Vec<(&str, Variant<'_>)>)> = Vec::new();
        let (doing, name) = ("starting the scope", scope.name.as_str());
        let body = &(name, "fail", properties, beside);
        let is_done = |state: Option<&str>| state == Some("active");
        let started = |link: Arc<Link>| async move {
            link.job(doing, name, "StartTransientUnit", body, is_done).await
        };
        self.call(doing, name, started).await
    }

    /// Stops a unit, and returns when it has stopped. One that is not there has.
    ///
    /// # Errors
    /// If systemd will not, or does not in time.
    pub async fn stop(&self, unit: &str) -> Result<(), Error> {
        let doing = "stopping";
        let is_over = |state: Option<&str>| matches!(state, None | Some("inactive" | "failed"));
        let stopped = |link: Arc<Link>| async move {
            link.job(doing, unit, "StopUnit", &(unit, "replace"), is_over).await
        };
        match self.call(doing, unit, stopped).await {
            Err(Error::NoSuchUnit(_)) => Ok(()),
            stopped => stopped,
        }
    }

    /// Changes properties of a unit for as long as it lives.
    ///
    /// # Errors
    /// If systemd will not, or does not in time. None has changed then.
    pub async fn set(&self, unit: &str, properties: &[Property]) -> Result<(), Error> {
        let properties: Vec<_> = properties.iter().map(Property::on_the_wire).collect();
        let (doing, body) = ("changing", &(unit, true, properties));
        let changed = |link: Arc<Link>| async move {
            link.ask::<_, ()>(doing, unit, "SetUnitProperties", body).await
        };
        self.call(doing, unit, changed).await
    }

    /// Where the cgroup of a scope is, absolute in the hierarchy. None if there is no such scope.
    ///
    /// # Errors
    /// If systemd does not tell.
    pub async fn cgroup(&self, scope: &str) -> Result<Option<String>, Error> {
        let doing = "looking for";
        let interface = "org.freedesktop.systemd1.Scope";
        let found = |link: Arc<Link>| async move {
            let path: OwnedObjectPath = link.ask(doing, scope, "GetUnit", &(scope,)).await?;
            link.property::<String>(path.as_str(), interface, "ControlGroup", doing, scope).await
        };
        match self.call(doing, scope, found).await {
            Ok(path) => Ok(Some(path).filter(|path| !path.is_empty())),
            Err(Error::NoSuchUnit(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Does it over the open connection, and again if systemd was away; all within the time there is.
    async fn call<T, F>(
        &self,
        doing: &'static str,
        unit: &str,
        work: impl Fn(Arc<Link>) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let within = self.inner.within;
        let patient = async {
            for tried in 1..TRIES {
                match work(self.link().await?).await {
                    Err(error) if error.is_away() => tokio::time::sleep(AWAY * tried).await,
                    done => return done,
                }
            }
            work(self.link().await?).await
        };
        let late = |_| Error::Late { doing, unit: unit.to_owned(), within };
        tokio::time::timeout(within, patient).await.map_err(late)?
    }

    async fn link(&self) -> Result<Arc<Link>, Error> {
        let mut kept = self.inner.link.lock().await;
        if let Some(link) = kept.as_ref().filter(|link| !link.is_broken()) {
            return Ok(Arc::clone(link));
        }
        *kept = None;
        let link = Link::open(self.inner.address.as_deref()).await.map_err(Error::NoBus)?;
        Ok(Arc::clone(kept.insert(Arc::new(link))))
    }
}

impl Link {
    async fn open(address: Option<&str>) -> zbus::Result<Self> {
        let connection = match address {
            Some(address) => Builder::address(address),
            None => Builder::system(),
        };
        let connection = connection.build().await?;
        let rule = MatchRule::builder()
            .msg_type(message::Type::Signal)
            .sender(SYSTEMD)
            .interface(MANAGER)
            .member("JobRemoved")
            .path(MANAGER_PATH)
            .build()?;
        let signals = MessageStream::for_match_rule(rule, &connection, None).await?;
        // Without it systemd sends no signals; to ask for it twice does no harm.
        let manager = (Some(SYSTEMD), MANAGER_PATH, Some(MANAGER));
        connection.call_method(manager.0, manager.1, manager.2, "Subscribe", &()).await?;
        let (ends, _) = broadcast::channel(BEHIND);
        let listening = tokio::spawn(listen(signals, ends.clone()));
        Ok(Self { connection, ends, listening })
    }

    fn is_broken(&self) -> bool {
        self.connection.is_closed() || self.listening.is_finished()
    }

    /// Calls a method of the Manager.
    async fn ask<B, T>(
        &self,
        doing: &'static str,
        unit: &str,
        method: &'static str,
        body: &B,
    ) -> Result<T, Error>
    where
        B: Serialize + DynamicType,
        T: DeserializeOwned + Type,
    {
        let answer =
            self.connection.call_method(Some(SYSTEMD), MANAGER_PATH, Some(MANAGER), method, body);
        let answer = answer.await.map_err(|error| Error::of_call(doing, unit, error))?;
        answer.body().deserialize().map_err(|source| Error::BadAnswer {
            doing,
            unit: unit.to_owned(),
            source,
        })
    }

    async fn property<T>(
        &self,
        path: &str,
        interface: &str,
        name: &str,
        doing: &'static str,
        unit: &str,
    ) -> Result<T, Error>
    where
        T: TryFrom<OwnedVariant, Error = zbus::Error>,
    {
        let properties = Some("org.freedesktop.DBus.Properties");
        let body = (interface, name);
        let answer = self.connection.call_method(Some(SYSTEMD), path, properties, "Get", &body);
        let answer = answer.await.map_err(|error| Error::of_call(doing, unit, error))?;
        let value = answer.body().deserialize::<OwnedVariant>().and_then(T::try_from);
        value.map_err(|source| Error::BadAnswer { doing, unit: unit.to_owned(), source })
    }

    /// Calls a method that begins a job, and waits for its end.
    async fn job<B: Serialize + DynamicType>(
        &self,
        doing: &'static str,
        unit: &str,
        method: &'static str,
        body: &B,
        is_done: impl Fn(Option<&str>) -> bool,
    ) -> Result<(), Error> {
        let mut ends = self.ends.subscribe();
        let job: OwnedObjectPath = self.ask(doing, unit, method, body).await?;
        loop {
            match tokio::time::timeout(SILENCE, ends.recv()).await {
                Ok(Ok(End { job: other, .. })) if other != job => {}
                Ok(Ok(End { result, .. })) if result == "done" => return Ok(()),
                Ok(Ok(End { result, .. })) => {
                    return Err(Error::JobFailed { doing, unit: unit.to_owned(), result });
                }
                Ok(Err(broadcast::error::RecvError::Closed)) => return Err(closed(doing, unit)),
                Ok(Err(broadcast::error::RecvError::Lagged(_))) | Err(_) => {
                    if is_done(self.state(doing, unit).await?.as_deref()) {
                        return Ok(());
                    }
                }
            }
            if self.is_broken() {
                return Err(closed(doing, unit));
            }
        }
    }

    /// Whether a unit is active, as systemd says it; none if it is not there.
    async fn state(&self, doing: &'static str, unit: &str) -> Result<Option<String>, Error> {
        let path: OwnedObjectPath = match self.ask(doing, unit, "GetUnit", &(unit,)).await {
            Err(Error::NoSuchUnit(_)) => return Ok(None),
            path => path?,
        };
        self.property(path.as_str(), UNIT, "ActiveState", doing, unit).await.map(Some)
    }
}

fn closed(doing: &'static str, unit: &str) -> Error {
    let source = zbus::Error::InputOutput(Arc::new(std::io::ErrorKind::ConnectionReset.into()));
    Error::Away { doing, unit: unit.to_owned(), source }
}

/// Tells all who wait of the ends of jobs, until the connection breaks.
async fn listen(mut signals: MessageStream, ends: broadcast::Sender<End>) {
    while let Some(signal) = signals.next().await {
        let Ok(signal) = signal else { continue };
        let body = signal.body();
        let end = body.deserialize::<(u32, OwnedObjectPath, String, String)>();
        if let Ok((_, job, _, result)) = end {
            // Nobody may be waiting.
            let _ = ends.send(End { job, result });
        }
    }
}

#[cfg(test)]
mod tests;
