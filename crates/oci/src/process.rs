//! What runs in a container: arguments, environment, working directory, user.

use oci_spec::runtime::{Process, User};

use crate::{
    capabilities::Sets,
    config::Warning,
    paths::{clean, is_at_or_below},
    plan::{self, Env, ImageProcess, Node, Plan},
    rejected::Rejected,
    user,
};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(crate) fn of(
    plan: &Plan,
    sets: Sets,
    warnings: &mut Vec<Warning>,
) -> Result<Process, Rejected> {
    let asked = &plan.process;
    let security = &plan.security;
    let apparmor = security.apparmor.clone().filter(|_| !security.privileged);
    // One that asks for nothing does not inherit its supervisor's, which is to outlive all containers.
    let oom_score = match asked.oom_score_adj {
        Some(score) => oom_score(score, &plan.node, Some(warnings))?,
        None => oom_score(0, &plan.node, None)?,
    };
    let mut process = Process::default();
    process
        .set_terminal(Some(asked.tty))
        .set_user(user(&asked.user))
        .set_args(Some(args(&asked.image, &asked.command, &asked.args)?))
        .set_env(Some(env(asked, &plan.pod.hostname)?))
        .set_cwd(working_dir(asked)?.into())
        .set_capabilities(Some(sets.into_spec()))
        .set_rlimits(None)
        .set_no_new_privileges(Some(security.no_new_privs))
        .set_apparmor_profile(apparmor)
        .set_selinux_label(security.process_label.clone())
        .set_oom_score_adj(Some(oom_score));
    Ok(process)
}

pub(crate) fn user(of: &user::User) -> User {
    let mut user = User::default();
    user.set_uid(of.uid).set_gid(of.gid).set_additional_gids(Some(of.groups.clone()));
    user
}

/// The rule of Kubernetes: a command replaces entrypoint and command of the image, arguments
/// replace the image's command.
fn args(
    image: &ImageProcess,
    command: &[String],
    args: &[String],
) -> Result<Vec<String>, Rejected> {
    // An entrypoint of one empty word is how images say that they have none.
    let entrypoint = if image.entrypoint == [""] { &[] } else { &image.entrypoint[..] };
    let all = match (command, args) {
        ([], []) => [entrypoint, &image.cmd].concat(),
        ([], args) => [entrypoint, args].concat(),
        (command, args) => [command, args].concat(),
    };
    if all.is_empty() {
        return Err(Rejected::new(
            "config.command",
            "no command specified, and the image has none of its own",
        ));
    }
    if all.iter().any(|arg| arg.contains('\0')) {
        return Err(Rejected::new("config.command", "has a zero byte in it"));
    }
    Ok(all)
}

/// The image's variables, and over them those of the request. Nothing comes from the host.
fn env(process: &plan::Process, hostname: &str) -> Result<Vec<String>, Rejected> {
    let mut env = Environment::default();
    env.set("PATH", PATH);
    if process.tty {
        env.set("TERM", "xterm");
    }
    env.set("HOSTNAME", hostname);
    for variable in &process.image.env {
        // A name alone has no value: an empty one, and not that of a variable of ours.
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        if name.is_empty() || variable.contains('\0') {
            let why = "the image has a variable without a name, or with a zero byte in it";
            return Err(Rejected::new("image.config.env", why));
        }
        env.set(name, value);
    }
    for (at, Env { name, value }) in process.env.iter().enumerate() {
        let field = format!("config.envs[{at}]");
        if name.is_empty() || name.contains(['=', '\0']) {
            let why = format!("{name:?} is not a name for a variable");
            return Err(Rejected::new(field, why));
        }
        let value = str::from_utf8(value).ok().filter(|value| !value.contains('\0'));
        let why = || format!("the value of {name} is not UTF-8 text without zero bytes");
        env.set(name, value.ok_or_else(|| Rejected::new(field, why()))?);
    }
    // Else the runtime would look for it in the container's /etc/passwd, with code of its own.
    env.set_if_empty("HOME", process.user.home.as_deref().unwrap_or("/"));
    Ok(env.0.into_iter().map(|(name, value)| format!("{name}={value}")).collect())
}

/// Variables in the order in which they were first set.
#[derive(Default)]
pub(crate) struct Environment(Vec<(String, String)>);

impl Environment {
    fn set(&mut self, name: &str, value: &str) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.0.push((name.to_owned(), value.to_owned())),
        }
    }

    fn set_if_empty(&mut self, name: &str, value: &str) {
        if !self.0.iter().any(|(known, old)| known == name && !old.is_empty()) {
            self.set(name, value);
        }
    }
}

/// The request's, else the image's, else the root.
fn working_dir(process: &plan::Process) -> Result<String, Rejected> {
    let (field, asked) = match (&process.working_dir[..], &process.image.working_dir[..]) {
        ("", image) => ("image.config.working_dir", image),
        (asked, _) => ("config.working_dir", asked),
    };
    if asked.contains('\0') || leads_to_descriptors(asked) {
        return Err(Rejected::new(field, format!("{asked:?} is no place to start in")));
    }
    Ok(if asked.starts_with('/') { asked.to_owned() } else { clean(asked) })
}

/// A descriptor that a runtime forgot to close leads out of the container (CVE-2024-21626).
fn leads_to_descriptors(path: &str) -> bool {
    let path = clean(path);
    is_at_or_below(&path, "/proc") && path.split('/').any(|part| part == "fd")
        || is_at_or_below(&path, "/dev/fd")
}

/// The wish, but not below what we may set.
pub(crate) fn oom_score(
    wish: i64,
    node: &Node,
    warnings: Option<&mut Vec<Warning>>,
) -> Result<i32, Rejected> {
    let field = "config.linux.resources.oom_score_adj";
    let wish = i32::try_from(wish).ok().filter(|wish| (-1000..=1000).contains(wish));
    let wish = wish.ok_or_else(|| Rejected::new(field, "is not between -1000 and 1000"))?;
    match node.oom_score_floor {
        Some(floor) if wish < floor => {
            let what = format!("{floor} instead of {wish}: we may not go below our own");
            warnings.into_iter().for_each(|all| all.push(Warning::new(field, what.clone())));
            Ok(floor)
        }
        _ => Ok(wish),
    }
}

/// For processes of ours that have no image and no request.
pub(crate) fn plain_env(more: &[String]) -> Vec<String> {
    std::iter::once(format!("PATH={PATH}")).chain(more.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| (*w).to_owned()).collect()
    }

    #[test]
    fn command_and_args_replace_what_the_image_says_as_kubernetes_has_it() {
        let image =
            ImageProcess { entrypoint: words(&["e"]), cmd: words(&["c"]), ..Default::default() };
        let table: [(&[&str], &[&str], &[&str]); 4] = [
            (&[], &[], &["e", "c"]),
            (&[], &["a"], &["e", "a"]),
            (&["x"], &[], &["x"]),
            (&["x"], &["a"], &["x", "a"]),
        ];
        for (command, given, expected) in table {
            assert_eq!(args(&image, &words(command), &words(given)).unwrap(), words(expected));
        }
        let none = ImageProcess { entrypoint: words(&[""]), ..Default::default() };
        let error = args(&none, &[], &[]).unwrap_err();
        assert!(error.to_string().contains("no command specified"), "{error}");
    }

    fn process(image: &[&str], asked: &[(&str, &[u8])]) -> plan::Process {
        let mut process = crate::tests::plan().process;
        process.image.env = words(image);
        let one = |(name, value): &(&str, &[u8])| Env {
            name: (*name).to_owned(),
            value: (*value).to_vec(),
        };
        process.env = asked.iter().map(one).collect();
        process
    }

    #[test]
    fn a_variable_is_overridden_where_it_stands() {
        let process = process(&["A=1", "B=2", "ALONE", "PATH=/x"], &[("A", b"9"), ("C", b"=")]);
        let expected =
            ["PATH=/x", "HOSTNAME=h", "A=9", "B=2", "ALONE=", "C==", "HOME=/home/someone"];
        assert_eq!(env(&process, "h").unwrap(), expected);
    }

    #[test]
    fn a_variable_that_json_cannot_hold_is_rejected_by_name_and_its_value_is_not_told() {
        let process = process(&[], &[("GOOD", b"1"), ("SECRET", b"s3\xff")]);
        let error = env(&process, "h").unwrap_err();
        assert_eq!(error.field(), "config.envs[1]");
        assert!(error.to_string().contains("SECRET") && !error.to_string().contains("s3"));
        assert!(!format!("{process:?}").contains("115, 51"), "not even to a debugger");
        for (name, value) in [("", &b"x"[..]), ("a=b", b"x"), ("A", b"a\0b")] {
            assert!(env(&self::process(&[], &[(name, value)]), "h").is_err(), "{name:?}");
        }
    }

    #[test]
    fn no_working_directory_leads_to_a_descriptor() {
        let mut process = process(&[], &[]);
        process.image.working_dir = "srv".into();
        assert_eq!(working_dir(&process).unwrap(), "/srv");
        for bad in ["/proc/self/fd/7", "/proc/1/fd/", "/a/../proc/thread-self/fd/3", "/dev/fd/3"] {
            process.working_dir = bad.into();
            assert!(working_dir(&process).is_err(), "{bad}");
        }
        process.working_dir = "/proc/self".into();
        assert!(working_dir(&process).is_ok());
    }

    #[test]
    fn a_wish_below_our_own_oom_score_is_clipped_and_told() {
        let mut node = crate::tests::node();
        node.oom_score_floor = Some(0);
        let mut warnings = Vec::new();
        assert_eq!(oom_score(-998, &node, Some(&mut warnings)), Ok(0));
        assert_eq!(warnings.len(), 1);
        assert_eq!(oom_score(900, &node, None), Ok(900));
        node.oom_score_floor = None;
        assert_eq!(oom_score(-998, &node, None), Ok(-998));
        assert!(oom_score(1001, &node, None).is_err());
        assert!(oom_score(i64::MIN, &node, None).is_err());
    }
}
