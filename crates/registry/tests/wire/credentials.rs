//! Who gets to see credentials, and that nobody reads them in an error (C-40, C-41).

use std::{
    cell::RefCell,
    io,
    sync::{
        Arc, Once,
        atomic::{AtomicUsize, Ordering},
    },
};

use names::Class;
use proptest::prelude::*;
use registry::{Auth, Error};

use crate::{
    evil::{Evil, Reply, Seen},
    scene::{Scene, digest, good, image, patient, whole_text},
};

const BASIC: &str = "Basic dXNlcjpwYXNzd29yZA==";

fn user() -> Auth {
    Auth { username: "user".into(), password: "password".into(), ..Auth::default() }
}

fn refuse(challenge: &str) -> Reply {
    Reply::new(401, "{\"errors\":[]}").header("www-authenticate", challenge)
}

/// Lets in whoever sends this.
async fn guarded(wanted: &'static str, challenge: &str) -> Evil {
    let challenge = challenge.to_owned();
    Evil::start(move |seen| {
        if seen.header("authorization") == Some(wanted) { good() } else { refuse(&challenge) }
    })
    .await
}

/// A registry and its token server in one; gives token `t0`, then `t1`…, each good for `uses`.
async fn bearer(uses: usize) -> Evil {
    let given = Arc::new(AtomicUsize::new(0));
    let used = AtomicUsize::new(0);
    Evil::start(move |seen| {
        let host = seen.header("host").unwrap();
        let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"the service\"");
        if seen.path() == "/token" {
            used.store(0, Ordering::SeqCst);
            let token = given.fetch_add(1, Ordering::SeqCst);
            return Reply::ok(format!(r#"{{"token":"t{token}","expires_in":300}}"#));
        }
        let current = given.load(Ordering::SeqCst).wrapping_sub(1);
        let wanted = format!("Bearer t{current}");
        let right = seen.header("authorization") == Some(&wanted);
        if right && used.fetch_add(1, Ordering::SeqCst) < uses {
            good()
        } else {
            refuse(&challenge)
        }
    })
    .await
}

fn authorizations(server: &Evil) -> Vec<Option<String>> {
    server.seen().iter().map(|seen| seen.header("authorization").map(str::to_owned)).collect()
}

fn tokens_asked(server: &Evil) -> Vec<Seen> {
    server.seen().into_iter().filter(|seen| seen.path() == "/token").collect()
}

#[tokio::test]
async fn user_and_password_are_sent_when_they_are_asked_for() {
    let server = guarded(BASIC, "Basic realm=\"r\"").await;
    let scene = Scene::at(patient(), &server);
    scene.manifest(Some(&user())).await.unwrap();
    scene.manifest(Some(&user())).await.unwrap();
    let basic = || Some(BASIC.to_owned());
    assert_eq!(authorizations(&server), [None, basic(), basic()]);
}

#[tokio::test]
async fn a_token_is_asked_for_once_and_used_again() {
    let server = bearer(100).await;
    let scene = Scene::at(patient(), &server);
    scene.manifest(Some(&user())).await.unwrap();
    scene.manifest(Some(&user())).await.unwrap();
    let asked = tokens_asked(&server);
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].header("authorization"), Some(BASIC));
    let query = "service=the%20service&scope=repository%3Alib%2Fapp%3Apull";
    assert_eq!(asked[0].target, format!("/token?{query}"));
    let other = Auth { password: "another".into(), ..user() };
    scene.manifest(Some(&other)).await.unwrap();
    assert_eq!(tokens_asked(&server).len(), 2, "another's token was used");
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_token_that_is_no_longer_good_is_replaced() {
    let server = bearer(1).await;
    let scene = Scene::at(patient(), &server);
    for _ in 0..3 {
        scene.manifest(None).await.unwrap();
    }
    assert_eq!(tokens_asked(&server).len(), 3);
}

#[tokio::test]
async fn a_token_that_is_never_good_is_asked_for_only_once() {
    let server = bearer(0).await;
    let error = Scene::at(patient(), &server).manifest(Some(&user())).await.unwrap_err();
    assert_eq!(error.class(), Class::PermissionDenied);
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn an_identity_token_is_exchanged_for_an_access_token() {
    let server = bearer(1).await;
    let auth = Auth { identity_token: "long lived".into(), ..Auth::default() };
    Scene::at(patient(), &server).manifest(Some(&auth)).await.unwrap();
    let asked = &tokens_asked(&server)[0];
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("POST", "/token"));
    for part in ["grant_type=refresh_token", "refresh_token=long%20lived", "client_id=podbay"] {
        assert!(asked.body.contains(part), "{part}");
    }
    assert_eq!(asked.header("authorization"), None);
}

#[tokio::test]
async fn a_registry_token_is_sent_as_it_is() {
    let server = guarded("Bearer given", "Bearer realm=\"http://127.0.0.1:1/\"").await;
    let scene = Scene::at(patient(), &server);
    let auth = |token: &str| Auth { registry_token: token.into(), ..Auth::default() };
    scene.manifest(Some(&auth("given"))).await.unwrap();
    assert_eq!(server.seen().len(), 1);
    let error = scene.manifest(Some(&auth("wrong"))).await.unwrap_err();
    assert_eq!(error.class(), Class::PermissionDenied);
}

#[tokio::test]
async fn a_challenge_that_makes_no_sense_is_a_refusal() {
    for challenge in ["", "=\"", "Negotiate abc==", "Bearer", "Bearer realm=\"::\"", "Basic"] {
        let server = guarded("never", challenge).await;
        let error = Scene::at(patient(), &server).manifest(None).await.unwrap_err();
        let class = error.class();
        let fits = matches!(class, Class::PermissionDenied | Class::Internal);
        assert!(fits, "{challenge}: {class}");
        assert_eq!(server.seen().len(), 1, "{challenge}");
    }
}

#[tokio::test]
async fn a_refusal_says_what_the_server_says() {
    let body = r#"{"errors":[{"code":"DENIED","message":"you may not"}]}"#;
    let server = Evil::start(move |_| Reply::new(403, body)).await;
    let error = Scene::at(patient(), &server).manifest(None).await.unwrap_err();
    assert!(matches!(error, Error::Denied(_)));
    assert!(error.to_string().contains("DENIED: you may not"), "{error}");
}

#[tokio::test]
async fn a_token_server_that_is_down_for_a_moment_is_asked_again() {
    let count = AtomicUsize::new(0);
    let server = Evil::start(move |seen| {
        let host = seen.header("host").unwrap();
        let first = || count.fetch_add(1, Ordering::SeqCst) == 0;
        match (seen.path(), seen.header("authorization")) {
            ("/token", _) if first() => Reply::new(503, ""),
            ("/token", _) => Reply::ok(r#"{"access_token":"t"}"#),
            (_, Some("Bearer t")) => good(),
            _ => refuse(&format!("Bearer realm=\"http://{host}/token\"")),
        }
    })
    .await;
    Scene::at(patient(), &server).manifest(None).await.unwrap();
}

#[tokio::test]
async fn a_mirror_does_not_see_the_registrys_credentials() {
    let mirror = guarded("never", "Basic realm=\"give me\"").await;
    let server = guarded(BASIC, "Basic realm=\"r\"").await;
    let scene = Scene::mirrored(patient(), &[&mirror, &server]);
    scene.manifest(Some(&user())).await.unwrap();
    assert_eq!(authorizations(&mirror), [None]);
    assert_eq!(authorizations(&server)[1], Some(BASIC.to_owned()));
}

#[tokio::test]
async fn credentials_that_name_the_mirror_are_for_the_mirror_alone() {
    let mirror = guarded("Basic bm9ib2R5Og==", "Basic realm=\"m\"").await;
    let server = guarded(BASIC, "Basic realm=\"r\"").await;
    let scene = Scene::mirrored(patient(), &[&mirror, &server]);
    let auth = Auth { server_address: mirror.url(), ..user() };
    let error = scene.manifest(Some(&auth)).await.unwrap_err();
    assert!(authorizations(&mirror).contains(&Some(BASIC.to_owned())));
    assert_eq!(authorizations(&server), [None]);
    assert!(error.to_string().contains("not for this server"), "{error}");
}

#[tokio::test]
async fn a_server_of_all_registries_does_not_see_the_credentials_of_one() {
    let server = guarded("never", "Basic realm=\"give me\"").await;
    let scene = Scene::new(patient(), "");
    let toml = format!("server = \"{}\"", server.url());
    crate::scene::put_hosts(scene.hosts.path(), "_default", &toml);
    let image = "other.test/lib/app:v1".parse().unwrap();
    scene.registry.manifest(&image, "v1", Some(&user())).await.unwrap_err();
    assert_eq!(authorizations(&server), [None]);
}

#[tokio::test]
async fn a_redirect_carries_no_credentials_to_another_host_and_none_back() {
    let elsewhere = Evil::start(|seen| {
        let (_, home) = seen.target.split_once("home=").unwrap();
        Reply::new(302, "").header("location", &format!("http://{home}/back"))
    })
    .await;
    let url = elsewhere.url();
    let server = Evil::start(move |seen| match (seen.path(), seen.header("authorization")) {
        ("/back", _) => Reply::ok("blob"),
        (_, Some(BASIC)) => {
            let home = seen.header("host").unwrap();
            Reply::new(302, "").header("location", &format!("{url}/x?home={home}"))
        }
        _ => refuse("Basic realm=\"r\""),
    })
    .await;
    let scene = Scene::at(patient(), &server);
    scene.registry.blob(&image(), &digest(b"blob"), Some(4), Some(&user())).await.unwrap();
    assert_eq!(authorizations(&elsewhere), [None]);
    assert_eq!(authorizations(&server), [None, Some(BASIC.to_owned()), None]);
}

#[tokio::test]
async fn a_redirects_target_cannot_ask_for_credentials() {
    let thief = Evil::start(|_| Reply::ok(r#"{"token":"t"}"#)).await;
    let realm = format!("Bearer realm=\"{}/token\"", thief.url());
    let elsewhere = Evil::start(move |_| refuse(&realm)).await;
    let url = elsewhere.url();
    let server = Evil::start(move |_| Reply::new(307, "").header("location", &url)).await;
    let scene = Scene::at(patient(), &server);
    let result = scene.registry.blob(&image(), &digest(b"x"), Some(1), Some(&user())).await;
    assert!(result.unwrap_err().to_string().contains(&elsewhere.url()));
    assert!(thief.seen().is_empty());
}

#[tokio::test]
async fn a_token_server_of_plain_http_on_another_host_is_not_asked() {
    let thief = Evil::start(|_| Reply::ok(r#"{"token":"t"}"#)).await;
    let realm = format!("Bearer realm=\"http://localhost:{}/token\"", thief.address.port());
    let server = Evil::start(move |_| refuse(&realm)).await;
    let error = Scene::at(patient(), &server).manifest(Some(&user())).await.unwrap_err();
    assert!(matches!(error, Error::Denied(_)), "{error}");
    assert!(thief.seen().is_empty());
}

#[tokio::test]
async fn headers_of_hosts_toml_go_to_their_host_and_no_further() {
    let elsewhere = Evil::start(|_| good()).await;
    let url = elsewhere.url();
    let server = Evil::start(move |_| Reply::new(307, "").header("location", &url)).await;
    let toml = format!("server = \"{}\"\n[header]\nx-key = \"sesame\"", server.url());
    Scene::new(patient(), &toml).manifest(None).await.unwrap();
    assert_eq!(server.seen()[0].header("x-key"), Some("sesame"));
    assert_eq!(elsewhere.seen()[0].header("x-key"), None);
}

thread_local! {
    /// What this thread logs, while somebody wants to know.
    static LOGGED: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// Writes to the log of the thread that it is used on.
struct ToThread;

impl io::Write for ToThread {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOGGED.with_borrow_mut(|log| log.as_mut().map_or(Ok(bytes.len()), |log| log.write(bytes)))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn headers_of_hosts_toml_do_not_go_to_a_token_server_elsewhere() {
    let tokens = Evil::start(|_| Reply::ok(r#"{"token":"t"}"#)).await;
    let realm = format!("Bearer realm=\"{}/token\"", tokens.url());
    let server = guarded("Bearer t", &realm).await;
    let toml = format!("server = \"{}\"\n[header]\nx-key = \"sesame\"", server.url());
    Scene::new(patient(), &toml).manifest(None).await.unwrap();
    assert!(server.seen().iter().all(|seen| seen.header("x-key") == Some("sesame")));
    assert_eq!(tokens.seen()[0].header("x-key"), None);
}

/// All that is logged on this thread meanwhile, by whomever. The subscriber is everybody's, as one
/// of a thread's own misses events that another thread was first to come upon.
fn logged<T>(act: impl FnOnce() -> T) -> (T, String) {
    static SUBSCRIBER: Once = Once::new();
    SUBSCRIBER.call_once(|| {
        let all = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE);
        tracing::subscriber::set_global_default(all.with_writer(|| ToThread).finish()).unwrap();
    });
    LOGGED.set(Some(Vec::new()));
    let done = act();
    (done, String::from_utf8(LOGGED.take().unwrap()).unwrap())
}

fn redirect(location: &str) -> Reply {
    Reply::new(307, "").header("location", location)
}

/// Says back all that it was told, in each place that can end up in an error.
fn parrot(seen: &Seen, way: usize) -> Reply {
    let decoded = || seen.header("authorization").unwrap_or_default().replace("Basic ", "");
    let said = format!("{seen:?} {}", decoded()).replace(['"', '\\'], "'");
    let told = seen.header("authorization").unwrap_or_default().replace(' ', "");
    let host = seen.header("host").unwrap();
    let errors = format!(r#"{{"errors":[{{"code":"{said}","message":"{said}"}}]}}"#);
    match way {
        _ if seen.path() == "/token" && way != 7 => {
            Reply::ok(r#"{"token":"granted-by-the-server"}"#)
        }
        _ if told.is_empty() && way.is_multiple_of(2) => refuse("Basic realm=\"r\""),
        _ if told.is_empty() => refuse(&format!("Bearer realm=\"http://{host}/token\"")),
        0 | 1 => Reply::new(403, errors),
        2 | 3 => Reply::ok("{}").header("content-type", &format!("text/{told}")),
        4 => redirect(&format!("http://{told}.invalid/{told}?s={told}")),
        5 => redirect(&format!("http://{host}:1/{told}?s={told}")),
        6 | 7 => Reply::new(400, errors),
        8 => refuse(&format!("Bearer realm=\"http://{told}/{told}\"")),
        _ => Reply::new(500, said),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn no_secret_comes_back_in_an_error(
        secret in "[!-~]{12,24}", way in 0usize..10, kind in 0u8..3
    ) {
        let auth = match kind {
            0 => Auth { username: "u".into(), password: secret.clone(), ..Auth::default() },
            1 => Auth { identity_token: secret.clone(), ..Auth::default() },
            _ => Auth { registry_token: secret.clone(), ..Auth::default() },
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (text, log) = logged(|| runtime.block_on(async {
            let parrot = Evil::start(move |seen| parrot(seen, way)).await;
            let silent = Evil::start(|_| Reply::new(404, "")).await;
            let auth = Auth { server_address: parrot.url(), ..auth };
            let scene = Scene::mirrored(patient(), &[&parrot, &silent]);
            whole_text(&scene.manifest(Some(&auth)).await.unwrap_err())
        }));
        prop_assert!(log.contains("connecting to 127.0.0.1"), "the log was not listened to");
        // Below us, names of hosts are logged when one traces, and these two hide it in such a name.
        let text = if matches!(way, 4 | 8) { text } else { text + &log };
        let lower = text.to_ascii_lowercase();
        prop_assert!(!lower.contains(&secret.to_ascii_lowercase()), "{}", text);
        prop_assert!(!lower.contains("granted-by-the-server"), "{}", text);
        use base64::prelude::{BASE64_STANDARD, Engine as _};
        let basic = BASE64_STANDARD.encode(format!("u:{secret}")).to_ascii_lowercase();
        prop_assert!(!lower.contains(&basic), "{}", text);
    }
}
