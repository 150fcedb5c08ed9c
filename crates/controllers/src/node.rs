//! What this machine and this process can give to containers.

use std::fs;

use sys::cgroup::Layout;

/// What it can give now.
pub fn node(layout: &Layout) -> oci::Node {
    oci::Node {
        architecture: oci::Architecture::native(),
        cgroup_v2: layout.is_v2(),
        capabilities: oci::capabilities_from_mask(status_field("CapBnd:")),
        swap_accounting: layout.accounts_swap(),
        hugetlb: layout.has("hugetlb"),
        seccomp: fs::exists("/proc/sys/kernel/seccomp").unwrap_or(false),
        apparmor: read("/sys/module/apparmor/parameters/enabled") == "Y",
        selinux: fs::exists("/sys/fs/selinux/enforce").unwrap_or(false),
        recursive_read_only: sys::mount::can_set_attributes(),
        oom_score_floor: oom_score_floor(),
        devices: Vec::new(),
        pids_limit: None,
    }
}

/// The id of this boot.
pub fn boot() -> String {
    read("/proc/sys/kernel/random/boot_id")
}

/// The trimmed text of a small file; nothing if it cannot be read.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn status_field(name: &str) -> u64 {
    let status = read("/proc/self/status");
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}

/// Without CAP_SYS_RESOURCE (bit 24) nobody may go below the value that is ours.
fn oom_score_floor() -> Option<i32> {
    let may = status_field("CapEff:") & (1 << 24) != 0;
    if may { None } else { read("/proc/self/oom_score_adj").parse().ok() }
}
