//! Brokers that are down: the upstream answers every request, the journal fills to its bound, sessions are shed and counted,
//! and journaled exchanges arrive when the brokers are back.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::harness::{Upstream, ask, check, cluster, read, soon, start, until};

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_answered_and_journaled_exchanges_arrive_later() {
    let (cluster, upstream) = (cluster(2), Upstream::start().await);
    let folder = tempfile::tempdir().expect("a folder");
    let brokers = cluster.bootstrap_servers();
    let recorder = start(folder.path(), &brokers, &upstream, "[limits]\njournal-bytes = \"128KiB\"").await;
    ask(&recorder, "before", "a question before").await;
    until(&recorder, |counts| counts.published == 1).await;
    cluster.broker_down(1).expect("a mock broker");
    // More than the journal can hold. Every request is answered.
    for round in 0..2 {
        for session in 0..120 {
            let body: String = (0..60).map(|word| format!("word {session} {round} {word} ")).collect();
            ask(&recorder, &format!("s{session}"), &body).await;
            // The bound counts only what the journal thread has written, so wait for it.
            until(&recorder, |counts| counts.started == counts.journaled + counts.shed_total()).await;
        }
    }
    let counts = until(&recorder, |counts| counts.started == counts.journaled + counts.shed_total()).await;
    assert_eq!((counts.started, counts.published), (241, 1));
    assert!(counts.shed_total() > 0 && counts.journaled > 20, "{counts:?}");
    assert!(
        counts.shed.contains_key("session sampled out"),
        "new sessions are shed before the journal is full: {counts:?}"
    );
    cluster.broker_up(1).expect("a mock broker");
    let counts = until(&recorder, |counts| counts.published == counts.journaled).await;
    soon(recorder.flush()).await.expect("the cluster acknowledges every record");
    // The journal releases its segments soon, then has room for a new session.
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
    let counts = soon(recorder.shutdown(Duration::from_secs(20))).await.expect("it stops in order");
    let arrived = read(&cluster, counts.journaled);
    assert_eq!(check(&arrived), counts.journaled);
    let closes: BTreeSet<&[u8]> =
        arrived.iter().filter(|one| one.exchange().is_none()).map(|one| one.key.as_slice()).collect();
    for one in &arrived {
        assert!(closes.contains(one.key.as_slice()), "every session has its close row");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unacknowledged_exchanges_wait_for_the_next_start() {
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
    soon(recorder.flush()).await.expect("the cluster acknowledges every record");
    let arrived = read(&cluster, 11);
    assert_eq!(check(&arrived), 11);
    let exchanges: BTreeSet<&str> =
        arrived.iter().filter_map(|one| one.exchange()).map(|exchange| exchange.exchange.as_str()).collect();
    assert_eq!(exchanges.len(), 11, "no duplicates");
    let counts = soon(recorder.shutdown(Duration::from_secs(10))).await.expect("it stops in order");
    assert_eq!(counts.waiting, 0);
}
