//! Scores the trials of a run: labels from a file, programs, HTTP services and language models judge each trial, and a
//! sentence model turns answers into vectors.
//!
//! The scores become rows of the run's `scores` and `embeddings` tables. `decision` reads them and decides which
//! evaluators count. A finished row is never computed again: after an interruption the same request continues.
//!
//! This crate reads no environment, prints nothing and has no clock of its own: the caller passes all three in.

mod budget;
mod config;
mod embeddings;
mod endpoint;
mod error;
mod evaluation;
mod evaluator;
mod grade;
mod judge;
mod labels;
mod program;
#[cfg(test)]
mod reference;
mod report;
mod request;
mod runner;
mod score_writer;
mod service;
mod trial_view;

pub use config::{
    CommandConfig, EmbeddingsConfig, HttpConfig, JudgeConfig, LabelsConfig, Limits, ProviderKind, Retry,
    ScoreConfig, Structured,
};
pub use error::ScoreError;
pub use report::{EmbeddingReport, EvaluatorReport, ScoreReport, StopReason};
pub use request::{ScoreProgress, ScoreRequest};
pub use service::score;

/// An example configuration that names every key of `[score]`.
pub const TEMPLATE: &str = include_str!("template.toml");
