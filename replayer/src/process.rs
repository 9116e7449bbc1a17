//! Child processes with a group of their own: bounded stderr, and no process that outlives its owner.
//!
//! A child leads a new process group. [`ProcessGroup`] kills the group when it is dropped, so that the processes that
//! the child started end with it, also after the child itself has exited. A process that leaves the group escapes.

use std::io;
use std::process::ExitStatus;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

/// A child process and the process group that it leads.
#[derive(Debug)]
pub struct ProcessGroup {
    child: Child,
    /// Id of the group; absent once the group was killed.
    #[cfg(unix)]
    id: Option<nix::unistd::Pid>,
}

impl ProcessGroup {
    /// Starts the command as the leader of a new process group.
    ///
    /// # Errors
    /// As [`Command::spawn`].
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        #[cfg(unix)]
        command.process_group(0);
        let child = command.kill_on_drop(true).spawn()?;
        #[cfg(unix)]
        let id = child.id().and_then(|id| i32::try_from(id).ok()).map(nix::unistd::Pid::from_raw);
        Ok(Self {
            child,
            #[cfg(unix)]
            id,
        })
    }

    /// Takes the pipe to the child's standard input, if it is piped and not taken yet.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Takes the pipe from the child's standard output, if it is piped and not taken yet.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Takes the pipe from the child's standard error, if it is piped and not taken yet.
    pub fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// Waits for the child to exit; the rest of the group may still run.
    ///
    /// # Errors
    /// The system cannot wait for the child.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Kills the whole group and waits for the child to exit.
    pub async fn kill(&mut self) {
        self.signal_group();
        // Fails only for a child that has exited.
        let _ = self.child.kill().await;
    }

    fn signal_group(&mut self) {
        #[cfg(unix)]
        if let Some(id) = self.id.take() {
            // ESRCH: every process of the group has exited.
            let _ = nix::sys::signal::killpg(id, nix::sys::signal::Signal::SIGKILL);
        }
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        self.signal_group();
    }
}

/// Reads a stream to its end, so that its writer never blocks, and returns the last `most` to `2 * most` bytes.
pub async fn read_tail(stream: Option<impl AsyncRead + Unpin>, most: usize) -> String {
    let Some(mut stream) = stream else { return String::new() };
    let mut tail: Vec<u8> = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        tail.extend_from_slice(&buffer[..read]);
        if tail.len() > 2 * most {
            tail.drain(..tail.len() - most);
        }
    }
    String::from_utf8_lossy(&tail).into_owned()
}

#[cfg(all(test, unix))]
mod tests {
    use std::process::Stdio;
    use std::time::Duration;

    use super::*;

    /// Starts a shell with a grandchild; both hold the write end of the returned pipe open.
    async fn shell_with_grandchild(after: &str) -> (ProcessGroup, ChildStdout) {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &format!("sleep 600 & echo started; {after}")]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut group = ProcessGroup::spawn(&mut command).expect("a shell");
        let mut stdout = group.take_stdout().expect("a pipe");
        let mut line = [0; 8];
        stdout.read_exact(&mut line).await.expect("a line");
        (group, stdout)
    }

    /// The pipe ends once every process that inherited it has exited.
    async fn assert_all_exited(mut stdout: ChildStdout) {
        let mut rest = Vec::new();
        let end = tokio::time::timeout(Duration::from_secs(20), stdout.read_to_end(&mut rest)).await;
        assert_eq!(end.expect("no process of the group is left").expect("a pipe"), 0);
    }

    #[tokio::test]
    async fn kill_reaches_the_grandchild() {
        let (mut group, stdout) = shell_with_grandchild("wait").await;
        group.kill().await;
        assert_all_exited(stdout).await;
    }

    #[tokio::test]
    async fn dropping_a_running_child_kills_its_group() {
        let (group, stdout) = shell_with_grandchild("wait").await;
        drop(group);
        assert_all_exited(stdout).await;
    }

    #[tokio::test]
    async fn dropping_a_child_that_exited_kills_what_it_left_behind() {
        let (mut group, stdout) = shell_with_grandchild("exit 0").await;
        assert!(group.wait().await.expect("a status").success());
        drop(group);
        assert_all_exited(stdout).await;
    }

    #[tokio::test]
    async fn the_tail_of_a_stream_is_bounded() {
        let text = "x".repeat(100_000) + "end";
        let tail = read_tail(Some(text.as_bytes()), 1000).await;
        assert!(tail.ends_with("end") && (1000..=2000).contains(&tail.len()), "{}", tail.len());
    }
}
