//! Redaction of a transcript before its conversion, by the detectors of the recorder.
//!
//! A redaction counts in the message that contains the secret. Requests that repeat the message as history do not count it.

use schemas::exchange::Redaction;

use super::transcript::Transcript;
use crate::encode::redact::Redactor;
use crate::encode::redact::counts::RedactionCounts;

/// Location of a redaction outside the messages.
const OUTSIDE_MESSAGES: &str = "import";

/// Replaces every secret; returns their number.
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
        replace(redactor, text, OUTSIDE_MESSAGES, &mut count);
    }
    count
}

fn replace(
    redactor: &Redactor,
    text: &mut Option<String>,
    location: &'static str,
    count: &mut u64,
) -> Vec<Redaction> {
    let Some(original) = text.take() else { return Vec::new() };
    let mut counts = RedactionCounts::default();
    let redacted = redactor.body(original.into_bytes(), false, location, &mut counts);
    *text = Some(String::from_utf8_lossy(&redacted).into_owned());
    let rows = counts.into_rows();
    *count += rows.iter().map(|row| u64::from(row.count)).sum::<u64>();
    rows
}
