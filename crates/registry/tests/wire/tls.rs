//! Whom the client believes over TLS, who it says it is, and the way through a proxy.

use std::{fs, sync::Arc};

use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};
use registry::{Auth, Config, Error, Proxies};
use tokio_rustls::rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::PrivateKeyDer,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};

use crate::{
    evil::{Evil, Reply, Then},
    scene::{Scene, good, patient, put_hosts},
};

/// A certificate and its key.
struct Made {
    certificate: Certificate,
    key: KeyPair,
}

fn names() -> Vec<String> {
    vec!["127.0.0.1".to_owned(), "localhost".to_owned(), "r.test".to_owned()]
}

fn authority() -> (CertificateParams, Made) {
    let mut params = CertificateParams::new(names()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    (params, Made { certificate, key })
}

fn signed_by((params, ca): &(CertificateParams, Made), names: Vec<String>) -> Made {
    let key = KeyPair::generate().unwrap();
    let mut own = CertificateParams::new(names).unwrap();
    own.distinguished_name.push(rcgen::DnType::CommonName, "leaf");
    let issuer = Issuer::from_params(params, &ca.key);
    Made { certificate: own.signed_by(&key, &issuer).unwrap(), key }
}

fn server(made: &Made, clients: Option<&Made>) -> ServerConfig {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let verifier: Arc<dyn ClientCertVerifier> = match clients {
        None => WebPkiClientVerifier::no_client_auth(),
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            roots.add(ca.certificate.der().clone()).unwrap();
            WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build().unwrap()
        }
    };
    let key = PrivateKeyDer::try_from(made.key.serialize_der()).unwrap();
    builder
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![made.certificate.der().clone()], key)
        .unwrap()
}

async fn good_over(tls: ServerConfig) -> Evil {
    Evil::start_tls(tls, |_| good()).await
}

/// `r.test` is this server, with more to say about it and files beside.
fn scene(config: Config, server: &Evil, more: &str, files: &[(&str, String)]) -> Scene {
    let scene = Scene::new(config, "");
    put_hosts(scene.hosts.path(), "r.test", &format!("server = \"{}\"\n{more}", server.url()));
    for (name, text) in files {
        fs::write(scene.hosts.path().join("r.test").join(name), text).unwrap();
    }
    scene
}

#[tokio::test]
async fn a_certificate_of_the_named_ca_is_believed_and_no_other() {
    let ca = authority();
    let server = good_over(server(&signed_by(&ca, names()), None)).await;
    let pem = [("ca.pem", ca.1.certificate.pem())];
    scene(patient(), &server, "ca = \"ca.pem\"", &pem).manifest(None).await.unwrap();
    let other = [("ca.pem", authority().1.certificate.pem())];
    for (more, files) in [("", &pem), ("ca = \"ca.pem\"", &other)] {
        let error = scene(patient(), &server, more, files).manifest(None).await.unwrap_err();
        assert!(matches!(error, Error::Unavailable(_)), "{error}");
        assert!(error.to_string().contains("`ca` in hosts.toml"), "{error}");
    }
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_certificate_that_signs_itself_is_believed_when_it_is_named() {
    let (_, own) = authority();
    let server = good_over(server(&own, None)).await;
    let pem = [("ca.pem", own.certificate.pem())];
    scene(patient(), &server, "ca = [\"ca.pem\"]", &pem).manifest(None).await.unwrap();
}

#[tokio::test]
async fn a_certificate_for_another_name_is_not_believed() {
    let ca = authority();
    let other = signed_by(&ca, vec!["elsewhere.test".to_owned()]);
    let server = good_over(server(&other, None)).await;
    for pem in [ca.1.certificate.pem(), other.certificate.pem()] {
        let files = [("ca.pem", pem)];
        let error =
            scene(patient(), &server, "ca = \"ca.pem\"", &files).manifest(None).await.unwrap_err();
        assert!(error.to_string().contains("TLS failed"), "{error}");
    }
}

#[tokio::test]
async fn any_certificate_will_do_if_the_operator_says_so_but_not_where_it_redirects_to() {
    let elsewhere = good_over(server(&authority().1, None)).await;
    let location = format!("https://localhost:{}/", elsewhere.address.port());
    let first = Evil::start_tls(server(&authority().1, None), move |_| {
        Reply::new(307, "").header("location", &location)
    })
    .await;
    scene(patient(), &elsewhere, "skip_verify = true", &[]).manifest(None).await.unwrap();
    let error =
        scene(patient(), &first, "skip_verify = true", &[]).manifest(None).await.unwrap_err();
    assert!(error.to_string().contains("https://localhost"), "{error}");
    assert_eq!(elsewhere.seen().len(), 1);
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_a_server_that_asks() {
    let ca = authority();
    let (own, client) = (signed_by(&ca, names()), signed_by(&ca, vec!["node".to_owned()]));
    let server = good_over(server(&own, Some(&ca.1))).await;
    let files = [
        ("ca.pem", ca.1.certificate.pem()),
        ("node.cert", client.certificate.pem()),
        ("node.key", client.key.serialize_pem()),
    ];
    let more = "ca = \"ca.pem\"\nclient = [[\"node.cert\", \"node.key\"]]";
    scene(patient(), &server, more, &files).manifest(None).await.unwrap();
    let error =
        scene(patient(), &server, "ca = \"ca.pem\"", &files).manifest(None).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
}

#[tokio::test]
async fn a_loopback_registry_that_speaks_tls_is_found_without_being_configured() {
    let server = good_over(server(&authority().1, None)).await;
    let scene = Scene::new(patient(), "");
    let image = format!("{}/lib/app:v1", server.address).parse().unwrap();
    scene.registry.manifest(&image, "v1", None).await.unwrap();
}

#[tokio::test]
async fn a_registry_of_https_does_not_redirect_to_http() {
    let plain = Evil::start(|_| good()).await;
    let url = plain.url();
    let server = Evil::start_tls(server(&authority().1, None), move |_| {
        Reply::new(307, "").header("location", &url)
    })
    .await;
    let error =
        scene(patient(), &server, "skip_verify = true", &[]).manifest(None).await.unwrap_err();
    assert!(error.to_string().contains("from https to http"), "{error}");
    assert!(plain.seen().is_empty());
}

#[tokio::test]
async fn a_registry_of_https_does_not_get_credentials_sent_to_a_token_server_of_http() {
    let thief = Evil::start(|_| Reply::ok(r#"{"token":"t"}"#)).await;
    let challenge = format!("Bearer realm=\"{}\"", thief.url());
    let server = Evil::start_tls(server(&authority().1, None), move |_| {
        Reply::new(401, "").header("www-authenticate", &challenge)
    })
    .await;
    let auth = Auth { username: "u".into(), password: "p".into(), ..Auth::default() };
    let scene = scene(patient(), &server, "skip_verify = true", &[]);
    let error = scene.manifest(Some(&auth)).await.unwrap_err();
    assert!(matches!(error, Error::Denied(_)), "{error}");
    assert!(thief.seen().is_empty());
}

/// A proxy at whose far end is `https://r.test`.
async fn proxy(made: &Made) -> Evil {
    Evil::start_proxy(server(made, None), |seen| match seen.method.as_str() {
        "CONNECT" => Reply::raw("HTTP/1.1 200 Connected\r\n\r\n", Then::StartTls),
        _ => good(),
    })
    .await
}

#[tokio::test]
async fn a_proxy_of_hosts_toml_leads_to_the_registry() {
    let ca = authority();
    let proxy = proxy(&signed_by(&ca, names())).await;
    let scene = Scene::new(patient(), &format!("ca = \"ca.pem\"\nproxy = \"{}\"", proxy.url()));
    fs::write(scene.hosts.path().join("r.test/ca.pem"), ca.1.certificate.pem()).unwrap();
    scene.manifest(None).await.unwrap();
    let seen = proxy.seen();
    assert_eq!((seen[0].method.as_str(), seen[0].target.as_str()), ("CONNECT", "r.test:443"));
    assert_eq!(seen[1].target, "/v2/lib/app/manifests/v1");
}

#[tokio::test]
async fn a_proxy_of_the_environment_gets_its_own_password_and_the_registry_does_not() {
    let ca = authority();
    let proxy = proxy(&signed_by(&ca, names())).await;
    let proxies = Proxies::new(&format!("http://me:secret@{}", proxy.address), "localhost");
    let scene = Scene::new(Config { proxies, ..patient() }, "ca = \"ca.pem\"");
    fs::write(scene.hosts.path().join("r.test/ca.pem"), ca.1.certificate.pem()).unwrap();
    scene.manifest(None).await.unwrap();
    let seen = proxy.seen();
    assert_eq!(seen[0].header("proxy-authorization"), Some("Basic bWU6c2VjcmV0"));
    assert_eq!(seen[1].header("proxy-authorization"), None);
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_not_gone_around() {
    let proxies = Proxies::new("http://127.0.0.1:9", "");
    let scene = Scene::new(Config { proxies, ..patient() }, "");
    let error = scene.manifest(None).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_too_slow() {
    let deaf = Evil::start(|_| good()).await;
    let toml = format!("server = \"https://{}\"\ndial_timeout = \"100ms\"", deaf.address);
    let error = Scene::new(patient(), &toml).manifest(None).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut(_)), "{error}");
    assert!(error.to_string().contains("no connection within 100ms"), "{error}");
}
