//! A real registry on a port of the loopback, and what is in it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tokio::net::TcpStream;

use crate::{Layout, eventually, is_true, run};

const PROGRAM: &str = "/usr/bin/docker-registry";

/// The name and the password of [`Registry::guarded`], and the line of the password file that says so
/// (bcrypt, the only kind that the registry takes).
pub const USER: (&str, &str) = ("reader", "sesame");
const PASSWORDS: &str = "reader:$2b$04$abcdefghijklmnopqrstuuinwY/tkBVrn3xrxQI/TgnMHhkvl85RW\n";

/// Runs until it is dropped.
pub struct Registry {
    pub port: u16,
    dir: PathBuf,
    process: Option<Child>,
    guarded: bool,
}

impl Registry {
    /// Starts one that keeps its things in a folder. None, and a word about it, without its programs.
    ///
    /// # Panics
    /// It does not serve.
    pub async fn start(dir: &Path) -> Option<Self> {
        Self::start_as(dir, false).await
    }

    /// One that wants a name and a password.
    ///
    /// # Panics
    /// It does not serve.
    pub async fn guarded(dir: &Path) -> Option<Self> {
        Self::start_as(dir, true).await
    }

    async fn start_as(dir: &Path, guarded: bool) -> Option<Self> {
        if !crate::has(PROGRAM) || !crate::has("skopeo") {
            return None;
        }
        let port = crate::free_port();
        let mut this = Self { port, dir: dir.to_owned(), process: None, guarded };
        this.start_again().await;
        Some(this)
    }

    /// # Panics
    /// It does not serve.
    pub async fn start_again(&mut self) {
        let config = self.dir.join("config.yml");
        fs::create_dir_all(&self.dir).expect("a test can make its folders");
        fs::write(&config, self.config()).expect("a test can write its files");
        fs::write(self.dir.join("passwords"), PASSWORDS).expect("a test can write its files");
        let log = fs::File::create(self.dir.join("log")).expect("a test can write its files");
        let mut command = Command::new(PROGRAM);
        command.arg("serve").arg(config).stdout(Stdio::null()).stderr(log);
        self.process = Some(command.spawn().expect("a test has looked for the program"));
        let port = self.port;
        let serves = async || is_true(TcpStream::connect(("127.0.0.1", port)).await.is_ok());
        eventually("the registry serves", serves).await;
    }

    fn config(&self) -> String {
        let dir = self.dir.display();
        let auth = match self.guarded {
            true => format!("auth:\n  htpasswd:\n    realm: tests\n    path: {dir}/passwords\n"),
            false => String::new(),
        };
        format!(
            "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {dir}/blobs\n\
             http:\n  addr: 127.0.0.1:{}\n{auth}",
            self.port
        )
    }

    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Puts an image into it: `app:1`.
    ///
    /// # Panics
    /// The registry does not take it.
    pub fn push(&self, layout: &Layout, name: &str) {
        let from = format!("oci:{}", layout.dir.display());
        let to = format!("docker://127.0.0.1:{}/{name}", self.port);
        let (user, password) = USER;
        let creds = format!("--dest-creds={user}:{password}");
        let mut args = vec!["copy", "--quiet", "--dest-tls-verify=false"];
        if self.guarded {
            args.push(&creds);
        }
        args.extend([from.as_str(), to.as_str()]);
        run("skopeo", &args);
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Tells a daemon, by its folder of hosts, that a port of the loopback stands in for a registry.
///
/// # Panics
/// The file cannot be written.
pub fn lead(certs_d: &Path, registry: &str, port: u16) {
    let dir = certs_d.join(registry);
    fs::create_dir_all(&dir).expect("a test can make its folders");
    let text = format!(
        "server = \"http://127.0.0.1:{port}\"\n\n[host.\"http://127.0.0.1:{port}\"]\n\
         capabilities = [\"pull\", \"resolve\"]\n"
    );
    fs::write(dir.join("hosts.toml"), text).expect("a test can write its files");
}
