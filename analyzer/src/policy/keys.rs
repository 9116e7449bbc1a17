//! Every key of `policy.toml`. The parser takes its allowed keys and ranges from this table, and the reference of the
//! book is printed from it.

/// A value that a key accepts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum KeyType {
    /// A number within these bounds, both included.
    Number(f64, f64),
    /// A whole number within these bounds, both included.
    Integer(u64, u64),
    /// `true` or `false`.
    Bool,
    /// A text.
    Text,
    /// A table of shares between 0 and 1, at most 1 together.
    Shares,
    /// A list of texts.
    Texts,
    /// A list of metric names, at least one.
    Metrics,
    /// A table of slice names and values.
    Criteria,
    /// A JSON Schema, as a table or as JSON in a string.
    Schema,
    /// A table of tools, each with the JSON Schema of its arguments.
    Schemas,
    /// A list of order rules.
    Rules,
    /// The name of a rule for comparing an argument.
    Rule,
}

/// A key of `policy.toml`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PolicyKey {
    /// Table that holds the key; empty at the top. `NAME` stands for a metric or a slice.
    pub table: &'static str,
    /// The key.
    pub key: &'static str,
    /// Type and range of the value.
    pub value: KeyType,
    /// Unit of the value, empty where it has none.
    pub unit: &'static str,
    /// Value where the key is left out, in TOML or in words.
    pub default: &'static str,
    /// Effect of the key, one line.
    pub description: &'static str,
}

const fn key(
    table: &'static str,
    key: &'static str,
    value: KeyType,
    unit: &'static str,
    default: &'static str,
    description: &'static str,
) -> PolicyKey {
    PolicyKey { table, key, value, unit, default, description }
}

/// Longest time that the policy can name, milliseconds: a day.
const DAY_MS: u64 = 86_400_000;

const SCHEMA_HELP: &str = "JSON Schema that every final answer must satisfy";
const ON_HELP: &str = "whether the invariant is checked";
const MAX_RATE_HELP: &str =
    "approval needs the upper 95 % bound of the share of violating cases to be at most this";
const RATE: KeyType = KeyType::Number(0.000_001, 0.9999);

/// Every key, by table.
pub const POLICY_KEYS: [PolicyKey; 61] = [
    key("", "policy", KeyType::Integer(1, 1), "", "1", "version of the policy format"),
    key(
        "",
        "alpha",
        KeyType::Number(0.0001, 0.5),
        "probability",
        "0.05",
        "family-wise level of the block test, and level of each approve test",
    ),
    key("", "looks", KeyType::Integer(1, 64), "looks", "4", "looks that a gate plans; `analyze` takes one"),
    key(
        "",
        "strict",
        KeyType::Bool,
        "",
        "false",
        "approve by betting, proven for every distribution, instead of by Gaffke's bound",
    ),
    key(
        "",
        "least-baseline-success",
        KeyType::Number(0.0, 1.0),
        "share of trials",
        "0.20",
        "approval needs at least this success rate of the baseline, because a build that fails is no standard",
    ),
    key(
        "",
        "metrics",
        KeyType::Metrics,
        "",
        "all",
        "the only metrics that decide; the others are reported. Invariants that the baseline breaks too decide in any case",
    ),
    key(
        "metric.NAME",
        "margin",
        KeyType::Number(0.0001, 0.9999),
        "difference, or share of the baseline's dispersion",
        "by metric",
        "tolerated worsening, of metrics measured as a share or a distance",
    ),
    key(
        "metric.NAME",
        "margin-ratio",
        KeyType::Number(1.0001, 3.9),
        "ratio",
        "1.10",
        "tolerated worsening of latency, tokens and cost",
    ),
    key("metric.NAME", "decides", KeyType::Bool, "", "by metric", "whether the metric can block"),
    key("metric.NAME", "required", KeyType::Bool, "", "by metric", "whether approval needs the metric"),
    key(
        "metric.NAME",
        "k",
        KeyType::Integer(2, 64),
        "trials",
        "3",
        "`pass_k` only: number of trials that must all succeed",
    ),
    key(
        "metric.NAME",
        "bound-ms",
        KeyType::Integer(1, DAY_MS),
        "milliseconds",
        "95th percentile of both lanes",
        "`tail_latency` only: duration above which a trial counts as slow",
    ),
    key(
        "metric.NAME",
        "cap-usd",
        KeyType::Number(1e-6, 1e9),
        "US dollars",
        "dearest trial of both lanes",
        "`cost_mean` only: a trial that costs more counts as this much",
    ),
    key(
        "argument.TOOL",
        "\"/POINTER\"",
        KeyType::Rule,
        "",
        "\"exact\"",
        "how this argument of the tool's calls is compared",
    ),
    key("invariant.answer-schema", "on", KeyType::Bool, "", "true", ON_HELP),
    key("invariant.answer-schema", "max-rate", RATE, "share of cases", "none", MAX_RATE_HELP),
    key("invariant.answer-schema", "schema", KeyType::Schema, "", "required", SCHEMA_HELP),
    key("invariant.tool-arguments", "on", KeyType::Bool, "", "true", ON_HELP),
    key("invariant.tool-arguments", "max-rate", RATE, "share of cases", "none", MAX_RATE_HELP),
    key(
        "invariant.tool-arguments",
        "schemas",
        KeyType::Schemas,
        "",
        "required",
        "JSON Schemas that the arguments of these tools must satisfy",
    ),
    key("invariant.monotonic-effects", "on", KeyType::Bool, "", "true", ON_HELP),
    key("invariant.monotonic-effects", "max-rate", RATE, "share of cases", "none", MAX_RATE_HELP),
    key(
        "invariant.monotonic-effects",
        "order",
        KeyType::Texts,
        "",
        "[]",
        "tools in the only order in which a trial can use them; other tools are free",
    ),
    key("invariant.idempotency", "on", KeyType::Bool, "", "true", ON_HELP),
    key("invariant.idempotency", "max-rate", RATE, "share of cases", "none", MAX_RATE_HELP),
    key(
        "invariant.idempotency",
        "tools",
        KeyType::Texts,
        "",
        "all writing tools",
        "tools whose calls must not repeat with equal arguments",
    ),
    key("invariant.response-time", "on", KeyType::Bool, "", "true", ON_HELP),
    key("invariant.response-time", "max-rate", RATE, "share of cases", "none", MAX_RATE_HELP),
    key(
        "invariant.response-time",
        "max-ms",
        KeyType::Integer(1, DAY_MS),
        "milliseconds",
        "required",
        "longest allowed duration of a turn",
    ),
    key("invariant.forbidden", "on", KeyType::Bool, "", "true", ON_HELP),
    key("invariant.forbidden", "max-rate", RATE, "share of cases", "none", MAX_RATE_HELP),
    key("invariant.forbidden", "literals", KeyType::Texts, "", "[]", "texts that must not occur"),
    key(
        "invariant.forbidden",
        "patterns",
        KeyType::Texts,
        "",
        "[]",
        "regular expressions, without look-around, that must not match",
    ),
    key(
        "invariant.forbidden",
        "ignore-case",
        KeyType::Bool,
        "",
        "false",
        "whether matching ignores upper and lower case",
    ),
    key(
        "invariant.forbidden",
        "within",
        KeyType::Texts,
        "",
        "[\"answer\", \"arguments\"]",
        "parts of a trial that are searched: `answer`, `arguments`",
    ),
    key("invariant.order", "on", KeyType::Bool, "", "true", ON_HELP),
    key("invariant.order", "max-rate", RATE, "share of cases", "none", MAX_RATE_HELP),
    key(
        "invariant.order",
        "rules",
        KeyType::Rules,
        "",
        "required",
        "rules `{ first, then, same }`: a call of `first` must succeed before `then` is called, with equal arguments at `same`",
    ),
    key(
        "invariant.envelope",
        "on",
        KeyType::Bool,
        "",
        "true",
        "whether calls are checked against `--envelope`",
    ),
    key("invariant.envelope", "max-rate", RATE, "share of cases", "none", MAX_RATE_HELP),
    key(
        "slice.NAME",
        "where",
        KeyType::Criteria,
        "",
        "required",
        "slice names and values that the slice's cases share",
    ),
    key("slice.NAME", "critical", KeyType::Bool, "", "false", "whether the slice can block"),
    key("slice.NAME", "required", KeyType::Bool, "", "false", "whether approval needs the slice"),
    key("slice.NAME", "metrics", KeyType::Metrics, "", "[\"success\"]", "metrics tested in the slice"),
    key(
        "fidelity",
        "max-missed",
        KeyType::Number(0.0, 1.0),
        "share of tool and model answers",
        "0.05",
        "share of answers per lane that the recordings may lack",
    ),
    key(
        "fidelity",
        "max-provider-failures",
        KeyType::Number(0.0, 1.0),
        "share of trials",
        "0.05",
        "share of trials per lane that the model provider or the infrastructure may have failed",
    ),
    key(
        "fidelity",
        "equivalence",
        KeyType::Bool,
        "",
        "false",
        "whether the baseline must be shown equal to the recording within half the margin of `success`",
    ),
    key(
        "drift",
        "behaviour-neutral",
        KeyType::Bool,
        "",
        "false",
        "declares that the build must not change answers: `semantic.drift` then decides and is required",
    ),
    key(
        "drift",
        "shared-state",
        KeyType::Bool,
        "",
        "false",
        "trials of a session share state, so that all trials of a lane are permuted together, in every test",
    ),
    key(
        "sampling",
        "cluster",
        KeyType::Text,
        "",
        "\"trials\"",
        "independent unit of the tests: `trials` (their `cluster`, else the case), `none` (the case), `slice:NAME`, `opening` (first user turn)",
    ),
    key(
        "sampling",
        "runs-apart",
        KeyType::Text,
        "",
        "\"flag\"",
        "verdict on lanes that share no batch: `flag` (decide and say so), `refuse` (inconclusive)",
    ),
    key(
        "traffic",
        "slice",
        KeyType::Text,
        "",
        "required",
        "slice whose values have known shares of the traffic",
    ),
    key(
        "traffic",
        "shares",
        KeyType::Shares,
        "",
        "required",
        "share of the traffic by value of the slice; the means are weighted by them, and other values have the rest",
    ),
    key(
        "need",
        "session-cost",
        KeyType::Number(0.0, 1e9),
        "any unit, as for trial-cost",
        "1",
        "cost of recording and labelling one more session",
    ),
    key(
        "need",
        "trial-cost",
        KeyType::Number(1e-9, 1e9),
        "any unit, as for session-cost",
        "1",
        "cost of one more trial",
    ),
    key(
        "reference",
        "run",
        KeyType::Text,
        "",
        "none",
        "run of a reference build; the verdict shows the sum of changes since it",
    ),
    key(
        "reference",
        "blocks",
        KeyType::Bool,
        "",
        "false",
        "whether a proven deterioration since the reference blocks; this comparison has its own level alpha",
    ),
    key("judge", "alpha", KeyType::Number(0.0001, 0.5), "probability", "0.05", "level of the lower bounds"),
    key(
        "judge",
        "min-cases",
        KeyType::Integer(5, 1_000_000),
        "cases",
        "30",
        "labelled cases that a judge needs before its scores count, half of them in each lane",
    ),
    key(
        "judge",
        "min-agreement",
        KeyType::Number(0.5, 1.0),
        "share of trials",
        "0.75",
        "lower bound that the judge's agreement with labels must reach",
    ),
    key(
        "judge",
        "min-discrimination",
        KeyType::Number(0.0, 1.0),
        "share of a true change",
        "0.40",
        "share of successes passed plus share of failures caught, minus 1, that the judge must reach",
    ),
];

/// The key of a table; `table` in the form of [`PolicyKey::table`].
pub(super) fn find(table: &str, key: &str) -> Option<&'static PolicyKey> {
    POLICY_KEYS.iter().find(|known| known.table == table && known.key == key)
}

/// The keys that a table allows.
pub(super) fn allowed(table: &str) -> Vec<&'static str> {
    POLICY_KEYS.iter().filter(|known| known.table == table).map(|known| known.key).collect()
}
