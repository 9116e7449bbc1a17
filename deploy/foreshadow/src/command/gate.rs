//! `foreshadow gate`: replays both builds wave by wave, decides after each wave, and stops as soon as it is decided.
//!
//! Which cases come in which wave, the policy and the looks are fixed and written down before the candidate is asked
//! anything. Replaying is `replayer`'s and deciding `analyzer`'s; here they take turns.

use std::collections::BTreeSet;
use std::sync::Arc;

use analyzer::{Analysis, Answer, Policy};
use anyhow::anyhow;
use indicatif::ProgressBar;
use replayer::{Plan, Prepared, Progress, ReplayError, Waves, World};
use schemas::id::CaseId;
use schemas::trial::Lane;
use tokio_util::sync::CancellationToken;

use self::config::{GateConfig, Scoring};
use self::frozen::Frozen;
use crate::command::analyze::{self, Grown, Look, Request};
use crate::command::{Context, replay, score};
use crate::outcome::{Failure, Outcome};
use crate::screen::Screen;
use crate::signals::cancel_on_signal;

mod config;
mod frozen;

/// Arguments of `foreshadow gate`. What is compared stands under `[gate]` in the file that --config names.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Go on after the planned looks with the sessions that are left, wave by wave, until it is decided: the plan has four
    /// fifths of alpha, the extension the rest (by betting).
    #[arg(long)]
    extend: bool,
    /// Go on with a gate that was interrupted: finished trials are not played again.
    #[arg(long)]
    resume: bool,
}

/// Runs `foreshadow gate`.
pub(crate) async fn run(args: Args, context: &Context<'_>) -> Result<Outcome, Failure> {
    let config = GateConfig::read(&context.config).map_err(Failure::usage)?;
    // The policy is read, and refused, before any data are seen.
    let mut policy = analyze::read_policy(config.policy.as_ref())?;
    if let Some(path) = &config.envelope {
        policy.invariant.declared_envelope = Some(analyze::read_envelope(path).map_err(Failure::usage)?);
    }
    let prepared = prepare(&config, &args, context).await?;
    let plan = Course::new(&config, &policy, &args, &prepared[1])?;
    let frozen = Frozen::new(&config, &policy, &plan, &prepared[1]);
    frozen.keep(&config.frozen_path(), args.resume).map_err(Failure::usage)?;
    context.screen.note(format!(
        "frozen before the first trial: policy {}, {} sessions in {} looks, {} trials of each per lane",
        &frozen.policy_digest[..16],
        plan.planned,
        plan.looks,
        config.trials
    ));
    let listen = [&config.baseline, &config.candidate].map(|path| path.display().to_string());
    let [baseline, candidate] = prepared;
    let worlds = [bind(&baseline.1, &listen[0]).await?, bind(&candidate.1, &listen[1]).await?];
    let cancel = CancellationToken::new();
    let watch = tokio::spawn(cancel_on_signal(cancel.clone()));
    let decided =
        Box::pin(gate(&config, policy, plan, [baseline, candidate], &worlds, &cancel, context)).await;
    watch.abort();
    // It ends by the abort at the latest.
    let _ = watch.await;
    for world in worlds {
        world.shutdown().await;
    }
    let analysis = decided?;
    analyze::show(&analysis, context.screen);
    context.screen.line(format!("\nwritten to {}", config.out.display()));
    context.screen.result(&analysis.verdict);
    Ok(analyze::outcome(&analysis.verdict))
}

/// A lane whose corpus is read, and where its world is to listen.
type ReadLane = (Prepared, std::net::SocketAddr);

async fn prepare(config: &GateConfig, args: &Args, context: &Context<'_>) -> Result<[ReadLane; 2], Failure> {
    let sessions = if args.extend { None } else { config.sessions };
    let mut lanes = Vec::new();
    for lane in [Lane::Baseline, Lane::Candidate] {
        let plan: Plan = replay::plan(config.replay(lane, sessions, args.resume), context)?;
        let listen = plan.candidate.listen();
        let mut tell = |progress: Progress| {
            if let (Progress::Corpus { whole, torn, unusable, chosen }, Lane::Candidate) = (progress, lane) {
                context.screen.note(format!(
                    "{chosen} of {whole} whole sessions chosen; left out: {torn} torn, {unusable} with nothing to play"
                ));
            }
        };
        let resume = args.resume && config.run_exists(lane);
        let plan = Plan { resume, ..plan };
        lanes.push((Prepared::read(plan, &mut tell).await.map_err(replay::failure)?, listen));
    }
    let lanes: Result<[ReadLane; 2], _> = lanes.try_into();
    let lanes = lanes.map_err(|_| Failure::work(anyhow!("two lanes were prepared")))?;
    if lanes[0].0.corpus_digest() != lanes[1].0.corpus_digest() {
        return Err(Failure::usage(anyhow!(
            "the store changed between reading it for the baseline and for the candidate; start the gate again"
        )));
    }
    Ok(lanes)
}

async fn bind(listen: &std::net::SocketAddr, file: &str) -> Result<World, Failure> {
    World::bind(*listen).await.map_err(|error| {
        let hint =
            format!("the world of {file}: both lanes run at once, so each file needs its own [world] listen");
        Failure::usage(anyhow::Error::new(error).context(hint))
    })
}

/// Which cases are played when.
pub(crate) struct Course {
    /// All cases that may be played, in their order.
    order: Arc<[CaseId]>,
    /// Cases that the plan ends with.
    planned: usize,
    looks: usize,
    extension: bool,
}

impl Course {
    fn new(config: &GateConfig, policy: &Policy, args: &Args, lane: &ReadLane) -> Result<Self, Failure> {
        let slices = lane.0.cases().map(|(case, slices)| {
            (case, slices.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect::<Vec<_>>())
        });
        let order: Arc<[CaseId]> = analyzer::seeded_order(slices, config.seed).into();
        let planned = config.sessions.unwrap_or(order.len()).min(order.len());
        let reachable = if args.extend { order.len() } else { planned } as u64;
        let floors = policy.floors(config.trials);
        if let Some((metric, floor)) = floors.iter().find(|(_, floor)| *floor > reachable) {
            return Err(Failure::usage(anyhow!(
                "{metric} needs at least {floor} sessions: with the {reachable} at hand no candidate can be approved, however \
                 good it is; record more sessions, or widen the margin in the policy if the business tolerates it. No trial was run"
            )));
        }
        let looks = config.looks.unwrap_or(policy.looks).clamp(1, 64) as usize;
        Ok(Self { order, planned, looks: looks.min(planned), extension: args.extend })
    }

    /// The number of cases at each look: the planned ones, then those of the extension.
    fn ends(&self) -> Vec<usize> {
        let mut ends: Vec<usize> =
            (1..=self.looks).map(|look| (self.planned * look).div_ceil(self.looks)).collect();
        ends.dedup();
        let wave = self.planned.div_ceil(self.looks).max(1);
        let mut end = self.planned;
        while self.extension && end < self.order.len() {
            end = (end + wave).min(self.order.len());
            ends.push(end);
        }
        ends
    }
}

/// Plays and looks in turns.
async fn gate(
    config: &GateConfig,
    policy: Policy,
    plan: Course,
    [baseline, candidate]: [ReadLane; 2],
    worlds: &[World; 2],
    cancel: &CancellationToken,
    context: &Context<'_>,
) -> Result<Analysis, Failure> {
    let mut tell = |_: Progress| {};
    let mut lanes = [
        baseline.0.start(&worlds[0], &mut tell).await.map_err(|error| of_lane("baseline", error))?,
        candidate.0.start(&worlds[1], &mut tell).await.map_err(|error| of_lane("candidate", error))?,
    ];
    let ends = plan.ends();
    let mut request = Request {
        baseline: config.run(Lane::Baseline),
        candidate: config.run(Lane::Candidate),
        recorded: None,
        policy,
        look: Look::Once,
        calibration: analyze::read_calibration(config.calibration.as_deref())?,
        seed: config.seed,
        out: config.out.clone(),
        keys: context.key_ring()?,
    };
    let mut last = None;
    for (number, end) in ends.iter().enumerate() {
        let wanted: BTreeSet<&CaseId> = plan.order[..*end].iter().collect();
        play(&mut lanes, &wanted, cancel, context.screen).await?;
        if let Some(scoring) = &config.scoring {
            score_lanes(config, scoring, cancel, context).await?;
        }
        request.look = Look::Waves(Grown {
            order: plan.order.clone(),
            ends: ends[..=number].to_vec(),
            planned: plan.planned,
            extension: plan.extension,
            command: config.command(&context.config, plan.extension),
        });
        let analysis = analyze::analyze(&request).await?;
        let answer = analysis.verdict.verdict;
        tell_look(number, *end, &plan, answer, context.screen);
        last = Some(analysis);
        if answer != Answer::Inconclusive {
            break;
        }
    }
    last.ok_or_else(|| Failure::usage(anyhow!("there is no session to replay; no trial was run")))
}

/// Plays the trials that both lanes lack of these cases, at the same time.
async fn play(
    lanes: &mut [Waves; 2],
    wanted: &BTreeSet<&CaseId>,
    cancel: &CancellationToken,
    screen: &Screen,
) -> Result<(), Failure> {
    let bar = screen.progress("trials", 0);
    let [baseline, candidate] = lanes;
    let (before, after) = tokio::join!(
        Box::pin(play_lane(baseline, "baseline", wanted, cancel, &bar)),
        Box::pin(play_lane(candidate, "candidate", wanted, cancel, &bar)),
    );
    bar.finish_and_clear();
    before.and(after)?;
    let interrupted = lanes.iter().any(|lane| lane.summary().interrupted);
    if interrupted {
        return Err(Failure::work(anyhow!(
            "stopped between looks; what is finished is kept: repeat the command with --resume"
        )));
    }
    Ok(())
}

/// Asks about the trials that both lanes have by now; those asked about before are not asked about again.
async fn score_lanes(
    config: &GateConfig,
    scoring: &Scoring,
    cancel: &CancellationToken,
    context: &Context<'_>,
) -> Result<(), Failure> {
    for lane in [Lane::Baseline, Lane::Candidate] {
        let request = score::Request {
            run: config.run(lane),
            config: scoring.config.clone(),
            base: scoring.base.clone(),
            cancel: cancel.clone(),
        };
        let store = context.open_store(&request.run)?;
        let report = Box::pin(score::score(&request, &store, context.screen)).await?;
        score::conclude(&report)?;
    }
    Ok(())
}

async fn play_lane(
    lane: &mut Waves,
    name: &str,
    wanted: &BTreeSet<&CaseId>,
    cancel: &CancellationToken,
    bar: &ProgressBar,
) -> Result<(), Failure> {
    let mut tell = |progress: Progress| match progress {
        Progress::Planned { trials, already } => bar.inc_length((trials - already) as u64),
        Progress::Finished { .. } => bar.inc(1),
        Progress::Corpus { .. } | Progress::Probed => {}
    };
    let played = lane.play(|case| wanted.contains(case), &mut tell, cancel).await;
    if played.is_err() {
        // The other lane is of no use alone; its finished trials are kept.
        cancel.cancel();
    }
    played.map_err(|error| of_lane(name, error))
}

fn of_lane(lane: &str, error: ReplayError) -> Failure {
    let is_usage = error.is_usage();
    let error = anyhow::Error::new(error).context(format!("lane {lane}"));
    if is_usage { Failure::Usage(error) } else { Failure::Work(error) }
}

fn tell_look(number: usize, end: usize, plan: &Course, answer: Answer, screen: &Screen) {
    let look = if number < plan.looks {
        format!("look {} of {}", number + 1, plan.looks)
    } else {
        format!("look {} (extension)", number + 1)
    };
    screen.note(format!("{look}: {end} of {} sessions, {}", plan.planned.max(end), answer.as_str()));
}
