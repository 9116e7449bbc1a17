//! Bodies that are small on the wire and large in memory: the recorder stays within `limits.memory-bytes`, forwards every one of
//! them unchanged, and records the traffic after them.

#![expect(clippy::print_stdout, reason = "prints its figures, and what this machine cannot test")]

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tests::process::Running;
use tokio::net::TcpListener;

/// `limits.memory-bytes` of the recorder.
const MEMORY: u64 = 256 << 20;

/// Bytes of most bombs before their compression.
const UNPACKED: usize = 30 << 20;

/// A body that is sent as a request and comes back as its response.
struct Bomb {
    name: &'static str,
    encoding: &'static str,
    content_type: &'static str,
    body: Vec<u8>,
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory")
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).expect("memory")
}

fn repeated(head: &str, part: &str, tail: &str, bytes: usize) -> Vec<u8> {
    let mut text = head.to_owned();
    while text.len() < bytes {
        text.push_str(part);
    }
    text.push_str(tail);
    text.into_bytes()
}

/// A string that holds JSON in a string, and so on; each level doubles the escapes.
fn nested(levels: usize, filler: usize) -> Vec<u8> {
    let mut text = format!("sk-proj-Abcdefgh12345678ijkl {}", "x\n".repeat(filler));
    for _ in 0..levels {
        text = serde_json::json!({ "a": text }).to_string();
    }
    text.into_bytes()
}

/// Bombs of about `bytes` before their compression; some have up to 17 times as many.
fn bombs(bytes: usize) -> Vec<Bomb> {
    const JSON: &str = "application/json";
    const EVENTS: &str = "text/event-stream";
    let numbers = repeated("{\"messages\":[0", ",0", "]}", bytes);
    let messages = repeated("{\"messages\":[{}", ",{\"role\":\"user\",\"content\":\"\"}", "]}", bytes);
    let objects = repeated("[{}", ",{\"a\":[[]]}", "]", bytes);
    let events =
        repeated("", "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n", "", bytes);
    let empty_events = repeated("", "data:\n\n", "", bytes);
    let long_name =
        format!("data: {{\"{}\":[\"\"{}]}}\n\n", "n".repeat(bytes / 30), ",\"\"".repeat(bytes / 30));
    let keys = (0..bytes / 150).fold("data: [0".to_owned(), |mut text, number| {
        let _ = write!(text, ",\"sk-proj-Abcdefgh{number:012}\"");
        text
    });
    let deep = repeated("", "[", "", bytes);
    let text = vec![b'a'; 17 * bytes];
    let bomb = |name, encoding, content_type, body| Bomb { name, encoding, content_type, body };
    vec![
        bomb("numbers, gzip", "gzip", JSON, gzip(&numbers)),
        bomb("numbers, zstd", "zstd", JSON, zstd(&numbers)),
        bomb("numbers, deflate", "deflate", JSON, deflate(&numbers)),
        bomb("numbers, plain", "identity", JSON, numbers[..bytes / 4].to_vec()),
        bomb("messages", "gzip", JSON, gzip(&messages)),
        bomb("objects", "gzip", JSON, gzip(&objects)),
        bomb("events", "gzip", EVENTS, gzip(&events)),
        bomb("empty events", "zstd", EVENTS, zstd(&empty_events)),
        bomb("a long name over many strings", "gzip", EVENTS, gzip(long_name.as_bytes())),
        bomb("many secrets in an event", "gzip", EVENTS, gzip(format!("{keys}]\n\n").as_bytes())),
        bomb("brackets", "gzip", JSON, gzip(&deep)),
        bomb("nested strings", "identity", JSON, nested(if bytes < UNPACKED { 4 } else { 14 }, 64)),
        bomb("a long nested string", "gzip", JSON, gzip(&nested(3, bytes / 60))),
        bomb("half a gigabyte", "zstd", JSON, zstd(&text)),
        bomb("twice compressed", "gzip, zstd", JSON, zstd(&gzip(&text))),
    ]
}

/// An upstream that returns the request's body with its encoding and type.
async fn mirror() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let address = listener.local_addr().expect("a bound listener has an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(TokioIo::new(stream), service_fn(reflect)).await;
            });
        }
    });
    address
}

async fn reflect(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let mut response = Response::new(Full::new(body.collect().await?.to_bytes()));
    for name in [CONTENT_ENCODING, CONTENT_TYPE] {
        if let Some(value) = head.headers.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    Ok(response)
}

/// A value of `/proc/PID/status`, in bytes.
fn status(pid: u32, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("Linux");
    let line = text.lines().find(|line| line.starts_with(name)).expect("the kernel reports it");
    let kilobytes: u64 = line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number");
    kilobytes * 1024
}

async fn metric(client: &HttpClient, url: &str, name: &str) -> u64 {
    let request = Request::get(url).body(Full::default()).expect("a request");
    let page = client.request(request).await.expect("answers").into_body().collect().await.expect("a body");
    let page = String::from_utf8(page.to_bytes().to_vec()).expect("text");
    let lines = page.lines().filter(|line| line.starts_with(name));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
}

type HttpClient = Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>>;

fn configuration(folder: &Path, upstream: std::net::SocketAddr) {
    let text = format!(
        "agent = \"a\"\nstore = \"store\"\nstate-dir = \"state\"\n\
         [limits]\nmemory-bytes = \"{MEMORY} B\"\n\
         [metrics]\nlisten = \"127.0.0.1:0\"\n\
         [[route]]\nedge = \"model\"\nlisten = \"127.0.0.1:0\"\nupstream = \"http://{upstream}\"\nprotocol = \"openai-chat\"\n"
    );
    fs::write(folder.join("foreshadow.toml"), text).expect("a writable folder");
}

/// Sends a bomb, checks that it comes back unchanged, and waits until its exchange is journaled or shed.
async fn play(client: &HttpClient, url: &str, metrics: &str, bomb: Bomb, sent: &mut u64) {
    let body = Bytes::from(bomb.body);
    let request = Request::post(format!("{url}/v1/chat/completions"))
        .header(CONTENT_ENCODING, bomb.encoding)
        .header(CONTENT_TYPE, bomb.content_type)
        .header("x-session-id", format!("s{sent}"))
        .body(Full::new(body.clone()))
        .expect("a request");
    let response = client.request(request).await.expect("the tap forwards it");
    let answered = response.into_body().collect().await.expect("the tap forwards it").to_bytes();
    assert!(answered == body, "{}: the tap changed the body", bomb.name);
    *sent += 1;
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let ended = metric(client, metrics, "foreshadow_exchanges_journaled_total").await
            + metric(client, metrics, "foreshadow_exchanges_shed_total").await;
        if ended == *sent {
            return;
        }
        assert!(Instant::now() < deadline, "{}: neither journaled nor shed", bomb.name);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_body_takes_the_recorder_past_its_memory() {
    if !cfg!(target_os = "linux") {
        println!("skipped: memory is read from /proc");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let upstream = mirror().await;
    configuration(folder.path(), upstream);
    let mut recorder = Running::start(folder.path(), &["record"]);
    let url = recorder.url();
    let metrics = recorder.wait_for("the metrics", |text| {
        let at = text.find("/metrics")?;
        let start = text[..at].rfind("http://")?;
        Some(text[start..at + "/metrics".len()].to_owned())
    });
    let client: HttpClient = Client::builder(TokioExecutor::new()).build_http();
    // What the first exchanges of each kind load, code and caches, is no memory of a bomb.
    let mut sent = 0;
    for bomb in bombs(64 << 10) {
        play(&client, &url, &metrics, bomb, &mut sent).await;
    }
    let idle = status(recorder.pid(), "VmRSS");
    let mut failed = false;
    for bomb in bombs(UNPACKED) {
        let name = bomb.name;
        play(&client, &url, &metrics, bomb, &mut sent).await;
        let grown = status(recorder.pid(), "VmHWM").saturating_sub(idle);
        println!("{name:32} peak {:4} MiB above idle", grown >> 20);
        failed |= grown > MEMORY + MEMORY / 10;
    }
    assert!(!failed, "a body took the recorder past its memory by more than a tenth");
    let lost = metric(&client, &metrics, "foreshadow_bodies_not_stored_total").await;
    let undecoded = metric(&client, &metrics, "foreshadow_bodies_not_decoded_total").await;
    println!("{lost} bodies not stored, {undecoded} exchanges not decoded");
    assert!(lost > 0 && undecoded > 0, "the bombs reached the bounds");
    let request = Request::post(format!("{url}/v1/chat/completions"))
        .header("x-session-id", "after")
        .body(Full::new(Bytes::from_static(
            b"{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}",
        )))
        .expect("a request");
    client.request(request).await.expect("answers").into_body().collect().await.expect("a body");
    let output = recorder.terminate();
    assert!(!output.contains("panicked"), "{output}");
}
