//! What a gate fixes before the candidate is asked anything, kept beside its runs so that nobody changes it afterwards.

use std::path::Path;

use analyzer::Policy;
use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use crate::config::GateConfig;
use crate::look_schedule::LookSchedule;

/// The version of the file's shape.
const FORMAT: u32 = 1;

/// What was fixed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlanLock {
    format: u32,
    /// BLAKE3 of the policy as understood, defaults included.
    pub(crate) policy_digest: String,
    /// Names the recordings.
    corpus_digest: String,
    /// BLAKE3 of the order in which sessions are played.
    order_digest: String,
    /// BLAKE3 of the `[score]` table, where there is one.
    #[serde(default)]
    score_digest: Option<String>,
    seed: u64,
    /// Sessions that the plan ends with.
    sessions: usize,
    looks: usize,
    trials: u32,
    /// Whether part of alpha is kept for an extension.
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

    /// Writes it before the first trial, or finds that it is what was written then.
    ///
    /// # Errors
    /// There is one already and the gate is not resumed, or it says something else.
    pub(crate) fn write_or_compare(&self, path: &Path, resume: bool) -> anyhow::Result<()> {
        match std::fs::read_to_string(path) {
            Ok(_) if !resume => bail!(
                "{} says that a gate was run here; go on with it by --resume, or choose another `runs`",
                path.display()
            ),
            Ok(text) => {
                let held: Self = serde_json::from_str(&text)
                    .with_context(|| format!("{} cannot be read as the plan of a gate", path.display()))?;
                match self.first_difference(&held) {
                    None => Ok(()),
                    Some((what, held, asked)) => bail!(
                        "the {what} was fixed as {held} before the first trial ({}), and is {asked} now; a plan is not changed once \
                         data were seen: restore it, or start a new gate in another `runs`",
                        path.display()
                    ),
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let folder = path.parent().unwrap_or(Path::new(""));
                std::fs::create_dir_all(folder)
                    .with_context(|| format!("folder {} cannot be made", folder.display()))?;
                let text =
                    serde_json::to_string_pretty(self).context("the plan cannot be written as JSON")?;
                std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
            }
            Err(error) => Err(error).with_context(|| format!("{} cannot be read", path.display())),
        }
    }

    fn first_difference(&self, held: &Self) -> Option<(&'static str, String, String)> {
        let short = |text: &str| text.chars().take(16).collect::<String>();
        let pairs = [
            ("policy (digest)", short(&held.policy_digest), short(&self.policy_digest)),
            ("corpus (digest)", short(&held.corpus_digest), short(&self.corpus_digest)),
            (
                "[score] table (digest)",
                short(held.score_digest.as_deref().unwrap_or("none")),
                short(self.score_digest.as_deref().unwrap_or("none")),
            ),
            ("seed", held.seed.to_string(), self.seed.to_string()),
            ("number of sessions", held.sessions.to_string(), self.sessions.to_string()),
            ("number of looks", held.looks.to_string(), self.looks.to_string()),
            ("number of trials", held.trials.to_string(), self.trials.to_string()),
            ("extension", held.extension.to_string(), self.extension.to_string()),
            ("order of sessions (digest)", short(&held.order_digest), short(&self.order_digest)),
        ];
        pairs.into_iter().find(|(_, held, asked)| held != asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_kept_and_not_changed() {
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
