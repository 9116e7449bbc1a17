//! A program as an evaluator: a trial on its stdin, its answer on its stdout, one process for each trial.
//!
//! What it writes is bounded, and so is its time: whatever it does, it and what it started end with the evaluation.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::anyhow;
use replayer::process;
use schemas::variables::expand;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;

use crate::config::CommandConfig;
use crate::grade::{self, Grade};

/// The longest answer that is read, bytes; a longer one is refused.
const MAX_ANSWER_BYTES: u64 = 1 << 20;

/// How much of stderr is kept for an error, bytes.
const MAX_STDERR_BYTES: usize = 2 << 10;

/// How long stderr is waited for after the program has ended.
const MAX_WAIT_FOR_STDERR: Duration = Duration::from_secs(1);

/// The largest program or script whose content enters the digest, bytes.
const MAX_DIGESTED_BYTES: u64 = 16 << 20;

/// A program that scores trials.
#[derive(Debug)]
pub(crate) struct Program {
    argv: Vec<String>,
    env: Vec<(String, String)>,
    working_dir: PathBuf,
    timeout: Duration,
    threshold: f64,
}

impl Program {
    /// Takes a configuration; `base` is what its folder is relative to.
    pub(crate) fn new(
        config: &CommandConfig,
        base: &Path,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> anyhow::Result<Self> {
        let inherited =
            config.inherit_env.iter().filter_map(|name| env(name).map(|value| (name.clone(), value)));
        let mut variables: Vec<(String, String)> = inherited.collect();
        for (name, text) in &config.env {
            let value = expand(text, env).map_err(|detail| anyhow!(detail).context(format!("env.{name}")))?;
            variables.push((name.clone(), value));
        }
        let folder = config.working_dir.as_ref().map_or_else(|| base.to_owned(), |folder| base.join(folder));
        // An empty path is no folder to start anything in.
        let folder = if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder };
        Ok(Self {
            argv: config.argv.clone(),
            env: variables,
            working_dir: folder,
            timeout: config.timeout,
            threshold: config.threshold,
        })
    }

    /// The content of every file that the command line names: another script is another evaluator.
    pub(crate) fn files(&self) -> Vec<(String, String)> {
        let digest = |word: &String| {
            let path = self.working_dir.join(word);
            let small =
                path.metadata().ok().filter(|meta| meta.is_file() && meta.len() <= MAX_DIGESTED_BYTES);
            let content = small.and_then(|_| std::fs::read(&path).ok())?;
            Some((word.clone(), blake3::hash(&content).to_hex().to_string()))
        };
        self.argv.iter().filter_map(digest).collect()
    }

    /// Asks it about one trial.
    ///
    /// # Errors
    /// Says what it did instead of answering.
    pub(crate) async fn ask(&self, trial: &str) -> Result<Grade, String> {
        let name = &self.argv[0];
        let mut command = Command::new(name);
        command.args(&self.argv[1..]).env_clear().envs(self.env.iter().map(|(k, v)| (k, v)));
        command.current_dir(&self.working_dir).kill_on_drop(true);
        // A group of its own, so that what the program starts can be ended with it.
        #[cfg(unix)]
        command.process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("{name} cannot be started: {error}"))?;
        let group = child.id();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        // Awaited below; it ends when everybody who could write to it has ended.
        let errors = tokio::spawn(process::tail(child.stderr.take(), MAX_STDERR_BYTES));
        let mut answer = Vec::new();
        let talk = async {
            feed_and_read(stdin, stdout, trial, &mut answer).await;
            if answer.len() as u64 > MAX_ANSWER_BYTES { None } else { Some(child.wait().await) }
        };
        let ended = tokio::time::timeout(self.timeout, talk).await;
        if !matches!(&ended, Ok(Some(Ok(status))) if status.success()) {
            process::end(&mut child, group).await;
        }
        let errors = last_words(errors).await;
        match ended {
            Err(_) => Err(format!("no answer from {name} within {:?}", self.timeout)),
            Ok(None) => Err(format!("{name} wrote more than {MAX_ANSWER_BYTES} bytes; {}", grade::EXPECTED)),
            Ok(Some(Err(error))) => Err(format!("{name} is lost: {error}")),
            Ok(Some(Ok(status))) if status.success() => grade::parse(&answer, self.threshold),
            Ok(Some(Ok(status))) => Err(format!("{name} ended with {status}: {}", grade::quoted(&errors))),
        }
    }
}

/// Writes the trial and reads the answer; ends when the answer does, or is too long.
async fn feed_and_read(
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    trial: &str,
    answer: &mut Vec<u8>,
) {
    let feed = async {
        if let Some(mut stdin) = stdin {
            // A program that does not read its input may have closed it.
            let _ = stdin.write_all(trial.as_bytes()).await;
            let _ = stdin.write_all(b"\n").await;
        }
        std::future::pending::<()>().await;
    };
    let read = async {
        if let Some(stdout) = stdout {
            // What was read until a failure is judged as it is.
            let _ = stdout.take(MAX_ANSWER_BYTES + 1).read_to_end(answer).await;
        }
    };
    // Feeding never ends by itself; with the answer there it is dropped, and with it the pipe.
    tokio::select! {
        () = read => {}
        () = feed => {}
    }
}

/// The end of what was written to stderr, unless something that left the program's group holds it open.
async fn last_words(mut errors: JoinHandle<String>) -> String {
    match tokio::time::timeout(MAX_WAIT_FOR_STDERR, &mut errors).await {
        Ok(text) => text.unwrap_or_default(),
        Err(_) => {
            errors.abort();
            String::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn config(script: &str, timeout: Duration) -> CommandConfig {
        CommandConfig {
            name: "c".to_owned(),
            argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            env: BTreeMap::from([("TOKEN".to_owned(), "${SECRET}".to_owned())]),
            inherit_env: vec!["PATH".to_owned()],
            working_dir: None,
            timeout,
            threshold: 0.5,
            is_judge: false,
            slice_by: None,
            version: None,
        }
    }

    fn program(script: &str, timeout: Duration) -> Program {
        let env = |name: &str| match name {
            "PATH" => std::env::var("PATH").ok(),
            "SECRET" => Some("s3".to_owned()),
            _ => None,
        };
        Program::new(&config(script, timeout), Path::new(""), &env).expect("a program")
    }

    async fn ask(script: &str, trial: &str) -> Result<Grade, String> {
        program(script, Duration::from_secs(60)).ask(trial).await
    }

    #[tokio::test]
    async fn a_program_reads_the_trial_and_its_word_is_taken() {
        let said = ask(
            "grep -q '\"case\":\"c1\"' && echo '{\"success\": true, \"reason\": \"'$TOKEN'\"}'",
            "{\"case\":\"c1\"}",
        );
        let said = said.await.expect("a score");
        assert_eq!((said.success, said.reason.as_deref()), (true, Some("s3")));
        // It need not read what it is given, however long that is.
        let long = "x".repeat(4 << 20);
        assert!(ask("echo '{\"score\": 0.2}'", &long).await.is_ok_and(|said| !said.success));
    }

    #[tokio::test]
    async fn what_a_program_does_wrong_is_bounded_and_named() {
        let error = ask("echo no licence >&2; exit 7", "{}").await.expect_err("failed");
        assert!(error.contains("exit status: 7") && error.contains("no licence"), "{error}");
        let error = ask("yes", "{}").await.expect_err("never ends");
        assert!(error.contains("more than 1048576 bytes"), "{error}");
        let error = ask("yes why | head -c 3000000 >&2; exit 3", "{}").await.expect_err("a long story");
        assert!(error.contains("why") && error.len() < 1000, "{error}");
        let error = ask("printf '\\377\\000'", "{}").await.expect_err("binary");
        assert!(error.contains("not UTF-8"), "{error}");
        let silent = program("sleep 600", Duration::from_millis(50)).ask("{}").await;
        assert!(silent.expect_err("silent").contains("no answer"));
        let missing =
            CommandConfig { argv: vec!["/no/such/program".to_owned()], ..config("", half_minute()) };
        let env = |name: &str| (name == "SECRET").then(String::new);
        let missing = Program::new(&missing, Path::new(""), &env).expect("a program").ask("{}").await;
        assert!(missing.expect_err("missing").contains("/no/such/program cannot be started"));
    }

    fn half_minute() -> Duration {
        Duration::from_secs(30)
    }

    #[test]
    fn a_changed_script_is_another_evaluator() {
        let folder = tempfile::tempdir().expect("temp");
        let mut config = config("", half_minute());
        config.argv = vec!["sh".to_owned(), "check.sh".to_owned()];
        config.env.clear();
        let program = Program::new(&config, folder.path(), &|_| None).expect("a program");
        assert!(program.files().is_empty());
        std::fs::write(folder.path().join("check.sh"), "one").expect("writes");
        let before = program.files();
        std::fs::write(folder.path().join("check.sh"), "two").expect("writes");
        assert_eq!(before.len(), 1);
        assert_ne!(program.files(), before);
    }
}
