//! The things that are measured, and what was found. Values are kept one by one; `summary` boils
//! them down.

use std::collections::BTreeMap;

use crate::supervisors::Supervisors;

/// One line of the table. Their order is that of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    RunPodSandbox,
    CreateContainer,
    StartContainer,
    PodUp,
    StopContainer,
    RemoveContainer,
    StopPodSandbox,
    RemovePodSandbox,
    CrowdUpRate,
    CrowdPodUp,
    CrowdUpCpu,
    CrowdDownRate,
    CrowdDownCpu,
    DaemonPss,
    SupervisorPss,
    SupervisorPrivate,
    NodeMemory,
    ExecSync,
    ListPodSandbox,
    ListContainers,
    ContainerStatus,
    ListContainerStats,
}

/// In what a measure is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Millis,
    PerSecond,
    Mebibytes,
    Kibibytes,
}

impl Unit {
    pub fn short(self) -> &'static str {
        match self {
            Unit::Millis => "ms",
            Unit::PerSecond => "/s",
            Unit::Mebibytes => "MiB",
            Unit::Kibibytes => "KiB",
        }
    }

    /// Whether a small value is the better one.
    pub fn less_is_better(self) -> bool {
        self != Unit::PerSecond
    }
}

impl Measure {
    pub fn unit(self) -> Unit {
        use Measure::{
            CrowdDownRate, CrowdUpRate, DaemonPss, NodeMemory, SupervisorPrivate, SupervisorPss,
        };
        match self {
            CrowdUpRate | CrowdDownRate => Unit::PerSecond,
            DaemonPss => Unit::Mebibytes,
            SupervisorPss | SupervisorPrivate | NodeMemory => Unit::Kibibytes,
            _ => Unit::Millis,
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Measure::RunPodSandbox => "RunPodSandbox",
            Measure::CreateContainer => "CreateContainer",
            Measure::StartContainer => "StartContainer",
            Measure::PodUp => "pod up (the three)",
            Measure::StopContainer => "StopContainer",
            Measure::RemoveContainer => "RemoveContainer",
            Measure::StopPodSandbox => "StopPodSandbox",
            Measure::RemovePodSandbox => "RemovePodSandbox",
            Measure::CrowdUpRate => "crowd: pods up",
            Measure::CrowdPodUp => "crowd: one pod up",
            Measure::CrowdUpCpu => "crowd: node CPU a pod, up",
            Measure::CrowdDownRate => "crowd: pods down",
            Measure::CrowdDownCpu => "crowd: node CPU a pod, down",
            Measure::DaemonPss => "held: daemon, PSS",
            Measure::SupervisorPss => "held: supervisors a pod, PSS",
            Measure::SupervisorPrivate => "held: supervisors a pod, private",
            Measure::NodeMemory => "held: node memory a pod",
            Measure::ExecSync => "held: ExecSync true",
            Measure::ListPodSandbox => "held: ListPodSandbox",
            Measure::ListContainers => "held: ListContainers",
            Measure::ContainerStatus => "held: ContainerStatus",
            Measure::ListContainerStats => "held: ListContainerStats",
        }
    }
}

/// What one column gave.
#[derive(Debug, Default)]
pub struct Record {
    pub supervisors: Supervisors,
    values: BTreeMap<Measure, Vec<f64>>,
}

impl Record {
    /// Puts down one value, in the unit of the measure.
    pub fn put(&mut self, measure: Measure, value: f64) {
        self.values.entry(measure).or_default().push(value);
    }

    pub fn put_all(&mut self, times: impl IntoIterator<Item = (Measure, f64)>) {
        times.into_iter().for_each(|(measure, value)| self.put(measure, value));
    }

    pub fn values(&self, measure: Measure) -> &[f64] {
        self.values.get(&measure).map_or(&[], Vec::as_slice)
    }

    pub fn measures(&self) -> impl Iterator<Item = Measure> {
        self.values.keys().copied()
    }
}
