//! Requests that are no streams, or not good ones.

use std::time::Duration;

use names::Class;
use streaming::{Ask, Config, Server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::place::{Place, attach, connect, exec, forward, parts, within};

/// The status, and the whole answer.
async fn ask(url: &str, method: &str, headers: &str) -> (u16, String) {
    let mut socket = connect(url).await;
    let request = format!("{method} {} HTTP/1.1\r\nHost: x\r\n{headers}\r\n", parts(url).1);
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within(socket.read_to_string(&mut answer)).await.unwrap();
    (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
}

const PLAIN: &str = "X-Stream-Protocol-Version: v4.channel.k8s.io\r\n";

#[tokio::test]
async fn a_url_is_good_once_and_even_a_bad_request_uses_it_up() {
    let place = Place::new().await;
    let url = place.server.url(exec(&["cat"], "i")).unwrap();
    let (status, answer) = ask(&url, "GET", PLAIN).await;
    assert_eq!(status, 400, "{answer}");
    assert!(answer.contains("unable to upgrade"), "{answer}");
    assert_eq!(ask(&url, "GET", PLAIN).await.0, 404);
    place.stop().await;
}

#[tokio::test]
async fn what_nobody_gave_out_is_not_found() {
    let place = Place::new().await;
    let url = place.server.url(exec(&["cat"], "i")).unwrap();
    for path in ["/", "/exec", "/exec/", "/exec/AAAAAAAA", "/nothing/here", "/exec/../x"] {
        let nothing = format!("http://{}{path}", parts(&url).0);
        assert_eq!(ask(&nothing, "POST", PLAIN).await.0, 404, "{path}");
    }
    assert_eq!(ask(&url.replace("/exec/", "/attach/"), "GET", PLAIN).await.0, 404);
    place.stop().await;
}

#[tokio::test]
async fn only_get_and_post_are_taken() {
    let place = Place::new().await;
    let url = place.server.url(exec(&["cat"], "i")).unwrap();
    assert_eq!(ask(&url, "PUT", PLAIN).await.0, 405);
    place.stop().await;
}

#[tokio::test]
async fn a_version_that_nobody_speaks_is_answered_with_those_that_are_spoken() {
    let place = Place::new().await;
    let upgrade = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n";
    let url = place.server.url(exec(&["cat"], "i")).unwrap();
    let unknown = format!("{upgrade}X-Stream-Protocol-Version: v9.channel.k8s.io\r\n");
    let (status, answer) = ask(&url, "POST", &unknown).await;
    assert_eq!(status, 403);
    let accepted = "x-accepted-stream-protocol-versions: v4.channel.k8s.io";
    assert!(answer.to_lowercase().contains(accepted), "{answer}");
    let url = place.server.url(exec(&["cat"], "i")).unwrap();
    assert_eq!(ask(&url, "POST", upgrade).await.0, 400);
    place.stop().await;
}

#[tokio::test]
async fn what_can_never_be_done_is_refused_before_there_is_a_url() {
    let place = Place::new().await;
    let refused = |ask: Ask| {
        let error = place.server.url(ask).unwrap_err();
        (error.class(), error.to_string())
    };
    let invalid = |words: &str| (Class::InvalidArgument, words.to_owned());
    let both = invalid("tty and stderr cannot both be true");
    assert_eq!(refused(exec(&["cat"], "toe")), both);
    assert_eq!(refused(attach("cat", "te")), both);
    let none = invalid("one of stdin, stdout, or stderr must be set");
    assert_eq!(refused(exec(&["cat"], "t")), none);
    assert_eq!(refused(attach("cat", "")), none);
    assert_eq!(refused(attach("", "i")), invalid("missing required container_id"));
    assert_eq!(refused(exec(&[], "i")), invalid("missing required cmd"));
    assert_eq!(refused(forward(&[80, 0])), invalid("ports go from 1 to 65535"));
    place.stop().await;
}

#[tokio::test]
async fn too_many_urls_that_nobody_uses_are_a_limit_that_time_lifts() {
    let place = Place::new().await;
    for _ in 0..1000 {
        place.server.url(forward(&[])).unwrap();
    }
    assert_eq!(place.server.url(forward(&[])).unwrap_err().class(), Class::ResourceExhausted);
    place.stop().await;
}

#[tokio::test]
async fn an_address_that_is_taken_is_said() {
    let place = Place::new().await;
    let url = place.server.url(forward(&[])).unwrap();
    let address = parts(&url).0.parse().unwrap();
    let config = Config { address, idle: Duration::from_secs(1), ..Config::default() };
    let error = Server::bind(config, place.fake.clone()).await.err().unwrap();
    assert!(names::chain(&error).starts_with(&format!("cannot listen for streams at {address}: ")));
    place.stop().await;
}
