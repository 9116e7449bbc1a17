//! Parser of tau-bench results (sierra-research/tau-bench and forks): `{task_id, trial, reward, info, traj}`.

use std::collections::{BTreeMap, BTreeSet};

use schemas::trial::TrialEnding;
use serde::Deserialize;
use serde_json::Value;

use super::chat_message::{self, ChatMessage};
use super::file::ImportFile;
use super::parsed_file::ParsedFile;
use super::skipped::SkippedItem;
use super::stats::ImportWarning;
use super::transcript::{ReportedTotals, Transcript, TranscriptMessage, TranscriptRole};

/// The domains of tau-bench. A file names its domain only in prose.
const DOMAINS: [&str; 2] = ["airline", "retail"];

#[derive(Debug, Deserialize)]
struct TauBenchRow {
    task_id: Value,
    #[serde(default)]
    trial: Value,
    #[serde(default)]
    reward: Value,
    #[serde(default)]
    info: Value,
    #[serde(default)]
    traj: Option<Vec<ChatMessage>>,
    #[serde(default)]
    source_path: Value,
}

/// Parses every session of the file.
pub(super) fn read(file: &ImportFile) -> ParsedFile {
    let mut parsed = ParsedFile::default();
    for item in file.items() {
        let row = file
            .decode_or_without::<TauBenchRow>(item, "traj")
            .and_then(|(row, error)| transcript(file, item.0, row, error));
        match row {
            Ok(transcript) => parsed.transcripts.push(transcript),
            Err(item) => parsed.skipped.push(item),
        }
    }
    if trial_is_task_index(&parsed.transcripts) {
        for transcript in &mut parsed.transcripts {
            if transcript.trial != 0 {
                transcript.warnings.push(ImportWarning::TrialIsTaskIndex);
            }
            transcript.trial = 0;
        }
    }
    for transcript in &mut parsed.transcripts {
        transcript.name = format!("{}/{}", transcript.case, transcript.trial);
    }
    parsed
}

/// Whether `trial` repeats the task number, as some forks write it: then every session has its own task.
fn trial_is_task_index(transcripts: &[Transcript]) -> bool {
    let tasks: BTreeSet<&str> = transcripts.iter().map(|transcript| transcript.case.as_str()).collect();
    tasks.len() == transcripts.len()
        && transcripts.iter().all(|transcript| transcript.case == transcript.trial.to_string())
}

fn transcript(
    file: &ImportFile,
    line: u64,
    row: TauBenchRow,
    error: Option<SkippedItem>,
) -> Result<Transcript, SkippedItem> {
    let case = chat_message::task(&row.task_id).ok_or_else(|| {
        file.skipped_item(line, "task_id", format!("expected a number or a text, found {}", row.task_id))
    })?;
    let trial = chat_message::trial(&row.trial).ok_or_else(|| {
        file.skipped_item(line, "trial", format!("expected a whole number, found {}", row.trial))
    })?;
    let mut warnings = Vec::new();
    let (mut messages, lost_messages) =
        chat_message::messages_or_error(file, line, "traj", row.traj, error, &mut warnings);
    let label = chat_message::label(file, line, "reward", &row.reward);
    for message in &mut messages {
        if message.role == TranscriptRole::Tool && message.is_error.is_none() {
            message.is_error = Some(reports_error(message));
        }
    }
    let crash = row.info.get("error").and_then(Value::as_str).map(str::to_owned);
    let domain = domain(file, &messages, row.source_path.as_str());
    Ok(Transcript {
        line,
        case,
        trial,
        name: String::new(),
        agent: domain.map(str::to_owned),
        model: None,
        opening: None,
        messages,
        reported: ReportedTotals::default(),
        started_at: None,
        success: label.as_ref().ok().copied().flatten(),
        unreadable_label: label.err(),
        lost_messages,
        unreadable_cells: Vec::new(),
        ending: if crash.is_some() { TrialEnding::Failed } else { TrialEnding::Complete },
        ending_detail: crash,
        slices: BTreeMap::from_iter(domain.map(|domain| ("domain".to_owned(), domain.to_owned()))),
        cluster: None,
        weight: None,
        batch: None,
        warnings,
    })
}

/// Whether a tool message reports a failure: its text starts with `Error`, in some forks within an assignment.
fn reports_error(message: &TranscriptMessage) -> bool {
    let text = message.text.as_deref().unwrap_or("");
    let value = match text.strip_prefix("# ").and_then(|text| text.split_once(" = \"")) {
        Some((_, value)) => value,
        None => text,
    };
    value.starts_with("Error:") || value.starts_with("Error ")
}

/// The domain, from the first line of the policy, else from the path of the file.
fn domain(
    file: &ImportFile,
    messages: &[TranscriptMessage],
    source_path: Option<&str>,
) -> Option<&'static str> {
    let policy = messages
        .iter()
        .find(|message| message.role == TranscriptRole::System)
        .and_then(|message| message.text.as_deref());
    let title = policy.and_then(|text| text.lines().next());
    let candidates = [title, source_path, Some(file.name())];
    let candidates: Vec<String> = candidates.into_iter().flatten().map(str::to_lowercase).collect();
    candidates.iter().find_map(|text| DOMAINS.into_iter().find(|domain| text.contains(domain)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(lines: &str) -> ParsedFile {
        read(&ImportFile::decompress("airline.jsonl", lines.as_bytes().to_vec()).expect("reads"))
    }

    #[test]
    fn a_trial_field_that_repeats_the_task_is_read_as_trial_0() {
        let parsed =
            parse("{\"task_id\":3,\"trial\":3,\"traj\":[]}\n{\"task_id\":4,\"trial\":4,\"traj\":[]}");
        assert!(parsed.transcripts.iter().all(|transcript| transcript.trial == 0));
        let parsed =
            parse("{\"task_id\":0,\"trial\":0,\"traj\":[]}\n{\"task_id\":0,\"trial\":1,\"traj\":[]}");
        assert_eq!(parsed.transcripts[1].trial, 1);
    }

    #[test]
    fn skipped_items_have_line_and_field() {
        let parsed = parse(
            "{\"task_id\":0,\"traj\":[{\"role\":\"alien\"}]}\n{\"task_id\":1,\n{\"task_id\":2,\"traj\":[{\"role\":\"user\",\"content\":\"x\"}]}",
        );
        let positions: Vec<_> = parsed.skipped.iter().map(|item| (item.line, item.field.as_str())).collect();
        assert_eq!(positions, [(2, "")]);
        let [lost, complete] = &parsed.transcripts[..] else { panic!("two trials") };
        let lost = lost.lost_messages.as_ref().map(|item| (item.line, item.field.as_str()));
        assert_eq!((lost, &complete.lost_messages), (Some((1, "traj[0].role")), &None));
    }
}
