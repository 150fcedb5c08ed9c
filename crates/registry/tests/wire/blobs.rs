//! Blobs over connections that do not hold.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures_util::TryStreamExt as _;
use names::{Class, Digest};
use registry::{Config, Error};
use tokio::io::AsyncReadExt;

use crate::{
    evil::{Evil, Reply, Seen, Then},
    scene::{Scene, digest, hasty, image, patient},
};

fn blob() -> Vec<u8> {
    (0..4000u32).flat_map(u32::to_le_bytes).collect()
}

fn wanted() -> (Digest, Option<u64>) {
    (digest(&blob()), Some(blob().len() as u64))
}

/// Where the request wants to begin.
fn asked(seen: &Seen) -> usize {
    let range = seen.header("range").and_then(|range| range.strip_prefix("bytes="));
    range.map_or(0, |range| range.trim_end_matches('-').parse().unwrap())
}

/// The rest of the blob, as a good server gives it.
fn rest(from: usize) -> Reply {
    let (all, length) = (blob(), blob().len());
    if from == 0 {
        return Reply::ok(all);
    }
    let range = format!("bytes {from}-{}/{length}", length - 1);
    Reply::new(206, &all[from..]).header("content-range", &range)
}

/// So many bytes of the rest, then this.
fn part(from: usize, bytes: usize, then: Then) -> Reply {
    let (all, length) = (blob(), blob().len());
    let end = length.min(from + bytes);
    let whole = if from == 0 { Reply::ok(&all[..end]) } else { Reply::new(206, &all[from..end]) };
    let range = format!("bytes {from}-{}/{length}", length - 1);
    whole.header("content-range", &range).promising(length - from).then(then)
}

#[tokio::test]
async fn a_blob_comes_whole() {
    let server = Evil::start(|seen| rest(asked(seen))).await;
    let (digest, size) = wanted();
    assert_eq!(Scene::at(patient(), &server).blob(&digest, size).await.unwrap(), blob());
    assert_eq!(Scene::at(patient(), &server).blob(&digest, None).await.unwrap(), blob());
    assert!(server.seen().iter().all(|seen| seen.header("range").is_none()));
    assert_eq!(server.seen()[0].path(), format!("/v2/lib/app/blobs/{digest}"));
}

#[tokio::test]
async fn a_blob_comes_whole_in_chunks_too() {
    let server = Evil::start(|seen| rest(asked(seen))).await;
    let (digest, size) = wanted();
    let scene = Scene::at(patient(), &server);
    let blob = scene.registry.blob(&image(), &digest, None, None).await.unwrap();
    assert_eq!(blob.size(), size);
    let chunks: Vec<_> = blob.into_stream().try_collect().await.unwrap();
    assert_eq!(chunks.concat(), self::blob());
}

#[tokio::test]
async fn a_blob_of_nothing_comes_too() {
    let server = Evil::start(|_| Reply::ok("")).await;
    let got = Scene::at(patient(), &server).blob(&digest(b""), Some(0)).await.unwrap();
    assert!(got.is_empty());
}

#[tokio::test]
async fn what_breaks_off_is_resumed_where_it_stopped() {
    let server = Evil::start(|seen| part(asked(seen), 5000, Then::Close)).await;
    let (digest, size) = wanted();
    assert_eq!(Scene::at(patient(), &server).blob(&digest, size).await.unwrap(), blob());
    let starts: Vec<_> = server.seen().iter().map(asked).collect();
    assert_eq!(starts, [0, 5000, 10_000, 15_000]);
}

#[tokio::test]
async fn what_stalls_is_resumed_where_it_stopped() {
    let server = Evil::start(|seen| part(asked(seen), 5000, Then::Hang)).await;
    let (digest, size) = wanted();
    let config = Config { progress_timeout: Duration::from_millis(500), ..patient() };
    assert_eq!(Scene::at(config, &server).blob(&digest, size).await.unwrap(), blob());
    assert!(server.seen().len() >= 4);
}

#[tokio::test]
async fn a_server_that_does_not_know_ranges_is_read_past_what_is_had() {
    let count = AtomicUsize::new(0);
    let server = Evil::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => part(0, 5000, Then::Close),
        _ => Reply::ok(blob()),
    })
    .await;
    let (digest, size) = wanted();
    assert_eq!(Scene::at(patient(), &server).blob(&digest, size).await.unwrap(), blob());
}

#[tokio::test]
async fn a_body_that_properly_ends_too_early_is_resumed() {
    let server = Evil::start(|seen| match asked(seen) {
        0 => Reply::ok(&blob()[..5000]).chunked(true),
        from => rest(from),
    })
    .await;
    let (digest, size) = wanted();
    assert_eq!(Scene::at(patient(), &server).blob(&digest, size).await.unwrap(), blob());
}

#[tokio::test]
async fn resuming_without_progress_ends() {
    for config in [patient(), Config { progress_bytes: 11, ..patient() }] {
        let few = Evil::start(|seen| part(asked(seen), 10, Then::Close)).await;
        let (digest, size) = wanted();
        let (got, result) = Scene::at(config, &few).blob_until(&digest, size).await;
        assert_eq!(got, blob()[..got.len()]);
        assert!(matches!(result, Err(Error::Unavailable(_))), "{result:?}");
        assert_eq!(few.seen().len(), 3);
    }
}

#[tokio::test]
async fn a_trickle_is_no_progress() {
    let tick = Duration::from_millis(20);
    let server = Evil::start(move |seen| part(asked(seen), 1, Then::Trickle(tick))).await;
    let (digest, size) = wanted();
    let (_, result) = Scene::at(hasty(), &server).blob_until(&digest, size).await;
    assert!(matches!(result, Err(Error::TimedOut(_))), "{result:?}");
}

#[tokio::test]
async fn the_next_endpoint_goes_on_where_a_broken_one_stopped() {
    let mirror = Evil::start(|seen| match asked(seen) {
        0 => part(0, 5000, Then::Close),
        _ => Reply::new(500, ""),
    })
    .await;
    let server = Evil::start(|seen| rest(asked(seen))).await;
    let (digest, size) = wanted();
    let scene = Scene::mirrored(patient(), &[&mirror, &server]);
    assert_eq!(scene.blob(&digest, size).await.unwrap(), blob());
    assert_eq!(asked(&server.seen()[0]), 5000);
}

#[tokio::test]
async fn the_next_endpoint_goes_on_where_one_keeps_breaking() {
    let mirror = Evil::start(|seen| part(asked(seen), 0, Then::Close)).await;
    let server = Evil::start(|seen| rest(asked(seen))).await;
    let (digest, size) = wanted();
    let scene = Scene::mirrored(patient(), &[&mirror, &server]);
    assert_eq!(scene.blob(&digest, size).await.unwrap(), blob());
    assert_eq!(mirror.seen().len(), 3);
}

#[tokio::test]
async fn not_a_byte_beyond_the_size_is_handed_on() {
    let server = Evil::start(|_| Reply::ok([blob(), blob()].concat()).chunked(true)).await;
    let (digest, size) = wanted();
    let (got, result) = Scene::at(patient(), &server).blob_until(&digest, size).await;
    assert!(matches!(result, Err(Error::WrongLength(_))), "{result:?}");
    assert!(got.len() <= blob().len());
}

#[tokio::test]
async fn a_promise_of_another_length_is_refused_at_once() {
    let (digest, size) = wanted();
    for length in [blob().len() - 1, blob().len() + 1] {
        let server = Evil::start(move |_| Reply::ok("").promising(length).then(Then::Hang)).await;
        let (got, result) = Scene::at(patient(), &server).blob_until(&digest, size).await;
        assert!(matches!(result, Err(Error::WrongLength(_))), "{result:?}");
        assert!(got.is_empty());
    }
}

#[tokio::test]
async fn a_blob_of_another_digest_is_an_error_at_its_end() {
    let server = Evil::start(|_| Reply::ok(vec![7; 16_000])).await;
    let (digest, size) = wanted();
    let error = Scene::at(patient(), &server).blob(&digest, size).await.unwrap_err();
    assert!(matches!(error, Error::DigestMismatch(_)), "{error}");
    assert_eq!(error.class(), Class::DataLoss);
}

#[tokio::test]
async fn a_blob_that_has_failed_does_not_end_well_when_read_again() {
    let server = Evil::start(|_| Reply::ok(vec![7; 16_000])).await;
    let scene = Scene::at(patient(), &server);
    let (digest, size) = wanted();
    let mut blob = scene.registry.blob(&image(), &digest, size, None).await.unwrap();
    blob.read_to_end(&mut Vec::new()).await.unwrap_err();
    blob.read_u8().await.unwrap_err();
    assert!(blob.read(&mut [0; 9]).await.is_err());
}

#[tokio::test]
async fn who_lied_about_a_blob_is_asked_last_for_it_the_next_time() {
    let mirror = Evil::start(|_| Reply::ok(vec![7; 16_000])).await;
    let server = Evil::start(|seen| rest(asked(seen))).await;
    let (digest, size) = wanted();
    let scene = Scene::mirrored(patient(), &[&mirror, &server]);
    scene.blob(&digest, size).await.unwrap_err();
    assert_eq!(scene.blob(&digest, size).await.unwrap(), blob());
    assert_eq!(mirror.seen().len(), 1);
}

#[tokio::test]
async fn another_range_than_the_one_asked_for_is_refused() {
    let server = Evil::start(|seen| match asked(seen) {
        0 => part(0, 5000, Then::Close),
        _ => Reply::new(206, "x").header("content-range", "bytes 0-0/16000"),
    })
    .await;
    let (digest, size) = wanted();
    let error = Scene::at(patient(), &server).blob(&digest, size).await.unwrap_err();
    assert!(matches!(error, Error::Protocol(_)), "{error}");
}

#[tokio::test]
async fn a_redirect_is_followed_anew_at_each_resumption() {
    let store = Evil::start(|seen| part(asked(seen), 9000, Then::Close)).await;
    let url = format!("{}/bucket?signature=1", store.url());
    let server = Evil::start(move |_| Reply::new(307, "").header("location", &url)).await;
    let (digest, size) = wanted();
    assert_eq!(Scene::at(patient(), &server).blob(&digest, size).await.unwrap(), blob());
    assert_eq!(server.seen().len(), 2);
    let seen = store.seen();
    assert_eq!(seen.iter().map(asked).collect::<Vec<_>>(), [0, 9000]);
    assert_eq!(seen[0].target, "/bucket?signature=1");
}

#[tokio::test]
async fn a_blob_that_is_dropped_hangs_up() {
    let server = Evil::start(|seen| part(asked(seen), 5000, Then::Hang)).await;
    let scene = Scene::at(patient(), &server);
    let (digest, size) = wanted();
    let mut blob = scene.registry.blob(&image(), &digest, size, None).await.unwrap();
    blob.read_u8().await.unwrap();
    drop(blob);
    server.hung_up_on().await;
}

#[tokio::test]
async fn a_reader_that_takes_its_time_is_no_stall() {
    let all = vec![5u8; 8 << 20];
    let (digest, size) = (digest(&all), Some(all.len() as u64));
    let server = Evil::start(move |_| Reply::ok(all.clone())).await;
    let progress_timeout = Duration::from_millis(400);
    let scene = Scene::at(Config { progress_timeout, ..patient() }, &server);
    let mut blob = scene.registry.blob(&image(), &digest, size, None).await.unwrap();
    blob.read_exact(&mut [0; 1000]).await.unwrap();
    tokio::time::sleep(progress_timeout * 3).await;
    let mut rest = Vec::new();
    blob.read_to_end(&mut rest).await.unwrap();
    assert_eq!(server.seen().len(), 1);
}
