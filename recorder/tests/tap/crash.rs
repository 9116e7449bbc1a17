//! A recorder that is killed loses nothing that was journaled, and stores nothing twice.

use std::collections::BTreeSet;
use std::path::Path;

use crate::harness::{Bench, Step, Upstream, answer, post, route, sessions_in, soon, start_in};

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

/// What a disk holds at one moment is what a process killed at that moment leaves behind.
async fn recovered(disk: &Path, url: &str) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a folder");
    copy(disk, folder.path());
    let recorder = start_in(folder.path(), &route("model", url, "")).await;
    soon(recorder.flush()).await.expect("the store takes everything");
    let sessions = sessions_in(&folder.path().join("store")).await;
    let ids = |session: &store::StoredSession| {
        for exchange in &session.exchanges {
            assert!(session.body(&exchange.request).is_ok() && session.body(&exchange.response).is_ok());
        }
        session.exchanges.iter().map(|exchange| exchange.exchange.as_str().to_owned()).collect::<Vec<_>>()
    };
    let found = sessions.iter().flat_map(ids).collect();
    recorder.shutdown(std::time::Duration::from_secs(5)).await.expect("an orderly end");
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_journaled_is_in_parquet_once_after_a_kill() {
    let turns = 12;
    let body = format!(r#"{{"messages":[{{"role":"user","content":"{}"}}]}}"#, "a long message ".repeat(8));
    let script = || vec![Step::Read, Step::Send(answer("Connection: close\r\n", &"an answer ".repeat(20)))];
    let upstream = Upstream::start((0..turns).map(|_| script()).collect()).await;
    let bench = Bench::new(&route("model", &upstream.url, "")).await;
    for turn in 0..turns {
        let session = format!("X-Session-Id: s{}\r\nConnection: close\r\n", turn % 3);
        bench.ask(0, &post("/v1/chat/completions", &session, &body)).await;
        if turn == 5 {
            soon(bench.recorder.flush()).await.expect("half of it is archived before the kill");
        }
        let journaled = bench.recorder.counts().journaled;
        let found = recovered(bench.folder.path(), &upstream.url).await;
        assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), found.len(), "none twice");
        assert!(
            found.len() as u64 >= journaled,
            "{} of {journaled} were found after turn {turn}",
            found.len()
        );
    }
    soon(bench.recorder.flush()).await.expect("all of it");
    assert_eq!(recovered(bench.folder.path(), &upstream.url).await.len(), turns);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_recorder_lets_go_of_its_journal() {
    let upstream = Upstream::start(vec![vec![Step::Read, Step::Send(answer("", "{}"))]]).await;
    let bench = Bench::new(&route("model", &upstream.url, "")).await;
    bench.ask(0, &post("/", "X-Session-Id: s\r\n", "{}")).await;
    let Bench { folder, recorder } = bench;
    drop(recorder);
    let again = async {
        loop {
            let text = crate::harness::config_text(folder.path(), &route("model", &upstream.url, ""));
            let config = recorder::config::Config::parse(&text).expect("a good configuration");
            match recorder::start(config, schemas::keys::RootKey::new([9; 32]), crate::harness::clock()).await
            {
                Ok(recorder) => return recorder,
                // Its threads are still ending.
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    let again = soon(again).await;
    soon(again.flush()).await.expect("the store takes everything");
    assert_eq!(sessions_in(&folder.path().join("store")).await[0].exchanges.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_larger_than_a_batch_is_archived() {
    let script = || vec![Step::Read, Step::Send(answer("", "{}"))];
    let upstream = Upstream::start(vec![script(), script()]).await;
    let routes = format!("{}[archive]\nflush-bytes = \"1 KiB\"\n", route("model", &upstream.url, ""));
    let bench = Bench::new(&routes).await;
    let message = |letter: &str| format!(r#"{{"role":"user","content":"{}"}}"#, letter.repeat(100_000));
    for (one, two) in [("a", "b"), ("c", "d")] {
        let body = format!(r#"{{"messages":[{},{}]}}"#, message(one), message(two));
        bench.ask(0, &post("/", "X-Session-Id: s\r\nConnection: close\r\n", &body)).await;
    }
    let sessions = bench.sessions().await;
    assert_eq!((sessions[0].exchanges.len(), sessions[0].gaps()), (2, vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_was_taken_over_stops_and_says_so() {
    let script = || vec![Step::Read, Step::Send(answer("Connection: close\r\n", "{}"))];
    let upstream = Upstream::start(vec![script(), script(), script()]).await;
    let bench = Bench::new(&route("model", &upstream.url, "")).await;
    let request = post("/", "X-Session-Id: s\r\nConnection: close\r\n", "{}");
    bench.ask(0, &request).await;
    soon(bench.recorder.flush()).await.expect("the store takes the first");
    let copied = tempfile::tempdir().expect("a folder");
    copy(&bench.folder.path().join("state"), &copied.path().join("state"));
    std::os::unix::fs::symlink(bench.folder.path().join("store"), copied.path().join("store"))
        .expect("a link");
    let other = start_in(copied.path(), &route("model", &upstream.url, "")).await;
    let mut stream =
        tokio::net::TcpStream::connect(other.routes()[0].address).await.expect("the tap listens");
    let others = post("/", "X-Session-Id: t\r\n", "{}");
    tokio::io::AsyncWriteExt::write_all(&mut stream, &others).await.expect("the tap reads");
    soon(crate::harness::Reply::read(&mut stream)).await;
    soon(other.close_sessions()).await.expect("sessions close");
    soon(other.flush()).await.expect("the other one commits");
    bench.ask(0, &request).await;
    for _ in 0..2 {
        let refused = soon(bench.recorder.flush()).await.expect_err("the position is taken");
        assert!(matches!(refused, recorder::FlushError::TakenOver(_)), "{refused}");
    }
    let folder = bench.folder;
    let refused = soon(bench.recorder.shutdown(std::time::Duration::from_secs(1))).await;
    assert!(refused.is_err(), "it ends, and says that not everything is archived");
    drop(folder);
}
