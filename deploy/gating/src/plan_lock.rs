//! The locked plan of a gate, `gate.json`: written before the first trial, compared on every resume.
//!
//! The lock prevents a change of policy, order or looks after data were seen.

use std::path::Path;

use analyzer::Policy;
use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use crate::config::GateConfig;
use crate::look_schedule::LookSchedule;

/// Version of the file format.
const FORMAT: u32 = 1;

/// The locked plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlanLock {
    format: u32,
    /// BLAKE3 of the policy including defaults, hexadecimal.
    pub(crate) policy_digest: String,
    /// Digest of the recorded sessions.
    corpus_digest: String,
    /// BLAKE3 of the order of replay, hexadecimal.
    order_digest: String,
    /// BLAKE3 of the `[score]` table; `None` without it.
    #[serde(default)]
    score_digest: Option<String>,
    seed: u64,
    /// Sessions at the last planned look.
    sessions: usize,
    looks: usize,
    trials: u32,
    /// Part of alpha is reserved for an extension.
    extension: bool,
}

impl PlanLock {
    pub(crate) fn new(
        config: &GateConfig,
        policy: &Policy,
        schedule: &LookSchedule,
        corpus_digest: &str,
    ) -> Self {
        let mut hasher = blake3::Hasher::new();
        for case in schedule.order.iter() {
            hasher.update(case.as_str().as_bytes());
            hasher.update(b"\n");
        }
        Self {
            format: FORMAT,
            policy_digest: policy.digest(),
            corpus_digest: corpus_digest.to_owned(),
            order_digest: hasher.finalize().to_hex().to_string(),
            score_digest: config.scoring.as_ref().map(|scoring| scoring.digest.clone()),
            seed: config.seed,
            sessions: schedule.planned,
            looks: schedule.looks,
            trials: config.trials,
            extension: schedule.extension,
        }
    }

    /// Writes the plan, or compares it with the written one on a resume.
    ///
    /// # Errors
    /// The file exists and the gate is not resumed, or the written plan differs.
    pub(crate) fn write_or_compare(&self, path: &Path, resume: bool) -> anyhow::Result<()> {
        match std::fs::read_to_string(path) {
            Ok(_) if !resume => bail!(
                "{} exists: a gate ran here; continue it with --resume, or name another folder with the key `runs`",
                path.display()
            ),
            Ok(text) => {
                let locked: Self = serde_json::from_str(&text)
                    .with_context(|| format!("{} is not the locked plan of a gate", path.display()))?;
                match self.first_difference(&locked) {
                    None => Ok(()),
                    Some((what, locked, current)) => bail!(
                        "the {what} was fixed as {locked} before the first trial ({}) and is {current} now; a plan cannot change after data \
                         were seen; restore it, or start a new gate with another folder in the key `runs`",
                        path.display()
                    ),
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let folder = path.parent().unwrap_or(Path::new(""));
                std::fs::create_dir_all(folder)
                    .with_context(|| format!("folder {} cannot be created", folder.display()))?;
                let text =
                    serde_json::to_string_pretty(self).context("the plan cannot be serialised as JSON")?;
                std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
            }
            Err(error) => Err(error).with_context(|| format!("{} cannot be read", path.display())),
        }
    }

    fn first_difference(&self, locked: &Self) -> Option<(&'static str, String, String)> {
        let short = |text: &str| text.chars().take(16).collect::<String>();
        let pairs = [
            ("policy (digest)", short(&locked.policy_digest), short(&self.policy_digest)),
            ("corpus (digest)", short(&locked.corpus_digest), short(&self.corpus_digest)),
            (
                "[score] table (digest)",
                short(locked.score_digest.as_deref().unwrap_or("none")),
                short(self.score_digest.as_deref().unwrap_or("none")),
            ),
            ("seed", locked.seed.to_string(), self.seed.to_string()),
            ("number of sessions", locked.sessions.to_string(), self.sessions.to_string()),
            ("number of looks", locked.looks.to_string(), self.looks.to_string()),
            ("number of trials", locked.trials.to_string(), self.trials.to_string()),
            ("extension", locked.extension.to_string(), self.extension.to_string()),
            ("order of sessions (digest)", short(&locked.order_digest), short(&self.order_digest)),
        ];
        pairs.into_iter().find(|(_, locked, current)| locked != current)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locked_plan_cannot_change() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("runs/gate.json");
        let plan = PlanLock {
            format: FORMAT,
            policy_digest: "a".repeat(64),
            corpus_digest: "b".repeat(64),
            order_digest: "c".repeat(64),
            score_digest: None,
            seed: 1,
            sessions: 100,
            looks: 4,
            trials: 5,
            extension: false,
        };
        plan.write_or_compare(&path, false).expect("written");
        plan.write_or_compare(&path, true).expect("the same");
        let again = plan.write_or_compare(&path, false).expect_err("run already").to_string();
        assert!(again.contains("--resume"), "{again}");
        let other = PlanLock { policy_digest: "d".repeat(64), ..plan };
        let refused = other.write_or_compare(&path, true).expect_err("another policy").to_string();
        assert!(refused.contains("policy (digest) was fixed as aaaa"), "{refused}");
    }
}
