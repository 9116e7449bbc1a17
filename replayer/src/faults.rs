//! Faults that the world injects into tool calls: rules from a file, drawn so that both lanes get the same faults.
//!
//! Pure: a draw depends on (seed, case, trial, rule, tool, n-th call of the tool in the trial) alone, not on the lane, the
//! order of other calls or the clock.

use std::time::Duration;

use schemars::JsonSchema;
use schemas::id::CaseId;
use seeded::Key;
use serde::{Deserialize, Serialize};

/// Default of `after` for kind `timeout`.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// Calls of each tool for which the `fault_plan` column of a trial lists faults.
const PLANNED_CALLS: u32 = 8;

/// An invalid fault file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultsError {
    /// Invalid TOML, or a key or value that the file format does not have.
    #[error("{0}")]
    Toml(String),
    /// Unsupported version of the file format.
    #[error("faults = {0}, this build reads version 1; write `faults = 1`")]
    Version(u32),
    /// A rule with an invalid or missing value.
    #[error("[[fault]] number {number}: {detail}")]
    Rule {
        /// Number of the rule in the file, from 1.
        number: usize,
        /// Cause and remedy.
        detail: String,
    },
}

/// Effect of a rule on a tool call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// Delays the answer by `after`.
    Delay,
    /// Refuses the call with HTTP status `status` before the tool runs.
    Status,
    /// Runs the tool and loses its answer: status 504 after `after` (default 30 s).
    Timeout,
}

/// `[[fault]]`: a rule. The first rule that fires for a call wins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Rule {
    /// Name of the tool; `*` means every tool.
    tool: String,
    /// Effect on the call.
    kind: FaultKind,
    /// Probability that the rule fires for a call, 0 to 1.
    #[serde(default = "certain")]
    probability: f64,
    /// Delay of the answer: required for `delay`; `30s` without it for `timeout`.
    #[serde(default, with = "humantime_serde")]
    #[schemars(with = "Option<String>")]
    after: Option<Duration>,
    /// HTTP status, 400 to 599: required for `status`.
    #[serde(default)]
    status: Option<u16>,
    /// Numbers of the calls of the tool within a trial, from 0; without it, all calls.
    #[serde(default)]
    calls: Option<Vec<u32>>,
}

fn certain() -> f64 {
    1.0
}

/// Faults that the replay injects into tool calls.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct FaultFile {
    /// Version of the file format: 1.
    faults: u32,
    /// The rules, in order.
    #[serde(default)]
    fault: Vec<Rule>,
}

/// Rules of a fault file (`faults.toml`).
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct FaultRules {
    rules: Vec<Rule>,
}

/// Fault of one call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub(crate) enum Fault {
    /// Delays the answer.
    Delay {
        /// Microseconds.
        after_us: u64,
    },
    /// Refuses the call.
    Status {
        /// HTTP status.
        status: u16,
    },
    /// Loses the answer.
    Timeout {
        /// Microseconds.
        after_us: u64,
    },
}

/// One element of the JSON array in the `fault_plan` column.
#[derive(Debug, Serialize)]
struct Planned<'a> {
    tool: &'a str,
    call: u32,
    #[serde(flatten)]
    fault: Fault,
}

/// Identifies the trial whose faults are drawn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FaultKey<'a> {
    /// Seed of the run.
    pub(crate) run_seed: u64,
    pub(crate) case: &'a CaseId,
    /// Number of the trial within the case, from 0.
    pub(crate) trial: u32,
}

impl FaultRules {
    /// Parses a fault file (TOML).
    ///
    /// # Errors
    /// Names the line or the rule, the expected and the found value.
    pub fn parse(text: &str) -> Result<Self, FaultsError> {
        let file: FaultFile = toml::from_str(text).map_err(|error| FaultsError::Toml(error.to_string()))?;
        if file.faults != 1 {
            return Err(FaultsError::Version(file.faults));
        }
        for (index, rule) in file.fault.iter().enumerate() {
            check(rule).map_err(|detail| FaultsError::Rule { number: index + 1, detail })?;
        }
        Ok(Self { rules: file.fault })
    }

    /// Tools that rules name; the wildcard `*` is left out.
    pub(crate) fn named_tools(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|rule| rule.tool.as_str()).filter(|tool| *tool != "*")
    }

    /// Draws the fault of call number `call` (from 0) of a tool. The first rule that fires wins.
    pub(crate) fn draw(&self, key: FaultKey<'_>, tool: &str, call: u32) -> Option<Fault> {
        for (number, rule) in self.rules.iter().enumerate() {
            let matches_tool = rule.tool == "*" || rule.tool == tool;
            let matches_call = rule.calls.as_ref().is_none_or(|calls| calls.contains(&call));
            if !matches_tool || !matches_call {
                continue;
            }
            let parts: [&[u8]; 6] = [
                &key.run_seed.to_le_bytes(),
                key.case.as_str().as_bytes(),
                &key.trial.to_le_bytes(),
                &(number as u64).to_le_bytes(),
                tool.as_bytes(),
                &call.to_le_bytes(),
            ];
            if Key::derive("foreshadow 2026 fault draw v1", &parts).unit() < rule.probability {
                return Some(rule.fault());
            }
        }
        None
    }

    /// The faults of the first 8 calls of each tool as JSON. Returns `None` without rules.
    pub(crate) fn plan<'a>(
        &self,
        key: FaultKey<'_>,
        tools: impl IntoIterator<Item = &'a str>,
    ) -> Option<String> {
        if self.rules.is_empty() {
            return None;
        }
        let mut planned = Vec::new();
        for tool in tools {
            for call in 0..PLANNED_CALLS {
                planned.extend(self.draw(key, tool, call).map(|fault| Planned { tool, call, fault }));
            }
        }
        serde_json::to_string(&planned).ok()
    }
}

impl Rule {
    fn fault(&self) -> Fault {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        match self.kind {
            FaultKind::Delay => Fault::Delay { after_us: micros(self.after.unwrap_or_default()) },
            FaultKind::Status => Fault::Status { status: self.status.unwrap_or(503) },
            FaultKind::Timeout => Fault::Timeout { after_us: micros(self.after.unwrap_or(DEFAULT_TIMEOUT)) },
        }
    }
}

fn check(rule: &Rule) -> Result<(), String> {
    if !(0.0..=1.0).contains(&rule.probability) {
        return Err(format!("probability is {}, expected a number from 0 to 1", rule.probability));
    }
    match (rule.kind, rule.after, rule.status) {
        (FaultKind::Delay, None, _) => Err("kind = \"delay\" needs `after`, such as \"2s\"".to_owned()),
        (FaultKind::Status, _, None) => Err("kind = \"status\" needs `status`, such as 503".to_owned()),
        (FaultKind::Status, _, Some(status)) if !(400..=599).contains(&status) => {
            Err(format!("status is {status}, expected 400 to 599"))
        }
        (FaultKind::Delay | FaultKind::Timeout, _, Some(_)) => {
            Err("`status` requires kind = \"status\"; remove it".to_owned())
        }
        (FaultKind::Status, Some(_), _) => {
            Err("`after` requires kind = \"delay\" or \"timeout\"; remove it".to_owned())
        }
        (FaultKind::Delay | FaultKind::Status | FaultKind::Timeout, _, _) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        faults = 1
        [[fault]]
        tool = "refund"
        kind = "timeout"
        after = "0s"
        probability = 0.3
        calls = [0]
        [[fault]]
        tool = "*"
        kind = "delay"
        after = "2s"
        probability = 0.5
    "#;

    #[test]
    fn draws_depend_on_the_key_alone() {
        let rules = FaultRules::parse(FILE).expect("a fault file");
        let case = CaseId::parse("c").expect("id");
        let draws = |seed| -> Vec<Option<Fault>> {
            (0..200)
                .map(|trial| rules.draw(FaultKey { run_seed: seed, case: &case, trial }, "refund", 0))
                .collect()
        };
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
        let lost =
            draws(1).iter().filter(|fault| matches!(fault, Some(Fault::Timeout { after_us: 0 }))).count();
        assert!((40..80).contains(&lost), "{lost} of 200 at probability 0.3");
        let later = |trial| rules.draw(FaultKey { run_seed: 1, case: &case, trial }, "refund", 1);
        assert!((0..200).all(|trial| !matches!(later(trial), Some(Fault::Timeout { .. }))));
    }

    #[test]
    fn the_plan_lists_the_drawn_faults() {
        let rules = FaultRules::parse(FILE).expect("a fault file");
        let case = CaseId::parse("c").expect("id");
        let key = FaultKey { run_seed: 1, case: &case, trial: 0 };
        let plan = rules.plan(key, ["read", "refund"]).expect("there are rules");
        let planned: Vec<serde_json::Value> = serde_json::from_str(&plan).expect("JSON");
        let drawn = ["read", "refund"].iter().flat_map(|tool| (0..8).map(move |call| (*tool, call)));
        let count = drawn.filter(|(tool, call)| rules.draw(key, tool, *call).is_some()).count();
        assert_eq!(planned.len(), count);
        assert_eq!(FaultRules::default().plan(key, ["read"]), None);
    }

    #[test]
    fn the_book_lists_every_key_of_the_fault_file() {
        let text = include_str!("faults.toml");
        let parsed = FaultRules::parse(text);
        assert!(parsed.is_ok(), "{:?}", parsed.err());
        let introduction = "`foreshadow replay --faults FILE` and `gate.toml` read this file. Both lanes get the same faults: a \
                            draw depends on seed, case, trial, rule, tool and number of the call alone.";
        let example = reference::Example { file: "replayer/src/faults.toml", text };
        let schema = schemars::schema_for!(FaultFile);
        reference::assert_page(
            "faults-toml.md",
            &reference::keys("faults.toml", introduction, schema.as_value(), "", example),
        );
    }

    #[test]
    fn errors_name_the_value_and_the_remedy() {
        let of = |text: &str| FaultRules::parse(text).expect_err("a broken file").to_string();
        assert!(of("faults = 2").contains("version 1"));
        assert!(of("faults = 1\n[[fault]]\ntool='a'\nkind='delay'").contains("`after`"));
        assert!(of("faults = 1\n[[fault]]\ntool='a'\nkind='status'\nstatus=200").contains("400 to 599"));
        assert!(of("faults = 1\n[[fault]]\ntool='a'\nkind='dealy'").contains("dealy"));
        assert!(of("faults = 1\n[[fault]]\ntool='a'\nkind='timeout'\nprobability=3").contains("0 to 1"));
    }
}
