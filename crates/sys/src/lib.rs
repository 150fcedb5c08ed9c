//! The kernel: mounts, network namespaces, pidfds, cgroup files, descriptors. The only unsafe code beside the shim's.
