//! An object store in memory that stops or pauses at a chosen write, and yields to other tasks at each operation.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::Notify;

/// Effect of the operation at which the store stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The operation is not done.
    Before,
    /// The operation is done, and its answer is lost.
    After,
}

/// A pause at a put: the store reports that it is reached, and waits until it may go on.
#[derive(Debug, Default)]
pub(crate) struct Pause {
    /// Notified when the store reaches the put, before it is done.
    pub(crate) reached: Notify,
    /// Lets the put happen.
    pub(crate) resume: Notify,
}

/// The store. Clones of the inner one share what is stored.
#[derive(Debug)]
pub(crate) struct FaultyStore {
    inner: Arc<InMemory>,
    /// Writes left before the stop.
    left: Arc<AtomicI64>,
    stop: Stop,
    /// Puts left before the pause.
    puts_left: AtomicI64,
    pause: Option<Arc<Pause>>,
}

impl FaultyStore {
    /// A store that stops at its n-th write (put or delete), from 0.
    pub(crate) fn stopping(inner: &Arc<InMemory>, at: i64, stop: Stop) -> Self {
        let left = Arc::new(AtomicI64::new(at));
        Self { inner: Arc::clone(inner), left, stop, puts_left: AtomicI64::new(i64::MAX), pause: None }
    }

    /// A store that pauses at its n-th put, from 0, and never stops.
    pub(crate) fn pausing(inner: &Arc<InMemory>, at: i64, pause: &Arc<Pause>) -> Self {
        let puts_left = AtomicI64::new(at);
        Self { puts_left, pause: Some(Arc::clone(pause)), ..Self::lasting(inner) }
    }

    /// A store that never stops.
    pub(crate) fn lasting(inner: &Arc<InMemory>) -> Self {
        Self::stopping(inner, i64::MAX, Stop::Before)
    }

    /// The counter of writes left.
    pub(crate) fn left(&self) -> Arc<AtomicI64> {
        Arc::clone(&self.left)
    }

    fn alive(&self) -> Result<()> {
        if self.left.load(Ordering::SeqCst) < 0 { Err(dead()) } else { Ok(()) }
    }
}

fn dead() -> Error {
    Error::Generic { store: "faulty store", source: "the process was stopped here".into() }
}

/// Counts one write; returns whether the store stops at it.
fn take(left: &AtomicI64) -> Result<bool> {
    match left.fetch_sub(1, Ordering::SeqCst) {
        1.. => Ok(false),
        0 => Ok(true),
        _ => Err(dead()),
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty store")
    }
}

#[async_trait::async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        tokio::task::yield_now().await;
        let last = take(&self.left)?;
        if last && self.stop == Stop::Before {
            return Err(dead());
        }
        if let Some(pause) = &self.pause
            && self.puts_left.fetch_sub(1, Ordering::SeqCst) == 0
        {
            pause.reached.notify_one();
            pause.resume.notified().await;
        }
        let done = self.inner.put_opts(location, payload, opts).await;
        if last { Err(dead()) } else { done }
    }

    async fn put_multipart_opts(
        &self,
        _location: &Path,
        _opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(Error::NotImplemented {
            operation: "put_multipart_opts".into(),
            implementer: "faulty store".into(),
        })
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        tokio::task::yield_now().await;
        self.alive()?;
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.alive()?;
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (inner, left, stop) = (Arc::clone(&self.inner), Arc::clone(&self.left), self.stop);
        let delete = move |location: Result<Path>| {
            let (inner, left) = (Arc::clone(&inner), Arc::clone(&left));
            async move {
                let location = location?;
                let last = take(&left)?;
                if last && stop == Stop::Before {
                    return Err(dead());
                }
                let one = futures::stream::iter([Ok(location.clone())]).boxed();
                let done = inner.delete_stream(one).next().await.unwrap_or(Ok(location));
                if last { Err(dead()) } else { done }
            }
        };
        locations.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.alive() {
            Ok(()) => self.inner.list(prefix),
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
