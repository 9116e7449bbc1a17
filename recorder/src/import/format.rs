//! The file formats that import reads.

/// The format of an import file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum ImportFormat {
    /// tau-bench results: objects `{task_id, trial, reward, info, traj}`, one a line or in one array.
    TauBench,
    /// tau2-bench results: one document with `simulations`, or a line of `info` and then one simulation a line.
    Tau2,
    /// AgentDojo runs: one a line, with `messages` and `metadata`.
    #[strum(serialize = "agentdojo")]
    AgentDojo,
    /// A table of trials without transcripts, CSV or Parquet.
    Outcomes,
}

impl ImportFormat {
    /// The name on the command line and in session ids, such as `tau-bench`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_part_of_session_ids_and_stay() {
        let formats =
            [ImportFormat::TauBench, ImportFormat::Tau2, ImportFormat::AgentDojo, ImportFormat::Outcomes];
        assert_eq!(formats.map(ImportFormat::as_str), ["tau-bench", "tau2", "agentdojo", "outcomes"]);
    }
}
