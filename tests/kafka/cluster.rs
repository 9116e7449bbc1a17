//! The test harness's own cluster.

use rdkafka::Message as _;
use tests::kafka::Cluster;

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_messages_survive_a_killed_broker() {
    let cluster = Cluster::start(1);
    cluster.create_topic("t", 2).await;
    for number in 0..4_u8 {
        let partition = i32::from(number % 2);
        let (_, offset) = cluster.send("t", partition, b"k", &[number]);
        assert_eq!(offset, i64::from(number / 2));
    }
    cluster.kill(1);
    cluster.start_again(1);
    let found: Vec<u8> =
        cluster.messages("t").iter().filter_map(|message| message.payload()?.first().copied()).collect();
    assert_eq!(found, [0, 2, 1, 3]);
    if cluster.is_real() {
        cluster.pause(1);
        cluster.resume(1);
        assert_eq!(cluster.end_of("t", 0), 2);
    }
}
