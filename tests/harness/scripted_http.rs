//! An HTTP server on loopback whose answers a closure scripts: refusals, delays, cut connections and bodies.
//!
//! It uses blocking threads and nothing but the standard library, so that every test crate can include it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// A request as the script sees it.
#[derive(Debug, Clone)]
pub struct ScriptedRequest {
    /// Path with the query.
    pub path: String,
    /// Header names in lower case, with their values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl ScriptedRequest {
    /// Value of a header, empty if the request lacks it.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
}

/// What the server does with a request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// A complete answer: status, additional headers, body.
    Complete(u16, Vec<(&'static str, String)>, String),
    /// The connection is closed without an answer.
    Reset,
    /// Nothing is sent for this time, then the connection is closed.
    Silence(Duration),
    /// The head and this part of a longer body, then the connection is closed.
    CutOff(String),
}

impl Reply {
    /// A chat completion with this text.
    #[must_use]
    pub fn completion(text: &str) -> Self {
        let body = format!(
            r#"{{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":10,"completion_tokens":2}}}}"#
        );
        Self::Complete(200, Vec::new(), body)
    }

    /// An error with this status and code.
    #[must_use]
    pub fn error(status: u16, code: &str) -> Self {
        let body = format!(r#"{{"error":{{"message":"scripted","type":"{code}","code":"{code}"}}}}"#);
        Self::Complete(status, Vec::new(), body)
    }
}

/// A running server. Its threads end with the process.
#[derive(Debug)]
pub struct ScriptedServer {
    /// Address of the server.
    pub address: SocketAddr,
}

impl ScriptedServer {
    /// Starts a server that answers every request by the script, one connection for each.
    ///
    /// # Panics
    /// Loopback has no free port.
    #[must_use]
    pub fn start(script: impl Fn(&ScriptedRequest) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let script = Arc::new(script);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let script = script.clone();
                std::thread::spawn(move || {
                    // A peer that goes away ends its connection, nothing else.
                    let _ = serve(&stream, &*script);
                });
            }
        });
        Self { address }
    }
}

fn serve(stream: &TcpStream, script: &dyn Fn(&ScriptedRequest) -> Reply) -> std::io::Result<()> {
    let Some(request) = read_request(stream)? else { return Ok(()) };
    let mut out = stream;
    match script(&request) {
        Reply::Complete(status, headers, body) => {
            write!(
                out,
                "HTTP/1.1 {status} Scripted\r\nconnection: close\r\ncontent-type: application/json\r\n"
            )?;
            for (name, value) in headers {
                write!(out, "{name}: {value}\r\n")?;
            }
            write!(out, "content-length: {}\r\n\r\n{body}", body.len())
        }
        Reply::Reset => Ok(()),
        Reply::Silence(time) => {
            std::thread::sleep(time);
            Ok(())
        }
        Reply::CutOff(part) => {
            let length = part.len() + 1000;
            write!(
                out,
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {length}\r\n\r\n{part}"
            )
        }
    }
}

fn read_request(stream: &TcpStream) -> std::io::Result<Option<ScriptedRequest>> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let Some(path) = line.split(' ').nth(1).map(str::to_owned) else { return Ok(None) };
    let mut headers = Vec::new();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        match line.trim().split_once(':') {
            Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.trim().to_owned())),
            None => break,
        }
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some(ScriptedRequest { path, headers, body: String::from_utf8_lossy(&body).into_owned() }))
}

/// Posts JSON and returns status and body; status 0 if no complete answer came.
#[must_use]
pub fn post(url: &str, body: &str) -> (u16, String) {
    exchange(url, body).unwrap_or((0, String::new()))
}

fn exchange(url: &str, body: &str) -> Option<(u16, String)> {
    let (host, path) = url.strip_prefix("http://")?.split_once('/')?;
    let mut stream = TcpStream::connect(host).ok()?;
    write!(
        stream,
        "POST /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}
