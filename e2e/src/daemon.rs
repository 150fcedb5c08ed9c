//! One podbayd under test, with a place of its own.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::Duration,
};

use cri_proto::v1;
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    Cri, IMAGE, Place, ask, clean, eventually, eventually_within,
    image::{self, BUSYBOX},
    is_true, run, skip,
};

/// How a daemon is to be.
#[derive(Clone, Debug, Default)]
pub struct Options {
    settings: BTreeMap<String, String>,
    /// How the tmpfs is mounted that its root is to be on.
    root_mount: Option<String>,
}

impl Options {
    /// A key of the configuration, with dots, and its value in TOML.
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.insert(key.to_owned(), value.to_owned());
        self
    }

    /// On the network that the configuration in [`Place::net_d`] says, or none.
    pub fn by_cni(self) -> Self {
        self.set("network.fallback", r#""none""#)
    }

    /// With its root on a tmpfs of its own, of a size as mount(8) takes it.
    pub fn on_small_disk(mut self, size: &str) -> Self {
        self.root_mount = Some(format!("size={size}"));
        self
    }

    /// With its root on a filesystem from which nothing can be run.
    pub fn where_nothing_runs(mut self) -> Self {
        self.root_mount = Some("noexec".to_owned());
        self
    }
}

/// A daemon, and all that a test needs to know of it. Dropped, it is gone with all that it made.
pub struct Daemon {
    pub place: Place,
    options: Options,
    /// A command that runs what is appended to it: the daemon.
    within: Vec<String>,
    process: Option<Child>,
    cri: Cri,
}

impl Daemon {
    /// Starts a daemon that has the image [`IMAGE`]. None, and a word about it, if this host does not
    /// let it.
    ///
    /// # Panics
    /// The programs of podbay are not built, or the daemon does not serve.
    pub async fn start(options: Options) -> Option<Self> {
        let daemon = Self::start_bare(options).await?;
        daemon.make_image().await;
        Some(daemon)
    }

    /// Gives it the image [`IMAGE`].
    ///
    /// # Panics
    /// It does not take it.
    pub async fn make_image(&self) {
        self.cri.make_image(image::request(IMAGE)).await.expect("an image can be made");
    }

    /// The same, without an image.
    ///
    /// # Panics
    /// As above.
    pub async fn start_bare(options: Options) -> Option<Self> {
        let mut daemon = Self::prepare(options).await?;
        daemon.start_again().await;
        Some(daemon)
    }

    /// Makes all that a daemon needs, and does not start it: a test has more to prepare.
    ///
    /// # Panics
    /// The programs of podbay are not built.
    pub async fn prepare(options: Options) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            skip("it needs root");
            return None;
        }
        if ![BUSYBOX, "ip", "nft"].into_iter().all(crate::has) {
            return None;
        }
        clean::abandoned();
        let place = Place::new();
        clean::all(&place).await;
        make_folders(&place);
        let cri = Cri::at(&place.socket());
        let daemon = Self { place, options, within: Vec::new(), process: None, cri };
        if let Some(options) = &daemon.options.root_mount {
            let root = daemon.place.root().display().to_string();
            run("mount", &["-t", "tmpfs", "-o", options, "podbay-test", &root]);
        }
        fs::write(daemon.place.config(), daemon.toml()).expect("a test can write its files");
        Some(daemon)
    }

    /// Its configuration, as TOML.
    pub fn toml(&self) -> String {
        let mut settings = settings(&self.place);
        settings.extend(self.options.settings.clone());
        settings.iter().map(|(key, value)| format!("{key} = {value}\n")).collect()
    }

    /// Changes a key of the configuration, for the next start.
    pub fn set(&mut self, key: &str, value: &str) {
        self.options.settings.insert(key.to_owned(), value.to_owned());
        fs::write(self.place.config(), self.toml()).expect("a test can write its files");
    }

    /// Changes how it is to be, for the next start.
    ///
    /// # Panics
    /// The file cannot be written.
    pub fn reconfigure(&mut self, change: impl FnOnce(Options) -> Options) {
        self.options = change(self.options.clone());
        fs::write(self.place.config(), self.toml()).expect("a test can write its files");
    }

    /// Starts the daemon by a command that runs what is appended to it.
    ///
    /// # Panics
    /// It does not serve.
    pub async fn start_within(&mut self, command: &[&str]) {
        self.within = command.iter().map(|word| (*word).to_owned()).collect();
        self.start_again().await;
        self.within.clear();
    }

    /// A daemon in what it takes for a boot that the next start is not of: it sees another id, in a mount
    /// namespace of its own, which goes with all that is mounted in it, as it does when a machine goes
    /// down. None where that cannot be, which is said.
    ///
    /// # Panics
    /// It does not serve.
    pub async fn start_in_another_boot(options: Options) -> Option<Self> {
        if !crate::has("unshare") {
            return None;
        }
        let mut daemon = Self::prepare(options).await?;
        let boot = daemon.folder("boot").join("id");
        let id = "00000000-0000-4000-8000-000000000000\n";
        fs::write(&boot, id).expect("a test can write its files");
        let line = format!(
            "mount --bind {} /proc/sys/kernel/random/boot_id && exec \"$@\"",
            boot.display()
        );
        daemon.start_within(&["unshare", "--mount", "sh", "-c", &line, "sh"]).await;
        daemon.make_image().await;
        Some(daemon)
    }

    /// Takes away, at once, all that a machine loses when it goes down.
    ///
    /// # Panics
    /// Something does not go.
    pub async fn power_off(&mut self) {
        self.kill();
        clean::of_this_boot(&self.place).await;
    }

    /// Starts the daemon, and waits until it serves.
    ///
    /// # Panics
    /// It does not.
    pub async fn start_again(&mut self) {
        assert!(self.process.is_none(), "the daemon runs already");
        let log = fs::File::options().create(true).append(true).open(self.place.log());
        let mut command = self.command(&self.place.config());
        command.stderr(log.expect("a test can write its files"));
        self.process = Some(command.spawn().expect("podbayd is a program"));
        // A channel that has seen its daemon go waits before it tries again.
        self.cri = Cri::at(&self.place.socket());
        let cri = self.cri.clone();
        let serves = async || {
            assert!(!self.has_ended(), "the daemon has ended; its log follows");
            is_true(cri.runtime().version(v1::VersionRequest::default()).await.is_ok())
        };
        eventually("the daemon serves", serves).await;
    }

    /// A command that starts a podbayd by the configuration in that file.
    fn command(&self, config: &Path) -> Command {
        let program = program("podbayd").display().to_string();
        let words = self.within.iter().cloned().chain([program]).collect::<Vec<_>>();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("--config").arg(config);
        command.env("PODBAY_FAULT_FILE", self.place.fault()).stdin(Stdio::null());
        command
    }

    /// Runs one more daemon, by another configuration, which must end by itself.
    ///
    /// # Panics
    /// It does not.
    pub async fn one_more(&self, toml: &str) -> Output {
        let config = self.place.base.join("one-more.toml");
        fs::write(&config, toml).expect("a test can write its files");
        let mut command = self.command(&config);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.expect("podbayd is a program");
        let end = async || child.try_wait().expect("it is our child");
        let status = eventually_within(Duration::from_secs(10), "its end", end).await;
        let output = child.wait_with_output().expect("it is our child");
        Output { status, ..output }
    }

    fn has_ended(&mut self) -> bool {
        let ended = |process: &mut Child| process.try_wait().is_ok_and(|status| status.is_some());
        self.process.as_mut().is_none_or(ended)
    }

    /// SIGKILL.
    ///
    /// # Panics
    /// It does not run.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("the daemon runs");
        process.kill().expect("it is our child");
        process.wait().expect("it is our child");
    }

    /// SIGTERM; waits until it has ended.
    ///
    /// # Panics
    /// It does not.
    pub async fn terminate(&mut self) -> ExitStatus {
        kill_process(Pid::from_child(self.running()), Signal::TERM).expect("the daemon runs");
        self.died("the daemon ends when it is asked to").await
    }

    /// Waits until the daemon has ended by itself.
    ///
    /// # Panics
    /// It does not.
    pub async fn died(&mut self, why: &str) -> ExitStatus {
        let process = self.running();
        let end = async || process.try_wait().expect("it is our child");
        let status = eventually_within(Duration::from_secs(30), why, end).await;
        self.process = None;
        status
    }

    fn running(&mut self) -> &mut Child {
        self.process.as_mut().expect("the daemon was started")
    }

    /// The daemon's process id, while it runs.
    pub fn pid(&self) -> Option<i32> {
        self.process.as_ref().and_then(|process| i32::try_from(process.id()).ok())
    }

    /// A client of it.
    pub fn cri(&self) -> Cri {
        self.cri.clone()
    }

    /// A client that gives up after that time.
    pub fn hasty(&self, deadline: Duration) -> Cri {
        Cri::patient(&self.place.socket(), deadline)
    }

    /// A request for a pod of this name, whose log folder is made.
    ///
    /// # Panics
    /// The folder cannot be made.
    pub fn pod(&self, name: &str) -> v1::PodSandboxConfig {
        let logs = self.place.logs().join(name);
        fs::create_dir_all(&logs).expect("a test can make its folders");
        ask::pod(name, &logs)
    }

    /// Where that container of that pod logs.
    pub fn log_of(&self, pod: &str, container: &str) -> PathBuf {
        self.place.logs().join(pod).join(format!("{container}.log"))
    }

    /// A folder of the test's own, below its place.
    ///
    /// # Panics
    /// It cannot be made.
    pub fn folder(&self, name: &str) -> PathBuf {
        let folder = self.place.base.join("test").join(name);
        fs::create_dir_all(&folder).expect("a test can make its folders");
        folder
    }

    /// Lets something go wrong, from now on: `pod.Network:before:fail`.
    ///
    /// # Panics
    /// The file cannot be written.
    pub fn fault(&self, fault: &str) {
        let (half, whole) = (self.place.base.join("fault.new"), self.place.fault());
        let put = fs::write(&half, fault).and_then(|()| fs::rename(half, whole));
        put.expect("a test can write its files");
    }

    pub fn no_fault(&self) {
        let _ = fs::remove_file(self.place.fault());
    }

    /// All that the daemon has logged.
    pub fn said(&self) -> String {
        fs::read_to_string(self.place.log()).unwrap_or_default()
    }

    /// Tells what the daemon and the shims have said, after a test has failed.
    fn tell(&self) {
        const LAST: usize = 200;
        let said = self.said();
        let lines: Vec<_> = said.lines().collect();
        let last = &lines[lines.len().saturating_sub(LAST)..];
        eprintln!("---- {} ----\n{}", self.place.log().display(), last.join("\n"));
        for pod in fs::read_dir(self.place.state().join("pods")).into_iter().flatten().flatten() {
            let log = pod.path().join("shim.log");
            match fs::read_to_string(&log) {
                Ok(said) if !said.is_empty() => eprintln!("---- {} ----\n{said}", log.display()),
                _ => {}
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell();
        }
        let (place, process) = (self.place.clone(), self.process.take());
        // The test's own runtime is busy dropping this, and its connections stand still.
        let cleaned = clean::apart(async move || end(place, process).await);
        if cleaned.is_err() && !std::thread::panicking() {
            panic!("the host could not be cleaned up");
        }
    }
}

/// Removes what there is in order, and then whatever is left by force.
async fn end(place: Place, process: Option<Child>) {
    if let Some(mut process) = process {
        let cri = Cri::at(&place.socket());
        let orderly = tokio::time::timeout(Duration::from_secs(20), cri.remove_all()).await;
        if !matches!(orderly, Ok(Ok(()))) {
            eprintln!("the pods of {} could not be removed in order", place.base.display());
        }
        let _ = process.kill();
        let _ = process.wait();
    }
    clean::all(&place).await;
}

fn make_folders(place: &Place) {
    let folders = [
        place.root(),
        place.logs(),
        place.net_d(),
        place.cni_bin(),
        place.cni_cache(),
        place.certs_d(),
    ];
    for folder in folders {
        let made = fs::DirBuilder::new().recursive(true).mode(0o711).create(&folder);
        made.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    }
}

/// What every daemon under test is told.
fn settings(place: &Place) -> BTreeMap<String, String> {
    let text = |value: String| format!("{value:?}");
    let path = |value: PathBuf| format!("{:?}", value.display().to_string());
    let settings = [
        ("root", path(place.root())),
        ("state", path(place.state())),
        ("socket", path(place.socket())),
        ("log", text("info".into())),
        ("cgroups.driver", text("cgroupfs".into())),
        ("cgroups.parent", text(place.cgroup())),
        ("network.conf_dir", path(place.net_d())),
        ("network.bin_dirs", format!("[{}, {:?}]", path(place.cni_bin()), crate::plugin::BIN)),
        ("network.cache_dir", path(place.cni_cache())),
        ("network.deadline", text("10s".into())),
        ("network.fallback", text("bridge".into())),
        ("network.bridge.name", text(place.bridge())),
        ("network.bridge.subnets", format!("[\"{}.0/24\"]", place.subnet(false))),
        ("images.hosts_dirs", format!("[{}]", path(place.certs_d()))),
    ];
    settings.map(|(key, value)| (key.to_owned(), value)).into()
}

/// A program of podbay: in the folder that `PODBAY_BIN_DIR` names, or where cargo has put it, which
/// is the folder above that of the test.
pub(crate) fn program(name: &str) -> PathBuf {
    let folder = std::env::var_os("PODBAY_BIN_DIR").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| {
        let test = std::env::current_exe().expect("a test knows where it is");
        test.ancestors().nth(2).expect("a test is in target/*/deps").to_owned()
    });
    let program = folder.join(name);
    assert!(
        program.is_file(),
        "{} is not built; run: cargo build -p daemon --features faults && cargo build -p shim -p sandboxer",
        program.display()
    );
    program
}
