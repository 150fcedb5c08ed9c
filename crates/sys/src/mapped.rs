//! Overlays for a user namespace: the layers are shown as owned by those whom it maps their owners to.
//! An overlay cannot be mapped itself (as of Linux 6.18), but its layers can, since 5.19.

use std::{
    ffi::OsString,
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    thread::{UnshareFlags, unshare_unsafe},
};

use crate::{
    beneath::{self, open_dir, open_root},
    mount::{self, Attributes, Detached, Overlay, Tmpfs, Upper, bind},
    pin::on_a_thread,
};

/// Mounts the overlay at `target`, with its lower directories mapped by this user namespace. What is
/// written belongs to whoever it is written for: `upper` must be the namespace's root's.
///
/// # Errors
/// Of the kernel, also for a filesystem that cannot be mapped.
pub fn mount(
    overlay: &Overlay<'_>,
    user_namespace: BorrowedFd<'_>,
    target: &Path,
) -> io::Result<()> {
    mount_at_once(overlay, user_namespace, target)
        // Before Linux 6.15 an overlay takes no layers that are attached nowhere.
        .or_else(|_| mount_again(overlay, user_namespace, target))
}

/// A try that came to nothing has left a mark in the directory for work, with which no other overlay
/// can be mounted: that what is above it was never synced (`volatile`).
fn mount_again(
    overlay: &Overlay<'_>,
    user_namespace: BorrowedFd<'_>,
    target: &Path,
) -> io::Result<()> {
    if let Some(upper) = &overlay.upper {
        beneath::remove(upper.work, b"work")?;
    }
    mount_aside(overlay, user_namespace, target)
}

fn mount_at_once(
    overlay: &Overlay<'_>,
    user_namespace: BorrowedFd<'_>,
    target: &Path,
) -> io::Result<()> {
    let lower = map_all(overlay.lower, user_namespace)?;
    let lower: Vec<_> = lower.iter().map(AsFd::as_fd).collect();
    Overlay { lower: &lower, ..*overlay }.mount(target)
}

fn map_all(layers: &[BorrowedFd<'_>], by: BorrowedFd<'_>) -> io::Result<Vec<Detached>> {
    let map = |layer: &BorrowedFd<'_>| {
        let mapped = bind(layer, false)?;
        mapped.map_owners(by)?;
        Ok(mapped)
    };
    layers.iter().map(map).collect()
}

/// Attaches the layers where nobody sees them: in the mounts of a thread that then ends. The overlay
/// keeps what it needs of them.
fn mount_aside(
    overlay: &Overlay<'_>,
    user_namespace: BorrowedFd<'_>,
    target: &Path,
) -> io::Result<()> {
    // Descriptors of the host's mounts mean nothing to that thread; copies that are nowhere do.
    let lower = map_all(overlay.lower, user_namespace)?;
    let upper = overlay.upper.as_ref().map(Writable::copy).transpose()?;
    let made = on_a_thread("overlay", || {
        // SAFETY: of what is unshared, only the descriptor table could harm other threads.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }?;
        mount::make_private(Path::new("/"))?;
        make_aside(lower, upper, target)
    });
    made.flatten()?.attach(target)
}

/// What is above the two directories that are written to, which must be of one mount.
struct Writable {
    above: Detached,
    names: [OsString; 2],
    volatile: bool,
}

impl Writable {
    fn copy(upper: &Upper<'_>) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let above = rustix::fs::openat(upper.upper, "..", flags, Mode::empty())?;
        let name = |fd: BorrowedFd<'_>| -> io::Result<OsString> {
            let path = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
            path.file_name().map(OsString::from).ok_or_else(|| Errno::INVAL.into())
        };
        let names = [name(upper.upper)?, name(upper.work)?];
        io::Result::Ok(Self { above: bind(above, false)?, names, volatile: upper.volatile })
    }
}

fn make_aside(lower: Vec<Detached>, upper: Option<Writable>, place: &Path) -> io::Result<Detached> {
    let attributes = Attributes::default();
    Tmpfs { size: None, inodes: None, mode: 0o700, attributes }.make()?.attach(place)?;
    let attach = |what: Detached, name: &str| {
        let dir = place.join(name);
        fs::create_dir(&dir)?;
        what.attach(&dir)?;
        open_root(&dir)
    };
    let lower = lower.into_iter().enumerate().map(|(n, layer)| attach(layer, &n.to_string()));
    let lower: Vec<OwnedFd> = lower.collect::<io::Result<_>>()?;
    let lower: Vec<_> = lower.iter().map(AsFd::as_fd).collect();
    let volatile = upper.as_ref().is_some_and(|upper| upper.volatile);
    let written = upper.map(|Writable { above, names, .. }| {
        let above = attach(above, "above")?;
        io::Result::Ok([
            open_dir(&above, names[0].as_bytes())?,
            open_dir(&above, names[1].as_bytes())?,
        ])
    });
    let written = written.transpose()?;
    let upper = written.as_ref().map(|[upper, work]| Upper {
        upper: upper.as_fd(),
        work: work.as_fd(),
        volatile,
    });
    let whole = place.join("whole");
    fs::create_dir(&whole)?;
    Overlay { lower: &lower, upper }.mount(&whole)?;
    bind(open_root(&whole)?, false)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::{
        kernel,
        netns::tests::as_root_in_own_mounts,
        userns::{self, Mapping, Maps},
    };

    type Mount = fn(&Overlay<'_>, BorrowedFd<'_>, &Path) -> io::Result<()>;

    fn mounts(dir: &Path, mount: Mount) {
        for name in ["a", "b", "upper", "work", "target"] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        fs::write(dir.join("a/roots"), "").unwrap();
        fs::write(dir.join("b/theirs"), "").unwrap();
        std::os::unix::fs::chown(dir.join("b/theirs"), Some(7), Some(8)).unwrap();
        std::os::unix::fs::chown(dir.join("upper"), Some(100_000), Some(100_000)).unwrap();
        let map = vec![Mapping { inside: 0, outside: 100_000, size: 65_536 }];
        let namespace = userns::anonymous(&Maps { uids: map.clone(), gids: map }).unwrap();
        let open = |name: &str| open_root(&dir.join(name)).unwrap();
        let [a, b, upper, work] = ["a", "b", "upper", "work"].map(open);
        let upper = Upper { upper: upper.as_fd(), work: work.as_fd(), volatile: true };
        let lower = [a.as_fd(), b.as_fd()];
        let target = dir.join("target");
        mount(&Overlay { lower: &lower, upper: Some(upper) }, namespace.as_fd(), &target).unwrap();
        let owner = |name: &str| {
            let stat = fs::metadata(target.join(name)).unwrap();
            (stat.uid(), stat.gid())
        };
        assert_eq!(owner("roots"), (100_000, 100_000));
        assert_eq!(owner("theirs"), (100_007, 100_008));
        fs::write(target.join("theirs"), "changed").unwrap();
        assert_eq!(owner("theirs"), (100_007, 100_008), "a copy stays theirs");
        assert_eq!(fs::metadata(dir.join("b/theirs")).unwrap().uid(), 7);
        assert!(mount::unmount(&target).unwrap() && !mount::unmount(&target).unwrap());
    }

    #[test]
    fn layers_are_shown_as_owned_by_the_namespaces_users() {
        if kernel::is_older(6, 3, "a tmpfs that is mapped") {
            return;
        }
        as_root_in_own_mounts(|dir| mounts(dir, mount_at_once));
    }

    #[test]
    fn a_kernel_that_needs_them_attached_has_it_the_same_and_nobody_sees_them() {
        if kernel::is_older(6, 3, "a tmpfs that is mapped") {
            return;
        }
        as_root_in_own_mounts(|dir| {
            // As a try leaves it that failed after it was begun.
            fs::create_dir_all(dir.join("work/work/incompat/volatile")).unwrap();
            mounts(dir, mount_again);
            let seen = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
            let target = dir.join("target");
            assert!(!seen.contains(target.to_str().unwrap()), "{seen}");
        });
    }
}
