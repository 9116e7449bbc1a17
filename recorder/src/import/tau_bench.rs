//! tau-bench results (sierra-research/tau-bench and its forks): `{task_id, trial, reward, info, traj}`.

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

/// The domains of tau-bench: a file names its own only in prose.
const DOMAINS: [&str; 2] = ["airline", "retail"];

#[derive(Debug, Deserialize)]
struct Row {
    task_id: Value,
    #[serde(default)]
    trial: Option<u32>,
    #[serde(default)]
    reward: Option<f64>,
    #[serde(default)]
    info: Value,
    traj: Vec<ChatMessage>,
    #[serde(default)]
    source_path: Option<String>,
}

/// Reads every session of the file.
pub(super) fn read(source: &ImportFile) -> ParsedFile {
    let mut parsed = ParsedFile::default();
    for item in source.items() {
        let row = source.decode::<Row>(item).and_then(|row| transcript(source, item.0, row));
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

/// Some forks write the task's index as `trial`: then every session has its own task and says it twice.
fn trial_is_task_index(transcripts: &[Transcript]) -> bool {
    let tasks: BTreeSet<&str> = transcripts.iter().map(|transcript| transcript.case.as_str()).collect();
    tasks.len() == transcripts.len()
        && transcripts.iter().all(|transcript| transcript.case == transcript.trial.to_string())
}

fn transcript(source: &ImportFile, line: u64, row: Row) -> Result<Transcript, SkippedItem> {
    let case = chat_message::task(&row.task_id).ok_or_else(|| {
        source.skipped_item(line, "task_id", format!("expected a number or a text, found {}", row.task_id))
    })?;
    let mut warnings = Vec::new();
    let mut messages = chat_message::messages("traj", row.traj, &mut warnings)
        .map_err(|misread| misread.at(source, line))?;
    for message in &mut messages {
        if message.role == TranscriptRole::Tool && message.is_error.is_none() {
            message.is_error = Some(reports_error(message));
        }
    }
    let crash = row.info.get("error").and_then(Value::as_str).map(str::to_owned);
    let domain = domain(source, &messages, row.source_path.as_deref());
    Ok(Transcript {
        line,
        case,
        trial: row.trial.unwrap_or(0),
        name: String::new(),
        agent: domain.map(str::to_owned),
        model: None,
        opening: None,
        messages,
        reported: ReportedTotals::default(),
        started_at: None,
        success: row.reward.map(chat_message::is_success),
        ending: if crash.is_some() { TrialEnding::Failed } else { TrialEnding::Complete },
        ending_detail: crash,
        slices: BTreeMap::from_iter(domain.map(|domain| ("domain".to_owned(), domain.to_owned()))),
        warnings,
    })
}

/// The tools of tau-bench report a failure as a text that starts with `Error`; some forks print an assignment of it.
fn reports_error(message: &TranscriptMessage) -> bool {
    let text = message.text.as_deref().unwrap_or("");
    let value = match text.strip_prefix("# ").and_then(|text| text.split_once(" = \"")) {
        Some((_, value)) => value,
        None => text,
    };
    value.starts_with("Error:") || value.starts_with("Error ")
}

/// The first line of the policy names the domain; without a policy, the path of the file does.
fn domain(
    source: &ImportFile,
    messages: &[TranscriptMessage],
    source_path: Option<&str>,
) -> Option<&'static str> {
    let policy = messages
        .iter()
        .find(|message| message.role == TranscriptRole::System)
        .and_then(|message| message.text.as_deref());
    let title = policy.and_then(|text| text.lines().next());
    let places = [title, source_path, Some(source.name())];
    let places: Vec<String> = places.into_iter().flatten().map(str::to_lowercase).collect();
    places.iter().find_map(|text| DOMAINS.into_iter().find(|domain| text.contains(domain)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(lines: &str) -> ParsedFile {
        read(&ImportFile::decompress("airline.jsonl", lines.as_bytes().to_vec()).expect("reads"))
    }

    #[test]
    fn a_trial_that_repeats_the_task_is_no_trial() {
        let parsed =
            parse("{\"task_id\":3,\"trial\":3,\"traj\":[]}\n{\"task_id\":4,\"trial\":4,\"traj\":[]}");
        assert!(parsed.transcripts.iter().all(|transcript| transcript.trial == 0));
        let parsed =
            parse("{\"task_id\":0,\"trial\":0,\"traj\":[]}\n{\"task_id\":0,\"trial\":1,\"traj\":[]}");
        assert_eq!(parsed.transcripts[1].trial, 1);
    }

    #[test]
    fn names_line_and_field_of_what_is_broken() {
        let parsed = parse(
            "{\"task_id\":0,\"traj\":[{\"role\":\"alien\"}]}\n{\"task_id\":1,\n{\"task_id\":2,\"traj\":[{\"role\":\"user\",\"content\":\"x\"}]}",
        );
        let places: Vec<_> = parsed.skipped.iter().map(|item| (item.line, item.field.as_str())).collect();
        assert_eq!(places, [(1, "traj[0].role"), (2, "")]);
        assert_eq!(parsed.transcripts.len(), 1);
    }
}
