//! The work itself: which trials are asked of whom, several at a time, and what came of it.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};

use futures::StreamExt as _;
use indicatif::ProgressBar;
use schemas::embedding::Embedding;
use schemas::id::SessionId;
use schemas::score::Score;
use schemas::table::Table;
use schemas::trial::{Lane, Trial};
use serde::Serialize;
use store::{Snapshot, Store, StoreError};

use super::Request;
use super::answer;
use super::embed::{EmbedError, Memory, Source};
use super::evaluator::{Evaluator, Spoken};
use super::ledger::{Done, Ledger};
use super::meter::Meter;
use super::view::{COLUMNS, ExchangeRow, TrialView, turn_answers};
use crate::clock;
use crate::screen::Screen;

/// Trials whose transcripts are in memory together.
const GROUP_TRIALS: usize = 256;

/// Trials between two plain lines of progress, where stderr is no terminal.
const LINE_EVERY: u64 = 1000;

/// A run that is to be scored.
pub(super) struct Work<'a> {
    /// The run.
    pub(super) lake: &'a Store,
    /// The lane of its trials.
    pub(super) own: Lane,
    /// What is wanted.
    pub(super) request: &'a Request,
    /// Where progress goes.
    pub(super) screen: &'a Screen,
}

/// Why the work ended early.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "why")]
pub(crate) enum Stopped {
    /// Somebody interrupted it.
    Interrupted,
    /// A bound was reached.
    Bound {
        /// The bound's key in the configuration.
        key: &'static str,
    },
}

/// What came of one evaluator.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct EvaluatorReport {
    /// Its name.
    pub(crate) name: String,
    /// Its kind.
    pub(crate) kind: &'static str,
    /// Digest of its configuration.
    pub(crate) digest: String,
    /// Trials that it has a word on, or should have.
    pub(crate) wanted: u64,
    /// Of these, those that an earlier start scored.
    pub(crate) already: u64,
    /// Those that this start scored.
    pub(crate) scored: u64,
    /// Of these, the successes.
    pub(crate) successes: u64,
    /// Those that it could not score in this start.
    pub(crate) errors: u64,
    /// Whether it failed so often in a row that it was not asked any more.
    pub(crate) given_up: bool,
    /// Whether more of its trials than may stay without a score.
    pub(crate) too_many_errors: bool,
    /// What the last of them met.
    pub(crate) last_error: Option<String>,
    #[serde(skip)]
    errors_in_a_row: u32,
}

/// What came of embedding.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct EmbeddingReport {
    /// The model.
    pub(crate) model: String,
    /// Trials whose answers an earlier start embedded.
    pub(crate) trials_already: u64,
    /// Answers that this start embedded.
    pub(crate) embedded: u64,
    /// Of these, those longer than the model reads at once, read in windows.
    pub(crate) in_windows: u64,
    /// Of these, those of which the end was not sent.
    pub(crate) cut: u64,
    /// Why it ended early.
    pub(crate) error: Option<String>,
}

/// What came of it all.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Report {
    /// The run.
    pub(crate) run: String,
    /// The evaluators in the order of the configuration.
    pub(crate) evaluators: Vec<EvaluatorReport>,
    /// The vectors; absent where none were wanted.
    pub(crate) embeddings: Option<EmbeddingReport>,
    /// Requests and program starts of this start.
    pub(crate) requests: u64,
    /// Tokens of all starts.
    pub(crate) tokens: u64,
    /// US dollars of all starts.
    pub(crate) usd: f64,
    /// Why it ended early, where it did.
    pub(crate) stopped: Option<Stopped>,
}

/// What is asked of whom: the trial's place in its group, and the evaluator's.
type Job = (usize, usize);

/// Everything that changes while the work goes on.
struct Progress<'a> {
    ledger: Ledger<'a>,
    done: Done,
    meter: Meter,
    given_up: Vec<AtomicBool>,
    reports: Vec<EvaluatorReport>,
    embeddings: Option<EmbeddingReport>,
    memory: Memory,
}

impl Work<'_> {
    /// Does it.
    ///
    /// # Errors
    /// The run cannot be read or written, or somebody else scores it now.
    pub(super) async fn run(
        &self,
        evaluators: &[Evaluator],
        source: Option<&Source>,
    ) -> Result<Report, StoreError> {
        // Whoever scored it before is fenced off before it is read what there is, so that no row comes twice.
        let ledger = Ledger::open(self.lake, self.request.config.limits.commit_every).await?;
        let snapshot = self.lake.snapshot().await?;
        let digest = source.map(|source| source.digest.as_str());
        let done = Done::read(self.lake, &snapshot, evaluators, digest).await?;
        let mut progress = Progress {
            ledger,
            meter: Meter::new(&self.request.config.limits, done.cost),
            done,
            given_up: evaluators.iter().map(|_| AtomicBool::new(false)).collect(),
            reports: evaluators.iter().map(EvaluatorReport::new).collect(),
            embeddings: source
                .map(|source| EmbeddingReport { model: source.model.clone(), ..EmbeddingReport::default() }),
            memory: Memory::default(),
        };
        let total = snapshot.files(Table::Trials).map(|file| file.rows).sum();
        let bar = self.screen.progress("scoring trials", total);
        for file in snapshot.files(Table::Trials) {
            let trials: Vec<Trial> = self.lake.read(file, None).await?;
            for group in trials.chunks(GROUP_TRIALS) {
                if !self.is_cancelled() {
                    self.group(group, &snapshot, evaluators, source, &mut progress).await?;
                }
                self.tell(&bar, group.len());
            }
        }
        bar.finish_and_clear();
        progress.ledger.commit().await?;
        Ok(self.report(progress))
    }

    fn is_cancelled(&self) -> bool {
        self.request.cancel.is_cancelled()
    }

    fn tell(&self, bar: &ProgressBar, trials: usize) {
        let before = bar.position();
        bar.inc(trials as u64);
        let (at, all) = (bar.position(), bar.length().unwrap_or(0));
        if bar.is_hidden() && at / LINE_EVERY > before / LINE_EVERY {
            self.screen.note(format!("{at} of {all} trials"));
        }
    }

    fn report(&self, progress: Progress<'_>) -> Report {
        let Progress { meter, mut reports, embeddings, .. } = progress;
        let share = self.request.config.limits.max_error_share;
        for report in &mut reports {
            let [errors, wanted] = [report.errors, report.wanted]
                .map(|count| f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
            report.too_many_errors = errors > share * wanted;
        }
        let (requests, cost) = meter.total();
        let bound = meter.reached().map(|key| Stopped::Bound { key });
        Report {
            run: self.request.run.clone(),
            evaluators: reports,
            embeddings,
            requests,
            tokens: cost.tokens,
            usd: cost.usd,
            stopped: if self.is_cancelled() { Some(Stopped::Interrupted) } else { bound },
        }
    }

    /// Scores and embeds some trials.
    async fn group(
        &self,
        trials: &[Trial],
        snapshot: &Snapshot,
        evaluators: &[Evaluator],
        source: Option<&Source>,
        progress: &mut Progress<'_>,
    ) -> Result<(), StoreError> {
        let jobs = self.jobs(trials, evaluators, progress);
        let mut seen: BTreeSet<SessionId> = BTreeSet::new();
        for (trial, evaluator) in &jobs {
            if evaluators[*evaluator].wants_transcript() {
                seen.insert(trials[*trial].session.clone());
            }
        }
        if source.is_some() {
            let is_new = |trial: &&Trial| !progress.done.has_vectors(&trial.session);
            seen.extend(trials.iter().filter(is_new).map(|trial| trial.session.clone()));
        }
        let without: BTreeSet<&SessionId> =
            trials.iter().filter(|trial| !trial.has_transcript).map(|trial| &trial.session).collect();
        seen.retain(|session| !without.contains(session));
        let mut rows: HashMap<SessionId, Vec<ExchangeRow>> = HashMap::new();
        if !seen.is_empty() {
            let found: Vec<ExchangeRow> =
                self.lake.rows_of_sessions(snapshot, Table::Exchanges, &seen, Some(&COLUMNS)).await?;
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
        if let Some(source) = source.filter(|_| !self.is_cancelled()) {
            let texts =
                |trial: &Trial| turn_answers(trial, rows.get(&trial.session).map_or(&[], Vec::as_slice));
            self.embed(trials, &texts, source, progress).await?;
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
                if progress.done.has_score(number, &trial.session) {
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
        let Progress { meter, given_up, reports, ledger, .. } = progress;
        let (meter, given_up) = (&*meter, &*given_up);
        let asked = jobs.iter().map(|job| async move {
            let (place, number) = *job;
            let quiet = given_up[number].load(Ordering::Relaxed) || meter.reached().is_some();
            if quiet {
                return (*job, None);
            }
            let spoken = evaluators[number].ask(&trials[place], &views[place], self.own, meter).await;
            (*job, spoken)
        });
        let mut answers = futures::stream::iter(asked).buffer_unordered(limits.concurrency);
        loop {
            // Both branches are cancel-safe; what is under way when it is cancelled is dropped and asked again next time.
            let next = tokio::select! {
                next = answers.next() => next,
                () = self.request.cancel.cancelled() => None,
            };
            let Some(((place, number), spoken)) = next else { return Ok(()) };
            let Some(spoken) = spoken else { continue };
            let report = &mut reports[number];
            report.count(&spoken);
            if report.errors_in_a_row >= limits.max_errors_in_a_row {
                report.given_up = true;
                given_up[number].store(true, Ordering::Relaxed);
            }
            ledger.score(row(&trials[place], &evaluators[number], spoken)).await?;
        }
    }

    async fn embed(
        &self,
        trials: &[Trial],
        texts: &impl Fn(&Trial) -> Vec<(Option<u32>, String)>,
        source: &Source,
        progress: &mut Progress<'_>,
    ) -> Result<(), StoreError> {
        let Progress { done, meter, embeddings, memory, ledger, .. } = progress;
        let Some(report) = embeddings.as_mut().filter(|report| report.error.is_none()) else { return Ok(()) };
        let mut wanted: Vec<(usize, Option<u32>, String)> = Vec::new();
        for (place, trial) in trials.iter().enumerate() {
            if done.has_vectors(&trial.session) {
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
            made = memory.vectors(source, &plain, meter) => made,
            () = self.request.cancel.cancelled() => return Ok(()),
        };
        let vectors = match made {
            Ok(vectors) => vectors,
            Err(EmbedError::Bound) => return Ok(()),
            Err(EmbedError::Failed(why)) => {
                report.error = Some(answer::detail(&why));
                return Ok(());
            }
        };
        report.embedded += vectors.len() as u64;
        report.in_windows += vectors.iter().filter(|vector| vector.windows > Some(1)).count() as u64;
        report.cut += plain.iter().filter(|text| source.cuts(text)).count() as u64;
        let embedded_at = clock::now_micros();
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
                model: source.model.clone(),
                model_digest: source.digest.clone(),
                embedded_at: Some(embedded_at),
                windows: vector.windows,
                vector: vector.numbers.to_vec(),
            }
        });
        ledger.embeddings(rows.collect()).await
    }
}

impl EvaluatorReport {
    fn new(evaluator: &Evaluator) -> Self {
        Self {
            name: evaluator.name.clone(),
            kind: evaluator.kind.as_str(),
            digest: evaluator.digest.clone(),
            ..Self::default()
        }
    }

    fn count(&mut self, spoken: &Spoken) {
        match &spoken.said {
            Ok(said) => {
                self.scored += 1;
                self.successes += u64::from(said.success);
                self.errors_in_a_row = 0;
            }
            Err(why) => {
                self.errors += 1;
                self.errors_in_a_row += 1;
                self.last_error = Some(answer::detail(why));
            }
        }
    }
}

fn row(trial: &Trial, evaluator: &Evaluator, spoken: Spoken) -> Score {
    let (said, error) = match spoken.said {
        Ok(said) => (Some(said), None),
        Err(why) => (None, Some(answer::detail(&why))),
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
        rank: evaluator.rank,
        evaluator_digest: evaluator.digest.clone(),
        scored_at: clock::now_micros(),
        success: said.as_ref().map(|said| said.success),
        value: said.as_ref().and_then(|said| said.value),
        reason: said.and_then(|said| said.reason),
        slice: evaluator.slice(trial),
        model: spoken.model,
        input_tokens: spoken.input_tokens,
        output_tokens: spoken.output_tokens,
        cost_usd: spoken.cost_usd,
        error,
    }
}

impl Report {
    /// The report for a person.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for one in &self.evaluators {
            let EvaluatorReport { name, kind, wanted, already, scored, successes, errors, .. } = one;
            lines.push(format!(
                "{kind} {name}: {scored} of {wanted} trials scored, {successes} of them successes; {already} were scored \
                 before, {errors} could not be"
            ));
            if let Some(error) = &one.last_error {
                lines.push(format!("  the last error: {}", crate::screen::plain(error)));
            }
        }
        if let Some(one) = &self.embeddings {
            let EmbeddingReport { model, trials_already, embedded, in_windows, cut, .. } = one;
            let cut = if *cut > 0 { format!(", of {cut} the end was not sent") } else { String::new() };
            lines.push(format!(
                "embeddings by {model}: {embedded} answers ({in_windows} in windows{cut}); those of {trials_already} trials \
                 were there before"
            ));
        }
        if self.requests > 0 {
            let Self { requests, tokens, usd, .. } = self;
            lines.push(format!("{requests} requests; by all starts {tokens} tokens, {usd:.4} US dollars"));
        }
        lines
    }
}
