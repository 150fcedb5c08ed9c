//! With real namespaces. Each test has a mount namespace of its own, so that what it pins goes with
//! it, even if it is killed.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    panic, thread,
};

use rustix::{
    fs::{CWD, Mode},
    mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change},
};

use super::*;

/// Runs `test` with a directory of its own, in a mount namespace of its own. Needs root, and says
/// so where it is missing.
pub(crate) fn as_root_in_own_mounts(test: impl FnOnce(&Path) + Send) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: namespaces are made by root only");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    on_a_thread("test", || {
        // SAFETY: this unshares mounts, not descriptors.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.expect("a mount namespace");
        let all = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", all).expect("mounts of our own");
        mount("tmpfs", dir.path(), "tmpfs", MountFlags::empty(), None).expect("a file system");
        test(dir.path());
    })
    .expect("a thread");
}

fn own_inode() -> u64 {
    rustix::fs::stat("/proc/thread-self/ns/net").expect("our own namespace").st_ino
}

fn talks_to_itself() -> io::Result<()> {
    let server = TcpListener::bind("127.0.0.1:0")?;
    TcpStream::connect(server.local_addr()?).map(drop)
}

#[test]
fn a_made_namespace_is_new_pinned_and_has_lo_up() {
    as_root_in_own_mounts(|dir| {
        let (path, outside) = (dir.join("some/where/pod"), own_inode());
        make(&path, &[]).unwrap();
        assert!(is_netns(&path));
        let inside = within(&path, own_inode).unwrap();
        assert_ne!(inside, outside);
        assert_eq!(rustix::fs::stat(&path).unwrap().st_ino, inside);
        assert_eq!(own_inode(), outside, "the caller stays where it was");
        within(&path, talks_to_itself).unwrap().unwrap();
        let links = within(&path, || fs::read_to_string("/proc/thread-self/net/dev").unwrap());
        let links = links.unwrap();
        assert!(links.contains("lo:") && !links.contains("eth0:"), "{links}");
        unmake(&path).unwrap();
        assert!(!path.exists());
    });
}

#[test]
fn a_namespace_that_is_made_before_its_place_is_known_is_as_any_other_once_pinned() {
    as_root_in_own_mounts(|dir| {
        let first = ("net.ipv4.ip_unprivileged_port_start", "7");
        let unpinned = Unpinned::make(&[first]).unwrap();
        let inode = rustix::fs::fstat(&unpinned.0).unwrap().st_ino;
        let path = dir.join("some/where/pod");
        unpinned.pin(&path, &[("net.ipv4.ping_group_range", "5 6")]).unwrap();
        assert!(is_netns(&path));
        assert_eq!(within(&path, own_inode).unwrap(), inode);
        within(&path, talks_to_itself).unwrap().unwrap();
        let read = |file: &'static str| within(&path, move || fs::read_to_string(file).unwrap());
        assert_eq!(read("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap(), "7\n");
        assert_eq!(read("/proc/sys/net/ipv4/ping_group_range").unwrap(), "5\t6\n");
        unmake(&path).unwrap();
        assert!(!path.exists());
    });
}

#[test]
fn nothing_is_left_where_a_namespace_was_to_be_pinned_with_a_sysctl_that_is_not_there() {
    as_root_in_own_mounts(|dir| {
        let path = dir.join("pod");
        let unpinned = Unpinned::make(&[]).unwrap();
        unpinned.pin(&path, &[("net.ipv4.no_such_thing", "1")]).unwrap_err();
        assert!(!path.exists());
    });
}

#[test]
fn sysctls_are_set_inside_and_only_there() {
    as_root_in_own_mounts(|dir| {
        let read = || fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
        let (path, outside) = (dir.join("pod"), read());
        let wanted = [
            ("net.ipv4.ip_unprivileged_port_start", "7"),
            ("net/ipv4/ping_group_range", "0 2147483647"),
            ("net.ipv4.conf.lo.forwarding", "1"),
        ];
        make(&path, &wanted).unwrap();
        assert_eq!(within(&path, read).unwrap().trim(), "7");
        assert_eq!(read(), outside);
        let range = || fs::read_to_string("/proc/sys/net/ipv4/ping_group_range").unwrap();
        assert_eq!(within(&path, range).unwrap().trim(), "0\t2147483647");
    });
}

#[test]
fn a_sysctl_of_something_else_is_refused_before_anything_is_made() {
    as_root_in_own_mounts(|dir| {
        let path = dir.join("below/pod");
        let bad =
            ["kernel.shm_rmid_forced", "net", "net/../kernel/x", "net.ipv4.//.x/..", "", "/net/x"];
        for name in bad {
            let e = make(&path, &[(name, "1")]).unwrap_err();
            assert_eq!(e.kind(), io::ErrorKind::InvalidInput, "{name}: {e}");
            assert!(!dir.join("below").exists(), "{name}");
        }
    });
}

#[test]
fn a_make_that_fails_half_way_leaves_nothing() {
    as_root_in_own_mounts(|dir| {
        let path = dir.join("pod");
        let e = make(&path, &[("net.ipv4.no_such_thing", "1")]).unwrap_err();
        assert!(e.to_string().contains("no_such_thing"), "{e}");
        assert!(!path.exists());
        make(&path, &[("net.ipv4.ping_group_range", "garbage")]).unwrap_err();
        assert!(!path.exists());
    });
}

#[test]
fn what_is_there_already_is_neither_taken_over_nor_removed() {
    as_root_in_own_mounts(|dir| {
        let path = dir.join("pod");
        make(&path, &[]).unwrap();
        let first = within(&path, own_inode).unwrap();
        let e = make(&path, &[]).unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(within(&path, own_inode).unwrap(), first);
    });
}

#[test]
fn unmaking_is_content_with_never_made_half_made_and_unmade() {
    as_root_in_own_mounts(|dir| {
        let path = dir.join("pod");
        unmake(&path).unwrap();
        unmake(&dir.join("no/such/directory")).unwrap();
        fs::write(&path, "").unwrap();
        assert!(!is_netns(&path));
        unmake(&path).unwrap();
        assert!(!path.exists());
        make(&path, &[]).unwrap();
        unmake(&path).unwrap();
        unmake(&path).unwrap();
        assert!(!path.exists());
    });
}

#[test]
fn every_mount_stacked_on_a_pin_is_taken_off() {
    as_root_in_own_mounts(|dir| {
        let path = dir.join("pod");
        make(&path, &[]).unwrap();
        mount_bind("/proc/thread-self/ns/net", &path).unwrap();
        mount_bind("/proc/thread-self/ns/net", &path).unwrap();
        unmake(&path).unwrap();
        assert!(!path.exists());
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        assert!(!mounts.contains(path.to_str().unwrap()), "{mounts}");
    });
}

#[test]
fn a_shared_parent_and_one_seen_twice_make_no_difference() {
    as_root_in_own_mounts(|dir| {
        let (first, second) = (dir.join("first"), dir.join("second"));
        fs::create_dir(&first).unwrap();
        fs::create_dir(&second).unwrap();
        mount_bind(&first, &first).unwrap();
        mount_change(&first, MountPropagationFlags::SHARED).unwrap();
        mount_bind(&first, &second).unwrap();
        make(&first.join("pod"), &[]).unwrap();
        assert!(is_netns(&first.join("pod")) && is_netns(&second.join("pod")));
        unmake(&first.join("pod")).unwrap();
        assert!(!first.join("pod").exists() && !second.join("pod").exists());
    });
}

#[test]
fn a_pin_that_another_mount_namespace_still_holds_can_be_unmade() {
    as_root_in_own_mounts(|dir| {
        let path = dir.join("pod");
        make(&path, &[]).unwrap();
        let (held, unmade) = (std::sync::Barrier::new(2), std::sync::Barrier::new(2));
        thread::scope(|scope| {
            let copy = scope.spawn(|| {
                // SAFETY: this unshares mounts, not descriptors.
                unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.unwrap();
                held.wait();
                unmade.wait();
            });
            held.wait();
            unmake(&path).unwrap();
            assert!(!path.exists());
            unmade.wait();
            copy.join().unwrap();
        });
    });
}

#[test]
fn only_a_network_namespace_counts_as_one() {
    as_root_in_own_mounts(|dir| {
        let (file, fifo, ipc) = (dir.join("file"), dir.join("fifo"), dir.join("ipc"));
        fs::write(&file, "").unwrap();
        fs::write(&ipc, "").unwrap();
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(CWD, &fifo, kind, Mode::RUSR, 0).unwrap();
        mount_bind("/proc/self/ns/ipc", &ipc).unwrap();
        for path in [dir, &file, &fifo, &ipc, &dir.join("missing")] {
            assert!(!is_netns(path), "{}", path.display());
            within(path, || unreachable!("it is no namespace")).unwrap_err();
        }
        assert!(is_netns(Path::new("/proc/self/ns/net")));
        let e = within_fd(fs::File::open(&file).unwrap().as_fd(), || ()).unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::InvalidInput);
    });
}

#[test]
fn a_socket_opened_inside_stays_inside() {
    as_root_in_own_mounts(|dir| {
        let path = dir.join("pod");
        make(&path, &[]).unwrap();
        let server = within(&path, || TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let address = server.local_addr().unwrap();
        unmake(&path).unwrap();
        assert!(path.parent().unwrap().exists());
        // Nobody outside listens there, or at least it is not this listener that answers.
        server.set_nonblocking(true).unwrap();
        drop(TcpStream::connect(address));
        assert_eq!(server.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    });
}

#[test]
fn a_panic_inside_goes_on_outside() {
    as_root_in_own_mounts(|dir| {
        let path = dir.join("pod");
        make(&path, &[]).unwrap();
        let fell = panic::catch_unwind(|| within(&path, || panic!("as asked")));
        let words = *fell.unwrap_err().downcast::<&str>().unwrap();
        assert_eq!(words, "as asked");
    });
}
