//! The Kafka archiver against a mock cluster: every published record is stored exactly once.

mod harness;

use harness::{Fixture, Journal, NO_ERROR, REFUSED, TOPIC, UNKNOWN, end};

/// Exchanges 0 to `last` of these sessions, and their close rows.
fn sessions(journal: &mut Journal, names: &[&str], last: u32) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut messages = Vec::new();
    for seq in 0..=last {
        for name in names {
            messages.extend(journal.exchange(name, seq, 1));
        }
    }
    for name in names {
        messages.extend(journal.close(name, last));
    }
    messages
}

#[tokio::test]
async fn published_records_are_stored_once_with_their_bodies() {
    let fixture = Fixture::new(2);
    let mut journal = Journal::new("j");
    fixture.publish(0, &sessions(&mut journal, &["a", "b"], 9));
    fixture.publish(1, &sessions(&mut journal, &["c"], 4));
    let summary = fixture.archive().await;
    assert_eq!((summary.consumed, summary.archived, summary.uncommitted), (28, 25, 0));
    let stored = fixture.stored().await;
    assert_eq!(stored.len(), 25);
    assert!(stored.values().all(|times| *times == 1));
    assert_eq!(fixture.in_files(), stored);
    let store = fixture.store();
    let snapshot = store.snapshot().await.expect("reads");
    for session in store.load_sessions(&snapshot, None).await.expect("loads") {
        assert_eq!(session.gaps(), []);
        for exchange in &session.exchanges {
            let body = session.body(&exchange.request).expect("is whole");
            let name = exchange.session.to_string();
            assert_eq!(body, harness::request(&name, exchange.seq, 60));
        }
    }
    let again = fixture.archive().await;
    assert_eq!((again.consumed, again.commits), (0, 0), "the archiver resumes at the store's position");
}

#[tokio::test]
async fn exit_when_idle_commits_under_the_flush_settings_alone() {
    let fixture = Fixture::new(1).with_archive("flush-every = \"1500ms\"");
    fixture.publish(0, &sessions(&mut Journal::new("j"), &["a"], 4));
    let archiver = fixture.start(Some(std::time::Duration::from_millis(1))).await;
    let started = std::time::Instant::now();
    let summary = end(archiver).await.expect("archives");
    assert_eq!((summary.archived, summary.commits, summary.uncommitted), (5, 1, 0));
    assert!(
        started.elapsed().as_millis() >= 1500,
        "it exited before the flush interval: {:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn duplicates_are_dropped() {
    let fixture = Fixture::new(1);
    let messages = sessions(&mut Journal::new("j"), &["a"], 4);
    fixture.publish(0, &messages);
    fixture.publish(0, &messages[2..]);
    let first = fixture.archive().await;
    assert_eq!((first.consumed, first.archived, first.redelivered), (10, 5, 4));
    // A publisher without its acknowledgements sends from an earlier position, after a restart of the archiver.
    fixture.publish(0, &messages);
    // Another journal uses the same positions for other records.
    fixture.publish(0, &sessions(&mut Journal::new("k"), &["b"], 4));
    let second = fixture.archive().await;
    assert_eq!((second.archived, second.redelivered), (5, 6));
    assert_eq!(fixture.stored().await.len(), 10);
    assert_eq!(fixture.in_files(), fixture.stored().await);
    assert!(fixture.in_files().values().all(|times| *times == 1));
}

#[tokio::test]
async fn an_incomplete_message_delays_no_other_message() {
    let fixture = Fixture::new(1);
    let (mut journal, mut other) = (Journal::new("j"), Journal::new("k"));
    let split = journal.exchange("a", 0, 4);
    fixture.publish(0, &split[..3]);
    fixture.publish(0, &sessions(&mut other, &["b"], 1));
    let first = fixture.archive().await;
    assert_eq!((first.archived, first.waiting_parts), (2, 3));
    // The publisher was killed after three parts and starts over with the first.
    fixture.publish(0, &split);
    fixture.publish(0, &journal.close("a", 0));
    let second = fixture.archive().await;
    assert_eq!((second.archived, second.redelivered, second.waiting_parts), (1, 3, 0));
    assert_eq!(fixture.stored().await.len(), 3);
    assert_eq!(fixture.in_files(), fixture.stored().await);
    assert_eq!(fixture.archive().await.consumed, 0);
}

#[tokio::test]
async fn an_undecodable_message_becomes_a_dead_letter_with_the_reason() {
    let fixture = Fixture::new(1);
    let mut messages = sessions(&mut Journal::new("j"), &["a"], 1);
    messages.insert(1, (b"key".to_vec(), b"not a message".to_vec()));
    fixture.publish(0, &messages);
    let summary = fixture.archive().await;
    assert_eq!((summary.archived, summary.dead_lettered, summary.uncommitted), (2, 1, 0));
    let letters = fixture.dead_letters(1);
    assert_eq!(
        (letters[0].key.as_slice(), letters[0].payload.as_slice()),
        (&b"key"[..], &b"not a message"[..])
    );
    let header = |name: &str| letters[0].headers[name].clone();
    assert!(header("foreshadow-reason").contains("version 110"), "{:?}", letters[0].headers);
    assert_eq!((header("foreshadow-topic").as_str(), header("foreshadow-partition").as_str()), (TOPIC, "0"));
    assert_eq!(header("foreshadow-offset"), "1");
    assert_eq!(fixture.archive().await.consumed, 0, "the archiver reads it once");
}

#[tokio::test]
async fn no_commit_passes_an_unacknowledged_dead_letter() {
    let fixture = Fixture::new(1);
    fixture.cluster().topic_error("sessions.dead", REFUSED).expect("is set");
    let mut messages = sessions(&mut Journal::new("j"), &["a"], 1);
    messages.insert(1, (b"key".to_vec(), b"not a message".to_vec()));
    fixture.publish(0, &messages);
    let archiver = fixture.start(None).await;
    fixture.until_stored(2).await;
    archiver.stop();
    let summary = end(archiver).await.expect("stops");
    assert_eq!(summary.dead_lettered, 0);
    assert_eq!(fixture.store().resume_position("sessions-0").await.expect("reads"), 1);
    fixture.cluster().topic_error("sessions.dead", NO_ERROR).expect("is set");
    let summary = fixture.archive().await;
    assert_eq!((summary.dead_lettered, summary.redelivered), (1, 2));
    assert_eq!(fixture.store().resume_position("sessions-0").await.expect("reads"), 4);
    assert!(fixture.in_files().values().all(|times| *times == 1));
}

#[tokio::test]
async fn two_archivers_share_the_partitions() {
    let fixture = Fixture::new(4);
    let mut journals: Vec<Journal> = (0..4).map(|n| Journal::new(&format!("j{n}"))).collect();
    let mut send = |from: u32, to: u32| {
        for seq in from..to {
            for (partition, journal) in (0..4).zip(&mut journals) {
                fixture.publish(partition, &journal.exchange(&format!("s{partition}"), seq, 1));
            }
        }
    };
    send(0, 5);
    let first = fixture.start(None).await;
    fixture.until_stored(20).await;
    send(5, 10);
    let second = fixture.start(None).await;
    fixture.until_stored(40).await;
    send(10, 15);
    fixture.until_stored(60).await;
    first.stop();
    let one = end(first).await.expect("stops");
    send(15, 20);
    fixture.until_stored(80).await;
    second.stop();
    let two = end(second).await.expect("stops");
    assert_eq!(one.archived + two.archived, 80);
    assert!(two.archived >= 20, "the remaining archiver has all partitions: {one:?} {two:?}");
    assert_eq!(fixture.in_files(), fixture.stored().await);
    assert!(fixture.in_files().values().all(|times| *times == 1));
}

#[tokio::test]
async fn an_archiver_that_lost_a_partition_commits_nothing_to_it() {
    let fixture = Fixture::new(1);
    let mut journal = Journal::new("j");
    fixture.publish(0, &journal.exchange("a", 0, 1));
    let archiver = fixture.start(None).await;
    fixture.until_stored(1).await;
    // Another process claims the partition.
    let store = fixture.store();
    let claim = store.claim("sessions-0").await.expect("claims");
    assert_eq!(claim.position(), 1);
    fixture.publish(0, &journal.exchange("a", 1, 1));
    // The group still assigns it to the first archiver, which therefore claims it again.
    fixture.until_stored(2).await;
    archiver.stop();
    let summary = end(archiver).await.expect("stops");
    assert_eq!(summary.archived, 2);
    assert!(summary.consumed > 2, "the archiver reads the dropped messages again: {summary:?}");
    assert_eq!(fixture.in_files().values().sum::<usize>(), 2, "a refused commit leaves no file");
}

#[tokio::test]
async fn a_recreated_topic_is_rejected() {
    let fixture = Fixture::new(1);
    fixture.publish(0, &sessions(&mut Journal::new("j"), &["a"], 4));
    fixture.archive().await;
    let recreated = Fixture::new(1);
    recreated.publish(0, &sessions(&mut Journal::new("k"), &["b"], 0));
    let archiver =
        recorder::archive::kafka_archiver::start(&recreated.config(), fixture.store(), Some(harness::IDLE))
            .await
            .expect("starts");
    let error = end(archiver).await.expect_err("is rejected").to_string();
    assert!(error.contains("was recreated") && error.contains("offset 2"), "{error}");
}

#[tokio::test]
async fn a_missing_topic_is_an_error() {
    let fixture = Fixture::new(1);
    let mut config = fixture.config();
    config.kafka.topic = "nowhere".to_owned();
    fixture.cluster().topic_error("nowhere", UNKNOWN).expect("is set");
    let archiver = recorder::archive::kafka_archiver::start(&config, fixture.store(), Some(harness::IDLE))
        .await
        .expect("starts");
    let error = end(archiver).await.expect_err("is rejected").to_string();
    assert!(error.contains("nowhere does not exist"), "{error}");
}
