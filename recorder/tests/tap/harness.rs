//! Test fixture: a scripted upstream, a client that reads raw bytes, and a recorder between them.
//!
//! All sockets are on loopback with ports that the system chooses. No test sleeps.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use recorder::config::Config;
use recorder::{Clock, Recorder};
use schemas::exchange::Exchange;
use schemas::keys::RootKey;
use store::{Store, StoredSession};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Time limit of every wait.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(20);

/// Waits for a future and fails after [`TIME_LIMIT`].
pub(crate) async fn within_limit<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(TIME_LIMIT, future).await.expect("the future ends within the time limit")
}

/// A recorder with a folder of its own.
pub(crate) struct Fixture {
    pub(crate) folder: TempDir,
    pub(crate) recorder: Recorder,
}

/// A clock that advances by a millisecond with each reading.
pub(crate) fn clock() -> Clock {
    let now = AtomicI64::new(1_700_000_000_000_000);
    Arc::new(move || now.fetch_add(1000, Ordering::Relaxed))
}

pub(crate) fn config_text(folder: &Path, routes: &str) -> String {
    let folder = folder.display();
    format!(
        "agent = \"shop\"\nbuild = \"b1\"\nstore = \"{folder}/store\"\nstate-dir = \"{folder}/state\"\n{routes}"
    )
}

/// A route to an upstream, with further lines of TOML.
pub(crate) fn route(edge: &str, upstream: &str, lines: &str) -> String {
    format!("[[route]]\nedge = \"{edge}\"\nlisten = \"127.0.0.1:0\"\nupstream = \"{upstream}\"\n{lines}\n")
}

pub(crate) async fn start_in(folder: &Path, routes: &str) -> Recorder {
    let config = Config::parse(&config_text(folder, routes)).expect("a valid configuration");
    recorder::start(config, RootKey::new([9; 32]), clock()).await.expect("the recorder starts")
}

impl Fixture {
    pub(crate) async fn new(routes: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let recorder = start_in(folder.path(), routes).await;
        Self { folder, recorder }
    }

    /// Connects to the tap.
    pub(crate) async fn connect(&self, route: usize) -> TcpStream {
        TcpStream::connect(self.recorder.routes()[route].address).await.expect("the tap listens")
    }

    /// Sends a request on a new connection and reads the complete response.
    pub(crate) async fn send(&self, route: usize, request: &[u8]) -> Received {
        let mut stream = self.connect(route).await;
        stream.write_all(request).await.expect("the tap reads");
        within_limit(Received::read(&mut stream)).await
    }

    /// Closes all sessions, archives them, and reads the store.
    pub(crate) async fn sessions(&self) -> Vec<StoredSession> {
        within_limit(self.recorder.close_sessions()).await.expect("sessions close");
        within_limit(self.recorder.flush()).await.expect("the store accepts everything");
        sessions_in(&self.folder.path().join("store")).await
    }

    /// The only exchange in the store, with request and response body.
    pub(crate) async fn only_exchange(&self) -> (Exchange, Vec<u8>, Vec<u8>) {
        let sessions = self.sessions().await;
        assert_eq!(sessions.iter().map(|session| session.exchanges.len()).sum::<usize>(), 1);
        let session = &sessions[0];
        assert_eq!(session.gaps(), vec![]);
        let exchange = session.exchanges[0].clone();
        let body = |body| session.body(body).expect("all chunks are stored");
        let (request, response) = (body(&exchange.request), body(&exchange.response));
        (exchange, request, response)
    }
}

pub(crate) async fn sessions_in(store: &Path) -> Vec<StoredSession> {
    let lake = Store::open(store.to_str().expect("a path in UTF-8")).expect("a store");
    let snapshot = lake.snapshot().await.expect("commits");
    lake.load_sessions(&snapshot, None).await.expect("sessions")
}

/// One step of the upstream on a connection.
pub(crate) enum Step {
    /// Reads one request.
    Read,
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Signals the test.
    Signal(tokio::sync::oneshot::Sender<()>),
    /// Waits for a signal of the test.
    Wait(tokio::sync::oneshot::Receiver<()>),
    /// Resets the connection.
    Reset,
    /// Reads until the tap closes.
    ReadToEnd,
}

/// An upstream that accepts one connection per script, in order.
pub(crate) struct Upstream {
    pub(crate) url: String,
    /// Returns the bytes that it read, by connection.
    task: JoinHandle<Vec<Vec<u8>>>,
}

impl Upstream {
    pub(crate) async fn start(scripts: Vec<Vec<Step>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let task = tokio::spawn(async move {
            let mut received = Vec::new();
            for script in scripts {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                stream.set_nodelay(true).expect("a socket option");
                received.push(run_script(&mut stream, script).await);
            }
            received
        });
        Self { url, task }
    }

    /// The requests that it read, by connection.
    pub(crate) async fn requests(self) -> Vec<String> {
        let received = within_limit(self.task).await.expect("the upstream does not fail");
        received.into_iter().map(|bytes| String::from_utf8(bytes).expect("text")).collect()
    }
}

async fn run_script(stream: &mut TcpStream, script: Vec<Step>) -> Vec<u8> {
    let mut read = Vec::new();
    for step in script {
        match step {
            Step::Read => read.extend(read_message(stream).await.0),
            Step::Send(bytes) => stream.write_all(&bytes).await.expect("the tap reads"),
            Step::Signal(test) => test.send(()).expect("the test waits"),
            Step::Wait(signal) => signal.await.expect("the test sends the signal"),
            Step::Reset => {
                stream.set_zero_linger().expect("a socket option");
                return read;
            }
            Step::ReadToEnd => {
                // A reset ends the connection too.
                let _ = stream.read_to_end(&mut read).await;
            }
        }
    }
    read
}

/// Reads a request or response with `content-length`, chunks, or neither. Returns the bytes, and whether the message is
/// complete.
async fn read_message(stream: &mut TcpStream) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    loop {
        if let Some(length) = complete_length(&bytes) {
            return (bytes[..length].to_vec(), true);
        }
        let mut part = [0; 4096];
        match stream.read(&mut part).await {
            Ok(0) | Err(_) => return (bytes, false),
            Ok(count) => bytes.extend_from_slice(&part[..count]),
        }
    }
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

fn complete_length(bytes: &[u8]) -> Option<usize> {
    let body = find(bytes, b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..body]).to_ascii_lowercase();
    if head.contains("transfer-encoding: chunked") {
        return find(&bytes[body - 2..], b"\r\n0\r\n\r\n").map(|end| body - 2 + end + 7);
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length = match length {
        Some(length) => length.trim().parse::<usize>().expect("a number"),
        None if head.starts_with("http/") => return None,
        None => 0,
    };
    (bytes.len() >= body + length).then_some(body + length)
}

/// A response as the client received it.
#[derive(Debug)]
pub(crate) struct Received {
    /// Status line and headers in order, without `transfer-encoding` and `connection`.
    pub(crate) head: Vec<String>,
    /// The body without its framing.
    pub(crate) body: Vec<u8>,
    /// Whether the message is complete by its framing.
    pub(crate) complete: bool,
}

impl Received {
    pub(crate) async fn read(stream: &mut TcpStream) -> Self {
        let (bytes, complete) = read_message(stream).await;
        Self::parse(&bytes, complete)
    }

    pub(crate) fn parse(bytes: &[u8], complete: bool) -> Self {
        let body = find(bytes, b"\r\n\r\n").map_or(bytes.len(), |end| end + 4);
        let head = String::from_utf8_lossy(&bytes[..body]).into_owned();
        let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        let end_to_end = |line: &&str| {
            let line = line.to_ascii_lowercase();
            !line.is_empty() && !line.starts_with("transfer-encoding:") && !line.starts_with("connection:")
        };
        let head = head.split("\r\n").filter(end_to_end).map(str::to_owned).collect();
        let body = if chunked { unchunk(&bytes[body..]) } else { bytes[body..].to_vec() };
        Self { head, body, complete }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("text")
    }
}

fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(end) = find(bytes, b"\r\n") {
        let size =
            std::str::from_utf8(&bytes[..end]).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
        let Some(size) = size else { break };
        let data = &bytes[end + 2..];
        out.extend_from_slice(&data[..size.min(data.len())]);
        bytes = data.get(size + 2..).unwrap_or_default();
    }
    out
}

/// A POST request with a JSON body.
pub(crate) fn post(path: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: tap\r\n{headers}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}

/// A response with status 200 and a body.
pub(crate) fn response(headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// Head of a chunked event stream.
pub(crate) const STREAM_HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

/// One chunk of a chunked body.
pub(crate) fn chunk(data: &str) -> Vec<u8> {
    format!("{:x}\r\n{data}\r\n", data.len()).into_bytes()
}

/// End of a chunked body.
pub(crate) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
