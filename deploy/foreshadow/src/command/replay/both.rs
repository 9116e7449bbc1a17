//! `foreshadow replay --baseline`: replays two builds at once, so that a shift in time meets both lanes alike.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, anyhow};
use gating::ReplayRequest;
use replayer::{Prepared, Progress, ProgressFn, ReplayError, Summary, Waves, World, run_both};
use schemas::trial::Lane;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::output::{ended, lines, show_corpus};
use crate::console::Console;
use crate::context::Context;
use crate::exit::{Failure, Status};
use crate::resources::resources;
use crate::signals::cancel_on_signal;

/// Trials of both lanes between two plain lines of progress without a terminal.
const LINE_EVERY: usize = 100;

/// The output of `--json`.
#[derive(Serialize)]
struct Summaries {
    baseline: Summary,
    candidate: Summary,
}

/// A lane whose corpus was read, and its world.
struct Ready {
    prepared: Prepared,
    world: World,
}

/// Replays `candidate` and the build of `baseline` into the runs `baseline` and `candidate` below the run of `candidate`.
pub(super) async fn run(
    candidate: ReplayRequest,
    baseline: &Path,
    context: &Context<'_>,
) -> Result<[Summary; 2], Failure> {
    let lane = |lane: Lane, file: &Path| {
        let run = format!("{}/{}", candidate.run.trim_end_matches('/'), lane.as_str());
        let folder = run.strip_prefix("file://").unwrap_or(&run);
        // An interruption can leave only one of the two runs behind.
        let resume = candidate.resume && Path::new(folder).join("run.json").exists();
        ReplayRequest { lane, candidate: file.to_owned(), resume, run, ..candidate.clone() }
    };
    let requests = [lane(Lane::Baseline, baseline), lane(Lane::Candidate, &candidate.candidate)];
    // One set of resources gives both lanes the same batch.
    let resources = resources(context)?;
    let progress = Mutex::new(BothProgress::new(context.console));
    let mut ready = Vec::new();
    for request in requests {
        let file = request.candidate.clone();
        let plan = request.into_plan(&resources).map_err(Failure::usage)?;
        let world = World::bind(plan.candidate.listen()).await;
        let world = world.map_err(|error| Failure::usage(cannot_listen(&file, error)))?;
        let is_candidate = plan.lane == Lane::Candidate;
        let mut on_progress = |event| {
            if is_candidate {
                show(&progress, event);
            }
        };
        let prepared = Prepared::read(plan, &mut on_progress).await?;
        ready.push(Ready { prepared, world });
    }
    let [baseline, candidate] = <[Ready; 2]>::try_from(ready).map_err(|_| two_lanes())?;
    if baseline.prepared.corpus_digest() != candidate.prepared.corpus_digest() {
        return Err(Failure::work(anyhow!(
            "the store changed while it was read for the two lanes, or one run was started with other sessions; start again \
             with another --run"
        )));
    }
    baseline.prepared.check_lanes(&candidate.prepared)?;
    let cancel = CancellationToken::new();
    let replayed = Box::pin(replay([baseline, candidate], &progress, &cancel));
    let replayed = cancel_on_signal(cancel.clone(), replayed).await;
    progress.lock().unwrap_or_else(PoisonError::into_inner).clear();
    replayed
}

fn two_lanes() -> Failure {
    Failure::work(anyhow!("a comparison has two lanes; this is a bug, please report it"))
}

fn cannot_listen(file: &Path, error: replayer::WorldError) -> anyhow::Error {
    let hint = format!(
        "the world of {} cannot listen; both lanes run at once, so each candidate file needs its own [world] listen",
        file.display()
    );
    anyhow::Error::new(error).context(hint)
}

/// Runs all trials of both lanes.
async fn replay(
    [baseline, candidate]: [Ready; 2],
    progress: &Mutex<BothProgress<'_>>,
    cancel: &CancellationToken,
) -> Result<[Summary; 2], Failure> {
    let in_lane = |lane: &'static str| move |error: ReplayError| failed(lane, error);
    let mut ignore = |_: Progress| {};
    let mut lanes = [
        baseline.prepared.start(&baseline.world, &mut ignore).await.map_err(in_lane("baseline"))?,
        candidate.prepared.start(&candidate.world, &mut ignore).await.map_err(in_lane("candidate"))?,
    ];
    show(progress, Progress::Probed);
    let (mut first, mut second) =
        (|event: Progress| show(progress, event), |event: Progress| show(progress, event));
    let on_progress: [&mut ProgressFn<'_>; 2] = [&mut first, &mut second];
    let replayed = Box::pin(run_both(&mut lanes, |_| true, on_progress, cancel)).await;
    for (replayed, lane) in replayed.into_iter().zip(["baseline", "candidate"]) {
        replayed.map_err(in_lane(lane))?;
    }
    let [of_baseline, of_candidate]: [Waves; 2] = lanes;
    let summaries = [of_baseline.close(&baseline.world), of_candidate.close(&candidate.world)];
    baseline.world.shutdown().await;
    candidate.world.shutdown().await;
    Ok(summaries)
}

fn failed(lane: &str, error: ReplayError) -> Failure {
    let is_usage = error.is_usage();
    let error = Err::<(), _>(error).with_context(|| format!("lane {lane}"));
    match error {
        Err(error) if is_usage => Failure::usage(error),
        Err(error) => Failure::work(error),
        Ok(()) => two_lanes(),
    }
}

/// Prints both summaries.
pub(super) fn conclude(summaries: [Summary; 2], console: &Console) -> Result<Status, Failure> {
    let [baseline, candidate] = summaries;
    let summaries = Summaries { baseline, candidate };
    console.result(&summaries);
    for summary in [&summaries.baseline, &summaries.candidate] {
        lines(summary).into_iter().for_each(|line| console.line(line));
    }
    for summary in [&summaries.baseline, &summaries.candidate] {
        ended(summary)?;
    }
    Ok(Status::Success)
}

/// Progress of both lanes together.
struct BothProgress<'a> {
    console: &'a Console,
    bar: Option<indicatif::ProgressBar>,
    /// Planned trials of both lanes.
    planned: usize,
    /// Finished trials of both lanes.
    done: usize,
}

fn show(progress: &Mutex<BothProgress<'_>>, event: Progress) {
    progress.lock().unwrap_or_else(PoisonError::into_inner).show(event);
}

impl<'a> BothProgress<'a> {
    fn new(console: &'a Console) -> Self {
        Self { console, bar: None, planned: 0, done: 0 }
    }

    fn show(&mut self, progress: Progress) {
        match progress {
            Progress::Corpus { .. } => show_corpus(self.console, &progress),
            Progress::Probed => self.console.note("both candidates respond"),
            Progress::Planned { trials, already } => {
                self.planned += trials;
                self.done += already;
                if already > 0 {
                    self.console.note(format!("{already} of {trials} trials of a lane are already finished"));
                }
                let bar = self.bar.get_or_insert_with(|| self.console.progress("trials", 0));
                bar.set_length(self.planned as u64);
                bar.set_position(self.done as u64);
            }
            Progress::Finished { .. } => {
                self.done += 1;
                let Some(bar) = &self.bar else { return };
                bar.set_position(self.done as u64);
                if bar.is_hidden() && (self.done.is_multiple_of(LINE_EVERY) || self.done == self.planned) {
                    self.console.note(format!("{} of {} trials", self.done, self.planned));
                }
            }
        }
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
