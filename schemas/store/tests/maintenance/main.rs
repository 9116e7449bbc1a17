//! Compaction, expiry and erasure: the view of readers afterwards, after a stop at every write, and with a running archiver.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use object_store::memory::InMemory;
use schemas::id::{SessionId, TenantId};
use store::Store;
use store::commit::utc_date;
use store::keyring::{KeyRing, TenantKeyPair, WrappingKey};
use store::maintenance::{CompactOptions, Erasure, MaintenanceError};
use store::table::{Chunk, Table};

use faulty_store::{FaultyStore, Pause, Stop};
use traffic::{DAY, FIRST_DAY, Seen, Traffic, copy, id, on_disk_and_visible, open_store, view};

mod faulty_store;
mod traffic;

/// Number of seeds tried.
const SEEDS: u64 = 3;

/// Portions of a store that is compacted once.
const PORTIONS: usize = 20;

fn all(options: u64) -> CompactOptions {
    CompactOptions { target_bytes: options }
}

async fn filled(seed: u64, portions: usize) -> (Arc<InMemory>, Traffic) {
    let inner = Arc::new(InMemory::new());
    let mut traffic = Traffic::new(seed);
    traffic.fill(&open_store(FaultyStore::lasting(&inner)), portions).await;
    (inner, traffic)
}

fn without(view: BTreeMap<SessionId, Seen>, gone: &BTreeSet<SessionId>) -> BTreeMap<SessionId, Seen> {
    view.into_iter().filter(|(session, _)| !gone.contains(session)).collect()
}

fn erasure(sessions: &[&SessionId]) -> Erasure {
    Erasure { sessions: sessions.iter().copied().cloned().collect(), tenants: BTreeSet::new() }
}

/// The first complete session; it has exchanges in several files.
fn complete_session(view: &BTreeMap<SessionId, Seen>) -> SessionId {
    let complete = view.iter().find(|(_, seen)| seen.gaps.is_empty());
    complete.expect("some session is complete").0.clone()
}

#[tokio::test]
async fn readers_see_the_same_after_compaction() {
    let mut incomplete = 0;
    for seed in 0..SEEDS {
        let inner = Arc::new(InMemory::new());
        let twin = Arc::new(InMemory::new());
        let (mine, plain) =
            (open_store(FaultyStore::lasting(&inner)), open_store(FaultyStore::lasting(&twin)));
        // Both archivers see the same portions; one store is compacted in between.
        let (mut traffic, mut same) = (Traffic::new(seed), Traffic::new(seed));
        for round in 0..4 {
            traffic.fill(&mine, 6).await;
            same.fill(&plain, 6).await;
            let target =
                [20_000, 6_000, 1 << 20, 40_000][(round + usize::try_from(seed).expect("small")) % 4];
            let done = mine.compact(all(target)).await.expect("compacts");
            let expected = view(&plain).await;
            incomplete += expected.values().filter(|seen| !seen.gaps.is_empty()).count();
            assert!(view(&mine).await == expected, "seed {seed}, round {round}");
            let change = done.tables.iter().find(|change| change.table == Table::Exchanges).expect("has it");
            assert_eq!(change.before.rows, change.after.rows, "seed {seed}, round {round}");
            assert!(change.after.files <= change.before.files, "seed {seed}, round {round}");
            let (on_disk, visible) = on_disk_and_visible(&inner).await;
            assert_eq!(on_disk, visible, "seed {seed}: replaced files are deleted");
        }
    }
    assert!(incomplete > 0, "incomplete sessions are among those compared");
}

#[tokio::test]
async fn a_folder_becomes_one_pair_with_each_chunk_once() {
    let (inner, _) = filled(1, PORTIONS).await;
    let store = open_store(FaultyStore::lasting(&inner));
    let planned = store.plan_compaction(all(1 << 30)).await.expect("plans");
    let done = store.compact(all(1 << 30)).await.expect("compacts");
    for (planned, done) in planned.tables.iter().zip(&done.tables) {
        assert_eq!((planned.before, planned.after.files), (done.before, done.after.files));
        assert!(done.after.files < done.before.files && done.after.bytes < done.before.bytes, "{done:?}");
    }
    let snapshot = store.snapshot().await.expect("reads");
    for table in [Table::Exchanges, Table::Chunks, Table::Sessions] {
        let folders: Vec<_> = snapshot.files(table).map(|file| file.path.rsplit_once('/')).collect();
        let distinct: BTreeSet<_> = folders.iter().map(|path| path.expect("has a folder").0).collect();
        assert_eq!(distinct.len(), folders.len(), "one file a folder");
    }
    for file in snapshot.files(Table::Chunks) {
        let chunks: Vec<Chunk> = store.read(file, None).await.expect("reads");
        let digests: BTreeSet<_> = chunks.iter().map(|chunk| chunk.digest).collect();
        assert_eq!(digests.len(), chunks.len(), "each chunk once");
        assert!(chunks.iter().all(|chunk| chunk.bytes.is_some()), "no row names another file");
        assert!((0..).zip(&chunks).all(|(row, chunk)| chunk.chunk == row), "numbers are row numbers");
    }
    let again = store.compact(all(1 << 30)).await.expect("compacts");
    assert_eq!(again.commits, 0, "there is nothing left to merge");
}

#[tokio::test]
async fn a_dry_run_writes_nothing() {
    let (inner, _) = filled(2, 10).await;
    let faulty = FaultyStore::lasting(&inner);
    let left = faulty.left();
    let store = open_store(faulty);
    let session = view(&store).await.keys().next().expect("has one").clone();
    store.plan_compaction(all(1 << 30)).await.expect("plans");
    store.plan_expiry("2999-01-01").await.expect("plans");
    let erased = store.plan_erasure(&erasure(&[&session])).await.expect("plans");
    assert_eq!((erased.sessions, erased.proof), (BTreeSet::from([session]), None));
    assert_eq!(left.load(Ordering::SeqCst), i64::MAX);
}

#[tokio::test]
async fn expiry_deletes_the_sessions_of_old_days() {
    for (seed, compacted) in [(3, false), (4, true)] {
        let (inner, _) = filled(seed, PORTIONS).await;
        let store = open_store(FaultyStore::lasting(&inner));
        if compacted {
            store.compact(all(1 << 30)).await.expect("compacts");
        }
        let before = view(&store).await;
        let day = utc_date(FIRST_DAY + DAY);
        let old: BTreeSet<SessionId> = before
            .iter()
            .filter(|(_, seen)| seen.started_at() < FIRST_DAY + DAY)
            .map(|(id, _)| id.clone())
            .collect();
        assert!(!old.is_empty() && old.len() < before.len());
        let planned = store.plan_expiry(&day).await.expect("plans");
        let expired = store.expire(&day).await.expect("expires");
        assert_eq!((planned.sessions, expired.sessions), (old.len() as u64, old.len() as u64));
        assert!(view(&store).await == without(before, &old), "seed {seed}");
        let (on_disk, visible) = on_disk_and_visible(&inner).await;
        assert_eq!(on_disk, visible);
        assert!(on_disk.iter().all(|path| !path.contains(&format!("date={}", utc_date(FIRST_DAY)))));
    }
}

#[tokio::test]
async fn a_continued_session_stays_complete_and_one_without_times_never_expires() {
    let (inner, mut traffic) = filled(5, 4).await;
    let store = open_store(FaultyStore::lasting(&inner));
    let old = traffic.exchange_of("continued", FIRST_DAY);
    let untimed = traffic.exchange_of("untimed", 5_000_000);
    let young = traffic.exchange_of("continued", FIRST_DAY + 9 * DAY);
    for records in [old, untimed, young] {
        traffic.archive_as(&store, "import", records).await;
    }
    let expired = store.expire(&utc_date(FIRST_DAY + 8 * DAY)).await.expect("expires");
    assert_eq!((expired.continued, expired.files_without_time), (1, 1));
    let left = view(&store).await;
    assert_eq!(left.keys().map(SessionId::as_str).collect::<Vec<_>>(), ["continued", "untimed"]);
    assert_eq!(left[&id("continued")].exchanges(), 2);
}

#[tokio::test]
async fn erasure_deletes_all_of_a_session_and_nothing_of_others() {
    for seed in 0..SEEDS {
        let (inner, _) = filled(seed, PORTIONS).await;
        let store = open_store(FaultyStore::lasting(&inner));
        if seed % 2 == 0 {
            store.compact(all(30_000)).await.expect("compacts");
        }
        let before = view(&store).await;
        let gone = complete_session(&before);
        let erased = store.erase(&erasure(&[&gone, &id("never-was")])).await.expect("erases");
        assert_eq!(erased.absent, BTreeSet::from(["session never-was".to_owned()]));
        let proof = erased.proof.expect("is proved");
        assert!(proof.files_read > 0 && proof.chunks_searched > 0 && proof.uncommitted == 0, "{proof:?}");
        assert!(erased.removed.chunks > 0, "its own messages were deleted");
        let snapshot = store.snapshot().await.expect("reads");
        let chunks: Vec<Chunk> = store.read_table(&snapshot, Table::Chunks, None).await.expect("reads");
        let own = format!(" of {gone} ");
        let has_own = |chunk: &Chunk| {
            let bytes = chunk.bytes.as_deref().unwrap_or_default();
            bytes.windows(own.len()).any(|window| window == own.as_bytes())
        };
        assert!(!chunks.iter().any(has_own), "seed {seed}");
        assert!(view(&store).await == without(before, &BTreeSet::from([gone.clone()])), "seed {seed}");
        let (on_disk, visible) = on_disk_and_visible(&inner).await;
        assert_eq!(on_disk, visible);
        let again = store.erase(&erasure(&[&gone])).await;
        assert!(matches!(again, Err(MaintenanceError::NothingFound { .. })));
    }
}

#[tokio::test]
async fn a_tenant_is_erased_without_its_keys() {
    let tenant = TenantId::parse("t/two").expect("id");
    let pair =
        TenantKeyPair { metadata: WrappingKey::new([1; 32]), payload: Some(WrappingKey::new([2; 32])) };
    let keys = KeyRing::new(BTreeMap::from([(tenant.clone(), pair)]));
    let inner = Arc::new(InMemory::new());
    let with_keys = open_store(FaultyStore::lasting(&inner)).with_keys(keys);
    Traffic::new(7).fill(&with_keys, PORTIONS).await;
    let before = view(&with_keys).await;
    with_keys.compact(all(30_000)).await.expect("compacts");
    assert!(view(&with_keys).await == before, "merged files are encrypted as well");
    let plain = open_store(FaultyStore::lasting(&inner));
    let unreadable = plain.load_sessions(&plain.snapshot().await.expect("reads"), None).await;
    assert!(unreadable.is_err());
    let wanted = Erasure { sessions: BTreeSet::new(), tenants: BTreeSet::from([tenant]) };
    let erased = plain.erase(&wanted).await.expect("erases");
    assert!(view(&plain).await == without(before, &erased.sessions));
    assert!(!erased.sessions.is_empty());
    let (on_disk, visible) = on_disk_and_visible(&inner).await;
    assert_eq!(on_disk, visible);
    assert!(on_disk.iter().all(|path| path.contains("tenant=t%20one")));
}

/// A kind of maintenance.
#[derive(Debug, Clone)]
enum Work {
    Compact,
    Erase(SessionId),
    Expire(String),
}

impl Work {
    async fn run(&self, store: &Store) -> Result<(), MaintenanceError> {
        match self {
            Self::Compact => store.compact(all(20_000)).await.map(drop),
            Self::Erase(session) => store.erase(&erasure(&[session])).await.map(drop),
            Self::Expire(before) => store.expire(before).await.map(drop),
        }
    }
}

#[tokio::test]
async fn a_stop_at_any_write_leaves_the_old_state_or_the_new() {
    let (inner, _) = filled(8, 7).await;
    let old = view(&open_store(FaultyStore::lasting(&inner))).await;
    let day = utc_date(FIRST_DAY + DAY);
    let mut stops = 0;
    for work in [Work::Compact, Work::Erase(complete_session(&old)), Work::Expire(day)] {
        let done = copy(&inner).await;
        work.run(&open_store(FaultyStore::lasting(&done))).await.expect("works");
        let new = view(&open_store(FaultyStore::lasting(&done))).await;
        for stop in [Stop::Before, Stop::After] {
            for at in 0.. {
                let store = copy(&inner).await;
                let faulty = FaultyStore::stopping(&store, at, stop);
                let left = faulty.left();
                let result = work.run(&open_store(faulty)).await;
                if left.load(Ordering::SeqCst) >= 0 {
                    result.expect("nothing stopped it");
                    break;
                }
                stops += 1;
                let reopened = open_store(FaultyStore::lasting(&store));
                let seen = view(&reopened).await;
                assert!(seen == old || seen == new, "{work:?} stopped {stop:?} write {at}");
                match work.run(&reopened).await {
                    Ok(()) | Err(MaintenanceError::NothingFound { .. }) => {}
                    Err(error) => panic!("{work:?} stopped {stop:?} write {at}: {error}"),
                }
                assert!(
                    view(&reopened).await == new,
                    "{work:?} stopped {stop:?} write {at}, then done again"
                );
                let (on_disk, visible) = on_disk_and_visible(&store).await;
                assert_eq!(on_disk, visible, "{work:?} stopped {stop:?} write {at}");
            }
        }
    }
    assert!(stops > 40, "only {stops} stops were tried");
}

#[tokio::test]
async fn an_archiver_continues_during_maintenance() {
    for seed in 10..10 + SEEDS {
        let (inner, mut traffic) = filled(seed, 7).await;
        let twin = Arc::new(InMemory::new());
        Traffic::new(seed).fill(&open_store(FaultyStore::lasting(&twin)), 14).await;
        let (mine, beside) =
            (open_store(FaultyStore::lasting(&inner)), open_store(FaultyStore::lasting(&inner)));
        let maintenance = async {
            for target in [20_000, 60_000] {
                mine.compact(all(target)).await.expect("compacts");
            }
        };
        futures::join!(maintenance, traffic.fill(&beside, 7));
        assert!(view(&mine).await == view(&open_store(FaultyStore::lasting(&twin))).await, "seed {seed}");
    }
}

#[tokio::test]
async fn rows_added_during_an_erasure_are_erased_too() {
    let (mut paused, mut repeated) = (0, 0);
    for at in 0.. {
        let (inner, mut traffic) = filled(20, 8).await;
        let pause = Arc::new(Pause::default());
        let mine = open_store(FaultyStore::pausing(&inner, at, &pause));
        let beside = open_store(FaultyStore::lasting(&inner));
        let records = traffic.exchange_of("s", FIRST_DAY);
        traffic.archive_as(&beside, "import", records).await;
        let erasure = erasure(&[&id("s")]);
        let mut erased = std::pin::pin!(mine.erase(&erasure));
        tokio::select! {
            // The erasure has fewer puts than that.
            ended = &mut erased => {
                ended.expect("erases").proof.expect("is proved");
                break;
            }
            () = pause.reached.notified() => {}
        }
        let records = traffic.exchange_of("s", FIRST_DAY);
        traffic.archive_as(&beside, "import", records).await;
        pause.resume.notify_one();
        let proof = erased.await.expect("erases").proof.expect("is proved");
        paused += 1;
        repeated += usize::from(proof.passes > 1);
        assert!(!view(&beside).await.contains_key(&id("s")), "paused at put {at}");
    }
    assert!(paused > 3, "an erasure has several puts");
    assert!(repeated > 0, "no rows were added between two passes of an erasure");
}

#[tokio::test]
async fn a_second_task_stops_the_first() {
    let mut superseded = 0;
    for wait in (0..80).step_by(8) {
        let (inner, _) = filled(30, 5).await;
        let expected = view(&open_store(FaultyStore::lasting(&inner))).await;
        let (one, two) = (open_store(FaultyStore::lasting(&inner)), open_store(FaultyStore::lasting(&inner)));
        let later = async {
            for _ in 0..wait {
                tokio::task::yield_now().await;
            }
            two.compact(all(60_000)).await
        };
        let (first, second) = futures::join!(one.compact(all(60_000)), later);
        for result in [first, second] {
            match result {
                Ok(_) => {}
                Err(MaintenanceError::Superseded { .. }) => superseded += 1,
                Err(error) => panic!("wait {wait}: {error}"),
            }
        }
        assert!(view(&one).await == expected, "wait {wait}");
        one.compact(all(60_000)).await.expect("compacts");
        let (on_disk, visible) = on_disk_and_visible(&inner).await;
        assert_eq!(on_disk, visible, "wait {wait}");
    }
    assert!(superseded > 0, "some were superseded");
}
