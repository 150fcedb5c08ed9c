//! What a container uses, as CRI shows it.

use cri_proto::v1;
use pods::ContainerStats;

use super::container;

fn value(value: u64) -> Option<v1::UInt64Value> {
    Some(v1::UInt64Value { value })
}

pub(crate) fn stats(stats: &ContainerStats) -> v1::ContainerStats {
    let shown = container(&stats.container);
    let timestamp = stats.at;
    v1::ContainerStats {
        attributes: Some(v1::ContainerAttributes {
            id: shown.id,
            metadata: shown.metadata,
            labels: shown.labels,
            annotations: shown.annotations,
        }),
        cpu: Some(v1::CpuUsage {
            timestamp,
            usage_core_nano_seconds: value(stats.cpu_ns),
            usage_nano_cores: stats.nano_cores.and_then(value),
            ..Default::default()
        }),
        memory: Some(v1::MemoryUsage {
            timestamp,
            working_set_bytes: value(stats.memory.working_set),
            available_bytes: stats.memory.available.and_then(value),
            usage_bytes: value(stats.memory.usage),
            rss_bytes: value(stats.memory.rss),
            page_faults: value(stats.memory.page_faults),
            major_page_faults: value(stats.memory.major_page_faults),
            ..Default::default()
        }),
        writable_layer: Some(v1::FilesystemUsage {
            timestamp,
            fs_id: Some(v1::FilesystemIdentifier { mountpoint: stats.layer.mountpoint.clone() }),
            used_bytes: value(stats.layer.bytes),
            inodes_used: value(stats.layer.inodes),
        }),
        swap: Some(v1::SwapUsage {
            timestamp,
            swap_usage_bytes: value(stats.memory.swap),
            ..Default::default()
        }),
        ..Default::default()
    }
}
