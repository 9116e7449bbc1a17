//! The archiver against a mock cluster: everything published is stored once, whatever comes between.

mod harness;

use harness::{Journal, NO_ERROR, Place, REFUSED, TOPIC, UNKNOWN, end};

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
async fn what_is_published_is_stored_once_and_whole() {
    let place = Place::new(2);
    let mut journal = Journal::new("j");
    place.publish(0, &sessions(&mut journal, &["a", "b"], 9));
    place.publish(1, &sessions(&mut journal, &["c"], 4));
    let summary = place.archive().await;
    assert_eq!((summary.consumed, summary.archived, summary.uncommitted), (28, 25, 0));
    let stored = place.stored().await;
    assert_eq!(stored.len(), 25);
    assert!(stored.values().all(|times| *times == 1));
    assert_eq!(place.in_files(), stored);
    let lake = place.lake();
    let snapshot = lake.snapshot().await.expect("reads");
    for session in lake.load_sessions(&snapshot, None).await.expect("loads") {
        assert_eq!(session.gaps(), []);
        for exchange in &session.exchanges {
            let body = session.body(&exchange.request).expect("is whole");
            let name = exchange.session.to_string();
            assert_eq!(body, harness::request(&name, exchange.seq, 60));
        }
    }
    let again = place.archive().await;
    assert_eq!((again.consumed, again.commits), (0, 0), "the store's position is gone on from");
}

#[tokio::test]
async fn what_is_sent_again_is_dropped() {
    let place = Place::new(1);
    let messages = sessions(&mut Journal::new("j"), &["a"], 4);
    place.publish(0, &messages);
    place.publish(0, &messages[2..]);
    let first = place.archive().await;
    assert_eq!((first.consumed, first.archived, first.redelivered), (10, 5, 4));
    // A publisher that lost its acknowledgements begins again from before, after the archiver was restarted.
    place.publish(0, &messages);
    // Another recorder has the same positions, and other records.
    place.publish(0, &sessions(&mut Journal::new("k"), &["b"], 4));
    let second = place.archive().await;
    assert_eq!((second.archived, second.redelivered), (5, 6));
    assert_eq!(place.stored().await.len(), 10);
    assert_eq!(place.in_files(), place.stored().await);
    assert!(place.in_files().values().all(|times| *times == 1));
}

#[tokio::test]
async fn parts_wait_for_each_other_and_hold_nobody_up() {
    let place = Place::new(1);
    let (mut journal, mut other) = (Journal::new("j"), Journal::new("k"));
    let split = journal.exchange("a", 0, 4);
    place.publish(0, &split[..3]);
    place.publish(0, &sessions(&mut other, &["b"], 1));
    let first = place.archive().await;
    assert_eq!((first.archived, first.waiting_parts), (2, 3));
    // The publisher was killed after three parts and begins again with the first.
    place.publish(0, &split);
    place.publish(0, &journal.close("a", 0));
    let second = place.archive().await;
    assert_eq!((second.archived, second.redelivered, second.waiting_parts), (1, 3, 0));
    assert_eq!(place.stored().await.len(), 3);
    assert_eq!(place.in_files(), place.stored().await);
    assert_eq!(place.archive().await.consumed, 0);
}

#[tokio::test]
async fn what_cannot_be_read_goes_to_the_dead_letters_with_its_reason() {
    let place = Place::new(1);
    let mut messages = sessions(&mut Journal::new("j"), &["a"], 1);
    messages.insert(1, (b"key".to_vec(), b"not a parcel".to_vec()));
    place.publish(0, &messages);
    let summary = place.archive().await;
    assert_eq!((summary.archived, summary.dead_lettered, summary.uncommitted), (2, 1, 0));
    let letters = place.dead_letters(1);
    assert_eq!(
        (letters[0].key.as_slice(), letters[0].payload.as_slice()),
        (&b"key"[..], &b"not a parcel"[..])
    );
    let header = |name: &str| letters[0].headers[name].clone();
    assert!(header("foreshadow-reason").contains("version 110"), "{:?}", letters[0].headers);
    assert_eq!((header("foreshadow-topic").as_str(), header("foreshadow-partition").as_str()), (TOPIC, "0"));
    assert_eq!(header("foreshadow-offset"), "1");
    assert_eq!(place.archive().await.consumed, 0, "it is passed once");
}

#[tokio::test]
async fn nothing_passes_a_dead_letter_that_cannot_be_written() {
    let place = Place::new(1);
    place.cluster().topic_error("sessions.dead", REFUSED).expect("is set");
    let mut messages = sessions(&mut Journal::new("j"), &["a"], 1);
    messages.insert(1, (b"key".to_vec(), b"not a parcel".to_vec()));
    place.publish(0, &messages);
    let archiver = place.start(None).await;
    place.until_stored(2).await;
    archiver.stop();
    let summary = end(archiver).await.expect("stops");
    assert_eq!(summary.dead_lettered, 0);
    assert_eq!(place.lake().resume_position("sessions-0").await.expect("reads"), 1);
    place.cluster().topic_error("sessions.dead", NO_ERROR).expect("is set");
    let summary = place.archive().await;
    assert_eq!((summary.dead_lettered, summary.redelivered), (1, 2));
    assert_eq!(place.lake().resume_position("sessions-0").await.expect("reads"), 4);
    assert!(place.in_files().values().all(|times| *times == 1));
}

#[tokio::test]
async fn two_share_the_partitions() {
    let place = Place::new(4).with("[archive]\nflush-every = \"200ms\"\n");
    let mut journals: Vec<Journal> = (0..4).map(|n| Journal::new(&format!("j{n}"))).collect();
    let mut send = |from: u32, to: u32| {
        for seq in from..to {
            for (partition, journal) in (0..4).zip(&mut journals) {
                place.publish(partition, &journal.exchange(&format!("s{partition}"), seq, 1));
            }
        }
    };
    send(0, 5);
    let first = place.start(None).await;
    place.until_stored(20).await;
    send(5, 10);
    let second = place.start(None).await;
    place.until_stored(40).await;
    send(10, 15);
    place.until_stored(60).await;
    first.stop();
    let one = end(first).await.expect("stops");
    send(15, 20);
    place.until_stored(80).await;
    second.stop();
    let two = end(second).await.expect("stops");
    assert_eq!(one.archived + two.archived, 80);
    assert!(two.archived >= 20, "the one that stayed has all partitions: {one:?} {two:?}");
    assert_eq!(place.in_files(), place.stored().await);
    assert!(place.in_files().values().all(|times| *times == 1));
}

#[tokio::test]
async fn whoever_has_lost_a_partition_writes_nothing_more_to_it() {
    let place = Place::new(1).with("[archive]\nflush-every = \"200ms\"\n");
    let mut journal = Journal::new("j");
    place.publish(0, &journal.exchange("a", 0, 1));
    let archiver = place.start(None).await;
    place.until_stored(1).await;
    // Another process takes the partition over and stores what it reads.
    let lake = place.lake();
    let claim = lake.claim("sessions-0").await.expect("claims");
    assert_eq!(claim.position(), 1);
    place.publish(0, &journal.exchange("a", 1, 1));
    // The group still assigns it to the first one, so that one claims it again after a while.
    place.until_stored(2).await;
    archiver.stop();
    let summary = end(archiver).await.expect("stops");
    assert_eq!(summary.archived, 2);
    assert!(summary.consumed > 2, "it has read again what it could not commit: {summary:?}");
    assert_eq!(place.in_files().values().sum::<usize>(), 2, "what was refused left no file");
}

#[tokio::test]
async fn a_topic_made_anew_is_not_mixed_with_the_old_one() {
    let place = Place::new(1);
    place.publish(0, &sessions(&mut Journal::new("j"), &["a"], 4));
    place.archive().await;
    let anew = Place::new(1);
    anew.publish(0, &sessions(&mut Journal::new("k"), &["b"], 0));
    let archiver =
        recorder::archive::kafka_archiver::start(&anew.config(), place.lake(), Some(harness::IDLE))
            .await
            .expect("starts");
    let error = end(archiver).await.expect_err("refused").to_string();
    assert!(error.contains("made anew") && error.contains("offset 2"), "{error}");
}

#[tokio::test]
async fn a_topic_that_is_missing_is_said() {
    let place = Place::new(1);
    let mut config = place.config();
    config.kafka.topic = "nowhere".to_owned();
    place.cluster().topic_error("nowhere", UNKNOWN).expect("is set");
    let archiver = recorder::archive::kafka_archiver::start(&config, place.lake(), Some(harness::IDLE))
        .await
        .expect("starts");
    let error = end(archiver).await.expect_err("refused").to_string();
    assert!(error.contains("nowhere does not exist"), "{error}");
}
