//! Faults that the world injects into tool calls: rules from a file, drawn by name so that both lanes get the same ones.
//!
//! Pure: a draw depends on (seed, case, trial, rule, tool, n-th call of the tool in the trial) and on nothing else; the
//! lane, the order of calls of other tools and the clock do not enter.

use std::time::Duration;

use schemas::id::CaseId;
use serde::{Deserialize, Serialize};

use crate::seed;

/// How long the world holds a call that times out, where the rule does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// Calls of each tool for which a trial's plan is written down.
const PLANNED_CALLS: u32 = 8;

/// A fault file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultsError {
    /// Not the TOML it should be.
    #[error("{0}")]
    Toml(String),
    /// Another version.
    #[error("faults = {0}, this build reads version 1; write `faults = 1`")]
    Version(u32),
    /// A rule that says nothing sensible.
    #[error("fault {place}: {detail}")]
    Rule {
        /// Its place in the file, from 0.
        place: usize,
        /// What is wrong and what to do.
        detail: String,
    },
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// The answer comes later.
    Delay,
    /// The call is refused with an HTTP status before it reaches the tool.
    Status,
    /// The tool does its work and the answer is lost: held, then 504.
    Timeout,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Rule {
    tool: String,
    kind: FaultKind,
    #[serde(default = "certain")]
    probability: f64,
    #[serde(default, with = "humantime_serde")]
    after: Option<Duration>,
    #[serde(default)]
    status: Option<u16>,
    #[serde(default)]
    calls: Option<Vec<u32>>,
}

fn certain() -> f64 {
    1.0
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct FaultFile {
    faults: u32,
    #[serde(default)]
    fault: Vec<Rule>,
}

/// The rules of a fault file.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct FaultRules {
    rules: Vec<Rule>,
}

/// What happens to one call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub(crate) enum Fault {
    /// The answer comes this much later.
    Delay {
        /// Microseconds.
        after_us: u64,
    },
    /// Refused with this status.
    Status {
        /// HTTP status.
        status: u16,
    },
    /// The answer is lost after this time.
    Timeout {
        /// Microseconds.
        after_us: u64,
    },
}

/// A planned fault of a trial, as it is stored.
#[derive(Debug, Serialize)]
struct Planned<'a> {
    tool: &'a str,
    call: u32,
    #[serde(flatten)]
    fault: Fault,
}

/// Whose faults are drawn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Draw<'a> {
    /// The run's seed.
    pub(crate) seed: u64,
    /// The case.
    pub(crate) case: &'a CaseId,
    /// The trial's number.
    pub(crate) trial: u32,
}

impl FaultRules {
    /// Parses a fault file (TOML).
    ///
    /// # Errors
    /// Names the line or the rule, what was expected and what was found.
    pub fn parse(text: &str) -> Result<Self, FaultsError> {
        let file: FaultFile = toml::from_str(text).map_err(|error| FaultsError::Toml(error.to_string()))?;
        if file.faults != 1 {
            return Err(FaultsError::Version(file.faults));
        }
        for (place, rule) in file.fault.iter().enumerate() {
            check(rule).map_err(|detail| FaultsError::Rule { place, detail })?;
        }
        Ok(Self { rules: file.fault })
    }

    /// The tools that rules name one by one.
    pub(crate) fn named(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|rule| rule.tool.as_str()).filter(|tool| *tool != "*")
    }

    /// The fault of the n-th call (from 0) of a tool in a trial; the first rule that fires holds.
    pub(crate) fn draw(&self, whose: Draw<'_>, tool: &str, call: u32) -> Option<Fault> {
        for (place, rule) in self.rules.iter().enumerate() {
            let meant = rule.tool == "*" || rule.tool == tool;
            let counted = rule.calls.as_ref().is_none_or(|calls| calls.contains(&call));
            if !meant || !counted {
                continue;
            }
            let parts: [&[u8]; 6] = [
                &whose.seed.to_le_bytes(),
                whose.case.as_str().as_bytes(),
                &whose.trial.to_le_bytes(),
                &(place as u64).to_le_bytes(),
                tool.as_bytes(),
                &call.to_le_bytes(),
            ];
            if seed::unit("foreshadow 2026 fault draw v1", &parts) < rule.probability {
                return Some(rule.fault());
            }
        }
        None
    }

    /// The faults of a trial's first calls as JSON, for its row; `None` where there are no rules.
    pub(crate) fn plan<'a>(
        &self,
        whose: Draw<'_>,
        tools: impl IntoIterator<Item = &'a str>,
    ) -> Option<String> {
        if self.rules.is_empty() {
            return None;
        }
        let mut planned = Vec::new();
        for tool in tools {
            for call in 0..PLANNED_CALLS {
                planned.extend(self.draw(whose, tool, call).map(|fault| Planned { tool, call, fault }));
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
            Err("`status` goes with kind = \"status\" only; remove it".to_owned())
        }
        (FaultKind::Status, Some(_), _) => {
            Err("`after` goes with delay and timeout only; remove it".to_owned())
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
    fn draws_depend_on_names_only() {
        let rules = FaultRules::parse(FILE).expect("a fault file");
        let case = CaseId::parse("c").expect("id");
        let draws = |seed| -> Vec<Option<Fault>> {
            (0..200).map(|trial| rules.draw(Draw { seed, case: &case, trial }, "refund", 0)).collect()
        };
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
        let lost =
            draws(1).iter().filter(|fault| matches!(fault, Some(Fault::Timeout { after_us: 0 }))).count();
        assert!((40..80).contains(&lost), "{lost} of 200 at probability 0.3");
        let later = |trial| rules.draw(Draw { seed: 1, case: &case, trial }, "refund", 1);
        assert!((0..200).all(|trial| !matches!(later(trial), Some(Fault::Timeout { .. }))));
    }

    #[test]
    fn the_plan_lists_what_is_drawn() {
        let rules = FaultRules::parse(FILE).expect("a fault file");
        let case = CaseId::parse("c").expect("id");
        let whose = Draw { seed: 1, case: &case, trial: 0 };
        let plan = rules.plan(whose, ["read", "refund"]).expect("there are rules");
        let planned: Vec<serde_json::Value> = serde_json::from_str(&plan).expect("JSON");
        let drawn = ["read", "refund"].iter().flat_map(|tool| (0..8).map(move |call| (*tool, call)));
        let count = drawn.filter(|(tool, call)| rules.draw(whose, tool, *call).is_some()).count();
        assert_eq!(planned.len(), count);
        assert_eq!(FaultRules::default().plan(whose, ["read"]), None);
    }

    #[test]
    fn says_what_is_wrong() {
        let of = |text: &str| FaultRules::parse(text).expect_err("a broken file").to_string();
        assert!(of("faults = 2").contains("version 1"));
        assert!(of("faults = 1\n[[fault]]\ntool='a'\nkind='delay'").contains("`after`"));
        assert!(of("faults = 1\n[[fault]]\ntool='a'\nkind='status'\nstatus=200").contains("400 to 599"));
        assert!(of("faults = 1\n[[fault]]\ntool='a'\nkind='dealy'").contains("dealy"));
        assert!(of("faults = 1\n[[fault]]\ntool='a'\nkind='timeout'\nprobability=3").contains("0 to 1"));
    }
}
