//! Commands, over SPDY in each version and over WebSocket in each of its protocols.

use tokio_tungstenite::tungstenite::{Message, protocol::frame::coding::CloseCode};

use crate::{
    place::{Place, attach, exec},
    spdy_client::{Client as Spdy, upgrade},
    ws_client::Client as WebSocket,
};

const SUCCESS: &str = r#"{"metadata":{},"status":"Success"}"#;

#[tokio::test]
async fn over_spdy_a_command_echoes_and_its_success_comes_last() {
    let place = Place::new().await;
    let url = place.server.url(exec(&["cat"], "io")).unwrap();
    let (socket, version) = upgrade(&url, "v5.channel.k8s.io,v4.channel.k8s.io").await;
    assert_eq!(version, "v4.channel.k8s.io");
    let mut client = Spdy::over(socket);
    let error = client.typed("error").await;
    let stdin = client.typed("stdin").await;
    let stdout = client.typed("stdout").await;
    client.send(stdin, b"hello").await;
    client.until(|client| client.text(stdout) == "hello").await;
    client.end(stdin);
    client.finish().await;
    assert!(client.said_goodbye);
    assert_eq!((client.text(stdout), client.text(error)), ("hello".to_owned(), SUCCESS.to_owned()));
    assert!(client.heard(stdout).ended && client.heard(error).ended);
    drop(client);
    place.is_empty().await;
    place.stop().await;
}

#[tokio::test]
async fn over_spdy_the_exit_code_is_told_after_all_that_was_said() {
    let place = Place::new().await;
    let url = place.server.url(exec(&["say", "out", "err", "7"], "oe")).unwrap();
    let mut client = Spdy::open(&url, "v4.channel.k8s.io").await;
    // In an order that nobody prescribes.
    let stderr = client.typed("stderr").await;
    let stdout = client.typed("stdout").await;
    let error = client.typed("error").await;
    client.finish().await;
    assert_eq!((client.text(stdout), client.text(stderr)), ("out".to_owned(), "err".to_owned()));
    let status: serde_json::Value = serde_json::from_str(&client.text(error)).unwrap();
    assert_eq!(status["status"], "Failure");
    assert_eq!(status["reason"], "NonZeroExitCode");
    let cause = serde_json::json!([{"reason": "ExitCode", "message": "7"}]);
    assert_eq!(status["details"]["causes"], cause);
    place.stop().await;
}

#[tokio::test]
async fn over_spdy_older_versions_are_told_failures_in_words_and_nothing_of_success() {
    let place = Place::new().await;
    for version in ["v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"] {
        for (code, words) in [("0", ""), ("3", "command terminated with non-zero exit code: 3")] {
            let url = place.server.url(exec(&["say", "out", "", code], "o")).unwrap();
            let mut client = Spdy::open(&url, version).await;
            let (error, stdout) = (client.typed("error").await, client.typed("stdout").await);
            client.finish().await;
            assert_eq!((&*client.text(stdout), &*client.text(error)), ("out", words), "{version}");
        }
    }
    place.stop().await;
}

#[tokio::test]
async fn over_spdy_sizes_of_a_terminal_are_set_in_versions_that_have_them() {
    let place = Place::new().await;
    for version in ["v4.channel.k8s.io", "v3.channel.k8s.io"] {
        let url = place.server.url(exec(&["sizes"], "to")).unwrap();
        let mut client = Spdy::open(&url, version).await;
        client.typed("error").await;
        let (stdout, resize) = (client.typed("stdout").await, client.typed("resize").await);
        client.send(resize, b"{\"Width\":80,\"Height\":24}\n").await;
        client.until(|client| client.text(stdout) == "80x24\n").await;
        client.send(resize, b"{\"Width\":1,\"Height\":1}{\"Width\":0,\"Height\":2}").await;
        client.finish().await;
        assert_eq!(client.text(stdout), "80x24\n0x2\n", "the last of two counts");
    }
    let url = place.server.url(exec(&["say", "out", "", "0"], "to")).unwrap();
    let mut client = Spdy::open(&url, "v2.channel.k8s.io").await;
    client.typed("error").await;
    let stdout = client.typed("stdout").await;
    client.finish().await;
    assert_eq!(client.text(stdout), "out", "it began without a stream for sizes");
    place.stop().await;
}

#[tokio::test]
async fn over_spdy_why_a_command_is_not_begun_is_told() {
    let place = Place::new().await;
    let asks = [
        (exec(&["refuse"], "o"), "error executing command in container: there is no such program"),
        (attach("none", "o"), "error attaching to container: there is no such container"),
    ];
    for (ask, why) in asks {
        let url = place.server.url(ask).unwrap();
        let mut client = Spdy::open(&url, "v4.channel.k8s.io").await;
        let (error, stdout) = (client.typed("error").await, client.typed("stdout").await);
        client.finish().await;
        let status: serde_json::Value = serde_json::from_str(&client.text(error)).unwrap();
        assert_eq!(status["message"], format!("Internal error occurred: {why}"));
        assert_eq!((&status["reason"], &status["code"]), (&"InternalError".into(), &500.into()));
        assert_eq!(client.text(stdout), "");
    }
    place.stop().await;
}

#[tokio::test]
async fn who_is_attached_is_not_told_the_exit_code() {
    let place = Place::new().await;
    let url = place.server.url(attach("cat", "io")).unwrap();
    let mut client = Spdy::open(&url, "v4.channel.k8s.io").await;
    let (error, stdin) = (client.typed("error").await, client.typed("stdin").await);
    let stdout = client.typed("stdout").await;
    client.send(stdin, b"hello").await;
    client.end(stdin);
    client.finish().await;
    assert_eq!((client.text(stdout), client.text(error)), ("hello".to_owned(), SUCCESS.to_owned()));
    place.stop().await;
}

#[tokio::test]
async fn a_command_that_closes_its_stdin_is_not_held_up_by_what_is_sent_to_it() {
    let place = Place::new().await;
    let url = place.server.url(exec(&["deaf"], "io")).unwrap();
    let mut client = Spdy::open(&url, "v4.channel.k8s.io").await;
    let (error, stdin) = (client.typed("error").await, client.typed("stdin").await);
    let stdout = client.typed("stdout").await;
    client.send(stdin, &vec![1; 8 << 20]).await;
    place.fake.gate.open();
    client.finish().await;
    assert_eq!((client.text(stdout), client.text(error)), ("deaf".to_owned(), SUCCESS.to_owned()));
    place.stop().await;
}

#[tokio::test]
async fn over_websocket_a_command_echoes_and_a_closed_channel_ends_it() {
    let place = Place::new().await;
    let url = place.server.url(exec(&["cat"], "io")).unwrap();
    let mut client = WebSocket::open(&url, "v5.channel.k8s.io").await;
    assert_eq!(client.hear().await, (1, Vec::new()), "the command is attended to");
    client.send(0, b"hel").await;
    client.send(0, b"").await;
    client.send(1, b"not for the client to send").await;
    client.send(9, b"there is no such channel").await;
    client.send(0, b"lo").await;
    client.send(255, &[0]).await;
    client.send(0, b"too late").await;
    let (heard, why) = client.finish().await;
    assert_eq!(heard[1], b"hello");
    assert_eq!(String::from_utf8_lossy(&heard[3]), SUCCESS);
    assert_eq!(why.unwrap().code, CloseCode::Normal);
    drop(client);
    place.is_empty().await;
    place.stop().await;
}

#[tokio::test]
async fn over_websocket_each_protocol_tells_the_end_in_its_way() {
    let place = Place::new().await;
    let words = "command terminated with non-zero exit code: 7";
    for (protocol, json) in [("v4.channel.k8s.io", true), ("channel.k8s.io", false), ("", false)] {
        let url = place.server.url(exec(&["say", "out", "err", "7"], "oe")).unwrap();
        let mut client = WebSocket::open(&url, protocol).await;
        let (heard, _) = client.finish().await;
        assert_eq!((&*heard[1], &*heard[2]), (&b"out"[..], &b"err"[..]));
        let told = String::from_utf8_lossy(&heard[3]);
        assert!(if json { told.contains("NonZeroExitCode") } else { told == words }, "{told}");
    }
    place.stop().await;
}

#[tokio::test]
async fn over_websocket_base64_is_text_both_ways() {
    let place = Place::new().await;
    for protocol in ["v4.base64.channel.k8s.io", "base64.channel.k8s.io"] {
        let url = place.server.url(exec(&["cat"], "io")).unwrap();
        let mut client = WebSocket::open(&url, protocol).await;
        assert_eq!(client.next().await, Message::text("1"));
        client.say("0aGVsbG8=").await;
        assert_eq!(client.next().await, Message::text("1aGVsbG8="));
        client.say("0not base64").await;
        let Message::Close(Some(why)) = client.next().await else { panic!("it is the end") };
        assert_eq!(why.code, CloseCode::Invalid);
        client.ends().await;
    }
    place.is_empty().await;
    place.stop().await;
}

#[tokio::test]
async fn over_websocket_sizes_of_a_terminal_are_set() {
    let place = Place::new().await;
    let url = place.server.url(exec(&["sizes"], "to")).unwrap();
    let mut client = WebSocket::open(&url, "v5.channel.k8s.io").await;
    assert_eq!(client.hear().await, (1, Vec::new()));
    client.send(4, b"{\"Width\":0,\"Height\":2}").await;
    let (heard, _) = client.finish().await;
    assert_eq!((&*heard[1], &*heard[3]), (&b"0x2\n"[..], SUCCESS.as_bytes()));
    place.stop().await;
}

#[tokio::test]
async fn over_websocket_the_first_word_is_on_the_first_channel_that_there_is() {
    let place = Place::new().await;
    for (streams, first) in [("ioe", 1), ("ie", 2), ("i", 3)] {
        let url = place.server.url(exec(&["cat"], streams)).unwrap();
        let mut client = WebSocket::open(&url, "v5.channel.k8s.io").await;
        assert_eq!(client.hear().await, (first, Vec::new()));
        client.send(255, &[0]).await;
        assert_eq!(client.finish().await.0[3], SUCCESS.as_bytes());
    }
    place.stop().await;
}

#[tokio::test]
async fn over_websocket_a_protocol_that_nobody_speaks_is_forbidden() {
    let place = Place::new().await;
    let url = place.server.url(exec(&["cat"], "io")).unwrap();
    let refused = WebSocket::try_open(&url, "v9.channel.k8s.io").await.err().unwrap();
    assert!(refused.to_string().contains("403"), "{refused}");
    place.stop().await;
}
