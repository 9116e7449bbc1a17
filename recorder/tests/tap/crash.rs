//! A killed recorder loses no journaled exchange and stores none twice.

use std::collections::BTreeSet;
use std::path::Path;

use crate::harness::{Fixture, Step, Upstream, post, response, route, sessions_in, start_in, within_limit};

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

/// Starts a recorder on a copy of the disk, which is what a process killed at this moment leaves, and reads the store.
async fn recovered(disk: &Path, url: &str) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a folder");
    copy(disk, folder.path());
    let recorder = start_in(folder.path(), &route("model", url, "")).await;
    within_limit(recorder.flush()).await.expect("the store accepts everything");
    let sessions = sessions_in(&folder.path().join("store")).await;
    let ids = |session: &store::StoredSession| {
        for exchange in &session.exchanges {
            assert!(session.body(&exchange.request).is_ok() && session.body(&exchange.response).is_ok());
        }
        session.exchanges.iter().map(|exchange| exchange.exchange.as_str().to_owned()).collect::<Vec<_>>()
    };
    let found = sessions.iter().flat_map(ids).collect();
    recorder.shutdown(std::time::Duration::from_secs(5)).await.expect("the recorder shuts down");
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_after_a_kill_archives_every_journaled_exchange_once() {
    let turns = 12;
    let body = format!(r#"{{"messages":[{{"role":"user","content":"{}"}}]}}"#, "a long message ".repeat(8));
    let script = || vec![Step::Read, Step::Send(response("Connection: close\r\n", &"an answer ".repeat(20)))];
    let upstream = Upstream::start((0..turns).map(|_| script()).collect()).await;
    let fixture = Fixture::new(&route("model", &upstream.url, "")).await;
    for turn in 0..turns {
        let session = format!("X-Session-Id: s{}\r\nConnection: close\r\n", turn % 3);
        fixture.send(0, &post("/v1/chat/completions", &session, &body)).await;
        if turn == 5 {
            within_limit(fixture.recorder.flush()).await.expect("the first half is archived before the kill");
        }
        let journaled = fixture.recorder.counts().journaled;
        let found = recovered(fixture.folder.path(), &upstream.url).await;
        assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), found.len(), "no exchange is stored twice");
        assert!(
            found.len() as u64 >= journaled,
            "{} of {journaled} were found after turn {turn}",
            found.len()
        );
    }
    within_limit(fixture.recorder.flush()).await.expect("the rest is archived");
    assert_eq!(recovered(fixture.folder.path(), &upstream.url).await.len(), turns);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_recorder_unlocks_its_journal() {
    let upstream = Upstream::start(vec![vec![Step::Read, Step::Send(response("", "{}"))]]).await;
    let fixture = Fixture::new(&route("model", &upstream.url, "")).await;
    fixture.send(0, &post("/", "X-Session-Id: s\r\n", "{}")).await;
    let Fixture { folder, recorder } = fixture;
    drop(recorder);
    let again = async {
        loop {
            let text = crate::harness::config_text(folder.path(), &route("model", &upstream.url, ""));
            let config = recorder::config::Config::parse(&text).expect("a valid configuration");
            match recorder::start(config, schemas::keys::RootKey::new([9; 32]), crate::harness::clock()).await
            {
                Ok(recorder) => return recorder,
                // The threads of the dropped recorder still end.
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    let again = within_limit(again).await;
    within_limit(again.flush()).await.expect("the store accepts everything");
    assert_eq!(sessions_in(&folder.path().join("store")).await[0].exchanges.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_larger_than_a_batch_is_archived() {
    let script = || vec![Step::Read, Step::Send(response("", "{}"))];
    let upstream = Upstream::start(vec![script(), script()]).await;
    let routes = format!("{}[archive]\nflush-bytes = \"1 KiB\"\n", route("model", &upstream.url, ""));
    let fixture = Fixture::new(&routes).await;
    let message = |letter: &str| format!(r#"{{"role":"user","content":"{}"}}"#, letter.repeat(100_000));
    for (one, two) in [("a", "b"), ("c", "d")] {
        let body = format!(r#"{{"messages":[{},{}]}}"#, message(one), message(two));
        fixture.send(0, &post("/", "X-Session-Id: s\r\nConnection: close\r\n", &body)).await;
    }
    let sessions = fixture.sessions().await;
    assert_eq!((sessions[0].exchanges.len(), sessions[0].gaps()), (2, vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archiver_stops_when_another_process_commits_for_its_journal() {
    let script = || vec![Step::Read, Step::Send(response("Connection: close\r\n", "{}"))];
    let upstream = Upstream::start(vec![script(), script(), script()]).await;
    let fixture = Fixture::new(&route("model", &upstream.url, "")).await;
    let request = post("/", "X-Session-Id: s\r\nConnection: close\r\n", "{}");
    fixture.send(0, &request).await;
    within_limit(fixture.recorder.flush()).await.expect("the store accepts the first exchange");
    let copied = tempfile::tempdir().expect("a folder");
    copy(&fixture.folder.path().join("state"), &copied.path().join("state"));
    std::os::unix::fs::symlink(fixture.folder.path().join("store"), copied.path().join("store"))
        .expect("a link");
    let other = start_in(copied.path(), &route("model", &upstream.url, "")).await;
    let mut stream =
        tokio::net::TcpStream::connect(other.routes()[0].address).await.expect("the tap listens");
    let others = post("/", "X-Session-Id: t\r\n", "{}");
    tokio::io::AsyncWriteExt::write_all(&mut stream, &others).await.expect("the tap reads");
    within_limit(crate::harness::Received::read(&mut stream)).await;
    within_limit(other.close_sessions()).await.expect("sessions close");
    within_limit(other.flush()).await.expect("the other one commits");
    fixture.send(0, &request).await;
    for _ in 0..2 {
        let refused = within_limit(fixture.recorder.flush())
            .await
            .expect_err("another process has committed this position");
        assert!(matches!(refused, recorder::FlushError::TakenOver(_)), "{refused}");
    }
    let folder = fixture.folder;
    let refused = within_limit(fixture.recorder.shutdown(std::time::Duration::from_secs(1))).await;
    assert!(refused.is_err(), "the recorder ends and reports that some exchanges are not archived");
    drop(folder);
}
