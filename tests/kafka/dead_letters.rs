//! Undecodable messages.

use std::collections::BTreeMap;

use rdkafka::Message as _;
use rdkafka::message::{Headers as _, OwnedMessage};
use tests::kafka::Cluster;
use tests::pipeline::Pipeline;
use tests::traffic::Traffic;

fn headers(message: &OwnedMessage) -> BTreeMap<String, String> {
    let headers = message.headers().expect("a dead letter has headers").iter();
    let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
    headers.map(|header| (header.key.to_owned(), text(header.value))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undecodable_message_goes_to_the_dead_letter_topic_with_the_reason() {
    let cluster = Cluster::shared();
    let folder = tempfile::tempdir().expect("temp");
    let pipeline = Pipeline::new(cluster, folder.path(), "poison", 2, "").await;
    let (recorder, url) = pipeline.record();
    let traffic = Traffic::start(&url, "s", 4, 40);
    let archiver = pipeline.archive();
    traffic.wait_for(50).await;
    // No message value, one of another version, and one whose content has no records.
    let broken = codec::MessageValue {
        journal: "nobody".to_owned(),
        position: 1,
        part: 0,
        parts: 1,
        content: vec![9, 9, 9],
    };
    let poison = [b"\x01nonsense".to_vec(), vec![99, 1, 2, 3], broken.encode().expect("encodes")];
    let mut placed = Vec::new();
    for (number, value) in poison.iter().enumerate() {
        let key = format!("key-{number}");
        let partition = i32::try_from(number % 2).expect("0 or 1");
        let _ = cluster.send(pipeline.topic(), partition, key.as_bytes(), value);
        placed.push((key, value.clone()));
        traffic.wait_for(20).await;
    }
    let calls = traffic.stop().await;
    let _ = recorder.terminate();
    archiver.terminate();
    pipeline.settle().await;
    let compared = pipeline.compare(&calls).await.expect("every exchange is stored once");
    assert_eq!(compared.bodies, calls.len());

    let letters = cluster.messages("poison.dead");
    for (key, value) in &placed {
        let letter = letters.iter().find(|letter| letter.key() == Some(key.as_bytes()));
        let letter = letter.unwrap_or_else(|| panic!("{key} is not among {} dead letters", letters.len()));
        assert_eq!(letter.payload(), Some(value.as_slice()), "{key}");
        let headers = headers(letter);
        let all = format!("{headers:?}");
        assert!(headers.keys().any(|name| name.contains("reason")), "{all}");
        for name in ["topic", "partition", "offset"] {
            assert!(headers.keys().any(|header| header.contains(name)), "no {name} in {all}");
        }
        assert!(headers.values().any(|header| header == pipeline.topic()), "{all}");
    }
    assert_eq!(letters.len(), placed.len(), "only undecodable messages are dead letters");
}
