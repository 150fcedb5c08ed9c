//! Against a bus of our own, with a systemd on it that does as it is told.

use std::{
    collections::BTreeMap,
    os::unix::net::UnixListener,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use names::Class;
use zbus::{
    Connection, DBusError, OwnedObjectPath, OwnedVariant, fdo, interface,
    object_server::SignalEmitter,
};

use super::*;
use crate::Value;

const SOON: Duration = Duration::from_secs(5);
const UNIT_PATH: &str = "/org/freedesktop/systemd1/unit/it";

/// What the fake is told, and what it has heard.
#[derive(Default)]
struct Told {
    /// How jobs end; none: nothing is told of it.
    result: Option<&'static str>,
    /// Properties that it does not know.
    unknown: Vec<&'static str>,
    units: BTreeMap<String, Vec<String>>,
    calls: Vec<String>,
    connections: Vec<Connection>,
}

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Told>>);

impl Fake {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap()
    }

    async fn ended(&self, emitter: &SignalEmitter<'_>, unit: &str) -> OwnedObjectPath {
        let job = OwnedObjectPath::try_from("/org/freedesktop/systemd1/job/7").unwrap();
        let result = self.told().result;
        if let Some(result) = result {
            // Before the caller even knows the job.
            Manager::job_removed(emitter, 7, job.clone(), unit, result).await.unwrap();
        }
        job
    }
}

#[derive(Debug, DBusError)]
#[zbus(prefix = "org.freedesktop.systemd1")]
enum Refusal {
    #[zbus(error)]
    ZBus(zbus::Error),
    NoSuchUnit(String),
}

struct Bus;

#[interface(name = "org.freedesktop.DBus")]
impl Bus {
    fn hello(&self) -> &'static str {
        ":1.7"
    }
    fn add_match(&self, _rule: &str) {}
    fn remove_match(&self, _rule: &str) {}
}

struct Manager(Fake);

#[interface(name = "org.freedesktop.systemd1.Manager")]
impl Manager {
    fn subscribe(&self) {}

    async fn start_transient_unit(
        &self,
        name: &str,
        _mode: &str,
        properties: Vec<(String, OwnedVariant)>,
        _beside: Vec<(String, Vec<(String, OwnedVariant)>)>,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> fdo::Result<OwnedObjectPath> {
        {
            let mut told = self.0.told();
            told.calls.push(format!("start {name}"));
            let names: Vec<String> = properties.into_iter().map(|(name, _)| name).collect();
            if let Some(unknown) = names.iter().find(|name| told.unknown.contains(&name.as_str())) {
                let why = format!("Cannot set property {unknown}, or unknown property.");
                return Err(fdo::Error::PropertyReadOnly(why));
            }
            told.units.insert(name.to_owned(), names);
        }
        Ok(self.0.ended(&emitter, name).await)
    }

    async fn stop_unit(
        &self,
        name: &str,
        _mode: &str,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<OwnedObjectPath, Refusal> {
        let known = self.0.told().units.remove(name).is_some();
        if !known {
            return Err(Refusal::NoSuchUnit(format!("Unit {name} not loaded.")));
        }
        Ok(self.0.ended(&emitter, name).await)
    }

    fn set_unit_properties(
        &self,
        name: &str,
        _runtime: bool,
        properties: Vec<(String, OwnedVariant)>,
    ) -> Result<(), Refusal> {
        let mut told = self.0.told();
        let unit = told.units.get_mut(name);
        let unit = unit.ok_or_else(|| Refusal::NoSuchUnit(format!("Unit {name} not loaded.")))?;
        unit.extend(properties.into_iter().map(|(name, _)| name));
        Ok(())
    }

    fn get_unit(&self, name: &str) -> Result<OwnedObjectPath, Refusal> {
        match self.0.told().units.contains_key(name) {
            true => Ok(OwnedObjectPath::try_from(UNIT_PATH).unwrap()),
            false => Err(Refusal::NoSuchUnit(format!("Unit {name} not loaded."))),
        }
    }

    #[zbus(property)]
    fn version(&self) -> &'static str {
        "257"
    }

    #[zbus(signal)]
    async fn job_removed(
        emitter: &SignalEmitter<'_>,
        id: u32,
        job: OwnedObjectPath,
        unit: &str,
        result: &str,
    ) -> zbus::Result<()>;
}

struct Unit;

#[interface(name = "org.freedesktop.systemd1.Unit")]
impl Unit {
    #[zbus(property)]
    fn active_state(&self) -> &'static str {
        "active"
    }
}

struct ScopeUnit;

#[interface(name = "org.freedesktop.systemd1.Scope")]
impl ScopeUnit {
    #[zbus(property)]
    fn control_group(&self) -> &'static str {
        "/a.slice/it.scope"
    }
}

/// A bus in a folder of its own, gone with it.
struct Place {
    dir: tempfile::TempDir,
    fake: Fake,
}

impl Place {
    fn new() -> Self {
        let (dir, fake) = (tempfile::tempdir().unwrap(), Fake::default());
        fake.told().result = Some("done");
        Self { dir, fake }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("bus")
    }

    fn client(&self, within: Duration) -> Systemd {
        Systemd::at(format!("unix:path={}", self.socket().display()), within)
    }

    /// Serves whoever comes.
    fn serve(&self) -> JoinHandle<()> {
        let _ = std::fs::remove_file(self.socket());
        let listener = UnixListener::bind(self.socket()).unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::UnixListener::from_std(listener).unwrap();
        let fake = self.fake.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let connection = Builder::unix_stream(stream.into_std().unwrap())
                    .server(zbus::Guid::generate())
                    .p2p()
                    .serve_at("/org/freedesktop/DBus", Bus)
                    .serve_at(MANAGER_PATH, Manager(fake.clone()))
                    .serve_at(UNIT_PATH, Unit)
                    .serve_at(UNIT_PATH, ScopeUnit)
                    .build()
                    .await
                    .unwrap();
                fake.told().connections.push(connection);
            }
        })
    }
}

fn scope(name: &str) -> Scope {
    Scope {
        name: name.into(),
        slice: "a.slice".into(),
        description: "x".into(),
        pid: 1,
        limits: vec![Property::new("MemoryMax", Value::Number(7))],
    }
}

#[tokio::test]
async fn a_scope_is_started_changed_and_stopped() {
    let place = Place::new();
    place.serve();
    let systemd = place.client(SOON);
    assert_eq!(systemd.version().await.unwrap(), "257");
    assert_eq!(systemd.cgroup("it.scope").await.unwrap(), None);
    systemd.start(&scope("it.scope")).await.unwrap();
    let has = |name: &str| place.fake.told().units["it.scope"].iter().any(|it| it == name);
    assert!(["Delegate", "PIDs", "OOMPolicy", "MemoryMax"].into_iter().all(has));
    assert_eq!(systemd.cgroup("it.scope").await.unwrap().unwrap(), "/a.slice/it.scope");
    systemd.set("it.scope", &[Property::new("CPUWeight", Value::Number(9))]).await.unwrap();
    assert!(has("CPUWeight"));
    systemd.stop("it.scope").await.unwrap();
    systemd.stop("it.scope").await.unwrap();
    assert_eq!(systemd.set("it.scope", &[]).await.unwrap_err().class(), Class::NotFound);
    assert_eq!(place.fake.told().connections.len(), 1, "one connection for all");
}

#[tokio::test]
async fn many_at_once_share_the_connection() {
    let place = Place::new();
    place.serve();
    let systemd = place.client(SOON);
    let mut all = tokio::task::JoinSet::new();
    for n in 0..50 {
        let systemd = systemd.clone();
        all.spawn(async move { systemd.start(&scope(&format!("{n}.scope"))).await.unwrap() });
    }
    all.join_all().await;
    assert_eq!(place.fake.told().units.len(), 50);
    assert_eq!(place.fake.told().connections.len(), 1);
}

#[tokio::test]
async fn a_property_that_an_older_systemd_does_not_know_is_left_out_from_then_on() {
    let place = Place::new();
    place.fake.told().unknown = vec![OOM_POLICY];
    place.serve();
    let systemd = place.client(SOON);
    systemd.start(&scope("a.scope")).await.unwrap();
    systemd.start(&scope("b.scope")).await.unwrap();
    assert_eq!(place.fake.told().calls, ["start a.scope", "start a.scope", "start b.scope"]);
    place.fake.told().unknown = vec!["MemoryMax"];
    let error = systemd.start(&scope("c.scope")).await.unwrap_err();
    assert!(error.to_string().contains("MemoryMax"), "{error}");
}

#[tokio::test]
async fn a_job_that_fails_is_told() {
    let place = Place::new();
    place.fake.told().result = Some("failed");
    place.serve();
    let error = place.client(SOON).start(&scope("it.scope")).await.unwrap_err();
    assert_eq!(error.class(), Class::FailedPrecondition);
    assert!(error.to_string().contains("\"failed\""), "{error}");
}

#[tokio::test]
async fn a_job_whose_end_nobody_tells_is_found_out_by_its_unit() {
    let place = Place::new();
    place.fake.told().result = None;
    place.serve();
    place.client(SOON).start(&scope("it.scope")).await.unwrap();
}

#[tokio::test]
async fn without_a_bus_it_is_said_at_once() {
    let place = Place::new();
    let begun = Instant::now();
    let error = place.client(SOON).start(&scope("it.scope")).await.unwrap_err();
    assert_eq!(error.class(), Class::Unavailable);
    assert!(error.to_string().contains("dbus.socket"), "{error}");
    assert!(begun.elapsed() < SOON);
}

#[tokio::test]
async fn a_bus_that_says_nothing_ends_the_call_at_its_deadline_and_holds_up_nobody_longer() {
    let place = Place::new();
    let _listener = UnixListener::bind(place.socket()).unwrap();
    let systemd = place.client(Duration::from_millis(100));
    let (name, other) = (scope("it.scope"), scope("other.scope"));
    let begun = Instant::now();
    let both = tokio::join!(systemd.start(&name), systemd.start(&other));
    for error in [both.0.unwrap_err(), both.1.unwrap_err()] {
        assert_eq!(error.class(), Class::DeadlineExceeded);
        assert!(error.to_string().contains(".scope did not end within 100ms"), "{error}");
    }
    assert!(begun.elapsed() < SOON);
}

#[tokio::test]
async fn a_connection_that_broke_is_made_again() {
    let place = Place::new();
    let server = place.serve();
    let systemd = place.client(SOON);
    systemd.start(&scope("a.scope")).await.unwrap();
    server.abort();
    let _ = server.await;
    let open = std::mem::take(&mut place.fake.told().connections);
    for connection in open {
        connection.close().await.unwrap();
    }
    std::fs::remove_file(place.socket()).unwrap();
    assert_eq!(systemd.start(&scope("b.scope")).await.unwrap_err().class(), Class::Unavailable);
    place.serve();
    systemd.start(&scope("c.scope")).await.unwrap();
}
