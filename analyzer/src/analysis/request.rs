//! Input of an analysis: two runs, a policy, and the plan by which the data are looked at.

use schemas::id::CaseId;

use crate::policy::Policy;
use crate::run::Run;
use crate::verdict::Calibration;

/// Part of alpha that the planned looks have where an extension is reserved; the rest is for betting.
pub const PLANNED_ALPHA_SHARE: f64 = 0.8;

/// How the data are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MonitoringPlan<'a> {
    /// SingleLook, at everything, with all of alpha.
    SingleLook,
    /// In this many planned looks at growing parts of finished runs; ends with the first look that decides.
    PlannedLooks(u32),
    /// After every case of finished runs, by betting; ends with the first case that decides.
    Anytime,
    /// At what there is so far of runs that grow wave by wave.
    Waves(Waves<'a>),
}

/// How far runs that grow wave by wave have got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waves<'a> {
    /// All cases that may be played, in the order fixed before the first wave ([`crate::seeded_order`]).
    pub order: &'a [CaseId],
    /// Cases played at each look so far, ascending; the last is now.
    pub ends: &'a [usize],
    /// Cases that the plan ends with; looks beyond are an extension.
    pub planned: usize,
    /// Whether part of alpha is kept for an extension.
    pub extension: bool,
}

/// What is asked: two runs, a policy, and how they are looked at.
#[derive(Debug, Clone, Copy)]
pub struct AnalysisRequest<'a> {
    /// What may block, what approval needs, how much worse is tolerated; fixed before the candidate's run is read.
    pub policy: &'a Policy,
    /// The current build's run.
    pub baseline: &'a Run,
    /// The new build's run.
    pub candidate: &'a Run,
    /// A run of the recordings, where neither run carries them.
    pub recorded: Option<&'a Run>,
    /// Keys everything random.
    pub seed: u64,
    /// How the data are looked at.
    pub monitoring: MonitoringPlan<'a>,
    /// What `foreshadow calibrate` found on these sessions, to stand beside the verdict.
    pub calibration: Option<&'a Calibration>,
    /// How many cases could be had in all, where that is known.
    pub corpus_cases: Option<u64>,
    /// Whether an inconclusive verdict says what it would take; that takes longer than the verdict itself.
    pub forecast: bool,
}

impl<'a> AnalysisRequest<'a> {
    /// One look at all of two runs.
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
            corpus_cases: None,
            forecast: true,
        }
    }
}
