//! The metrics that can be told: their names, what they mean, and their labels. Names and labels are
//! those of cAdvisor, whose place the kubelet lets a runtime take.

use cri_proto::v1::{MetricDescriptor, MetricType};

/// The labels that all metrics have. `container` and `name` are empty where a metric is of the whole
/// pod, as cAdvisor has it, so that sums over containers count nothing twice.
pub(super) const WHO: [&str; 6] = ["container", "id", "image", "name", "namespace", "pod"];

/// A metric with `N` labels of its own.
pub(super) struct Known<const N: usize> {
    pub(super) name: &'static str,
    pub(super) kind: MetricType,
    help: &'static str,
    labels: [&'static str; N],
}

impl<const N: usize> Known<N> {
    fn descriptor(&self) -> MetricDescriptor {
        let labels = WHO.iter().chain(&self.labels);
        MetricDescriptor {
            name: self.name.to_owned(),
            help: self.help.to_owned(),
            label_keys: labels.map(|label| (*label).to_owned()).collect(),
        }
    }
}

/// Makes of each line a constant, whose type says how many labels its values must have.
macro_rules! known {
    ($($constant:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(pub(super) const $constant: Known<{ count(&[$($label),*]) }> = Known {
            name: $name,
            kind: MetricType::$kind,
            help: $help,
            labels: [$($label),*],
        };)*

        /// All of them.
        pub(crate) fn descriptors() -> Vec<MetricDescriptor> {
            vec![$($constant.descriptor()),*]
        }
    };
}

const fn count(labels: &[&str]) -> usize {
    labels.len()
}

known! {
    CPU_USAGE: Counter "container_cpu_usage_seconds_total" ["cpu"]
        "Processor time used, in seconds.";
    CPU_USER: Counter "container_cpu_user_seconds_total" []
        "Processor time used in user mode, in seconds.";
    CPU_SYSTEM: Counter "container_cpu_system_seconds_total" []
        "Processor time used in the kernel, in seconds.";
    CPU_PERIODS: Counter "container_cpu_cfs_periods_total" []
        "Periods in which a quota of processor time was in force.";
    CPU_THROTTLED_PERIODS: Counter "container_cpu_cfs_throttled_periods_total" []
        "Periods in which the quota ran out.";
    CPU_THROTTLED: Counter "container_cpu_cfs_throttled_seconds_total" []
        "Time spent waiting for the next period, in seconds.";
    PRESSURE_CPU_WAITING: Counter "container_pressure_cpu_waiting_seconds_total" []
        "Time in which some tasks waited for a processor, in seconds.";
    PRESSURE_CPU_STALLED: Counter "container_pressure_cpu_stalled_seconds_total" []
        "Time in which all tasks waited for a processor, in seconds.";
    PRESSURE_MEMORY_WAITING: Counter "container_pressure_memory_waiting_seconds_total" []
        "Time in which some tasks waited for memory, in seconds.";
    PRESSURE_MEMORY_STALLED: Counter "container_pressure_memory_stalled_seconds_total" []
        "Time in which all tasks waited for memory, in seconds.";
    PRESSURE_IO_WAITING: Counter "container_pressure_io_waiting_seconds_total" []
        "Time in which some tasks waited for a disk, in seconds.";
    PRESSURE_IO_STALLED: Counter "container_pressure_io_stalled_seconds_total" []
        "Time in which all tasks waited for a disk, in seconds.";
    MEMORY_USAGE: Gauge "container_memory_usage_bytes" []
        "Memory in use, that of files not used of late too.";
    MEMORY_WORKING_SET: Gauge "container_memory_working_set_bytes" []
        "Memory in use, less that of files not used of late.";
    MEMORY_MAX_USAGE: Gauge "container_memory_max_usage_bytes" []
        "The most memory that was ever in use.";
    MEMORY_RSS: Gauge "container_memory_rss" []
        "Bytes of memory that no file stands behind.";
    MEMORY_CACHE: Gauge "container_memory_cache" []
        "Bytes of memory that hold parts of files.";
    MEMORY_MAPPED_FILE: Gauge "container_memory_mapped_file" []
        "Bytes of memory that are files mapped by processes.";
    MEMORY_KERNEL: Gauge "container_memory_kernel_usage" []
        "Bytes of memory that the kernel uses on their behalf.";
    MEMORY_SWAP: Gauge "container_memory_swap" []
        "Bytes that were swapped out.";
    MEMORY_FAILCNT: Counter "container_memory_failcnt" []
        "How often the limit of memory was met.";
    MEMORY_FAILURES: Counter "container_memory_failures_total" ["failure_type", "scope"]
        "Page faults.";
    OOM_EVENTS: Counter "container_oom_events_total" []
        "Processes that the kernel has killed for want of memory.";
    HUGETLB_USAGE: Gauge "container_hugetlb_usage_bytes" ["pagesize"]
        "Bytes of huge pages in use.";
    HUGETLB_MAX_USAGE: Gauge "container_hugetlb_max_usage_bytes" ["pagesize"]
        "The most bytes of huge pages that were ever in use.";
    BLKIO_USAGE: Counter "container_blkio_device_usage_total" ["device", "major", "minor", "operation"]
        "Bytes read from and written to block devices.";
    FS_READ_BYTES: Counter "container_fs_reads_bytes_total" ["device"]
        "Bytes read from block devices.";
    FS_READS: Counter "container_fs_reads_total" ["device"]
        "Reads from block devices.";
    FS_WRITTEN_BYTES: Counter "container_fs_writes_bytes_total" ["device"]
        "Bytes written to block devices.";
    FS_WRITES: Counter "container_fs_writes_total" ["device"]
        "Writes to block devices.";
    FS_USAGE: Gauge "container_fs_usage_bytes" ["device"]
        "Bytes on the disk that the container has written.";
    FS_LIMIT: Gauge "container_fs_limit_bytes" ["device"]
        "Size of the file system that the container writes to, in bytes.";
    FS_INODES: Gauge "container_fs_inodes_total" ["device"]
        "Inodes of the file system that the container writes to.";
    FS_INODES_FREE: Gauge "container_fs_inodes_free" ["device"]
        "Free inodes of the file system that the container writes to.";
    RECEIVED_BYTES: Counter "container_network_receive_bytes_total" ["interface"]
        "Bytes received.";
    RECEIVED_PACKETS: Counter "container_network_receive_packets_total" ["interface"]
        "Packets received.";
    RECEIVED_ERRORS: Counter "container_network_receive_errors_total" ["interface"]
        "Errors in receiving.";
    RECEIVED_DROPPED: Counter "container_network_receive_packets_dropped_total" ["interface"]
        "Packets dropped instead of received.";
    SENT_BYTES: Counter "container_network_transmit_bytes_total" ["interface"]
        "Bytes sent.";
    SENT_PACKETS: Counter "container_network_transmit_packets_total" ["interface"]
        "Packets sent.";
    SENT_ERRORS: Counter "container_network_transmit_errors_total" ["interface"]
        "Errors in sending.";
    SENT_DROPPED: Counter "container_network_transmit_packets_dropped_total" ["interface"]
        "Packets dropped instead of sent.";
    PROCESSES: Gauge "container_processes" []
        "Processes.";
    THREADS: Gauge "container_threads" []
        "Threads of all processes.";
    THREADS_MAX: Gauge "container_threads_max" []
        "How many threads there may be; 0 without a limit.";
    FILE_DESCRIPTORS: Gauge "container_file_descriptors" []
        "Open file descriptors of all processes.";
    SOCKETS: Gauge "container_sockets" []
        "Open sockets of all processes.";
    ULIMITS_SOFT: Gauge "container_ulimits_soft" ["ulimit"]
        "Soft limits of the first process.";
    LAST_SEEN: Gauge "container_last_seen" []
        "When this was told, in seconds since 1970.";
    START_TIME: Gauge "container_start_time_seconds" []
        "When the container was started, in seconds since 1970.";
    SPEC_CPU_PERIOD: Gauge "container_spec_cpu_period" []
        "The period of the quota of processor time, in microseconds.";
    SPEC_CPU_QUOTA: Gauge "container_spec_cpu_quota" []
        "Processor time in each period, in microseconds.";
    SPEC_CPU_SHARES: Gauge "container_spec_cpu_shares" []
        "Weight in the contest for processors, where 1024 is usual.";
    SPEC_MEMORY_LIMIT: Gauge "container_spec_memory_limit_bytes" []
        "Limit of memory, in bytes; 0 without a limit.";
    SPEC_MEMORY_RESERVATION: Gauge "container_spec_memory_reservation_limit_bytes" []
        "Memory that is kept from being reclaimed, in bytes.";
    SPEC_MEMORY_SWAP_LIMIT: Gauge "container_spec_memory_swap_limit_bytes" []
        "Limit of memory and swap together, in bytes; 0 without a limit.";
}
