//! The state of one session under an envelope: number of calls, sums, keys of earlier calls, and session sets.
//!
//! A call reserves sums and unique keys before it is made and settles them when its outcome is known, so that two concurrent
//! calls cannot both use the rest of a limit. A call with an unknown outcome keeps its reservation.

use std::collections::{BTreeMap, BTreeSet};

use schemas::canonical::canonical;
use serde_json::Value;

use crate::call::{Arguments, Call, ViolationKind};
use crate::decimal::Decimal;
use crate::pointer::Pointer;
use crate::policy::{Condition, Envelope, SetSource, Window};
use crate::values;

/// Maximum values of one set. Later values are dropped, so a rule that needs them reports a violation.
const MAX_SET_VALUES: usize = 10_000;

/// ToolPolicy and rule.
type RuleName = (String, String);

/// The state of one session under one envelope.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionState {
    calls: u64,
    sums: BTreeMap<RuleName, BTreeMap<i64, Decimal>>,
    made: BTreeMap<RuleName, BTreeMap<String, BTreeMap<i64, u32>>>,
    sets: BTreeMap<String, BTreeSet<String>>,
}

/// The outcome of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallOutcome<'a> {
    /// The call succeeded; its result, if known.
    Done(Option<&'a str>),
    /// The call had no effect.
    Refused,
    /// It is not known whether the call had an effect.
    Unknown,
}

/// The sums and unique keys that a call reserved.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a reservation is settled once the outcome is known"]
pub struct Reservation {
    at: i64,
    sums: Vec<(RuleName, Decimal)>,
    made: Vec<(RuleName, String)>,
}

impl SessionState {
    /// Number of calls made.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// Adds the values of a caller's text to the session sets.
    pub fn observe_turn(&mut self, envelope: &Envelope, turn: &str) {
        for (name, sources) in &envelope.sets {
            for source in sources {
                if let SetSource::Turn { pattern } = source {
                    self.take_matches(name, pattern, turn);
                }
            }
        }
    }

    /// Counts a call before it is made, and reserves its sums and unique keys.
    pub fn reserve(&mut self, envelope: &Envelope, call: &Call<'_>) -> Reservation {
        self.calls += 1;
        let mut reserved = Reservation { at: call.at, sums: Vec::new(), made: Vec::new() };
        let (Some(tool), Arguments::Json(arguments)) = (envelope.tools.get(call.tool), call.arguments) else {
            return reserved;
        };
        for bound in &tool.bounds {
            let name = (call.tool.to_owned(), bound.id.clone());
            match &bound.condition {
                Condition::In { .. } | Condition::Range { .. } => {}
                Condition::Sum { arg, .. } => {
                    let values =
                        values::numbers(bound, arg, arguments, ViolationKind::Rate).unwrap_or_default();
                    // The check has already reported a sum that is too large.
                    if let Some(taken) = values::added(Decimal::default(), &values) {
                        let sum = self.sums.entry(name.clone()).or_default().entry(call.at).or_default();
                        if let Some(more) = sum.plus(taken) {
                            *sum = more;
                            reserved.sums.push((name, taken));
                        }
                    }
                }
                Condition::Unique { args, .. } => {
                    if let Ok(Some(key)) = values::key(bound, args, arguments) {
                        let times =
                            self.made.entry(name.clone()).or_default().entry(key.clone()).or_default();
                        *times.entry(call.at).or_default() += 1;
                        reserved.made.push((name, key));
                    }
                }
            }
        }
        reserved
    }

    /// Settles a call: a refused one releases its reservation, a successful one adds its values to the session sets.
    pub fn settle(
        &mut self,
        envelope: &Envelope,
        call: &Call<'_>,
        reserved: Reservation,
        outcome: CallOutcome<'_>,
    ) {
        match outcome {
            CallOutcome::Unknown => {}
            CallOutcome::Refused => self.release(reserved),
            CallOutcome::Done(result) => self.observe_call(envelope, call, result),
        }
    }

    fn release(&mut self, reserved: Reservation) {
        for (name, taken) in reserved.sums {
            let Some(sums) = self.sums.get_mut(&name) else { continue };
            let Some(sum) = sums.get_mut(&reserved.at) else { continue };
            *sum = sum.minus(taken).unwrap_or(*sum);
            if *sum == Decimal::default() {
                sums.remove(&reserved.at);
            }
            if sums.is_empty() {
                self.sums.remove(&name);
            }
        }
        for (name, key) in reserved.made {
            let Some(keys) = self.made.get_mut(&name) else { continue };
            let Some(times) = keys.get_mut(&key) else { continue };
            let Some(count) = times.get_mut(&reserved.at) else { continue };
            *count -= 1;
            if *count == 0 {
                times.remove(&reserved.at);
            }
            if times.is_empty() {
                keys.remove(&key);
            }
            if keys.is_empty() {
                self.made.remove(&name);
            }
        }
    }

    fn observe_call(&mut self, envelope: &Envelope, call: &Call<'_>, result: Option<&str>) {
        for (name, sources) in &envelope.sets {
            for source in sources {
                match source {
                    SetSource::Argument { tool, arg } if tool == call.tool => {
                        if let Arguments::Json(arguments) = call.arguments {
                            self.take_values(name, arg, arguments);
                        }
                    }
                    SetSource::Result { tool, result: pointer } if tool == call.tool => {
                        let parsed = result.and_then(|text| serde_json::from_str(text).ok());
                        if let Some(value) = parsed {
                            self.take_values(name, pointer, &value);
                        }
                    }
                    SetSource::ResultText { tool, pattern } if tool == call.tool => {
                        self.take_matches(name, pattern, result.unwrap_or_default());
                    }
                    SetSource::Argument { .. }
                    | SetSource::Result { .. }
                    | SetSource::ResultText { .. }
                    | SetSource::Turn { .. } => {}
                }
            }
        }
    }

    fn take_values(&mut self, name: &str, pointer: &Pointer, value: &Value) {
        for (_, value) in pointer.resolve(value).unwrap_or_default() {
            self.take(name, canonical(value));
        }
    }

    fn take_matches(&mut self, name: &str, pattern: &regex::Regex, text: &str) {
        for captures in pattern.captures_iter(text) {
            let Some(found) = captures.get(1).or_else(|| captures.get(0)) else { continue };
            self.take(name, canonical(&Value::String(found.as_str().to_owned())));
            // An argument may have the same value as a JSON number.
            let number = serde_json::from_str::<Value>(found.as_str()).ok().filter(Value::is_number);
            if let Some(number) = number {
                self.take(name, canonical(&number));
            }
        }
    }

    fn take(&mut self, name: &str, value: String) {
        let set = self.sets.entry(name.to_owned()).or_default();
        if set.len() < MAX_SET_VALUES {
            set.insert(value);
        }
    }

    /// Whether a set contains a value, given in canonical JSON.
    pub(crate) fn holds(&self, set: &str, value: &str) -> bool {
        self.sets.get(set).is_some_and(|values| values.contains(value))
    }

    /// The sum over the calls of the window; `None` if it is too large.
    pub(crate) fn sum(&self, tool: &str, rule: &str, window: Window, at: i64) -> Option<Decimal> {
        let Some(sums) = self.sums.get(&(tool.to_owned(), rule.to_owned())) else {
            return Some(Decimal::default());
        };
        let mut sum = Decimal::default();
        for (_, taken) in sums.iter().filter(|(when, _)| reaches(window, **when, at)) {
            sum = sum.plus(*taken)?;
        }
        Some(sum)
    }

    /// Whether an earlier call of the window had this key.
    pub(crate) fn has_seen(&self, tool: &str, rule: &str, key: &str, window: Window, at: i64) -> bool {
        let keys = self.made.get(&(tool.to_owned(), rule.to_owned()));
        let times = keys.and_then(|keys| keys.get(key));
        times.is_some_and(|times| times.keys().any(|when| reaches(window, *when, at)))
    }
}

/// Whether a window that ends at `at` includes a call at `when`.
fn reaches(window: Window, when: i64, at: i64) -> bool {
    match window {
        Window::Session => true,
        Window::Rolling(span) => when >= at.saturating_sub(span),
    }
}
