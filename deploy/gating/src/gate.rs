//! The gate itself: prepares both lanes, locks the plan, then replays, scores and decides wave by wave.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use analyzer::policy::TokenKey;
use analyzer::{Analysis, Decision, Policy};
use anyhow::anyhow;
use decision::{DecisionRequest, LookPlan, WaveState};
use replayer::{Plan, Prepared, Progress, ProgressFn, Waves, World, run_both};
use schemas::id::CaseId;
use schemas::trial::Lane;
use scoring::ScoreRequest;
use store::Store;
use tokio_util::sync::CancellationToken;

use crate::config::{GateConfig, Scoring};
use crate::error::GateError;
use crate::look_schedule::LookSchedule;
use crate::plan_lock::PlanLock;
use crate::replay_request::Resources;

/// A gate to run.
pub struct GateRequest<'a> {
    /// The `[gate]` table.
    pub config: GateConfig,
    /// Path of the configuration file, for the command in the report.
    pub config_path: PathBuf,
    /// Continues after the planned looks until the verdict is clear or no session is left.
    pub extend: bool,
    /// Continues an interrupted gate.
    pub resume: bool,
    /// Environment, keys and clock.
    pub resources: Resources<'a>,
    /// Stops the gate; finished trials are kept.
    pub cancel: CancellationToken,
}

/// An event of a gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GateEvent {
    /// The corpus was read.
    Corpus {
        /// Complete sessions.
        complete: usize,
        /// Sessions with missing exchanges, left out.
        incomplete: usize,
        /// Sessions without a turn to replay, left out.
        unusable: usize,
        /// Sessions that the gate may replay.
        chosen: usize,
    },
    /// The plan was written to `gate.json`.
    Locked {
        /// BLAKE3 of the policy, hexadecimal.
        policy_digest: String,
        /// Sessions at the last planned look.
        sessions: usize,
        /// Planned looks.
        looks: usize,
        /// Trials of each session in each lane.
        trials: u32,
    },
    /// Trials were added to the current wave.
    TrialsPlanned(usize),
    /// A trial of the current wave finished.
    TrialFinished,
    /// All trials of the wave finished.
    WaveFinished,
    /// A look was taken.
    Look {
        /// Number of the look, from 1.
        number: usize,
        /// Planned looks; a `number` above it is a look of the extension.
        planned: usize,
        /// Cases at this look.
        cases: usize,
        /// Cases of the plan, or of this look if it is past the plan.
        of_cases: usize,
        /// The verdict at this look.
        decision: Decision,
    },
}

/// A lane whose corpus was read, and the listen address of its world.
struct PreparedLane {
    prepared: Prepared,
    listen: SocketAddr,
}

/// Runs a gate.
///
/// # Errors
/// A configuration or file that cannot be used, a replay, scoring or decision that fails, or a cancellation.
pub async fn run(
    request: &GateRequest<'_>,
    on_event: &mut (dyn FnMut(GateEvent) + Send),
) -> Result<Analysis, GateError> {
    let config = &request.config;
    // An unusable policy is refused before any session is read.
    let mut policy = decision::read_policy(config.policy.as_deref())?;
    policy.invariant.token_key = Some(TokenKey::new(&request.resources.root_key));
    if let Some(path) = &config.envelope {
        policy.invariant.declared_envelope = Some(decision::read_envelope(path)?);
    }
    let [baseline, candidate] = prepare(request, on_event).await?;
    let schedule =
        LookSchedule::new(config, &policy, request.extend, &candidate.prepared).map_err(GateError::Config)?;
    let lock = PlanLock::new(config, &policy, &schedule, candidate.prepared.corpus_digest());
    lock.write_or_compare(&config.plan_lock_path(), request.resume).map_err(GateError::Config)?;
    on_event(GateEvent::Locked {
        policy_digest: lock.policy_digest,
        sessions: schedule.planned,
        looks: schedule.looks,
        trials: config.trials,
    });
    let worlds =
        [bind(baseline.listen, &config.baseline).await?, bind(candidate.listen, &config.candidate).await?];
    let lanes = [baseline.prepared, candidate.prepared];
    let decided = Box::pin(replay_and_decide(request, policy, &schedule, lanes, &worlds, on_event)).await;
    for world in worlds {
        world.shutdown().await;
    }
    decided
}

async fn prepare(
    request: &GateRequest<'_>,
    on_event: &mut (dyn FnMut(GateEvent) + Send),
) -> Result<[PreparedLane; 2], GateError> {
    let baseline = prepare_lane(request, Lane::Baseline, &mut |_| {}).await?;
    let candidate = prepare_lane(request, Lane::Candidate, on_event).await?;
    if baseline.prepared.corpus_digest() != candidate.prepared.corpus_digest() {
        return Err(GateError::config(anyhow!(
            "the store {} changed while the gate read it for the two lanes; start the gate again",
            request.config.store
        )));
    }
    baseline.prepared.check_lanes(&candidate.prepared).map_err(GateError::config)?;
    Ok([baseline, candidate])
}

async fn prepare_lane(
    request: &GateRequest<'_>,
    lane: Lane,
    on_event: &mut (dyn FnMut(GateEvent) + Send),
) -> Result<PreparedLane, GateError> {
    let config = &request.config;
    let sessions = if request.extend { None } else { config.sessions };
    let resume = request.resume && config.run_exists(lane);
    let plan: Plan =
        config.replay(lane, sessions, resume).into_plan(&request.resources).map_err(GateError::Config)?;
    let listen = plan.candidate.listen();
    let mut on_progress = |progress: Progress| {
        if let Progress::Corpus { complete, incomplete, unusable, selected } = progress {
            on_event(GateEvent::Corpus { complete, incomplete, unusable, chosen: selected });
        }
    };
    let prepared = Prepared::read(plan, &mut on_progress).await;
    let prepared = prepared.map_err(|source| GateError::Replay { lane: lane.as_str(), source })?;
    Ok(PreparedLane { prepared, listen })
}

async fn bind(listen: SocketAddr, candidate_file: &Path) -> Result<World, GateError> {
    World::bind(listen).await.map_err(|error| {
        let hint = format!(
            "the world of {} cannot listen; both lanes run at once, so each candidate file needs its own [world] listen",
            candidate_file.display()
        );
        GateError::Config(anyhow::Error::new(error).context(hint))
    })
}

/// Replays wave by wave and decides after each, until the verdict is clear or the schedule ends.
async fn replay_and_decide(
    request: &GateRequest<'_>,
    policy: Policy,
    schedule: &LookSchedule,
    [baseline, candidate]: [Prepared; 2],
    worlds: &[World; 2],
    on_event: &mut (dyn FnMut(GateEvent) + Send),
) -> Result<Analysis, GateError> {
    let config = &request.config;
    let lane_error = |lane| move |source| GateError::Replay { lane, source };
    let mut lanes = [
        baseline.start(&worlds[0], &mut |_| {}).await.map_err(lane_error("baseline"))?,
        candidate.start(&worlds[1], &mut |_| {}).await.map_err(lane_error("candidate"))?,
    ];
    let ends = schedule.ends();
    let mut decision_request = DecisionRequest {
        baseline: config.run(Lane::Baseline),
        candidate: config.run(Lane::Candidate),
        recorded: None,
        reference: None,
        policy,
        looks: LookPlan::Once,
        calibration: decision::read_calibration(config.calibration.as_deref())?,
        seed: config.seed,
        out: config.out.clone(),
        keys: request.resources.keys.clone(),
        clock: request.resources.clock,
    };
    let mut last = None;
    for (index, end) in ends.iter().enumerate() {
        let wave: BTreeSet<&CaseId> = schedule.order[..*end].iter().collect();
        replay_wave(&mut lanes, &wave, &request.cancel, on_event).await?;
        if let Some(scoring) = &config.scoring {
            score_lanes(request, scoring).await?;
        }
        decision_request.looks = LookPlan::Waves(WaveState {
            order: schedule.order.clone(),
            ends: ends[..=index].to_vec(),
            planned: schedule.planned,
            extension: schedule.extension,
            command: config.command(&request.config_path, schedule.extension),
        });
        let analysis = decision::decide(&decision_request).await?;
        let decision = analysis.verdict.verdict;
        on_event(GateEvent::Look {
            number: index + 1,
            planned: schedule.looks,
            cases: *end,
            of_cases: schedule.planned.max(*end),
            decision,
        });
        last = Some(analysis);
        if decision != Decision::Inconclusive {
            break;
        }
    }
    last.ok_or_else(|| {
        GateError::config(anyhow!("{} has no session to replay; no trial was run", config.store))
    })
}

/// The event callback, shared by both lanes.
type Events<'a> = Mutex<&'a mut (dyn FnMut(GateEvent) + Send)>;

fn report(events: &Events<'_>, event: GateEvent) {
    let mut callback = events.lock().unwrap_or_else(PoisonError::into_inner);
    callback(event);
}

/// Replays the missing trials of these cases in both lanes, interleaved at random.
async fn replay_wave(
    lanes: &mut [Waves; 2],
    wave: &BTreeSet<&CaseId>,
    cancel: &CancellationToken,
    on_event: &mut (dyn FnMut(GateEvent) + Send),
) -> Result<(), GateError> {
    let events: Events<'_> = Mutex::new(&mut *on_event);
    let (mut of_baseline, mut of_candidate) = (lane_events(&events), lane_events(&events));
    let is_wanted = |case: &CaseId| wave.contains(case);
    let on_progress: [&mut ProgressFn<'_>; 2] = [&mut of_baseline, &mut of_candidate];
    let replayed = Box::pin(run_both(lanes, is_wanted, on_progress, cancel)).await;
    report(&events, GateEvent::WaveFinished);
    for (replayed, lane) in replayed.into_iter().zip(["baseline", "candidate"]) {
        replayed.map_err(|source| GateError::Replay { lane, source })?;
    }
    let down = lanes.iter().zip(["baseline", "candidate"]).find_map(|(lane, name)| {
        let summary = lane.summary();
        let reason = summary.provider_down.as_ref()?;
        Some((name, reason, summary.already + summary.ran, summary.planned))
    });
    if let Some((lane, reason, done, planned)) = down {
        return Err(GateError::Incomplete(anyhow!(
            "lane {lane}: the model provider is down for good: {reason}; the gate stopped after {done} of {planned} trials of the \
             lane so far; finished trials are kept; mend the key, the quota or the provider, then repeat the command with --resume"
        )));
    }
    if lanes.iter().any(|lane| lane.summary().interrupted) {
        return Err(GateError::Incomplete(anyhow!(
            "the gate was stopped between two looks; finished trials are kept; repeat the command with --resume"
        )));
    }
    Ok(())
}

/// Reports the progress of a lane as events of the gate.
fn lane_events<'a>(events: &'a Events<'_>) -> impl FnMut(Progress) + Send + 'a {
    move |progress| match progress {
        Progress::Planned { trials, already } => {
            report(events, GateEvent::TrialsPlanned(trials - already));
        }
        Progress::Finished { .. } => report(events, GateEvent::TrialFinished),
        Progress::Corpus { .. } | Progress::Probed => {}
    }
}

/// Scores the trials that both lanes have by now; trials with a score are skipped.
async fn score_lanes(request: &GateRequest<'_>, scoring: &Scoring) -> Result<(), GateError> {
    for lane in [Lane::Baseline, Lane::Candidate] {
        let score_request = ScoreRequest {
            run: request.config.run(lane),
            config: scoring.config.clone(),
            base: scoring.base.clone(),
            clock: request.resources.clock,
            cancel: request.cancel.clone(),
        };
        let store = Store::open(&score_request.run)
            .map_err(GateError::config)?
            .with_keys(request.resources.keys.clone());
        let report =
            Box::pin(scoring::score(&score_request, &store, request.resources.env, &mut |_| {})).await?;
        if let Some(why) = report.incomplete() {
            return Err(GateError::Incomplete(anyhow!("run {} is not fully scored: {why}", report.run)));
        }
    }
    Ok(())
}
