//! Copies the selected recordings into the run, as lane `recorded`.

use std::collections::HashMap;

use schemas::id::SessionId;
use store::{Batch, Snapshot, Store};

use super::cases::Cases;
use super::error::ReplayError;
use crate::case_recording::CaseRecording;
use crate::trial_log::TrialLog;
use crate::trial_rows::add_recording;

/// Source of the commits with the recordings.
pub(super) const RECORDED_SOURCE: &str = "recorded";

/// Recordings in one commit.
const RECORDINGS_PER_COMMIT: usize = 256;

/// Copies recordings into the run, and continues after those that an earlier start copied.
pub(super) async fn copy_recordings(
    run: &Store,
    trial_log: &mut TrialLog,
    (store, mut snapshot): (Store, Snapshot),
    sessions: &[SessionId],
    cases: &Cases,
) -> Result<(), ReplayError> {
    run.delete_orphans(RECORDED_SOURCE).await?;
    let mut first = run.resume_position(RECORDED_SOURCE).await?;
    let rest = sessions.get(usize::try_from(first).unwrap_or(usize::MAX)..).unwrap_or_default();
    let recordings: HashMap<&str, &CaseRecording> =
        cases.values().map(|case| (case.recording.case.as_str(), &case.recording)).collect();
    for part in rest.chunks(RECORDINGS_PER_COMMIT) {
        let mut batch = Batch::default();
        let wanted = part.iter().cloned().collect();
        for session in &store.load_wanted(&mut snapshot, &wanted).await? {
            if let Some(recording) = recordings.get(session.session.as_str()) {
                add_recording(&mut batch, session, recording);
            }
        }
        let next = first + part.len() as u64;
        trial_log.commit_recordings(RECORDED_SOURCE, first, next, batch).await?;
        first = next;
    }
    Ok(())
}
