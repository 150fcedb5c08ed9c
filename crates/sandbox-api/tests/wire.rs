//! The numbers of the fields, which is what a protocol is: what we write is what containerd reads.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use prost::Message as _;
use sandbox_api::{Any, Timestamp, types, v1};

/// The tags of a message's fields, in their order on the wire. Only fields of one byte of tag.
fn numbers(bytes: &[u8]) -> Vec<u8> {
    let (mut numbers, mut at) = (Vec::new(), 0);
    while let Some(tag) = bytes.get(at) {
        numbers.push(tag >> 3);
        at += match tag & 7 {
            0 => 2,
            2 => 2 + usize::from(bytes[at + 1]),
            other => panic!("wire type {other}"),
        };
    }
    numbers
}

fn any() -> Option<Any> {
    Some(Any { type_url: "a".into(), value: vec![1] })
}

fn at() -> Option<Timestamp> {
    Some(Timestamp { seconds: 1, nanos: 1 })
}

fn text() -> String {
    "a".to_owned()
}

#[test]
fn requests_have_containerds_field_numbers() {
    let create = v1::ControllerCreateRequest {
        sandbox_id: text(),
        rootfs: vec![types::Mount { r#type: text(), ..Default::default() }],
        options: any(),
        netns_path: text(),
        annotations: [(text(), text())].into(),
        sandbox: Some(types::Sandbox { sandbox_id: text(), ..Default::default() }),
        sandboxer: text(),
    };
    assert_eq!(numbers(&create.encode_to_vec()), [1, 2, 3, 4, 5, 6, 10]);
    let stop = v1::ControllerStopRequest { sandbox_id: text(), timeout_secs: 1, sandboxer: text() };
    assert_eq!(numbers(&stop.encode_to_vec()), [1, 2, 10]);
    let status =
        v1::ControllerStatusRequest { sandbox_id: text(), verbose: true, sandboxer: text() };
    assert_eq!(numbers(&status.encode_to_vec()), [1, 2, 10]);
    let update = v1::ControllerUpdateRequest {
        sandbox_id: text(),
        sandboxer: text(),
        sandbox: Some(types::Sandbox::default()),
        fields: vec![text()],
    };
    assert_eq!(numbers(&update.encode_to_vec()), [1, 2, 3, 4]);
    let start = v1::ControllerStartRequest { sandbox_id: text(), sandboxer: text() };
    assert_eq!(numbers(&start.encode_to_vec()), [1, 10]);
}

#[test]
fn answers_have_containerds_field_numbers() {
    let start = v1::ControllerStartResponse {
        sandbox_id: text(),
        pid: 1,
        created_at: at(),
        labels: [(text(), text())].into(),
        address: text(),
        version: 1,
        spec: any(),
    };
    assert_eq!(numbers(&start.encode_to_vec()), [1, 2, 3, 4, 5, 6, 7]);
    let status = v1::ControllerStatusResponse {
        sandbox_id: text(),
        pid: 1,
        state: text(),
        info: [(text(), text())].into(),
        created_at: at(),
        exited_at: at(),
        extra: any(),
        address: text(),
        version: 1,
    };
    assert_eq!(numbers(&status.encode_to_vec()), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    let metric = types::Metric { timestamp: at(), id: text(), data: any() };
    assert_eq!(numbers(&metric.encode_to_vec()), [1, 2, 3]);
    let wait = v1::ControllerWaitResponse { exit_status: 1, exited_at: at() };
    assert_eq!(numbers(&wait.encode_to_vec()), [1, 2]);
}

#[test]
fn a_sandbox_has_containerds_field_numbers() {
    let sandbox = types::Sandbox {
        sandbox_id: text(),
        runtime: Some(types::sandbox::Runtime { name: text(), options: any() }),
        spec: any(),
        labels: [(text(), text())].into(),
        created_at: at(),
        updated_at: at(),
        extensions: [(text(), any().unwrap())].into(),
        sandboxer: text(),
    };
    assert_eq!(numbers(&sandbox.encode_to_vec()), [1, 2, 3, 4, 5, 6, 7, 10]);
}
