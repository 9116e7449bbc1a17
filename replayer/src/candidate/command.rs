//! A candidate that is a program: started per turn or per trial, the turn on stdin or in an argument, the answer on stdout.
//!
//! Its way to the network is not closed here: `run` refuses it unless the caller allows that in so many words.

use std::process::Stdio;
use std::time::{Duration, Instant};

use bytes::Bytes;
use schemas::exchange::Protocol;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;

use super::CommandCandidate;
use super::sections::{CommandInput, CommandProcess};
use super::template::fill_text;
use super::turn::{Asked, Turn, TurnFailure};
use crate::process;
use crate::tool_index::shorten;

/// The longest answer that is read, in bytes.
const MAX_ANSWER_BYTES: u64 = 16 << 20;

/// How much of stderr is kept for the error, in bytes.
const MAX_STDERR_BYTES: usize = 4 << 10;

/// A program that lives over all turns of a trial.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    stderr: JoinHandle<String>,
}

/// Asks a turn; `running` holds the program from one turn to the next where it lives over the trial.
pub(crate) async fn ask(
    candidate: &CommandCandidate,
    running: &mut Option<Running>,
    turn: &Turn<'_>,
    timeout: Duration,
) -> Asked {
    let started = Instant::now();
    let request = match candidate.process {
        CommandProcess::Turn => turn.input.to_owned(),
        CommandProcess::Trial => {
            json!({"turn": turn.number, "input": turn.input, "session": turn.place.token}).to_string()
        }
    };
    let (response, answer) = match candidate.process {
        CommandProcess::Turn => once(candidate, turn, timeout).await,
        CommandProcess::Trial => line(candidate, running, turn, &request, timeout).await,
    };
    Asked {
        protocol: Protocol::Opaque,
        http: None,
        request: Bytes::from(request),
        response: Bytes::from(response),
        status: None,
        first_byte: None,
        duration: started.elapsed(),
        answer,
    }
}

fn command(candidate: &CommandCandidate, turn: &Turn<'_>) -> Command {
    let mut argv = candidate.argv.iter().map(|text| fill_text(text, turn));
    let mut command = Command::new(argv.next().unwrap_or_default());
    command.args(argv).env_clear().kill_on_drop(true);
    let place = turn.place;
    command
        .env("FORESHADOW_MODEL_URL", place.model_url())
        .env("FORESHADOW_MCP_URL", place.mcp_url())
        .env("FORESHADOW_TOOLS_URL", place.tools_url())
        .env("FORESHADOW_SESSION", &place.token)
        .env("FORESHADOW_SEED", place.seed.to_string())
        .env("TRACEPARENT", place.traceparent(turn.number))
        .env("BAGGAGE", place.baggage());
    for (name, text) in &candidate.env {
        command.env(name, fill_text(text, turn));
    }
    if let Some(folder) = &candidate.folder {
        command.current_dir(folder);
    }
    // A group of its own, so that what the program starts can be ended with it.
    #[cfg(unix)]
    command.process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn cannot_start(candidate: &CommandCandidate, error: &std::io::Error) -> TurnFailure {
    TurnFailure::Failed(format!("{} cannot be started: {error}", candidate.argv[0]))
}

/// One process for one turn.
async fn once(
    candidate: &CommandCandidate,
    turn: &Turn<'_>,
    timeout: Duration,
) -> (Vec<u8>, Result<String, TurnFailure>) {
    let mut child = match command(candidate, turn).spawn() {
        Ok(child) => child,
        Err(error) => return (Vec::new(), Err(cannot_start(candidate, &error))),
    };
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async {
        if let (Some(mut stdin), CommandInput::Stdin) = (stdin, candidate.input) {
            // A program that does not read its input may have closed it.
            let _ = stdin.write_all(turn.input.as_bytes()).await;
        }
    };
    let mut response = Vec::new();
    let read = async {
        if let Some(stdout) = stdout {
            let _ = stdout.take(MAX_ANSWER_BYTES).read_to_end(&mut response).await;
        }
    };
    let done = tokio::time::timeout(timeout, async {
        let ((), (), errors) = tokio::join!(feed, read, process::tail(stderr, MAX_STDERR_BYTES));
        (child.wait().await, errors)
    });
    let done = done.await;
    let answer = match done {
        Ok((Ok(status), _)) if status.success() => Ok(String::from_utf8_lossy(&response).trim().to_owned()),
        Ok((Ok(status), errors)) => Err(TurnFailure::Failed(format!(
            "{} ended with {status}: {}",
            candidate.argv[0],
            shorten(errors.trim())
        ))),
        Ok((Err(error), _)) => Err(TurnFailure::Failed(format!("{} is lost: {error}", candidate.argv[0]))),
        Err(_) => {
            let leader = child.id();
            process::end(&mut child, leader).await;
            Err(TurnFailure::TimedOut(format!("no answer from {} within {timeout:?}", candidate.argv[0])))
        }
    };
    (response, answer)
}

/// One line in and one line out of a process that lives over the trial.
async fn line(
    candidate: &CommandCandidate,
    running: &mut Option<Running>,
    turn: &Turn<'_>,
    request: &str,
    timeout: Duration,
) -> (Vec<u8>, Result<String, TurnFailure>) {
    let held = match running {
        Some(held) => held,
        None => match start(candidate, turn) {
            Ok(started) => running.insert(started),
            Err(failure) => return (Vec::new(), Err(failure)),
        },
    };
    let mut response = Vec::new();
    let exchange = async {
        held.stdin.write_all(request.as_bytes()).await?;
        held.stdin.write_all(b"\n").await?;
        held.stdin.flush().await?;
        (&mut held.stdout).take(MAX_ANSWER_BYTES).read_until(b'\n', &mut response).await
    };
    let done = tokio::time::timeout(timeout, exchange).await;
    let answer = match done {
        Ok(Ok(1..)) => Ok(answer_of(&response)),
        Ok(Ok(0)) => {
            Err(TurnFailure::Failed(format!("{} closed its output without an answer", candidate.argv[0])))
        }
        Ok(Err(error)) => {
            Err(TurnFailure::Failed(format!("{} does not take its turn: {error}", candidate.argv[0])))
        }
        Err(_) => {
            Err(TurnFailure::TimedOut(format!("no answer from {} within {timeout:?}", candidate.argv[0])))
        }
    };
    match answer {
        Err(TurnFailure::Failed(detail)) => {
            let errors = stop(running.take()).await;
            (response, Err(TurnFailure::Failed(format!("{detail}; stderr: {}", shorten(errors.trim())))))
        }
        other => (response, other),
    }
}

fn start(candidate: &CommandCandidate, turn: &Turn<'_>) -> Result<Running, TurnFailure> {
    let mut child = command(candidate, turn).spawn().map_err(|error| cannot_start(candidate, &error))?;
    match (child.stdin.take(), child.stdout.take()) {
        (Some(stdin), Some(stdout)) => {
            // Owned by `Running` and awaited by `stop`.
            let stderr = tokio::spawn(process::tail(child.stderr.take(), MAX_STDERR_BYTES));
            Ok(Running { child, stdin, stdout: BufReader::new(stdout), stderr })
        }
        _ => Err(TurnFailure::Failed(format!("{} has no stdin or stdout", candidate.argv[0]))),
    }
}

/// The text of an answer line: the `answer` of a JSON object, a JSON string, or the line itself.
fn answer_of(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim();
    match serde_json::from_str::<Value>(text) {
        Ok(Value::String(text)) => text,
        Ok(Value::Object(map)) => match map.get("answer") {
            Some(Value::String(answer)) => answer.clone(),
            Some(_) | None => text.to_owned(),
        },
        Ok(_) | Err(_) => text.to_owned(),
    }
}

/// Ends a program that lived over the trial, and says what it wrote to stderr.
pub(crate) async fn stop(running: Option<Running>) -> String {
    let Some(Running { mut child, stdin, stdout, stderr }) = running else { return String::new() };
    drop((stdin, stdout));
    let leader = child.id();
    process::end(&mut child, leader).await;
    stderr.await.unwrap_or_default()
}
