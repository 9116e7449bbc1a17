//! A store or a run: Parquet files that exist only through their commits, in a directory or an object store.
//!
//! A batch's files are written durably first; then its commit is created with a conditional put. Whoever is refused has
//! lost the partition and must stop. Readers go through commits, so a half-written batch is never seen.

use std::sync::Arc;

use crate::table::TableError;
use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload};
use schemas::FORMAT;
use schemas::trial::RunManifest;
use serde::de::DeserializeOwned;

use crate::keyring::KeyRing;
use crate::location;
use crate::range_read::Reads;

/// Name of the manifest of a run.
const MANIFEST: &str = "run.json";

/// Requests to the store that are under way at a time.
pub(crate) const CONCURRENT_REQUESTS: usize = 16;

/// A store that cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The location is not one.
    #[error("store location {location:?}: {detail}; give a directory, a file:// URL or s3://bucket/prefix")]
    Location {
        /// As given.
        location: String,
        /// What is wrong.
        detail: String,
    },
    /// The disk or object store said no.
    #[error("store {location}, object {path}: {source}")]
    Object {
        /// The store.
        location: String,
        /// The object.
        path: String,
        /// What was said.
        source: object_store::Error,
    },
    /// The bucket is not there.
    #[error("store {location}: there is no bucket {bucket}; create it, or correct the location")]
    NoBucket {
        /// The store.
        location: String,
        /// The bucket.
        bucket: String,
    },
    /// Nobody said who asks.
    #[error(
        "store {location}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where the machine has a role"
    )]
    NoCredentials {
        /// The store.
        location: String,
    },
    /// It may not be done with these credentials.
    #[error(
        "store {location}, object {path}: {detail}; check the credentials, and that they may list, get, put and delete there"
    )]
    Denied {
        /// The store.
        location: String,
        /// The object.
        path: String,
        /// What was said.
        detail: String,
    },
    /// A file that was there when the commits were read.
    #[error(
        "file {path} is gone: compaction, expiry or erasure replaced it, or it was lost; try again, and restore it from a copy if it stays so"
    )]
    FileReplaced {
        /// The file.
        path: String,
    },
    /// A file that is not what it should be.
    #[error("file {path}: {source}")]
    Table {
        /// The file.
        path: String,
        /// What is wrong.
        source: TableError,
    },
    /// A file shorter or longer than its commit says.
    #[error(
        "file {path} has {found} bytes, its commit says {expected}: it is truncated or was overwritten; restore it from a copy"
    )]
    Length {
        /// The file.
        path: String,
        /// What the commit says.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// A commit or manifest that cannot be read.
    #[error("{path} cannot be read: {detail}")]
    Metadata {
        /// The object.
        path: String,
        /// What is wrong.
        detail: String,
    },
    /// Another version.
    #[error(
        "{path} has format version {found}, this build reads version {FORMAT}; use the foreshadow that wrote it"
    )]
    Version {
        /// The object.
        path: String,
        /// Its version.
        found: u64,
    },
    /// Somebody else has committed from this position.
    #[error("position {first} of {commit_source} is already committed: another process has taken it over")]
    LostPartition {
        /// The source.
        commit_source: String,
        /// The position.
        first: u64,
    },
    /// The run is there already.
    #[error("{location} already holds a run")]
    ManifestExists {
        /// The run.
        location: String,
    },
}

/// A store or a run.
#[derive(Clone)]
pub struct Store {
    pub(crate) objects: Arc<dyn ObjectStore>,
    root: Path,
    pub(crate) location: String,
    pub(crate) keys: KeyRing,
    pub(crate) bucket: Option<Arc<str>>,
    pub(crate) reads: Reads,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("location", &self.location).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens a directory, which need not exist yet and is not made, or `s3://bucket/prefix`.
    ///
    /// # Errors
    /// The location is of a kind that this build cannot open.
    pub fn open(location: &str) -> Result<Self, StoreError> {
        let opened = location::open(location)?;
        Ok(Self {
            objects: opened.objects,
            root: opened.root,
            location: location.to_owned(),
            bucket: opened.bucket,
            keys: KeyRing::default(),
            reads: Reads::default(),
        })
    }

    /// Encrypts every file that is written for a tenant of the ring, and opens encrypted files with it.
    #[must_use]
    pub fn with_keys(mut self, keys: KeyRing) -> Self {
        self.keys = keys;
        self
    }

    /// The same folder in another object store: for tests that stop it at a chosen write.
    #[doc(hidden)]
    #[must_use]
    pub fn with_object_store(mut self, store: Arc<dyn ObjectStore>) -> Self {
        self.objects = store;
        self
    }

    /// The keys by which files are encrypted and opened.
    #[must_use]
    pub fn keys(&self) -> &KeyRing {
        &self.keys
    }

    /// The location as it was given.
    #[must_use]
    pub fn location(&self) -> &str {
        &self.location
    }

    pub(crate) fn path(&self, below: &str) -> Result<Path, StoreError> {
        let text =
            if self.root.as_ref().is_empty() { below.to_owned() } else { format!("{}/{below}", self.root) };
        Path::parse(text)
            .map_err(|error| StoreError::Metadata { path: below.to_owned(), detail: error.to_string() })
    }

    pub(crate) async fn get(&self, below: &str) -> Result<Option<Bytes>, StoreError> {
        match self.objects.get(&self.path(below)?).await {
            Ok(found) => {
                let bytes = found.bytes().await.map_err(self.object_error(below))?;
                self.reads.add(bytes.len() as u64);
                Ok(Some(bytes))
            }
            Err(error) => match self.object_error(below)(error) {
                StoreError::Object { source: object_store::Error::NotFound { .. }, .. } => Ok(None),
                error => Err(error),
            },
        }
    }

    /// Creates an object durably; says whether it was not there before.
    pub(crate) async fn create(&self, below: &str, bytes: Vec<u8>) -> Result<bool, StoreError> {
        let options = PutOptions::from(PutMode::Create);
        match self.objects.put_opts(&self.path(below)?, PutPayload::from(bytes), options).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(self.object_error(below)(error)),
        }
    }

    pub(crate) async fn list(&self, below: &str) -> Result<Vec<String>, StoreError> {
        let prefix = self.path(below)?;
        let skip = if self.root.as_ref().is_empty() { 0 } else { self.root.as_ref().len() + 1 };
        let found = self.objects.list(Some(&prefix)).map_ok(|meta| meta.location.as_ref()[skip..].to_owned());
        match found.try_collect::<Vec<_>>().await {
            Ok(mut paths) => {
                paths.sort();
                Ok(paths)
            }
            Err(error) => match self.object_error(below)(error) {
                StoreError::Object { source: object_store::Error::NotFound { .. }, .. } => Ok(Vec::new()),
                error => Err(error),
            },
        }
    }

    pub(crate) fn display_path(&self, path: &str) -> String {
        format!("{}/{path}", self.location.trim_end_matches('/'))
    }

    /// Reads the manifest of a run; `None` where it has none.
    ///
    /// # Errors
    /// It cannot be read or is of another version.
    pub async fn manifest(&self) -> Result<Option<RunManifest>, StoreError> {
        match self.get(MANIFEST).await? {
            Some(bytes) => parse_versioned(&self.display_path(MANIFEST), &bytes).map(Some),
            None => Ok(None),
        }
    }

    /// Creates the manifest of a run.
    ///
    /// # Errors
    /// [`StoreError::ManifestExists`] where one is there.
    pub async fn create_manifest(&self, manifest: &RunManifest) -> Result<(), StoreError> {
        let text = serde_json::to_vec_pretty(manifest)
            .map_err(|error| StoreError::Metadata { path: MANIFEST.to_owned(), detail: error.to_string() })?;
        if self.create(MANIFEST, text).await? {
            Ok(())
        } else {
            Err(StoreError::ManifestExists { location: self.location.clone() })
        }
    }
}

/// Parses JSON that carries `format`; another version is told apart from broken text.
pub(crate) fn parse_versioned<T: DeserializeOwned>(path: &str, bytes: &[u8]) -> Result<T, StoreError> {
    let broken =
        |error: serde_json::Error| StoreError::Metadata { path: path.to_owned(), detail: error.to_string() };
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(broken)?;
    match value.get("format").and_then(serde_json::Value::as_u64) {
        Some(found) if found != u64::from(FORMAT) => {
            Err(StoreError::Version { path: path.to_owned(), found })
        }
        Some(_) | None => serde_json::from_value(value).map_err(broken),
    }
}
