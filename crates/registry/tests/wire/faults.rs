//! Servers that fail, lie or stall while a manifest is asked for.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use names::Class;
use registry::{Error, LARGEST_MANIFEST};

use crate::{
    evil::{Evil, Reply, Then},
    scene::{MANIFEST, Scene, TYPE, digest, good, hasty, image, patient},
};

/// Fails this often before all is well.
async fn failing(times: usize, failure: Reply) -> Evil {
    let asked = AtomicUsize::new(0);
    Evil::start(
        move |_| {
            if asked.fetch_add(1, Ordering::SeqCst) < times { failure.clone() } else { good() }
        },
    )
    .await
}

async fn always(reply: Reply) -> Evil {
    Evil::start(move |_| reply.clone()).await
}

#[tokio::test]
async fn a_manifest_comes_with_its_digest_and_type() {
    let server = always(good()).await;
    let fetched = Scene::at(patient(), &server).manifest(None).await.unwrap();
    assert_eq!(fetched.digest, digest(MANIFEST.as_bytes()));
    assert_eq!(fetched.media_type, TYPE);
    let seen = &server.seen()[0];
    assert_eq!(seen.target, "/v2/lib/app/manifests/v1?ns=r.test");
    for wanted in ["image.index.v1", "image.manifest.v1", "manifest.list.v2", "manifest.v2"] {
        assert!(seen.header("accept").unwrap().contains(wanted), "{wanted}");
    }
    assert!(seen.header("user-agent").unwrap().starts_with("podbay/"));
}

#[tokio::test]
async fn a_server_that_recovers_is_asked_again() {
    for failure in [
        Reply::new(503, ""),
        Reply::new(500, ""),
        Reply::new(408, ""),
        Reply::raw("", Then::Close),
        Reply::ok(&MANIFEST[..20]).promising(MANIFEST.len()).then(Then::Close),
    ] {
        let server = failing(2, failure).await;
        Scene::at(patient(), &server).manifest(None).await.unwrap();
        assert_eq!(server.seen().len(), 3);
    }
}

#[tokio::test]
async fn a_server_that_does_not_recover_is_given_up_and_named() {
    let server = always(Reply::new(
        503,
        r#"{"errors":[{"code":"UNAVAILABLE","message":"the disk is full"}]}"#,
    ))
    .await;
    let error = Scene::at(patient(), &server).manifest(None).await.unwrap_err();
    assert_eq!(error.class(), Class::Unavailable);
    assert_eq!(server.seen().len(), 3);
    let text = error.to_string();
    for part in ["r.test/lib/app:v1", &server.url(), "503", "UNAVAILABLE: the disk is full"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_is_unavailable() {
    let server = always(good()).await;
    let scene = Scene::at(patient(), &server);
    drop(server);
    let error = scene.manifest(None).await.unwrap_err();
    assert_eq!(error.class(), Class::Unavailable);
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn retry_after_is_waited_for() {
    let server = failing(1, Reply::new(429, "").header("retry-after", "1")).await;
    let began = Instant::now();
    Scene::at(patient(), &server).manifest(None).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_retry_after_beyond_patience_is_an_error_at_once() {
    let server = always(Reply::new(429, "").header("retry-after", "86400")).await;
    let error = Scene::at(patient(), &server).manifest(None).await.unwrap_err();
    assert_eq!(error.class(), Class::Unavailable);
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_server_that_never_answers_is_too_slow() {
    let server = always(Reply::raw("", Then::Hang)).await;
    let error = Scene::at(hasty(), &server).manifest(None).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut(_)), "{error}");
    assert_eq!(error.class(), Class::DeadlineExceeded);
}

#[tokio::test]
async fn headers_that_trickle_in_are_too_slow() {
    let server =
        always(Reply::raw("HTTP/1.1 200 OK\r\nx: ", Then::Trickle(Duration::from_millis(5)))).await;
    let error = Scene::at(hasty(), &server).manifest(None).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut(_)), "{error}");
}

#[tokio::test]
async fn headers_without_end_are_refused() {
    let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(4 << 20));
    let server = always(Reply::raw(endless, Then::Hang)).await;
    let error = Scene::at(patient(), &server).manifest(None).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
}

#[tokio::test]
async fn a_body_that_stops_is_too_slow() {
    let half = Reply::ok(&MANIFEST[..20]).promising(MANIFEST.len()).then(Then::Hang);
    let error = Scene::at(hasty(), &always(half).await).manifest(None).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut(_)), "{error}");
}

#[tokio::test]
async fn a_manifest_that_promises_to_be_too_large_is_refused_before_it_comes() {
    let size = usize::try_from(LARGEST_MANIFEST).unwrap() + 1;
    let server = always(Reply::ok("{").promising(size).then(Then::Hang)).await;
    let error = Scene::at(patient(), &server).manifest(None).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge(_)), "{error}");
}

#[tokio::test]
async fn a_manifest_that_turns_out_too_large_is_refused() {
    let size = usize::try_from(LARGEST_MANIFEST).unwrap() + 1;
    let server = always(Reply::ok(vec![b' '; size]).chunked(false).then(Then::Hang)).await;
    let error = Scene::at(patient(), &server).manifest(None).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge(_)), "{error}");
}

#[tokio::test]
async fn a_manifest_of_another_digest_is_refused() {
    let server = always(good()).await;
    let scene = Scene::at(patient(), &server);
    let right = digest(MANIFEST.as_bytes());
    scene.registry.manifest(&image(), right.as_str(), None).await.unwrap();
    let wrong = digest(b"other");
    let error = scene.registry.manifest(&image(), wrong.as_str(), None).await.unwrap_err();
    assert!(matches!(error, Error::DigestMismatch(_)), "{error}");
    assert_eq!(error.class(), Class::DataLoss);
}

#[tokio::test]
async fn a_digest_in_the_header_that_is_not_the_bodys_is_refused() {
    let lying = Reply::ok(MANIFEST)
        .header("content-type", TYPE)
        .header("docker-content-digest", digest(b"other").as_str());
    let error = Scene::at(patient(), &always(lying).await).manifest(None).await.unwrap_err();
    assert!(matches!(error, Error::DigestMismatch(_)), "{error}");
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let server =
        always(Reply::new(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no"}]}"#)).await;
    let error = Scene::at(patient(), &server).manifest(None).await.unwrap_err();
    assert_eq!(error.class(), Class::NotFound);
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn dockers_first_schema_is_refused_by_name() {
    let old = Reply::ok(r#"{"schemaVersion":1}"#)
        .header("content-type", "application/vnd.docker.distribution.manifest.v1+prettyjws");
    let error = Scene::at(patient(), &always(old).await).manifest(None).await.unwrap_err();
    assert_eq!(error.class(), Class::Unimplemented);
    assert!(error.to_string().contains("schema 1"), "{error}");
}

#[tokio::test]
async fn a_login_page_is_against_the_protocol() {
    let page = Reply::ok("<html>Welcome to our hotel</html>").header("content-type", "text/html");
    let error = Scene::at(patient(), &always(page).await).manifest(None).await.unwrap_err();
    assert!(matches!(error, Error::Protocol(_)), "{error}");
}

#[tokio::test]
async fn what_is_no_http_is_an_error() {
    let server = always(Reply::raw(vec![0xff; 64], Then::Close)).await;
    let error = Scene::at(patient(), &server).manifest(None).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
}

#[tokio::test]
async fn redirects_in_a_ring_end() {
    let server = always(Reply::new(302, "").header("location", "/v2/again")).await;
    let error = Scene::at(patient(), &server).manifest(None).await.unwrap_err();
    assert!(matches!(error, Error::Protocol(_)), "{error}");
    assert_eq!(server.seen().len(), 11);
}

#[tokio::test]
async fn what_is_no_tag_is_refused_before_anybody_is_asked() {
    let server = always(good()).await;
    let scene = Scene::at(patient(), &server);
    for bad in ["../../v2/_catalog", "a?b", "", "sha256:../x"] {
        let error = scene.registry.manifest(&image(), bad, None).await.unwrap_err();
        assert_eq!(error.class(), Class::InvalidArgument, "{bad}");
    }
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn connections_are_used_again() {
    let server =
        Evil::start(
            |seen| {
                if seen.path().contains("/blobs/") { Reply::ok("blob") } else { good() }
            },
        )
        .await;
    let scene = Scene::at(patient(), &server);
    for _ in 0..3 {
        scene.manifest(None).await.unwrap();
        scene.blob(&digest(b"blob"), Some(4)).await.unwrap();
    }
    assert_eq!(server.connections(), 1);
}
