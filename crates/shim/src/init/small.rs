//! What an init does in a line or two: its keyring, its host's name, its sysctls; and what no init of
//! ours does.

use oci_spec::runtime::{LinuxNamespaceType, LinuxResources, Spec};

use super::order::Order;
use crate::program::Failure;

/// `KEYCTL_JOIN_SESSION_KEYRING` (`linux/keyctl.h`).
const JOIN_SESSION_KEYRING: libc::c_ulong = 1;

/// A keyring of its own, so that the container does not have the keys of whoever started the daemon.
/// A kernel without keyrings has no such keys, and one that is out of them gives none to anybody else.
pub fn own_keyring(id: &str) {
    let name = std::ffi::CString::new(format!("_ses.{id}")).unwrap_or_default();
    // SAFETY: the name is NUL-terminated and outlives the call, which only reads it.
    unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) };
}

/// Names the host, if the name is the container's to give.
pub fn name_host(order: &Order<'_>) -> Result<(), Failure> {
    let own = order.namespaces.has_new(LinuxNamespaceType::Uts);
    let name = order.spec.hostname().as_deref().filter(|name| own && !name.is_empty());
    name.map_or(Ok(()), |name| rustix::system::sethostname(name.as_bytes()))
        .map_err(Failure::on_the_way("setting the host name"))
}

/// The kernel shows us those of the namespaces that we are in, by the host's `/proc`, in which nobody
/// can have put something else.
pub fn set_sysctls(order: &Order<'_>) -> Result<(), Failure> {
    let all = order.spec.linux().as_ref().and_then(|linux| linux.sysctl().as_ref());
    let all = all.into_iter().flatten().map(|(name, value)| (name.as_str(), value.as_str()));
    sys::sysctl::set(all).map_err(Failure::on_the_way("setting sysctls"))
}

/// What a config may ask for and we would leave out is refused, for it may be what keeps others safe.
pub fn refuse(spec: &Spec) -> Result<(), Failure> {
    let text = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    let mut all = vec![(text(spec.domainname()), "domainname")];
    if let Some(linux) = spec.linux() {
        all.extend([
            (text(linux.mount_label()), "linux.mountLabel"),
            (linux.intel_rdt().is_some(), "linux.intelRdt"),
            (linux.memory_policy().is_some(), "linux.memoryPolicy"),
            (linux.personality().is_some(), "linux.personality"),
            (linux.time_offsets().is_some(), "linux.timeOffsets"),
            (linux.net_devices().as_ref().is_some_and(|all| !all.is_empty()), "linux.netDevices"),
        ]);
        all.extend(linux.resources().as_ref().map(of_resources).into_iter().flatten());
    }
    if let Some(process) = spec.process() {
        all.extend([
            (process.io_priority().is_some(), "process.ioPriority"),
            (process.scheduler().is_some(), "process.scheduler"),
            (process.exec_cpu_affinity().is_some(), "process.execCPUAffinity"),
        ]);
    }
    match all.into_iter().find(|(asked, _)| *asked) {
        Some((_, field)) => Err(Failure::of_runtime(format!(
            "{field} is more than the built-in runtime can do: use another for this container"
        ))),
        None => Ok(()),
    }
}

fn of_resources(resources: &LinuxResources) -> [(bool, &'static str); 6] {
    let cpu = resources.cpu().clone().unwrap_or_default();
    let memory = resources.memory().unwrap_or_default();
    let real_time = cpu.realtime_runtime().is_some() || cpu.realtime_period().is_some();
    let kernel = memory.kernel().is_some() || memory.kernel_tcp().is_some();
    [
        (resources.block_io().is_some(), "linux.resources.blockIO"),
        (resources.network().is_some(), "linux.resources.network"),
        (resources.rdma().is_some(), "linux.resources.rdma"),
        (
            real_time || cpu.idle().is_some() || cpu.burst().is_some(),
            "linux.resources.cpu.realtime",
        ),
        (kernel || memory.reservation().is_some(), "linux.resources.memory.reservation"),
        (
            memory.swappiness().is_some() || memory.disable_oom_killer() == Some(true),
            "linux.resources.memory.swappiness",
        ),
    ]
}
