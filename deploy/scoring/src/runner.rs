//! The work itself: which trials are asked of whom, several at a time, and what came of it.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};

use futures::StreamExt as _;
use schemas::embedding::Embedding;
use schemas::id::SessionId;
use schemas::score::Score;
use schemas::trial::{Lane, Trial};
use store::table::Table;
use store::{Snapshot, Store, StoreError};

use crate::budget::Budget;
use crate::embeddings::{EmbedError, EmbeddingCache, EmbeddingProvider};
use crate::evaluation::Evaluation;
use crate::evaluator::Evaluator;
use crate::grade;
use crate::report::{EmbeddingReport, EvaluatorReport, ScoreReport, StopReason};
use crate::score_writer::{EarlierScores, ScoreWriter};
use crate::service::{ScoreProgress, ScoreRequest};
use crate::trial_view::{COLUMNS, ExchangeRow, TrialView, turn_answers};

/// Trials whose transcripts are in cache together.
const GROUP_TRIALS: usize = 256;

/// A run that is to be scored.
pub(crate) struct Runner<'a> {
    /// The run.
    pub(crate) store: &'a Store,
    /// The lane of its trials.
    pub(crate) own: Lane,
    /// What is wanted.
    pub(crate) request: &'a ScoreRequest,
}

/// What is asked of whom: the trial's place in its group, and the evaluator's.
type Job = (usize, usize);

/// Everything that changes while the work goes on.
struct Progress<'a> {
    writer: ScoreWriter<'a>,
    earlier: EarlierScores,
    budget: Budget,
    given_up: Vec<AtomicBool>,
    reports: Vec<EvaluatorReport>,
    embeddings: Option<EmbeddingReport>,
    cache: EmbeddingCache,
}

impl Runner<'_> {
    /// Does it.
    ///
    /// # Errors
    /// The run cannot be read or written, or somebody else scores it now.
    pub(crate) async fn run(
        &self,
        evaluators: &[Evaluator],
        provider: Option<&EmbeddingProvider>,
        on_progress: &mut dyn FnMut(ScoreProgress),
    ) -> Result<ScoreReport, StoreError> {
        // Whoever scored it before is fenced off before it is read what there is, so that no row comes twice.
        let writer = ScoreWriter::open(self.store, self.request.config.limits.commit_every).await?;
        let snapshot = self.store.snapshot().await?;
        let digest = provider.map(|provider| provider.digest.as_str());
        let earlier = EarlierScores::read(self.store, &snapshot, evaluators, digest).await?;
        let mut progress = Progress {
            writer,
            budget: Budget::new(&self.request.config.limits, earlier.cost),
            earlier,
            given_up: evaluators.iter().map(|_| AtomicBool::new(false)).collect(),
            reports: evaluators.iter().map(EvaluatorReport::new).collect(),
            embeddings: provider.map(|provider| EmbeddingReport {
                model: provider.model.clone(),
                ..EmbeddingReport::default()
            }),
            cache: EmbeddingCache::default(),
        };
        let total = snapshot.files(Table::Trials).map(|file| file.rows).sum();
        let mut done = 0;
        on_progress(ScoreProgress { done, total });
        for file in snapshot.files(Table::Trials) {
            let trials: Vec<Trial> = self.store.read(file, None).await?;
            for group in trials.chunks(GROUP_TRIALS) {
                if !self.is_cancelled() {
                    self.group(group, &snapshot, evaluators, provider, &mut progress).await?;
                }
                done += group.len() as u64;
                on_progress(ScoreProgress { done, total });
            }
        }
        progress.writer.commit().await?;
        Ok(self.report(progress))
    }

    fn is_cancelled(&self) -> bool {
        self.request.cancel.is_cancelled()
    }

    fn report(&self, progress: Progress<'_>) -> ScoreReport {
        let Progress { budget, mut reports, embeddings, .. } = progress;
        let share = self.request.config.limits.max_error_share;
        for report in &mut reports {
            let [errors, wanted] = [report.errors, report.wanted]
                .map(|count| f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
            report.too_many_errors = errors > share * wanted;
        }
        let (requests, cost) = budget.total();
        let bound = budget.reached().map(|key| StopReason::Bound { key });
        ScoreReport {
            run: self.request.run.clone(),
            evaluators: reports,
            embeddings,
            requests,
            tokens: cost.tokens,
            usd: cost.usd,
            stopped: if self.is_cancelled() { Some(StopReason::Interrupted) } else { bound },
        }
    }

    /// Scores and embeds some trials.
    async fn group(
        &self,
        trials: &[Trial],
        snapshot: &Snapshot,
        evaluators: &[Evaluator],
        provider: Option<&EmbeddingProvider>,
        progress: &mut Progress<'_>,
    ) -> Result<(), StoreError> {
        let jobs = self.jobs(trials, evaluators, progress);
        let mut seen: BTreeSet<SessionId> = BTreeSet::new();
        for (trial, evaluator) in &jobs {
            if evaluators[*evaluator].wants_transcript() {
                seen.insert(trials[*trial].session.clone());
            }
        }
        if provider.is_some() {
            let is_new = |trial: &&Trial| !progress.earlier.has_vectors(&trial.session);
            seen.extend(trials.iter().filter(is_new).map(|trial| trial.session.clone()));
        }
        let without: BTreeSet<&SessionId> =
            trials.iter().filter(|trial| !trial.has_transcript).map(|trial| &trial.session).collect();
        seen.retain(|session| !without.contains(session));
        let mut rows: HashMap<SessionId, Vec<ExchangeRow>> = HashMap::new();
        if !seen.is_empty() {
            let found: Vec<ExchangeRow> =
                self.store.rows_of_sessions(snapshot, Table::Exchanges, &seen, Some(&COLUMNS)).await?;
            for row in found {
                rows.entry(row.session.clone()).or_default().push(row);
            }
        }
        let rows_of = |trial: &Trial| rows.get(&trial.session).cloned().unwrap_or_default();
        if !jobs.is_empty() {
            let views: Vec<TrialView> =
                trials.iter().map(|trial| TrialView::new(trial, rows_of(trial))).collect();
            self.ask(trials, &views, &jobs, evaluators, progress).await?;
        }
        if let Some(provider) = provider.filter(|_| !self.is_cancelled()) {
            let texts =
                |trial: &Trial| turn_answers(trial, rows.get(&trial.session).map_or(&[], Vec::as_slice));
            self.embed(trials, &texts, provider, progress).await?;
        }
        Ok(())
    }

    /// What of a group is still to be asked.
    fn jobs(&self, trials: &[Trial], evaluators: &[Evaluator], progress: &mut Progress<'_>) -> Vec<Job> {
        let mut jobs = Vec::new();
        for (place, trial) in trials.iter().enumerate() {
            for (number, evaluator) in evaluators.iter().enumerate() {
                if !evaluator.wants(trial, self.own) {
                    continue;
                }
                let report = &mut progress.reports[number];
                report.wanted += 1;
                if progress.earlier.has_score(number, &trial.session) {
                    report.already += 1;
                } else {
                    jobs.push((place, number));
                }
            }
        }
        jobs
    }

    /// Asks, several at a time; what is said becomes rows in the order in which it is said.
    async fn ask(
        &self,
        trials: &[Trial],
        views: &[TrialView],
        jobs: &[Job],
        evaluators: &[Evaluator],
        progress: &mut Progress<'_>,
    ) -> Result<(), StoreError> {
        let limits = &self.request.config.limits;
        let Progress { budget, given_up, reports, writer, .. } = progress;
        let (budget, given_up) = (&*budget, &*given_up);
        let asked = jobs.iter().map(|job| async move {
            let (place, number) = *job;
            let quiet = given_up[number].load(Ordering::Relaxed) || budget.reached().is_some();
            if quiet {
                return (*job, None);
            }
            let evaluation = evaluators[number].ask(&trials[place], &views[place], self.own, budget).await;
            (*job, evaluation)
        });
        let mut answers = futures::stream::iter(asked).buffer_unordered(limits.concurrency);
        loop {
            // Both branches are cancel-safe; what is under way when it is cancelled is dropped and asked again next time.
            let next = tokio::select! {
                next = answers.next() => next,
                () = self.request.cancel.cancelled() => None,
            };
            let Some(((place, number), evaluation)) = next else { return Ok(()) };
            let Some(evaluation) = evaluation else { continue };
            let report = &mut reports[number];
            report.count(&evaluation);
            if report.consecutive_errors >= limits.max_consecutive_errors {
                report.given_up = true;
                given_up[number].store(true, Ordering::Relaxed);
            }
            let scored_at = (self.request.clock)();
            writer.score(row(&trials[place], &evaluators[number], evaluation, scored_at)).await?;
        }
    }

    async fn embed(
        &self,
        trials: &[Trial],
        texts: &impl Fn(&Trial) -> Vec<(Option<u32>, String)>,
        provider: &EmbeddingProvider,
        progress: &mut Progress<'_>,
    ) -> Result<(), StoreError> {
        let Progress { earlier, budget, embeddings, cache, writer, .. } = progress;
        let Some(report) = embeddings.as_mut().filter(|report| report.error.is_none()) else { return Ok(()) };
        let mut wanted: Vec<(usize, Option<u32>, String)> = Vec::new();
        for (place, trial) in trials.iter().enumerate() {
            if earlier.has_vectors(&trial.session) {
                report.trials_already += 1;
            } else {
                wanted.extend(texts(trial).into_iter().map(|(turn, text)| (place, turn, text)));
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let plain: Vec<&str> = wanted.iter().map(|(_, _, text)| text.as_str()).collect();
        let made = tokio::select! {
            made = cache.vectors(provider, &plain, budget) => made,
            () = self.request.cancel.cancelled() => return Ok(()),
        };
        let vectors = match made {
            Ok(vectors) => vectors,
            Err(EmbedError::Bound) => return Ok(()),
            Err(EmbedError::Failed(why)) => {
                report.error = Some(grade::detail(&why));
                return Ok(());
            }
        };
        report.embedded += vectors.len() as u64;
        report.in_windows += vectors.iter().filter(|vector| vector.windows > Some(1)).count() as u64;
        report.cut += plain.iter().filter(|text| provider.cuts(text)).count() as u64;
        let embedded_at = (self.request.clock)();
        let rows = wanted.iter().zip(vectors).map(|((place, turn, _), vector)| {
            let trial = &trials[*place];
            Embedding {
                tenant: trial.tenant.clone(),
                agent: trial.agent.clone(),
                lane: trial.lane,
                case: trial.case.clone(),
                trial: trial.trial,
                session: trial.session.clone(),
                trial_started_at: trial.started_at,
                turn: *turn,
                model: provider.model.clone(),
                model_digest: provider.digest.clone(),
                embedded_at: Some(embedded_at),
                windows: vector.windows,
                vector: vector.numbers.to_vec(),
            }
        });
        writer.embeddings(rows.collect()).await
    }
}

fn row(trial: &Trial, evaluator: &Evaluator, evaluation: Evaluation, scored_at: i64) -> Score {
    let (grade, error) = match evaluation.grade {
        Ok(grade) => (Some(grade), None),
        Err(why) => (None, Some(grade::detail(&why))),
    };
    Score {
        tenant: trial.tenant.clone(),
        agent: trial.agent.clone(),
        lane: trial.lane,
        case: trial.case.clone(),
        trial: trial.trial,
        session: trial.session.clone(),
        trial_started_at: trial.started_at,
        evaluator: evaluator.name.clone(),
        kind: evaluator.kind,
        priority: evaluator.rank,
        evaluator_digest: evaluator.digest.clone(),
        scored_at,
        success: grade.as_ref().map(|grade| grade.success),
        value: grade.as_ref().and_then(|grade| grade.value),
        reason: grade.and_then(|grade| grade.reason),
        slice: evaluator.slice(trial),
        model: evaluation.model,
        input_tokens: evaluation.input_tokens,
        output_tokens: evaluation.output_tokens,
        cost_usd: evaluation.cost_usd,
        error,
    }
}
