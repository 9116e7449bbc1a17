//! A replay in steps: read the corpus, start, then run waves of cases until the caller has seen enough.
//!
//! Reading sends nothing to the candidate, so that the caller can reject a plan before the first trial.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use schemas::FORMAT;
use schemas::id::{CaseId, SessionId};
use schemas::trial::{Fidelity, RunManifest};
use store::{Snapshot, Store};
use tokio_util::sync::CancellationToken;

use super::cases::{Cases, prepare};
use super::dispatcher::Dispatcher;
use super::error::ReplayError;
use super::interleaving::{Pace, interleave};
use super::preflight;
use super::progress::{Progress, ProgressFn};
use super::recordings::copy_recordings;
use crate::blocking::run_blocking;
use crate::corpus::{Corpus, IncompleteSession, UnusableSession};
use crate::http_client::http_client;
use crate::plan::{ModelMode, Plan, PlannedTrial, session_of_repetition, trials};
use crate::summary::{Endings, Summary};
use crate::trial_log::TrialLog;
use crate::trial_runner::ReplayContext;
use crate::world::World;
use crate::world::active_trial::ReplaySettings;
use crate::world::provider_health::ProviderHealth;

/// A replay whose corpus is read.
pub struct Prepared {
    plan: Plan,
    run: Store,
    /// Manifest of the run to resume.
    existing: Option<RunManifest>,
    /// Manifest of this plan.
    manifest: RunManifest,
    source: (Store, Snapshot),
    sessions: Vec<SessionId>,
    cases: Cases,
    incomplete: Vec<IncompleteSession>,
    unusable: Vec<UnusableSession>,
    started: Instant,
}

/// A started replay: its run exists and the candidate answers.
pub struct Waves {
    dispatcher: Dispatcher,
    planned: Vec<PlannedTrial>,
    /// Cases of earlier waves.
    covered: BTreeSet<CaseId>,
    summary: Summary,
    started: Instant,
}

impl Prepared {
    /// Checks the plan and reads the corpus.
    ///
    /// # Errors
    /// See [`ReplayError`]; nothing was written or sent.
    pub async fn read(plan: Plan, on_progress: &mut ProgressFn<'_>) -> Result<Self, ReplayError> {
        let started = Instant::now();
        preflight::check(&plan)?;
        let run = Store::open(&plan.run)?.with_keys(plan.key_ring.clone());
        let existing = run.manifest().await?;
        if existing.is_some() && !plan.resume {
            return Err(ReplayError::RunExists { location: plan.run });
        }
        let corpus = preflight::corpus(&plan, &run, existing.as_ref()).await?;
        on_progress(Progress::Corpus {
            complete: corpus.complete,
            incomplete: corpus.incomplete.len(),
            unusable: corpus.unusable.len(),
            selected: corpus.selected.len(),
        });
        let manifest = manifest(&plan, &corpus);
        if let Some(existing) = &existing {
            preflight::check_same_plan(&plan.run, existing, &manifest)?;
        }
        let Corpus { selected, store, snapshot, incomplete, unusable, .. } = corpus;
        let rules = plan.arguments.clone();
        let (sessions, cases) = run_blocking(move || prepare(selected, &rules)).await;
        let source = (store, snapshot);
        Ok(Self { plan, run, existing, manifest, source, sessions, cases, incomplete, unusable, started })
    }

    /// The cases with their slices.
    pub fn cases(&self) -> impl Iterator<Item = (&CaseId, &BTreeMap<String, String>)> {
        self.cases.iter().map(|(id, case)| (id, &case.recording.slices))
    }

    /// Digest of the selected sessions: BLAKE3, hexadecimal.
    #[must_use]
    pub fn corpus_digest(&self) -> &str {
        self.manifest.corpus_digest.as_deref().unwrap_or_default()
    }

    /// Checks that the other lane repeats failed model calls alike, so that neither loses more trials for that.
    ///
    /// # Errors
    /// The candidate files have different settings.
    pub fn check_lanes(&self, candidate: &Self) -> Result<(), ReplayError> {
        match (&self.manifest.model_retry, &candidate.manifest.model_retry) {
            (Some(before), Some(after)) if before != after => Err(ReplayError::Plan(format!(
                "failed model calls would be repeated differently in the two lanes: {before} for the baseline, {after} for the \
                 candidate; write the same [model] retry in both candidate files"
            ))),
            (Some(_) | None, Some(_) | None) => Ok(()),
        }
    }

    /// Probes the candidate and creates or opens the run.
    ///
    /// # Errors
    /// See [`ReplayError`]. A failed probe leaves no run behind.
    pub async fn start(self, world: &World, on_progress: &mut ProgressFn<'_>) -> Result<Waves, ReplayError> {
        let Self { plan, run, existing, manifest, source, sessions, cases, incomplete, unusable, started } =
            self;
        preflight::check_faults(&plan, &cases);
        let context = context(&plan, world, &cases).await;
        let planned = trials(cases.keys(), plan.lane, plan.trials, plan.seed);
        let trial_log = match &existing {
            Some(_) => Some(TrialLog::open(run.clone(), plan.lane).await?),
            None => None,
        };
        let is_finished = |trial: &&PlannedTrial| {
            trial_log.as_ref().is_some_and(|log| log.is_finished(&trial.case, trial.trial))
        };
        if let Some(first) = planned.iter().find(|trial| !is_finished(trial)) {
            preflight::probe(&context, &cases[&first.case]).await?;
            on_progress(Progress::Probed);
        }
        if existing.is_none() {
            run.create_manifest(&manifest).await?;
        }
        let mut trial_log = match trial_log {
            Some(trial_log) => trial_log,
            None => TrialLog::open(run.clone(), plan.lane).await?,
        };
        copy_recordings(&run, &mut trial_log, source, &sessions, &cases).await?;
        let mut summary = Summary { incomplete, unusable, ..empty_summary(&plan) };
        trial_log.earlier().iter().for_each(|trial| summary.add(trial));
        summary.model_calls = trial_log.earlier_model_calls();
        let concurrency = plan.concurrency.max(1);
        let dispatcher = Dispatcher { context: Arc::new(context), cases, trial_log, concurrency };
        Ok(Waves { dispatcher, planned, covered: BTreeSet::new(), summary, started })
    }
}

impl Waves {
    /// Runs all trials of the wanted cases that no earlier wave covered. On return every finished trial is committed.
    ///
    /// On cancellation, finished trials are kept and [`Self::summary`] reports the interruption.
    ///
    /// # Errors
    /// See [`ReplayError`]; finished trials are kept.
    pub async fn run(
        &mut self,
        is_wanted: impl Fn(&CaseId) -> bool,
        on_progress: &mut ProgressFn<'_>,
        cancel: &CancellationToken,
    ) -> Result<(), ReplayError> {
        let open = self.plan_wave(is_wanted, on_progress);
        self.dispatcher.run(open, &mut self.summary, on_progress, Pace::free(), cancel).await
    }

    /// Adds the wanted cases that no earlier wave covered, and returns their trials that are not finished.
    fn plan_wave(
        &mut self,
        is_wanted: impl Fn(&CaseId) -> bool,
        on_progress: &mut ProgressFn<'_>,
    ) -> VecDeque<PlannedTrial> {
        let is_new = |trial: &&PlannedTrial| is_wanted(&trial.case) && !self.covered.contains(&trial.case);
        let wave: Vec<PlannedTrial> = self.planned.iter().filter(is_new).cloned().collect();
        let trial_log = &self.dispatcher.trial_log;
        let is_open = |trial: &&PlannedTrial| !trial_log.is_finished(&trial.case, trial.trial);
        let lane = self.dispatcher.context.lane;
        let mut open: VecDeque<PlannedTrial> = wave.iter().filter(is_open).cloned().collect();
        for trial in &mut open {
            let failures = trial_log.failures(&trial.case, trial.trial);
            trial.session = session_of_repetition(trial, lane, failures);
            self.summary.rerun += usize::from(failures > 0);
        }
        self.covered.extend(wave.iter().map(|trial| trial.case.clone()));
        self.summary.cases = self.covered.len();
        self.summary.planned += wave.len();
        self.summary.already += wave.len() - open.len();
        on_progress(Progress::Planned {
            trials: self.summary.planned,
            already: self.summary.planned - open.len(),
        });
        open
    }

    /// Totals of the waves so far.
    #[must_use]
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Ends the replay and returns its totals.
    #[must_use]
    pub fn close(mut self, world: &World) -> Summary {
        self.summary.uncorrelated_paths = world.registry().uncorrelated();
        self.summary.uncorrelated_calls = self.summary.uncorrelated_paths.values().sum();
        self.summary.late_calls = world.registry().late();
        self.summary.misses.sort();
        self.summary.elapsed_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.summary
    }
}

/// Runs a wave in both lanes at once: trials start in one random order, so that a shift in time meets both lanes alike.
///
/// If one lane fails, the other one stops as on a cancellation, because a comparison needs both.
pub async fn run_both(
    lanes: &mut [Waves; 2],
    is_wanted: impl Fn(&CaseId) -> bool,
    on_progress: [&mut ProgressFn<'_>; 2],
    cancel: &CancellationToken,
) -> [Result<(), ReplayError>; 2] {
    let [baseline, candidate] = lanes;
    let [of_baseline, of_candidate] = on_progress;
    let open = [baseline.plan_wave(&is_wanted, of_baseline), candidate.plan_wave(&is_wanted, of_candidate)];
    let paces = interleave([&open[0], &open[1]], baseline.dispatcher.context.settings.run_seed);
    let ([first, second], [pace, other]) = (open, paces);
    let run = async |lane: &mut Waves, open, pace, on_progress: &mut ProgressFn<'_>| {
        let ended = Box::pin(lane.dispatcher.run(open, &mut lane.summary, on_progress, pace, cancel)).await;
        if ended.is_err() || lane.summary.provider_down.is_some() {
            cancel.cancel();
        }
        ended
    };
    let (first, second) =
        tokio::join!(run(baseline, first, pace, of_baseline), run(candidate, second, other, of_candidate));
    [first, second]
}

fn manifest(plan: &Plan, corpus: &Corpus) -> RunManifest {
    RunManifest {
        format: FORMAT,
        tool_version: plan.tool_version.clone(),
        lane: plan.lane,
        build: plan.candidate.build().clone(),
        source: "replay".to_owned(),
        model: Some(plan.model.as_str().to_owned()),
        selected: false,
        planned_trials: Some(plan.trials),
        planned_cases: u32::try_from(corpus.selected.len()).ok(),
        seed: Some(plan.seed),
        corpus_digest: Some(corpus.digest.clone()),
        plan_digest: Some(plan.digest()),
        infrastructure: plan.infrastructure.clone(),
        model_retry: plan.candidate.model_retry().filter(|_| plan.model == ModelMode::Live),
    }
}

fn empty_summary(plan: &Plan) -> Summary {
    Summary {
        run: plan.run.clone(),
        lane: plan.lane,
        build: plan.candidate.build().clone(),
        cases: 0,
        planned: 0,
        already: 0,
        ran: 0,
        endings: Endings::default(),
        fidelity: Fidelity::default(),
        model_fidelity: Fidelity::default(),
        divergences: 0,
        misses: Vec::new(),
        duplicated_writes: 0,
        uncorrelated_calls: 0,
        uncorrelated_paths: BTreeMap::new(),
        late_calls: 0,
        model_calls: 0,
        provider_retries: 0,
        provider_failures: 0,
        rerun: 0,
        provider_down: None,
        input_tokens: 0,
        output_tokens: 0,
        incomplete: Vec::new(),
        unusable: Vec::new(),
        interrupted: false,
        elapsed_ms: 0,
    }
}

async fn context(plan: &Plan, world: &World, cases: &Cases) -> ReplayContext {
    let tool_list = cases.values().flat_map(|case| case.recording.tool_list.clone()).collect();
    world.registry().prepare(plan.candidate.propagate.clone(), plan.concurrency <= 1, tool_list);
    let needs_tls = plan.candidate.needs_tls();
    // Reads the root certificates of the system from disk.
    let client = run_blocking(move || http_client(needs_tls)).await;
    ReplayContext {
        candidate: plan.candidate.clone(),
        lane: plan.lane,
        settings: Arc::new(ReplaySettings {
            run_seed: plan.seed,
            faults: plan.faults.clone().unwrap_or_default(),
            model: plan.model,
            upstream: plan.candidate.model.clone(),
            provider_health: ProviderHealth::new(
                plan.candidate.model.as_ref().map_or(u32::MAX, |upstream| upstream.max_lost_trials),
            ),
            propagate: plan.candidate.propagate.clone(),
            client,
            clock: plan.clock,
            delay_scale: plan.delay_scale,
            delay_cap: plan.delay_cap,
        }),
        registry: world.registry().clone(),
        world_url: format!("http://{}", world.address()),
        incarnation: plan.incarnation.clone(),
        exchanges: AtomicU64::new(0),
        root_key: plan.root_key.clone(),
        infrastructure: plan.infrastructure.clone(),
    }
}
