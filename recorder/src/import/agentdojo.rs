//! Parser of AgentDojo runs (ethz-spylab/agentdojo): a line of run metadata, then one `{messages, metadata}` per line.
//!
//! `metadata.success` is the success of the user's task. `metadata.security` is not: on attacked runs it means that the attack
//! succeeded, on benign runs it has no meaning. Attack text in tool results is kept.

use std::collections::BTreeMap;

use schemas::trial::TrialEnding;
use serde::Deserialize;
use serde_json::Value;

use super::chat_message::{self, ChatMessage};
use super::file::ImportFile;
use super::parsed_file::ParsedFile;
use super::skipped::SkippedItem;
use super::transcript::{ReportedTotals, Transcript, TranscriptRole};

#[derive(Debug, Deserialize)]
struct AgentDojoRow {
    messages: Option<Vec<ChatMessage>>,
    metadata: Metadata,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    suite_name: Option<String>,
    model: Option<String>,
    success: Value,
    security: Value,
    user_task_id: Option<String>,
    injection_task_id: Option<String>,
    attack_type: Option<String>,
    error: Option<String>,
}

/// Parses every run of the file.
pub(super) fn read(file: &ImportFile) -> ParsedFile {
    let mut parsed = ParsedFile::default();
    for item in file.items() {
        match file.decode_or_without::<AgentDojoRow>(item, "messages") {
            // Metadata of the file, not of a session.
            Ok((AgentDojoRow { messages: None, metadata }, None))
                if item.0 == 1 && metadata.user_task_id.is_none() => {}
            Ok((row, error)) => match transcript(file, item.0, row, error) {
                Ok(transcript) => parsed.transcripts.push(transcript),
                Err(item) => parsed.skipped.push(item),
            },
            Err(item) => parsed.skipped.push(item),
        }
    }
    parsed
}

fn transcript(
    file: &ImportFile,
    line: u64,
    row: AgentDojoRow,
    unreadable: Option<SkippedItem>,
) -> Result<Transcript, SkippedItem> {
    let missing = |field: &str| file.skipped_item(line, field, "expected a value, found nothing".to_owned());
    let Metadata {
        suite_name,
        model,
        success,
        security,
        user_task_id,
        injection_task_id,
        attack_type,
        error,
    } = row.metadata;
    let suite = suite_name.ok_or_else(|| missing("metadata.suite_name"))?;
    let task = user_task_id.ok_or_else(|| missing("metadata.user_task_id"))?;
    let mut warnings = Vec::new();
    let (mut messages, lost_messages) =
        chat_message::messages_or_error(file, line, "messages", row.messages, unreadable, &mut warnings);
    let label = chat_message::label(file, line, "metadata.success", &success);
    for message in &mut messages {
        // The format writes `error` always, as null without an error.
        if message.role == TranscriptRole::Tool && message.is_error.is_none() {
            message.is_error = Some(false);
        }
    }
    let attack = attack_type.unwrap_or_else(|| "none".to_owned());
    let mut slices =
        BTreeMap::from([("suite".to_owned(), suite.clone()), ("attack".to_owned(), attack.clone())]);
    let mut name = format!("{suite}/{task}/{attack}");
    if let Some(injection) = injection_task_id {
        name = format!("{name}/{injection}");
        slices.insert("injection".to_owned(), injection);
        slices.extend(security.as_bool().map(|through| ("attack_succeeded".to_owned(), through.to_string())));
    }
    Ok(Transcript {
        line,
        case: format!("{suite}/{task}"),
        trial: 0,
        name,
        agent: Some(suite),
        model,
        opening: None,
        messages,
        reported: ReportedTotals::default(),
        started_at: None,
        success: label.as_ref().ok().copied().flatten(),
        unreadable_label: label.err(),
        lost_messages,
        unreadable_cells: Vec::new(),
        ending: if error.is_some() { TrialEnding::Failed } else { TrialEnding::Complete },
        ending_detail: error,
        slices,
        cluster: None,
        weight: None,
        batch: None,
        warnings,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn benign_and_attacked_runs_of_a_task_have_different_slices_and_names() {
        let run = |attack: &str, injection: &str| {
            format!(
                r#"{{"messages":[{{"role":"user","content":"pay"}}],"metadata":{{"suite_name":"banking","user_task_id":"user_task_0","success":true,"security":true,"attack_type":{attack},"injection_task_id":{injection}}}}}"#
            )
        };
        let text = format!(
            "{{\"metadata\":{{\"name\":\"m\"}}}}\n{}\n{}\n",
            run("null", "null"),
            run("\"direct\"", "\"injection_task_3\"")
        );
        let parsed = read(&ImportFile::decompress("m.jsonl", text.into_bytes()).expect("reads"));
        assert_eq!(parsed.skipped, []);
        let [benign, attacked] = &parsed.transcripts[..] else { panic!("two runs") };
        assert_eq!(benign.case, attacked.case);
        assert!(benign.is_in("attack", "none") && attacked.is_in("attack", "direct"));
        assert_ne!(benign.name, attacked.name);
        assert_eq!(benign.slices.get("attack_succeeded"), None);
    }
}
