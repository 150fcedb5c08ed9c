//! That the numbers on the wire are those of the protocol, that what we do not serve says so, and
//! that secrets do not print.

use std::collections::BTreeMap;
use std::path::Path;

use cri_proto::v1::runtime_service_client::RuntimeServiceClient;
use cri_proto::v1::runtime_service_server::{RuntimeService, RuntimeServiceServer};
use cri_proto::{admin, v1};
use prost::Message;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Code, Request, Response, Status};

/// The numbers of the fields of a message, in the order in which they are on the wire. Enough of a
/// decoder for the messages below: varints and lengths.
fn numbers(mut wire: &[u8]) -> Vec<u64> {
    fn varint(wire: &mut &[u8]) -> u64 {
        prost::encoding::decode_varint(wire).expect("the wire holds whole varints")
    }
    let mut found = Vec::new();
    while !wire.is_empty() {
        let key = varint(&mut wire);
        found.push(key >> 3);
        match key & 7 {
            0 => drop(varint(&mut wire)),
            2 => {
                let length = usize::try_from(varint(&mut wire)).expect("a length fits");
                wire = &wire[length..];
            }
            other => panic!("no field of these messages has wire type {other}"),
        }
    }
    found
}

#[test]
fn fields_that_were_added_out_of_order_have_their_own_numbers() {
    let context = v1::LinuxContainerSecurityContext {
        run_as_user: Some(v1::Int64Value { value: 1000 }),
        run_as_username: "u".to_owned(),
        no_new_privs: true,
        run_as_group: Some(v1::Int64Value { value: 2000 }),
        masked_paths: vec!["/proc/kcore".to_owned()],
        readonly_paths: vec!["/proc/sys".to_owned()],
        seccomp: Some(v1::SecurityProfile::default()),
        apparmor: Some(v1::SecurityProfile::default()),
        supplemental_groups_policy: v1::SupplementalGroupsPolicy::Strict.into(),
        ..Default::default()
    };
    let wire = context.encode_to_vec();
    let mut sorted = numbers(&wire);
    sorted.sort_unstable();
    assert_eq!(sorted, [5, 6, 11, 12, 13, 14, 15, 16, 17]);
    assert_eq!(v1::LinuxContainerSecurityContext::decode(&*wire), Ok(context));
}

#[test]
fn an_image_has_its_late_fields_far_up() {
    let image = v1::ImageSpec {
        image: "i".to_owned(),
        annotations: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
        user_specified_image: "u".to_owned(),
        runtime_handler: "h".to_owned(),
        image_ref: "r".to_owned(),
    };
    assert_eq!(numbers(&image.encode_to_vec()), [1, 2, 18, 19, 20]);
}

#[test]
fn a_namespace_has_only_its_second_field() {
    let namespace = v1::Namespace { options: Some(v1::NamespaceOption::default()) };
    assert_eq!(numbers(&namespace.encode_to_vec()), [2]);
}

#[test]
fn known_bytes_are_the_message_that_a_kubelet_means_by_them() {
    // RunPodSandboxRequest { config { metadata { name "a", uid "b", namespace "c", attempt 1 } },
    // runtime_handler "d" }, written out by hand.
    let wire = b"\x0a\x0d\x0a\x0b\x0a\x01a\x12\x01b\x1a\x01c\x20\x01\x12\x01d";
    let request = v1::RunPodSandboxRequest::decode(&wire[..]).expect("the bytes are well formed");
    let metadata = request.config.and_then(|c| c.metadata).expect("the bytes hold metadata");
    assert_eq!((&*metadata.name, &*metadata.uid, &*metadata.namespace), ("a", "b", "c"));
    assert_eq!((metadata.attempt, &*request.runtime_handler), (1, "d"));
}

#[test]
fn an_environment_variable_may_be_any_bytes() {
    let variable = v1::KeyValue { key: "K".to_owned(), value: vec![0xff, 0x00, 0xfe] };
    assert_eq!(v1::KeyValue::decode(&*variable.encode_to_vec()), Ok(variable));
}

#[test]
fn signals_have_the_numbers_of_the_protocol_and_not_of_the_kernel() {
    assert_eq!(v1::Signal::Sigterm as i32, 23);
    assert_eq!(v1::Signal::Sigkill as i32, 13);
    assert_eq!(v1::Signal::Sigrtmax as i32, 65);
}

#[test]
fn secrets_do_not_print_wherever_they_are_held() {
    const SECRET: &str = "hunter2";
    let auth = v1::AuthConfig {
        username: "ann".to_owned(),
        password: SECRET.to_owned(),
        auth: SECRET.to_owned(),
        server_address: "registry.example".to_owned(),
        identity_token: SECRET.to_owned(),
        registry_token: SECRET.to_owned(),
    };
    let pull = v1::PullImageRequest { auth: Some(auth), ..Default::default() };
    let env = v1::KeyValue { key: "TOKEN".to_owned(), value: SECRET.into() };
    let container = v1::ContainerConfig { envs: vec![env], ..Default::default() };
    let credentials =
        admin::Credentials { username: "ann".to_owned(), password: SECRET.to_owned() };
    let ours = admin::PullImageRequest { image: String::new(), credentials: Some(credentials) };
    let printed = format!("{pull:?} {pull:#?} {container:?} {ours:?}");
    assert!(!printed.contains(SECRET), "{printed}");
    assert!(printed.contains("ann") && printed.contains("TOKEN"), "{printed}");
}

/// Serves `Version` and nothing else.
struct OnlyVersion;

#[tonic::async_trait]
impl RuntimeService for OnlyVersion {
    async fn version(
        &self,
        _: Request<v1::VersionRequest>,
    ) -> Result<Response<v1::VersionResponse>, Status> {
        let runtime_name = "only version".to_owned();
        Ok(Response::new(v1::VersionResponse { runtime_name, ..Default::default() }))
    }
}

async fn client(socket: &Path) -> RuntimeServiceClient<tonic::transport::Channel> {
    let listener = UnixListener::bind(socket).expect("the directory is fresh");
    let server = tonic::transport::Server::builder()
        .add_service(RuntimeServiceServer::new(OnlyVersion))
        .serve_with_incoming(UnixListenerStream::new(listener));
    tokio::spawn(server);
    let endpoint = cri_proto::endpoint(socket).expect("the path is UTF-8");
    RuntimeServiceClient::new(endpoint.connect().await.expect("the server listens"))
}

#[tokio::test]
async fn what_is_not_served_answers_unimplemented() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let mut client = client(&place.path().join("cri.sock")).await;
    let version = client.version(v1::VersionRequest::default()).await.expect("it is served");
    assert_eq!(version.into_inner().runtime_name, "only version");
    let one = client.checkpoint_pod(v1::CheckpointPodRequest::default()).await;
    assert_eq!(one.expect_err("it is not served").code(), Code::Unimplemented);
    let stream = client.get_container_events(v1::GetEventsRequest {}).await;
    assert_eq!(stream.expect_err("it is not served").code(), Code::Unimplemented);
}
