//! Journaled exchanges arrive once, complete and in order per session, before the journal releases them.

use std::time::Duration;

use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{Upstream, ask, check, cluster, read, soon, start, until};

#[tokio::test(flavor = "multi_thread")]
async fn every_exchange_arrives_in_order_and_the_journal_releases_it() {
    let (cluster, upstream) = (cluster(3), Upstream::start().await);
    let folder = tempfile::tempdir().expect("a folder");
    let brokers = cluster.bootstrap_servers();
    let recorder = start(folder.path(), &brokers, &upstream, "[limits]\njournal-bytes = \"8MiB\"").await;
    // Without repeated chunks, so that it exceeds the size of a message.
    let long: String = (0..300_000).map(|number| format!("{number:07}")).collect();
    for turn in 0..5 {
        for session in ["one", "two", "three", "four"] {
            let body = if turn == 2 && session == "two" { long.as_str() } else { "a short question" };
            ask(&recorder, session, body).await;
        }
    }
    soon(recorder.flush()).await.expect("the cluster acknowledges every record");
    let counts = recorder.counts();
    assert_eq!((counts.published, counts.waiting, counts.shed_total()), (20, 0, 0));
    let counts = soon(recorder.shutdown(Duration::from_secs(10))).await.expect("it stops in order");
    assert_eq!((counts.published, counts.waiting), (20, 0));
    let arrived = read(&cluster, 20);
    assert_eq!(check(&arrived), 20);
    assert_eq!(arrived.len(), 24, "20 exchanges and 4 close rows");
    let split = arrived.iter().find(|one| one.parts > 1).expect("one message is in parts");
    assert!(split.parts >= 3 && split.request().expect("the message has its chunks") == long.as_bytes());
    let left: u64 = std::fs::read_dir(folder.path().join("state/journal"))
        .expect("the journal")
        .map(|entry| entry.expect("an entry").metadata().expect("a file").len())
        .sum();
    assert!(left < long.len() as u64, "{left} bytes are left in the journal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_with_a_smaller_size_limit_gets_smaller_messages_without_a_gap() {
    let (cluster, upstream) = (cluster(1), Upstream::start().await);
    let folder = tempfile::tempdir().expect("a folder");
    let too_large = RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
    cluster.request_errors(RDKafkaApiKey::Produce, &[too_large, too_large]);
    let recorder = start(folder.path(), &cluster.bootstrap_servers(), &upstream, "").await;
    let long: String = (0..100_000).map(|number| format!("{number:07}")).collect();
    for turn in 0..6 {
        ask(&recorder, "one", if turn == 0 { &long } else { "a short question" }).await;
    }
    soon(recorder.flush()).await.expect("the cluster acknowledges every record");
    let arrived = read(&cluster, 6);
    assert_eq!(check(&arrived), 6);
    assert!(arrived[0].parts >= 4, "{} parts", arrived[0].parts);
    let seqs: Vec<u32> =
        arrived.iter().filter_map(|one| one.exchange()).map(|exchange| exchange.seq).collect();
    assert_eq!(seqs, [0, 1, 2, 3, 4, 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_temporary_refusal_every_exchange_arrives() {
    let (cluster, upstream) = (cluster(2), Upstream::start().await);
    let folder = tempfile::tempdir().expect("a folder");
    let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    cluster.request_errors(RDKafkaApiKey::Produce, &[refused, refused, refused]);
    let metrics = "[metrics]\nlisten = \"127.0.0.1:0\"";
    let recorder = start(folder.path(), &cluster.bootstrap_servers(), &upstream, metrics).await;
    for turn in 0..12 {
        ask(&recorder, &format!("s{}", turn % 4), "a short question").await;
    }
    until(&recorder, |counts| counts.published == 12).await;
    assert_eq!(check(&read(&cluster, 12)), 12);
    let address = recorder.metrics_address().expect("metrics are served");
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
    let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.expect("it reads");
    let mut text = String::new();
    soon(stream.read_to_string(&mut text)).await.expect("it answers");
    for line in ["foreshadow_exchanges_published_total 12", "foreshadow_kafka_up 1"] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    assert!(!text.contains("entries_resent_total 0\n"), "{text}");
    let counts = soon(recorder.shutdown(Duration::from_secs(10))).await.expect("it stops in order");
    assert_eq!(counts.waiting, 0);
}
