//! The binary running beside a test: what it says, signals to it, and how it ends.

use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::binary;

/// How long the binary may take to say or end what is waited for, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running command; it is killed when it is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    lines: Arc<Lines>,
    readers: Vec<JoinHandle<()>>,
}

/// Everything it has written, stdout and stderr together.
#[derive(Debug, Default)]
struct Lines {
    said: Mutex<String>,
    more: Condvar,
}

impl Running {
    /// Starts the binary in this folder.
    ///
    /// # Panics
    /// It cannot be started.
    #[must_use]
    pub fn start(folder: &Path, args: &[&str]) -> Self {
        Self::start_with(folder, args, &[])
    }

    /// Starts the binary in this folder with these variables in its environment.
    ///
    /// # Panics
    /// It cannot be started.
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

    /// What it has said so far.
    ///
    /// # Panics
    /// A holder of the lock panicked.
    #[must_use]
    pub fn said(&self) -> String {
        self.lines.said.lock().expect("no holder panics").clone()
    }

    /// Waits until `find` finds something in what it says.
    ///
    /// # Panics
    /// It ends, or time passes, before that.
    pub fn wait_for<T>(&mut self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ended = self.child.try_wait().expect("its state can be asked for");
            let said = self.lines.said.lock().expect("no holder panics");
            if let Some(found) = find(&said) {
                return found;
            }
            assert!(ended.is_none() && Instant::now() < deadline, "no {what} ({ended:?}) in:\n{said}");
            let step = Duration::from_millis(50);
            drop(self.lines.more.wait_timeout(said, step).expect("no holder panics"));
        }
    }

    /// The address of its first route.
    ///
    /// # Panics
    /// It ends before it says one.
    pub fn url(&mut self) -> String {
        self.wait_for("address", |said| {
            let at = said.find("http://127.0.0.1")?;
            let (url, _) = said[at..].split_once(|letter: char| letter.is_whitespace() || letter == '"')?;
            Some(url.to_owned())
        })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended.
    ///
    /// # Panics
    /// The system does not say.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("its state can be asked for").is_some()
    }

    /// Sends a signal, by name.
    ///
    /// # Panics
    /// It has ended.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status().expect("kill runs");
        assert!(sent.success(), "kill -{name} {pid}:\n{}", self.said());
    }

    /// Kills it without a warning.
    ///
    /// # Panics
    /// The system refuses.
    pub fn kill(mut self) {
        self.child.kill().expect("is killed");
        self.child.wait().expect("ends");
    }

    /// Waits for its end; returns how it ended and all that it said.
    ///
    /// # Panics
    /// Time passes before that.
    #[must_use]
    pub fn wait(mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("its state can be asked for") {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        };
        for reader in self.readers.drain(..) {
            reader.join().expect("reads to the end");
        }
        (status, self.said())
    }

    /// Asks it to end, and waits for it to end in order; returns all that it said.
    ///
    /// # Panics
    /// It ends with an error.
    pub fn terminate(self) -> String {
        self.signal("TERM");
        let (status, said) = self.wait();
        assert!(status.success(), "{status}:\n{said}");
        said
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
            let mut said = lines.said.lock().expect("no holder panics");
            said.push_str(&line);
            said.push('\n');
            lines.more.notify_all();
        }
    })
}
