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
    trial: Option<u32>,
    #[serde(default)]
    start_time: Option<String>,
    #[serde(default)]
    termination_reason: Option<String>,
    #[serde(default)]
    reward_info: Option<RewardInfo>,
    messages: Vec<ChatMessage>,
}

#[derive(Debug, Deserialize)]
struct RewardInfo {
    #[serde(default)]
    reward: Option<f64>,
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
        let row = file.decode::<Simulation>(item).and_then(|row| transcript(file, item.0, row, &context));
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
    context: &FileContext,
) -> Result<Transcript, SkippedItem> {
    let case = chat_message::task(&row.task_id).ok_or_else(|| {
        file.skipped_item(line, "task_id", format!("expected a number or a text, found {}", row.task_id))
    })?;
    let mut warnings = Vec::new();
    let messages = chat_message::messages("messages", row.messages, &mut warnings)
        .map_err(|misread| misread.at(file, line))?;
    let trial = row.trial.unwrap_or(0);
    let ending = ending(row.termination_reason.as_deref());
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
        started_at: row.start_time.as_deref().and_then(time::parse),
        success: row.reward_info.and_then(|info| info.reward).map(chat_message::is_success),
        ending,
        ending_detail: row.termination_reason.filter(|_| ending != TrialEnding::Complete),
        slices: BTreeMap::from_iter(domain.map(|domain| ("domain".to_owned(), domain))),
        cluster: None,
        weight: None,
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
    fn a_truncated_document_is_skipped() {
        let text = format!("{{\n{}", &HEAD[1..]);
        let parsed = read(&ImportFile::decompress("x.json", text.into_bytes()).expect("reads"));
        assert_eq!((parsed.transcripts.len(), parsed.skipped.len()), (0, 1));
    }
}
