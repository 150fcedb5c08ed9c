//! Two daemons on one machine.

#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

use e2e::{Daemon, Options, sleeps};

#[tokio::test]
async fn two_daemons_do_not_touch_each_others_things() {
    let Some(mut one) = Daemon::start(Options::default()).await else { return };
    let Some(other) = Daemon::start(Options::default()).await else { return };
    let (clean, others_clean) = (one.warm_snapshot().await, other.warm_snapshot().await);
    let pod = one.cri().run_pod(&one.pod("same")).await.unwrap();
    let id = one.cri().launch(&pod, &sleeps("c")).await.unwrap();
    let twin = other.cri().run_pod(&other.pod("same")).await.unwrap();
    let others = other.cri().launch(&twin, &sleeps("c")).await.unwrap();
    let (mine, theirs) = (one.snapshot(), other.snapshot());
    assert_eq!(one.cri().pods().await.unwrap().len(), 1);

    one.kill();
    one.start_again().await;
    assert!(one.cri().is_ready(&pod).await.unwrap());
    other.assert_untouched(&theirs, "the other daemon's restart").await;
    one.cri().remove_pod(&twin).await.expect("it knows no such pod");
    one.cri().stop(&others, 0).await.expect("it knows no such container");
    assert!(other.cri().is_ready(&twin).await.unwrap());
    other.cri().remove_pod(&twin).await.unwrap();
    one.assert_untouched(&mine, "the other daemon's removal").await;
    assert_eq!(one.cri().shell(&id, "echo here").await.unwrap(), "here");
    one.cri().remove_pod(&pod).await.unwrap();
    one.assert_untouched(&clean, "its own pod").await;
    other.assert_untouched(&others_clean, "its own pod").await;
}

#[tokio::test]
async fn a_daemon_that_would_share_with_another_is_refused_and_touches_nothing() {
    let Some(node) = Daemon::start(Options::default()).await else { return };
    let cri = node.cri();
    let pod = cri.run_pod(&node.pod("p")).await.unwrap();
    let id = cri.launch(&pod, &sleeps("c")).await.unwrap();
    let before = node.snapshot();
    let with = |keys: &[&str]| {
        let other = |line: &str| match line.split_once(" = ") {
            Some((key, _)) if keys.contains(&key) => {
                format!("{key} = {:?}\n", node.folder("other").join(key).display().to_string())
            }
            _ => format!("{line}\n"),
        };
        node.toml().lines().map(other).collect::<String>()
    };
    let cases: [(&[&str], &str); 4] = [
        (&[], "state"),
        (&["root", "socket"], "state"),
        (&["state", "socket"], "root"),
        (&["root", "state"], "socket"),
    ];
    for (others, shared) in cases {
        let output = node.one_more(&with(others)).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "sharing {shared}: {said}");
        let last = said.lines().last().unwrap_or_default();
        assert!(last.starts_with("podbayd: "), "sharing {shared}: {said}");
        let file = node.place.base.join(match shared {
            "socket" => "podbay.sock",
            other => other,
        });
        assert!(last.contains(&file.display().to_string()), "sharing {shared}: {said}");
        assert!(cri.is_ready(&pod).await.unwrap(), "sharing {shared}");
    }
    assert_eq!(cri.shell(&id, "echo here").await.unwrap(), "here");
    node.assert_untouched(&before, "daemons that were refused").await;
}

#[tokio::test]
async fn a_configuration_that_is_wrong_is_refused_with_its_line() {
    let Some(node) = Daemon::prepare(Options::default()).await else { return };
    let output = node.one_more("root = \"/x\"\nscoket = \"/y\"\n").await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in ["one-more.toml", "line 2", "scoket", "socket"] {
        assert!(said.contains(part), "{said}");
    }
}
