//! Data model: sessions, exchanges, trials, scores, embeddings, identifiers and keyed digests.
//!
//! Plain values with serde, so that the analyzer needs no Parquet. The crates below this folder add the encodings:
//! `codec` (journal and Kafka records), `store` (Parquet tables and commits), `envelope` (the policy engine). This crate
//! opens no file, reads no clock and uses no async runtime.

pub mod body;
pub mod canonical;
pub mod columns;
pub mod embedding;
pub mod equality;
pub mod exchange;
pub mod id;
pub mod json;
pub mod keys;
pub mod score;
pub mod secrets;
pub mod session;
pub mod tools;
pub mod trial;
pub mod variables;

/// The version of the storage format that this build writes, and the only one it reads.
///
/// Every Parquet file (metadata key `foreshadow.format`), commit and `run.json` carries it. A reader refuses another
/// version and names the build that wrote the file. Adding a table or a nullable column keeps the version, because readers
/// ignore columns that they do not know. Removing or renaming a column, or changing its meaning, increments it.
///
/// # Changelog
///
/// ## 2 (unreleased)
///
/// - Renamed columns: `template` and `chunk_offsets` of bodies, `location` of redactions, `stored_in` of chunks, `complete` of
///   trials, `priority` of scores; key `epoch` of commits.
/// - Removed, because nothing ever filled them: the column `envelope` of exchanges and one count of `fidelity`.
/// - Records: the variant `Chunk` has its present name. Digests of chunks use a new key derivation context.
///
/// ## 1 (never released)
///
/// - Tables `exchanges`, `chunks`, `sessions`, `trials`; commits; `run.json`.
/// - Added later: tables `scores` and `embeddings`.
pub const FORMAT: u32 = 2;
