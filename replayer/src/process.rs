//! Programs that we start and that may not hold us up: what they write to stderr is bounded, and with them ends what they
//! started.

use std::process::Stdio;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};

/// About the last `most` bytes of a stream (at most twice as many), read to its end so that its writer never blocks.
pub async fn tail(stream: Option<impl AsyncRead + Unpin>, most: usize) -> String {
    let Some(mut stream) = stream else { return String::new() };
    let mut held: Vec<u8> = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        held.extend_from_slice(&buffer[..read]);
        if held.len() > 2 * most {
            held.drain(..held.len() - most);
        }
    }
    String::from_utf8_lossy(&held).into_owned()
}

/// Kills a program and the group that it leads, and waits for it.
///
/// `leader` is its process id from when it was started: of a program that has ended already nothing else is known, and its
/// group may live on.
pub async fn end(child: &mut Child, leader: Option<u32>) {
    #[cfg(unix)]
    if let Some(id) = leader {
        let group = format!("-{id}");
        // Where `kill` is missing the program itself is still killed below.
        let killed = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status().await;
        drop(killed);
    }
    let _ = child.kill().await;
}
