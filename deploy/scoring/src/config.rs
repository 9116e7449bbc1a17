//! The `[score]` table of a configuration: who is asked about trials, and how much that may cost.
//!
//! Parsed whole and checked whole; nothing is opened here but the files that a digest needs. A value that came through
//! [`ScoreConfig::find`] is fit to be used.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{anyhow, bail};
use serde::Deserialize;

/// The `[score]` table.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ScoreConfig {
    /// Bounds on what one start does.
    #[serde(default)]
    pub limits: Limits,
    /// Files of labels that people gave.
    #[serde(rename = "labels", default)]
    pub labels: Vec<LabelsConfig>,
    /// Programs.
    #[serde(rename = "command", default)]
    pub commands: Vec<CommandConfig>,
    /// Services.
    #[serde(rename = "http", default)]
    pub services: Vec<HttpConfig>,
    /// Language models.
    #[serde(rename = "judge", default)]
    pub judges: Vec<JudgeConfig>,
    /// How answers become vectors; absent, by the model inside the binary.
    pub embeddings: Option<EmbeddingsConfig>,
}

/// Bounds. Tokens and dollars count everything that the run's `scores` table says was spent, by earlier starts too;
/// requests count this start.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Limits {
    /// Evaluations under way at a time, of all evaluators together.
    pub concurrency: usize,
    /// Requests and program starts, tries that failed included.
    pub max_requests: Option<u64>,
    /// Tokens read and written by judges.
    pub max_tokens: Option<u64>,
    /// US dollars, by the prices of the judges.
    pub max_usd: Option<f64>,
    /// So many trials one after the other that an evaluator cannot score end its work in this start.
    pub max_consecutive_errors: u32,
    /// Share of the trials that may stay without a score before the command fails.
    pub max_error_share: f64,
    /// How long a finished row waits for its commit while others finish: so much work is lost by a kill, at most.
    #[serde(with = "humantime_serde")]
    pub commit_every: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            concurrency: 8,
            max_requests: None,
            max_tokens: None,
            max_usd: None,
            max_consecutive_errors: 20,
            max_error_share: 0.05,
            commit_every: Duration::from_secs(5),
        }
    }
}

/// `[[score.labels]]`: a CSV file with `case`, `trial`, `success` and, where they are there, `lane` and `reason`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LabelsConfig {
    /// Its name in tables and reports.
    pub name: String,
    /// The file, relative to the configuration.
    pub file: PathBuf,
}

/// `[[score.command]]`: a program that gets a trial as JSON on stdin and answers with JSON on stdout.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CommandConfig {
    /// Its name in tables and reports.
    pub name: String,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Its environment beside what it inherits; `${NAME}` is taken from this process's.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Variables that it inherits.
    #[serde(default = "inherited")]
    pub inherit_env: Vec<String>,
    /// The folder it is started in, relative to the configuration; by default the configuration's.
    pub working_dir: Option<PathBuf>,
    /// How long it may take over a trial.
    #[serde(default = "minute", with = "humantime_serde")]
    pub timeout: Duration,
    /// A `score` from here on is a success, where the answer has no `success`.
    #[serde(default = "half")]
    pub threshold: f64,
    /// Its word counts only where its agreement with labels is measured and passes, as a judge's.
    #[serde(default)]
    pub is_judge: bool,
    /// The slice in which that agreement is measured.
    pub slice_by: Option<String>,
    /// Changed by hand where it scores otherwise than before for a reason that stands nowhere else.
    pub version: Option<String>,
}

/// What a program needs to start at all; secrets are not among it.
fn inherited() -> Vec<String> {
    ["PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "USER"].map(str::to_owned).to_vec()
}

fn minute() -> Duration {
    Duration::from_secs(60)
}

fn half() -> f64 {
    0.5
}

/// How a request is tried again.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Retry {
    /// Tries after the first, where the service cannot be reached, is overloaded or fails (408, 429, 5xx).
    pub times: u32,
    /// The pause before the first of them; each later one is twice as long. A `retry-after` is honoured up to a minute.
    #[serde(with = "humantime_serde")]
    pub pause: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { times: 3, pause: Duration::from_millis(500) }
    }
}

/// `[[score.http]]`: a service that gets a trial as JSON by POST and answers with JSON.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct HttpConfig {
    /// Its name in tables and reports.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// Headers; `${NAME}` is taken from the environment.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// How long a request may take.
    #[serde(default = "minute", with = "humantime_serde")]
    pub timeout: Duration,
    /// How it is tried again.
    #[serde(default)]
    pub retry: Retry,
    /// A `score` from here on is a success, where the answer has no `success`.
    #[serde(default = "half")]
    pub threshold: f64,
    /// Its word counts only where its agreement with labels is measured and passes, as a judge's.
    #[serde(default)]
    pub is_judge: bool,
    /// The slice in which that agreement is measured.
    pub slice_by: Option<String>,
    /// Changed by hand where it scores otherwise than before for a reason that stands nowhere else.
    pub version: Option<String>,
}

/// How a judge is made to answer in its two words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Structured {
    /// `response_format` with the JSON Schema of the answer.
    #[default]
    JsonSchema,
    /// `response_format` that asks for any JSON object.
    JsonObject,
    /// The prompt alone.
    None,
}

/// `[[score.judge]]`: a language model behind an OpenAI-compatible chat endpoint, asked at temperature 0.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct JudgeConfig {
    /// Its name in tables and reports.
    pub name: String,
    /// The base of the endpoint, to which `/chat/completions` is added, such as `https://host/v1`.
    pub url: String,
    /// The model.
    pub model: String,
    /// Headers; `${NAME}` is taken from the environment: `authorization = "Bearer ${JUDGE_KEY}"`.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// What the work must be like to pass, in a sentence or a page; part of the default prompt.
    #[serde(default)]
    pub rubric: String,
    /// The system message (minijinja).
    pub system: Option<String>,
    /// The user message (minijinja); must hold `{{ transcript }}`, which is delimited.
    pub prompt: Option<String>,
    /// The word for a success.
    #[serde(default = "pass")]
    pub pass_word: String,
    /// The word for a failure.
    #[serde(default = "fail")]
    pub fail_word: String,
    /// How it is made to answer so.
    #[serde(default)]
    pub structured: Structured,
    /// The longest answer, tokens.
    #[serde(default = "answer_tokens")]
    pub max_answer_tokens: u32,
    /// The field of the request that bounds the answer; some models want `max_completion_tokens`.
    #[serde(default = "token_limit_key")]
    pub token_limit_key: String,
    /// The longest transcript, bytes; of a longer one the middle is left out, and how much is said.
    #[serde(default = "transcript_bytes")]
    pub max_transcript_bytes: usize,
    /// The slice in which its agreement with labels is measured, such as `domain`; by default over all trials.
    pub slice_by: Option<String>,
    /// How long a request may take.
    #[serde(default = "minute", with = "humantime_serde")]
    pub timeout: Duration,
    /// How it is tried again.
    #[serde(default)]
    pub retry: Retry,
    /// Price of a million tokens read, US dollars.
    #[serde(default)]
    pub input_usd_per_million: f64,
    /// Price of a million tokens written, US dollars.
    #[serde(default)]
    pub output_usd_per_million: f64,
    /// Changed by hand where it scores otherwise than before for a reason that stands nowhere else.
    pub version: Option<String>,
}

fn pass() -> String {
    "pass".to_owned()
}

fn fail() -> String {
    "fail".to_owned()
}

fn answer_tokens() -> u32 {
    400
}

fn token_limit_key() -> String {
    "max_tokens".to_owned()
}

fn transcript_bytes() -> usize {
    64 << 10
}

/// Where vectors come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProviderKind {
    /// The model inside the binary.
    BuiltIn,
    /// An OpenAI-compatible `/embeddings` endpoint.
    Http,
    /// No vectors are made.
    Off,
}

/// `[score.embeddings]`: how answers become vectors.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct EmbeddingsConfig {
    /// By what.
    pub provider: ProviderKind,
    /// `http`: the base of the endpoint, to which `/embeddings` is added, such as `https://host/v1`.
    pub url: Option<String>,
    /// `http`: the model.
    pub model: Option<String>,
    /// `http`: headers; `${NAME}` is taken from the environment.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// `http`: texts in one request.
    #[serde(default = "batch_texts")]
    pub batch: usize,
    /// `http`: the longest text, bytes; the rest of a longer one is not sent, and how many were is said.
    #[serde(default = "text_bytes")]
    pub max_text_bytes: usize,
    /// `http`: how long a request may take.
    #[serde(default = "minute", with = "humantime_serde")]
    pub timeout: Duration,
    /// `http`: how it is tried again.
    #[serde(default)]
    pub retry: Retry,
}

fn batch_texts() -> usize {
    64
}

fn text_bytes() -> usize {
    24 << 10
}

impl ScoreConfig {
    /// Reads the `[score]` table of a configuration; of any other part of it nothing is asked. Without one, the defaults.
    pub fn find(text: &str) -> anyhow::Result<Self> {
        let mut file: toml::Table =
            toml::from_str(text).map_err(|error| anyhow!("not TOML: {}", error.message()))?;
        let Some(table) = file.remove("score") else { return Ok(Self::default()) };
        let config: Self = serde_path_to_error::deserialize(table).map_err(|error| {
            let detail = error.inner().message().trim().replace('\n', "; ");
            anyhow!("key `score.{}`: {detail}; correct it and start again", error.path())
        })?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> anyhow::Result<()> {
        let names = self.labels.iter().map(|one| &one.name);
        let names = names.chain(self.commands.iter().map(|one| &one.name));
        let names = names.chain(self.services.iter().map(|one| &one.name));
        let mut names: Vec<&String> = names.chain(self.judges.iter().map(|one| &one.name)).collect();
        names.sort();
        for pair in names.windows(2) {
            if pair[0] == pair[1] {
                bail!("key `score`: two evaluators are called {:?}; give each its own name", pair[0]);
            }
        }
        if let Some(name) = names.iter().find(|name| !is_name(name)) {
            bail!(
                "key `score`: an evaluator is called {name:?}; write 1 to 64 letters, digits, `-`, `_` or `.`"
            );
        }
        let limits = &self.limits;
        within("limits.concurrency", limits.concurrency, 1..=256)?;
        within("limits.max-consecutive-errors", limits.max_consecutive_errors, 1..=1_000_000)?;
        within("limits.max-error-share", limits.max_error_share, 0.0..=1.0)?;
        for one in &self.commands {
            within(&format!("command {}: threshold", one.name), one.threshold, 0.0..=1.0)?;
            if one.argv.is_empty() {
                bail!("key `score.command {}: argv` is empty; write the program and its arguments", one.name);
            }
        }
        for one in &self.services {
            within(&format!("http {}: threshold", one.name), one.threshold, 0.0..=1.0)?;
            within(&format!("http {}: retry.times", one.name), one.retry.times, 0..=10)?;
        }
        self.judges.iter().try_for_each(JudgeConfig::check)?;
        self.embeddings.as_ref().map_or(Ok(()), EmbeddingsConfig::check)
    }
}

impl JudgeConfig {
    fn check(&self) -> anyhow::Result<()> {
        let key = |key: &str| format!("judge {}: {key}", self.name);
        within(&key("retry.times"), self.retry.times, 0..=10)?;
        within(&key("max-answer-tokens"), self.max_answer_tokens, 16..=100_000)?;
        within(&key("max-transcript-bytes"), self.max_transcript_bytes, 1_000..=10_000_000)?;
        within(&key("input-usd-per-million"), self.input_usd_per_million, 0.0..=1e6)?;
        within(&key("output-usd-per-million"), self.output_usd_per_million, 0.0..=1e6)?;
        if self.pass_word == self.fail_word || !is_name(&self.pass_word) || !is_name(&self.fail_word) {
            bail!(
                "key `score.judge {}`: pass-word and fail-word must be two words of letters, digits, `-`, `_` or `.`",
                self.name
            );
        }
        Ok(())
    }
}

impl EmbeddingsConfig {
    fn check(&self) -> anyhow::Result<()> {
        within("embeddings.batch", self.batch, 1..=2048)?;
        within("embeddings.max-text-bytes", self.max_text_bytes, 100..=10_000_000)?;
        within("embeddings.retry.times", self.retry.times, 0..=10)?;
        let is_http = self.provider == ProviderKind::Http;
        let needed = self.url.is_some() && self.model.is_some();
        let given = self.url.is_some() || self.model.is_some() || !self.headers.is_empty();
        if is_http && !needed {
            bail!("key `score.embeddings`: provider = \"http\" needs `url` and `model`");
        }
        if !is_http && given {
            bail!(
                "key `score.embeddings`: `url`, `model` and `headers` are for provider = \"http\" only; remove them"
            );
        }
        Ok(())
    }
}

fn within<T: PartialOrd + std::fmt::Display>(
    key: &str,
    value: T,
    range: std::ops::RangeInclusive<T>,
) -> anyhow::Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    bail!("key `score.{key}` is {value}, expected {} to {}", range.start(), range.end())
}

fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_of_the_help_is_a_configuration() {
        let config = ScoreConfig::find(crate::TEMPLATE).expect("the template is read");
        assert_eq!((config.labels.len(), config.commands.len(), config.services.len()), (1, 1, 1));
        assert_eq!(config.judges[0].slice_by.as_deref(), Some("domain"));
        assert_eq!(config.limits.max_usd, Some(5.0));
    }

    #[test]
    fn other_tables_are_left_alone_and_none_is_needed() {
        assert!(ScoreConfig::find("agent = \"a\"").expect("TOML").judges.is_empty());
        assert!(ScoreConfig::find("a = ").expect_err("not TOML").to_string().contains("not TOML"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let refused = |text: &str| ScoreConfig::find(text).expect_err("refused").to_string();
        let typo = refused("[[score.judge]]\nname = \"j\"\nurl = \"u\"\nmodel = \"m\"\nrubrik = \"r\"");
        assert!(typo.contains("score.judge[0]") && typo.contains("rubrik"), "{typo}");
        let twice =
            "[[score.command]]\nname = \"c\"\nargv = [\"x\"]\n[[score.http]]\nname = \"c\"\nurl = \"u\"";
        assert!(refused(twice).contains("\"c\""));
        assert!(refused("[score.limits]\nconcurrency = 0").contains("limits.concurrency"));
        assert!(refused("[score.embeddings]\nprovider = \"http\"").contains("`url` and `model`"));
        assert!(refused("[score.embeddings]\nprovider = \"built-in\"\nmodel = \"m\"").contains("remove"));
        let words = "[[score.judge]]\nname = \"j\"\nurl = \"u\"\nmodel = \"m\"\nfail-word = \"pass\"";
        assert!(refused(words).contains("two words"));
        let empty = "[[score.command]]\nname = \"c\"\nargv = []";
        assert!(refused(empty).contains("argv"));
    }
}
