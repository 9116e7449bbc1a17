//! A TCP relay that keeps every byte of both directions, as independent evidence of the traffic.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// The bytes of one connection.
#[derive(Debug, Default, Clone)]
pub struct Carried {
    /// Bytes from the client.
    pub up: Vec<u8>,
    /// Bytes from the server.
    pub down: Vec<u8>,
}

/// A relay in front of a server.
#[derive(Debug)]
pub struct Relay {
    /// Address for clients.
    pub address: SocketAddr,
    connections: Arc<Mutex<Vec<Arc<Mutex<Carried>>>>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Relay {
    /// Starts a relay to `server` on an ephemeral port.
    ///
    /// # Panics
    /// Loopback has no free port.
    pub async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let connections: Arc<Mutex<Vec<Arc<Mutex<Carried>>>>> = Arc::default();
        let kept = connections.clone();
        let accepting = tokio::spawn(async move {
            let mut running = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let carried: Arc<Mutex<Carried>> = Arc::default();
                kept.lock().expect("no holder panics").push(carried.clone());
                running.spawn(relay(client, server, carried));
            }
        });
        Self { address, connections, accepting }
    }

    /// The bytes of every connection so far.
    ///
    /// # Panics
    /// A holder of the lock panicked.
    #[must_use]
    pub fn carried(&self) -> Vec<Carried> {
        let connections = self.connections.lock().expect("no holder panics");
        connections.iter().map(|carried| carried.lock().expect("no holder panics").clone()).collect()
    }

    /// Every HTTP/1.1 response as (status, body without transfer coding), sorted.
    #[must_use]
    pub fn responses(&self) -> Vec<(u16, Vec<u8>)> {
        let mut found: Vec<_> = self.carried().iter().flat_map(|carried| responses(&carried.down)).collect();
        found.sort();
        found
    }
}

async fn relay(client: TcpStream, server: SocketAddr, carried: Arc<Mutex<Carried>>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    let (mut client_read, mut client_write) = client.into_split();
    let (mut server_read, mut server_write) = server.into_split();
    let kept = carried.clone();
    let up = async move {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(length @ 1..) = client_read.read(&mut buffer).await {
            kept.lock().expect("no holder panics").up.extend_from_slice(&buffer[..length]);
            if server_write.write_all(&buffer[..length]).await.is_err() {
                break;
            }
        }
        // The other side may be gone already.
        let _ = server_write.shutdown().await;
    };
    let down = async move {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(length @ 1..) = server_read.read(&mut buffer).await {
            carried.lock().expect("no holder panics").down.extend_from_slice(&buffer[..length]);
            if client_write.write_all(&buffer[..length]).await.is_err() {
                break;
            }
        }
        let _ = client_write.shutdown().await;
    };
    tokio::join!(up, down);
}

/// Splits the bytes of a connection into responses. A response that ends within its head, its length or a chunk is omitted.
fn responses(mut bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut found = Vec::new();
    while let Some((status, body, rest)) = response(bytes) {
        found.push((status, body));
        bytes = rest;
    }
    found
}

fn response(bytes: &[u8]) -> Option<(u16, Vec<u8>, &[u8])> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?.to_lowercase();
    let rest = &bytes[end + 4..];
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    if header("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
        let (body, rest) = unchunk(rest)?;
        return Some((status, body, rest));
    }
    let length = header("content-length").map_or(Some(0), |value| value.trim().parse::<usize>().ok())?;
    Some((status, rest.get(..length)?.to_vec(), &rest[length..]))
}

fn unchunk(mut bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut body = Vec::new();
    loop {
        // A client may hang up once it has the event it waits for, before the empty chunk that ends the stream.
        if bytes.is_empty() && !body.is_empty() {
            return Some((body, bytes));
        }
        let end = bytes.windows(2).position(|window| window == b"\r\n")?;
        let length = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).ok()?.trim(), 16).ok()?;
        let start = end + 2;
        if length == 0 {
            return Some((body, bytes.get(start + 2..)?));
        }
        body.extend_from_slice(bytes.get(start..start + length)?);
        bytes = bytes.get(start + length + 2..)?;
    }
}
