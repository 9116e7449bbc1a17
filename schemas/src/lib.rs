//! The ground: values every stage agrees on, and how they lie in Parquet.
//!
//! A session recorded at a gateway, a trial of a replay, a piece of a body, a commit of the store: each is
//! defined here once, with its columns. This crate has no async runtime, opens no file, reads no clock and
//! speaks no protocol; what does is in `store`, `recorder`, `replayer` and the `foreshadow` binary.

pub mod body;
pub mod canonical;
pub mod embedding;
pub mod exchange;
pub mod id;
pub mod keys;
pub mod score;
pub mod session;
pub mod tools;
pub mod trial;
pub mod variables;

/// The version of the storage format that this build writes, and the only one it reads.
///
/// 1: tables `exchanges`, `chunks`, `sessions`, `trials`; commits; `run.json`. Later added, with no change to these: tables
/// `scores`, `embeddings`.
pub const FORMAT: u32 = 1;
