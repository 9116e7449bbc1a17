//! A replay in parts: read the corpus, then start, then play some cases after others until the caller has seen enough.
//!
//! Reading sends nothing to the candidate, so that a plan can still be refused for free.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use schemas::id::{CaseId, SessionId};
use schemas::trial::RunManifest;
use store::{Snapshot, Store};
use tokio_util::sync::CancellationToken;

use super::{
    Cases, Dispatch, Progress, ReplayError, Tell, empty_summary, manifest_of, preflight, prepare, record,
    stage,
};
use crate::corpus::{TornSession, UnusableSession};
use crate::plan::{Plan, PlannedTrial, trials};
use crate::summary::Summary;
use crate::trial_log::Ledger;
use crate::world::World;

/// A replay whose corpus is read, and nothing more done.
pub struct Prepared {
    plan: Plan,
    run: Store,
    held: Option<RunManifest>,
    wanted: RunManifest,
    source: (Store, Snapshot),
    sessions: Vec<SessionId>,
    cases: Cases,
    torn: Vec<TornSession>,
    unusable: Vec<UnusableSession>,
    started: Instant,
}

/// A replay that has started: its run is there and the candidate answers.
pub struct Waves {
    dispatch: Dispatch,
    planned: Vec<PlannedTrial>,
    played: std::collections::BTreeSet<CaseId>,
    summary: Summary,
    started: Instant,
}

impl Prepared {
    /// Reads the corpus and says what of the plan cannot be.
    ///
    /// # Errors
    /// See [`ReplayError`]; nothing was written, and nothing sent.
    pub async fn read(plan: Plan, tell: &mut Tell<'_>) -> Result<Self, ReplayError> {
        let started = Instant::now();
        preflight::check(&plan)?;
        let run = Store::open(&plan.run)?.with_keys(plan.ring.clone());
        let held = run.manifest().await?;
        if held.is_some() && !plan.resume {
            return Err(ReplayError::RunExists { location: plan.run });
        }
        let corpus = preflight::corpus(&plan, &run, held.as_ref()).await?;
        tell(Progress::Corpus {
            whole: corpus.whole,
            torn: corpus.torn.len(),
            unusable: corpus.unusable.len(),
            chosen: corpus.chosen.len(),
        });
        let wanted = manifest_of(&plan, &corpus);
        if let Some(held) = &held {
            preflight::same_plan(&plan.run, held, &wanted)?;
        }
        let (sessions, cases) = prepare(corpus.chosen);
        let (torn, unusable) = (corpus.torn, corpus.unusable);
        let source = (corpus.lake, corpus.snapshot);
        Ok(Self { plan, run, held, wanted, source, sessions, cases, torn, unusable, started })
    }

    /// The cases with their slices, by case.
    pub fn cases(&self) -> impl Iterator<Item = (&CaseId, &BTreeMap<String, String>)> {
        self.cases.iter().map(|(case, held)| (case, &held.script.slices))
    }

    /// Names exactly what was read.
    #[must_use]
    pub fn corpus_digest(&self) -> &str {
        self.wanted.corpus_digest.as_deref().unwrap_or_default()
    }

    /// Asks the candidate whether it answers, and makes the run.
    ///
    /// # Errors
    /// See [`ReplayError`].
    pub async fn start(self, world: &World, tell: &mut Tell<'_>) -> Result<Waves, ReplayError> {
        let Self { plan, run, held, wanted, source, sessions, cases, torn, unusable, started } = self;
        preflight::check_faults(&plan, &cases);
        let stage = stage(&plan, world, &cases);
        let planned = trials(cases.keys(), plan.lane, plan.trials, plan.seed);
        let ledger = match &held {
            Some(_) => Some(Ledger::open(run.clone(), plan.lane).await?),
            None => None,
        };
        let finished =
            |trial: &&PlannedTrial| ledger.as_ref().is_some_and(|l| l.is_finished(&trial.case, trial.trial));
        if let Some(first) = planned.iter().find(|trial| !finished(trial)) {
            preflight::probe(&stage, &cases[&first.case]).await?;
            tell(Progress::Probed);
        }
        if held.is_none() {
            run.create_manifest(&wanted).await?;
        }
        record(&run, source, &sessions, &cases).await?;
        let ledger = match ledger {
            Some(ledger) => ledger,
            None => Ledger::open(run.clone(), plan.lane).await?,
        };
        let mut summary = Summary { torn, unusable, ..empty_summary(&plan) };
        ledger.earlier().iter().for_each(|trial| summary.add(trial));
        summary.model_calls = ledger.earlier_model_calls();
        let concurrency = plan.concurrency.max(1);
        let dispatch = Dispatch { stage: Arc::new(stage), cases, ledger, concurrency };
        Ok(Waves { dispatch, planned, played: std::collections::BTreeSet::new(), summary, started })
    }
}

impl Waves {
    /// Plays the wanted cases that were not played before: all their trials, each finished one safe on return. On
    /// cancellation finished trials are kept, and [`Self::summary`] says that it was interrupted.
    ///
    /// # Errors
    /// See [`ReplayError`]; what was finished before stays finished.
    pub async fn play(
        &mut self,
        wanted: impl Fn(&CaseId) -> bool,
        tell: &mut Tell<'_>,
        cancel: &CancellationToken,
    ) -> Result<(), ReplayError> {
        let is_new = |trial: &&PlannedTrial| wanted(&trial.case) && !self.played.contains(&trial.case);
        let wave: Vec<PlannedTrial> = self.planned.iter().filter(is_new).cloned().collect();
        let ledger = &self.dispatch.ledger;
        let open: VecDeque<PlannedTrial> =
            wave.iter().filter(|trial| !ledger.is_finished(&trial.case, trial.trial)).cloned().collect();
        self.played.extend(wave.iter().map(|trial| trial.case.clone()));
        self.summary.cases = self.played.len();
        self.summary.planned += wave.len();
        self.summary.already += wave.len() - open.len();
        tell(Progress::Planned { trials: self.summary.planned, already: self.summary.planned - open.len() });
        self.dispatch.run(open, &mut self.summary, tell, cancel).await
    }

    /// What was played so far.
    #[must_use]
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Ends the replay, and says what was played.
    #[must_use]
    pub fn close(mut self, world: &World) -> Summary {
        self.summary.uncorrelated_calls = world.registry().uncorrelated();
        self.summary.elapsed_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.summary
    }
}
