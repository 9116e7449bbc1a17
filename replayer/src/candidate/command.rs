//! Sends turns to a candidate that is a program, started for each turn or each trial.
//!
//! A program per turn reads the turn from standard input or an argument and writes the answer to standard output. A
//! program per trial reads and writes one line for each turn. The program's network access is not restricted:
//! `run::preflight` requires the caller's permission for that.

use std::process::Stdio;
use std::time::Instant;

use bytes::Bytes;
use schemas::exchange::Protocol;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;

use super::sections::{CommandInput, CommandProcess};
use super::settings::CommandCandidate;
use super::template::fill_text;
use super::turn::{Turn, TurnFailure, TurnResult};
use crate::process::{ProcessGroup, read_tail};
use crate::provider_clock::TurnLimit;
use crate::shorten::shorten;

/// Longest answer that is read, bytes.
const MAX_ANSWER_BYTES: u64 = 16 << 20;

/// Bytes of standard error that an error message can quote.
const MAX_STDERR_BYTES: usize = 4 << 10;

/// A program that lives for all turns of a trial. Dropping it kills its process group.
#[derive(Debug)]
pub(crate) struct RunningProgram {
    group: ProcessGroup,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    stderr: JoinHandle<String>,
}

/// Sends a turn and waits for the answer, at most `limit`. `running` carries a program per trial from turn to turn.
pub(crate) async fn send_turn(
    candidate: &CommandCandidate,
    running: &mut Option<RunningProgram>,
    turn: &Turn<'_>,
    limit: TurnLimit<'_>,
) -> TurnResult {
    let started = Instant::now();
    let request = match candidate.process {
        CommandProcess::Turn => turn.input.to_owned(),
        CommandProcess::Trial => {
            json!({"turn": turn.number, "input": turn.input, "session": turn.endpoint.token}).to_string()
        }
    };
    let mut stderr = String::new();
    let (response, answer) = match candidate.process {
        CommandProcess::Turn => run_once(candidate, turn, limit, &mut stderr).await,
        CommandProcess::Trial => exchange_line(candidate, running, turn, &request, limit, &mut stderr).await,
    };
    TurnResult {
        protocol: Protocol::Opaque,
        http: None,
        request: Bytes::from(request),
        response: Bytes::from(response),
        stderr,
        status: None,
        first_byte: None,
        duration: started.elapsed(),
        answer,
    }
}

fn spawn(candidate: &CommandCandidate, turn: &Turn<'_>) -> Result<ProcessGroup, TurnFailure> {
    let mut argv = candidate.argv.iter().map(|text| fill_text(text, turn));
    let mut command = Command::new(argv.next().unwrap_or_default());
    let endpoint = turn.endpoint;
    command
        .args(argv)
        .env_clear()
        .env("FORESHADOW_MODEL_URL", endpoint.model_url())
        .env("FORESHADOW_MCP_URL", endpoint.mcp_url())
        .env("FORESHADOW_TOOLS_URL", endpoint.tools_url())
        .env("FORESHADOW_SESSION", &endpoint.token)
        .env("FORESHADOW_SEED", endpoint.seed.to_string())
        .env("TRACEPARENT", endpoint.traceparent(turn.number))
        .env("BAGGAGE", endpoint.baggage());
    for (name, text) in &candidate.env {
        command.env(name, fill_text(text, turn));
    }
    if let Some(working_dir) = &candidate.working_dir {
        command.current_dir(working_dir);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    ProcessGroup::spawn(&mut command)
        .map_err(|error| TurnFailure::Failed(format!("cannot start {}: {error}", candidate.argv[0])))
}

/// Runs one process for one turn.
async fn run_once(
    candidate: &CommandCandidate,
    turn: &Turn<'_>,
    limit: TurnLimit<'_>,
    stderr_end: &mut String,
) -> (Vec<u8>, Result<String, TurnFailure>) {
    let (program, timeout) = (&candidate.argv[0], limit.timeout);
    let mut group = match spawn(candidate, turn) {
        Ok(group) => group,
        Err(failure) => return (Vec::new(), Err(failure)),
    };
    let (stdin, stdout, stderr) = (group.take_stdin(), group.take_stdout(), group.take_stderr());
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
    let exited = limit.run(async {
        let ((), (), errors) = tokio::join!(feed, read, read_tail(stderr, MAX_STDERR_BYTES));
        (group.wait().await, errors)
    });
    let exited = exited.await;
    let answer = match exited {
        Some((Ok(status), _)) if status.success() => Ok(String::from_utf8_lossy(&response).trim().to_owned()),
        Some((Ok(status), errors)) => {
            *stderr_end = errors;
            let errors = shorten(stderr_end.trim());
            Err(TurnFailure::Failed(format!("{program} exited with {status}: {errors}")))
        }
        Some((Err(error), _)) => Err(TurnFailure::Failed(format!("cannot wait for {program}: {error}"))),
        None => {
            group.kill().await;
            Err(TurnFailure::TimedOut(format!("no answer from {program} within {timeout:?}")))
        }
    };
    (response, answer)
}

/// Writes one line to a process that lives for the trial, and reads one line.
async fn exchange_line(
    candidate: &CommandCandidate,
    running: &mut Option<RunningProgram>,
    turn: &Turn<'_>,
    request: &str,
    limit: TurnLimit<'_>,
    stderr_end: &mut String,
) -> (Vec<u8>, Result<String, TurnFailure>) {
    let (name, timeout) = (&candidate.argv[0], limit.timeout);
    let program = match running {
        Some(program) => program,
        None => match start(candidate, turn) {
            Ok(started) => running.insert(started),
            Err(failure) => return (Vec::new(), Err(failure)),
        },
    };
    let mut response = Vec::new();
    let exchange = async {
        program.stdin.write_all(request.as_bytes()).await?;
        program.stdin.write_all(b"\n").await?;
        program.stdin.flush().await?;
        (&mut program.stdout).take(MAX_ANSWER_BYTES).read_until(b'\n', &mut response).await
    };
    let answer = match limit.run(exchange).await {
        Some(Ok(1..)) => Ok(parse_line(&response)),
        Some(Ok(0)) => Err(TurnFailure::Failed(format!("{name} closed its output without an answer"))),
        Some(Err(error)) => Err(TurnFailure::Failed(format!("cannot exchange a line with {name}: {error}"))),
        None => Err(TurnFailure::TimedOut(format!("no answer from {name} within {timeout:?}"))),
    };
    match answer {
        Err(TurnFailure::Failed(detail)) => {
            *stderr_end = stop(running.take()).await;
            let errors = shorten(stderr_end.trim());
            (response, Err(TurnFailure::Failed(format!("{detail}; stderr: {errors}"))))
        }
        other => (response, other),
    }
}

fn start(candidate: &CommandCandidate, turn: &Turn<'_>) -> Result<RunningProgram, TurnFailure> {
    let mut group = spawn(candidate, turn)?;
    match (group.take_stdin(), group.take_stdout()) {
        (Some(stdin), Some(stdout)) => {
            // Owned by `RunningProgram`, awaited by `stop`.
            let stderr = tokio::spawn(read_tail(group.take_stderr(), MAX_STDERR_BYTES));
            Ok(RunningProgram { group, stdin, stdout: BufReader::new(stdout), stderr })
        }
        _ => Err(TurnFailure::Failed(format!("{} has no stdin or stdout", candidate.argv[0]))),
    }
}

/// The text of an answer line: `answer` of a JSON object, a JSON string, else the line itself.
fn parse_line(line: &[u8]) -> String {
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

/// Kills the process group of a program per trial, and returns the end of its standard error.
pub(crate) async fn stop(running: Option<RunningProgram>) -> String {
    let Some(RunningProgram { mut group, stdin, stdout, stderr }) = running else { return String::new() };
    drop((stdin, stdout));
    group.kill().await;
    stderr.await.unwrap_or_default()
}
