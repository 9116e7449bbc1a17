//! Those who are asked about trials: labels of a file, a program, a service, a language model.

use std::path::Path;

use anyhow::Context as _;
use schemas::score::ScoreKind;
use schemas::trial::{Lane, Trial, TrialEnding};
use serde::Serialize;

use super::answer::{self, Said};
use super::config::{CommandConfig, HttpConfig, JudgeConfig, LabelsConfig, ScoreConfig};
use super::endpoint::Endpoint;
use super::judge::Judge;
use super::labels::Labels;
use super::meter::Meter;
use super::program::Program;
use super::view::TrialView;

/// The longest answer of a service that is read, bytes.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// What came of asking.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Spoken {
    /// The score, or why there is none.
    pub(super) said: Result<Said, String>,
    /// The model, as it named itself.
    pub(super) model: Option<String>,
    /// Tokens read.
    pub(super) input_tokens: Option<u64>,
    /// Tokens written.
    pub(super) output_tokens: Option<u64>,
    /// US dollars.
    pub(super) cost_usd: Option<f64>,
}

impl Spoken {
    /// What was said, by somebody who costs nothing.
    pub(super) fn of(said: Result<Said, String>) -> Self {
        Self { said, model: None, input_tokens: None, output_tokens: None, cost_usd: None }
    }
}

/// How an evaluator is asked.
#[derive(Debug)]
enum Way {
    Labels(Labels),
    Program(Program),
    Service { endpoint: Endpoint, pass_at: f64 },
    Judge(Box<Judge>),
}

/// Who is asked about trials.
#[derive(Debug)]
pub(super) struct Evaluator {
    /// Its name in tables and reports.
    pub(super) name: String,
    /// What its word is worth.
    pub(super) kind: ScoreKind,
    /// Its place in the configuration.
    pub(super) rank: u32,
    /// BLAKE3 of all that can change its word.
    pub(super) digest: String,
    /// The slice in which its agreement with labels is measured.
    slice_by: Option<String>,
    way: Way,
}

/// What is digested of a program.
#[derive(Serialize)]
struct ProgramIdentity<'a> {
    argv: &'a [String],
    env: &'a std::collections::BTreeMap<String, String>,
    files: Vec<(String, String)>,
    pass_at: f64,
}

/// All that can change an evaluator's word.
#[derive(Serialize)]
struct Identity<'a, T> {
    kind: ScoreKind,
    version: &'a Option<String>,
    slice_by: &'a Option<String>,
    way: T,
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
pub(super) fn all(
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
        way: Way::Labels(labels),
    })
}

fn command(
    config: &CommandConfig,
    base: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> anyhow::Result<Evaluator> {
    let program = Program::new(config, base, env)?;
    let CommandConfig { name, argv, pass_at, version, slice_by, .. } = config;
    let way = ProgramIdentity { argv, env: &config.env, files: program.files(), pass_at: *pass_at };
    let kind = if config.is_judge { ScoreKind::Judge } else { ScoreKind::Command };
    let digest = Identity { kind, version, slice_by, way }.digest();
    let (name, slice_by, way) = (name.clone(), slice_by.clone(), Way::Program(program));
    Ok(Evaluator { name, kind, rank: 0, digest, slice_by, way })
}

fn judge(config: &JudgeConfig, env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<Evaluator> {
    let judge = Judge::new(config, env)?;
    let JudgeConfig { name, version, slice_by, .. } = config;
    let kind = ScoreKind::Judge;
    let digest = Identity { kind, version, slice_by, way: judge.identity() }.digest();
    let (name, slice_by, way) = (name.clone(), slice_by.clone(), Way::Judge(Box::new(judge)));
    Ok(Evaluator { name, kind, rank: 0, digest, slice_by, way })
}

fn service(config: &HttpConfig, env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<Evaluator> {
    let HttpConfig { url, headers, timeout, retry, .. } = config;
    let endpoint = Endpoint::new(url, "", headers, *timeout, retry, MAX_ANSWER_BYTES, env)?;
    let kind = if config.is_judge { ScoreKind::Judge } else { ScoreKind::Http };
    let way = (url, config.pass_at);
    let digest = Identity { kind, version: &config.version, slice_by: &config.slice_by, way }.digest();
    Ok(Evaluator {
        name: config.name.clone(),
        kind,
        rank: 0,
        digest,
        slice_by: config.slice_by.clone(),
        way: Way::Service { endpoint, pass_at: config.pass_at },
    })
}

impl Evaluator {
    /// Whether it has anything to say of a trial of a run of this lane: of complete trials, for others did not do their
    /// work; of recordings only where these carry a label, to measure its agreement.
    pub(super) fn wants(&self, trial: &Trial, own: Lane) -> bool {
        match &self.way {
            Way::Labels(labels) => labels.of(trial, own).is_some(),
            Way::Program(_) | Way::Service { .. } | Way::Judge(_) => {
                let labelled = trial.lane == Lane::Recorded && trial.success.is_some();
                trial.ending == TrialEnding::Complete && (trial.lane == own || labelled)
            }
        }
    }

    /// Whether it must see what happened, not the row alone.
    pub(super) fn wants_transcript(&self) -> bool {
        match self.way {
            Way::Labels(_) => false,
            Way::Program(_) | Way::Service { .. } | Way::Judge(_) => true,
        }
    }

    /// The slice of a trial in which its agreement with labels is measured.
    pub(super) fn slice(&self, trial: &Trial) -> Option<String> {
        let name = self.slice_by.as_ref()?;
        trial.slices.get(name).map(|value| format!("{name}={value}"))
    }

    /// Asks it about a trial; nothing where a bound of the meter forbids it.
    pub(super) async fn ask(
        &self,
        trial: &Trial,
        view: &TrialView,
        own: Lane,
        meter: &Meter,
    ) -> Option<Spoken> {
        match &self.way {
            Way::Labels(labels) => labels.of(trial, own).map(|said| Spoken::of(Ok(said.clone()))),
            Way::Program(program) => {
                if !meter.take_request() {
                    return None;
                }
                Some(Spoken::of(program.ask(&view.json()).await))
            }
            Way::Service { endpoint, pass_at } => {
                let answer = endpoint.post(&view.json(), meter).await.transpose()?;
                Some(Spoken::of(answer.and_then(|answer| answer::parse(&answer, *pass_at))))
            }
            Way::Judge(judge) => judge.ask(view, meter).await,
        }
    }
}
