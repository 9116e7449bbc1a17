//! What the client receives is what the upstream sent.

use schemas::exchange::Ending;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{
    Bench, LAST_CHUNK, Reply, STREAM_HEAD, Step, Upstream, answer, chunk, post, route, soon,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_exchange_passes_and_is_stored_byte_for_byte() {
    let sent =
        answer("X-First: 1\r\nSet-Cookie: a=b\r\nx-second: 2\r\nSet-Cookie: c=d\r\n", "{\"ok\" :  true}");
    let upstream = Upstream::start(vec![vec![Step::Read, Step::Send(sent.clone())]]).await;
    let bench = Bench::new(&route("model", &upstream.url, "protocol = \"opaque\"")).await;
    let reply = bench
        .ask(
            0,
            &post(
                "/v1/x?y=1",
                "X-Custom: Value\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n",
                "{ \"a\":1 }",
            ),
        )
        .await;
    let direct = Reply::parse(&sent, true);
    assert_eq!(reply.body, direct.body);
    let mut expected = direct.head.clone();
    let mut found = reply.head.clone();
    expected.sort();
    found.sort();
    assert_eq!(found, expected, "status, names in their case, and values are the upstream's");
    let request = upstream.requests().await.remove(0);
    assert!(request.starts_with("POST /v1/x?y=1 HTTP/1.1\r\n"), "{request}");
    assert!(
        request.contains("X-Custom: Value\r\n") && !request.to_lowercase().contains("x-hop"),
        "{request}"
    );
    assert!(request.ends_with("{ \"a\":1 }"));
    let (exchange, stored_request, stored_response) = bench.only().await;
    assert_eq!((stored_request, stored_response), (b"{ \"a\":1 }".to_vec(), direct.body));
    assert_eq!(
        (exchange.ending, exchange.status, exchange.path.as_deref()),
        (Ending::Complete, Some(200), Some("/v1/x?y=1"))
    );
    assert!(exchange.duration_us.is_some() && exchange.first_byte_us.is_some());
    let counts = bench.recorder.shutdown(std::time::Duration::from_secs(5)).await.expect("an orderly end");
    assert_eq!((counts.started, counts.journaled, counts.shed_total(), counts.archived), (1, 1, 0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_are_forwarded_as_they_arrive() {
    let (go, word) = tokio::sync::oneshot::channel();
    let script = vec![
        Step::Read,
        Step::Send([STREAM_HEAD, &chunk("data: one\n\n")].concat()),
        // A tap that buffers would wait for the end, which waits for the client to have seen the first frame.
        Step::Wait(word),
        Step::Send([chunk("data: two\n\n"), LAST_CHUNK.to_vec()].concat()),
    ];
    let upstream = Upstream::start(vec![script]).await;
    let bench = Bench::new(&route("model", &upstream.url, "protocol = \"opaque\"")).await;
    let mut stream = bench.connect(0).await;
    stream.write_all(&post("/", "", "{}")).await.expect("the tap reads");
    let mut seen = Vec::new();
    while !seen.ends_with(b"data: one\n\n\r\n") {
        let mut part = [0; 1024];
        let count = soon(stream.read(&mut part)).await.expect("frames come");
        assert!(count > 0, "the stream ended early");
        seen.extend_from_slice(&part[..count]);
    }
    go.send(()).expect("the upstream waits");
    while !seen.ends_with(LAST_CHUNK) {
        assert!(soon(stream.read_buf(&mut seen)).await.expect("frames come") > 0);
    }
    assert_eq!(Reply::parse(&seen, true).text(), "data: one\n\ndata: two\n\n");
    let (exchange, _, response) = bench.only().await;
    assert_eq!(String::from_utf8(response).expect("text"), "data: one\n\ndata: two\n\n");
    assert_eq!((exchange.ending, exchange.frame_gaps_us.len()), (Ending::Complete, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_path_wins_and_may_be_cut_off() {
    let one = Upstream::start(vec![vec![Step::Read, Step::Send(answer("", "one"))]]).await;
    let two = Upstream::start(vec![vec![Step::Read, Step::Send(answer("", "two"))]]).await;
    let routes = route("model", &one.url, "")
        + &route("tool", &format!("{}/base", two.url), "path = \"/tools\"\nstrip-path = true");
    let bench = Bench::new(&routes).await;
    assert_eq!(bench.recorder.routes()[0].address, bench.recorder.routes()[1].address);
    assert_eq!(bench.ask(0, &post("/~session/chat-7/v1/x", "", "{}")).await.text(), "one");
    assert_eq!(bench.ask(0, &post("/~session/chat-7/tools/y?z", "", "{}")).await.text(), "two");
    assert!(one.requests().await[0].starts_with("POST /v1/x HTTP"));
    assert!(two.requests().await[0].starts_with("POST /base/y?z HTTP"));
    let sessions = bench.sessions().await;
    assert_eq!(sessions.len(), 1);
    assert_eq!((sessions[0].session.as_str(), sessions[0].exchanges.len()), ("chat-7", 2));
    assert!(sessions[0].gaps().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_the_bound_is_forwarded_and_its_session_shed() {
    let script = || vec![Step::Read, Step::Send(answer("", &"x".repeat(3000)))];
    let upstream = Upstream::start(vec![script(), script()]).await;
    let routes = format!("[limits]\nbody-bytes = 2000\n{}", route("model", &upstream.url, ""));
    let bench = Bench::new(&routes).await;
    assert_eq!(bench.ask(0, &post("/", "X-Session-Id: s\r\n", "{}")).await.body.len(), 3000);
    assert_eq!(
        bench.ask(0, &post("/", "X-Session-Id: s\r\nConnection: close\r\n", "{}")).await.body.len(),
        3000
    );
    let sessions = bench.sessions().await;
    let close = &sessions[0].closes[0];
    assert_eq!((close.shed, close.shed_reason.as_deref()), (2, Some("body too large")));
    let counts = bench.recorder.counts();
    assert_eq!((counts.started, counts.journaled, counts.shed["body too large"]), (2, 0, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgraded_connection_passes_unrecorded_and_is_counted() {
    let switch =
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello"
            .to_vec();
    let upstream = Upstream::start(vec![vec![Step::Read, Step::Send(switch), Step::ReadToEnd]]).await;
    let bench = Bench::new(&route("model", &upstream.url, "")).await;
    let mut stream = bench.connect(0).await;
    let ask = b"GET /ws HTTP/1.1\r\nHost: tap\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n";
    stream.write_all(ask).await.expect("the tap reads");
    let mut seen = Vec::new();
    while !seen.ends_with(b"hello") {
        assert!(soon(stream.read_buf(&mut seen)).await.expect("frames come") > 0);
    }
    stream.write_all(b"and back").await.expect("the tap reads");
    drop(stream);
    let request = upstream.requests().await.remove(0);
    assert!(
        request.to_lowercase().contains("upgrade: websocket\r\n") && request.ends_with("and back"),
        "{request}"
    );
    let counts = bench.recorder.counts();
    assert_eq!((counts.started, counts.upgraded), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_journal_sheds_whole_sessions_and_production_goes_on() {
    let calls = 30;
    let script = || vec![Step::Read, Step::Send(answer("Connection: close\r\n", &"y".repeat(500)))];
    let upstream = Upstream::start((0..calls).map(|_| script()).collect()).await;
    // Nothing is archived before the end, so nothing is freed.
    let limits = "[limits]\njournal-bytes = \"8KiB\"\n[archive]\nflush-every = \"1h\"\n";
    let bench = Bench::new(&format!("{limits}{}", route("model", &upstream.url, ""))).await;
    for call in 0..calls {
        let headers = format!("X-Session-Id: s{call}\r\nConnection: close\r\n");
        assert_eq!(bench.ask(0, &post("/", &headers, &format!("{{\"n\":{call}}}"))).await.body.len(), 500);
    }
    // What is archived makes room, so the rows of the sessions that were shed are written little by little.
    for _ in 0..4 {
        bench.sessions().await;
    }
    let sessions = bench.sessions().await;
    let counts = bench.recorder.counts();
    assert_eq!(counts.started, calls);
    assert_eq!(counts.journaled + counts.shed_total(), calls, "{counts:?}");
    assert!(counts.journaled > 0 && counts.shed_total() > 0, "{counts:?}");
    let told = |session: &store::StoredSession| {
        session.closes.iter().map(|close| u64::from(close.shed)).sum::<u64>()
    };
    let stored: usize = sessions.iter().map(|session| session.exchanges.len()).sum();
    assert_eq!(
        (stored as u64, sessions.iter().map(told).sum::<u64>()),
        (counts.journaled, counts.shed_total())
    );
    for session in &sessions {
        assert_eq!(session.gaps().is_empty(), told(session) == 0, "{:?}", session.gaps());
    }
}
