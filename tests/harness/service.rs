//! A small HTTP/1.1 service on loopback for tests of HTTP clients. It counts requests, and answers as configured or never.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// The response to a request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// This status and body.
    Whole(u16, Vec<u8>),
    /// A redirect to this URL.
    Redirect(String),
    /// Status 200 and bytes without end.
    Endless,
    /// No response, with the connection left open.
    Silent,
}

impl Reply {
    /// Status 200 and this body.
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::Whole(200, body.into())
    }
}

/// A running service.
#[derive(Debug)]
pub struct Service {
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    requests: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    held: Arc<Mutex<Vec<TcpStream>>>,
    accepting: Option<JoinHandle<()>>,
}

impl Service {
    /// Starts the service on an ephemeral port. `answer` gets path, body and number (from 1) of each request.
    ///
    /// # Panics
    /// Loopback has no free port.
    pub fn start(answer: impl Fn(&str, &str, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let url = format!("http://{}", listener.local_addr().expect("a bound listener has an address"));
        let (requests, stop, held) =
            <(Arc<AtomicUsize>, Arc<AtomicBool>, Arc<Mutex<Vec<TcpStream>>>)>::default();
        let (count, stopped, streams, answer) =
            (requests.clone(), stop.clone(), held.clone(), Arc::new(answer));
        let accepting = std::thread::spawn(move || {
            let mut serving = Vec::new();
            for stream in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                streams.lock().expect("no holder panics").extend(stream.try_clone());
                let (count, answer) = (count.clone(), answer.clone());
                serving.push(std::thread::spawn(move || {
                    // A client that goes away ends its connection, nothing else.
                    let _ = serve(stream, &count, &*answer);
                }));
            }
            for thread in serving {
                thread.join().expect("a connection ends");
            }
        });
        Self { url, requests, stop, held, accepting: Some(accepting) }
    }

    /// Number of requests so far.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.url.trim_start_matches("http://"));
        for stream in self.held.lock().expect("no holder panics").drain(..) {
            // The client may have closed it.
            let _ = stream.shutdown(Shutdown::Both);
        }
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn serve(
    mut stream: TcpStream,
    count: &AtomicUsize,
    answer: &(impl Fn(&str, &str, usize) -> Reply + ?Sized),
) -> std::io::Result<()> {
    let (mut request, mut part) = (Vec::new(), [0; 4096]);
    let head = loop {
        if let Some(at) = request.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        match stream.read(&mut part)? {
            0 => return Ok(()),
            read => request.extend_from_slice(&part[..read]),
        }
    };
    let text = String::from_utf8_lossy(&request[..head]).into_owned();
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    while request.len() < head + length.unwrap_or(0) {
        match stream.read(&mut part)? {
            0 => return Ok(()),
            read => request.extend_from_slice(&part[..read]),
        }
    }
    let path = text.split(' ').nth(1).unwrap_or_default();
    let number = count.fetch_add(1, Ordering::SeqCst) + 1;
    match answer(path, &String::from_utf8_lossy(&request[head..]), number) {
        Reply::Whole(status, body) => {
            let head = format!(
                "HTTP/1.1 {status} OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes())?;
            stream.write_all(&body)
        }
        Reply::Redirect(to) => {
            let head = format!(
                "HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
            stream.write_all(head.as_bytes())
        }
        Reply::Endless => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")?;
            loop {
                stream.write_all(&[b' '; 4096])?;
            }
        }
        // Until the client, or the end of the test, closes it.
        Reply::Silent => stream.read(&mut part).map(drop),
    }
}
