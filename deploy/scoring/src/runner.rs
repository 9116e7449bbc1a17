//! Scores a run: selects the missing evaluations, runs several at the same time, writes the rows.

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
use crate::request::{ScoreProgress, ScoreRequest};
use crate::score_writer::{EarlierScores, ScoreWriter};
use crate::trial_view::{COLUMNS, ExchangeRow, TrialView, turn_answers};

/// Trials whose transcripts are in cache together.
const GROUP_TRIALS: usize = 256;

/// Scores one run.
pub(crate) struct Runner<'a> {
    /// Store of the run.
    pub(crate) store: &'a Store,
    /// The lane of the run.
    pub(crate) own: Lane,
    /// Configuration, clock and cancellation.
    pub(crate) request: &'a ScoreRequest,
}

/// Positions of a trial in its group and of an evaluator in the configuration.
type Job = (usize, usize);

/// The mutable state of a scoring.
struct ScoringState<'a> {
    writer: ScoreWriter<'a>,
    earlier: EarlierScores,
    budget: Budget,
    given_up: Vec<AtomicBool>,
    reports: Vec<EvaluatorReport>,
    embeddings: Option<EmbeddingReport>,
    cache: EmbeddingCache,
}

impl Runner<'_> {
    /// Scores the run.
    ///
    /// # Errors
    /// The run cannot be read or written, or another process has claimed it.
    pub(crate) async fn run(
        &self,
        evaluators: &[Evaluator],
        provider: Option<&EmbeddingProvider>,
        on_progress: &mut dyn FnMut(ScoreProgress),
    ) -> Result<ScoreReport, StoreError> {
        // The claim comes before the read, so that another process cannot add a row in between.
        let writer = ScoreWriter::open(self.store, self.request.config.limits.commit_every).await?;
        let snapshot = self.store.snapshot().await?;
        let digest = provider.map(|provider| provider.digest.as_str());
        let earlier = EarlierScores::read(self.store, &snapshot, evaluators, digest).await?;
        let mut state = ScoringState {
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
                    self.group(group, &snapshot, evaluators, provider, &mut state).await?;
                }
                done += group.len() as u64;
                on_progress(ScoreProgress { done, total });
            }
        }
        state.writer.commit().await?;
        Ok(self.report(state))
    }

    fn is_cancelled(&self) -> bool {
        self.request.cancel.is_cancelled()
    }

    fn report(&self, state: ScoringState<'_>) -> ScoreReport {
        let ScoringState { budget, mut reports, embeddings, .. } = state;
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

    /// Scores and embeds one group of trials.
    async fn group(
        &self,
        trials: &[Trial],
        snapshot: &Snapshot,
        evaluators: &[Evaluator],
        provider: Option<&EmbeddingProvider>,
        state: &mut ScoringState<'_>,
    ) -> Result<(), StoreError> {
        let jobs = self.jobs(trials, evaluators, state);
        let mut sessions: BTreeSet<SessionId> = BTreeSet::new();
        for (trial, evaluator) in &jobs {
            if evaluators[*evaluator].needs_transcript() {
                sessions.insert(trials[*trial].session.clone());
            }
        }
        if provider.is_some() {
            let is_new = |trial: &&Trial| !state.earlier.has_embeddings(&trial.session);
            sessions.extend(trials.iter().filter(is_new).map(|trial| trial.session.clone()));
        }
        let without: BTreeSet<&SessionId> =
            trials.iter().filter(|trial| !trial.has_transcript).map(|trial| &trial.session).collect();
        sessions.retain(|session| !without.contains(session));
        let mut rows: HashMap<SessionId, Vec<ExchangeRow>> = HashMap::new();
        if !sessions.is_empty() {
            let found: Vec<ExchangeRow> =
                self.store.rows_of_sessions(snapshot, Table::Exchanges, &sessions, Some(&COLUMNS)).await?;
            for row in found {
                rows.entry(row.session.clone()).or_default().push(row);
            }
        }
        let rows_of = |trial: &Trial| rows.get(&trial.session).cloned().unwrap_or_default();
        if !jobs.is_empty() {
            let views: Vec<TrialView> =
                trials.iter().map(|trial| TrialView::new(trial, rows_of(trial))).collect();
            self.evaluate(trials, &views, &jobs, evaluators, state).await?;
        }
        if let Some(provider) = provider.filter(|_| !self.is_cancelled()) {
            let texts =
                |trial: &Trial| turn_answers(trial, rows.get(&trial.session).map_or(&[], Vec::as_slice));
            self.embed(trials, &texts, provider, state).await?;
        }
        Ok(())
    }

    /// The evaluations of a group that have no score yet.
    fn jobs(&self, trials: &[Trial], evaluators: &[Evaluator], state: &mut ScoringState<'_>) -> Vec<Job> {
        let mut jobs = Vec::new();
        for (position, trial) in trials.iter().enumerate() {
            for (number, evaluator) in evaluators.iter().enumerate() {
                if !evaluator.applies_to(trial, self.own) {
                    continue;
                }
                let report = &mut state.reports[number];
                report.wanted += 1;
                if state.earlier.has_score(number, &trial.session) {
                    report.already += 1;
                } else {
                    jobs.push((position, number));
                }
            }
        }
        jobs
    }

    /// Evaluates several trials at the same time; writes the rows in the order of completion.
    async fn evaluate(
        &self,
        trials: &[Trial],
        views: &[TrialView],
        jobs: &[Job],
        evaluators: &[Evaluator],
        state: &mut ScoringState<'_>,
    ) -> Result<(), StoreError> {
        let limits = &self.request.config.limits;
        let ScoringState { budget, given_up, reports, writer, .. } = state;
        let (budget, given_up) = (&*budget, &*given_up);
        let evaluations = jobs.iter().map(|job| async move {
            let (position, number) = *job;
            let skipped = given_up[number].load(Ordering::Relaxed) || budget.reached().is_some();
            if skipped {
                return (*job, None);
            }
            let evaluation =
                evaluators[number].evaluate(&trials[position], &views[position], self.own, budget).await;
            (*job, evaluation)
        });
        let mut evaluated = futures::stream::iter(evaluations).buffer_unordered(limits.concurrency);
        loop {
            // Both branches are cancel-safe. A cancellation drops the open evaluations; the next invocation repeats them.
            let next = tokio::select! {
                next = evaluated.next() => next,
                () = self.request.cancel.cancelled() => None,
            };
            let Some(((position, number), evaluation)) = next else { return Ok(()) };
            let Some(evaluation) = evaluation else { continue };
            let report = &mut reports[number];
            report.count(&evaluation);
            if report.consecutive_errors >= limits.max_consecutive_errors {
                report.given_up = true;
                given_up[number].store(true, Ordering::Relaxed);
            }
            let scored_at = (self.request.clock)();
            writer.score(row(&trials[position], &evaluators[number], evaluation, scored_at)).await?;
        }
    }

    async fn embed(
        &self,
        trials: &[Trial],
        texts: &impl Fn(&Trial) -> Vec<(Option<u32>, String)>,
        provider: &EmbeddingProvider,
        state: &mut ScoringState<'_>,
    ) -> Result<(), StoreError> {
        let ScoringState { earlier, budget, embeddings, cache, writer, .. } = state;
        let Some(report) = embeddings.as_mut().filter(|report| report.error.is_none()) else { return Ok(()) };
        let mut texts_to_embed: Vec<(usize, Option<u32>, String)> = Vec::new();
        for (position, trial) in trials.iter().enumerate() {
            if earlier.has_embeddings(&trial.session) {
                report.trials_already += 1;
            } else {
                texts_to_embed.extend(texts(trial).into_iter().map(|(turn, text)| (position, turn, text)));
            }
        }
        if texts_to_embed.is_empty() {
            return Ok(());
        }
        let plain: Vec<&str> = texts_to_embed.iter().map(|(_, _, text)| text.as_str()).collect();
        let embedded = tokio::select! {
            embedded = cache.vectors(provider, &plain, budget) => embedded,
            () = self.request.cancel.cancelled() => return Ok(()),
        };
        let vectors = match embedded {
            Ok(vectors) => vectors,
            Err(EmbedError::Budget) => return Ok(()),
            Err(EmbedError::Failed(error)) => {
                report.error = Some(grade::detail(&error));
                return Ok(());
            }
        };
        report.embedded += vectors.len() as u64;
        report.in_windows += vectors.iter().filter(|vector| vector.windows > Some(1)).count() as u64;
        report.cut += plain.iter().filter(|text| provider.truncates(text)).count() as u64;
        let embedded_at = (self.request.clock)();
        let rows = texts_to_embed.iter().zip(vectors).map(|((position, turn, _), vector)| {
            let trial = &trials[*position];
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
        priority: evaluator.priority,
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
