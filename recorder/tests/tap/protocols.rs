//! Sessions are assembled from model and tool calls; HTTP/2 and TLS work on both sides.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use schemas::exchange::{Confidence, Edge, Ending, OperationKind};
use tokio::net::TcpListener;

use crate::harness::{Fixture, LAST_CHUNK, STREAM_HEAD, Step, Upstream, post, response, route, within_limit};

#[tokio::test(flavor = "multi_thread")]
async fn a_session_shows_model_and_tool_calls_in_order_and_linked() {
    let requests_tool = r#"{"id":"c1","model":"m-1","choices":[{"index":0,"message":{"role":"assistant","content":null,"tool_calls":[{"id":"t1","type":"function","function":{"name":"look_up","arguments":"{\"id\": 7}"}}]},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":5,"completion_tokens":2}}"#;
    let final_answer = r#"{"id":"c2","model":"m-1","choices":[{"index":0,"message":{"role":"assistant","content":"done"},"finish_reason":"stop"}]}"#;
    let model = Upstream::start(vec![
        vec![Step::Read, Step::Send(response("", requests_tool))],
        vec![Step::Read, Step::Send(response("", final_answer))],
    ])
    .await;
    let result = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"found"}]}}"#;
    let tool = Upstream::start(vec![vec![
        Step::Read,
        Step::Send(response("Content-Type: application/json\r\n", result)),
    ]])
    .await;
    let tools = "[[tool]]\nname = \"look_up\"\neffect = \"read\"\n";
    let fixture = Fixture::new(&format!(
        "{}{}{tools}",
        route("model", &model.url, ""),
        route("tool", &tool.url, "protocol = \"mcp\"")
    ))
    .await;
    let trace =
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nConnection: close\r\n";
    fixture
        .send(
            0,
            &post(
                "/v1/chat/completions",
                trace,
                r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#,
            ),
        )
        .await;
    // The tool call has the trace id in its body only.
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"look_up","arguments":{"id":7},"_meta":{"traceparent":"00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01"}}}"#;
    fixture.send(1, &post("/mcp", "", call)).await;
    let next = r#"{"model":"m","messages":[{"role":"user","content":"hi"},{"role":"assistant","tool_calls":[{"id":"t1","type":"function","function":{"name":"look_up","arguments":"{\"id\":7}"}}]},{"role":"tool","tool_call_id":"t1","content":"found"}]}"#;
    fixture.send(0, &post("/v1/chat/completions", trace, next)).await;
    let sessions = fixture.sessions().await;
    assert_eq!(sessions.len(), 1, "the three exchanges form one session");
    let session = &sessions[0];
    assert!(session.gaps().is_empty());
    assert_eq!(session.session.as_str(), "0af7651916cd43dd8448eb211c80319c");
    let [first, called, last] = &session.exchanges[..] else { panic!("three exchanges") };
    assert_eq!([first.seq, called.seq, last.seq], [0, 1, 2]);
    assert_eq!([first.edge, called.edge, last.edge], [Edge::Model, Edge::Tool, Edge::Model]);
    assert_eq!((first.operation.requested.len(), first.usage.input_tokens), (1, Some(5)));
    assert_eq!(
        (called.operation.kind, called.operation.result.as_deref()),
        (OperationKind::CallTool, Some("found"))
    );
    assert_eq!(called.operation.effect, schemas::exchange::Effect::Read);
    let link = &called.links[0];
    assert_eq!(
        (&link.to, link.kind.as_str(), link.confidence),
        (&first.exchange, "requested_by", Confidence::Likely)
    );
    assert_eq!((&last.links[0].to, last.links[0].kind.as_str()), (&first.exchange, "continues"));
    assert!(first.identifiers.iter().any(|id| id.name == "gen_ai.response.id" && id.value == "c1"));
    assert_eq!(session.closes[0].model_calls, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_hints_a_conversation_is_linked_with_weak_confidence() {
    let completion = |text: &str| {
        response(
            "Connection: close\r\n",
            &format!(r#"{{"choices":[{{"message":{{"role":"assistant","content":"{text}"}}}}]}}"#),
        )
    };
    let upstream =
        Upstream::start(["a", "b", "c"].map(|text| vec![Step::Read, Step::Send(completion(text))]).into())
            .await;
    let fixture = Fixture::new(&route("model", &upstream.url, "protocol = \"openai-chat\"")).await;
    let ask = |messages: &str| post("/", "Connection: close\r\n", &format!(r#"{{"messages":[{messages}]}}"#));
    let user = r#"{"role":"user","content":"hi"}"#;
    fixture.send(0, &ask(user)).await;
    fixture.send(0, &ask(user)).await;
    fixture
        .send(
            0,
            &ask(&format!(
                r#"{user},{{"role":"assistant","content":"a"}},{{"role":"user","content":"more"}}"#
            )),
        )
        .await;
    let sessions = fixture.sessions().await;
    let mut sizes: Vec<usize> = sessions.iter().map(|session| session.exchanges.len()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [1, 2], "two conversations with the same first message stay apart");
    let joined = sessions.iter().find(|session| session.exchanges.len() == 2).expect("one of two");
    assert_eq!(joined.exchanges[1].links[0].confidence, Confidence::Weak);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_mcp_session_begins_with_the_response_to_initialize() {
    let hello = response(
        "Mcp-Session-Id: m-1\r\nConnection: close\r\nContent-Type: application/json\r\n",
        r#"{"jsonrpc":"2.0","id":0,"result":{}}"#,
    );
    let accepted = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n".to_vec();
    let upstream =
        Upstream::start(vec![vec![Step::Read, Step::Send(hello)], vec![Step::Read, Step::Send(accepted)]])
            .await;
    let fixture = Fixture::new(&route("tool", &upstream.url, "")).await;
    fixture.send(0, &post("/mcp", "", r#"{"jsonrpc":"2.0","id":0,"method":"initialize"}"#)).await;
    fixture
        .send(
            0,
            &post(
                "/mcp",
                "Mcp-Session-Id: m-1\r\n",
                r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
            ),
        )
        .await;
    let sessions = fixture.sessions().await;
    assert_eq!((sessions.len(), sessions[0].session.as_str()), (1, "m-1"));
    assert!(sessions[0].gaps().is_empty());
    let methods: Vec<_> =
        sessions[0].exchanges.iter().map(|exchange| exchange.operation.method.as_deref()).collect();
    assert_eq!(methods, [Some("initialize"), Some("notifications/initialized")]);
}

/// The bytes of a recorded event stream.
fn recorded_stream(name: &str) -> String {
    let path = format!("{}/../tests/fixtures/wire/{name}.chunks.txt", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).expect("a fixture");
    let events: String = text.lines().map(|line| format!("data: {line}\n\n")).collect();
    events + "data: [DONE]\n\n"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_stream_decodes_alike_for_every_chunk_size() {
    let chat = post(
        "/v1/chat/completions",
        "Connection: close\r\n",
        r#"{"messages":[{"role":"user","content":"hi"}]}"#,
    );
    for (name, size) in [("deepseek-tool-call", 7), ("deepseek-tool-call", 4096), ("openai-text", 61)] {
        let frames = recorded_stream(name);
        let mut sent = STREAM_HEAD.to_vec();
        for part in frames.as_bytes().chunks(size) {
            sent.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
            sent.extend_from_slice(part);
            sent.extend_from_slice(b"\r\n");
        }
        sent.extend_from_slice(LAST_CHUNK);
        let upstream = Upstream::start(vec![vec![Step::Read, Step::Send(sent)]]).await;
        let fixture = Fixture::new(&route("model", &upstream.url, "")).await;
        assert_eq!(fixture.send(0, &chat).await.text(), frames);
        let (exchange, _, response) = fixture.only_exchange().await;
        assert_eq!(String::from_utf8(response).expect("text"), frames);
        assert_eq!((exchange.ending, exchange.ending_detail), (Ending::Complete, None));
        assert!(exchange.usage.input_tokens.is_some() && exchange.usage.output_tokens.is_some());
        assert!(exchange.redactions.is_empty(), "nothing in it looks like a secret");
        let operation = &exchange.operation;
        if name == "deepseek-tool-call" {
            let [call] = &operation.requested[..] else { panic!("one call") };
            assert!(call.id.is_some() && !call.tool.is_empty());
            assert!(
                serde_json::from_str::<serde_json::Value>(&call.arguments)
                    .is_ok_and(|value| value.is_object())
            );
            assert_eq!(operation.finish_reason.as_deref(), Some("tool_calls"));
        } else {
            assert!(operation.output.as_deref().is_some_and(|text| text.len() > 500));
        }
    }
}

/// An upstream that speaks HTTP/2 only and returns the request body with a trailer.
async fn http2_echo() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(|request: Request<Incoming>| async move {
                assert_eq!(request.version(), Version::HTTP_2);
                let body = request.into_body().collect().await.expect("a body").to_bytes();
                let mut trailers = hyper::HeaderMap::new();
                trailers.insert("x-sum", "42".parse().expect("value"));
                Ok::<_, hyper::Error>(Response::new(
                    Full::new(body).with_trailers(async { Some(Ok(trailers)) }),
                ))
            });
            tokio::spawn(
                hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .max_header_list_size(1 << 20)
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_in_front_and_behind_with_trailers() {
    let url = http2_echo().await;
    let fixture = Fixture::new(&route("model", &url, "upstream-http = \"http2\"")).await;
    let client: Client<HttpConnector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let calls = (0..20).map(|number| {
        let target = format!("{}/v1/{number}", fixture.recorder.routes()[0].url());
        let request = Request::post(target)
            .header("x-session-id", "s")
            .body(Full::from(format!("body {number}")))
            .expect("a request");
        let client = client.clone();
        async move {
            let response = client.request(request).await.expect("an answer");
            assert_eq!(response.version(), Version::HTTP_2);
            let collected = response.into_body().collect().await.expect("a body");
            assert_eq!(
                collected.trailers().and_then(|map| map.get("x-sum")).map(|value| value.as_bytes()),
                Some(&b"42"[..])
            );
            assert_eq!(collected.to_bytes(), format!("body {number}").as_bytes());
        }
    });
    within_limit(futures::future::join_all(calls)).await;
    let sessions = fixture.sessions().await;
    assert_eq!((sessions[0].exchanges.len(), sessions[0].gaps()), (20, vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_headers_may_be_large() {
    let url = http2_echo().await;
    let fixture = Fixture::new(&route("model", &url, "upstream-http = \"http2\"")).await;
    let client: Client<HttpConnector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let request = Request::post(fixture.recorder.routes()[0].url())
        .header("x-large", "x".repeat(20_000))
        .body(Full::from("body"))
        .expect("a request");
    let response = within_limit(client.request(request)).await.expect("an answer");
    assert_eq!(response.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_in_front() {
    let upstream = Upstream::start(vec![vec![Step::Read, Step::Send(response("", "hello"))]]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).expect("a file");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("a file");
    let tls = format!("[listen.tls]\ncert = \"{}\"\nkey = \"{}\"\n", cert.display(), key.display());
    let fixture = Fixture::new(&format!("{tls}{}", route("model", &upstream.url, ""))).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a root");
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions");
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let name = rustls_pki_types::ServerName::try_from("localhost").expect("a name");
    let mut stream = connector.connect(name, fixture.connect(0).await).await.expect("a handshake");
    tokio::io::AsyncWriteExt::write_all(&mut stream, &post("/", "Connection: close\r\n", "{}"))
        .await
        .expect("the tap reads");
    let mut seen = Vec::new();
    within_limit(tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut seen)).await.expect("an answer");
    assert!(seen.ends_with(b"hello"));
    assert_eq!(fixture.only_exchange().await.2, b"hello");
}
