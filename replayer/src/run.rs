//! A replay from store to run: chooses the corpus, probes the candidate, plays the trials in parallel, keeps the ledger.
//!
//! One dispatcher owns the ledger and everything that is told; trials run beside it, at most as many as allowed.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use jsonschema::Validator;
use schemas::FORMAT;
use schemas::canonical::canonical;
use schemas::id::{CaseId, SessionId};
use schemas::trial::{RunManifest, TrialEnding};
use serde_json::Value;
use store::{Batch, ChunkIndex, Snapshot, Store, StoreError};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::case_recording::Script;
use crate::corpus::{Chosen, Corpus};
use crate::http_client::http_client;
use crate::plan::{ModelMode, Plan, PlannedTrial};
use crate::summary::{Endings, Summary};
use crate::tool_index::Tape;
use crate::trial_log::{Ledger, LedgerError};
use crate::trial_rows::add_recording;
use crate::trial_runner::{self, Finished, Stage};
use crate::world::World;
use crate::world::active_trial::{Case, Settings};

mod preflight;
mod waves;

pub use waves::{Prepared, Waves};

/// The source of the commits that carry the recordings.
const RECORDED_SOURCE: &str = "recorded";

/// Recordings that are committed together.
const RECORDED_BATCH: usize = 256;

/// A replay that cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// Store or run said no.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The ledger said no.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The store holds nothing.
    #[error("store {location} holds no sessions; record or import some first, or correct --store")]
    EmptyStore {
        /// The store.
        location: String,
    },
    /// Nothing of the store can be replayed.
    #[error(
        "store {location} holds no session that can be replayed: {torn} are torn, {unusable} have nothing to play{hint}; see `foreshadow sessions verify`"
    )]
    NoCases {
        /// The store.
        location: String,
        /// Torn sessions.
        torn: usize,
        /// Sessions with nothing to play.
        unusable: usize,
        /// What was filtered by, and the first reasons.
        hint: String,
    },
    /// The store holds sessions of several agents.
    #[error("store {location} holds sessions of several agents ({agents}); choose one with --agent")]
    SeveralAgents {
        /// The store.
        location: String,
        /// Their names.
        agents: String,
    },
    /// A run is there already.
    #[error("{location} already holds a run; go on with it by --resume, or choose another --run")]
    RunExists {
        /// The run.
        location: String,
    },
    /// The run was made by another plan.
    #[error(
        "run {location} cannot be resumed: its {what} is {held}, this command's is {asked}; repeat the command it was started with, or choose another --run"
    )]
    OtherPlan {
        /// The run.
        location: String,
        /// What differs.
        what: &'static str,
        /// What the run has.
        held: String,
        /// What was asked for.
        asked: String,
    },
    /// Something the plan needs is not there.
    #[error("{0}")]
    Plan(String),
    /// The candidate did not answer the probe, or with a failure.
    #[error("{detail}\nno trial was run: start the candidate or correct its file, then try again")]
    Probe {
        /// What was wrong, what was sent and what came back, a line each.
        detail: String,
    },
    /// A trial's task was lost.
    #[error("a trial ended in a panic: {0}; this is a bug, please report it, then resume the run")]
    Panicked(String),
}

impl ReplayError {
    /// Whether the command line or a configuration is wrong, rather than the work.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        match self {
            Self::EmptyStore { .. }
            | Self::SeveralAgents { .. }
            | Self::RunExists { .. }
            | Self::OtherPlan { .. }
            | Self::Plan(_)
            | Self::Store(StoreError::Location { .. } | StoreError::ManifestExists { .. }) => true,
            Self::Store(_)
            | Self::Ledger(_)
            | Self::NoCases { .. }
            | Self::Probe { .. }
            | Self::Panicked(_) => false,
        }
    }
}

/// How far a replay has got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The sessions are chosen.
    Corpus {
        /// Whole and usable ones.
        whole: usize,
        /// Left out because something is missing.
        torn: usize,
        /// Left out because there is nothing to play.
        unusable: usize,
        /// Chosen.
        chosen: usize,
    },
    /// The candidate answered the probe.
    Probed,
    /// The trials are known.
    Planned {
        /// All of them.
        trials: usize,
        /// Those finished by earlier starts.
        already: usize,
    },
    /// A trial is finished and safe.
    Finished {
        /// Finished ones, those of earlier starts included.
        done: usize,
        /// All of them.
        total: usize,
        /// Its case.
        case: CaseId,
        /// Its number.
        trial: u32,
        /// How it ended.
        ending: TrialEnding,
    },
}

/// Whom progress is told.
pub type Tell<'a> = dyn FnMut(Progress) + Send + 'a;

/// Replays; on cancellation finished trials are kept, the others can be resumed.
///
/// # Errors
/// See [`ReplayError`]; what was finished before stays finished.
pub async fn replay(
    plan: Plan,
    world: &World,
    tell: &mut Tell<'_>,
    cancel: CancellationToken,
) -> Result<Summary, ReplayError> {
    let prepared = Prepared::read(plan, tell).await?;
    let mut waves = prepared.start(world, tell).await?;
    waves.play(|_| true, tell, &cancel).await?;
    Ok(waves.close(world))
}

fn manifest_of(plan: &Plan, corpus: &Corpus) -> RunManifest {
    RunManifest {
        format: FORMAT,
        tool_version: plan.tool_version.clone(),
        lane: plan.lane,
        build: plan.candidate.build().clone(),
        source: "replay".to_owned(),
        model: Some(plan.model.as_str().to_owned()),
        selected: false,
        planned_trials: Some(plan.trials),
        planned_cases: u32::try_from(corpus.chosen.len()).ok(),
        seed: Some(plan.seed),
        corpus_digest: Some(corpus.digest.clone()),
        plan_digest: Some(plan.digest()),
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
        fidelity: schemas::trial::Fidelity::default(),
        divergences: 0,
        duplicated_writes: 0,
        uncorrelated_calls: 0,
        model_calls: 0,
        input_tokens: 0,
        output_tokens: 0,
        torn: Vec::new(),
        unusable: Vec::new(),
        interrupted: false,
        elapsed_ms: 0,
    }
}

/// Cases ready to be played, by id.
type Cases = BTreeMap<CaseId, Arc<Case>>;

/// Makes cases ready to be played; equal schemas are compiled once.
fn prepare(chosen: Vec<Chosen>) -> (Vec<SessionId>, Cases) {
    let mut compiled: HashMap<String, Option<Arc<Validator>>> = HashMap::new();
    let mut sessions = Vec::with_capacity(chosen.len());
    let mut cases = Cases::new();
    for Chosen { session, script, .. } in chosen {
        let mut validators = HashMap::new();
        for (tool, entry) in &script.listed {
            let Some(schema) = entry.get("inputSchema") else { continue };
            let validator =
                compiled.entry(canonical(schema)).or_insert_with(|| compile(tool, schema)).clone();
            validators.extend(validator.map(|validator| (tool.clone(), validator)));
        }
        let tape = Tape::new(script.tools.clone());
        cases.insert(script.case.clone(), Arc::new(Case { script, tape, validators }));
        sessions.push(session);
    }
    (sessions, cases)
}

fn compile(tool: &str, schema: &Value) -> Option<Arc<Validator>> {
    match jsonschema::validator_for(schema) {
        Ok(validator) => Some(Arc::new(validator)),
        Err(error) => {
            tracing::warn!(tool, %error, "arguments of this tool are not validated: its schema cannot be used");
            None
        }
    }
}

fn stage(plan: &Plan, world: &World, cases: &Cases) -> Stage {
    let listed = cases.values().flat_map(|case| case.script.listed.clone()).collect();
    world.registry().prepare(plan.candidate.propagate.clone(), plan.concurrency <= 1, listed);
    Stage {
        candidate: plan.candidate.clone(),
        lane: plan.lane,
        settings: Arc::new(Settings {
            run_seed: plan.seed,
            faults: plan.faults.clone().unwrap_or_default(),
            model: plan.model,
            upstream: plan.candidate.model.clone(),
            propagate: plan.candidate.propagate.clone(),
            client: http_client(plan.candidate.needs_tls()),
            clock: plan.clock,
            delay_scale: plan.delay_scale,
            delay_cap: plan.delay_cap,
        }),
        registry: world.registry().clone(),
        world: format!("http://{}", world.address()),
        incarnation: plan.incarnation.clone(),
        exchanges: AtomicU64::new(0),
        keys: plan.keys.clone(),
    }
}

/// Carries the cases' recordings into the run, as lane `recorded`, some sessions at a time; goes on where an earlier start
/// stopped.
async fn record(
    run: &Store,
    (lake, mut snapshot): (Store, Snapshot),
    sessions: &[SessionId],
    cases: &Cases,
) -> Result<(), StoreError> {
    run.delete_orphans(RECORDED_SOURCE).await?;
    let done = run.resume_position(RECORDED_SOURCE).await?;
    let mut first = done;
    let rest = sessions.get(usize::try_from(done).unwrap_or(usize::MAX)..).unwrap_or_default();
    let scripts: HashMap<&str, &Script> =
        cases.values().map(|case| (case.script.case.as_str(), &case.script)).collect();
    for part in rest.chunks(RECORDED_BATCH) {
        let mut batch = Batch::default();
        let wanted = part.iter().cloned().collect();
        for session in &lake.load_wanted(&mut snapshot, &wanted).await? {
            if let Some(script) = scripts.get(session.session.as_str()) {
                add_recording(&mut batch, session, script);
            }
        }
        let next = first + part.len() as u64;
        run.commit(RECORDED_SOURCE, first, next, batch, &mut ChunkIndex::default()).await?;
        first = next;
    }
    Ok(())
}

/// The one owner of the ledger, and of the trials under way.
struct Dispatch {
    stage: Arc<Stage>,
    cases: Cases,
    ledger: Ledger,
    concurrency: usize,
}

impl Dispatch {
    async fn run(
        &mut self,
        mut open: VecDeque<PlannedTrial>,
        summary: &mut Summary,
        tell: &mut Tell<'_>,
        cancel: &CancellationToken,
    ) -> Result<(), ReplayError> {
        let mut playing: JoinSet<Finished> = JoinSet::new();
        loop {
            while playing.len() < self.concurrency && !cancel.is_cancelled() {
                let Some(trial) = open.pop_front() else { break };
                self.start(&mut playing, trial);
            }
            // `join_next` is cancel-safe: a trial that is not taken now is taken later.
            let joined = tokio::select! {
                joined = playing.join_next() => joined,
                () = cancel.cancelled(), if !playing.is_empty() && !summary.interrupted => {
                    summary.interrupted = true;
                    playing.abort_all();
                    continue;
                }
            };
            let Some(joined) = joined else { break };
            let mut ready = vec![joined];
            // Whatever else is finished by now shares the write to the disk.
            while let Some(joined) = playing.try_join_next() {
                ready.push(joined);
            }
            self.keep(ready, summary, tell).await?;
        }
        summary.interrupted = !open.is_empty() || summary.already + summary.ran < summary.planned;
        self.ledger.commit().await?;
        Ok(())
    }

    fn start(&self, playing: &mut JoinSet<Finished>, trial: PlannedTrial) {
        if let Some(case) = self.cases.get(&trial.case).cloned() {
            let stage = self.stage.clone();
            playing.spawn(async move { Box::pin(trial_runner::play(&stage, case, trial)).await });
        }
    }

    async fn keep(
        &mut self,
        ready: Vec<Result<Finished, tokio::task::JoinError>>,
        summary: &mut Summary,
        tell: &mut Tell<'_>,
    ) -> Result<(), ReplayError> {
        let mut entries = Vec::new();
        let mut panicked = None;
        for joined in ready {
            match joined {
                Ok(finished) => {
                    summary.duplicated_writes += u64::from(finished.duplicated_writes);
                    summary.model_calls += u64::from(finished.model_calls);
                    entries.push(finished.entry);
                }
                // Aborted by our own cancellation: it is played again on resume.
                Err(error) if error.is_cancelled() => {}
                Err(error) => panicked = Some(ReplayError::Panicked(error.to_string())),
            }
        }
        let told: Vec<_> = entries.iter().map(|entry| entry.trial.clone()).collect();
        self.ledger.append(entries).await?;
        for trial in told {
            summary.add(&trial);
            summary.ran += 1;
            let (done, total) = (summary.already + summary.ran, summary.planned);
            tell(Progress::Finished {
                done,
                total,
                case: trial.case,
                trial: trial.trial,
                ending: trial.ending,
            });
        }
        panicked.map_or(Ok(()), Err)
    }
}
