//! Runs trials in parallel and stores the finished ones. One dispatcher owns the trial log and all reports of progress.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::cases::Cases;
use super::error::ReplayError;
use super::interleaving::Pace;
use super::progress::{Progress, ProgressFn};
use crate::plan::PlannedTrial;
use crate::summary::Summary;
use crate::trial_log::TrialLog;
use crate::trial_runner::{FinishedTrial, ReplayContext, run_trial};

/// Owner of the trial log and of the running trials.
pub(super) struct Dispatcher {
    pub(super) context: Arc<ReplayContext>,
    pub(super) cases: Cases,
    pub(super) trial_log: TrialLog,
    /// Trials in parallel, at least 1.
    pub(super) concurrency: usize,
}

impl Dispatcher {
    /// Runs the planned trials to their end or to the cancellation, and commits the finished ones.
    pub(super) async fn run(
        &mut self,
        mut planned: VecDeque<PlannedTrial>,
        summary: &mut Summary,
        on_progress: &mut ProgressFn<'_>,
        mut pace: Pace,
        cancel: &CancellationToken,
    ) -> Result<(), ReplayError> {
        let mut running: JoinSet<FinishedTrial> = JoinSet::new();
        let down = self.context.settings.provider_health.down().clone();
        loop {
            let has_room = |running: &JoinSet<FinishedTrial>, planned: &VecDeque<PlannedTrial>| {
                let is_stopped = cancel.is_cancelled() || down.is_cancelled();
                running.len() < self.concurrency && !planned.is_empty() && !is_stopped
            };
            while has_room(&running, &planned) && pace.try_start() {
                let Some(trial) = planned.pop_front() else { break };
                self.start(&mut running, trial);
            }
            let waits_for_turn = has_room(&running, &planned);
            // `join_next`, `changed` and `cancelled` are cancel-safe.
            let joined = tokio::select! {
                joined = running.join_next(), if !running.is_empty() => joined,
                () = pace.changed(), if waits_for_turn => continue,
                () = cancel.cancelled(), if (waits_for_turn || !running.is_empty()) && !summary.interrupted => {
                    summary.interrupted = true;
                    running.abort_all();
                    continue;
                }
                // Every trial that runs now would be lost too; a resumed run repeats it.
                () = down.cancelled(), if (waits_for_turn || !running.is_empty()) && !summary.interrupted => {
                    summary.interrupted = true;
                    running.abort_all();
                    continue;
                }
                else => None,
            };
            let Some(joined) = joined else { break };
            let mut ready = vec![joined];
            // Trials that have finished meanwhile share the write to the disk.
            while let Some(joined) = running.try_join_next() {
                ready.push(joined);
            }
            self.store(ready, summary, on_progress).await?;
        }
        summary.interrupted = !planned.is_empty() || summary.already + summary.ran < summary.planned;
        summary.provider_down = self.context.settings.provider_health.reason();
        self.trial_log.commit().await?;
        Ok(())
    }

    fn start(&self, running: &mut JoinSet<FinishedTrial>, trial: PlannedTrial) {
        if let Some(case) = self.cases.get(&trial.case).cloned() {
            let context = self.context.clone();
            running.spawn(async move { Box::pin(run_trial(&context, case, trial)).await });
        }
    }

    async fn store(
        &mut self,
        ready: Vec<Result<FinishedTrial, JoinError>>,
        summary: &mut Summary,
        on_progress: &mut ProgressFn<'_>,
    ) -> Result<(), ReplayError> {
        let mut records = Vec::new();
        let mut panicked = None;
        for joined in ready {
            match joined {
                Ok(finished) => {
                    summary.duplicated_writes += u64::from(finished.duplicated_writes);
                    summary.model_calls += u64::from(finished.model_calls);
                    records.push(finished.record);
                }
                // Aborted by the cancellation; a resumed run repeats it.
                Err(error) if error.is_cancelled() => {}
                Err(error) => panicked = Some(ReplayError::Panicked(error.to_string())),
            }
        }
        let trials: Vec<_> = records.iter().map(|record| record.trial.clone()).collect();
        self.trial_log.append(records).await?;
        for trial in trials {
            summary.add(&trial);
            summary.ran += 1;
            on_progress(Progress::Finished {
                done: summary.already + summary.ran,
                total: summary.planned,
                case: trial.case,
                trial: trial.trial,
                ending: trial.ending,
            });
        }
        panicked.map_or(Ok(()), Err)
    }
}
