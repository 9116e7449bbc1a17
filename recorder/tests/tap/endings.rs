//! The recorded ending of an exchange is the real one, and the client receives what it would receive without the tap.

use schemas::exchange::{Ending, OperationKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::harness::{Fixture, LAST_CHUNK, STREAM_HEAD, Step, Upstream, chunk, post, route, within_limit};

const CHAT: &str = r#"{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;

fn delta(text: &str) -> String {
    format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n")
}

fn chat_route(url: &str) -> String {
    route("model", url, "protocol = \"openai-chat\"")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_disconnects_within_a_stream_is_cancelled() {
    let script = vec![Step::Read, Step::Send([STREAM_HEAD, &chunk(&delta("he"))].concat()), Step::ReadToEnd];
    let upstream = Upstream::start(vec![script]).await;
    let fixture = Fixture::new(&chat_route(&upstream.url)).await;
    let mut stream = fixture.connect(0).await;
    stream.write_all(&post("/", "", CHAT)).await.expect("the tap reads");
    let mut seen = Vec::new();
    while !seen.windows(2).any(|pair| pair == b"he") {
        assert!(within_limit(stream.read_buf(&mut seen)).await.expect("frames come") > 0);
    }
    drop(stream);
    // The upstream sees the disconnect, as it would without the tap.
    upstream.requests().await;
    let (exchange, _, response) = fixture.only_exchange().await;
    assert_eq!(exchange.ending, Ending::Cancelled);
    assert_eq!(
        (exchange.operation.kind, exchange.operation.output.as_deref()),
        (OperationKind::Chat, Some("he"))
    );
    assert_eq!(String::from_utf8(response).expect("text"), delta("he"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_disconnects_after_the_last_event_is_complete() {
    let frames = [delta("hi"), "data: [DONE]\n\n".to_owned()].concat();
    let script = vec![Step::Read, Step::Send([STREAM_HEAD, &chunk(&frames)].concat()), Step::ReadToEnd];
    let upstream = Upstream::start(vec![script]).await;
    let fixture = Fixture::new(&chat_route(&upstream.url)).await;
    let mut stream = fixture.connect(0).await;
    stream.write_all(&post("/", "", CHAT)).await.expect("the tap reads");
    let mut seen = Vec::new();
    while !seen.windows(6).any(|window| window == b"[DONE]") {
        assert!(within_limit(stream.read_buf(&mut seen)).await.expect("frames come") > 0);
    }
    drop(stream);
    upstream.requests().await;
    let (exchange, _, _) = fixture.only_exchange().await;
    assert_eq!(exchange.ending, Ending::Complete);
    assert!(exchange.ending_detail.is_some_and(|detail| detail.contains("after the complete response")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_response_is_truncated_for_client_and_recording() {
    let (go, signal) = tokio::sync::oneshot::channel();
    let script = vec![
        Step::Read,
        Step::Send([STREAM_HEAD, &chunk(&delta("he"))].concat()),
        Step::Wait(signal),
        Step::Reset,
    ];
    let upstream = Upstream::start(vec![script]).await;
    let fixture = Fixture::new(&chat_route(&upstream.url)).await;
    let mut stream = fixture.connect(0).await;
    stream.write_all(&post("/", "", CHAT)).await.expect("the tap reads");
    let mut seen = Vec::new();
    while !seen.windows(2).any(|pair| pair == b"he") {
        assert!(within_limit(stream.read_buf(&mut seen)).await.expect("frames come") > 0);
    }
    go.send(()).expect("the upstream waits");
    // The connection may end in any way, but the tap must not make up a last chunk.
    let _ = within_limit(stream.read_to_end(&mut seen)).await;
    assert!(!seen.ends_with(LAST_CHUNK));
    let (exchange, _, _) = fixture.only_exchange().await;
    assert_eq!(exchange.ending, Ending::Truncated);
    assert!(
        exchange.ending_detail.is_some_and(|detail| detail.starts_with("the upstream aborted its response"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_upstream_gives_502_and_failed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let fixture = Fixture::new(&chat_route(&url)).await;
    let reply = fixture.send(0, &post("/", "", CHAT)).await;
    assert!(reply.head[0].starts_with("HTTP/1.1 502"), "{:?}", reply.head);
    let (exchange, _, _) = fixture.only_exchange().await;
    assert_eq!((exchange.ending, exchange.status), (Ending::Failed, None));
    assert!(exchange.ending_detail.is_some_and(|detail| detail.contains("502")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_closes_without_a_response_is_failed() {
    let upstream = Upstream::start(vec![vec![Step::Read, Step::Reset]]).await;
    let fixture = Fixture::new(&chat_route(&upstream.url)).await;
    assert!(fixture.send(0, &post("/", "", CHAT)).await.head[0].starts_with("HTTP/1.1 502"));
    assert_eq!(fixture.only_exchange().await.0.ending, Ending::Failed);
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_events_pass_unchanged_and_are_noted() {
    let frames =
        [delta("a").as_str(), "data: {not json\n\n", ": comment\nbogus\n\n", &delta("b"), "data: [DONE]"]
            .concat();
    let script = vec![Step::Read, Step::Send([STREAM_HEAD, &chunk(&frames), LAST_CHUNK].concat())];
    let upstream = Upstream::start(vec![script]).await;
    let fixture = Fixture::new(&chat_route(&upstream.url)).await;
    assert_eq!(fixture.send(0, &post("/", "", CHAT)).await.text(), frames);
    let (exchange, _, response) = fixture.only_exchange().await;
    assert_eq!(String::from_utf8(response).expect("text"), frames);
    assert_eq!((exchange.ending, exchange.operation.output.as_deref()), (Ending::Complete, Some("ab")));
    assert_eq!(exchange.ending_detail.as_deref(), Some("1 events of the stream are not JSON"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_its_final_event_is_truncated() {
    let script = vec![Step::Read, Step::Send([STREAM_HEAD, &chunk(&delta("a")), LAST_CHUNK].concat())];
    let upstream = Upstream::start(vec![script]).await;
    let fixture = Fixture::new(&chat_route(&upstream.url)).await;
    let reply = fixture.send(0, &post("/", "", CHAT)).await;
    assert!(reply.complete);
    assert_eq!(fixture.only_exchange().await.0.ending, Ending::Truncated);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_disconnects_before_the_response_is_cancelled() {
    let (read, was_read) = tokio::sync::oneshot::channel();
    let script = vec![Step::Read, Step::Signal(read), Step::ReadToEnd];
    let upstream = Upstream::start(vec![script]).await;
    let fixture = Fixture::new(&chat_route(&upstream.url)).await;
    let mut stream = fixture.connect(0).await;
    stream.write_all(&post("/", "X-Session-Id: s\r\n", CHAT)).await.expect("the tap reads");
    within_limit(was_read).await.expect("the upstream has the request");
    drop(stream);
    upstream.requests().await;
    let (exchange, request, response) = fixture.only_exchange().await;
    assert_eq!((exchange.ending, exchange.status), (Ending::Cancelled, None));
    assert_eq!((request.as_slice(), response.len()), (CHAT.as_bytes(), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_mcp_client_that_disconnects_after_its_response_event_is_complete() {
    let event = "event: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":0,\"result\":{}}\n\n";
    let script = vec![Step::Read, Step::Send([STREAM_HEAD, &chunk(event)].concat()), Step::ReadToEnd];
    let upstream = Upstream::start(vec![script]).await;
    let fixture = Fixture::new(&route("tool", &upstream.url, "protocol = \"mcp\"")).await;
    let mut stream = fixture.connect(0).await;
    let hello = r#"{"jsonrpc":"2.0","id":0,"method":"initialize"}"#;
    stream.write_all(&post("/mcp", "", hello)).await.expect("the tap reads");
    let mut seen = Vec::new();
    while !seen.windows(6).any(|window| window == b"result") {
        assert!(within_limit(stream.read_buf(&mut seen)).await.expect("frames come") > 0);
    }
    drop(stream);
    upstream.requests().await;
    let (exchange, _, _) = fixture.only_exchange().await;
    assert_eq!(
        (exchange.ending, exchange.operation.method.as_deref()),
        (Ending::Complete, Some("initialize"))
    );
}
