//! Those who are asked about trials: labels of a file, a program, a service, a language model.

use std::path::Path;

use anyhow::Context as _;
use schemas::score::ScoreKind;
use schemas::trial::{Lane, Trial, TrialEnding};
use serde::Serialize;

use crate::budget::Budget;
use crate::config::{CommandConfig, HttpConfig, JudgeConfig, LabelsConfig, ScoreConfig};
use crate::endpoint::Endpoint;
use crate::evaluation::Evaluation;
use crate::grade;
use crate::judge::Judge;
use crate::labels::Labels;
use crate::program::Program;
use crate::trial_view::TrialView;

/// The longest answer of a service that is read, bytes.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// How an evaluator is asked.
#[derive(Debug)]
enum Method {
    Labels(Labels),
    Program(Program),
    Service { endpoint: Endpoint, threshold: f64 },
    Judge(Box<Judge>),
}

/// Who is asked about trials.
#[derive(Debug)]
pub(crate) struct Evaluator {
    /// Its name in tables and reports.
    pub(crate) name: String,
    /// What its word is worth.
    pub(crate) kind: ScoreKind,
    /// Its place in the configuration.
    pub(crate) rank: u32,
    /// BLAKE3 of all that can change its word.
    pub(crate) digest: String,
    /// The slice in which its agreement with labels is measured.
    slice_by: Option<String>,
    method: Method,
}

/// What is digested of a program.
#[derive(Serialize)]
struct ProgramIdentity<'a> {
    argv: &'a [String],
    env: &'a std::collections::BTreeMap<String, String>,
    files: Vec<(String, String)>,
    threshold: f64,
}

/// All that can change an evaluator's word.
#[derive(Serialize)]
struct Identity<'a, T> {
    kind: ScoreKind,
    version: &'a Option<String>,
    slice_by: &'a Option<String>,
    method: T,
}

impl<T: Serialize> Identity<'_, T> {
    fn digest(&self) -> String {
        let text = serde_json::to_string(self).expect("texts and finite numbers are JSON");
        blake3::hash(text.as_bytes()).to_hex().to_string()
    }
}

/// Makes the evaluators of a configuration; `base` is what its paths are relative to.
///
/// # Errors
/// Names the evaluator and what is wrong with it.
pub(crate) fn all(
    config: &ScoreConfig,
    base: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> anyhow::Result<Vec<Evaluator>> {
    let mut made = Vec::new();
    for one in &config.labels {
        made.push(labels(one, base).with_context(|| format!("labels {}", one.name))?);
    }
    for one in &config.commands {
        made.push(command(one, base, env).with_context(|| format!("command {}", one.name))?);
    }
    for one in &config.services {
        made.push(service(one, env).with_context(|| format!("http {}", one.name))?);
    }
    for one in &config.judges {
        made.push(judge(one, env).with_context(|| format!("judge {}", one.name))?);
    }
    for (one, rank) in made.iter_mut().zip(0..) {
        one.rank = rank;
    }
    Ok(made)
}

fn labels(config: &LabelsConfig, base: &Path) -> anyhow::Result<Evaluator> {
    let (labels, content) = Labels::read(&base.join(&config.file))?;
    Ok(Evaluator {
        name: config.name.clone(),
        kind: ScoreKind::Label,
        rank: 0,
        digest: content,
        slice_by: None,
        method: Method::Labels(labels),
    })
}

fn command(
    config: &CommandConfig,
    base: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> anyhow::Result<Evaluator> {
    let program = Program::new(config, base, env)?;
    let CommandConfig { name, argv, threshold, version, slice_by, .. } = config;
    let method = ProgramIdentity { argv, env: &config.env, files: program.files(), threshold: *threshold };
    let kind = if config.is_judge { ScoreKind::Judge } else { ScoreKind::Command };
    let digest = Identity { kind, version, slice_by, method }.digest();
    let (name, slice_by, method) = (name.clone(), slice_by.clone(), Method::Program(program));
    Ok(Evaluator { name, kind, rank: 0, digest, slice_by, method })
}

fn judge(config: &JudgeConfig, env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<Evaluator> {
    let judge = Judge::new(config, env)?;
    let JudgeConfig { name, version, slice_by, .. } = config;
    let kind = ScoreKind::Judge;
    let digest = Identity { kind, version, slice_by, method: judge.identity() }.digest();
    let (name, slice_by, method) = (name.clone(), slice_by.clone(), Method::Judge(Box::new(judge)));
    Ok(Evaluator { name, kind, rank: 0, digest, slice_by, method })
}

fn service(config: &HttpConfig, env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<Evaluator> {
    let HttpConfig { url, headers, timeout, retry, .. } = config;
    let endpoint = Endpoint::new(url, "", headers, *timeout, retry, MAX_ANSWER_BYTES, env)?;
    let kind = if config.is_judge { ScoreKind::Judge } else { ScoreKind::Http };
    let method = (url, config.threshold);
    let digest = Identity { kind, version: &config.version, slice_by: &config.slice_by, method }.digest();
    Ok(Evaluator {
        name: config.name.clone(),
        kind,
        rank: 0,
        digest,
        slice_by: config.slice_by.clone(),
        method: Method::Service { endpoint, threshold: config.threshold },
    })
}

impl Evaluator {
    /// Whether it has anything to say of a trial of a run of this lane: of complete trials, for others did not do their
    /// work; of recordings only where these carry a label, to measure its agreement.
    pub(crate) fn wants(&self, trial: &Trial, own: Lane) -> bool {
        match &self.method {
            Method::Labels(labels) => labels.of(trial, own).is_some(),
            Method::Program(_) | Method::Service { .. } | Method::Judge(_) => {
                let labelled = trial.lane == Lane::Recorded && trial.success.is_some();
                trial.ending == TrialEnding::Complete && (trial.lane == own || labelled)
            }
        }
    }

    /// Whether it must see what happened, not the row alone.
    pub(crate) fn wants_transcript(&self) -> bool {
        match self.method {
            Method::Labels(_) => false,
            Method::Program(_) | Method::Service { .. } | Method::Judge(_) => true,
        }
    }

    /// The slice of a trial in which its agreement with labels is measured.
    pub(crate) fn slice(&self, trial: &Trial) -> Option<String> {
        let name = self.slice_by.as_ref()?;
        trial.slices.get(name).map(|value| format!("{name}={value}"))
    }

    /// Asks it about a trial; nothing where a bound of the budget forbids it.
    pub(crate) async fn ask(
        &self,
        trial: &Trial,
        view: &TrialView,
        own: Lane,
        budget: &Budget,
    ) -> Option<Evaluation> {
        match &self.method {
            Method::Labels(labels) => labels.of(trial, own).map(|said| Evaluation::free(Ok(said.clone()))),
            Method::Program(program) => {
                if !budget.try_request() {
                    return None;
                }
                Some(Evaluation::free(program.ask(&view.json()).await))
            }
            Method::Service { endpoint, threshold } => {
                let answer = endpoint.post(&view.json(), budget).await.transpose()?;
                Some(Evaluation::free(answer.and_then(|answer| grade::parse(&answer, *threshold))))
            }
            Method::Judge(judge) => judge.ask(view, budget).await,
        }
    }
}
