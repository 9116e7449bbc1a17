//! Secrets of a transcript replaced before anything is made of it, by the shapes that the tap replaces too.
//!
//! What is replaced is counted where it was first said; the requests that repeat it as history do not count it again.

use schemas::exchange::Redaction;

use super::transcript::Transcript;
use crate::encode::redact::Redactor;
use crate::encode::redact::counts::RedactionCounts;

/// Where a value was replaced that a transcript carries beside its messages.
const BESIDE: &str = "import";

/// Replaces every secret; returns how many there were.
pub(super) fn redact_transcript(redactor: &Redactor, transcript: &mut Transcript) -> u64 {
    let mut count = 0;
    for message in &mut transcript.messages {
        message.redactions = replace(redactor, &mut message.text, "body", &mut count);
        for call in &mut message.calls {
            let mut arguments = Some(std::mem::take(&mut call.arguments));
            call.redactions = replace(redactor, &mut arguments, "arguments", &mut count);
            call.arguments = arguments.unwrap_or_default();
        }
    }
    for text in [&mut transcript.opening, &mut transcript.reported.answer, &mut transcript.ending_detail] {
        replace(redactor, text, BESIDE, &mut count);
    }
    count
}

fn replace(
    redactor: &Redactor,
    text: &mut Option<String>,
    place: &'static str,
    count: &mut u64,
) -> Vec<Redaction> {
    let Some(said) = text.take() else { return Vec::new() };
    let mut counts = RedactionCounts::default();
    let safe = redactor.body(said.into_bytes(), false, place, &mut counts);
    *text = Some(String::from_utf8_lossy(&safe).into_owned());
    let rows = counts.into_rows();
    *count += rows.iter().map(|row| u64::from(row.count)).sum::<u64>();
    rows
}
