//! An object store in memory that counts requests and bytes, and can hide objects from reads.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// Objects that S3 lists in one request.
const PAGE: usize = 1000;

/// Approximate bytes of one object in the answer of a listing.
const LISTED_BYTES: u64 = 300;

/// Requests and bytes since [`CountingStore::start`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    pub(crate) requests: u64,
    pub(crate) bytes: u64,
}

#[derive(Debug, Default)]
struct State {
    cost: Cost,
    /// Requests by kind and first folder of the path.
    by_kind: BTreeMap<String, u64>,
    hidden: BTreeSet<String>,
}

/// The store. Clones share everything.
#[derive(Debug, Clone)]
pub(crate) struct CountingStore {
    pub(crate) inner: Arc<InMemory>,
    state: Arc<Mutex<State>>,
}

impl CountingStore {
    pub(crate) fn new(inner: &Arc<InMemory>) -> Self {
        Self { inner: Arc::clone(inner), state: Arc::default() }
    }

    /// Starts counting at zero.
    pub(crate) fn start(&self) {
        let mut state = self.lock();
        state.cost = Cost::default();
        state.by_kind.clear();
    }

    pub(crate) fn cost(&self) -> Cost {
        self.lock().cost
    }

    /// Returns the requests of a kind (`get`, `put`, `list`, `delete`) below a top folder.
    pub(crate) fn requests(&self, kind: &str, folder: &str) -> u64 {
        self.lock().by_kind.get(&format!("{kind} {folder}")).copied().unwrap_or(0)
    }

    /// Returns all requests by kind and top folder.
    pub(crate) fn by_kind(&self) -> BTreeMap<String, u64> {
        self.lock().by_kind.clone()
    }

    /// Lets reads of an object fail with "not found", while listings still show it.
    pub(crate) fn hide(&self, path: &str) {
        self.lock().hidden.insert(path.to_owned());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no test panicked with the lock")
    }

    fn count(&self, kind: &str, path: &Path, requests: u64, bytes: u64) {
        let mut state = self.lock();
        state.cost.requests += requests;
        state.cost.bytes += bytes;
        let folder = path.as_ref().split('/').nth(1).unwrap_or_default();
        *state.by_kind.entry(format!("{kind} {folder}")).or_default() += requests;
    }

    fn count_listing(
        &self,
        prefix: Option<&Path>,
        found: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let prefix = prefix.cloned().unwrap_or_default();
        self.count("list", &prefix, 1, 0);
        let counting = self.clone();
        let count = move |(at, item)| {
            counting.count("list", &prefix, u64::from(at > 0 && at % PAGE == 0), LISTED_BYTES);
            item
        };
        found.enumerate().map(count).boxed()
    }
}

impl fmt::Display for CountingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("counting store")
    }
}

#[async_trait::async_trait]
impl ObjectStore for CountingStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        tokio::task::yield_now().await;
        self.count("put", location, 1, payload.content_length() as u64);
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        _location: &Path,
        _opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(Error::NotImplemented {
            operation: "put_multipart_opts".into(),
            implementer: "counting store".into(),
        })
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        tokio::task::yield_now().await;
        if self.lock().hidden.contains(location.as_ref()) {
            self.count("get", location, 1, 0);
            return Err(Error::NotFound { path: location.to_string(), source: "hidden".into() });
        }
        let found = self.inner.get_opts(location, options).await;
        let bytes = found.as_ref().map_or(0, |found| found.range.end - found.range.start);
        self.count("get", location, 1, bytes);
        found
    }

    async fn get_ranges(&self, _location: &Path, _ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        Err(Error::NotImplemented { operation: "get_ranges".into(), implementer: "counting store".into() })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let counting = self.clone();
        let counted = locations.inspect(move |location| {
            if let Ok(location) = location {
                counting.count("delete", location, 1, 0);
            }
        });
        self.inner.delete_stream(counted.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.count_listing(prefix, self.inner.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.count_listing(prefix, self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let found = self.inner.list_with_delimiter(prefix).await?;
        let entries = found.objects.len() + found.common_prefixes.len();
        let bytes = entries as u64 * LISTED_BYTES;
        self.count("list", prefix.unwrap_or(&Path::default()), (entries / PAGE + 1) as u64, bytes);
        Ok(found)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
