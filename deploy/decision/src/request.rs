//! The request of a decision: two runs, a policy, and the looks at the data.

use std::path::PathBuf;
use std::sync::Arc;

use analyzer::verdict::Calibration;
use analyzer::{MonitoringPlan, Policy, Waves};
use schemas::id::CaseId;
use store::keyring::KeyRing;

/// Two runs to compare, the policy, and the folder of the output files.
#[derive(Debug, Clone)]
pub struct DecisionRequest {
    /// Location of the run of the current build.
    pub baseline: String,
    /// Location of the run of the new build.
    pub candidate: String,
    /// Location of the run with the recordings, if neither run contains them.
    pub recorded: Option<String>,
    /// Location of the run of a reference build; without it, that of the policy, if it names one.
    pub reference: Option<String>,
    /// Invariants, metrics, margins and alpha.
    pub policy: Policy,
    /// How often, and at how many cases, the decision looks at the data.
    pub looks: LookPlan,
    /// Error rates measured by `foreshadow calibrate`; the verdict quotes them.
    pub calibration: Option<Calibration>,
    /// Seed of the permutations and of the order of cases.
    pub seed: u64,
    /// Folder of `verdict.json`, `report.html`, `summary.md`, `junit.xml` and `otlp.json`.
    pub out: PathBuf,
    /// Keys of encrypted runs.
    pub keys: KeyRing,
    /// Microseconds since 1970, UTC.
    pub clock: fn() -> i64,
}

/// When the decision looks at the data.
#[derive(Debug, Clone)]
pub enum LookPlan {
    /// One look at all cases.
    Once,
    /// This many planned looks at growing parts of the cases, with alpha spending.
    Planned(u32),
    /// A look after every case, by betting.
    Anytime,
    /// The looks of a gate at runs that are not complete yet.
    Waves(WaveState),
}

/// Progress of the runs of a gate.
#[derive(Debug, Clone)]
pub struct WaveState {
    /// All cases that the gate may replay, in the order of replay.
    pub order: Arc<[CaseId]>,
    /// Number of cases at each look so far, ascending.
    pub ends: Vec<usize>,
    /// Number of cases at the last planned look.
    pub planned: usize,
    /// Part of alpha is reserved for looks after the planned ones.
    pub extension: bool,
    /// The command that reproduces the verdict.
    pub command: String,
}

impl LookPlan {
    pub(crate) fn monitoring(&self) -> MonitoringPlan<'_> {
        match self {
            Self::Once => MonitoringPlan::SingleLook,
            Self::Planned(looks) => MonitoringPlan::PlannedLooks(*looks),
            Self::Anytime => MonitoringPlan::Anytime,
            Self::Waves(WaveState { order, ends, planned, extension, .. }) => {
                MonitoringPlan::Waves(Waves { order, ends, planned: *planned, extension: *extension })
            }
        }
    }

    /// Number of cases in the corpus, if the plan knows it.
    pub(crate) fn corpus_cases(&self) -> Option<u64> {
        match self {
            Self::Waves(state) => Some(state.order.len() as u64),
            Self::Once | Self::Planned(_) | Self::Anytime => None,
        }
    }
}
