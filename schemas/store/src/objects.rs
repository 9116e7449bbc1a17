//! Objects of a store or a run: get, conditional put, list and delete below its location.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload};
use schemas::FORMAT;
use schemas::trial::{ImportRecord, RunManifest};
use serde::de::DeserializeOwned;

use crate::commit::escape;
use crate::error::StoreError;
use crate::keyring::KeyRing;
use crate::location;

/// Path of the manifest of a run.
const MANIFEST: &str = "run.json";

/// Folder of the records of the imported files of a run.
const IMPORTS: &str = "_imports";

/// Requests to the object store in flight at a time.
pub(crate) const CONCURRENT_REQUESTS: usize = 16;

/// Bytes and requests read from a store since it was opened, summed over all clones of the [`Store`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct ReadStats {
    /// Bytes received.
    pub bytes: u64,
    /// Requests that received bytes.
    pub requests: u64,
}

/// The counters behind [`ReadStats`].
#[derive(Debug, Clone, Default)]
pub(crate) struct ReadCounters(Arc<(AtomicU64, AtomicU64)>);

impl ReadCounters {
    pub(crate) fn add(&self, bytes: u64) {
        self.0.0.fetch_add(bytes, Ordering::Relaxed);
        self.0.1.fetch_add(1, Ordering::Relaxed);
    }
}

/// A store of recorded sessions, or a run of trials, in a directory or an object store.
///
/// Clones share the connection and the read counters. [`crate`] describes the layout.
#[derive(Clone)]
pub struct Store {
    pub(crate) objects: Arc<dyn ObjectStore>,
    root: Path,
    pub(crate) location: String,
    pub(crate) keys: KeyRing,
    pub(crate) bucket: Option<Arc<str>>,
    pub(crate) reads: ReadCounters,
    /// Estimated number of commits after the newest checkpoint.
    pub(crate) uncovered: Arc<AtomicUsize>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("location", &self.location).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens a directory, a `file://` URL or `s3://bucket/prefix`. A directory need not exist: the first write creates it.
    ///
    /// # Errors
    /// [`StoreError::Location`] if the location does not parse or this build does not support its scheme.
    pub fn open(location: &str) -> Result<Self, StoreError> {
        let opened = location::open(location)?;
        Ok(Self {
            objects: opened.objects,
            root: opened.root,
            location: location.to_owned(),
            bucket: opened.bucket,
            keys: KeyRing::default(),
            reads: ReadCounters::default(),
            uncovered: Arc::default(),
        })
    }

    /// Sets the keys: files of a tenant in the ring are encrypted when written and decrypted when read.
    #[must_use]
    pub fn with_keys(mut self, keys: KeyRing) -> Self {
        self.keys = keys;
        self
    }

    /// Replaces the object store below the same root, so that a test can fail or count requests.
    #[doc(hidden)]
    #[must_use]
    pub fn with_object_store(mut self, objects: Arc<dyn ObjectStore>) -> Self {
        self.objects = objects;
        self
    }

    /// Returns the keys set by [`Self::with_keys`].
    #[must_use]
    pub fn keys(&self) -> &KeyRing {
        &self.keys
    }

    /// Returns the location as given to [`Self::open`].
    #[must_use]
    pub fn location(&self) -> &str {
        &self.location
    }

    /// Returns the bytes and requests read since the store was opened.
    #[must_use]
    pub fn read_stats(&self) -> ReadStats {
        let (bytes, requests) = &*self.reads.0;
        ReadStats { bytes: bytes.load(Ordering::Relaxed), requests: requests.load(Ordering::Relaxed) }
    }

    pub(crate) fn path(&self, below: &str) -> Result<Path, StoreError> {
        let text =
            if self.root.as_ref().is_empty() { below.to_owned() } else { format!("{}/{below}", self.root) };
        Path::parse(text)
            .map_err(|error| StoreError::Metadata { path: below.to_owned(), detail: error.to_string() })
    }

    /// Returns the path with the location before it, for error texts.
    pub(crate) fn display_path(&self, path: &str) -> String {
        format!("{}/{path}", self.location.trim_end_matches('/'))
    }

    /// Reads an object; `None` if there is none.
    pub(crate) async fn get(&self, below: &str) -> Result<Option<Bytes>, StoreError> {
        self.get_part(below, None).await
    }

    /// Reads a range of an object; `None` if there is no such object.
    pub(crate) async fn get_part(
        &self,
        below: &str,
        range: Option<GetRange>,
    ) -> Result<Option<Bytes>, StoreError> {
        let options = GetOptions { range, ..GetOptions::default() };
        match self.objects.get_opts(&self.path(below)?, options).await {
            Ok(found) => {
                let bytes = found.bytes().await.map_err(self.object_error(below))?;
                self.reads.add(bytes.len() as u64);
                Ok(Some(bytes))
            }
            Err(error) => self.absent_or(below, error, None),
        }
    }

    /// Reads a range of an object; `None` if there is no such object.
    pub(crate) async fn get_range(
        &self,
        below: &str,
        range: Range<u64>,
    ) -> Result<Option<Bytes>, StoreError> {
        self.get_part(below, Some(GetRange::Bounded(range))).await
    }

    /// Creates an object durably; returns `false` if it existed before.
    pub(crate) async fn create(&self, below: &str, bytes: Vec<u8>) -> Result<bool, StoreError> {
        let options = PutOptions::from(PutMode::Create);
        match self.objects.put_opts(&self.path(below)?, PutPayload::from(bytes), options).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(self.object_error(below)(error)),
        }
    }

    /// Lists all objects below a folder, sorted by path.
    pub(crate) async fn list(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        let found = self.objects.list(Some(&self.path(folder)?));
        self.collect_paths(folder, found).await
    }

    /// Lists the objects below a folder whose path sorts after `offset`, sorted by path.
    pub(crate) async fn list_after(&self, folder: &str, offset: &str) -> Result<Vec<String>, StoreError> {
        let found = self.objects.list_with_offset(Some(&self.path(folder)?), &self.path(offset)?);
        self.collect_paths(folder, found).await
    }

    async fn collect_paths(
        &self,
        folder: &str,
        found: futures::stream::BoxStream<'static, object_store::Result<object_store::ObjectMeta>>,
    ) -> Result<Vec<String>, StoreError> {
        let skip = if self.root.as_ref().is_empty() { 0 } else { self.root.as_ref().len() + 1 };
        let found = found.map_ok(|meta| meta.location.as_ref()[skip..].to_owned());
        match found.try_collect::<Vec<_>>().await {
            Ok(mut paths) => {
                paths.sort();
                Ok(paths)
            }
            Err(error) => self.absent_or(folder, error, Vec::new()),
        }
    }

    /// Lists the names of the folders directly below a folder, sorted.
    pub(crate) async fn list_folders(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        match self.objects.list_with_delimiter(Some(&self.path(folder)?)).await {
            Ok(found) => {
                let name = |path: &Path| path.as_ref().rsplit('/').next().unwrap_or_default().to_owned();
                let mut names: Vec<String> = found.common_prefixes.iter().map(name).collect();
                names.sort();
                Ok(names)
            }
            Err(error) => self.absent_or(folder, error, Vec::new()),
        }
    }

    /// Deletes an object; returns whether it existed. A writer that claimed the source may have deleted it first.
    pub(crate) async fn delete(&self, below: &str) -> Result<bool, StoreError> {
        match self.objects.delete(&self.path(below)?).await {
            Ok(()) => Ok(true),
            Err(error) => self.absent_or(below, error, false),
        }
    }

    /// Deletes objects, several at a time; returns how many existed.
    pub(crate) async fn delete_all(
        &self,
        paths: impl IntoIterator<Item = &String>,
    ) -> Result<u64, StoreError> {
        let deletes: Vec<_> = paths.into_iter().map(|path| self.delete(path)).collect();
        let done = futures::stream::iter(deletes).buffer_unordered(CONCURRENT_REQUESTS);
        done.try_fold(0, async |sum, existed| Ok(sum + u64::from(existed))).await
    }

    /// Returns a function that explains the failure of a request for this path.
    pub(crate) fn object_error(&self, path: &str) -> impl FnOnce(object_store::Error) -> StoreError + use<> {
        let (location, path, bucket) = (self.location.clone(), path.to_owned(), self.bucket.clone());
        move |source| location::explain(location, path, bucket.as_deref(), source)
    }

    /// Turns "not found" into `absent`, and any other failure into an error.
    fn absent_or<T>(&self, below: &str, error: object_store::Error, absent: T) -> Result<T, StoreError> {
        match self.object_error(below)(error) {
            StoreError::Object { source: object_store::Error::NotFound { .. }, .. } => Ok(absent),
            error => Err(error),
        }
    }

    /// Reads the manifest of a run; `None` if there is none.
    ///
    /// # Errors
    /// The manifest cannot be read or parsed, or has another format version.
    pub async fn manifest(&self) -> Result<Option<RunManifest>, StoreError> {
        match self.get(MANIFEST).await? {
            Some(bytes) => parse_versioned(&self.display_path(MANIFEST), &bytes).map(Some),
            None => Ok(None),
        }
    }

    /// Creates the manifest of a run.
    ///
    /// # Errors
    /// [`StoreError::ManifestExists`] if the run has a manifest; else the disk or object store failed.
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

impl Store {
    /// Writes the record of an imported file of a run. An earlier record of the same commit is replaced: its import ended
    /// before the commit.
    ///
    /// # Errors
    /// The disk or object store failed.
    pub async fn put_import_record(&self, commit: &str, record: &ImportRecord) -> Result<(), StoreError> {
        let path = format!("{IMPORTS}/{}.json", escape(commit));
        let text = serde_json::to_vec_pretty(record)
            .map_err(|error| StoreError::Metadata { path: path.clone(), detail: error.to_string() })?;
        let written = self.objects.put(&self.path(&path)?, PutPayload::from(text)).await;
        written.map(drop).map_err(self.object_error(&path))
    }

    /// Reads the records of the imported files of a run, sorted by commit; empty for a replayed run.
    ///
    /// # Errors
    /// A record cannot be read or parsed, or has another format version.
    pub async fn import_records(&self) -> Result<Vec<ImportRecord>, StoreError> {
        let mut records = Vec::new();
        for path in self.list(IMPORTS).await? {
            if let Some(bytes) = self.get(&path).await? {
                records.push(parse_versioned(&self.display_path(&path), &bytes)?);
            }
        }
        Ok(records)
    }
}

/// Parses JSON that has a `format` field. Another version is an error of its own, before any other field is parsed.
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
