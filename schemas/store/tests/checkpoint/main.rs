//! Checkpoints of the commit log: what they save, and what readers see when they are damaged, late or made twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use counting_store::{Cost, CountingStore};
use futures::TryStreamExt as _;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore as _, ObjectStoreExt as _};
use sample::{Session, calls, id, open_store};
use store::maintenance::{CompactOptions, Erasure};
use store::table::Table;
use store::{Batch, ChunkIndex, Claim, Snapshot, Store, StoreError};

mod counting_store;
mod sample;

/// Batches with files in a long log, at most; the other commits have none, so that the tests are fast.
const MAX_BATCHES: u64 = 100;

/// Commits from one batch with files to the next, at least.
const FILES_EVERY: u64 = 25;

/// Days over which the sessions of a log are spread.
const DAYS: u64 = 4;

/// Commits after the last checkpoint when the cost is measured.
const TAIL: u64 = 20;

/// Commits whose cost is measured together: one of them makes the next checkpoint.
const CYCLE: u64 = 64;

fn in_memory() -> (Arc<InMemory>, CountingStore, Store) {
    let inner = Arc::new(InMemory::new());
    let counting = CountingStore::new(&inner);
    let store = open_store(Arc::new(counting.clone()));
    (inner, counting, store)
}

/// Commits one batch of one position under a claim.
async fn commit(store: &Store, claim: &mut Claim, batch: Batch, index: &mut ChunkIndex) {
    let next = claim.position() + 1;
    let journals = BTreeMap::from([("j".to_owned(), next)]);
    store.commit_claimed(claim, next, journals, batch, index).await.expect("commits");
}

/// Commits the next model call of each session, `count` times.
async fn commit_calls(store: &Store, claim: &mut Claim, sessions: &mut [Session], count: u64) {
    let mut index = ChunkIndex::default();
    for _ in 0..count {
        commit(store, claim, calls(sessions), &mut index).await;
    }
}

/// Commits `count` times, and at every eighth time the next model call of each session. Returns the calls of a session.
async fn commit_some_calls(store: &Store, claim: &mut Claim, sessions: &mut [Session], count: u64) -> u32 {
    let mut index = ChunkIndex::default();
    let mut made = 0;
    for n in 0..count {
        let has_calls = n % 8 == 0;
        let batch = if has_calls { calls(sessions) } else { Batch::default() };
        commit(store, claim, batch, &mut index).await;
        made += u32::from(has_calls);
    }
    made
}

fn paths(snapshot: &Snapshot) -> BTreeSet<String> {
    snapshot.all_files().map(|file| file.path.clone()).collect()
}

/// All objects of a store, by path below its root.
async fn objects(inner: &InMemory, folder: &str) -> Vec<String> {
    let found: Vec<_> = inner
        .list(Some(&Path::from(format!("{}/{folder}", root(inner).await))))
        .try_collect()
        .await
        .expect("lists");
    found.iter().map(|meta| meta.location.to_string()).collect()
}

/// The root of the store: the location is a relative folder.
async fn root(inner: &InMemory) -> String {
    let first = inner.list(None).try_next().await.expect("lists").expect("has an object");
    let path = first.location.to_string();
    let end = path.find("/_").expect("a folder of the store");
    path[..end].to_owned()
}

/// Checks that a session is complete and its bodies are those that were sent.
async fn assert_complete(store: &Store, session: &Session, model_calls: u32) {
    let snapshot = store.snapshot().await.expect("reads");
    let wanted = BTreeSet::from([session.id.clone()]);
    let read = store.load_sessions(&snapshot, Some(&wanted)).await.expect("reads");
    assert_eq!(read.len(), 1, "{}", session.id);
    assert_eq!(read[0].exchanges.len(), model_calls as usize, "{}", session.id);
    for (seq, exchange) in (0..).zip(&read[0].exchanges) {
        let body = read[0].body(&exchange.request);
        assert_eq!(body.expect("all chunks are found"), session.request(seq), "{} {seq}", session.id);
    }
}

/// A log of many commits, compacted, with a short tail.
async fn long_log(commits: u64) -> (Arc<InMemory>, CountingStore, Store) {
    let (inner, counting, store) = in_memory();
    let mut claim = store.claim("t-0").await.expect("claims");
    let mut index = ChunkIndex::default();
    let every = FILES_EVERY.max(commits / MAX_BATCHES);
    for n in 0..commits {
        let mut batch = Batch::default();
        if n % every == 0 {
            let day = i64::try_from(n / every % DAYS).expect("small");
            let mut session = Session::new(&format!("s-{n}"), day);
            session.call(&mut batch);
            session.close(&mut batch);
        }
        commit(&store, &mut claim, batch, &mut index).await;
    }
    let target_bytes = 1 << 30;
    store.compact(CompactOptions { target_bytes }).await.expect("compacts");
    // The same sessions in logs of all lengths: the work that is measured must not differ otherwise.
    let mut open = [Session::new("open", 0)];
    for _ in 0..TAIL {
        commit(&store, &mut claim, calls(&mut open), &mut index).await;
    }
    (inner, counting, store)
}

/// Costs of the operations on a store, by name.
async fn costs(counting: &CountingStore, inner: &Arc<InMemory>) -> BTreeMap<&'static str, Cost> {
    let mut costs = BTreeMap::new();
    let fresh = || open_store(Arc::new(counting.clone()));
    counting.start();
    let snapshot = fresh().snapshot().await.expect("reads");
    costs.insert("open", counting.cost());
    assert!(snapshot.files(Table::Exchanges).count() >= 4);

    counting.start();
    let store = fresh();
    let mut claim = store.claim("t-0").await.expect("claims");
    costs.insert("claim", counting.cost());

    // The writer was restarted: it does not know the files of the session's chunks.
    let mut open = [Session::new("open", 0)];
    let mut skipped = Batch::default();
    (0..TAIL).for_each(|_| open[0].call(&mut skipped));
    let mut index = ChunkIndex::default();
    counting.start();
    commit(&store, &mut claim, calls(&mut open), &mut index).await;
    costs.insert("commit with unknown chunks", counting.cost());
    for table in ["exchanges", "chunks", "sessions"] {
        assert_eq!(counting.requests("get", table), 0, "{:?}", counting.by_kind());
    }
    assert_complete(&fresh(), &open[0], u32::try_from(TAIL).expect("small") + 1).await;

    let mut others = [Session::new("other", 1)];
    let before = objects(inner, "_checkpoints").await;
    counting.start();
    for _ in 0..CYCLE {
        commit(&store, &mut claim, calls(&mut others), &mut index).await;
    }
    costs.insert("64 commits with a checkpoint", counting.cost());
    assert_ne!(objects(inner, "_checkpoints").await, before, "one of the commits made a checkpoint");
    costs
}

async fn assert_cost_does_not_grow(short: u64, long: u64) {
    let (inner, counting, _) = long_log(short).await;
    let expected = costs(&counting, &inner).await;
    let (inner, counting, _) = long_log(long).await;
    let found = costs(&counting, &inner).await;
    for (operation, found) in &found {
        let expected = expected[operation];
        let text = format!("{operation}: {expected:?} after {short} commits, {found:?} after {long}");
        assert!(found.requests <= 2 * expected.requests, "{text}");
        assert!(found.bytes <= 2 * expected.bytes, "{text}");
    }
}

#[tokio::test]
async fn opening_claiming_and_committing_cost_the_same_after_100_and_10_000_commits() {
    assert_cost_does_not_grow(100, 10_000).await;
}

#[tokio::test]
#[ignore = "takes minutes: cargo test --release -p store --test checkpoint -- --ignored 100_000"]
async fn opening_claiming_and_committing_cost_the_same_after_100_and_100_000_commits() {
    assert_cost_does_not_grow(100, 100_000).await;
}

#[tokio::test]
async fn a_snapshot_has_the_same_files_with_and_without_its_checkpoints() {
    let (inner, _, store) = in_memory();
    let mut sessions = [Session::new("a", 0), Session::new("b", 1)];
    for source in ["t-0", "t-1"] {
        let mut claim = store.claim(source).await.expect("claims");
        commit_calls(&store, &mut claim, &mut sessions, 100).await;
    }
    let checkpoints = objects(&inner, "_checkpoints").await;
    assert!(checkpoints.len() > 1, "{checkpoints:?}");
    let with = store.snapshot().await.expect("reads");
    let ordered: Vec<String> = with.all_files().map(|file| file.path.clone()).collect();
    for path in checkpoints {
        inner.delete(&Path::from(path)).await.expect("deletes");
    }
    let without = store.snapshot().await.expect("reads");
    let expected: Vec<String> = without.all_files().map(|file| file.path.clone()).collect();
    assert_eq!(ordered, expected, "in commit order");
    assert_eq!(with.sources().collect::<Vec<_>>(), without.sources().collect::<Vec<_>>());
    assert_eq!(store.resume_position("t-0").await.expect("reads"), 100);
}

/// Damages that a checkpoint's object can have.
#[derive(Debug, Clone, Copy)]
enum Damage {
    Deleted,
    HalfWritten,
    ByteChanged,
}

async fn damage(inner: &InMemory, path: &Path, damage: Damage) {
    let bytes = inner.get(path).await.expect("exists").bytes().await.expect("reads");
    let mut bytes = bytes.to_vec();
    match damage {
        Damage::Deleted => return inner.delete(path).await.expect("deletes"),
        Damage::HalfWritten => bytes.truncate(bytes.len() / 2),
        Damage::ByteChanged => {
            // The root is small text: a changed byte must break it.
            let at = if path.as_ref().ends_with(".json") { 0 } else { bytes.len() / 2 };
            bytes[at] ^= 0x55;
        }
    }
    inner.put(path, bytes.into()).await.expect("puts");
}

/// A copy of all objects.
async fn copy(inner: &InMemory) -> Arc<InMemory> {
    let copy = InMemory::new();
    let found: Vec<_> = inner.list(None).try_collect().await.expect("lists");
    for meta in found {
        let bytes = inner.get(&meta.location).await.expect("exists").bytes().await.expect("reads");
        copy.put(&meta.location, bytes.into()).await.expect("puts");
    }
    Arc::new(copy)
}

#[tokio::test]
async fn a_damaged_checkpoint_falls_back_to_an_older_one_or_the_commits() {
    const COMMITS: u64 = 200;
    let (original, _, store) = in_memory();
    let mut sessions = [Session::new("a", 0), Session::new("b", 1)];
    let mut claim = store.claim("t-0").await.expect("claims");
    let calls = commit_some_calls(&store, &mut claim, &mut sessions, COMMITS).await;
    let expected = paths(&store.snapshot().await.expect("reads"));
    let roots = objects(&original, "_checkpoints").await;
    assert_eq!(roots.len(), 3);
    // The newest root; each other object of all checkpoints; all roots.
    let mut targets: Vec<Vec<String>> = vec![vec![roots[2].clone()]];
    targets.extend(objects(&original, "_manifests").await.into_iter().map(|path| vec![path]));
    targets.push(roots);
    for kind in [Damage::Deleted, Damage::HalfWritten, Damage::ByteChanged] {
        for target in &targets {
            let inner = copy(&original).await;
            for path in target {
                damage(&inner, &Path::from(path.clone()), kind).await;
            }
            let store = open_store(Arc::new(CountingStore::new(&inner)));
            let found = paths(&store.snapshot().await.expect("reads"));
            assert!(found == expected, "{kind:?} {target:?}");
            // A new writer goes on where the old one stopped, and finds all chunks.
            let mut claim = store.claim("t-0").await.expect("claims");
            assert_eq!(claim.position(), COMMITS, "{kind:?} {target:?}");
            let mut sessions = sessions.clone();
            // In some cases up to the next checkpoint.
            let more = if matches!(kind, Damage::HalfWritten) { 64 } else { 1 };
            let more = commit_some_calls(&store, &mut claim, &mut sessions, more).await;
            assert_complete(&store, &sessions[0], calls + more).await;
        }
    }
    assert!(targets.len() > 10, "{targets:?}");
}

#[tokio::test]
async fn readers_see_all_earlier_commits_while_writers_commit_and_checkpoint() {
    let (inner, _, _) = in_memory();
    let open = || open_store(Arc::new(CountingStore::new(&inner)));
    let committed = std::cell::Cell::new(0);
    let writer = async |source: &str| {
        let store = open();
        let mut claim = store.claim(source).await.expect("claims");
        let mut index = ChunkIndex::default();
        let mut sessions = [Session::new(source, 0)];
        for _ in 0..150 {
            commit(&store, &mut claim, calls(&mut sessions), &mut index).await;
            committed.set(committed.get() + 1);
        }
    };
    let reader = async {
        let store = open();
        let mut reads = 0;
        while committed.get() < 300 {
            let before = committed.get();
            let snapshot = store.snapshot().await.expect("reads");
            let files = snapshot.files(Table::Exchanges).count();
            assert!(
                (before..=committed.get() + 2).contains(&files),
                "{before} commits were made, {files} are seen"
            );
            reads += 1;
            tokio::task::yield_now().await;
        }
        assert!(reads > 20, "{reads} reads");
    };
    let maintenance = async {
        let store = open();
        for _ in 0..3 {
            while committed.get() < 100 {
                tokio::task::yield_now().await;
            }
            store.plan_compaction(CompactOptions::default()).await.expect("plans");
        }
    };
    futures::join!(writer("t-0"), writer("t-1"), reader, maintenance);
    let snapshot = open().snapshot().await.expect("reads");
    assert_eq!(snapshot.files(Table::Exchanges).count(), 300);
    assert!(objects(&inner, "_checkpoints").await.len() >= 2);
}

#[tokio::test]
async fn a_checkpoint_does_not_let_a_fenced_writer_commit() {
    let (_, counting, store) = in_memory();
    let mut sessions = [Session::new("a", 0)];
    let mut paused = store.claim("t-0").await.expect("claims");
    let calls_before = commit_some_calls(&store, &mut paused, &mut sessions, 70).await;
    let other = open_store(Arc::new(counting));
    let mut taker = other.claim("t-0").await.expect("takes over");
    assert_eq!((taker.position(), taker.journals()["j"]), (70, 70));
    let calls_after = commit_some_calls(&other, &mut taker, &mut sessions, 140).await;
    let mut lost = [Session::new("lost", 0)];
    let late = store
        .commit_claimed(&mut paused, 71, BTreeMap::new(), calls(&mut lost), &mut ChunkIndex::default())
        .await;
    assert!(matches!(late, Err(StoreError::LostPartition { first: 70, .. })), "{late:?}");
    assert_eq!(other.delete_orphans("t-0").await.expect("lists"), 0, "the refused writer deleted its files");
    let snapshot = other.snapshot().await.expect("reads");
    assert!(other.load_sessions(&snapshot, Some(&[id("lost")].into())).await.expect("reads").is_empty());
    assert_complete(&other, &sessions[0], calls_before + calls_after).await;
}

#[tokio::test]
async fn a_claim_deletes_the_files_of_an_interrupted_batch_through_its_plan() {
    let (inner, counting, store) = in_memory();
    let mut sessions = [Session::new("a", 0)];
    let mut claim = store.claim("t-0").await.expect("claims");
    commit_some_calls(&store, &mut claim, &mut sessions, 70).await;
    let before = objects(&inner, "").await.len();
    // The commit of the next batch vanishes: its writer stopped just before it.
    let mut lost = [Session::new("lost", 0)];
    let commit = store
        .commit_claimed(&mut claim, 71, BTreeMap::new(), calls(&mut lost), &mut ChunkIndex::default())
        .await
        .expect("commits");
    inner.delete(&Path::from(format!("{}/{}", root(&inner).await, commit.path()))).await.expect("deletes");
    assert!(objects(&inner, "").await.len() > before);
    counting.start();
    let other = open_store(Arc::new(counting.clone()));
    other.claim("t-0").await.expect("claims");
    assert_eq!(counting.requests("list", "exchanges"), 0, "no table is listed: {:?}", counting.by_kind());
    assert_eq!(objects(&inner, "").await.len(), before + 1, "the claim's own commit");
}

#[tokio::test]
async fn a_commit_that_is_listed_and_missing_is_an_error() {
    let (inner, counting, store) = in_memory();
    let mut claim = store.claim("t-0").await.expect("claims");
    commit_calls(&store, &mut claim, &mut [Session::new("a", 0)], 3).await;
    let commits = objects(&inner, "_commits").await;
    counting.hide(&commits[2]);
    let error = store.snapshot().await.expect_err("a commit is missing");
    assert!(matches!(error, StoreError::CommitMissing { .. }), "{error}");
    assert!(error.to_string().contains("_commits/t-0/"), "{error}");
    counting.hide(commits.last().expect("has one"));
    let error = store.resume_position("t-0").await.expect_err("the last commit is missing");
    assert!(matches!(error, StoreError::CommitMissing { .. }), "{error}");
}

#[tokio::test]
async fn a_restarted_writer_finds_chunks_of_replaced_files() {
    let (_, counting, store) = in_memory();
    let mut sessions = [Session::new("a", 0), Session::new("b", 0)];
    let mut claim = store.claim("t-0").await.expect("claims");
    let mut calls = commit_some_calls(&store, &mut claim, &mut sessions, 80).await;
    store.compact(CompactOptions { target_bytes: 1 << 30 }).await.expect("compacts");
    // Neither the index nor the segments know the merged file yet; readers follow the replacement.
    calls += commit_some_calls(&store, &mut claim, &mut sessions, 20).await;
    store.compact(CompactOptions { target_bytes: 1 << 30 }).await.expect("compacts");
    let other = open_store(Arc::new(counting));
    let mut claim = other.claim("t-0").await.expect("claims");
    calls += commit_some_calls(&other, &mut claim, &mut sessions, 70).await;
    for session in &sessions {
        assert_complete(&other, session, calls).await;
    }
}

#[tokio::test]
async fn erasure_removes_the_sessions_from_checkpoints_and_plans() {
    let (inner, _, store) = in_memory();
    let mut sessions = [Session::new("erased", 0), Session::new("kept", 0)];
    let mut claim = store.claim("t-0").await.expect("claims");
    let calls = commit_some_calls(&store, &mut claim, &mut sessions, 140).await;
    let hash = |session: &Session| blake3::hash(session.id.as_str().as_bytes()).as_bytes()[..8].to_vec();
    let found = async |needle: Vec<u8>| {
        let mut found = 0;
        for path in objects(&inner, "_manifests").await {
            let bytes = inner.get(&Path::from(path)).await.expect("exists").bytes().await.expect("reads");
            found += bytes.windows(needle.len()).filter(|window| **window == needle).count();
        }
        found
    };
    assert!(found(hash(&sessions[0])).await > 0, "the search finds what is there");
    let erasure = Erasure { sessions: [id("erased")].into(), tenants: BTreeSet::new() };
    store.erase(&erasure).await.expect("erases");
    assert_eq!(found(hash(&sessions[0])).await, 0);
    assert!(found(hash(&sessions[1])).await > 0);
    assert_eq!(objects(&inner, "_plans").await, Vec::<String>::new());
    assert_eq!(objects(&inner, "_checkpoints").await.len(), 1, "older checkpoints are deleted");
    assert_complete(&store, &sessions[1], calls).await;
    // A writer that starts now finds the chunks of the other session in the rewritten files.
    let mut claim = store.claim("t-0").await.expect("claims");
    commit_calls(&store, &mut claim, &mut sessions[1..], 1).await;
    assert_complete(&store, &sessions[1], calls + 1).await;
}

#[tokio::test]
async fn old_checkpoints_and_plans_are_deleted() {
    let (inner, _, store) = in_memory();
    let mut claim = store.claim("t-0").await.expect("claims");
    let calls = commit_some_calls(&store, &mut claim, &mut [Session::new("a", 0)], 64 * 14).await;
    assert_eq!(objects(&inner, "_checkpoints").await.len(), 3);
    assert!(objects(&inner, "_plans").await.len() < 64);
    let manifests = objects(&inner, "_manifests").await;
    // Three folder tables, three manifests, and the segments that they use.
    assert!(manifests.len() <= 3 + 3 + 16, "{manifests:?}");
    let files = store.snapshot().await.expect("reads").all_files().count();
    assert_eq!(files, 2 * calls as usize, "an exchanges and a chunks file of each call");
}
