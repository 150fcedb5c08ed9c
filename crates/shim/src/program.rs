//! Becoming a container's program: finding it in PATH, running it, and saying why not in the words
//! that users of runc know. Everything happens inside the container.

use std::{
    collections::{HashMap, HashSet},
    ffi::CString,
    fs::File,
    io::{self, Read as _, Write as _},
    os::{fd::BorrowedFd, unix::fs::OpenOptionsExt as _},
    ptr,
};

use oci_spec::runtime::{LinuxCapabilities, Process};
use serde::{Deserialize, Serialize};

/// What a terminal is called if nobody says otherwise, as containerd has it.
const TERM: &str = "TERM=xterm";

/// Where programs are looked for if the container has no PATH, as runc does.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The most of a `passwd` file that is read, in bytes.
const PASSWD_LIMIT: u64 = 1 << 20;

/// Why a program does not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub words: String,
    /// The exit status that a shell would give: 127 not found, 126 not executable.
    pub code: i32,
    /// It is the program that is at fault, and not the runtime or the host.
    pub program: bool,
}

impl Failure {
    /// The runtime could not do this on the way.
    pub fn on_the_way<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self {
            words: format!("{doing}: {}", names::chain(&error.into())),
            code: 126,
            program: false,
        }
    }

    /// The runtime's own fault, in its own words.
    pub fn of_runtime(words: String) -> Self {
        Self { words, code: 126, program: false }
    }

    fn of_program(code: i32, words: String) -> Self {
        Self { words, code, program: true }
    }

    /// Sends it to whoever waits at the other end of the pipe.
    pub fn report(&self, to: BorrowedFd<'_>) {
        let told = serde_json::to_vec(self).unwrap_or_default();
        if let Ok(fd) = to.try_clone_to_owned() {
            // There is nobody else to tell.
            let _ = File::from(fd).write_all(&told);
        }
    }
}

/// Executes the process's program. Returns only if it cannot.
pub fn execute(process: &Process) -> Failure {
    let args = process.args().as_deref().unwrap_or_default();
    let Some(name) = args.first().filter(|name| !name.is_empty()) else {
        return Failure::of_program(127, "exec: no command".to_owned());
    };
    let environment = environment(process);
    let (Some(argv), Some(envp)) = (c_strings(args), c_strings(&environment)) else {
        return Failure::of_program(
            126,
            format!("exec {name:?}: an argument has a NUL byte in it"),
        );
    };
    let path = environment.iter().rev().find_map(|v| v.strip_prefix("PATH=")).unwrap_or(PATH);
    let mut worst = libc::ENOENT;
    for candidate in candidates(name, path) {
        let Ok(candidate) = CString::new(candidate) else { continue };
        match exec(&candidate, &argv, &envp) {
            libc::ENOENT | libc::ENOTDIR => {}
            libc::EACCES => worst = libc::EACCES,
            errno => return refused(name, errno),
        }
    }
    refused(name, worst)
}

fn refused(name: &str, errno: i32) -> Failure {
    let (code, why) = match errno {
        libc::ENOENT if !name.contains('/') => {
            (127, "executable file not found in $PATH".to_owned())
        }
        libc::ENOENT => (127, "no such file or directory".to_owned()),
        libc::EACCES => (126, "permission denied".to_owned()),
        libc::ENOEXEC => (126, "exec format error".to_owned()),
        errno => (126, io::Error::from_raw_os_error(errno).to_string()),
    };
    Failure::of_program(code, format!("exec: {name:?}: {why}"))
}

fn candidates(name: &str, path: &str) -> Vec<String> {
    if name.contains('/') {
        return vec![name.to_owned()];
    }
    // An empty entry of PATH is the working directory.
    let dir = |dir: &str| if dir.is_empty() { ".".to_owned() } else { dir.to_owned() };
    path.split(':').map(|entry| format!("{}/{name}", dir(entry))).collect()
}

/// The variables in their order, each with its last value; and HOME, if it is not among them.
fn environment(process: &Process) -> Vec<String> {
    let variables = process.env().as_deref().unwrap_or_default();
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let last: HashMap<String, &String> = variables.iter().map(|v| (name(v), v)).collect();
    let mut environment: Vec<String> = Vec::with_capacity(variables.len() + 1);
    for variable in variables {
        if last.get(&name(variable)).is_some_and(|last| std::ptr::eq(*last, variable)) {
            environment.push(variable.clone());
        }
    }
    if last.get("HOME").is_none_or(|home| home.as_str() == "HOME=") {
        environment.retain(|variable| variable != "HOME=");
        environment.push(format!("HOME={}", home_inside(process.user().uid())));
    }
    environment
}

/// Says to a process that has a terminal which kind it is, unless it knows.
pub fn name_terminal(process: &mut Process) {
    let mut environment = process.env().clone().unwrap_or_default();
    if !environment.iter().any(|variable| variable.starts_with("TERM=")) {
        environment.push(TERM.to_owned());
        process.set_env(Some(environment));
    }
}

/// What a process has that says nothing of capabilities: none, not even to be given.
pub fn no_capabilities() -> LinuxCapabilities {
    let mut none = LinuxCapabilities::default();
    let empty = || Some(HashSet::new());
    none.set_bounding(empty()).set_effective(empty()).set_inheritable(empty());
    none.set_permitted(empty()).set_ambient(empty());
    none
}

/// The user's home as `/etc/passwd` has it. We are inside the container, so that links lead
/// nowhere else, but the file may be anything: it is read without blocking, and not all of it.
fn home_inside(uid: u32) -> String {
    let open = File::options().read(true).custom_flags(libc::O_NONBLOCK).open("/etc/passwd");
    let regular = open.ok().filter(|file| file.metadata().is_ok_and(|m| m.is_file()));
    let mut passwd = Vec::new();
    if let Some(file) = regular {
        // What could be read is looked at; it is only for HOME.
        let _ = file.take(PASSWD_LIMIT).read_to_end(&mut passwd);
    }
    home(&passwd, uid)
}

/// The user's home in a `passwd` file, or `/`.
pub fn home(passwd: &[u8], uid: u32) -> String {
    let passwd = String::from_utf8_lossy(passwd);
    let line = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let own = fields.get(2).is_some_and(|field| field.parse() == Ok(uid));
        fields.get(5).filter(|home| own && home.starts_with('/')).map(|home| (*home).to_owned())
    };
    passwd.lines().find_map(line).unwrap_or_else(|| "/".to_owned())
}

fn c_strings(texts: &[String]) -> Option<Vec<CString>> {
    texts.iter().map(|text| CString::new(text.as_bytes()).ok()).collect()
}

/// Gives the error, since it returns only with one. Unlike `execvp`, it leaves a file without a
/// format alone, and does not hand it to a shell.
fn exec(path: &CString, argv: &[CString], envp: &[CString]) -> i32 {
    let list = |texts: &[CString]| -> Vec<*const libc::c_char> {
        texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
    };
    let (argv, envp) = (list(argv), list(envp));
    // What is ignored stays ignored over `execve`.
    // SAFETY: the default action needs no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    // SAFETY: the three point to NUL-terminated strings and null-terminated lists of them, which
    // live until the call returns.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::ProcessBuilder;

    use super::*;

    fn process(env: &[&str]) -> Process {
        let env: Vec<String> = env.iter().map(|v| (*v).to_owned()).collect();
        ProcessBuilder::default().args(["x".to_owned()]).env(env).cwd("/").build().unwrap()
    }

    #[test]
    fn a_variable_keeps_its_place_and_its_last_value_and_home_is_never_missing() {
        assert_eq!(
            environment(&process(&["A=1", "HOME=/h", "B=2", "A=3"])),
            ["HOME=/h", "B=2", "A=3"]
        );
        assert!(environment(&process(&["HOME="]))[0].starts_with("HOME=/"));
    }

    #[test]
    fn a_home_is_found_by_uid_and_is_else_the_root() {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\nbad\nb:x:7:7::relative:\nc:x:8:8::/c:\n";
        assert_eq!(home(passwd, 0), "/root");
        assert_eq!(home(passwd, 8), "/c");
        assert_eq!(home(passwd, 7), "/");
        assert_eq!(home(b"\xff", 9), "/");
    }

    #[test]
    fn a_failure_is_told_in_the_words_of_runc() {
        let missing = refused("foo", libc::ENOENT);
        assert_eq!(missing.words, "exec: \"foo\": executable file not found in $PATH");
        assert_eq!(missing.code, 127);
        assert_eq!(
            refused("/foo", libc::ENOENT).words,
            "exec: \"/foo\": no such file or directory"
        );
        assert_eq!(refused("/foo", libc::EACCES).code, 126);
    }
}
