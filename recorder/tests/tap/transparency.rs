//! The client receives what the upstream sent, and the recorder never delays it.

use schemas::exchange::Ending;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{
    Fixture, LAST_CHUNK, Received, STREAM_HEAD, Step, Upstream, chunk, post, response, route, within_limit,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_exchange_passes_and_is_stored_byte_for_byte() {
    let sent =
        response("X-First: 1\r\nSet-Cookie: a=b\r\nx-second: 2\r\nSet-Cookie: c=d\r\n", "{\"ok\" :  true}");
    let upstream = Upstream::start(vec![vec![Step::Read, Step::Send(sent.clone())]]).await;
    let fixture = Fixture::new(&route("model", &upstream.url, "protocol = \"opaque\"")).await;
    let reply = fixture
        .send(
            0,
            &post(
                "/v1/x?y=1",
                "X-Custom: Value\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n",
                "{ \"a\":1 }",
            ),
        )
        .await;
    let direct = Received::parse(&sent, true);
    assert_eq!(reply.body, direct.body);
    let mut expected = direct.head.clone();
    let mut found = reply.head.clone();
    expected.sort();
    found.sort();
    assert_eq!(found, expected, "status, header names in their case, and header values pass unchanged");
    let request = upstream.requests().await.remove(0);
    assert!(request.starts_with("POST /v1/x?y=1 HTTP/1.1\r\n"), "{request}");
    assert!(
        request.contains("X-Custom: Value\r\n") && !request.to_lowercase().contains("x-hop"),
        "{request}"
    );
    assert!(request.ends_with("{ \"a\":1 }"));
    let (exchange, stored_request, stored_response) = fixture.only_exchange().await;
    assert_eq!((stored_request, stored_response), (b"{ \"a\":1 }".to_vec(), direct.body));
    assert_eq!(
        (exchange.ending, exchange.status, exchange.path.as_deref()),
        (Ending::Complete, Some(200), Some("/v1/x?y=1"))
    );
    assert!(exchange.duration_us.is_some() && exchange.first_byte_us.is_some());
    let counts =
        fixture.recorder.shutdown(std::time::Duration::from_secs(5)).await.expect("the recorder shuts down");
    assert_eq!((counts.started, counts.journaled, counts.shed_total(), counts.archived), (1, 1, 0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_are_forwarded_as_they_arrive() {
    let (go, signal) = tokio::sync::oneshot::channel();
    let script = vec![
        Step::Read,
        Step::Send([STREAM_HEAD, &chunk("data: one\n\n")].concat()),
        // A tap that buffers would wait for the end, and the end waits until the client has the first frame.
        Step::Wait(signal),
        Step::Send([chunk("data: two\n\n"), LAST_CHUNK.to_vec()].concat()),
    ];
    let upstream = Upstream::start(vec![script]).await;
    let fixture = Fixture::new(&route("model", &upstream.url, "protocol = \"opaque\"")).await;
    let mut stream = fixture.connect(0).await;
    stream.write_all(&post("/", "", "{}")).await.expect("the tap reads");
    let mut seen = Vec::new();
    while !seen.ends_with(b"data: one\n\n\r\n") {
        let mut part = [0; 1024];
        let count = within_limit(stream.read(&mut part)).await.expect("frames come");
        assert!(count > 0, "the stream ended early");
        seen.extend_from_slice(&part[..count]);
    }
    go.send(()).expect("the upstream waits");
    while !seen.ends_with(LAST_CHUNK) {
        assert!(within_limit(stream.read_buf(&mut seen)).await.expect("frames come") > 0);
    }
    assert_eq!(Received::parse(&seen, true).text(), "data: one\n\ndata: two\n\n");
    let (exchange, _, response) = fixture.only_exchange().await;
    assert_eq!(String::from_utf8(response).expect("text"), "data: one\n\ndata: two\n\n");
    assert_eq!((exchange.ending, exchange.frame_gaps_us.len()), (Ending::Complete, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_path_prefix_wins_and_can_be_stripped() {
    let one = Upstream::start(vec![vec![Step::Read, Step::Send(response("", "one"))]]).await;
    let two = Upstream::start(vec![vec![Step::Read, Step::Send(response("", "two"))]]).await;
    let routes = route("model", &one.url, "")
        + &route("tool", &format!("{}/base", two.url), "path = \"/tools\"\nstrip-path = true");
    let fixture = Fixture::new(&routes).await;
    assert_eq!(fixture.recorder.routes()[0].address, fixture.recorder.routes()[1].address);
    assert_eq!(fixture.send(0, &post("/~session/chat-7/v1/x", "", "{}")).await.text(), "one");
    assert_eq!(fixture.send(0, &post("/~session/chat-7/tools/y?z", "", "{}")).await.text(), "two");
    assert!(one.requests().await[0].starts_with("POST /v1/x HTTP"));
    assert!(two.requests().await[0].starts_with("POST /base/y?z HTTP"));
    let sessions = fixture.sessions().await;
    assert_eq!(sessions.len(), 1);
    assert_eq!((sessions[0].session.as_str(), sessions[0].exchanges.len()), ("chat-7", 2));
    assert!(sessions[0].gaps().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_its_bound_is_forwarded_and_its_session_shed() {
    let script = || vec![Step::Read, Step::Send(response("", &"x".repeat(3000)))];
    let upstream = Upstream::start(vec![script(), script()]).await;
    let routes = format!("[limits]\nbody-bytes = 2000\n{}", route("model", &upstream.url, ""));
    let fixture = Fixture::new(&routes).await;
    assert_eq!(fixture.send(0, &post("/", "X-Session-Id: s\r\n", "{}")).await.body.len(), 3000);
    assert_eq!(
        fixture.send(0, &post("/", "X-Session-Id: s\r\nConnection: close\r\n", "{}")).await.body.len(),
        3000
    );
    let sessions = fixture.sessions().await;
    let close = &sessions[0].closes[0];
    assert_eq!((close.shed, close.shed_reason.as_deref()), (2, Some("body too large")));
    let counts = fixture.recorder.counts();
    assert_eq!((counts.started, counts.journaled, counts.shed["body too large"]), (2, 0, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgraded_connection_is_forwarded_unrecorded_and_counted() {
    let switch =
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello"
            .to_vec();
    let upstream = Upstream::start(vec![vec![Step::Read, Step::Send(switch), Step::ReadToEnd]]).await;
    let fixture = Fixture::new(&route("model", &upstream.url, "")).await;
    let mut stream = fixture.connect(0).await;
    let ask = b"GET /ws HTTP/1.1\r\nHost: tap\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n";
    stream.write_all(ask).await.expect("the tap reads");
    let mut seen = Vec::new();
    while !seen.ends_with(b"hello") {
        assert!(within_limit(stream.read_buf(&mut seen)).await.expect("frames come") > 0);
    }
    stream.write_all(b"and back").await.expect("the tap reads");
    drop(stream);
    let request = upstream.requests().await.remove(0);
    assert!(
        request.to_lowercase().contains("upgrade: websocket\r\n") && request.ends_with("and back"),
        "{request}"
    );
    let counts = fixture.recorder.counts();
    assert_eq!((counts.started, counts.upgraded), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_journal_sheds_complete_sessions_and_the_tap_forwards_on() {
    let calls = 30;
    let script = || vec![Step::Read, Step::Send(response("Connection: close\r\n", &"y".repeat(500)))];
    let upstream = Upstream::start((0..calls).map(|_| script()).collect()).await;
    // The archiver waits for the end of the test, so it frees nothing before.
    let limits = "[limits]\njournal-bytes = \"8KiB\"\n[archive]\nflush-every = \"1h\"\n";
    let fixture = Fixture::new(&format!("{limits}{}", route("model", &upstream.url, ""))).await;
    for call in 0..calls {
        let headers = format!("X-Session-Id: s{call}\r\nConnection: close\r\n");
        assert_eq!(fixture.send(0, &post("/", &headers, &format!("{{\"n\":{call}}}"))).await.body.len(), 500);
    }
    // Archiving makes room, so each round writes further close rows of shed sessions.
    for _ in 0..4 {
        fixture.sessions().await;
    }
    let sessions = fixture.sessions().await;
    let counts = fixture.recorder.counts();
    assert_eq!(counts.started, calls);
    assert_eq!(counts.journaled + counts.shed_total(), calls, "{counts:?}");
    assert!(counts.journaled > 0 && counts.shed_total() > 0, "{counts:?}");
    let shed = |session: &store::StoredSession| {
        session.closes.iter().map(|close| u64::from(close.shed)).sum::<u64>()
    };
    let stored: usize = sessions.iter().map(|session| session.exchanges.len()).sum();
    assert_eq!(
        (stored as u64, sessions.iter().map(shed).sum::<u64>()),
        (counts.journaled, counts.shed_total())
    );
    for session in &sessions {
        assert_eq!(session.gaps().is_empty(), shed(session) == 0, "{:?}", session.gaps());
    }
}

/// On a runtime of one thread, the tap stands still while anything blocks that thread.
#[tokio::test]
async fn archiving_leaves_the_runtime_of_the_tap_free() {
    let exchanges = 24;
    let script = || vec![Step::Read, Step::Send(response("Connection: close\r\n", "{}"))];
    let upstream = Upstream::start((0..exchanges).map(|_| script()).collect()).await;
    let archive = "[archive]\nflush-every = \"1h\"\n";
    let fixture = Fixture::new(&format!("{archive}{}", route("model", &upstream.url, ""))).await;
    for number in 0_u64..exchanges {
        // Text without repetition, so that encoding takes its time.
        let text: String = (0..10_000)
            .map(|part| format!("{:x}", (number * 10_000 + part).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
            .collect();
        let body = format!(r#"{{"messages":[{{"role":"user","content":"{text}"}}]}}"#);
        fixture.send(0, &post("/v1/chat/completions", "Connection: close\r\n", &body)).await;
    }
    let started = std::time::Instant::now();
    let (mut last, mut longest) = (started, std::time::Duration::ZERO);
    let mut flushed = std::pin::pin!(within_limit(fixture.recorder.flush()));
    loop {
        tokio::select! {
            result = flushed.as_mut() => break result.expect("the store accepts everything"),
            () = tokio::task::yield_now() => {
                longest = longest.max(last.elapsed());
                last = std::time::Instant::now();
            }
        }
    }
    longest = longest.max(last.elapsed());
    let total = started.elapsed();
    assert!(longest < total / 2, "the runtime stood still for {longest:?} of {total:?}");
}
