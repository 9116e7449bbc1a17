//! Input of an analysis: two runs, a policy, and the plan by which the data are looked at.

use schemas::id::CaseId;

use crate::policy::Policy;
use crate::run::Run;
use crate::verdict::Calibration;

/// Share of alpha that the planned looks spend if an extension is reserved; betting uses the rest.
pub const PLANNED_ALPHA_SHARE: f64 = 0.8;

/// Plan by which the data are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MonitoringPlan<'a> {
    /// One look at all data, with all of alpha.
    SingleLook,
    /// This many planned looks at growing parts of finished runs; stops at the first look that decides.
    PlannedLooks(u32),
    /// A look after every case of finished runs, by betting; stops at the first case that decides.
    Anytime,
    /// Looks at runs that grow wave by wave.
    Waves(Waves<'a>),
}

/// Progress of runs that grow wave by wave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waves<'a> {
    /// All cases that can be played, in the order fixed before the first wave ([`crate::seeded_order`]).
    pub order: &'a [CaseId],
    /// Number of cases played at each look so far, ascending; the last entry is the current look.
    pub ends: &'a [usize],
    /// Number of cases at the end of the plan; later looks are an extension.
    pub planned: usize,
    /// Whether part of alpha is reserved for an extension.
    pub extension: bool,
}

/// Input of an analysis.
#[derive(Debug, Clone, Copy)]
pub struct AnalysisRequest<'a> {
    /// Policy, fixed before the candidate's run is read.
    pub policy: &'a Policy,
    /// Run of the current build.
    pub baseline: &'a Run,
    /// Run of the new build.
    pub candidate: &'a Run,
    /// Run of the recordings, if neither run contains them.
    pub recorded: Option<&'a Run>,
    /// Seed of all randomness.
    pub seed: u64,
    /// Monitoring plan.
    pub monitoring: MonitoringPlan<'a>,
    /// Result of `foreshadow calibrate` on these sessions, repeated in the verdict.
    pub calibration: Option<&'a Calibration>,
    /// Run of a reference build, to show the sum of changes since it.
    pub reference: Option<&'a Run>,
    /// Number of cases available in all, if known.
    pub corpus_cases: Option<u64>,
    /// Whether an inconclusive verdict computes the needed sample size, which takes longer than the decision itself.
    pub forecast: bool,
}

impl<'a> AnalysisRequest<'a> {
    /// An analysis of two runs in one look.
    #[must_use]
    pub fn new(policy: &'a Policy, baseline: &'a Run, candidate: &'a Run, seed: u64) -> Self {
        Self {
            policy,
            baseline,
            candidate,
            recorded: None,
            seed,
            monitoring: MonitoringPlan::SingleLook,
            calibration: None,
            reference: None,
            corpus_cases: None,
            forecast: true,
        }
    }
}
