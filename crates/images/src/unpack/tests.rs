//! The malicious corpus, and what honest archives come out as.

use std::{
    collections::BTreeMap,
    fs,
    io::Cursor,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use proptest::prelude::*;
use rustix::fs::XattrFlags;
use sys::beneath::open_root;
use tar::EntryType;

use super::*;
use crate::testing::{Tar, header};

/// Mode, owner, links, time, inode and contents.
type Seen = (u32, u32, u64, i64, u64, Vec<u8>);

/// A layer's directory among things that must not change.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("outside/sub")).unwrap();
        fs::create_dir(dir.path().join("layer")).unwrap();
        fs::write(dir.path().join("outside/secret"), "secret").unwrap();
        fs::write(dir.path().join("victim"), "victim").unwrap();
        Bench { dir }
    }

    fn layer(&self) -> PathBuf {
        self.dir.path().join("layer")
    }

    fn unpack(&self, archive: &[u8]) -> Result<Unpacked, Fault> {
        self.unpack_within(archive, &Limits::default())
    }

    fn unpack_within(&self, archive: &[u8], limits: &Limits) -> Result<Unpacked, Fault> {
        unpack(Cursor::new(archive), &open_root(&self.layer()).unwrap(), limits)
    }

    /// All that is beside the layer.
    fn outside(&self) -> BTreeMap<PathBuf, Seen> {
        let mut seen = BTreeMap::new();
        let mut pending = vec![self.dir.path().to_owned()];
        while let Some(dir) = pending.pop() {
            for entry in fs::read_dir(&dir).unwrap() {
                let path = entry.unwrap().path();
                if path == self.layer() {
                    continue;
                }
                let meta = fs::symlink_metadata(&path).unwrap();
                let contents = if meta.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
                if meta.is_dir() {
                    pending.push(path.clone());
                }
                let (mode, uid, links) = (meta.mode(), meta.uid(), meta.nlink());
                seen.insert(path, (mode, uid, links, meta.mtime(), meta.ino(), contents));
            }
        }
        seen
    }
}

fn sparse(pieces: &[(u64, u64)], real: u64, stored: u64, body: &[u8]) -> Tar {
    let mut header = tar::Header::new_gnu();
    header.set_path("sparse").unwrap();
    header.set_entry_type(EntryType::GNUSparse);
    header.set_size(stored);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.set_real_size(real);
    for (slot, (offset, length)) in gnu.sparse.iter_mut().zip(pieces) {
        slot.set_offset(*offset);
        slot.set_length(*length);
    }
    Tar::new().raw(header, body)
}

fn sized(path: &str, size: &[u8; 12]) -> tar::Header {
    let mut header = header(EntryType::Regular, path.as_bytes(), 0);
    header.as_old_mut().size = *size;
    header
}

/// Archives that must be refused.
fn refused() -> Vec<(&'static str, Vec<u8>)> {
    let t = Tar::new;
    vec![
        ("dots up", t().file("../victim", "x").end()),
        ("dots within", t().dir("a").file("a/../../victim", "x").end()),
        ("dots in the end", t().dir("a/..").end()),
        ("pax dots", t().pax(&[("path", b"../victim")]).file("ok", "x").end()),
        ("gnu dots", t().long_name("../../victim").file("ok", "x").end()),
        ("file through a link out", t().symlink("l", "../outside").file("l/new", "x").end()),
        ("dir through a link", t().symlink("l", "../outside").dir("l/sub2").end()),
        ("dangling parent link", t().symlink("l", "nowhere").file("l/x", "x").end()),
        ("parent link loop", t().symlink("l", "l").file("l/x", "x").end()),
        (
            "link of links out",
            t().symlink("a", "..").symlink("b", "a/outside").file("b/x", "").end(),
        ),
        ("hard link up", t().hard("h", "../victim").end()),
        ("hard link through a link", t().symlink("l", "..").hard("h", "l/victim").end()),
        ("hard link to nothing", t().hard("h", "absent").end()),
        ("hard link to itself", t().file("h", "x").hard("h", "./h").end()),
        ("hard link to a directory", t().dir("d").hard("h", "d").end()),
        ("hard link to the root", t().hard("h", "/").end()),
        ("hard link to a whiteout", t().file(".wh.w", "").hard("h", "w").end()),
        ("hard link over its target", t().file("d/t", "x").hard("d", "d/t").end()),
        ("hard link with contents", t().raw(header(EntryType::Link, b"h", 512), &[0; 512]).end()),
        ("a directory with contents", t().raw(header(EntryType::Directory, b"d", 3), b"abc").end()),
        ("file beneath a file", t().file("a", "x").file("a/b", "x").end()),
        ("the root as a file", t().file(".", "x").end()),
        ("the root as a link", t().symlink("/", "/etc").end()),
        ("NUL in a pax path", t().pax(&[("path", b"a\0b")]).file("ok", "x").end()),
        ("a name of 256 bytes", t().file(&"n".repeat(256), "x").end()),
        ("a path of 5000 bytes", t().file(&"n/".repeat(2500), "x").end()),
        ("two pax headers", t().pax(&[("uid", b"1")]).pax(&[("uid", b"2")]).file("a", "x").end()),
        ("two long names", t().long_name("a").long_name("b").file("c", "x").end()),
        ("pax and gnu disagree", t().pax(&[("path", b"a")]).long_name("b").file("c", "x").end()),
        ("pax says it twice", t().pax(&[("path", b"a"), ("path", b"b")]).file("c", "x").end()),
        ("pax size smuggles", t().pax(&[("size", b"1024")]).file("a", "").end()),
        ("pax size shrinks", t().pax(&[("size", b"0")]).file("a", &"x".repeat(600)).end()),
        ("a global path", t().global(&[("path", b"evil")]).file("a", "x").end()),
        ("a global size", t().global(&[("size", b"9")]).file("a", "x").end()),
        ("a malformed record", t().raw(header(EntryType::XHeader, b"x", 9), b"99 path=a").end()),
        ("a pax header of the end", t().pax(&[("path", b"a")]).end()),
        ("pax sparse", t().pax(&[("GNU.sparse.major", b"1")]).file("a", "x").end()),
        ("a uid of 2^32", t().pax(&[("uid", b"4294967296")]).file("a", "x").end()),
        ("a uid of 2^32-1", t().pax(&[("uid", b"4294967295")]).file("a", "x").end()),
        ("a uid of -1", t().pax(&[("uid", b"-1")]).file("a", "x").end()),
        (
            "a binary uid of -1",
            t().with(EntryType::Regular, "a", |h| h.as_old_mut().uid = [0xff; 8]).end(),
        ),
        ("device 0:0", t().device(EntryType::Char, "a", 0, 0).end()),
        (
            "a device out of range",
            t().with(EntryType::Char, "a", |h| {
                h.as_ustar_mut().unwrap().dev_major = *b"7777777\0";
            })
            .end(),
        ),
        ("a bare whiteout", t().file(".wh.", "").end()),
        ("a whiteout of .", t().file("d/.wh..", "").end()),
        ("a whiteout of ..", t().file("d/.wh...", "").end()),
        ("a whiteout through ..", t().file(".wh.../x", "").end()),
        ("a file in a whiteout", t().file(".wh.d/x", "").end()),
        ("an opaque link", t().symlink("l", "../outside").file("l/.wh..wh..opq", "").end()),
        ("a link to nothing", t().symlink("l", "").end()),
        ("an unknown type", t().with(EntryType::new(b'V'), "a", |_| {}).end()),
        ("a negative size", t().raw(sized("a", &[0xff; 12]), b"").end()),
        (
            "a size of 2^62",
            t().raw(sized("a", &[0x80, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0]), b"").end(),
        ),
        ("a size in hex", t().raw(sized("a", b"0x000000001\0"), b"").end()),
        ("a cut file", t().file("a", &"x".repeat(2000)).cut()[..1024].to_vec()),
        ("a cut header", t().file("a", "x").cut()[..700].to_vec()),
        ("garbage", b"not a tar at all".repeat(64)),
        (
            "a second archive after the end",
            [t().file("a", "x").end(), t().file("b", "x").end()].concat(),
        ),
        ("garbage after the end", [t().file("a", "x").end(), b"garbage".to_vec()].concat()),
        (
            "a sparse map that overlaps",
            sparse(&[(0, 512), (100, 512)], 1024, 1024, &[1; 1024]).end(),
        ),
        ("a sparse map that lies", sparse(&[(0, 512)], 1024, 1024, &[1; 1024]).end()),
        ("a sparse map past its size", sparse(&[(4096, 512)], 1024, 512, &[1; 512]).end()),
        ("a petabyte of nothing", sparse(&[(1 << 50, 0)], 1 << 50, 0, b"").end()),
        (
            "a petabyte that is not there",
            t().raw(header(EntryType::Regular, b"a", 1 << 32), b"").end(),
        ),
        (
            "attributes without end",
            t().pax(&[("SCHILY.xattr.user.a", &[b'x'; 70_000])]).file("a", "x").end(),
        ),
        (
            "capabilities that are none",
            t().pax(&[("SCHILY.xattr.security.capability", b"x")]).file("a", "").end(),
        ),
        ("a pax header without end", t().raw(header(EntryType::XHeader, b"x", 1 << 30), b"").end()),
        (
            "a long name without end",
            t().raw(header(EntryType::GNULongName, b"x", 1 << 30), b"").end(),
        ),
    ]
}

#[test]
fn no_hostile_archive_is_unpacked_and_none_touches_what_is_outside() {
    for (what, archive) in refused() {
        let bench = Bench::new();
        let before = bench.outside();
        let began = Instant::now();
        let result = bench.unpack(&archive);
        assert!(result.is_err(), "{what}: was unpacked");
        let fault = result.unwrap_err();
        assert!(
            !matches!(fault, Fault::Host { .. }),
            "{what}: {fault:?} blames the host for what the archive asks"
        );
        assert_eq!(bench.outside(), before, "{what}");
        assert!(began.elapsed() < Duration::from_secs(5), "{what} took too long");
        assert!(!Path::new("/tmp/podbay-escape").exists());
    }
}

/// Archives that are odd and yet mean something; what must be there afterwards.
#[test]
fn odd_archives_stay_inside_and_mean_what_they_mean_elsewhere() {
    type Check = fn(&Path);
    let t = Tar::new;
    let corpus: Vec<(&str, Vec<u8>, Check)> = vec![
        ("an absolute path", t().file("/etc/podbay-test", "x").end(), |l| {
            assert!(l.join("etc/podbay-test").is_file() && !Path::new("/etc/podbay-test").exists());
        }),
        ("a link that is then a file", t().symlink("l", "../victim").file("l", "x").end(), |l| {
            assert_eq!(fs::read(l.join("l")).unwrap(), b"x");
            assert!(l.join("l").symlink_metadata().unwrap().is_file());
        }),
        (
            "a link that is then a directory",
            t().symlink("l", "../outside").dir("l").file("l/x", "x").end(),
            |l| assert!(l.join("l").symlink_metadata().unwrap().is_dir()),
        ),
        (
            "a directory that is then a link",
            t().file("d/x", "x").symlink("d", "../outside").end(),
            |l| {
                assert_eq!(l.join("d").read_link().unwrap(), Path::new("../outside"));
            },
        ),
        ("a file that is then a directory", t().file("d", "x").dir("d").end(), |l| {
            assert!(l.join("d").is_dir());
        }),
        ("a file twice", t().file("f", "one").file("f", "two").end(), |l| {
            assert_eq!(fs::read(l.join("f")).unwrap(), b"two");
        }),
        ("a hard link of a link", t().symlink("l", "../victim").hard("h", "l").end(), |l| {
            assert_eq!(l.join("h").read_link().unwrap(), Path::new("../victim"));
        }),
        (
            "a link within the layer",
            t().dir("real").symlink("l", "/real").file("l/x", "x").end(),
            |l| {
                assert!(l.join("real/x").is_file());
            },
        ),
        (
            "a link to the root",
            t().symlink("l", "/").dir("tmp").file("l/tmp/podbay-escape", "x").end(),
            |l| assert!(l.join("tmp/podbay-escape").is_file()),
        ),
        ("a whiteout through a link", t().symlink("l", "..").file("l/.wh.victim", "").end(), |l| {
            assert!(l.join("victim").symlink_metadata().unwrap().file_type().is_char_device());
        }),
        (
            "ten thousand hard links",
            {
                let one = t().file("f", "x");
                (0..10_000).fold(one, |tar, n| tar.hard(&format!("h{n}"), "f")).end()
            },
            |l| assert_eq!(l.join("f").metadata().unwrap().nlink(), 10_001),
        ),
        (
            "newlines and stray bytes",
            t().pax(&[("path", b"a\n\xff\x1b")]).file("x", "x").end(),
            |l| {
                use std::os::unix::ffi::OsStrExt;
                assert!(l.join(std::ffi::OsStr::from_bytes(b"a\n\xff\x1b")).exists());
            },
        ),
        ("a fifo", t().with(EntryType::Fifo, "p", |h| h.set_mode(0o622)).end(), |l| {
            let meta = l.join("p").symlink_metadata().unwrap();
            assert!(meta.file_type().is_fifo() && meta.mode() & 0o7777 == 0o622);
        }),
        ("a device", t().device(EntryType::Block, "b", 7, 9).end(), |l| {
            let meta = l.join("b").symlink_metadata().unwrap();
            assert!(meta.file_type().is_block_device());
            assert_eq!(meta.rdev(), rustix::fs::makedev(7, 9));
        }),
        (
            "a device that is then a link",
            t().device(EntryType::Char, "c", 1, 3).symlink("c", "x").end(),
            |l| {
                assert!(l.join("c").is_symlink());
            },
        ),
        ("no end", t().file("f", "x").cut(), |l| assert!(l.join("f").exists())),
        ("nothing at all", Vec::new(), |l| assert_eq!(fs::read_dir(l).unwrap().count(), 0)),
        ("a time before 1970", t().pax(&[("mtime", b"-1.5")]).file("f", "x").end(), |l| {
            let meta = l.join("f").metadata().unwrap();
            assert_eq!((meta.mtime(), meta.mtime_nsec()), (-2, 500_000_000));
        }),
        ("a global comment", t().global(&[("comment", b"0123abc")]).file("f", "x").end(), |l| {
            assert!(l.join("f").exists());
        }),
        ("old bookkeeping", t().dir(".wh..wh.plnk").file(".wh..wh.plnk/1.2", "x").end(), |l| {
            assert_eq!(fs::read_dir(l).unwrap().count(), 0);
        }),
        ("a file with a slash", t().with(EntryType::Regular, "d/", |_| {}).end(), |l| {
            assert!(l.join("d").is_dir());
        }),
        ("a long name", t().file(&format!("{}/f", "n".repeat(200)), "x").end(), |l| {
            assert!(l.join("n".repeat(200)).join("f").exists());
        }),
    ];
    for (what, archive, check) in corpus {
        let bench = Bench::new();
        let before = bench.outside();
        bench.unpack(&archive).unwrap_or_else(|fault| panic!("{what}: {fault}"));
        check(&bench.layer());
        assert_eq!(bench.outside(), before, "{what}");
        assert!(!Path::new("/tmp/podbay-escape").exists(), "{what}");
    }
}

#[test]
fn a_file_keeps_its_owner_mode_times_and_capabilities() {
    let bench = Bench::new();
    // cap_net_raw+ep, version 2; the value has bytes that no text has.
    let mut capability = [0u8; 20];
    capability[..8].copy_from_slice(&[1, 0, 0, 2, 0, 0x2a, 0, 0]);
    let records: &[(&str, &[u8])] = &[
        ("SCHILY.xattr.security.capability", &capability),
        ("SCHILY.xattr.user.note", b"kept\n"),
        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ("mtime", b"1234567890.25"),
    ];
    let mut file = header(EntryType::Regular, b"bin/ping", 4);
    file.set_mode(0o4755);
    file.set_uid(1234);
    file.set_gid(70_000);
    bench.unpack(&Tar::new().pax(records).raw(file, b"ping").end()).unwrap();
    let path = bench.layer().join("bin/ping");
    let meta = path.metadata().unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o4755, 1234, 70_000));
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_234_567_890, 250_000_000));
    let mut value = [0u8; 64];
    let length = rustix::fs::getxattr(&path, "security.capability", &mut value[..]).unwrap();
    assert_eq!(&value[..8], &capability[..8]);
    assert_eq!(length, 20);
    assert_eq!(rustix::fs::getxattr(&path, "user.note", &mut value[..]), Ok(5));
    for dropped in ["trusted.overlay.redirect", "user.overlay.opaque"] {
        assert!(rustix::fs::getxattr(&path, dropped, &mut value[..]).is_err(), "{dropped}");
    }
    assert_eq!(bench.layer().join("bin").metadata().unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn the_root_and_directories_get_the_mode_and_time_the_archive_gives() {
    let bench = Bench::new();
    let archive = Tar::new()
        .with(EntryType::Directory, "./", |h| h.set_mode(0o751))
        .with(EntryType::Directory, "tmp", |h| h.set_mode(0o1777))
        .file("tmp/file", "x")
        .file("deep/er/file", "x")
        .end();
    let unpacked = bench.unpack(&archive).unwrap();
    assert!(unpacked.has_root && !unpacked.hides_all);
    let implied: Vec<_> = unpacked.implied.iter().map(Within::as_bytes).collect();
    assert_eq!(implied, [b"deep".as_slice(), b"deep/er"]);
    let meta = |path: &str| bench.layer().join(path).metadata().unwrap();
    assert_eq!(meta("").mode() & 0o7777, 0o751);
    assert_eq!(meta("tmp").mode() & 0o7777, 0o1777);
    assert_eq!(meta("tmp").mtime(), 1_000_000_000);
}

#[test]
fn whiteouts_become_what_overlayfs_wants_in_whatever_order_they_come() {
    let bench = Bench::new();
    let archive = Tar::new()
        .file(".wh.gone", "")
        .file("dir/.wh..wh..opq", "")
        .file("dir/new", "x")
        .file(".wh.replaced", "")
        .file("replaced/file", "x")
        .file("kept", "x")
        .file(".wh.kept", "")
        .dir("late")
        .file(".wh.late", "")
        .end();
    bench.unpack(&archive).unwrap();
    let root = bench.layer();
    let gone = root.join("gone").symlink_metadata().unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let opaque = |path: &str| whiteout::is_opaque(open_root(&root.join(path)).unwrap()).unwrap();
    assert!(opaque("dir") && opaque("replaced") && opaque("late"));
    assert!(root.join("dir/new").is_file() && root.join("replaced/file").is_file());
    assert_eq!(root.join("replaced").metadata().unwrap().mode() & 0o7777, 0o755);
    assert_eq!(fs::read(root.join("kept")).unwrap(), b"x");
}

#[test]
fn an_opaque_root_is_told_of() {
    let bench = Bench::new();
    let unpacked = bench.unpack(&Tar::new().file(".wh..wh..opq", "").end()).unwrap();
    assert!(unpacked.hides_all);
}

#[test]
fn a_sparse_file_is_restored_with_its_holes() {
    let bench = Bench::new();
    let body = [vec![b'a'; 512], vec![b'b'; 512]].concat();
    bench.unpack(&sparse(&[(0, 512), (1 << 20, 512)], 4 << 20, 1024, &body).end()).unwrap();
    let path = bench.layer().join("sparse");
    let contents = fs::read(&path).unwrap();
    assert_eq!(contents.len(), 4 << 20);
    assert!(contents[..512].iter().all(|b| *b == b'a'));
    assert!(contents[1 << 20..][..512].iter().all(|b| *b == b'b'));
    assert_eq!(contents.iter().filter(|b| **b != 0).count(), 1024);
    assert!(path.metadata().unwrap().blocks() < 64, "holes take no disk");
}

#[test]
fn what_is_over_a_limit_is_stopped() {
    let few = Limits { names: 10, ..Limits::default() };
    let many = (0..20).fold(Tar::new(), |tar, n| tar.file(&format!("f{n}"), "")).end();
    let fault = Bench::new().unpack_within(&many, &few).unwrap_err();
    assert!(matches!(fault, Fault::TooMuch { limit: 10, .. }), "{fault}");
    let deep = Tar::new().file(&"d/".repeat(20), "").end();
    assert!(matches!(Bench::new().unpack_within(&deep, &few), Err(Fault::TooMuch { .. })));
    let small = Limits { bytes: 1000, ..Limits::default() };
    let large = Tar::new().file("f", &"x".repeat(1001)).end();
    assert!(matches!(Bench::new().unpack_within(&large, &small), Err(Fault::TooMuch { .. })));
}

#[test]
fn a_path_as_deep_as_can_be_is_made_and_removed() {
    let bench = Bench::new();
    bench.unpack(&Tar::new().file(&format!("{}f", "d/".repeat(2046)), "x").end()).unwrap();
    sys::beneath::remove(open_root(bench.dir.path()).unwrap(), b"layer").unwrap();
    assert!(!bench.layer().exists());
}

#[test]
fn a_layer_that_somebody_else_rearranges_never_leads_out() {
    let bench = Bench::new();
    let before = bench.outside();
    let done = std::sync::atomic::AtomicBool::new(false);
    let archive = (0..3000).fold(Tar::new().dir("d"), |tar, n| tar.file(&format!("d/f{n}"), "x"));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use rustix::fs::{CWD, RenameFlags, renameat_with};
            let (d, l) = (bench.layer().join("d"), bench.layer().join("l"));
            std::os::unix::fs::symlink("../outside", &l).unwrap();
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = renameat_with(CWD, &d, CWD, &l, RenameFlags::EXCHANGE);
            }
        });
        for _ in 0..5 {
            let _ = bench.unpack(&archive.clone().end());
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(bench.outside(), before);
}

/// Archives as a fuzzer that knows some tar would write them.
fn archives() -> impl Strategy<Value = Vec<u8>> {
    let name = prop::sample::select(vec![
        "a",
        "b",
        "a/b",
        "a/b/c",
        "b/../a",
        "../outside/secret",
        "/abs",
        ".",
        ".wh.a",
        ".wh.b",
        "a/.wh..wh..opq",
        ".wh..wh..opq",
        "a/",
        ".wh..",
        "../victim",
    ]);
    let member = (name.clone(), name, 0u8..9, any::<u16>());
    prop::collection::vec(member, 0..12).prop_map(|members| {
        let tar = members.into_iter().fold(Tar::new(), |tar, (path, target, kind, n)| match kind {
            0 | 1 => tar.file(path, &"x".repeat(usize::from(n % 2000))),
            2 => tar.dir(path),
            3 => tar.symlink(path, target),
            4 => tar.symlink(path, "../outside"),
            5 => tar.hard(path, target),
            6 => tar.device(EntryType::Char, path, u32::from(n % 2), u32::from(n % 3)),
            7 => tar.pax(&[("path", target.as_bytes())]),
            _ => tar.with(EntryType::Fifo, path, |h| h.set_mode(u32::from(n))),
        });
        tar.end()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_archive_at_all_reaches_outside(archive in archives()) {
        let bench = Bench::new();
        let before = bench.outside();
        let _ = bench.unpack(&archive);
        prop_assert_eq!(bench.outside(), before);
    }

    #[test]
    fn a_damaged_archive_is_no_worse(
        archive in archives(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
    ) {
        let bench = Bench::new();
        let before = bench.outside();
        let mut archive = archive;
        for (at, byte) in damage {
            let at = at.index(archive.len());
            archive[at] = byte;
        }
        let _ = bench.unpack(&archive);
        prop_assert_eq!(bench.outside(), before);
    }

    #[test]
    fn any_bytes_are_unpacked_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
        let _ = Bench::new().unpack(&bytes);
    }
}

/// Names as GNU tar lists them, and whether it had nothing to say against the archive.
fn listed_by_gnu_tar(archive: &[u8]) -> (Vec<String>, bool) {
    use std::{io::Write, process};
    let mut child = process::Command::new("tar")
        .args(["--list", "--absolute-names", "--quoting-style=escape", "--file=-"])
        .env("LC_ALL", "C")
        .stdin(process::Stdio::piped())
        .stdout(process::Stdio::piped())
        .stderr(process::Stdio::null())
        .spawn()
        .unwrap();
    // An archive that tar gives up on is not read to its end.
    let _ = child.stdin.take().unwrap().write_all(archive);
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let names = text.lines().map(|name| name.trim_end_matches('/').to_owned());
    (names.collect(), output.status.success())
}

fn listed_by_us(archive: &[u8]) -> Option<Vec<String>> {
    let mut tape = Tape::new(Cursor::new(archive));
    let mut names = Vec::new();
    while let Some(member) = tape.member().ok()? {
        let path = String::from_utf8(member.path).ok()?;
        names.push(path.trim_end_matches('/').to_owned());
    }
    Some(names)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Of an archive that we take, nobody else sees other members (CVE-2025-62518).
    #[test]
    fn what_we_read_is_what_gnu_tar_reads(
        archive in archives(),
        block in any::<prop::sample::Index>(),
        damage in prop::collection::vec((100usize..512, any::<u8>()), 0..3),
    ) {
        let mut archive = archive;
        let block = block.index(archive.len() / 512) * 512;
        for (at, byte) in damage {
            archive[block + at] = byte;
        }
        // Most damage would be found by the checksum, and nothing be learnt.
        let mut header = tar::Header::new_old();
        header.as_mut_bytes().copy_from_slice(&archive[block..block + 512]);
        if header.as_bytes().iter().any(|byte| *byte != 0) {
            header.set_cksum();
            archive[block..block + 512].copy_from_slice(header.as_bytes());
        }
        if let Some(ours) = listed_by_us(&archive) {
            let (theirs, content) = listed_by_gnu_tar(&archive);
            prop_assert!(ours.starts_with(&theirs), "we see {ours:?}, tar sees {theirs:?}");
            prop_assert!(!content || ours == theirs, "we see {ours:?}, tar sees {theirs:?}");
        }
    }
}

#[test]
fn xattr_names_that_overlay_uses_are_ours_alone() {
    // If this filesystem had no trusted attributes, the tests above would prove nothing.
    let bench = Bench::new();
    let dir = open_root(&bench.layer()).unwrap();
    rustix::fs::fsetxattr(&dir, "trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
    let mode = fs::Permissions::from_mode(0o700);
    fs::set_permissions(bench.layer(), mode).unwrap();
    assert!(whiteout::is_opaque(&dir).unwrap());
}
