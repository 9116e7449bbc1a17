//! Reading `policy.toml`. Every error names the line, the table and the key, with the values expected there.

use schemas::equality::ArgumentRule;
use toml::{Table, Value};

use super::error::{PolicyError, PolicyErrorKind, line_of};
use super::invariants::INVARIANTS;
use super::keys;
use super::metrics::{METRICS, Margin, MetricSettings};
use super::model::{Policy, SlicePolicy};

mod invariants;
mod sampling;
mod section;

use section::{Result, Section, bad, check_keys, missing, table_at, texts, unknown};

/// Tables of the policy; the keys at the top are in [`keys::POLICY_KEYS`].
const TABLES: [&str; 11] = [
    "metric",
    "invariant",
    "argument",
    "slice",
    "fidelity",
    "need",
    "drift",
    "judge",
    "sampling",
    "traffic",
    "reference",
];

impl Policy {
    /// Reads `policy.toml`.
    ///
    /// # Errors
    /// The text is not TOML, or a key or value is not allowed; the error names its line.
    pub fn parse(text: &str) -> std::result::Result<Self, PolicyError> {
        parse(text).map_err(|kind| {
            let line = kind.key().and_then(|key| line_of(text, key));
            PolicyError { line, kind }
        })
    }
}

fn parse(text: &str) -> Result<Policy> {
    let table: Table =
        text.parse().map_err(|error: toml::de::Error| PolicyErrorKind::Syntax(error.to_string()))?;
    check_keys(&table, "", &[&keys::allowed("")[..], &TABLES].concat())?;
    let top = Section { table: &table, path: "", name: "" };
    match table.get("policy") {
        None | Some(Value::Integer(1)) => {}
        Some(found) => return Err(bad("policy", found, "1, the version that this build reads")),
    }
    let mut policy = Policy::default();
    policy.alpha = top.number("alpha")?.unwrap_or(policy.alpha);
    if let Some(looks) = top.integer("looks")? {
        policy.looks = u32::try_from(looks).unwrap_or(1);
    }
    policy.strict = top.flag("strict")?.unwrap_or(policy.strict);
    policy.least_baseline_success =
        top.number("least-baseline-success")?.unwrap_or(policy.least_baseline_success);
    policy.metrics = metric_list(&top)?;
    if let Some(value) = table.get("metric") {
        collect_metrics(table_at(value, "metric")?, "", &mut policy)?;
    }
    if let Some(value) = table.get("invariant") {
        policy.invariant = invariants::read(table_at(value, "invariant")?)?;
    }
    if let Some(value) = table.get("argument") {
        read_arguments(table_at(value, "argument")?, &mut policy)?;
    }
    if let Some(value) = table.get("slice") {
        for (name, value) in table_at(value, "slice")? {
            policy.slice.insert(name.clone(), read_slice(value, &format!("slice.{name}"))?);
        }
    }
    if let Some(value) = table.get("fidelity") {
        let section = Section::new(value, "fidelity", "fidelity")?;
        let fidelity = &mut policy.fidelity;
        fidelity.max_missed = section.number("max-missed")?.unwrap_or(fidelity.max_missed);
        fidelity.max_provider_failures =
            section.number("max-provider-failures")?.unwrap_or(fidelity.max_provider_failures);
        fidelity.equivalence = section.flag("equivalence")?.unwrap_or(fidelity.equivalence);
    }
    if let Some(value) = table.get("drift") {
        read_drift(&Section::new(value, "drift", "drift")?, &mut policy)?;
    }
    if let Some(value) = table.get("sampling") {
        policy.sampling = sampling::read(&Section::new(value, "sampling", "sampling")?)?;
    }
    if let Some(value) = table.get("traffic") {
        policy.traffic = Some(sampling::traffic(&Section::new(value, "traffic", "traffic")?)?);
    }
    if let Some(value) = table.get("need") {
        let section = Section::new(value, "need", "need")?;
        let need = &mut policy.need;
        need.session_cost = section.number("session-cost")?.unwrap_or(need.session_cost);
        need.trial_cost = section.number("trial-cost")?.unwrap_or(need.trial_cost);
    }
    if let Some(value) = table.get("reference") {
        read_reference(&Section::new(value, "reference", "reference")?, &mut policy)?;
    }
    if let Some(value) = table.get("judge") {
        let section = Section::new(value, "judge", "judge")?;
        let judge = &mut policy.judge;
        judge.alpha = section.number("alpha")?.unwrap_or(judge.alpha);
        judge.min_cases = section.integer("min-cases")?.unwrap_or(judge.min_cases);
        judge.min_agreement = section.number("min-agreement")?.unwrap_or(judge.min_agreement);
        judge.min_discrimination = section.number("min-discrimination")?.unwrap_or(judge.min_discrimination);
    }
    Ok(policy)
}

/// Reads `[argument.TOOL]`: how each argument of a tool is compared.
fn read_arguments(tools: &Table, policy: &mut Policy) -> Result<()> {
    let names: Vec<String> = ArgumentRule::names().iter().map(|name| format!("{name:?}")).collect();
    let expected = format!("one of {}", names.join(", "));
    for (tool, rules) in tools {
        let path = format!("argument.{tool}");
        for (pointer, value) in table_at(rules, &path)? {
            let at = format!("{path}.{pointer}");
            let rule = value.as_str().and_then(|text| text.parse::<ArgumentRule>().ok());
            let rule = rule.ok_or_else(|| bad(&at, value, &expected))?;
            if !policy.argument.declare(tool, pointer, rule) {
                return Err(PolicyErrorKind::BadValue {
                    key: at,
                    found: format!("a rule for {pointer:?}"),
                    expected: "a JSON pointer in quotes as key, such as \"/request_id\"".to_owned(),
                });
            }
        }
    }
    Ok(())
}

fn read_reference(section: &Section<'_>, policy: &mut Policy) -> Result<()> {
    if let Some(value) = section.table.get("run") {
        let run = value.as_str().filter(|run| !run.is_empty());
        let run =
            run.ok_or_else(|| bad(&section.at("run"), value, "the location of a run, such as \"runs/v1\""))?;
        policy.reference.run = Some(run.to_owned());
    }
    policy.reference.blocks = section.flag("blocks")?.unwrap_or(false);
    Ok(())
}

fn metric_names() -> Vec<&'static str> {
    METRICS.iter().map(|spec| spec.name).collect()
}

/// The key `metrics` of a section.
fn metric_list(section: &Section<'_>) -> Result<Option<Vec<String>>> {
    let Some(value) = section.table.get("metrics") else { return Ok(None) };
    let path = section.at("metrics");
    let list = texts(value, &path)?;
    if list.is_empty() {
        return Err(bad(&path, value, "at least one metric"));
    }
    for name in &list {
        // A demoted invariant is a metric too, with the name `invariant.NAME`.
        let demoted = name.strip_prefix("invariant.").is_some_and(|name| INVARIANTS.contains(&name));
        if !demoted && !metric_names().contains(&name.as_str()) {
            return Err(unknown(&format!("{path}: {name}"), name, &metric_names()));
        }
    }
    Ok(Some(list))
}

/// Reads `[metric.*]`. A metric's name has dots, so `[metric.effects.duplicated]` equals `[metric."effects.duplicated"]`.
fn collect_metrics(table: &Table, prefix: &str, policy: &mut Policy) -> Result<()> {
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

fn metric_settings(table: &Table, path: &str, name: &str) -> Result<MetricSettings> {
    let default = METRICS.iter().find(|spec| spec.name == name).map(|spec| spec.margin);
    let is_ratio = matches!(default, Some(Margin::Ratio(_)));
    let applies = |key: &&str| match *key {
        "margin-ratio" => is_ratio,
        "margin" => !is_ratio,
        "k" => name == "pass_k",
        "bound-ms" => name == "tail_latency",
        "cap-usd" => name == "cost_mean",
        _ => true,
    };
    let allowed: Vec<&str> = keys::allowed("metric.NAME").into_iter().filter(applies).collect();
    check_keys(table, path, &allowed)?;
    let section = Section { table, path, name: "metric.NAME" };
    let share = if matches!(default, Some(Margin::OfDispersion(_))) {
        Margin::OfDispersion
    } else {
        Margin::Difference
    };
    let ratio = section.number("margin-ratio")?.map(Margin::Ratio);
    Ok(MetricSettings {
        margin: section.number("margin")?.map(share).or(ratio),
        decides: section.flag("decides")?,
        required: section.flag("required")?,
        k: section.integer("k")?.map(|k| usize::try_from(k).unwrap_or(2)),
        bound_ms: section.integer("bound-ms")?,
        cap_usd: section.number("cap-usd")?,
    })
}

/// A build declared neutral must pass `semantic.drift`, unless the policy sets that metric otherwise.
fn read_drift(section: &Section<'_>, policy: &mut Policy) -> Result<()> {
    policy.drift.shared_state = section.flag("shared-state")?.unwrap_or(false);
    policy.drift.behaviour_neutral = section.flag("behaviour-neutral")?.unwrap_or(false);
    if !policy.drift.behaviour_neutral {
        return Ok(());
    }
    if policy.metrics.as_ref().is_some_and(|list| !list.iter().any(|name| name == "semantic.drift")) {
        let expected = "false, or `semantic.drift` among `metrics`, which alone decide";
        return Err(bad(&section.at("behaviour-neutral"), &Value::Boolean(true), expected));
    }
    let settings = policy.metric.entry("semantic.drift".to_owned()).or_default();
    settings.decides.get_or_insert(true);
    settings.required.get_or_insert(true);
    Ok(())
}

fn read_slice(value: &Value, path: &str) -> Result<SlicePolicy> {
    let section = Section::new(value, path, "slice.NAME")?;
    let expected = "a table of slices and their values, such as { tier = \"gold\" }";
    let at = section.at("where");
    let conditions = table_at(section.required("where", expected)?, &at)?;
    let mut policy = SlicePolicy { metrics: vec!["success".to_owned()], ..SlicePolicy::default() };
    for (key, value) in conditions {
        let text = value.as_str().ok_or_else(|| bad(&format!("{at}.{key}"), value, "a text"))?;
        policy.criteria.insert(key.clone(), text.to_owned());
    }
    if policy.criteria.is_empty() {
        return Err(missing(&at, expected));
    }
    policy.critical = section.flag("critical")?.unwrap_or(false);
    policy.required = section.flag("required")?.unwrap_or(false);
    if let Some(list) = metric_list(&section)? {
        policy.metrics = list;
    }
    Ok(policy)
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
            margin-ratio = 1.10
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
        assert!(error.contains("margin-ratio"), "{error}");
        assert!(matches!(
            Policy::parse("alpha = "),
            Err(PolicyError { kind: PolicyErrorKind::Syntax(_), .. })
        ));
        let schema = "[invariant.answer-schema]\nschema = { type = \"objekt\" }";
        assert!(
            Policy::parse(schema).expect_err("not a schema").to_string().contains("answer-schema.schema")
        );
    }

    #[test]
    fn argument_rules_are_read_and_a_wrong_one_is_named() {
        let text = "[argument.refund]\n\"/request_id\" = \"generated\"\n[argument.\"mail.send\"]\n\"/to/*\" = \"case-insensitive\"";
        let policy = Policy::parse(text).expect("rules");
        let rules: Vec<_> = policy.argument.iter().collect();
        let expected = [
            ("mail.send", "/to/*", ArgumentRule::CaseInsensitive),
            ("refund", "/request_id", ArgumentRule::Generated),
        ];
        assert_eq!(rules, expected);
        assert_ne!(policy.digest(), Policy::default().digest());
        let error =
            Policy::parse("[argument.refund]\n\"/a\" = \"generate\"").expect_err("a typo").to_string();
        assert!(error.contains("line 2") && error.contains("argument.refund./a"), "{error}");
        assert!(error.contains("\"generated\""), "{error}");
        let error = Policy::parse("[argument.refund]\na = \"text\"").expect_err("no pointer").to_string();
        assert!(error.contains("line 2") && error.contains("\"/request_id\""), "{error}");
    }

    #[test]
    fn an_error_names_the_line_of_its_key() {
        let line = |text: &str| Policy::parse(text).expect_err("a wrong policy").line;
        assert_eq!(line("policy = 1\n\nalpha = 7"), Some(3));
        assert_eq!(line("[metric.success]\nmargin = 0.1\n[metric.\"effects.extra\"]\nmargin = 5"), Some(4));
        assert_eq!(line("[metric.effects.extra]\ndecides = 1"), Some(2));
        assert_eq!(line("looks = 2\n[judge]\nmin-cases = 30\nmin-discriminaton = 1"), Some(4));
        assert_eq!(line("[argument.refund]\n\"/id\" = \"text\"\n\"/request_id\" = \"alias\""), Some(3));
        assert_eq!(line("looks = 2\n[invariant.order]\nrules = [{ first = \"a\" }]"), Some(3));
        let error = Policy::parse("[judge]\nmin-discrimination = 2").expect_err("out of range").to_string();
        assert!(
            error.starts_with("line 2: `judge.min-discrimination` is 2.0")
                || error.contains("`judge.min-discrimination` is 2"),
            "{error}"
        );
    }

    #[test]
    fn every_key_of_the_table_is_read() {
        for known in keys::POLICY_KEYS {
            assert!(!known.description.is_empty() && !known.key.contains('_'), "{known:?}");
            let metric = match known.key {
                "margin-ratio" => "latency",
                "k" => "pass_k",
                "bound-ms" => "tail_latency",
                "cap-usd" => "cost_mean",
                _ => "success",
            };
            let table = known.table.replace("metric.NAME", &format!("metric.{metric}"));
            let header = if table.is_empty() { String::new() } else { format!("[{table}]\n") };
            // A value of no key's type: the error must be about the value and not about the key.
            let error = Policy::parse(&format!("{header}{} = 1979-05-27", known.key)).expect_err("no date");
            assert!(
                matches!(error.kind, PolicyErrorKind::BadValue { .. } | PolicyErrorKind::Missing { .. }),
                "{known:?}: {error}"
            );
        }
    }

    #[test]
    fn a_neutral_build_is_held_to_semantic_drift() {
        let policy = Policy::parse("[drift]\nbehaviour-neutral = true").expect("a policy");
        assert!(policy.decides("semantic.drift", false) && policy.requires("semantic.drift", false));
        assert!(!policy.drift.shared_state && !Policy::default().decides("semantic.drift", false));
        let text = "[drift]\nbehaviour-neutral = true\nshared-state = true\n[metric.semantic.drift]\nrequired = false";
        let policy = Policy::parse(text).expect("a policy");
        assert!(policy.decides("semantic.drift", false) && !policy.requires("semantic.drift", false));
        assert!(policy.drift.shared_state);
        let text = "metrics = [\"success\"]\n[drift]\nbehaviour-neutral = true";
        let error = Policy::parse(text).expect_err("drift cannot decide").to_string();
        assert!(error.contains("drift.behaviour-neutral") && error.contains("semantic.drift"), "{error}");
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
        assert!(Policy::parse("[need]\ntrial-cost = 0").is_err());
    }

    #[test]
    fn listing_metrics_silences_the_others() {
        let policy = Policy::parse("metrics = [\"success\"]").expect("a list");
        assert!(policy.decides("success", true) && policy.requires("success", true));
        assert!(!policy.decides("pass_k", true) && !policy.requires("pass_k", true));
        assert_ne!(policy.digest(), Policy::default().digest());
    }
}
