//! Archivers that share partitions, are killed, or are paused until the group has reassigned their partitions.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use tests::binary;
use tests::kafka::Cluster;
use tests::pipeline::Pipeline;
use tests::process::Running;
use tests::traffic::Traffic;

use crate::shed;

/// Time between two looks at a folder.
const POLL_EVERY: Duration = Duration::from_millis(1);

/// Commit files of a store.
fn commits(store: &Path) -> BTreeSet<std::path::PathBuf> {
    let folder = store.join("_commits");
    if folder.exists() { binary::files_below(&folder).into_iter().collect() } else { BTreeSet::new() }
}

async fn wait_for_commits(store: &Path, more: usize) {
    let wanted = commits(store).len() + more;
    let mut looks = 0_u64;
    while commits(store).len() < wanted {
        tokio::time::sleep(Duration::from_millis(20)).await;
        looks += 1;
        assert!(looks < 6_000, "no {more} more commits in {}", store.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_archivers_share_partitions_and_one_is_killed() {
    let cluster = Cluster::shared();
    let folder = tempfile::tempdir().expect("temp");
    let pipeline = Pipeline::new(cluster, folder.path(), "shared", 4, "").await;
    let (recorder, url) = pipeline.record();
    let traffic = Traffic::start(&url, "s", 6, 40);
    let first = pipeline.archive();
    wait_for_commits(&pipeline.store(), 4).await;
    let second = pipeline.archive();
    // Four claims of the first archiver, and those of the partitions that the second one gets.
    wait_for_commits(&pipeline.store(), 12).await;
    first.kill();
    wait_for_commits(&pipeline.store(), 8).await;
    let third = pipeline.archive();
    wait_for_commits(&pipeline.store(), 8).await;
    let calls = traffic.stop().await;
    let recorded = recorder.terminate();
    second.terminate();
    third.terminate();
    pipeline.settle().await;
    let compared = pipeline.compare(&calls).await.expect("every exchange is stored once");
    assert_eq!(compared.bodies + shed(&recorded), calls.len(), "{recorded}");
    assert!(compared.bodies > 300, "too little was compared: {compared:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_archiver_resumes_after_its_partitions_were_reassigned() {
    let cluster = Cluster::shared();
    let folder = tempfile::tempdir().expect("temp");
    let pipeline = Pipeline::new(cluster, folder.path(), "moved", 2, "").await;
    let (recorder, url) = pipeline.record();
    let traffic = Traffic::start(&url, "s", 6, 40);
    let paused = pipeline.archive();
    wait_for_commits(&pipeline.store(), 6).await;
    paused.signal("STOP");
    // The group reassigns its partitions after the session timeout; the other archiver claims them and commits.
    let other = pipeline.archive();
    wait_for_commits(&pipeline.store(), 8).await;
    paused.signal("CONT");
    traffic.wait_for(150).await;
    wait_for_commits(&pipeline.store(), 8).await;
    let calls = traffic.stop().await;
    let recorded = recorder.terminate();
    let log = paused.terminate();
    other.terminate();
    pipeline.settle().await;
    let compared = pipeline.compare(&calls).await.unwrap_or_else(|error| panic!("{error}\n{log}"));
    assert_eq!(compared.bodies + shed(&recorded), calls.len(), "{recorded}");
    assert!(compared.bodies > 300, "too little was compared: {compared:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_an_interrupted_upload_are_not_part_of_the_store() {
    let cluster = Cluster::shared();
    let folder = tempfile::tempdir().expect("temp");
    let pipeline = Pipeline::new(cluster, folder.path(), "half", 2, "").await;
    let (recorder, url) = pipeline.record();
    let traffic = Traffic::start(&url, "s", 6, 40);
    let (mut interrupted, mut read) = (0, 0);
    for _ in 0..6 {
        let archiver = pipeline.archive();
        wait_for_commits(&pipeline.store(), 3).await;
        let (has_orphans, exchanges) = kill_while_files_have_no_commit(&pipeline, archiver).await;
        interrupted += usize::from(has_orphans);
        read += exchanges;
    }
    // The first commits may be claims, which have no rows, so one kill may come before any row is committed.
    assert!(read > 0, "no exchange was read through the commits");
    let calls = traffic.stop().await;
    let recorded = recorder.terminate();
    pipeline.settle().await;
    let compared = pipeline.compare(&calls).await.expect("every exchange is stored once");
    assert_eq!(compared.bodies + shed(&recorded), calls.len(), "{recorded}");
    assert!(compared.bodies > 300, "too little was compared: {compared:?}");
    assert!(interrupted > 0, "no archiver was killed between its files and their commit");
}

/// Kills the archiver once it has written a new file. Returns whether files without a commit remain, and the number of
/// exchanges that a reader of the commits finds.
async fn kill_while_files_have_no_commit(pipeline: &Pipeline, archiver: Running) -> (bool, usize) {
    let exchanges = pipeline.store().join("exchanges");
    let before = files(&exchanges);
    let mut looks = 0_u64;
    while files(&exchanges) <= before {
        tokio::time::sleep(POLL_EVERY).await;
        looks += 1;
        assert!(looks < 100_000, "no new file in {}:\n{}", exchanges.display(), archiver.output());
    }
    archiver.kill();
    let through_commits = tests::journal_archive::committed(&pipeline.store()).await;
    let through_files = binary::files_below(&exchanges).len();
    let store = store::Store::open(pipeline.store().to_str().expect("utf-8")).expect("opens");
    let listed = store.snapshot().await.expect("reads");
    let listed = listed.files(store::table::Table::Exchanges).count();
    (through_files > listed, through_commits.exchanges.len())
}

/// Number of files below a folder. A folder may change during the count.
fn files(folder: &Path) -> usize {
    let mut found = 0;
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() { open.push(path) } else { found += 1 }
        }
    }
    found
}
