//! The `[score]` table: evaluators, embeddings and limits.
//!
//! [`ScoreConfig::find`] parses and checks the complete table. It opens no file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{anyhow, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The `[score]` table: evaluators of trials, embeddings of answers, limits.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ScoreConfig {
    /// Limits of one invocation.
    #[serde(default)]
    pub limits: Limits,
    /// Files with labels by people.
    #[serde(rename = "labels", default)]
    pub labels: Vec<LabelsConfig>,
    /// Programs that score trials.
    #[serde(rename = "command", default)]
    pub commands: Vec<CommandConfig>,
    /// HTTP services that score trials.
    #[serde(rename = "http", default)]
    pub services: Vec<HttpConfig>,
    /// Language models that score trials.
    #[serde(rename = "judge", default)]
    pub judges: Vec<JudgeConfig>,
    /// Embeddings of answers; without the table, by the built-in sentence model.
    pub embeddings: Option<EmbeddingsConfig>,
}

/// `[score.limits]`. Limits on tokens and dollars count all invocations on the run, as its `scores` table lists them.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Limits {
    /// Evaluations at the same time, all evaluators together, 1 to 256.
    pub concurrency: usize,
    /// Requests and program starts of one invocation, including failed attempts.
    pub max_requests: Option<u64>,
    /// Tokens that judges read and wrote, all invocations together.
    pub max_tokens: Option<u64>,
    /// US dollars by the prices of the judges, all invocations together.
    pub max_usd: Option<f64>,
    /// Errors in a row after which an evaluator is skipped for the rest of the invocation, 1 to 1000000.
    pub max_consecutive_errors: u32,
    /// Share of trials without a score above which the command fails, 0 to 1.
    pub max_error_share: f64,
    /// Longest time between a finished score and its commit; a killed process loses at most the scores of this time.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
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

/// `[[score.labels]]`: a CSV file with the columns `case`, `trial`, `success` and optionally `lane` and `reason`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LabelsConfig {
    /// Name in tables and reports: 1 to 64 letters, digits, `-`, `_` or `.`.
    pub name: String,
    /// Path of the CSV file, relative to the configuration file.
    pub file: PathBuf,
}

/// `[[score.command]]`: a program that reads one trial as JSON on stdin and prints its grade as JSON on stdout.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CommandConfig {
    /// Name in tables and reports: 1 to 64 letters, digits, `-`, `_` or `.`.
    pub name: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Additional environment variables; `${NAME}` is replaced by a variable of this process.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Environment variables that the program inherits.
    #[serde(default = "default_inherit_env")]
    pub inherit_env: Vec<String>,
    /// Working directory, relative to the configuration file; without it, the folder of the configuration file.
    pub working_dir: Option<PathBuf>,
    /// Time limit for one trial.
    #[serde(default = "one_minute", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub timeout: Duration,
    /// Score from which a trial is a success if the program prints no `success`, 0 to 1.
    #[serde(default = "default_threshold")]
    pub threshold: f64,
    /// Counts only where the program is measured to agree with labels, like a judge.
    #[serde(default)]
    pub is_judge: bool,
    /// Slice in whose values the agreement with labels is measured; without it, over all trials.
    pub slice_by: Option<String>,
    /// Part of the digest; change it if the program scores differently for a reason that no other key shows.
    pub version: Option<String>,
}

/// Variables that a program needs to start; none of them is a secret.
fn default_inherit_env() -> Vec<String> {
    ["PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "USER"].map(str::to_owned).to_vec()
}

fn one_minute() -> Duration {
    Duration::from_secs(60)
}

fn default_threshold() -> f64 {
    0.5
}

/// Retries of a request after no response, 408, 429 or 5xx.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Retry {
    /// Number of retries, 0 to 10.
    pub times: u32,
    /// Pause before the first retry; each further pause is twice as long, up to one minute. A `retry-after` header replaces
    /// the pause.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub pause: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { times: 3, pause: Duration::from_millis(500) }
    }
}

/// `[[score.http]]`: a service that gets one trial as JSON by POST and returns its grade as JSON.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct HttpConfig {
    /// Name in tables and reports: 1 to 64 letters, digits, `-`, `_` or `.`.
    pub name: String,
    /// URL of the service, `http://` or `https://`.
    pub url: String,
    /// Request headers; `${NAME}` is replaced by an environment variable.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Time limit of one request.
    #[serde(default = "one_minute", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub timeout: Duration,
    /// Retries.
    #[serde(default)]
    pub retry: Retry,
    /// Score from which a trial is a success if the response has no `success`, 0 to 1.
    #[serde(default = "default_threshold")]
    pub threshold: f64,
    /// Counts only where the service is measured to agree with labels, like a judge.
    #[serde(default)]
    pub is_judge: bool,
    /// Slice in whose values the agreement with labels is measured; without it, over all trials.
    pub slice_by: Option<String>,
    /// Part of the digest; change it if the service scores differently for a reason that no other key shows.
    pub version: Option<String>,
}

/// Form in which the request to a judge demands the two words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Structured {
    /// `response_format` with the JSON Schema of the answer.
    #[default]
    JsonSchema,
    /// `response_format` that demands any JSON object.
    JsonObject,
    /// The prompt alone.
    None,
}

/// `[[score.judge]]`: a language model behind an OpenAI-compatible chat endpoint, at temperature 0.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct JudgeConfig {
    /// Name in tables and reports: 1 to 64 letters, digits, `-`, `_` or `.`.
    pub name: String,
    /// Base URL of the endpoint, such as `https://host/v1`; `/chat/completions` is appended.
    pub url: String,
    /// Model name.
    pub model: String,
    /// Request headers; `${NAME}` is replaced by an environment variable: `authorization = "Bearer ${JUDGE_KEY}"`.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Conditions for a pass; part of the default prompt.
    #[serde(default)]
    pub rubric: String,
    /// System message (minijinja template); without it, the default message.
    pub system: Option<String>,
    /// User message (minijinja template), must contain `{{ transcript }}`; without it, the default message.
    pub prompt: Option<String>,
    /// Word for a success: letters, digits, `-`, `_` or `.`.
    #[serde(default = "default_pass_word")]
    pub pass_word: String,
    /// Word for a failure: letters, digits, `-`, `_` or `.`.
    #[serde(default = "default_fail_word")]
    pub fail_word: String,
    /// Form in which the request demands the two words.
    #[serde(default)]
    pub structured: Structured,
    /// Longest answer, tokens, 16 to 100000.
    #[serde(default = "default_answer_tokens")]
    pub max_answer_tokens: u32,
    /// Field of the request that limits the answer; some models need `max_completion_tokens`.
    #[serde(default = "default_token_limit_key")]
    pub token_limit_key: String,
    /// Longest transcript, bytes, 1000 to 10000000; the middle of a longer one is left out.
    #[serde(default = "default_transcript_bytes")]
    pub max_transcript_bytes: usize,
    /// Slice in whose values the agreement with labels is measured, such as `domain`; without it, over all trials.
    pub slice_by: Option<String>,
    /// Time limit of one request.
    #[serde(default = "one_minute", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub timeout: Duration,
    /// Retries.
    #[serde(default)]
    pub retry: Retry,
    /// Price of one million prompt tokens, US dollars.
    #[serde(default)]
    pub input_usd_per_million: f64,
    /// Price of one million answer tokens, US dollars.
    #[serde(default)]
    pub output_usd_per_million: f64,
    /// Part of the digest; change it if the judge scores differently for a reason that no other key shows.
    pub version: Option<String>,
}

fn default_pass_word() -> String {
    "pass".to_owned()
}

fn default_fail_word() -> String {
    "fail".to_owned()
}

fn default_answer_tokens() -> u32 {
    400
}

fn default_token_limit_key() -> String {
    "max_tokens".to_owned()
}

fn default_transcript_bytes() -> usize {
    64 << 10
}

/// Provider of embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProviderKind {
    /// The sentence model in the binary.
    BuiltIn,
    /// An OpenAI-compatible `/embeddings` endpoint.
    Http,
    /// No embeddings.
    Off,
}

/// `[score.embeddings]`: embeddings of the answers.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct EmbeddingsConfig {
    /// Provider of the embeddings.
    pub provider: ProviderKind,
    /// `http` only, required: base URL of the endpoint, such as `https://host/v1`; `/embeddings` is appended.
    pub url: Option<String>,
    /// `http` only, required: model name.
    pub model: Option<String>,
    /// `http` only: request headers; `${NAME}` is replaced by an environment variable.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// `http` only: texts in one request, 1 to 2048.
    #[serde(default = "default_batch")]
    pub batch: usize,
    /// `http` only: longest text, bytes, 100 to 10000000; a longer text is truncated, and the report counts it.
    #[serde(default = "default_text_bytes")]
    pub max_text_bytes: usize,
    /// `http` only: time limit of one request.
    #[serde(default = "one_minute", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub timeout: Duration,
    /// `http` only: retries.
    #[serde(default)]
    pub retry: Retry,
}

fn default_batch() -> usize {
    64
}

fn default_text_bytes() -> usize {
    24 << 10
}

impl ScoreConfig {
    /// Parses the `[score]` table of a configuration and ignores the rest; without the table, returns the defaults.
    ///
    /// # Errors
    /// The text is not TOML, or a key of the table is unknown, missing or out of range; the error names the key.
    pub fn find(text: &str) -> anyhow::Result<Self> {
        let mut file: toml::Table =
            toml::from_str(text).map_err(|error| anyhow!("not TOML: {}", error.message()))?;
        let Some(table) = file.remove("score") else { return Ok(Self::default()) };
        let config: Self = serde_path_to_error::deserialize(table).map_err(|error| {
            let detail = error.inner().message().trim().replace('\n', "; ");
            anyhow!("key `score.{}`: {detail}; correct it and repeat the command", error.path())
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
                bail!("key `score`: two evaluators have the name {:?}; rename one", pair[0]);
            }
        }
        if let Some(name) = names.iter().find(|name| !is_name(name)) {
            bail!(
                "key `score`: an evaluator has the name {name:?}; use 1 to 64 letters, digits, `-`, `_` or `.`"
            );
        }
        let limits = &self.limits;
        within("limits.concurrency", limits.concurrency, 1..=256)?;
        within("limits.max-consecutive-errors", limits.max_consecutive_errors, 1..=1_000_000)?;
        within("limits.max-error-share", limits.max_error_share, 0.0..=1.0)?;
        for one in &self.commands {
            within(&format!("command {}: threshold", one.name), one.threshold, 0.0..=1.0)?;
            if one.argv.is_empty() {
                bail!("key `score.command {}: argv` is empty; list the program and its arguments", one.name);
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
                "key `score.judge {}`: pass-word and fail-word must be two different words of letters, digits, `-`, `_` or `.`",
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
                "key `score.embeddings`: `url`, `model` and `headers` belong to provider = \"http\" only; remove them"
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
    fn the_template_is_a_valid_configuration() {
        let config = ScoreConfig::find(crate::TEMPLATE).expect("the template parses");
        assert_eq!((config.labels.len(), config.commands.len(), config.services.len()), (1, 1, 1));
        assert_eq!(config.judges[0].slice_by.as_deref(), Some("domain"));
        assert_eq!(config.limits.max_usd, Some(5.0));
    }

    #[test]
    fn other_tables_are_ignored_and_the_table_is_optional() {
        assert!(ScoreConfig::find("agent = \"a\"").expect("TOML").judges.is_empty());
        assert!(ScoreConfig::find("a = ").expect_err("not TOML").to_string().contains("not TOML"));
    }

    #[test]
    fn an_error_names_the_key() {
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
        assert!(refused(words).contains("two different words"));
        let empty = "[[score.command]]\nname = \"c\"\nargv = []";
        assert!(refused(empty).contains("argv"));
    }

    #[test]
    fn the_schema_has_descriptions_and_defaults() {
        let schema = serde_json::to_value(schemars::schema_for!(ScoreConfig)).expect("JSON");
        let limits = &schema["$defs"]["Limits"]["properties"];
        assert_eq!(limits["concurrency"]["default"], 8);
        assert_eq!(limits["commit-every"]["default"], "5s");
        assert!(limits["max-usd"]["description"].as_str().is_some_and(|text| text.starts_with("US dollars")));
        let judge = &schema["$defs"]["JudgeConfig"];
        assert_eq!(judge["properties"]["timeout"]["default"], "1m");
        assert_eq!(judge["required"], serde_json::json!(["name", "url", "model"]));
    }
}
