//! Every verb but the demo.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use cri_proto::v1::ContainerState;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

use crate::fake::Fake;

/// A fake with a shop, its socket, and a directory for both.
struct Shop {
    fake: Fake,
    socket: PathBuf,
    place: TempDir,
}

fn place() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn shop() -> Shop {
    let (fake, place) = (Fake::with_a_shop(), place());
    Shop { socket: fake.serve(place.path()), fake, place }
}

fn podbay(socket: &Path, words: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_podbay"))
        .env("PODBAY_SOCKET", socket)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("podbay can be run")
}

async fn end_of(child: Child) -> Output {
    tokio::time::timeout(Duration::from_secs(60), child.wait_with_output())
        .await
        .expect("podbay ends within a minute")
        .expect("podbay can be waited for")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Shop {
    async fn run(&self, words: &[&str]) -> Output {
        end_of(podbay(&self.socket, words)).await
    }

    /// What is printed when all is well.
    async fn told(&self, words: &[&str]) -> String {
        let output = self.run(words).await;
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    }

    /// How it ends and what it complains of, when it is not.
    async fn refused(&self, words: &[&str]) -> (Option<i32>, String) {
        let output = self.run(words).await;
        (output.status.code(), text(&output.stderr))
    }

    fn write(&self, name: &str, content: &str) -> String {
        let path = self.place.path().join(name);
        fs::write(&path, content).expect("the directory is ours");
        path.to_str().expect("a path of ours").to_owned()
    }

    /// Gives the container `web` a log.
    fn put_log(&self, state: ContainerState, content: &str) -> String {
        let log = self.write("0.log", content);
        self.fake.put_container(&"c1".repeat(32), "web", state, &log);
        log
    }
}

#[tokio::test]
async fn versions_are_those_of_both_sides() {
    let told = shop().told(&["version"]).await;
    let ours = env!("CARGO_PKG_VERSION");
    assert_eq!(told, format!("podbay   {ours}\nruntime  fake 1.2.3\nCRI      v1\n"));
}

#[tokio::test]
async fn a_node_that_is_not_ready_says_why_and_fails() {
    let output = shop().run(&["status"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("NOT READY   NoNetworkConfig"));
    assert_eq!(text(&output.stderr), "");
}

#[tokio::test]
async fn pods_are_listed_with_their_addresses() {
    let told = shop().told(&["pods"]).await;
    let row = told.lines().nth(1).expect("there is a pod");
    assert!(row.starts_with("a0a0a0a0a0a0a   shop   default     Ready"), "{told}");
    assert!(row.ends_with("10.89.0.2"), "{told}");
}

#[tokio::test]
async fn pods_are_listed_for_programs_too() {
    let told = shop().told(&["pods", "-o", "json"]).await;
    let pods: serde_json::Value = serde_json::from_str(&told).expect("it is JSON");
    assert_eq!(pods[0]["metadata"]["name"], "shop");
    assert_eq!(pods[0]["createdAt"], "1970-01-01T00:00:01Z");
}

#[tokio::test]
async fn only_what_runs_is_listed_unless_all_is_wanted() {
    let shop = shop();
    let (some, all) = (shop.told(&["ps"]).await, shop.told(&["ps", "-a"]).await);
    assert!(some.contains("web") && !some.contains("init"), "{some}");
    assert!(all.contains("web") && all.contains("init"), "{all}");
}

#[tokio::test]
async fn a_pod_or_a_container_is_inspected_by_whatever_names_it() {
    let shop = shop();
    for (name, field, wanted) in [
        ("shop", "/info/pid", serde_json::json!(7)),
        ("a0a", "/status/network/ip", serde_json::json!("10.89.0.2")),
        ("web", "/info/config/args/0", serde_json::json!("nginx")),
        ("c2", "/status/state", serde_json::json!("CONTAINER_EXITED")),
    ] {
        let told = shop.told(&["inspect", name]).await;
        let told: serde_json::Value = serde_json::from_str(&told).expect("it is JSON");
        assert_eq!(told.pointer(field), Some(&wanted), "{name}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_named_with_where_to_look() {
    let (code, said) = shop().refused(&["inspect", "nothing"]).await;
    assert_eq!(code, Some(4));
    let wanted =
        "podbay: there is no pod or container nothing: see `podbay pods` and `podbay ps -a`\n";
    assert_eq!(said, wanted);
}

const LOG: &str = "2026-01-02T03:04:05Z stdout F one\n\
                   2026-01-02T03:04:06Z stderr F two\n\
                   2026-01-02T03:04:07Z stdout P thr\n\
                   2026-01-02T03:04:07Z stdout F ee\n";

#[tokio::test]
async fn logs_go_where_the_container_wrote_them() {
    let shop = shop();
    shop.put_log(ContainerState::ContainerRunning, LOG);
    let output = shop.run(&["logs", "web"]).await;
    assert_eq!(
        (text(&output.stdout), text(&output.stderr)),
        ("one\nthree\n".into(), "two\n".into())
    );
    assert_eq!(shop.told(&["logs", "--tail=1", "web"]).await, "three\n");
    let timed = shop.told(&["logs", "-t", "--tail=0", "web"]).await;
    assert_eq!(timed, "");
}

#[tokio::test]
async fn a_log_is_followed_until_its_container_ends() {
    let shop = shop();
    let log = shop.put_log(ContainerState::ContainerRunning, LOG);
    let mut child = podbay(&shop.socket, &["logs", "-f", "--tail=1", "web"]);
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    assert_eq!(lines.next_line().await.expect("it can be read").as_deref(), Some("three"));
    let append = |text: &str| {
        let mut file = fs::File::options().append(true).open(&log).expect("it is there");
        file.write_all(text.as_bytes()).expect("there is room");
    };
    append("2026-01-02T03:04:08Z stdout F four\n");
    assert_eq!(lines.next_line().await.expect("it can be read").as_deref(), Some("four"));
    append("2026-01-02T03:04:09Z stdout F last\n");
    let exited = ContainerState::ContainerExited;
    shop.fake.put_container(&"c1".repeat(32), "web", exited, &log);
    assert_eq!(lines.next_line().await.expect("it can be read").as_deref(), Some("last"));
    assert_eq!(lines.next_line().await.expect("it can be read"), None);
    assert!(end_of(child).await.status.success());
}

#[tokio::test]
async fn a_container_without_a_log_says_so() {
    let (code, said) = shop().refused(&["logs", "web"]).await;
    assert_eq!((code, &*said), (Some(1), "podbay: container web writes no log\n"));
}

#[tokio::test]
async fn exec_prints_and_exits_as_the_command_does() {
    let shop = shop();
    assert_eq!(shop.told(&["exec", "web", "--", "say", "-a", "b"]).await, "-a b\n");
    let output = shop.run(&["exec", "--timeout=5", "web", "--", "fail", "badly"]).await;
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(7), "badly\n".to_owned()));
    assert_eq!(shop.refused(&["exec", "nobody", "--", "say"]).await.0, Some(4));
}

#[tokio::test]
async fn stopping_a_pod_gives_its_containers_their_grace() {
    let shop = shop();
    assert_eq!(shop.told(&["stop", "--grace=3", "shop"]).await, "shop stopped\n");
    assert_eq!(shop.fake.asked(), ["stop container c1 in 3 s", "stop pod a0"]);
}

#[tokio::test]
async fn what_runs_is_not_removed_unless_it_is_forced() {
    let shop = shop();
    let (code, said) = shop.refused(&["rm", "web"]).await;
    assert_eq!(code, Some(1));
    let wanted = "container web still runs: `podbay stop web` first, or `podbay rm -f web`";
    assert_eq!(said, format!("podbay: {wanted}\n"));
    assert_eq!(shop.refused(&["rm", "shop"]).await.0, Some(1));
    assert_eq!(shop.fake.asked(), [""; 0]);
    assert_eq!(shop.told(&["rm", "init"]).await, "init removed\n");
    assert_eq!(shop.told(&["rm", "-f", "web"]).await, "web removed\n");
    assert_eq!(shop.fake.asked(), ["remove container c2", "remove container c1"]);
}

#[tokio::test]
async fn a_pull_tells_its_progress_in_lines_where_there_is_no_terminal() {
    let shop = shop();
    let output = shop.run(&["image", "pull", "nginx"]).await;
    assert_eq!(text(&output.stdout), "sha256:pulled\n");
    let wanted = "ababababababa downloading (2.0kB)\nababababababa done (2.0kB)\n";
    assert_eq!(text(&output.stderr), wanted);
}

#[tokio::test]
async fn a_password_comes_by_standard_input_and_is_not_shown() {
    let (fake, place) = (Fake::with_a_shop(), place());
    // A runtime that is not Podbay is asked in the plain way.
    for socket in [fake.serve(place.path()), fake.serve_cri_only(place.path())] {
        let words = ["image", "pull", "nginx", "--username=ann", "--password-stdin"];
        let mut child = podbay(&socket, &words);
        let mut input = child.stdin.take().expect("it is piped");
        input.write_all(b"hunter2\n").await.expect("it reads");
        drop(input);
        let output = end_of(child).await;
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(!(text(&output.stdout) + &text(&output.stderr)).contains("hunter2"));
    }
    assert_eq!(fake.asked(), ["pull nginx as ann:hunter2"; 2]);
}

#[tokio::test]
async fn an_archive_is_loaded_from_a_file_or_from_standard_input() {
    let shop = shop();
    // More than one piece, and not a whole number of them.
    let content = "x".repeat(5 << 19);
    let file = shop.write("archive.tar", &content);
    assert_eq!(shop.told(&["image", "load", &file]).await, "example.com/a:1\n");
    assert_eq!(text(&shop.fake.state().loaded.split_off(0)), content);

    let mut child = podbay(&shop.socket, &["image", "load", "-"]);
    child.stdin.take().expect("it is piped").write_all(b"archive").await.expect("it reads");
    assert!(end_of(child).await.status.success());
    assert_eq!(shop.fake.state().loaded, b"archive");
}

#[tokio::test]
async fn an_archive_that_cannot_be_read_is_named() {
    let shop = shop();
    let here = shop.place.path().to_str().expect("a path of ours");
    let (code, said) = shop.refused(&["image", "load", here]).await;
    assert_eq!(code, Some(1));
    assert!(said.starts_with(&format!("podbay: reading {here}: ")), "{said}");
}

#[tokio::test]
async fn a_saved_archive_is_whole_or_not_there() {
    let shop = shop();
    let file = shop.place.path().join("saved.tar");
    let name = file.to_str().expect("a path of ours");
    assert_eq!(shop.told(&["image", "save", "nginx", "-o", name]).await, "");
    assert_eq!(fs::read_to_string(&file).expect("it was saved"), "archive");
    assert_eq!(shop.told(&["image", "save", "nginx", "-o", "-"]).await, "archive");

    fs::remove_file(&file).expect("it was saved");
    shop.fake.state().breaks = true;
    let (code, said) = shop.refused(&["image", "save", "nginx", "-o", name]).await;
    assert_eq!((code, &*said), (Some(1), "podbay: SaveImage: DATA_LOSS: the disk burns\n"));
    let left = fs::read_dir(shop.place.path()).expect("it is there").count();
    assert_eq!(left, 1, "only the socket is left");
}

#[tokio::test]
async fn images_are_listed_named_and_removed() {
    let shop = shop();
    assert!(shop.told(&["image", "ls"]).await.contains("docker.io/library/nginx   1     0b0b"));
    shop.told(&["image", "tag", "nginx", "mine:1"]).await;
    let name = "docker.io/library/nginx:1";
    assert_eq!(shop.told(&["image", "rm", name]).await, format!("{name} removed\n"));
    assert_eq!(shop.refused(&["image", "rm", name]).await.0, Some(4));
    assert_eq!(shop.fake.asked(), ["tag nginx mine:1".to_owned(), format!("remove image {name}")]);
}

#[tokio::test]
async fn what_was_set_aside_is_listed_and_removed() {
    let shop = shop();
    assert!(shop.told(&["quarantine", "ls"]).await.contains("pod/x   pod    -     torn"));
    assert_eq!(shop.told(&["quarantine", "rm", "pod/x"]).await, "pod/x removed\n");
    assert_eq!(shop.fake.asked(), ["remove record pod/x"]);
}

#[tokio::test]
async fn another_runtime_does_not_do_everything_and_that_is_said() {
    let (fake, place) = (Fake::with_a_shop(), place());
    let socket = fake.serve_cri_only(place.path());
    let output = end_of(podbay(&socket, &["quarantine", "ls"])).await;
    assert_eq!(output.status.code(), Some(1));
    let wanted =
        "podbay: ListQuarantine: UNIMPLEMENTED: the runtime that answers there does not do this\n";
    assert_eq!(text(&output.stderr), wanted);
}

#[tokio::test]
async fn a_daemon_that_does_not_answer_is_asked_after() {
    let place = place();
    let never = place.path().join("never.sock");
    let dead = place.path().join("dead.sock");
    drop(UnixListener::bind(&dead).expect("the directory is fresh"));
    for socket in [never, dead] {
        let output = end_of(podbay(&socket, &["pods"])).await;
        assert_eq!(output.status.code(), Some(3));
        let wanted = format!(
            "podbay: podbayd does not answer at {}: is it running? (systemctl status podbayd)\n",
            socket.display()
        );
        assert_eq!(text(&output.stderr), wanted);
    }
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_is_no_error() {
    let shop = shop();
    let mut child = podbay(&shop.socket, &["image", "save", "nginx", "-o", "-"]);
    drop(child.stdout.take());
    let output = end_of(child).await;
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}
