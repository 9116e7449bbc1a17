//! MissingDataScenario `policy.toml`: every wrong key is named with what was expected there.

use toml::{Table, Value};

use super::{
    FidelityPolicy, INVARIANTS, JudgePolicy, METRICS, Margin, MetricSettings, NeedPolicy, Policy, SlicePolicy,
};

mod invariants;

/// A policy that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Not TOML.
    #[error("{0}")]
    Syntax(String),
    /// A key that no policy has.
    #[error("unknown key `{key}`{}; allowed here: {allowed}", nearest_text(.nearest.as_deref()))]
    UnknownKey {
        /// The key with its path.
        key: String,
        /// The allowed key that it looks most like.
        nearest: Option<String>,
        /// All that are allowed there.
        allowed: String,
    },
    /// A value of another kind or outside its range.
    #[error("`{key}` is {found}, expected {expected}; change it or leave it out for the default")]
    BadValue {
        /// The key with its path.
        key: String,
        /// What was found.
        found: String,
        /// What is allowed.
        expected: String,
    },
    /// A key that something else needs.
    #[error("`{key}` is missing; expected {expected}")]
    Missing {
        /// The key with its path.
        key: String,
        /// What is allowed.
        expected: String,
    },
}

fn nearest_text(nearest: Option<&str>) -> String {
    nearest.map(|name| format!(", did you mean `{name}`?")).unwrap_or_default()
}

/// What stands at the top.
const SECTIONS: [&str; 12] = [
    "policy",
    "alpha",
    "looks",
    "strict",
    "metrics",
    "metric",
    "invariant",
    "slice",
    "fidelity",
    "need",
    "drift",
    "judge",
];

pub(super) fn parse(text: &str) -> Result<Policy, PolicyError> {
    let table: Table =
        text.parse().map_err(|error: toml::de::Error| PolicyError::Syntax(error.to_string()))?;
    known(&table, "", &SECTIONS)?;
    match table.get("policy") {
        None | Some(Value::Integer(1)) => {}
        Some(found) => return Err(bad("policy", found, "1, the version that this build reads")),
    }
    let mut policy = Policy::default();
    if let Some(value) = table.get("alpha") {
        policy.alpha = number(value, "alpha", 0.0001, 0.5)?;
    }
    if let Some(value) = table.get("looks") {
        let looks = integer(value, "looks", 1, 64)?;
        policy.looks = u32::try_from(looks).unwrap_or(1);
    }
    if let Some(value) = table.get("strict") {
        policy.strict = flag(value, "strict")?;
    }
    if let Some(value) = table.get("metrics") {
        policy.metrics = Some(metric_list(value, "metrics")?);
    }
    if let Some(value) = table.get("metric") {
        collect_metrics(table_at(value, "metric")?, "", &mut policy)?;
    }
    if let Some(value) = table.get("invariant") {
        policy.invariant = invariants::invariants(table_at(value, "invariant")?)?;
    }
    if let Some(value) = table.get("slice") {
        for (name, value) in table_at(value, "slice")? {
            let path = format!("slice.{name}");
            policy.slice.insert(name.clone(), slice(table_at(value, &path)?, &path)?);
        }
    }
    if let Some(value) = table.get("fidelity") {
        policy.fidelity = fidelity(table_at(value, "fidelity")?, policy.fidelity)?;
    }
    if let Some(value) = table.get("drift") {
        drift(table_at(value, "drift")?, &mut policy)?;
    }
    if let Some(value) = table.get("need") {
        policy.need = need(table_at(value, "need")?, policy.need)?;
    }
    if let Some(value) = table.get("judge") {
        policy.judge = judge(table_at(value, "judge")?)?;
    }
    Ok(policy)
}

fn metric_names() -> Vec<&'static str> {
    METRICS.iter().map(|spec| spec.name).collect()
}

fn metric_list(value: &Value, path: &str) -> Result<Vec<String>, PolicyError> {
    let list = texts(value, path)?;
    if list.is_empty() {
        return Err(bad(path, value, "at least one metric, or no such key"));
    }
    for name in &list {
        // A demoted invariant is a metric too, under the name `invariant.NAME`.
        let demoted = name.strip_prefix("invariant.").is_some_and(|name| INVARIANTS.contains(&name));
        if !demoted && !metric_names().contains(&name.as_str()) {
            return Err(unknown(&format!("{path}: {name}"), name, &metric_names()));
        }
    }
    Ok(list)
}

/// A metric's name has dots, so `[metric.effects.duplicated]` and `[metric."effects.duplicated"]` are the same.
fn collect_metrics(table: &Table, prefix: &str, policy: &mut Policy) -> Result<(), PolicyError> {
    for (key, value) in table {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        let path = format!("metric.{name}");
        let inner = table_at(value, &path);
        if METRICS.iter().any(|spec| spec.name == name) {
            let settings = metric_settings(inner?, &path, &name)?;
            policy.metric.insert(name, settings);
        } else if METRICS.iter().any(|spec| spec.name.starts_with(&format!("{name}."))) {
            collect_metrics(inner?, &name, policy)?;
        } else {
            return Err(unknown(&path, &name, &metric_names()));
        }
    }
    Ok(())
}

fn metric_settings(table: &Table, path: &str, name: &str) -> Result<MetricSettings, PolicyError> {
    let default = METRICS.iter().find(|spec| spec.name == name).map(|spec| spec.margin);
    let margin_key = match default {
        Some(Margin::Ratio(_)) => "margin_ratio",
        Some(Margin::Difference(_) | Margin::OfDispersion(_)) | None => "margin",
    };
    let mut allowed = vec![margin_key, "decides", "required"];
    match name {
        "pass_k" => allowed.push("k"),
        "tail_latency" => allowed.push("bound_ms"),
        _ => {}
    }
    known(table, path, &allowed)?;
    let mut settings = MetricSettings::default();
    for (key, value) in table {
        let at = format!("{path}.{key}");
        match key.as_str() {
            "margin_ratio" => settings.margin = Some(Margin::Ratio(number(value, &at, 1.0001, 3.9)?)),
            "margin" => {
                let share = number(value, &at, 0.0001, 0.9999)?;
                let of_dispersion = matches!(default, Some(Margin::OfDispersion(_)));
                let margin = if of_dispersion { Margin::OfDispersion } else { Margin::Difference };
                settings.margin = Some(margin(share));
            }
            "decides" => settings.decides = Some(flag(value, &at)?),
            "required" => settings.required = Some(flag(value, &at)?),
            "k" => settings.k = Some(usize::try_from(integer(value, &at, 2, 64)?).unwrap_or(2)),
            "bound_ms" => settings.bound_ms = Some(integer(value, &at, 1, 86_400_000)?),
            _ => {}
        }
    }
    Ok(settings)
}

fn fidelity(table: &Table, mut policy: FidelityPolicy) -> Result<FidelityPolicy, PolicyError> {
    known(table, "fidelity", &["max_missed", "equivalence"])?;
    if let Some(value) = table.get("max_missed") {
        policy.max_missed = number(value, "fidelity.max_missed", 0.0, 1.0)?;
    }
    if let Some(value) = table.get("equivalence") {
        policy.equivalence = flag(value, "fidelity.equivalence")?;
    }
    Ok(policy)
}

/// A build declared neutral is held to `semantic.drift`, unless the policy says otherwise of that metric itself.
fn drift(table: &Table, policy: &mut Policy) -> Result<(), PolicyError> {
    known(table, "drift", &["behaviour_neutral", "shared_state"])?;
    if let Some(value) = table.get("shared_state") {
        policy.drift.shared_state = flag(value, "drift.shared_state")?;
    }
    let Some(value) = table.get("behaviour_neutral") else { return Ok(()) };
    policy.drift.behaviour_neutral = flag(value, "drift.behaviour_neutral")?;
    if !policy.drift.behaviour_neutral {
        return Ok(());
    }
    if policy.metrics.as_ref().is_some_and(|list| !list.iter().any(|name| name == "semantic.drift")) {
        let expected = "false, or `semantic.drift` among `metrics`, which alone decide";
        return Err(bad("drift.behaviour_neutral", value, expected));
    }
    let settings = policy.metric.entry("semantic.drift".to_owned()).or_default();
    settings.decides.get_or_insert(true);
    settings.required.get_or_insert(true);
    Ok(())
}

fn slice(table: &Table, path: &str) -> Result<SlicePolicy, PolicyError> {
    known(table, path, &["where", "critical", "required", "metrics"])?;
    let at = format!("{path}.where");
    let expected = "a table of slices and their values, such as { tier = \"gold\" }";
    let missing = || PolicyError::Missing { key: at.clone(), expected: expected.to_owned() };
    let conditions = table_at(table.get("where").ok_or_else(missing)?, &at)?;
    let mut policy = SlicePolicy { metrics: vec!["success".to_owned()], ..SlicePolicy::default() };
    for (key, value) in conditions {
        let text = value.as_str().ok_or_else(|| bad(&format!("{at}.{key}"), value, "a text"))?;
        policy.criteria.insert(key.clone(), text.to_owned());
    }
    if policy.criteria.is_empty() {
        return Err(missing());
    }
    if let Some(value) = table.get("critical") {
        policy.critical = flag(value, &format!("{path}.critical"))?;
    }
    if let Some(value) = table.get("required") {
        policy.required = flag(value, &format!("{path}.required"))?;
    }
    if let Some(value) = table.get("metrics") {
        policy.metrics = metric_list(value, &format!("{path}.metrics"))?;
    }
    Ok(policy)
}

fn need(table: &Table, mut policy: NeedPolicy) -> Result<NeedPolicy, PolicyError> {
    known(table, "need", &["session_cost", "trial_cost"])?;
    if let Some(value) = table.get("session_cost") {
        policy.session_cost = number(value, "need.session_cost", 0.0, 1e9)?;
    }
    if let Some(value) = table.get("trial_cost") {
        policy.trial_cost = number(value, "need.trial_cost", 1e-9, 1e9)?;
    }
    Ok(policy)
}

fn judge(table: &Table) -> Result<JudgePolicy, PolicyError> {
    known(table, "judge", &["alpha", "min_cases", "min_agreement", "min_kappa"])?;
    let mut policy = JudgePolicy::default();
    for (key, value) in table {
        let at = format!("judge.{key}");
        match key.as_str() {
            "alpha" => policy.alpha = number(value, &at, 0.0001, 0.5)?,
            "min_cases" => policy.min_cases = integer(value, &at, 5, 1_000_000)?,
            "min_agreement" => policy.min_agreement = number(value, &at, 0.5, 1.0)?,
            "min_kappa" => policy.min_kappa = number(value, &at, 0.0, 1.0)?,
            _ => {}
        }
    }
    Ok(policy)
}

// === values ===

fn known(table: &Table, path: &str, allowed: &[&str]) -> Result<(), PolicyError> {
    for key in table.keys() {
        if !allowed.contains(&key.as_str()) {
            let full = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            return Err(unknown(&full, key, allowed));
        }
    }
    Ok(())
}

fn unknown(path: &str, key: &str, allowed: &[&str]) -> PolicyError {
    let nearest = allowed.iter().map(|name| (distance(key, name), *name)).min();
    let nearest =
        nearest.filter(|(steps, name)| *steps <= 1 + name.len() / 3).map(|(_, name)| name.to_owned());
    PolicyError::UnknownKey { key: path.to_owned(), nearest, allowed: allowed.join(", ") }
}

fn bad(key: &str, found: &Value, expected: &str) -> PolicyError {
    // Shown as JSON: close enough to TOML for one value.
    let found = serde_json::to_string(found).unwrap_or_else(|_| found.type_str().to_owned());
    PolicyError::BadValue { key: key.to_owned(), found, expected: expected.to_owned() }
}

fn table_at<'a>(value: &'a Value, path: &str) -> Result<&'a Table, PolicyError> {
    value.as_table().ok_or_else(|| bad(path, value, "a table"))
}

fn number(value: &Value, key: &str, least: f64, most: f64) -> Result<f64, PolicyError> {
    let found =
        value.as_float().or_else(|| value.as_integer().and_then(|n| i32::try_from(n).ok()).map(f64::from));
    let inside = found.filter(|number| (least..=most).contains(number));
    inside.ok_or_else(|| bad(key, value, &format!("a number from {least} to {most}")))
}

fn integer(value: &Value, key: &str, least: u64, most: u64) -> Result<u64, PolicyError> {
    let found = value.as_integer().and_then(|number| u64::try_from(number).ok());
    let inside = found.filter(|number| (least..=most).contains(number));
    inside.ok_or_else(|| bad(key, value, &format!("a whole number from {least} to {most}")))
}

fn flag(value: &Value, key: &str) -> Result<bool, PolicyError> {
    value.as_bool().ok_or_else(|| bad(key, value, "true or false"))
}

fn texts(value: &Value, key: &str) -> Result<Vec<String>, PolicyError> {
    let list = value.as_array().and_then(|items| {
        items.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
    });
    list.ok_or_else(|| bad(key, value, "a list of texts"))
}

fn texts_or_none(table: &Table, path: &str, key: &str) -> Result<Vec<String>, PolicyError> {
    table.get(key).map_or_else(|| Ok(Vec::new()), |value| texts(value, &format!("{path}.{key}")))
}

/// Edit distance (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_documented_example() {
        let text = r#"
            policy = 1
            alpha = 0.05
            looks = 4
            [metric.success]
            margin = 0.05
            required = true
            [metric.latency]
            margin_ratio = 1.10
            decides = true
            required = false
            [metric.effects.duplicated]
            decides = false
            [metric."effects.extra"]
            margin = 0.01
            [invariant.envelope]
            on = true
        "#;
        let policy = Policy::parse(text).expect("the example of the design");
        assert_eq!(policy.settings("latency").margin, Some(Margin::Ratio(1.10)));
        assert!(policy.decides("latency", false));
        assert!(!policy.decides("effects.duplicated", true));
        assert_eq!(policy.settings("effects.extra").margin, Some(Margin::Difference(0.01)));
        assert_eq!(policy.invariant.envelope, Some(true));
    }

    #[test]
    fn a_typo_is_answered_with_the_nearest_key() {
        let error = Policy::parse("[metric.sucess]\nmargin = 0.1").expect_err("a typo").to_string();
        assert!(error.contains("metric.sucess") && error.contains("did you mean `success`"), "{error}");
        let error = Policy::parse("[metric.success]\nmargn = 0.1").expect_err("a typo").to_string();
        assert!(error.contains("metric.success.margn") && error.contains("`margin`"), "{error}");
        let error = Policy::parse("alhpa = 0.1").expect_err("a typo").to_string();
        assert!(error.contains("`alpha`"), "{error}");
        let error = Policy::parse("metrics = [\"latncy\"]").expect_err("a typo").to_string();
        assert!(error.contains("`latency`"), "{error}");
    }

    #[test]
    fn a_value_outside_its_range_is_named() {
        let error = Policy::parse("[metric.success]\nmargin = 5").expect_err("not a share").to_string();
        assert!(error.contains("metric.success.margin") && error.contains("0.9999"), "{error}");
        let error =
            Policy::parse("[metric.latency]\nmargin = 0.1").expect_err("a ratio is wanted").to_string();
        assert!(error.contains("margin_ratio"), "{error}");
        assert!(matches!(Policy::parse("alpha = "), Err(PolicyError::Syntax(_))));
        let schema = "[invariant.answer_schema]\nschema = { type = \"objekt\" }";
        assert!(
            Policy::parse(schema).expect_err("not a schema").to_string().contains("answer_schema.schema")
        );
    }

    #[test]
    fn a_neutral_build_is_held_to_semantic_drift() {
        let policy = Policy::parse("[drift]\nbehaviour_neutral = true").expect("a policy");
        assert!(policy.decides("semantic.drift", false) && policy.requires("semantic.drift", false));
        assert!(!policy.drift.shared_state && !Policy::default().decides("semantic.drift", false));
        let text = "[drift]\nbehaviour_neutral = true\nshared_state = true\n[metric.semantic.drift]\nrequired = false";
        let policy = Policy::parse(text).expect("a policy");
        assert!(policy.decides("semantic.drift", false) && !policy.requires("semantic.drift", false));
        assert!(policy.drift.shared_state);
        let text = "metrics = [\"success\"]\n[drift]\nbehaviour_neutral = true";
        let error = Policy::parse(text).expect_err("drift cannot decide").to_string();
        assert!(error.contains("drift.behaviour_neutral") && error.contains("semantic.drift"), "{error}");
        let error = Policy::parse("[drift]\nneutral = true").expect_err("a typo").to_string();
        assert!(error.contains("drift.neutral"), "{error}");
    }

    #[test]
    fn slices_are_named_by_what_their_cases_have_in_common() {
        let text = "strict = true\n[slice.refunds]\nwhere = { topic = \"refund\" }\ncritical = true\nmetrics = [\"success\", \"cost\"]";
        let policy = Policy::parse(text).expect("a slice");
        let slice = &policy.slice["refunds"];
        assert!(policy.strict && slice.critical && !slice.required);
        assert_eq!((slice.criteria["topic"].as_str(), slice.metrics.len()), ("refund", 2));
        assert_ne!(policy.digest(), Policy::default().digest());
        let error = Policy::parse("[slice.a]\ncritical = true").expect_err("of no cases").to_string();
        assert!(error.contains("slice.a.where"), "{error}");
        let error = Policy::parse("[slice.a]\nwhere = { tier = 3 }").expect_err("not a text").to_string();
        assert!(error.contains("slice.a.where.tier"), "{error}");
        assert!(Policy::parse("[need]\ntrial_cost = 0").is_err());
    }

    #[test]
    fn listing_metrics_silences_the_others() {
        let policy = Policy::parse("metrics = [\"success\"]").expect("a list");
        assert!(policy.decides("success", true) && policy.requires("success", true));
        assert!(!policy.decides("pass_k", true) && !policy.requires("pass_k", true));
        assert_ne!(policy.digest(), Policy::default().digest());
    }
}
