//! Parser of tau2-bench results (sierra-research/tau2-bench and forks): one document `{info, tasks, simulations}`, or a first
//! line with `info` and then one simulation per line.
//!
//! Only the domain and the agent's model are read from `info`, because it may contain credentials.

use std::collections::BTreeMap;

use schemas::trial::TrialEnding;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::chat_message::{self, ChatMessage};
use super::file::{FileItem, ImportFile};
use super::parsed_file::ParsedFile;
use super::skipped::SkippedItem;
use super::stats::ImportWarning;
use super::time;
use super::transcript::{ReportedTotals, Transcript};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct FileHeader {
    info: Info,
    tasks: Vec<Task>,
}

#[derive(Debug, Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    simulations: Vec<&'a RawValue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Info {
    agent_info: AgentInfo,
    environment_info: EnvironmentInfo,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AgentInfo {
    llm: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct EnvironmentInfo {
    domain_name: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Task {
    id: Value,
    #[serde(default)]
    ticket: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Simulation {
    task_id: Value,
    #[serde(default)]
    trial: Value,
    #[serde(default)]
    start_time: Value,
    #[serde(default)]
    termination_reason: Value,
    #[serde(default)]
    reward_info: Value,
    #[serde(default)]
    messages: Option<Vec<ChatMessage>>,
}

/// Values of the header that apply to all sessions.
struct FileContext {
    domain: Option<String>,
    model: Option<String>,
    tickets: BTreeMap<String, String>,
}

impl From<FileHeader> for FileContext {
    fn from(head: FileHeader) -> Self {
        let tickets =
            head.tasks.into_iter().filter_map(|task| Some((chat_message::task(&task.id)?, task.ticket?)));
        Self {
            domain: head.info.environment_info.domain_name,
            model: head.info.agent_info.llm,
            tickets: tickets.collect(),
        }
    }
}

/// Parses every simulation of the file.
pub(super) fn read(file: &ImportFile) -> ParsedFile {
    let mut parsed = ParsedFile::default();
    let (head, items) = match split_header(file) {
        Ok(parts) => parts,
        Err(item) => {
            parsed.skipped.push(item);
            return parsed;
        }
    };
    // Without a readable header, domain and tickets are missing, but the sessions are not.
    let head = head.map(|head| file.decode::<FileHeader>(head)).unwrap_or_else(|| Ok(FileHeader::default()));
    let context = FileContext::from(head.unwrap_or_else(|item| {
        parsed.skipped.push(item);
        FileHeader::default()
    }));
    for item in items {
        let row = file
            .decode_or_without::<Simulation>(item, "messages")
            .and_then(|(row, error)| transcript(file, item.0, row, error, &context));
        match row {
            Ok(transcript) => parsed.transcripts.push(transcript),
            Err(item) => parsed.skipped.push(item),
        }
    }
    parsed
}

/// Separates header and simulations, for both layouts of the file.
fn split_header(file: &ImportFile) -> Result<(Option<FileItem<'_>>, Vec<FileItem<'_>>), SkippedItem> {
    if let Ok(document) = serde_json::from_slice::<Document<'_>>(file.bytes()) {
        let items = (1..).zip(document.simulations.into_iter().map(|one| one.get().as_bytes()));
        return Ok((Some((1, file.bytes())), items.collect()));
    }
    let mut items = file.items();
    let is_head = |text: &[u8]| {
        serde_json::from_slice::<Value>(text).is_ok_and(|v| {
            v.get("info").is_some() && v.get("task_id").is_none() && v.get("messages").is_none()
        })
    };
    if items.first().is_some_and(|(_, text)| is_head(text)) {
        let head = items.remove(0);
        return Ok((Some(head), items));
    }
    // A truncated document cannot be parsed by line.
    let opens_document =
        |text: &[u8]| text.trim_ascii().first() == Some(&b'{') && text.trim_ascii().len() < 3;
    if items.first().is_some_and(|(_, text)| opens_document(text)) {
        let error = serde_json::from_slice::<Value>(file.bytes())
            .err()
            .map_or_else(String::new, |error| error.to_string());
        return Err(file.skipped_item(
            1,
            "simulations",
            format!("expected a document with `simulations`, found {error}"),
        ));
    }
    Ok((None, items))
}

fn transcript(
    file: &ImportFile,
    line: u64,
    row: Simulation,
    error: Option<SkippedItem>,
    context: &FileContext,
) -> Result<Transcript, SkippedItem> {
    let case = chat_message::task(&row.task_id).ok_or_else(|| {
        file.skipped_item(line, "task_id", format!("expected a number or a text, found {}", row.task_id))
    })?;
    let trial = chat_message::trial(&row.trial).ok_or_else(|| {
        file.skipped_item(line, "trial", format!("expected a whole number, found {}", row.trial))
    })?;
    let mut warnings = Vec::new();
    let (messages, lost_messages) =
        chat_message::messages_or_error(file, line, "messages", row.messages, error, &mut warnings);
    let label = match &row.reward_info {
        Value::Object(info) => {
            let reward = info.get("reward").unwrap_or(&Value::Null);
            chat_message::label(file, line, "reward_info.reward", reward)
        }
        Value::Null => Ok(None),
        other => chat_message::label(file, line, "reward_info", other),
    };
    let started_at = row.start_time.as_str().and_then(time::parse);
    if started_at.is_none() && !row.start_time.is_null() {
        warnings.push(ImportWarning::TimeUnreadable);
    }
    let reason = row.termination_reason.as_str();
    let ending = ending(reason);
    let domain = context.domain.clone();
    Ok(Transcript {
        line,
        name: format!("{case}/{trial}"),
        opening: context.tickets.get(&case).cloned(),
        case,
        trial,
        agent: domain.clone(),
        model: context.model.clone(),
        messages,
        reported: ReportedTotals::default(),
        started_at,
        success: label.as_ref().ok().copied().flatten(),
        unreadable_label: label.err(),
        lost_messages,
        unreadable_cells: Vec::new(),
        ending,
        ending_detail: reason.filter(|_| ending != TrialEnding::Complete).map(str::to_owned),
        slices: BTreeMap::from_iter(domain.map(|domain| ("domain".to_owned(), domain))),
        cluster: None,
        weight: None,
        batch: None,
        warnings,
    })
}

/// The ending for a `TerminationReason` of tau2-bench.
fn ending(reason: Option<&str>) -> TrialEnding {
    match reason {
        Some("max_steps" | "too_many_errors" | "agent_error" | "invalid_agent_message") => {
            TrialEnding::Failed
        }
        Some("timeout") => TrialEnding::TimedOut,
        Some("user_error" | "infrastructure_error" | "unexpected_error") => TrialEnding::Infrastructure,
        Some(_) | None => TrialEnding::Complete,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = r#"{"info":{"environment_info":{"domain_name":"airline"},"agent_info":{"llm":"m"}},"tasks":[{"id":"7","ticket":"fix it"}]"#;
    const SIMULATION: &str = r#"{"task_id":"7","trial":1,"reward_info":{"reward":1.0},"messages":[{"role":"user","content":"hi"}]}"#;

    #[test]
    fn both_layouts_are_parsed_equally() {
        let document = format!("{HEAD},\n\"simulations\":[{SIMULATION}]}}");
        let lines = format!("{HEAD}}}\n{SIMULATION}\n");
        for text in [document, lines] {
            let parsed = read(&ImportFile::decompress("x.json", text.into_bytes()).expect("reads"));
            assert_eq!(parsed.skipped, []);
            let [one] = &parsed.transcripts[..] else { panic!("{} sessions", parsed.transcripts.len()) };
            assert_eq!((one.case.as_str(), one.trial, one.success), ("7", 1, Some(true)));
            assert_eq!((one.agent.as_deref(), one.opening.as_deref()), (Some("airline"), Some("fix it")));
        }
    }

    #[test]
    fn a_trial_without_messages_or_with_an_unreadable_reward_stays() {
        let rows = [
            r#"{"task_id":"7","trial":0.0,"reward_info":{"reward":0.0}}"#,
            r#"{"task_id":"7","trial":1,"reward_info":{"reward":0.0},"messages":[{"role":"alien"}]}"#,
            r#"{"task_id":"7","trial":2,"reward_info":{"reward":1.0},"messages":"gone"}"#,
            r#"{"task_id":"7","trial":3,"reward_info":{"reward":"error"},"messages":[{"role":"user","content":"hi"}]}"#,
            r#"{"task_id":"7","trial":4,"reward_info":null,"messages":[{"role":"user","content":"hi"}]}"#,
            r#"{"task_id":"7","trial":"x","messages":[]}"#,
        ];
        let text = format!("{HEAD}}}\n{}\n", rows.join("\n"));
        let parsed = read(&ImportFile::decompress("x.json", text.into_bytes()).expect("reads"));
        let found: Vec<_> = parsed
            .transcripts
            .iter()
            .map(|one| (one.trial, one.success, one.lost_messages.is_some(), one.unreadable_label.is_some()))
            .collect();
        assert_eq!(
            found,
            [
                (0, Some(false), true, false),
                (1, Some(false), true, false),
                (2, Some(true), true, false),
                (3, None, false, true),
                (4, None, false, false),
            ]
        );
        let skipped: Vec<String> = parsed.skipped.iter().map(ToString::to_string).collect();
        assert_eq!(skipped, ["x.json:7: trial: expected a whole number, found \"x\""]);
    }

    #[test]
    fn a_truncated_document_is_skipped() {
        let text = format!("{{\n{}", &HEAD[1..]);
        let parsed = read(&ImportFile::decompress("x.json", text.into_bytes()).expect("reads"));
        assert_eq!((parsed.transcripts.len(), parsed.skipped.len()), (0, 1));
    }
}
