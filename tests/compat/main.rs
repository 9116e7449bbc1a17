//! The official `openai` and `mcp` Python SDKs, unmodified apart from their base URLs, through the tap of the real binary.
//!
//! Needs a Python with the packages of `requirements.txt` in `FORESHADOW_TEST_PYTHON`; without it the tests say so and pass,
//! and the test command of the README sets it up.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tests::binary;
use tests::relay::Relay;
use tests::upstream::Provider;

/// The beginning of the key that `agent.py` sends in a header and in a body.
const SECRET: &str = "sk-planted0123456789";

/// A process that is killed when the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("compat").join(name)
}

fn python() -> Option<String> {
    let python = std::env::var("FORESHADOW_TEST_PYTHON").ok();
    if python.is_none() {
        assert!(std::env::var_os("CI").is_none(), "CI must set FORESHADOW_TEST_PYTHON (tests/run does)");
    }
    python
}

fn tool_server(python: &str) -> (Running, SocketAddr) {
    let mut child =
        Command::new(python).arg(script("tool_server.py")).stdout(Stdio::piped()).spawn().expect("starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("prints its port");
    let port: u16 = line.trim().parse().expect("a port");
    (Running(child), SocketAddr::from(([127, 0, 0, 1], port)))
}

/// Starts `foreshadow record` and reads the two addresses that it prints.
fn record(folder: &Path, provider: SocketAddr, tools: SocketAddr) -> (Running, Vec<String>) {
    let config = format!(
        r#"
        agent = "weather"
        store = "store"
        state-dir = "state"
        [[route]]
        name = "model"
        edge = "model"
        listen = "127.0.0.1:0"
        upstream = "http://{provider}"
        protocol = "openai-chat"
        [[route]]
        name = "tool"
        edge = "tool"
        listen = "127.0.0.1:0"
        upstream = "http://{tools}"
        protocol = "mcp"
        "#
    );
    std::fs::write(folder.join("foreshadow.toml"), config).expect("writes");
    let mut child = binary::command(folder).arg("record").stderr(Stdio::piped()).spawn().expect("starts");
    let mut addresses = Vec::new();
    for line in BufReader::new(child.stderr.take().expect("piped")).lines() {
        let line = line.expect("utf-8");
        if let Some(at) = line.find("http://127.0.0.1") {
            let url: String = line[at..].chars().take_while(|letter| !letter.is_whitespace()).collect();
            addresses.push(url);
        }
        if addresses.len() == 2 {
            break;
        }
    }
    (Running(child), addresses)
}

fn port_of(url: &str) -> SocketAddr {
    url.trim_start_matches("http://")
        .split('/')
        .next()
        .expect("has an authority")
        .parse()
        .expect("an address")
}

fn terminate(mut running: Running) {
    let killed =
        Command::new("kill").args(["-TERM", &running.0.id().to_string()]).status().expect("kill runs");
    assert!(killed.success());
    assert!(running.0.wait().expect("ends").success(), "record must end with 0 on SIGTERM");
}

async fn through_the_tap(mode: &str) {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().expect("temp");
    let provider = Provider::start().await;
    let (_server, tools) = tool_server(&python);
    let behind = (Relay::start(provider.address).await, Relay::start(tools).await);
    let (recorder, urls) = record(folder.path(), behind.0.address, behind.1.address);
    let before = (Relay::start(port_of(&urls[0])).await, Relay::start(port_of(&urls[1])).await);

    let base = format!("http://{}/~session/s-{mode}/v1", before.0.address);
    let mcp = format!("http://{}/~session/s-{mode}/mcp", before.1.address);
    let agent =
        tokio::process::Command::new(&python).arg(script("agent.py")).args([&base, &mcp, mode]).output();
    let agent = agent.await.expect("runs");
    assert!(agent.status.success(), "{}", binary::printed(&agent));
    let got: Value = serde_json::from_slice(&agent.stdout).expect("prints JSON");
    assert_eq!(got["calls"][0]["name"], "weather");
    assert_eq!(got["results"][0], "18 °C and fog in San Francisco");
    terminate(recorder);

    for (what, client, upstream) in [("model", &before.0, &behind.0), ("tool", &before.1, &behind.1)] {
        // A stream that ended without a byte is the SDK's idle GET: whether its head still arrives when the client hangs
        // up is the client's own race, and there is no body to compare.
        let with_body = |mut all: Vec<(u16, Vec<u8>)>| {
            all.retain(|(status, body)| *status != 200 || !body.is_empty());
            all
        };
        let (received, sent) = (with_body(client.responses()), with_body(upstream.responses()));
        assert!(!sent.is_empty(), "{what}: the witness saw nothing");
        assert_eq!(received, sent, "{what}: the client must receive what the upstream sent");
    }
    check_session(folder.path(), mode, &got);
    check_secret_is_nowhere(folder.path());
}

fn check_session(folder: &Path, mode: &str, got: &Value) {
    let shown =
        binary::run(folder, &["--json", "sessions", "show", &format!("s-{mode}"), "--store", "store"]);
    assert!(shown.status.success(), "{}", binary::printed(&shown));
    let text = String::from_utf8_lossy(&shown.stdout);
    assert!(text.contains("My key is ⟦"), "the key in the body must be a token: {text}");
    assert!(!text.contains(SECRET), "the session holds the planted key");
    let session: Value = serde_json::from_slice(&shown.stdout).expect("prints JSON");
    let exchanges = session["exchanges"].as_array().expect("has exchanges");
    let kinds: Vec<&str> =
        exchanges.iter().filter_map(|exchange| exchange["operation"]["kind"].as_str()).collect();
    let work: Vec<&str> = kinds.into_iter().filter(|kind| matches!(*kind, "chat" | "call_tool")).collect();
    assert_eq!(work, ["chat", "call_tool", "chat"], "{session:#}");
    let find =
        |kind: &'static str| exchanges.iter().filter(move |exchange| exchange["operation"]["kind"] == kind);
    let call = find("call_tool").next().expect("was found before");
    assert_eq!(call["operation"]["tool"], "weather");
    assert_eq!(call["operation"]["arguments"], r#"{"location":"San Francisco"}"#);
    assert_eq!(call["operation"]["result"], got["results"][0]);
    let answer = find("chat").next_back().expect("was found before");
    assert_eq!(answer["operation"]["output"], got["answer"]);
    assert!(
        exchanges.iter().all(|exchange| exchange["ending"] == "complete" || exchange["http_method"] == "GET"),
        "{session:#}"
    );
}

fn check_secret_is_nowhere(folder: &Path) {
    let secret = SECRET.as_bytes();
    for path in binary::files_below(folder) {
        let bytes = std::fs::read(&path).expect("file reads");
        assert!(
            !bytes.windows(secret.len()).any(|window| window == secret),
            "{} holds the key",
            path.display()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdks_in_their_default_mode() {
    through_the_tap("auto").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdks_in_legacy_mode() {
    through_the_tap("legacy").await;
}
