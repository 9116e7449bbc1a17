//! Checkpoints of the commit log, so that reading it costs the same however long it is.
//!
//! A checkpoint covers a prefix of the commits of each source. A reader reads the newest valid checkpoint and the commits
//! after it. All objects of a checkpoint are written once and never changed:
//!
//! - `_checkpoints/<sequence>.json`, the [`format::Root`]: last covered commit of each source. It is created last, with a
//!   conditional put, so checkpoints form one line in which each is based on the one before it.
//! - `_manifests/<sequence>-<tag>/folders`, the [`format::FolderTable`]: the manifest of each folder.
//! - `_manifests/<sequence>-<tag>/<n>.manifest`, a [`format::Manifest`]: the existing files of one folder. A later
//!   checkpoint writes anew only the manifests of folders that changed.
//! - `_manifests/<sequence>-<tag>/<n>.replaced`: the replaced files of one folder and their replacements.
//! - `_manifests/<sequence>-<tag>/<n>.chunks`, a [`segment`]: which file of the folder stores which chunk of which session.
//!
//! A checkpoint is an optimization. One that is damaged, half-written or deleted is skipped for an older one, and without
//! any the commits alone are read. Commits are never deleted, because conditional puts on their paths fence old writers.
//! The format follows delta tables (checkpoint plus tail of the log) and Iceberg (manifests per partition).

pub(crate) mod format;
pub(crate) mod read;
pub(crate) mod segment;
pub(crate) mod write;
