//! A running binary: its output, signals to it, and its exit status.

use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::binary;

/// Time limit for output or exit, on a busy machine.
const TIME_LIMIT: Duration = Duration::from_secs(120);

/// A running command. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    lines: Arc<Lines>,
    readers: Vec<JoinHandle<()>>,
}

/// Standard output and standard error together.
#[derive(Debug, Default)]
struct Lines {
    text: Mutex<String>,
    more: Condvar,
}

impl Running {
    /// Starts the binary in this folder.
    ///
    /// # Panics
    /// The binary cannot be started.
    #[must_use]
    pub fn start(folder: &Path, args: &[&str]) -> Self {
        Self::start_with(folder, args, &[])
    }

    /// Starts the binary in this folder with these variables in its environment.
    ///
    /// # Panics
    /// The binary cannot be started.
    #[must_use]
    pub fn start_with(folder: &Path, args: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = binary::command(folder);
        let mut child = command
            .args(args)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let lines: Arc<Lines> = Arc::default();
        let out = read(child.stdout.take().expect("is piped"), lines.clone());
        let err = read(child.stderr.take().expect("is piped"), lines.clone());
        Self { child, lines, readers: vec![out, err] }
    }

    /// The output so far.
    ///
    /// # Panics
    /// A holder of the lock panicked.
    #[must_use]
    pub fn output(&self) -> String {
        self.lines.text.lock().expect("no holder panics").clone()
    }

    /// Waits until `find` finds something in the output.
    ///
    /// # Panics
    /// The process exits or the time limit passes before that.
    pub fn wait_for<T>(&mut self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + TIME_LIMIT;
        loop {
            let ended = self.child.try_wait().expect("its state can be asked for");
            let output = self.lines.text.lock().expect("no holder panics");
            if let Some(found) = find(&output) {
                return found;
            }
            assert!(ended.is_none() && Instant::now() < deadline, "no {what} ({ended:?}) in:\n{output}");
            let step = Duration::from_millis(50);
            drop(self.lines.more.wait_timeout(output, step).expect("no holder panics"));
        }
    }

    /// The URL of its first route.
    ///
    /// # Panics
    /// The process exits before it prints one.
    pub fn url(&mut self) -> String {
        self.wait_for("address", |output| {
            let at = output.find("http://127.0.0.1")?;
            let (url, _) = output[at..].split_once(|letter: char| letter.is_whitespace() || letter == '"')?;
            Some(url.to_owned())
        })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process has exited.
    ///
    /// # Panics
    /// The system does not return the state.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("its state can be asked for").is_some()
    }

    /// Sends a signal by name, for example `TERM`.
    ///
    /// # Panics
    /// The process has exited.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status().expect("kill runs");
        assert!(sent.success(), "kill -{name} {pid}:\n{}", self.output());
    }

    /// Sends SIGKILL and waits.
    ///
    /// # Panics
    /// The system refuses the signal.
    pub fn kill(mut self) {
        self.child.kill().expect("is killed");
        self.child.wait().expect("ends");
    }

    /// Waits for the exit. Returns exit status and output.
    ///
    /// # Panics
    /// The time limit passes before that.
    #[must_use]
    pub fn wait(mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + TIME_LIMIT;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("its state can be asked for") {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end:\n{}", self.output());
            std::thread::sleep(Duration::from_millis(20));
        };
        for reader in self.readers.drain(..) {
            reader.join().expect("reads to the end");
        }
        (status, self.output())
    }

    /// Sends SIGTERM and waits for an exit with status 0. Returns the output.
    ///
    /// # Panics
    /// The process exits with an error.
    pub fn terminate(self) -> String {
        self.signal("TERM");
        let (status, output) = self.wait();
        assert!(status.success(), "{status}:\n{output}");
        output
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(from: impl Read + Send + 'static, lines: Arc<Lines>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let mut output = lines.text.lock().expect("no holder panics");
            output.push_str(&line);
            output.push('\n');
            lines.more.notify_all();
        }
    })
}
