//! The kernel: mounts, namespaces, pidfds, cgroup files, descriptors. The only unsafe code beside the shim's.

pub mod below;
pub mod beneath;
pub mod cgroup;
pub mod heap;
#[cfg(test)]
mod kernel;
pub mod mapped;
pub mod mount;
mod mountinfo;
pub mod namespaces;
pub mod netdev;
pub mod netns;
pub mod pidfd;
pub mod pin;
pub mod procfs;
pub mod rootfs_file;
pub mod stream;
pub mod sysctl;
pub mod userns;
