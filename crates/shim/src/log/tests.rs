use proptest::prelude::*;

use super::*;

const TIME: &[u8] = b"T";

fn feed_all(pieces: &[&[u8]]) -> Vec<u8> {
    let (mut lines, mut out) = (Lines::new(Stream::Stdout), Vec::new());
    for piece in pieces {
        lines.feed(piece, TIME, &mut out);
    }
    lines.finish(TIME, &mut out);
    out
}

/// What a reader of the log makes of it: the bytes, and the longest piece.
fn read_back(log: &[u8]) -> (Vec<u8>, usize) {
    let (mut bytes, mut longest) = (Vec::new(), 0);
    for line in log.split_inclusive(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\n").expect("every line of a log ends");
        let (tag, content) = match line.strip_prefix(b"T stdout ") {
            Some([tag, b' ', content @ ..]) => (*tag, content),
            other => panic!("{other:?}"),
        };
        longest = longest.max(content.len());
        bytes.extend_from_slice(content);
        match tag {
            b'F' => bytes.push(b'\n'),
            b'P' => {}
            other => panic!("tag {other}"),
        }
    }
    (bytes, longest)
}

#[test]
fn a_line_is_cut_after_16384_bytes_and_not_before() {
    let log = |length: usize| {
        let mut bytes = vec![b'x'; length];
        bytes.push(b'\n');
        let out = feed_all(&[&bytes]);
        let pieces = out.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        pieces.map(|line| (line[9], line.len() - 11)).collect::<Vec<_>>()
    };
    assert_eq!(log(0), [(b'F', 0)]);
    assert_eq!(log(LONGEST), [(b'F', LONGEST)]);
    assert_eq!(log(LONGEST + 1), [(b'P', LONGEST), (b'F', 1)]);
    assert_eq!(log(2 * LONGEST), [(b'P', LONGEST), (b'F', LONGEST)]);
}

#[test]
fn what_is_left_at_the_end_is_partial() {
    assert_eq!(feed_all(&[b"a\nb"]), b"T stdout F a\nT stdout P b\n");
    assert_eq!(feed_all(&[b"a\n"]), b"T stdout F a\n");
    assert_eq!(feed_all(&[b""]), b"");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_cut_anyhow_are_read_back_as_they_were(
        runs in proptest::collection::vec((any::<u8>(), 0_usize..20_000, any::<bool>()), 0..8),
        cuts in proptest::collection::vec(0_usize..70_000, 0..6),
    ) {
        let mut bytes = Vec::new();
        for (byte, length, newline) in runs {
            bytes.resize(bytes.len() + length, byte);
            bytes.extend(newline.then_some(b'\n'));
        }
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
        let out = feed_all(&pieces);
        prop_assert_eq!(&out, &feed_all(&[&bytes]), "where it is cut does not matter");
        let (back, longest) = read_back(&out);
        prop_assert!(longest <= LONGEST);
        prop_assert!(back == bytes);
    }
}

#[test]
fn a_reopened_log_is_a_new_file_and_a_failed_reopening_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.log");
    let log = Log::open(path.clone()).unwrap();
    log.append(b"one\n");
    let rotated = dir.path().join("0.log.1");
    std::fs::rename(&path, &rotated).unwrap();
    log.reopen().unwrap();
    log.append(b"two\n");
    assert_eq!(std::fs::read(&rotated).unwrap(), b"one\n");
    assert_eq!(std::fs::read(&path).unwrap(), b"two\n");
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o640);

    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("elsewhere", &path).unwrap();
    assert!(log.reopen().is_err(), "a symbolic link is not followed");
    assert!(!dir.path().join("elsewhere").exists());
    log.append(b"three\n");
    assert!(std::fs::read_link(&path).is_ok());
}

#[test]
fn a_full_disk_drops_whole_lines_and_tears_none() {
    let limit = 10;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.log");
    let log = Log::open(path.clone()).unwrap();
    // A limit on the size of files stands in for a full disk. It is of the whole process, so the
    // test is run by a process of its own.
    let Some(pid) = fork_for_test() else {
        let size = rustix::process::Rlimit { current: Some(limit), maximum: None };
        rustix::process::setrlimit(rustix::process::Resource::Fsize, size).unwrap();
        // SAFETY: ignoring a signal touches no memory.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        log.append(b"12345\n6789ab\n");
        log.append(b"x\n");
        // SAFETY: leaves without running what belongs to the parent.
        unsafe { libc::_exit(0) };
    };
    rustix::process::waitpid(
        rustix::process::Pid::from_raw(pid),
        rustix::process::WaitOptions::empty(),
    )
    .unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"12345\nx\n");
}

fn fork_for_test() -> Option<i32> {
    // SAFETY: the child makes system calls and small allocations only; glibc's fork leaves the
    // allocator usable in the child of a process with many threads.
    match unsafe { libc::fork() } {
        0 => None,
        pid => Some(pid),
    }
}
