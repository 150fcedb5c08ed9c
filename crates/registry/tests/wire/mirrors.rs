//! Which server is asked, in which order, and when the next one is.

use std::time::Duration;

use names::Class;
use registry::{Config, Error};

use crate::{
    evil::{Evil, Reply, Then},
    scene::{MANIFEST, Scene, digest, good, hasty, image, patient, put_hosts},
};

async fn always(reply: Reply) -> Evil {
    Evil::start(move |_| reply.clone()).await
}

#[tokio::test]
async fn the_first_mirror_that_has_it_is_enough() {
    let (mirror, server) = (always(good()).await, always(good()).await);
    let scene = Scene::mirrored(patient(), &[&mirror, &server]);
    scene.manifest(None).await.unwrap();
    assert!(mirror.seen()[0].target.ends_with("?ns=r.test"));
    assert!(server.seen().is_empty());
    let urls = scene.registry.servers(&image()).await.unwrap();
    assert_eq!(urls, [format!("{}/v2", mirror.url()), format!("{}/v2", server.url())]);
}

#[tokio::test]
async fn whatever_is_wrong_with_a_mirror_the_next_server_is_asked() {
    for failure in [
        Reply::new(404, "no"),
        Reply::new(401, ""),
        Reply::new(403, ""),
        Reply::new(500, ""),
        Reply::new(429, "").header("retry-after", "9999"),
        Reply::ok("not a manifest"),
        Reply::ok(MANIFEST).header("docker-content-digest", digest(b"other").as_str()),
        Reply::raw("", Then::Close),
        Reply::raw("", Then::Hang),
    ] {
        let config = if failure_hangs(&failure) { slow_to_answer() } else { patient() };
        let (mirror, server) = (always(failure.clone()).await, always(good()).await);
        let scene = Scene::mirrored(config, &[&mirror, &server]);
        scene.manifest(None).await.unwrap_or_else(|error| panic!("{failure:?}: {error}"));
        assert_eq!(server.seen().len(), 1);
    }
}

/// Fails soon when there is no answer, and has time for anything else.
fn slow_to_answer() -> Config {
    Config { header_timeout: Duration::from_millis(700), ..patient() }
}

fn failure_hangs(reply: &Reply) -> bool {
    format!("{reply:?}").contains("Hang")
}

#[tokio::test]
async fn a_mirror_that_could_not_be_reached_is_not_waited_for_again_soon() {
    let (mirror, server) = (always(Reply::raw("", Then::Hang)).await, always(good()).await);
    let scene = Scene::mirrored(slow_to_answer(), &[&mirror, &server]);
    for _ in 0..3 {
        scene.manifest(None).await.unwrap();
    }
    assert_eq!((mirror.seen().len(), server.seen().len()), (2, 3));
    let soon = Config { shun: Duration::ZERO, ..slow_to_answer() };
    let scene = Scene::mirrored(soon, &[&mirror, &server]);
    scene.manifest(None).await.unwrap();
    scene.manifest(None).await.unwrap();
    assert_eq!(mirror.seen().len(), 6);
}

#[tokio::test]
async fn the_only_server_is_asked_however_often_it_could_not_be_reached() {
    let server = always(Reply::raw("", Then::Hang)).await;
    let scene = Scene::at(hasty(), &server);
    scene.manifest(None).await.unwrap_err();
    scene.manifest(None).await.unwrap_err();
    assert_eq!(server.seen().len(), 4);
}

#[tokio::test]
async fn a_tag_is_resolved_without_fetching_what_it_stands_for() {
    let server = Evil::start(|seen| match seen.method.as_str() {
        "HEAD" => Reply::head(good()),
        _ => good(),
    })
    .await;
    let resolved = Scene::at(patient(), &server).registry.resolve(&image(), "v1", None).await;
    assert_eq!(resolved.unwrap(), digest(MANIFEST.as_bytes()));
    let methods: Vec<_> = server.seen().into_iter().map(|seen| seen.method).collect();
    assert_eq!(methods, ["HEAD"]);
}

#[tokio::test]
async fn a_tag_is_resolved_by_fetching_where_the_server_does_not_say() {
    let mirror = always(Reply::new(404, "")).await;
    let server = Evil::start(|seen| match seen.method.as_str() {
        "HEAD" => Reply::head(Reply::ok(MANIFEST)),
        _ => good(),
    })
    .await;
    let scene = Scene::mirrored(patient(), &[&mirror, &server]);
    let resolved = scene.registry.resolve(&image(), "v1", None).await.unwrap();
    assert_eq!(resolved, digest(MANIFEST.as_bytes()));
}

#[tokio::test]
async fn an_error_tells_of_every_server_in_order_and_the_last_decides() {
    let (mirror, server) = (always(Reply::new(503, "")).await, always(Reply::new(404, "")).await);
    let error = Scene::mirrored(patient(), &[&mirror, &server]).manifest(None).await.unwrap_err();
    let Error::NotFound(tried) = &error else { panic!("{error}") };
    let told: Vec<_> = tried.attempts.iter().map(|attempt| attempt.endpoint.as_str()).collect();
    assert_eq!(told, [mirror.url(), server.url()]);
    assert!(error.to_string().contains("503"), "{error}");
}

#[tokio::test]
async fn a_mirror_that_may_not_resolve_is_not_asked_for_a_tag() {
    let (mirror, server) = (always(good()).await, always(good()).await);
    let toml = format!(
        "server = \"{}\"\n[host.\"{}\"]\ncapabilities = [\"pull\"]",
        server.url(),
        mirror.url()
    );
    let scene = Scene::new(patient(), &toml);
    scene.manifest(None).await.unwrap();
    assert!(mirror.seen().is_empty());
    let wanted = digest(MANIFEST.as_bytes());
    scene.registry.manifest(&image(), wanted.as_str(), None).await.unwrap();
    assert_eq!(mirror.seen().len(), 1);
}

#[tokio::test]
async fn nobody_to_ask_is_said_so() {
    let scene = Scene::new(patient(), "capabilities = [\"push\"]");
    let error = scene.manifest(None).await.unwrap_err();
    assert!(matches!(error, Error::NoServer { .. }), "{error}");
}

#[tokio::test]
async fn an_edited_hosts_file_counts_from_the_next_call_on() {
    let (one, two) = (always(good()).await, always(good()).await);
    let scene = Scene::at(patient(), &one);
    scene.manifest(None).await.unwrap();
    put_hosts(scene.hosts.path(), "r.test", &format!("server = \"{}\"", two.url()));
    scene.manifest(None).await.unwrap();
    put_hosts(scene.hosts.path(), "r.test", "server = ");
    let error = scene.manifest(None).await.unwrap_err();
    assert_eq!(error.class(), Class::FailedPrecondition);
    assert!(error.to_string().contains("r.test/hosts.toml:1: "), "{error}");
    assert_eq!((one.seen().len(), two.seen().len()), (1, 1));
}

#[tokio::test]
async fn a_path_of_a_mirror_is_kept() {
    let mirror = always(good()).await;
    let toml = format!("[host.\"{}/v2/cache\"]\noverride_path = true", mirror.url());
    Scene::new(patient(), &toml).manifest(None).await.unwrap();
    assert_eq!(mirror.seen()[0].path(), "/v2/cache/lib/app/manifests/v1");
}

#[tokio::test]
async fn a_loopback_registry_is_asked_over_http_without_being_configured() {
    let server = always(good()).await;
    let scene = Scene::new(patient(), "");
    let image = format!("{}/lib/app:v1", server.address).parse().unwrap();
    scene.registry.manifest(&image, "v1", None).await.unwrap();
    assert_eq!(server.seen()[0].target, "/v2/lib/app/manifests/v1");
}

#[tokio::test]
async fn a_loopback_registry_that_has_not_got_it_is_not_asked_again_over_tls() {
    let server = always(Reply::new(404, "")).await;
    let image = format!("{}/lib/app:v1", server.address).parse().unwrap();
    let scene = Scene::new(patient(), "");
    let error = scene.registry.manifest(&image, "v1", None).await.unwrap_err();
    assert_eq!(error.class(), Class::NotFound);
    assert_eq!(server.connections(), 1);
}
