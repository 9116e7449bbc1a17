//! Errors of opening, reading and writing a store.

use schemas::FORMAT;

use crate::table::TableError;

/// A store cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The location does not parse, or this build does not support its scheme.
    #[error("store location {location:?}: {detail}; give a directory, a file:// URL or s3://bucket/prefix")]
    Location {
        /// Location as given.
        location: String,
        /// Reason.
        detail: String,
    },
    /// The disk or the object store failed a request.
    #[error("store {location}, object {path}: {source}")]
    Object {
        /// Location of the store.
        location: String,
        /// Path of the object below it.
        path: String,
        /// Error of the disk or object store.
        source: object_store::Error,
    },
    /// The bucket does not exist.
    #[error("store {location}: there is no bucket {bucket}; create it, or correct the location")]
    NoBucket {
        /// Location of the store.
        location: String,
        /// Name of the bucket.
        bucket: String,
    },
    /// No credentials are configured.
    #[error(
        "store {location}: no credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run on a machine with a role"
    )]
    NoCredentials {
        /// Location of the store.
        location: String,
    },
    /// The object store refused the credentials.
    #[error(
        "store {location}, object {path}: {detail}; check the credentials and that they allow list, get, put and delete"
    )]
    Denied {
        /// Location of the store.
        location: String,
        /// Path of the object below it.
        path: String,
        /// Answer of the object store.
        detail: String,
    },
    /// Maintenance replaced a file after the snapshot was read. Reading again from a new snapshot succeeds.
    #[error(
        "file {path} no longer exists: compaction, expiry or erasure replaced it, or it was lost; try again, and restore it from a copy if the error persists"
    )]
    FileReplaced {
        /// Path of the file.
        path: String,
    },
    /// A commit was listed and then did not exist. Foreshadow never deletes commits.
    #[error(
        "commit {path} was listed but does not exist; something deleted it: restore it from a copy, or records are lost"
    )]
    CommitMissing {
        /// Path of the commit.
        path: String,
    },
    /// A data file is damaged, encrypted without a key, or of another version.
    #[error("file {path}: {source}")]
    Table {
        /// Path of the file.
        path: String,
        /// Reason.
        source: TableError,
    },
    /// The length of a file differs from its commit.
    #[error(
        "file {path} has {found} bytes, its commit says {expected}: it is truncated or was overwritten; restore it from a copy"
    )]
    Length {
        /// Path of the file.
        path: String,
        /// Length in the commit, bytes.
        expected: u64,
        /// Length found, bytes.
        found: u64,
    },
    /// A commit, manifest or file name cannot be parsed.
    #[error("{path} cannot be read: {detail}")]
    Metadata {
        /// Path of the object.
        path: String,
        /// Reason.
        detail: String,
    },
    /// An object has another format version.
    #[error(
        "{path} has format version {found}, this build reads version {FORMAT}; use the foreshadow that wrote it"
    )]
    Version {
        /// Path of the object.
        path: String,
        /// Version of the object.
        found: u64,
    },
    /// Another writer has the commit slot.
    #[error(
        "position {first} of {commit_source} is already committed: another process has claimed this source"
    )]
    LostPartition {
        /// Source of the commit.
        commit_source: String,
        /// Position of the slot.
        first: u64,
    },
    /// The run has a manifest already.
    #[error("{location} already contains a run")]
    ManifestExists {
        /// Location of the run.
        location: String,
    },
    /// A file would have more chunk rows than a 32-bit row number can count.
    #[error("{path} would have more than {} chunks; split the batch", u32::MAX)]
    TooManyChunks {
        /// Path of the file.
        path: String,
    },
}
