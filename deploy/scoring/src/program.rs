//! A program as evaluator: one process per trial, the trial on stdin, the grade on stdout.
//!
//! Output and time are bounded. The program leads a process group, and the group is killed when the evaluation ends, fails
//! or is cancelled.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::anyhow;
use replayer::process::{ProcessGroup, read_tail};
use schemas::variables::expand;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{ChildStdin, Command};
use tokio::task::JoinHandle;

use crate::config::CommandConfig;
use crate::grade::{self, Grade};

/// Longest output, bytes; a longer one is an error.
const MAX_OUTPUT_BYTES: u64 = 1 << 20;

/// Longest part of stderr in an error, bytes.
const MAX_STDERR_BYTES: usize = 2 << 10;

/// Time limit for the rest of stderr after the end of the program.
const STDERR_TIMEOUT: Duration = Duration::from_secs(1);

/// Largest file of the command line whose content is part of the digest, bytes.
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

/// How a program failed to give an output.
#[derive(Debug)]
enum OutputError {
    /// The output is longer than [`MAX_OUTPUT_BYTES`].
    TooLong,
    /// Reading stdout failed; the part that was read is no output.
    Read(std::io::Error),
    /// Waiting for the end of the program failed.
    Wait(std::io::Error),
    /// The program ended with an error status.
    Status(std::process::ExitStatus),
}

impl Program {
    /// Expands the environment of a configuration, with paths relative to `base`.
    ///
    /// # Errors
    /// The text names the key `env.NAME` and the missing variable.
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
        let working_dir = config.working_dir.as_ref().map_or_else(|| base.to_owned(), |dir| base.join(dir));
        // An empty path is not a valid working directory.
        let working_dir = if working_dir.as_os_str().is_empty() { PathBuf::from(".") } else { working_dir };
        Ok(Self {
            argv: config.argv.clone(),
            env: variables,
            working_dir,
            timeout: config.timeout,
            threshold: config.threshold,
        })
    }

    /// Name and BLAKE3 of every file that the command line names, so that a changed script changes the digest.
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

    /// Evaluates one trial, which is a line of JSON.
    ///
    /// # Errors
    /// The text names the program and how it failed.
    pub(crate) async fn evaluate(&self, trial: &str) -> Result<Grade, String> {
        let name = &self.argv[0];
        let mut command = Command::new(name);
        command.args(&self.argv[1..]).env_clear().envs(self.env.iter().map(|(k, v)| (k, v)));
        command.current_dir(&self.working_dir);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut group = ProcessGroup::spawn(&mut command)
            .map_err(|error| format!("{name} cannot be started: {error}"))?;
        let (stdin, stdout) = (group.take_stdin(), group.take_stdout());
        // Awaited below; the task ends when every process that can write to stderr has ended.
        let stderr = tokio::spawn(read_tail(group.take_stderr(), MAX_STDERR_BYTES));
        let run = async {
            let output = feed_and_read(stdin, stdout, trial).await?;
            let status = group.wait().await.map_err(OutputError::Wait)?;
            if status.success() { Ok(output) } else { Err(OutputError::Status(status)) }
        };
        let ended = tokio::time::timeout(self.timeout, run).await;
        group.kill().await;
        let stderr = rest_of(stderr).await;
        match ended {
            Err(_) => Err(format!("no output from {name} within {:?}", self.timeout)),
            Ok(Ok(output)) => grade::parse(&output, self.threshold),
            Ok(Err(OutputError::TooLong)) => {
                Err(format!("{name} printed more than {MAX_OUTPUT_BYTES} bytes; {}", grade::EXPECTED))
            }
            Ok(Err(OutputError::Read(error))) => Err(format!("the output of {name} cannot be read: {error}")),
            Ok(Err(OutputError::Wait(error))) => Err(format!("{name} cannot be waited for: {error}")),
            Ok(Err(OutputError::Status(status))) => {
                Err(format!("{name} ended with {status}: {}", grade::quoted(&stderr)))
            }
        }
    }
}

/// Writes the trial to stdin and reads the output to its end.
async fn feed_and_read(
    stdin: Option<ChildStdin>,
    stdout: Option<impl AsyncRead + Unpin>,
    trial: &str,
) -> Result<Vec<u8>, OutputError> {
    let feed = async {
        if let Some(mut stdin) = stdin {
            // A program that ignores its input can close it early; that is no error.
            let _ = stdin.write_all(trial.as_bytes()).await;
            let _ = stdin.write_all(b"\n").await;
        }
        std::future::pending::<()>().await;
    };
    let read = async {
        let mut output = Vec::new();
        if let Some(stdout) = stdout {
            stdout.take(MAX_OUTPUT_BYTES + 1).read_to_end(&mut output).await.map_err(OutputError::Read)?;
        }
        if output.len() as u64 > MAX_OUTPUT_BYTES { Err(OutputError::TooLong) } else { Ok(output) }
    };
    // The feed never completes, so the read always does; both are dropped afterwards, which closes the pipes.
    tokio::select! {
        output = read => output,
        () = feed => unreachable!("the feed is pending for ever"),
    }
}

/// The rest of stderr, unless a process that left the group keeps it open for longer than [`STDERR_TIMEOUT`].
async fn rest_of(mut stderr: JoinHandle<String>) -> String {
    match tokio::time::timeout(STDERR_TIMEOUT, &mut stderr).await {
        Ok(text) => text.unwrap_or_default(),
        Err(_) => {
            stderr.abort();
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

    async fn evaluate(script: &str, trial: &str) -> Result<Grade, String> {
        program(script, Duration::from_secs(60)).evaluate(trial).await
    }

    #[tokio::test]
    async fn a_program_reads_the_trial_and_grades_it() {
        let grade = evaluate(
            "grep -q '\"case\":\"c1\"' && echo '{\"success\": true, \"reason\": \"'$TOKEN'\"}'",
            "{\"case\":\"c1\"}",
        );
        let grade = grade.await.expect("a score");
        assert_eq!((grade.success, grade.reason.as_deref()), (true, Some("s3")));
        // A program can ignore its input, also a long one.
        let long = "x".repeat(4 << 20);
        assert!(evaluate("echo '{\"score\": 0.2}'", &long).await.is_ok_and(|grade| !grade.success));
    }

    #[tokio::test]
    async fn a_failing_program_is_bounded_and_its_error_names_the_cause() {
        let error = evaluate("echo no licence >&2; exit 7", "{}").await.expect_err("failed");
        assert!(error.contains("exit status: 7") && error.contains("no licence"), "{error}");
        let error = evaluate("yes", "{}").await.expect_err("never ends");
        assert!(error.contains("more than 1048576 bytes"), "{error}");
        let error = evaluate("yes why | head -c 3000000 >&2; exit 3", "{}").await.expect_err("a long story");
        assert!(error.contains("why") && error.len() < 1000, "{error}");
        let error = evaluate("printf '\\377\\000'", "{}").await.expect_err("binary");
        assert!(error.contains("not UTF-8"), "{error}");
        let silent = program("sleep 600", Duration::from_millis(50)).evaluate("{}").await;
        assert!(silent.expect_err("silent").contains("no output"));
        let missing =
            CommandConfig { argv: vec!["/no/such/program".to_owned()], ..config("", half_minute()) };
        let env = |name: &str| (name == "SECRET").then(String::new);
        let missing = Program::new(&missing, Path::new(""), &env).expect("a program").evaluate("{}").await;
        assert!(missing.expect_err("missing").contains("/no/such/program cannot be started"));
    }

    fn half_minute() -> Duration {
        Duration::from_secs(30)
    }

    #[test]
    fn a_changed_script_changes_the_digest() {
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

    /// Fails after the first bytes.
    struct BrokenPipe(bool);

    impl AsyncRead for BrokenPipe {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            buffer: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            if std::mem::replace(&mut self.0, true) {
                return std::task::Poll::Ready(Err(std::io::Error::other("gone")));
            }
            buffer.put_slice(b"{\"success\": true}");
            std::task::Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_partly_read_output_is_no_grade() {
        let read = feed_and_read(None, Some(BrokenPipe(false)), "{}").await;
        assert!(matches!(read, Err(OutputError::Read(_))), "{read:?}");
    }

    #[tokio::test]
    async fn the_whole_group_ends_when_the_evaluation_is_cancelled() {
        let folder = tempfile::tempdir().expect("temp");
        let pid = folder.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", pid.display());
        let cancelled = tokio::time::timeout(Duration::from_secs(5), async {
            let program = program(&script, half_minute());
            let evaluation = program.evaluate("{}");
            tokio::pin!(evaluation);
            while std::fs::read_to_string(&pid).unwrap_or_default().trim().is_empty() {
                let wait = tokio::time::sleep(Duration::from_millis(10));
                tokio::select! {
                    grade = &mut evaluation => panic!("the program ended: {grade:?}"),
                    () = wait => {}
                }
            }
        });
        cancelled.await.expect("the program starts");
        let pid = std::fs::read_to_string(&pid).expect("written").trim().to_owned();
        let stat = PathBuf::from(format!("/proc/{pid}/stat"));
        let is_alive = || {
            let stat = std::fs::read_to_string(&stat).unwrap_or_default();
            // A killed process is a zombie until its new parent reaps it.
            !stat.is_empty() && !stat.contains(") Z ")
        };
        for _ in 0..500 {
            if !is_alive() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("process {pid} of the group is still alive");
    }
}
