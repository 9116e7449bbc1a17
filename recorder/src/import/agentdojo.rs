//! AgentDojo runs (ethz-spylab/agentdojo): a line of run metadata, then `{messages, metadata}` a line.
//!
//! `metadata.success` says whether the user's task was done. `metadata.security` is not read as success: on attacked
//! runs it says that the attack got through, on benign ones it says nothing. Attack text in tool results is kept as is.

use std::collections::BTreeMap;

use schemas::trial::TrialEnding;
use serde::Deserialize;

use super::chat_message::{self, ChatMessage};
use super::file::ImportFile;
use super::parsed_file::ParsedFile;
use super::skipped::SkippedItem;
use super::transcript::{ReportedTotals, Transcript, TranscriptRole};

#[derive(Debug, Deserialize)]
struct Row {
    messages: Option<Vec<ChatMessage>>,
    metadata: Metadata,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    suite_name: Option<String>,
    model: Option<String>,
    success: Option<bool>,
    security: Option<bool>,
    user_task_id: Option<String>,
    injection_task_id: Option<String>,
    attack_type: Option<String>,
    error: Option<String>,
}

/// Reads every run of the file.
pub(super) fn read(source: &ImportFile) -> ParsedFile {
    let mut parsed = ParsedFile::default();
    for item in source.items() {
        match source.decode::<Row>(item) {
            // The run metadata: of the file, not of a session.
            Ok(Row { messages: None, metadata }) if item.0 == 1 && metadata.user_task_id.is_none() => {}
            Ok(row) => match transcript(source, item.0, row) {
                Ok(transcript) => parsed.transcripts.push(transcript),
                Err(item) => parsed.skipped.push(item),
            },
            Err(item) => parsed.skipped.push(item),
        }
    }
    parsed
}

fn transcript(source: &ImportFile, line: u64, row: Row) -> Result<Transcript, SkippedItem> {
    let missing =
        |field: &str| source.skipped_item(line, field, "expected a value, found nothing".to_owned());
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
    let messages = row.messages.ok_or_else(|| missing("messages"))?;
    let mut warnings = Vec::new();
    let mut messages = chat_message::messages("messages", messages, &mut warnings)
        .map_err(|misread| misread.at(source, line))?;
    for message in &mut messages {
        // The format always writes `error`, as null where there was none.
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
        slices.extend(security.map(|through| ("attack_succeeded".to_owned(), through.to_string())));
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
        success,
        ending: if error.is_some() { TrialEnding::Failed } else { TrialEnding::Complete },
        ending_detail: error,
        slices,
        warnings,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn benign_and_attacked_runs_of_a_task_differ_by_slice_and_name() {
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
