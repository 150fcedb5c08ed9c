//! What runtimes that are programs can do, by their own account: `runc features`, whose answer the
//! runtime specification describes. One that does not know the question is taken to be able to do
//! nothing of what not every one can.

use std::{io, process::Stdio, time::Duration};

use pods::Features;
use serde::Deserialize;
use tokio::{io::AsyncReadExt, process::Command, time::timeout};

/// How long a program may take to tell, which is nothing but printing a text.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long its answer may be, in bytes; it has some thousands.
const LONGEST: u64 = 1 << 20;

/// Asks a runtime.
pub(crate) async fn of(program: String) -> Features {
    let told = match timeout(PATIENCE, ask(&program)).await {
        Ok(told) => told.map(|answer| parse(&answer)),
        Err(late) => Err(late.into()),
    };
    match told {
        Ok(Some(features)) => features,
        Ok(None) => {
            tracing::warn!(runtime = program, "its answer to `features` is not understood");
            Features::default()
        }
        Err(error) => {
            tracing::info!(runtime = program, %error, "it does not tell its features");
            Features::default()
        }
    }
}

async fn ask(program: &str) -> io::Result<Vec<u8>> {
    let mut command = Command::new(program);
    command.arg("features").kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let mut answer = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(LONGEST).read_to_end(&mut answer).await?;
    }
    let status = child.wait().await?;
    if status.success() { Ok(answer) } else { Err(io::Error::other(status.to_string())) }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    mount_options: Option<Vec<String>>,
    linux: Option<Linux>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    namespaces: Option<Vec<String>>,
}

fn parse(answer: &[u8]) -> Option<Features> {
    let answer: Answer = serde_json::from_slice(answer).ok()?;
    let has = |words: &Option<Vec<String>>, wanted: &str| {
        words.iter().flatten().any(|word| word == wanted)
    };
    let linux = answer.linux.unwrap_or_default();
    Some(Features {
        recursive_read_only: has(&answer.mount_options, "rro"),
        user_namespaces: has(&linux.namespaces, "user"),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_runtime_can_do_what_it_says_and_nothing_else() {
        let features = |text: &str| {
            let features = parse(text.as_bytes()).unwrap();
            (features.recursive_read_only, features.user_namespaces)
        };
        assert_eq!(features("{}"), (false, false));
        assert_eq!(features(r#"{"mountOptions":null,"linux":null}"#), (false, false));
        assert_eq!(features(r#"{"mountOptions":["ro","rro"]}"#), (true, false));
        // Mounts are mapped before it, whether or not it could.
        assert_eq!(features(r#"{"linux":{"namespaces":["pid","user"]}}"#), (false, true));
        assert_eq!(parse(b"Incorrect Usage"), None);
    }

    #[tokio::test]
    async fn a_program_without_the_command_or_that_hangs_over_its_answer_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let program = |name: &str, line: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{line}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            path.display().to_string()
        };
        let good = r#"[ "$1" = features ] && echo '{"mountOptions":["rro"]}'"#;
        assert!(of(program("good", good)).await.recursive_read_only);
        for (name, line) in [
            ("old", "echo 'No help topic' >&2; exit 3"),
            ("odd", "echo something else"),
            ("bad", r#"echo '{"mountOptions":["rro"]}'; exit 1"#),
        ] {
            assert_eq!(of(program(name, line)).await, Features::default(), "{name}");
        }
        assert_eq!(of("/no/such/program".into()).await, Features::default());
    }

    proptest! {
        #[test]
        fn no_answer_panics(answer in prop::collection::vec(any::<u8>(), 0..200), text in "\\PC{0,200}") {
            let _ = (parse(&answer), parse(text.as_bytes()));
        }
    }
}
