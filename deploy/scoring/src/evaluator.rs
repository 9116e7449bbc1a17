//! An evaluator of trials: a labels file, a program, an HTTP service or a language model.

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

/// Longest response of a service, bytes.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// How an evaluator gets its grades.
#[derive(Debug)]
enum Method {
    Labels(Labels),
    Program(Program),
    Service { endpoint: Endpoint, threshold: f64 },
    Judge(Box<Judge>),
}

/// An evaluator with its identity.
#[derive(Debug)]
pub(crate) struct Evaluator {
    /// Name in tables and reports.
    pub(crate) name: String,
    /// Kind, which decides how `decision` uses the grades.
    pub(crate) kind: ScoreKind,
    /// Position in the configuration, from 0; lower wins among evaluators of one kind.
    pub(crate) priority: u32,
    /// BLAKE3 of every setting that can change a grade, hexadecimal.
    pub(crate) digest: String,
    /// Slice in whose values the agreement with labels is measured.
    slice_by: Option<String>,
    method: Method,
}

/// Settings of a program that can change a grade.
#[derive(Serialize)]
struct ProgramIdentity<'a> {
    argv: &'a [String],
    env: &'a std::collections::BTreeMap<String, String>,
    files: Vec<(String, String)>,
    threshold: f64,
}

/// Settings of an evaluator that can change a grade.
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

/// Creates the evaluators of a configuration, with paths relative to `base`.
///
/// # Errors
/// The text names the evaluator and the unusable key or file.
pub(crate) fn all(
    config: &ScoreConfig,
    base: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> anyhow::Result<Vec<Evaluator>> {
    let mut evaluators = Vec::new();
    for one in &config.labels {
        evaluators.push(labels(one, base).with_context(|| format!("labels {}", one.name))?);
    }
    for one in &config.commands {
        evaluators.push(command(one, base, env).with_context(|| format!("command {}", one.name))?);
    }
    for one in &config.services {
        evaluators.push(service(one, env).with_context(|| format!("http {}", one.name))?);
    }
    for one in &config.judges {
        evaluators.push(judge(one, env).with_context(|| format!("judge {}", one.name))?);
    }
    for (one, priority) in evaluators.iter_mut().zip(0..) {
        one.priority = priority;
    }
    Ok(evaluators)
}

fn labels(config: &LabelsConfig, base: &Path) -> anyhow::Result<Evaluator> {
    let (labels, content) = Labels::read(&base.join(&config.file))?;
    Ok(Evaluator {
        name: config.name.clone(),
        kind: ScoreKind::Label,
        priority: 0,
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
    Ok(Evaluator { name, kind, priority: 0, digest, slice_by, method })
}

fn judge(config: &JudgeConfig, env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<Evaluator> {
    let judge = Judge::new(config, env)?;
    let JudgeConfig { name, version, slice_by, .. } = config;
    let kind = ScoreKind::Judge;
    let digest = Identity { kind, version, slice_by, method: judge.identity() }.digest();
    let (name, slice_by, method) = (name.clone(), slice_by.clone(), Method::Judge(Box::new(judge)));
    Ok(Evaluator { name, kind, priority: 0, digest, slice_by, method })
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
        priority: 0,
        digest,
        slice_by: config.slice_by.clone(),
        method: Method::Service { endpoint, threshold: config.threshold },
    })
}

impl Evaluator {
    /// Whether the evaluator applies to a trial in a run of lane `own`: only to complete trials, and to recordings only if
    /// they have a label, which measures the agreement.
    pub(crate) fn applies_to(&self, trial: &Trial, own: Lane) -> bool {
        match &self.method {
            Method::Labels(labels) => labels.get(trial, own).is_some(),
            Method::Program(_) | Method::Service { .. } | Method::Judge(_) => {
                let labelled = trial.lane == Lane::Recorded && trial.success.is_some();
                trial.ending == TrialEnding::Complete && (trial.lane == own || labelled)
            }
        }
    }

    /// Whether the evaluator reads the exchanges of a trial.
    pub(crate) fn needs_transcript(&self) -> bool {
        match self.method {
            Method::Labels(_) => false,
            Method::Program(_) | Method::Service { .. } | Method::Judge(_) => true,
        }
    }

    /// The slice value in which this trial measures the agreement with labels, such as `domain=airline`.
    pub(crate) fn slice(&self, trial: &Trial) -> Option<String> {
        let name = self.slice_by.as_ref()?;
        trial.slices.get(name).map(|value| format!("{name}={value}"))
    }

    /// Evaluates a trial; `None` if the budget is exhausted.
    pub(crate) async fn evaluate(
        &self,
        trial: &Trial,
        view: &TrialView,
        own: Lane,
        budget: &Budget,
    ) -> Option<Evaluation> {
        match &self.method {
            Method::Labels(labels) => labels.get(trial, own).map(|grade| Evaluation::free(Ok(grade.clone()))),
            Method::Program(program) => {
                if !budget.try_request() {
                    return None;
                }
                Some(Evaluation::free(program.evaluate(&view.json()).await))
            }
            Method::Service { endpoint, threshold } => {
                let answer = endpoint.post(&view.json(), budget).await.transpose()?;
                Some(Evaluation::free(answer.and_then(|answer| grade::parse(&answer, *threshold))))
            }
            Method::Judge(judge) => judge.evaluate(view, budget).await,
        }
    }
}
