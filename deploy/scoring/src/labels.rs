//! Labels by people: a CSV file with a success flag per case and trial.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context as _, bail};
use schemas::trial::{Lane, Trial};
use serde::Deserialize;

use crate::grade::Grade;

/// One row; without `lane`, the row applies to the lane of the run.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LabelRow {
    case: String,
    trial: u32,
    success: String,
    #[serde(default)]
    lane: Option<Lane>,
    #[serde(default)]
    reason: Option<String>,
}

/// Labels by lane, case and trial.
#[derive(Debug)]
pub(crate) struct Labels(HashMap<(Option<Lane>, String, u32), Grade>);

impl Labels {
    /// Reads a file; returns the labels and the BLAKE3 of the file, hexadecimal.
    ///
    /// # Errors
    /// The text names the file, the line, the expected and the found value.
    pub(crate) fn read(path: &Path) -> anyhow::Result<(Self, String)> {
        let content = std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
        let digest = blake3::hash(&content).to_hex().to_string();
        let labels = Self::parse(&content).with_context(|| format!("{}", path.display()))?;
        Ok((labels, digest))
    }

    fn parse(content: &[u8]) -> anyhow::Result<Self> {
        let mut labels = HashMap::new();
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(content);
        for row in reader.deserialize() {
            let row: LabelRow =
                row.context("expected the columns case,trial,success and optionally lane,reason")?;
            let success = match row.success.to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "pass" => true,
                "false" | "0" | "no" | "fail" => false,
                found => bail!(
                    "case {}, trial {}: success is {found:?}, expected true or false",
                    row.case,
                    row.trial
                ),
            };
            let grade =
                Grade { success, value: None, reason: row.reason.filter(|reason| !reason.is_empty()) };
            let key = (row.lane, row.case, row.trial);
            if let Some(other) = labels.insert(key.clone(), grade.clone())
                && other.success != grade.success
            {
                bail!(
                    "case {}, trial {} has two labels, true and false; delete one of the rows",
                    key.1,
                    key.2
                );
            }
        }
        Ok(Self(labels))
    }

    /// The label of a trial in a run of lane `own`.
    pub(crate) fn get(&self, trial: &Trial, own: Lane) -> Option<&Grade> {
        let of_lane = |lane| self.0.get(&(lane, trial.case.to_string(), trial.trial));
        of_lane(Some(trial.lane)).or_else(|| (trial.lane == own).then(|| of_lane(None)).flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trial_view::tests::trial;

    #[test]
    fn a_label_is_found_by_lane_case_and_trial() {
        let text =
            b"case,trial,success,lane,reason\nc,0,true,,\nc,1,no,candidate,wrong city\nr,0,1,recorded,";
        let labels = Labels::parse(text).expect("labels");
        let of = |case: &str, number| {
            labels.get(&trial(case, number, ""), Lane::Candidate).map(|grade| grade.success)
        };
        assert_eq!((of("c", 0), of("c", 1), of("c", 2), of("r", 0)), (Some(true), Some(false), None, None));
        let reason = labels.get(&trial("c", 1, ""), Lane::Candidate).and_then(|grade| grade.reason.clone());
        assert_eq!(reason.as_deref(), Some("wrong city"));
        let mut recording = trial("r", 0, "");
        recording.lane = Lane::Recorded;
        assert!(labels.get(&recording, Lane::Candidate).is_some());
    }

    #[test]
    fn an_error_names_the_row() {
        let refused = |text: &[u8]| format!("{:#}", Labels::parse(text).expect_err("refused"));
        let error = refused(b"case,trial,success\nc,0,true\nc,x,true");
        assert!(error.contains("line: 3") || error.contains("line 3"), "{error}");
        assert!(refused(b"case,trial,success\nc,0,maybe").contains("\"maybe\""));
        assert!(refused(b"case,trial,success\nc,0,true\nc,0,false").contains("true and false"));
        assert!(refused(b"case,success\nc,true").contains("trial"));
    }
}
