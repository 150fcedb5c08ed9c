//! An archive of images, as `docker save` writes it or as an OCI layout: whether it is loaded or
//! refused, nothing of it is left in the store once its images are removed.
#![no_main]

use std::{
    fs, future,
    io::Cursor,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, LazyLock},
    time::Duration,
};

use images::{Auth, Config, Failure, Fetched, Image, Images, Source, Stream, unpack::Limits};
use libfuzzer_sys::fuzz_target;
use names::{Class, Digest, ImageRef};
use tokio::{
    runtime::{Builder, Runtime},
    time::{sleep, timeout},
};

const LIMITS: Limits = Limits { names: 200, bytes: 1 << 20, ratio: 100, free: 1 << 20, reserve: 0 };
const DEADLINE: Duration = Duration::from_secs(10);

static ROOT: LazyLock<PathBuf> = LazyLock::new(|| fuzz::place("archive-"));
static IMAGES: LazyLock<Images> = LazyLock::new(|| {
    let config = Config { limits: LIMITS, ..Config::new(ROOT.as_path()) };
    Images::open(config, Nowhere).expect("an empty store can be opened")
});
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_all().build().expect("a runtime"));

fuzz_target!(|archive: &[u8]| {
    load(archive);
    let mut mended = archive.to_vec();
    fuzz::mend(&mut mended);
    if mended != archive {
        load(&mended);
    }
});

fn load(archive: &[u8]) {
    let loaded = RUNTIME.block_on(IMAGES.load_from(Cursor::new(archive.to_vec())));
    for image in loaded.iter().flatten().chain(&IMAGES.list()) {
        check(image);
        RUNTIME.block_on(IMAGES.remove(image.id.as_str())).expect("an image can be removed");
    }
    // Of a load that failed, whole layers may stay for the next; any removal sweeps them.
    let swept = RUNTIME.block_on(async { timeout(DEADLINE, until_nothing_is_left()).await });
    assert!(swept.is_ok(), "something is left in the store: {:?}", left());
}

/// When a load fails the work on its other layers ends a little later, and is undone then.
async fn until_nothing_is_left() {
    while !left().is_empty() {
        IMAGES.remove("nothing").await.expect("nothing is as good as removed");
        sleep(Duration::from_millis(1)).await;
    }
}

fn left() -> Vec<PathBuf> {
    let dirs = ["tmp", "images", "layers", "quarantine"].map(|name| ROOT.join(name));
    let entries = dirs.iter().flat_map(|dir| fs::read_dir(dir).expect("a directory of the store"));
    entries.map(|entry| entry.expect("it can be read").path()).collect()
}

fn check(image: &Arc<Image>) {
    assert!(image.tags.iter().all(|tag| tag.digest().is_none()));
    assert!(image.config.env.iter().all(|entry| entry.contains('=')));
}

/// A source that has nothing: all that an archive names must be in it.
struct Nowhere;

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send + 'a>>;

impl Source for Nowhere {
    fn manifest<'a>(
        &'a self,
        _: &'a ImageRef,
        _: &'a str,
        _: Option<&'a Auth>,
    ) -> Answer<'a, Fetched> {
        panic!("a manifest was asked for");
    }

    fn blob<'a>(
        &'a self,
        _: &'a ImageRef,
        _: &'a Digest,
        _: u64,
        _: Option<&'a Auth>,
    ) -> Answer<'a, Stream> {
        Box::pin(future::ready(Err(Failure::new(Class::NotFound, "nothing is fetched"))))
    }
}
