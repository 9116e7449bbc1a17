//! Brokers that are away: production goes on, the journal fills to its bound, whole sessions are shed and counted, and
//! what is journaled arrives when they come back.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::harness::{Upstream, ask, check, cluster, read, soon, start, until};

#[tokio::test(flavor = "multi_thread")]
async fn traffic_goes_on_and_everything_journaled_arrives_later() {
    let (cluster, upstream) = (cluster(2), Upstream::start().await);
    let folder = tempfile::tempdir().expect("a folder");
    let brokers = cluster.bootstrap_servers();
    let recorder = start(folder.path(), &brokers, &upstream, "[limits]\njournal-bytes = \"128KiB\"").await;
    ask(&recorder, "before", "a question before").await;
    until(&recorder, |counts| counts.published == 1).await;
    cluster.broker_down(1).expect("a mock broker");
    // Far more than the journal has room for; every one of them is answered.
    for round in 0..2 {
        for session in 0..120 {
            let body: String = (0..60).map(|word| format!("word {session} {round} {word} ")).collect();
            ask(&recorder, &format!("s{session}"), &body).await;
            // The journal's thread may be slower than this client, and what it has not written weighs nothing yet.
            until(&recorder, |counts| counts.started == counts.journaled + counts.shed_total()).await;
        }
    }
    let counts = until(&recorder, |counts| counts.started == counts.journaled + counts.shed_total()).await;
    assert_eq!((counts.started, counts.published), (241, 1));
    assert!(counts.shed_total() > 0 && counts.journaled > 20, "{counts:?}");
    assert!(
        counts.shed.contains_key("session sampled out"),
        "sessions are shed before it is full: {counts:?}"
    );
    cluster.broker_up(1).expect("a mock broker");
    let counts = until(&recorder, |counts| counts.published == counts.journaled).await;
    soon(recorder.flush()).await.expect("the cluster takes everything");
    // The journal is let go soon, and then there is room for a new session.
    let room = async {
        for number in 0.. {
            ask(&recorder, &format!("after{number}"), "a question after").await;
            let settled =
                until(&recorder, |counts| counts.started == counts.journaled + counts.shed_total()).await;
            if settled.journaled > counts.journaled {
                return;
            }
        }
    };
    soon(room).await;
    let counts = soon(recorder.shutdown(Duration::from_secs(20))).await.expect("an orderly end");
    let arrived = read(&cluster, counts.journaled);
    assert_eq!(check(&arrived), counts.journaled);
    let closes: BTreeSet<&[u8]> =
        arrived.iter().filter(|one| one.exchange().is_none()).map(|one| one.key.as_slice()).collect();
    for one in &arrived {
        assert!(closes.contains(one.key.as_slice()), "every session has its close row");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_acknowledged_waits_for_the_next_start() {
    let (cluster, upstream) = (cluster(2), Upstream::start().await);
    let folder = tempfile::tempdir().expect("a folder");
    let brokers = cluster.bootstrap_servers();
    let recorder = start(folder.path(), &brokers, &upstream, "").await;
    for turn in 0..4 {
        ask(&recorder, &format!("s{}", turn % 2), "a question").await;
    }
    until(&recorder, |counts| counts.published == 4).await;
    cluster.broker_down(1).expect("a mock broker");
    for turn in 0..6 {
        ask(&recorder, &format!("s{}", turn % 2), "another question").await;
    }
    let counts = soon(recorder.shutdown(Duration::from_millis(100))).await.expect("nothing is lost");
    assert_eq!((counts.published, counts.journaled), (4, 10));
    assert!(counts.waiting > 0);
    cluster.broker_up(1).expect("a mock broker");
    let recorder = start(folder.path(), &brokers, &upstream, "").await;
    ask(&recorder, "s2", "a third question").await;
    soon(recorder.flush()).await.expect("the cluster takes everything");
    let arrived = read(&cluster, 11);
    assert_eq!(check(&arrived), 11);
    let exchanges: BTreeSet<&str> =
        arrived.iter().filter_map(|one| one.exchange()).map(|exchange| exchange.exchange.as_str()).collect();
    assert_eq!(exchanges.len(), 11, "none twice");
    let counts = soon(recorder.shutdown(Duration::from_secs(10))).await.expect("an orderly end");
    assert_eq!(counts.waiting, 0);
}
