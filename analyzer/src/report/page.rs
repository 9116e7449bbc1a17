//! `report.html`: the values of the page, and the page.

use minijinja::value::{Serde, Value};
use minijinja::{Environment, context};
use serde::Serialize;

use super::cases::{self, Cases};
use super::sections::answer_drift::{self, DriftView};
use super::sections::calibration::{self, CalibrationView};
use super::sections::completeness::{self, FidelityView};
use super::sections::invariants::{self, EnvelopeView, InvariantView};
use super::sections::look_history::{self, CourseView};
use super::sections::outcome_sources::{self, OutcomeView};
use super::sections::slices::{self, SlicesView};
use super::tool_table::{self, Tools};
use super::{ReportError, ReportInput, ReportMeta, chart_data, embed_data, escape, number, wording};
use crate::analysis::Analysis;
use crate::format;
use crate::verdict::{Answer, ExchangeResult, MetricResult, NeedRow, Reason, ReasonCode, Verdict};

/// The charting library with the licences of all its parts, as the page carries it.
const CHARTS: &str =
    concat!("/*\n", include_str!("page/charts/LICENSES.txt"), "*/\n", include_str!("page/charts/plot.js"));

/// The style sheet that the charting library puts into each chart of class `chart`.
const CHART_STYLE: &str = ":where(.chart) {
  --plot-background: white;
  display: block;
  height: auto;
  height: intrinsic;
  max-width: 100%;
}
:where(.chart text),
:where(.chart tspan) {
  white-space: pre;
}";

/// Sets the reader's choice of light or dark before anything is painted.
const THEME: &str = include_str!("page/theme.js");

/// Cases named at the top of the page.
const LEADING_CASES: usize = 5;

/// Makes the page.
///
/// # Errors
/// Only by a defect of this crate.
pub fn report_html(
    analysis: &Analysis,
    input: &ReportInput<'_>,
    meta: &ReportMeta,
) -> Result<String, ReportError> {
    let by_case = cases::by_case(input, analysis.verdict.seed)?;
    let cases = cases::cases(analysis, &by_case, input.transcripts);
    let page = page(analysis, input, meta, &cases, tool_table::tools(&by_case, &analysis.verdict.tools));
    let (style, script) = (include_str!("page/style.css"), include_str!("page/script.js"));
    let safe = |text: String| Value::from_safe_string(text);
    let mut environment = Environment::new();
    environment.add_template("report.html", include_str!("page/template.html"))?;
    let template = environment.get_template("report.html")?;
    Ok(template.render(context! {
        page => Value::from(Serde(&page)),
        // Nothing runs and nothing styles the page but these very texts.
        scripts => safe([THEME, script, CHARTS].map(embed_data::source).join(" ")),
        styles => safe([style, CHART_STYLE].map(embed_data::source).join(" ")),
        style => safe(style.to_owned()),
        theme => safe(THEME.to_owned()),
        script => safe(script.to_owned()),
        charts => safe(embed_data::packed(CHARTS)),
        figures => safe(embed_data::script_safe(&serde_json::to_string(&chart_data::figures(analysis))?)),
        cases => safe(embed_data::packed(&serde_json::to_string(&cases)?)),
        blocks => cases.blocks.iter().map(|block| safe(block.clone())).collect::<Vec<_>>(),
    })?)
}

/// Everything that the template shows; the cases lie beside it.
#[derive(Debug, Serialize)]
struct Page {
    title: String,
    answer: &'static str,
    tone: &'static str,
    consequence: &'static str,
    sentence: String,
    /// What else speaks for the same answer: code and metric.
    also: Vec<String>,
    exit_code: u8,
    facts: Vec<Fact>,
    advice: Vec<&'static str>,
    need: Option<String>,
    options: Vec<[String; 3]>,
    forecast: Vec<[String; 5]>,
    reasons: Vec<ReasonView>,
    leading: Vec<Leading>,
    notes: Vec<String>,
    has_intervals: bool,
    metrics: Vec<MetricView>,
    absent: Vec<[String; 2]>,
    alpha: String,
    invariants: Vec<InvariantView>,
    envelope: Option<EnvelopeView>,
    drift: Option<DriftView>,
    course: Option<CourseView>,
    slices: Option<SlicesView>,
    outcome: Option<OutcomeView>,
    calibration: Option<CalibrationView>,
    exchangeability: Vec<[String; 4]>,
    tools: Tools,
    cases: CaseCounts,
    fidelity: Option<FidelityView>,
    lanes: Vec<[String; 3]>,
    pairs: Vec<[String; 2]>,
    policy: String,
    identity: Vec<[String; 2]>,
    commands: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Fact {
    name: &'static str,
    value: String,
    detail: String,
}

#[derive(Debug, Serialize)]
struct ReasonView {
    code: &'static str,
    subject: String,
    detail: String,
    tone: &'static str,
}

#[derive(Debug, Serialize)]
struct Leading {
    case: String,
    anchor: String,
    subject: String,
    detail: String,
}

#[derive(Debug, Serialize)]
struct MetricView {
    name: String,
    meaning: &'static str,
    role: &'static str,
    decides: bool,
    cases: String,
    baseline: String,
    candidate: String,
    effect: String,
    interval: String,
    margin: String,
    p_block: String,
    p_block_adjusted: String,
    p_approve: String,
    state: &'static str,
    tone: &'static str,
    floor: String,
    clipped: u64,
}

#[derive(Debug, Serialize)]
struct CaseCounts {
    listed: usize,
    left_out: usize,
    traced: usize,
    /// Cases that would have something to show and are left out for the page's size.
    trimmed: usize,
    bytes: String,
}

fn page(
    analysis: &Analysis,
    input: &ReportInput<'_>,
    meta: &ReportMeta,
    cases: &Cases,
    tools: Tools,
) -> Page {
    let verdict = &analysis.verdict;
    let title = if meta.title.is_empty() {
        format!(
            "{} against {}",
            escape::name(&verdict.candidate.build),
            escape::name(&verdict.baseline.build)
        )
    } else {
        escape::name(&meta.title)
    };
    Page {
        title,
        answer: wording::answer(verdict.verdict),
        tone: wording::answer_tone(verdict.verdict),
        consequence: wording::consequence(verdict.verdict),
        sentence: escape::visible(&wording::why(verdict)),
        also: also(verdict),
        exit_code: wording::exit_code(verdict.verdict),
        facts: facts(verdict),
        advice: advice(verdict),
        need: wording::need(verdict),
        options: options(verdict),
        forecast: forecast(verdict),
        reasons: verdict.reasons.iter().map(reason_view).collect(),
        leading: leading(cases),
        notes: verdict.notes.iter().map(|note| escape::visible(note)).collect(),
        has_intervals: verdict.metrics.iter().any(|metric| metric.margin > 0.0),
        metrics: verdict.metrics.iter().map(metric_view).collect(),
        absent: verdict
            .absent
            .iter()
            .map(|one| [escape::name(&one.name), escape::visible(&one.why)])
            .collect(),
        alpha: format!("{}", verdict.alpha),
        invariants: verdict.invariants.iter().map(invariants::invariant).collect(),
        envelope: verdict.envelope.as_ref().map(invariants::envelope),
        drift: verdict.drift.as_ref().map(answer_drift::drift),
        course: verdict.course.as_ref().map(look_history::course),
        slices: slices::slices(verdict),
        outcome: outcome_sources::outcome(&verdict.outcome),
        calibration: verdict.calibration.as_ref().map(calibration::calibration),
        exchangeability: exchangeability(verdict),
        tools,
        cases: CaseCounts {
            listed: cases.cases.len(),
            left_out: cases.left_out,
            traced: cases.traced,
            trimmed: cases.traceable - cases.traced,
            bytes: number::bytes(cases.blocks.iter().map(String::len).sum()),
        },
        fidelity: verdict.fidelity.as_ref().map(|_| completeness::fidelity_view(input)),
        lanes: completeness::lanes(verdict, input),
        pairs: completeness::pairs(verdict),
        policy: escape::visible_lines(&policy_text(input)),
        identity: identity(verdict),
        commands: meta.commands.iter().map(|command| escape::visible(command)).collect(),
    }
}

fn facts(verdict: &Verdict) -> Vec<Fact> {
    let pairs = &verdict.pairs;
    let deciding = || verdict.metrics.iter().filter(|metric| metric.decides || metric.required);
    let worse = deciding().filter(|metric| wording::state(metric).0 == wording::BAD).count();
    let kept = deciding().filter(|metric| wording::keeps_margin(metric.state)).count();
    let violations: u64 = verdict.invariants.iter().map(|invariant| invariant.violations).sum();
    vec![
        Fact {
            name: "Cases compared",
            value: number::count(pairs.paired),
            detail: format!("of {} in either run", number::count(pairs.cases)),
        },
        Fact {
            name: "Trials",
            value: format!(
                "{} + {}",
                number::count(pairs.trials_baseline),
                number::count(pairs.trials_candidate)
            ),
            detail: "baseline + candidate".to_owned(),
        },
        Fact {
            name: "Deciding metrics",
            value: format!("{kept} of {}", deciding().count()),
            detail: format!("within margin, {worse} proven worse"),
        },
        Fact {
            name: "Invariant violations",
            value: if verdict.invariants.is_empty() {
                "none declared".to_owned()
            } else {
                number::count(violations)
            },
            detail: match verdict.invariants.len() {
                0 => "declare them in the policy".to_owned(),
                declared => format!("{declared} checked on every trial"),
            },
        },
    ]
}

/// Reasons after the first that weigh the same, by metric.
fn also(verdict: &Verdict) -> Vec<String> {
    let Some(first) = verdict.reasons.first() else { return Vec::new() };
    if first.code == ReasonCode::NonInferior {
        // The sentence names them all.
        return Vec::new();
    }
    let weight = wording::reason_tone(first.code);
    let others = verdict.reasons.iter().skip(1);
    let same = others.filter(|reason| wording::reason_tone(reason.code) == weight);
    same.filter_map(|reason| Some((reason.code, reason.metric.as_deref()?)))
        .filter(|(_, metric)| Some(*metric) != first.metric.as_deref())
        .map(|(code, metric)| format!("{} {}", escape::name(metric), wording::briefly(code)))
        .collect()
}

/// What to do next, the most important first, each thing once.
fn advice(verdict: &Verdict) -> Vec<&'static str> {
    let mut advice: Vec<&'static str> = Vec::new();
    if verdict.verdict == Answer::Approve {
        advice.push("Roll out. Nothing more is needed.");
    }
    for reason in &verdict.reasons {
        let next = wording::advice(reason.code);
        if !next.is_empty() && !advice.contains(&next) {
            advice.push(next);
        }
    }
    advice
}

fn options(verdict: &Verdict) -> Vec<[String; 3]> {
    let rows = verdict.need.options.iter();
    rows.map(|option| [option.trials, option.cases, option.trials_total].map(number::count)).collect()
}

/// What adding cases would bring: cases added, trials of each, trials added, probability, cost.
fn forecast(verdict: &Verdict) -> Vec<[String; 5]> {
    let row = |row: &NeedRow| {
        let [cases, trials, added] = [row.extra_cases, row.trials, row.trials_added].map(number::count);
        let cost = row.cost_usd.map_or_else(|| "not known".to_owned(), |usd| format!("${usd:.2}"));
        [cases, trials, added, number::percent(row.predicted_approve), cost]
    };
    verdict.need.table.iter().map(row).collect()
}

fn exchangeability(verdict: &Verdict) -> Vec<[String; 4]> {
    let row = |one: &ExchangeResult| {
        [
            escape::name(&one.name),
            number::count(one.cases),
            number::p_value(one.p),
            number::p_value(one.p_adjusted),
        ]
    };
    verdict.exchangeability.iter().map(row).collect()
}

fn reason_view(reason: &Reason) -> ReasonView {
    ReasonView {
        code: reason.code.as_str(),
        subject: reason.metric.as_deref().map(escape::name).unwrap_or_default(),
        detail: escape::visible(&reason.detail),
        tone: wording::reason_tone(reason.code),
    }
}

fn leading(cases: &Cases) -> Vec<Leading> {
    let told = cases.cases.iter().filter_map(|case| Some((case, case.findings.first()?)));
    told.take(LEADING_CASES)
        .map(|(case, finding)| Leading {
            case: case.case.clone(),
            anchor: case.anchor.clone(),
            subject: finding.subject.clone(),
            detail: finding.detail.clone(),
        })
        .collect()
}

fn metric_view(metric: &MetricResult) -> MetricView {
    let (tone, state) = wording::state(metric);
    MetricView {
        name: escape::name(&metric.name),
        meaning: wording::meaning(&metric.name),
        role: wording::role(metric),
        decides: metric.decides || metric.required,
        cases: number::count(metric.cases),
        baseline: format::value(metric.unit, metric.baseline),
        candidate: format::value(metric.unit, metric.candidate),
        effect: format::effect(metric.unit, metric.effect),
        interval: wording::interval(metric),
        margin: wording::margin(metric),
        p_block: number::p_value(metric.p_block),
        p_block_adjusted: metric.p_block_adjusted.map(number::p_value).unwrap_or_default(),
        p_approve: number::p_value(metric.p_approve),
        state,
        tone,
        floor: number::count(metric.floor),
        clipped: metric.clipped,
    }
}

/// The policy as understood, defaults included.
fn policy_text(input: &ReportInput<'_>) -> String {
    serde_json::to_string_pretty(input.policy).expect("a policy holds only finite numbers and text keys")
}

fn identity(verdict: &Verdict) -> Vec<[String; 2]> {
    let entry = |name: &str, value: &str| [name.to_owned(), escape::name(value)];
    vec![
        entry("Policy digest", &verdict.policy_digest),
        entry("Corpus digest", &verdict.corpus_digest),
        entry("Seed", &verdict.seed.to_string()),
        entry("Level (alpha)", &verdict.alpha.to_string()),
        entry("Looks", &verdict.looks.to_string()),
        entry("Baseline run", &verdict.baseline.run),
        entry("Baseline build", &verdict.baseline.build),
        entry("Candidate run", &verdict.candidate.run),
        entry("Candidate build", &verdict.candidate.build),
        entry("Decided by", &format!("foreshadow {}", verdict.tool_version)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    fn render(answer: Answer) -> String {
        let runs = fixture::runs();
        let analysis = fixture::analysis(answer);
        let meta =
            ReportMeta { title: fixture::HOSTILE.to_owned(), commands: vec![fixture::HOSTILE.to_owned()] };
        report_html(&analysis, &runs.input(), &meta).unwrap()
    }

    #[test]
    fn hostile_text_is_shown_and_never_run() {
        let html = render(Answer::Block);
        assert_eq!(html.matches("<script").count(), 6, "theme, figures, cases, one block, charts, script");
        assert_eq!(html.matches("</script").count(), 6);
        assert!(!html.contains("<img"), "a tag from a session got in");
        assert!(!html.contains("<b>x</b>"));
        for hidden in ['\u{0}', '\u{1b}', '\u{202e}'] {
            assert!(!html.contains(hidden), "{hidden:?} got in");
        }
        assert!(html.contains("&lt;&#x2f;script&gt;&lt;img src=x onerror=alert(1)&gt;"), "shown as text");
    }

    #[test]
    fn only_the_texts_that_the_page_was_made_with_run() {
        let html = render(Answer::Approve);
        let (_, policy) = html.split_once("Content-Security-Policy\" content=\"").unwrap();
        let (policy, _) = policy.split_once("\">").unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains("nonce"), "{policy}");
        let element = |start: &str, end: &str| html.split_once(start).unwrap().1.split_once(end).unwrap().0;
        for text in [element("<style>", "</style>"), element("<script id=\"main-script\">", "</script>")] {
            assert!(policy.contains(&embed_data::source(text)), "{policy}");
        }
        let charts = embed_data::unpacked(element("id=\"charts\">", "</script>"));
        assert!(policy.contains(&embed_data::source(&charts)) && charts.contains("Copyright"));
    }

    #[test]
    fn the_page_asks_the_network_for_nothing() {
        let html = render(Answer::Approve);
        for fetch in ["src=\"", "href=\"http", "@import", "url(", "fetch(", "XMLHttpRequest", "innerHTML"] {
            assert!(!html.contains(fetch), "{fetch} is in the page");
        }
    }

    #[test]
    fn the_list_of_cases_comes_back() {
        let html = render(Answer::Block);
        let (_, rest) = html.split_once("id=\"cases-data\">").unwrap();
        let (packed, _) = rest.split_once("</script>").unwrap();
        let data: serde_json::Value = serde_json::from_str(&embed_data::unpacked(packed)).unwrap();
        assert_eq!(data["cases"][0]["case"], fixture::HOSTILE_CASE);
        assert_eq!(data["cases"][0]["first"], 1);
    }

    #[test]
    fn each_answer_has_its_heading_and_exit_code() {
        for (answer, heading, code) in [
            (Answer::Approve, "Approve", "exit code 0"),
            (Answer::Block, "Block", "exit code 3"),
            (Answer::Inconclusive, "Inconclusive", "exit code 4"),
        ] {
            let html = render(answer);
            assert!(html.contains(&format!("<h1>{heading}</h1>")) && html.contains(code), "{heading}");
        }
    }

    #[test]
    fn an_imported_run_has_no_fidelity_rather_than_a_perfect_one() {
        let runs = fixture::runs();
        let mut analysis = fixture::analysis(Answer::Block);
        analysis.verdict.fidelity = None;
        let html = report_html(&analysis, &runs.input(), &ReportMeta::default()).unwrap();
        assert!(html.contains("Imported: not applicable"));
    }
}
