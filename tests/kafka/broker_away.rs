//! Brokers that are killed or paused under traffic.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use tests::binary;
use tests::kafka::Cluster;
use tests::pipeline::Pipeline;
use tests::traffic::{Call, Traffic};

use crate::{counts, shed};

fn journal_bytes(folder: &Path) -> u64 {
    let files = binary::files_below(&folder.join("state/journal"));
    files.iter().filter_map(|path| Some(path.metadata().ok()?.len())).sum()
}

fn assert_none_failed(calls: &[Call]) {
    let failed: Vec<_> =
        calls.iter().filter(|call| call.response.is_none()).map(|call| &call.session).collect();
    assert!(
        failed.is_empty(),
        "the tap must answer every call, but calls of these sessions failed: {failed:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_broker_is_down_the_journal_fills_and_complete_sessions_are_shed() {
    let cluster = Cluster::start(1);
    let folder = tempfile::tempdir().expect("temp");
    let pipeline = Pipeline::new(&cluster, folder.path(), "away", 4, "journal-bytes = \"2MiB\"").await;
    let (recorder, url) = pipeline.record();
    let archiver = pipeline.archive();
    // Each session has its own chunks, so the journal grows by about a kilobyte per call.
    let traffic = Traffic::start(&url, "s", 8, 400);
    traffic.wait_for(50).await;
    cluster.kill(1);
    // Until the journal is almost full and sessions are shed. The tap answers their calls too.
    let mut looks = 0;
    while journal_bytes(folder.path()) < 1536 << 10 {
        traffic.wait_for(50).await;
        looks += 1;
        assert!(looks < 1000, "the journal does not grow: {} bytes", journal_bytes(folder.path()));
    }
    traffic.wait_for(1500).await;
    assert!(
        journal_bytes(folder.path()) <= 2 << 20,
        "the journal exceeds its bound: {}",
        journal_bytes(folder.path())
    );
    cluster.start_again(1);
    traffic.wait_for(200).await;
    let calls = traffic.stop().await;
    assert_none_failed(&calls);

    let output = recorder.terminate();
    archiver.terminate();
    pipeline.settle().await;
    let counts = counts(&output);
    let shed = shed(&output) as u64;
    assert_eq!(counts["started"], calls.len(), "{output}");
    let journaled = counts["journaled"].as_u64().expect("a count");
    assert_eq!(usize::try_from(journaled + shed).expect("fits"), calls.len(), "{output}");
    assert!(shed > 0, "nothing was shed: {output}");

    pipeline.check_order(&cluster).expect("sessions are in order");
    let compared = pipeline.compare(&calls).await;
    let compared = compared.unwrap_or_else(|error| panic!("{} not sent; {error}", pipeline.unsent(&cluster)));
    assert_eq!(compared.bodies, usize::try_from(journaled).expect("fits"));
    assert_eq!(compared.absent, usize::try_from(shed).expect("fits"));
    check_sessions_shed_in_full(&pipeline, &calls).await;
}

/// Checks that a session is stored in full or not at all, except those that were active when shedding began.
async fn check_sessions_shed_in_full(pipeline: &Pipeline, calls: &[Call]) {
    let stored = tests::journal_archive::bodies(&pipeline.store()).await;
    let mut sessions: BTreeMap<&str, BTreeSet<bool>> = BTreeMap::new();
    for call in calls {
        sessions.entry(&call.session).or_default().insert(stored.contains_key(call.request.as_ref()));
    }
    let partly = sessions.values().filter(|kept| kept.len() == 2).count();
    let shed = sessions.values().filter(|kept| kept.len() == 1 && kept.contains(&false)).count();
    assert!(
        shed > 4 * partly,
        "of {} sessions {shed} were shed in full, and {partly} in part",
        sessions.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_broker_delays_no_call() {
    let cluster = Cluster::start(1);
    let folder = tempfile::tempdir().expect("temp");
    let pipeline = Pipeline::new(&cluster, folder.path(), "paused", 4, "").await;
    let (recorder, url) = pipeline.record();
    let archiver = pipeline.archive();
    let traffic = Traffic::start(&url, "s", 6, 40);
    traffic.wait_for(100).await;
    cluster.pause(1);
    traffic.wait_for(400).await;
    cluster.resume(1);
    traffic.wait_for(100).await;
    let calls = traffic.stop().await;
    assert_none_failed(&calls);
    let output = recorder.terminate();
    assert_eq!(counts(&output)["journaled"], calls.len(), "{output}");
    archiver.terminate();
    pipeline.settle().await;
    pipeline.check_order(&cluster).expect("sessions are in order");
    let compared = pipeline.compare(&calls).await;
    let compared = compared.unwrap_or_else(|error| panic!("{} not sent; {error}", pipeline.unsent(&cluster)));
    assert_eq!(compared.bodies, calls.len());
}
