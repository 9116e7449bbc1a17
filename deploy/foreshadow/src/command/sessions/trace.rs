//! A session as text: turns, model calls and tool calls with start, duration and ending.

use schemas::exchange::{Edge, Effect, Ending, Exchange, Operation, OperationKind};
use schemas::session::latest_closes;
use schemas::trial::Trial;
use serde_json::Value;
use store::StoredSession;

use crate::command::sessions::overview::State;
use crate::console::Console;
use crate::format::escape_control;
use crate::format::{self, Length, recorded};

/// Indentation of the further lines of a text.
pub(super) const INDENT: &str = "                      ";

/// Formats the trace; `details` adds links, identifiers and headers.
pub(super) fn lines(
    session: &StoredSession,
    trial: Option<&Trial>,
    length: Length,
    details: bool,
    console: &Console,
) -> Vec<String> {
    let mut out = header(session, trial, console);
    let trace = Trace {
        session,
        length,
        details,
        console,
        origin: session.exchanges.first().map(|one| one.started_at),
    };
    // The answer of a turn comes right before the next turn, after the calls that the agent made for it.
    let mut open: Vec<&Exchange> = Vec::new();
    for one in &session.exchanges {
        if one.edge == Edge::Turn {
            open.drain(..).for_each(|turn| trace.answer(turn, &mut out));
            open.push(one);
        }
        trace.exchange(one, &mut out);
    }
    open.drain(..).for_each(|turn| trace.answer(turn, &mut out));
    out
}

fn header(session: &StoredSession, trial: Option<&Trial>, console: &Console) -> Vec<String> {
    let latest = latest_closes(&session.closes);
    let close = latest.values().next();
    let first = session.exchanges.first();
    let mut out = vec![console.paint(&escape_control(session.session.as_str()), "1")];
    let agent =
        first.map(|one| one.agent.as_str()).or(close.map(|close| close.agent.as_str())).unwrap_or("-");
    let tenant =
        first.map(|one| one.tenant.as_str()).or(close.map(|close| close.tenant.as_str())).unwrap_or("-");
    let build = first.and_then(|one| one.build.as_ref()).map_or("-", |build| build.as_str());
    let started_at =
        first.map(|one| one.session_started_at).or(close.map(|close| close.started_at)).unwrap_or(0);
    let (agent, build, tenant) = (escape_control(agent), escape_control(build), escape_control(tenant));
    out.push(format!("  agent {agent} · build {build} · tenant {tenant} · {}", format::moment(started_at)));
    let count =
        |edge, noun| format::count(session.exchanges.iter().filter(|one| one.edge == edge).count(), noun);
    let calls = session
        .exchanges
        .iter()
        .filter(|one| one.edge == Edge::Tool && one.operation.kind == OperationKind::CallTool)
        .count();
    let counts =
        [count(Edge::Turn, "turn"), count(Edge::Model, "model call"), format::count(calls, "tool call")];
    let tears = session.gaps();
    let state = match State::of(&tears) {
        State::Complete => "complete".to_owned(),
        State::Open => console.paint("open", "33"),
        State::Incomplete => console.paint("incomplete", "33"),
    };
    out.push(format!("  {} · {state}", counts.join(" · ")));
    out.extend(tears.iter().map(|tear| format!("    {}", escape_control(&tear.to_string()))));
    let success =
        |success: Option<bool>| success.map_or("unknown", |success| if success { "yes" } else { "no" });
    if let Some(trial) = trial {
        let ending = trial.ending_detail.as_deref().unwrap_or("complete");
        let (case, lane) = (escape_control(trial.case.as_str()), trial.lane.as_str());
        let ending = recorded(ending, Length::Short, "");
        out.push(format!(
            "  case {case} · {lane} trial {} · success {} · {ending}",
            trial.trial,
            success(trial.success)
        ));
    } else if let Some(case) = close.and_then(|close| close.case.as_ref()) {
        out.push(format!(
            "  case {} · success {}",
            escape_control(case),
            success(close.and_then(|close| close.success))
        ));
    }
    let labels = latest.values().flat_map(|close| &close.labels);
    let labels: Vec<String> = labels
        .map(|(name, value)| format!("{}={}", escape_control(name), recorded(value, Length::Short, "")))
        .collect();
    if !labels.is_empty() {
        out.push(format!("  {}", labels.join(" · ")));
    }
    out.push(String::new());
    out
}

struct Trace<'a> {
    session: &'a StoredSession,
    length: Length,
    details: bool,
    console: &'a Console,
    origin: Option<i64>,
}

impl Trace<'_> {
    fn text(&self, text: &str) -> String {
        recorded(text, self.length, INDENT)
    }

    /// Seconds since the start of the session; the sequence number if the session has no times.
    fn when(&self, one: &Exchange, at: i64) -> String {
        match self.origin {
            Some(origin) if format::is_real_time(origin) => {
                let millis = at.saturating_sub(origin).max(0) / 1_000;
                format!("{:>+6}.{:03}s", millis / 1_000, millis % 1_000)
            }
            Some(_) | None => format!("{:>11}", format!("#{}", one.seq)),
        }
    }

    fn exchange(&self, one: &Exchange, out: &mut Vec<String>) {
        let when = self.when(one, one.started_at);
        let (edge, color) = match one.edge {
            Edge::Turn => ("turn ", "36"),
            Edge::Model => ("model", "35"),
            Edge::Tool => ("tool ", "32"),
        };
        let what = match one.operation.kind {
            OperationKind::Turn => {
                format!("▶ {}", self.text(one.operation.input.as_deref().unwrap_or("(no text)")))
            }
            OperationKind::Chat => chat(&one.operation),
            OperationKind::CallTool => self.call(&one.operation),
            OperationKind::ListTools => "lists the tools".to_owned(),
            OperationKind::Other => escape_control(one.operation.method.as_deref().unwrap_or("other")),
            OperationKind::Opaque => {
                format!("unknown protocol, {} bytes sent, {} received", one.request.bytes, one.response.bytes)
            }
        };
        // The line of the answer shows the figures of a turn.
        let figures =
            if one.operation.kind == OperationKind::Turn { String::new() } else { self.figures(one) };
        out.push(format!("{when}  {}  {what}{figures}", self.console.paint(edge, color)));
        self.push_details(one, out);
    }

    /// Adds the response and the details, one line each.
    fn push_details(&self, one: &Exchange, out: &mut Vec<String>) {
        let operation = &one.operation;
        let mut push = |mark: &str, text: String| out.push(format!("{:>18}  {mark} {text}", ""));
        match operation.kind {
            OperationKind::Chat => {
                if let Some(output) = operation.output.as_deref().filter(|output| !output.is_empty()) {
                    push("◂", self.text(output));
                }
                for call in &operation.requested {
                    push(
                        "◂",
                        format!("asks for {}({})", escape_control(&call.tool), self.text(&call.arguments)),
                    );
                }
            }
            OperationKind::CallTool => {
                if let Some(result) = &operation.result {
                    let mark = if operation.is_error == Some(true) {
                        self.console.paint("✗", "31")
                    } else {
                        "◂".to_owned()
                    };
                    push(&mark, self.text(result));
                }
            }
            OperationKind::Turn => self.user_tool_calls(one).into_iter().for_each(|line| push("·", line)),
            OperationKind::ListTools | OperationKind::Other | OperationKind::Opaque => {}
        }
        if !one.redactions.is_empty() {
            let redactions =
                one.redactions.iter().map(|r| format!("{} ×{} in {}", r.kind, r.count, r.location));
            push("·", format!("redacted {}", escape_control(&redactions.collect::<Vec<_>>().join(", "))));
        }
        if self.details {
            detail_lines(one).into_iter().for_each(|line| push("·", line));
        }
    }

    /// Tools that the user called before the turn; an import keeps them in the request of the turn.
    fn user_tool_calls(&self, one: &Exchange) -> Vec<String> {
        if one.identifiers.iter().all(|identifier| identifier.name != "user_tool_calls") {
            return Vec::new();
        }
        let body = self.session.body(&one.request).unwrap_or_default();
        let request: Value = serde_json::from_slice(&body).unwrap_or_default();
        let calls = request.get("user_tool_calls").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let field =
            |call: &Value, name: &str| self.text(call.get(name).and_then(Value::as_str).unwrap_or(""));
        let line = |call: &Value| {
            format!(
                "the user called {}({}): {}",
                field(call, "name"),
                field(call, "arguments"),
                field(call, "result")
            )
        };
        calls.iter().map(line).collect()
    }

    fn call(&self, operation: &Operation) -> String {
        let tool = escape_control(operation.tool.as_deref().unwrap_or("(unnamed)"));
        let arguments = operation.arguments.as_deref().or(operation.arguments_verbatim.as_deref());
        let arguments = arguments.map_or_else(|| "…".to_owned(), |text| self.text(text));
        let effect = match operation.effect {
            Effect::Read => " · read",
            Effect::Write => " · write",
            Effect::Unknown => "",
        };
        let verbatim = if operation.arguments_verbatim.is_some() { " · arguments not JSON" } else { "" };
        format!("{tool}({arguments}){effect}{verbatim}")
    }

    fn answer(&self, turn: &Exchange, out: &mut Vec<String>) {
        let taken = turn.duration_us.and_then(|micros| i64::try_from(micros).ok()).unwrap_or(0);
        let when = self.when(turn, turn.started_at.saturating_add(taken));
        let answer =
            turn.operation.output.as_deref().map_or_else(|| "(no answer)".to_owned(), |text| self.text(text));
        out.push(format!("{when}  {}  ◀ {answer}{}", self.console.paint("turn ", "36"), self.figures(turn)));
    }

    fn figures(&self, one: &Exchange) -> String {
        let mut parts = Vec::new();
        parts.extend(one.duration_us.map(format::duration));
        parts.extend(one.first_byte_us.map(|micros| format!("first byte {}", format::duration(micros))));
        if let (Some(input), Some(output)) = (one.usage.input_tokens, one.usage.output_tokens) {
            parts.push(format!("{input} → {output} tokens"));
        }
        parts.extend(
            one.status
                .filter(|status| *status >= 400)
                .map(|status| self.console.paint(&format!("status {status}"), "31")),
        );
        let ending = match one.ending {
            Ending::Complete => None,
            Ending::Failed => Some("failed"),
            Ending::Truncated => Some("truncated"),
            Ending::Cancelled => Some("cancelled"),
        };
        parts.extend(ending.map(|word| self.console.paint(word, "31")));
        parts.extend(one.ending_detail.as_deref().map(|detail| recorded(detail, Length::Short, "")));
        if parts.is_empty() { String::new() } else { format!("  [{}]", parts.join(" · ")) }
    }
}

fn chat(operation: &Operation) -> String {
    let model = escape_control(operation.model.as_deref().unwrap_or("model"));
    match operation.finish_reason.as_deref() {
        Some(reason) => format!("{model} ({})", escape_control(reason)),
        None => model,
    }
}

fn detail_lines(one: &Exchange) -> Vec<String> {
    let mut out =
        vec![format!("exchange {} · incarnation {} · seq {}", one.exchange, one.incarnation, one.seq)];
    if let (Some(method), Some(path)) = (&one.http_method, &one.path) {
        let status = one.status.map_or_else(String::new, |status| format!(" → {status}"));
        out.push(format!("{method} {path}{status}"));
    }
    let headers = one.request_headers.iter().chain(&one.response_headers);
    out.extend(headers.map(|header| format!("{}: {}", header.name, header.value)));
    out.extend(one.identifiers.iter().map(|id| {
        let chosen = if id.chosen { ", chosen" } else { "" };
        format!(
            "{} = {} ({}, {}{chosen})",
            id.name,
            id.value,
            id.source,
            format!("{:?}", id.confidence).to_lowercase()
        )
    }));
    out.extend(one.links.iter().map(|link| format!("{} {} ({})", link.kind, link.to, link.source)));
    out.iter().map(|line| escape_control(line)).collect()
}

#[cfg(test)]
mod tests {
    use recorder::import::{
        self, ImportFile, ImportFormat, ImportInto, ImportPlan, OutcomeColumns, TranscriptConverter,
    };
    use schemas::id::{IncarnationId, TenantId};
    use schemas::keys::RootKey;
    use schemas::tools::ToolCatalog;

    use super::*;
    use crate::console::Color;

    fn stored(line: &str) -> StoredSession {
        let source = ImportFile::decompress("airline.jsonl", line.as_bytes().to_vec()).expect("reads");
        let mut parsed =
            import::read(ImportFormat::TauBench, &source, &OutcomeColumns::default()).expect("no table");
        let tenant = TenantId::parse("t").expect("an id");
        let keys = RootKey::new([1; 32]).tenant(&tenant);
        let tools = r#"[{"name":"look_up","effect":"read"}]"#;
        let tools = ToolCatalog::parse_json(tools).expect("a tool list");
        let mut converter = TranscriptConverter::new(ImportPlan {
            format: ImportFormat::TauBench,
            file: &source,
            tenant,
            keys: &keys,
            agent: None,
            into: &ImportInto::Store { build: None },
            tools: &tools,
            incarnation: IncarnationId::parse("import-1").expect("an id"),
            now: 0,
            sessions_before: 0,
        });
        let converted = converter.convert(parsed.transcripts.remove(0)).expect("a session");
        StoredSession {
            session: converted.exchanges[0].session.clone(),
            closes: converted.close.into_iter().collect(),
            chunks: converted.chunks.into_iter().map(|(_, digest, bytes)| (digest, bytes)).collect(),
            exchanges: converted.exchanges,
        }
    }

    const LINE: &str = r#"{"task_id":7,"trial":1,"reward":0.0,"traj":[{"role":"user","content":"hi\u001b[2J"},{"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"look_up","arguments":"{\"a\": 1}"}}]},{"role":"tool","tool_call_id":"c","content":"Error: gone"},{"role":"assistant","content":"sorry"},{"role":"user","content":"bye"}]}"#;

    #[test]
    fn a_trace_shows_turns_calls_and_endings() {
        let console = Console::new(false, Color::Never);
        let lines = lines(&stored(LINE), None, Length::Short, false, &console);
        let expected = [
            "tau-bench/airline/7/1",
            "  agent airline · build - · tenant t · no time",
            "  1 turn · 2 model calls · 1 tool call · complete",
            "  case 7 · success no",
            "  closing_message=bye · domain=airline · file=airline · trial=1",
            "",
            "         #0  turn   ▶ hi\\u{1b}[2J",
            "         #1  model  model (tool_calls)",
            "                    ◂ asks for look_up({\"a\": 1})",
            "         #2  tool   look_up({\"a\":1}) · read",
            "                    ✗ Error: gone",
            "         #3  model  model (stop)",
            "                    ◂ sorry",
            "         #0  turn   ◀ sorry",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn the_trace_of_an_incomplete_session_lists_its_gaps() {
        let mut session = stored(LINE);
        session.exchanges.remove(2);
        session.chunks.clear();
        let console = Console::new(false, Color::Never);
        let lines = lines(&session, None, Length::Short, true, &console).join("\n");
        assert!(lines.contains("· incomplete"), "{lines}");
        assert!(lines.contains("missing 1 of 4 exchanges, the first is 2"), "{lines}");
        assert!(lines.contains("request body: chunk 0 of"), "{lines}");
    }
}
