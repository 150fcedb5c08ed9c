//! What containers and pods use, as CRI shows it.

use cri_proto::v1;
use pods::{ContainerStats, PodStats};
use sys::{
    cgroup::{Pressure, Stall, Stats},
    netdev::Interface,
};

use super::{container, pod};

/// The interface that a pod's default route leads through.
const DEFAULT: &str = "eth0";

fn value(value: u64) -> Option<v1::UInt64Value> {
    Some(v1::UInt64Value { value })
}

pub(crate) fn stats(stats: &ContainerStats) -> v1::ContainerStats {
    let shown = container(&stats.container);
    let (timestamp, usage) = (stats.at, &stats.usage);
    v1::ContainerStats {
        attributes: Some(v1::ContainerAttributes {
            id: shown.id,
            metadata: shown.metadata,
            labels: shown.labels,
            annotations: shown.annotations,
        }),
        cpu: Some(cpu(usage, stats.nano_cores, timestamp)),
        memory: Some(memory(usage, timestamp)),
        writable_layer: Some(v1::FilesystemUsage {
            timestamp,
            fs_id: Some(v1::FilesystemIdentifier { mountpoint: stats.layer.mountpoint.clone() }),
            used_bytes: value(stats.layer.bytes),
            inodes_used: value(stats.layer.inodes),
        }),
        swap: Some(v1::SwapUsage {
            timestamp,
            swap_available_bytes: left(usage.swap_limit, usage.swap_usage),
            swap_usage_bytes: value(usage.swap_usage),
        }),
        io: io(usage, timestamp),
    }
}

pub(crate) fn pod_stats(stats: &PodStats) -> v1::PodSandboxStats {
    let shown = pod(&stats.pod);
    let (timestamp, usage) = (stats.at, &stats.usage);
    v1::PodSandboxStats {
        attributes: Some(v1::PodSandboxAttributes {
            id: shown.id,
            metadata: shown.metadata,
            labels: shown.labels,
            annotations: shown.annotations,
        }),
        linux: Some(v1::LinuxPodSandboxStats {
            cpu: Some(cpu(usage, stats.nano_cores, timestamp)),
            memory: Some(memory(usage, timestamp)),
            network: stats.traffic.as_deref().map(|all| network(all, timestamp)),
            process: Some(v1::ProcessUsage { timestamp, process_count: value(stats.processes) }),
            containers: stats.containers.iter().map(self::stats).collect(),
            io: io(usage, timestamp),
        }),
        windows: None,
    }
}

fn cpu(usage: &Stats, nano_cores: Option<u64>, timestamp: i64) -> v1::CpuUsage {
    v1::CpuUsage {
        timestamp,
        usage_core_nano_seconds: value(usage.cpu_usage_ns),
        usage_nano_cores: nano_cores.and_then(value),
        psi: psi(usage.cpu_pressure),
    }
}

fn memory(usage: &Stats, timestamp: i64) -> v1::MemoryUsage {
    v1::MemoryUsage {
        timestamp,
        working_set_bytes: value(usage.working_set),
        available_bytes: left(usage.memory_limit, usage.working_set),
        usage_bytes: value(usage.memory_usage),
        rss_bytes: value(usage.rss),
        page_faults: value(usage.page_faults),
        major_page_faults: value(usage.major_page_faults),
        psi: psi(usage.memory_pressure),
    }
}

/// What is left of a limit; none without one.
fn left(limit: u64, used: u64) -> Option<v1::UInt64Value> {
    (limit != u64::MAX).then(|| v1::UInt64Value { value: limit.saturating_sub(used) })
}

fn io(usage: &Stats, timestamp: i64) -> Option<v1::IoUsage> {
    let psi = psi(usage.io_pressure)?;
    Some(v1::IoUsage { timestamp, psi: Some(psi) })
}

fn psi(pressure: Option<Pressure>) -> Option<v1::PsiStats> {
    let data = |stall: Stall| v1::PsiData {
        total: stall.total_us,
        avg10: stall.avg10,
        avg60: stall.avg60,
        avg300: stall.avg300,
    };
    pressure.map(|pressure| v1::PsiStats {
        full: Some(data(pressure.full)),
        some: Some(data(pressure.some)),
    })
}

fn network(all: &[Interface], timestamp: i64) -> v1::NetworkUsage {
    let (default, others): (Vec<_>, Vec<_>) = all.iter().partition(|it| it.name == DEFAULT);
    v1::NetworkUsage {
        timestamp,
        default_interface: default.first().map(|it| interface(it)),
        interfaces: others.into_iter().map(interface).collect(),
    }
}

fn interface(interface: &Interface) -> v1::NetworkInterfaceUsage {
    let Interface { name, received, sent } = interface;
    v1::NetworkInterfaceUsage {
        name: name.clone(),
        rx_bytes: value(received.bytes),
        rx_errors: value(received.errors),
        tx_bytes: value(sent.bytes),
        tx_errors: value(sent.errors),
    }
}

#[cfg(test)]
mod tests {
    use sys::netdev::Counters;

    use super::*;

    #[test]
    fn what_is_left_is_told_where_there_is_a_limit() {
        assert_eq!(left(u64::MAX, 5), None);
        assert_eq!(left(10, 4), value(6));
        assert_eq!(left(10, 40), value(0));
        assert_eq!(left(0, 0), value(0), "no swap at all is a limit");
    }

    #[test]
    fn pressure_is_left_out_where_the_kernel_does_not_tell_it() {
        let mut usage = Stats::default();
        assert_eq!((cpu(&usage, None, 1).psi, io(&usage, 1)), (None, None));
        let stall = |total_us| Stall { total_us, avg10: 0.5, ..Stall::default() };
        usage.io_pressure = Some(Pressure { some: stall(7), full: stall(3) });
        let psi = io(&usage, 1).unwrap().psi.unwrap();
        assert_eq!((psi.some.unwrap().total, psi.full.unwrap().total), (7, 3));
        assert_eq!(psi.some.unwrap().avg10, 0.5);
    }

    #[test]
    fn the_default_interface_stands_apart() {
        let one = |name: &str, bytes| Interface {
            name: name.to_owned(),
            received: Counters { bytes, ..Counters::default() },
            ..Interface::default()
        };
        let usage = network(&[one("net1", 1), one("eth0", 2)], 9);
        assert_eq!(usage.default_interface.unwrap().rx_bytes, value(2));
        assert_eq!(usage.interfaces.len(), 1);
        assert_eq!(network(&[one("net1", 1)], 9).default_interface, None);
    }
}
