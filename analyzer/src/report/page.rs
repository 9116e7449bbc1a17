//! `report.html`: the values of the page, and the page.

use minijinja::value::{Serde, Value};
use minijinja::{Environment, context};
use schemas::trial::{Fidelity, TrialEnding};
use serde::Serialize;

use super::cases::{self, Cases};
use super::plot::{self, Plot};
use super::tools::{self, Tools};
use super::{Evidence, Frame, ReportError, phrases, text};
use crate::analysis::Analysis;
use crate::run::Run;
use crate::verdict::{Answer, InvariantResult, MetricResult, Reason, Verdict};
use crate::words;

/// Cases named at the top of the page.
const LEADING_CASES: usize = 5;

/// Violating sessions named per invariant.
const EXAMPLES_SHOWN: usize = 5;

/// Makes the page.
///
/// # Errors
/// Only by a defect of this crate.
pub fn report_html(
    analysis: &Analysis,
    evidence: &Evidence<'_>,
    frame: &Frame,
) -> Result<String, ReportError> {
    let by_case = cases::by_case(evidence, analysis.verdict.seed)?;
    let cases = cases::cases(analysis, &by_case);
    let page = page(analysis, evidence, frame, &cases, tools::tools(&by_case));
    let data = script_safe(&serde_json::to_string(&cases)?);
    // Only scripts and styles that carry it run; who writes a session cannot know it beforehand.
    let nonce = blake3::hash(format!("{}\0{data}", analysis.verdict.corpus_digest).as_bytes()).to_hex();
    let mut environment = Environment::new();
    environment.add_template("report.html", include_str!("page.html"))?;
    let template = environment.get_template("report.html")?;
    Ok(template.render(context! {
        page => Value::from(Serde(&page)),
        nonce => &nonce.as_str()[..32],
        style => Value::from_safe_string(include_str!("page.css").to_owned()),
        script => Value::from_safe_string(include_str!("page.js").to_owned()),
        data => Value::from_safe_string(data),
    })?)
}

/// JSON that cannot end the script element that it lies in.
fn script_safe(json: &str) -> String {
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
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
    reasons: Vec<ReasonView>,
    leading: Vec<Leading>,
    notes: Vec<String>,
    plot: Plot,
    metrics: Vec<MetricView>,
    absent: Vec<[String; 2]>,
    alpha: String,
    invariants: Vec<InvariantView>,
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
struct InvariantView {
    name: String,
    violations: String,
    violations_baseline: String,
    cases: String,
    upper_bound: String,
    tone: &'static str,
    state: &'static str,
    examples: Vec<[String; 2]>,
    examples_left_out: usize,
}

#[derive(Debug, Serialize)]
struct CaseCounts {
    listed: usize,
    left_out: usize,
    traced: usize,
    untraced: usize,
}

#[derive(Debug, Serialize)]
struct FidelityView {
    rows: Vec<FidelityRow>,
    totals: [String; 2],
}

#[derive(Debug, Serialize)]
struct FidelityRow {
    name: &'static str,
    meaning: &'static str,
    baseline: String,
    candidate: String,
    tone: &'static str,
}

fn page(analysis: &Analysis, evidence: &Evidence<'_>, frame: &Frame, cases: &Cases, tools: Tools) -> Page {
    let verdict = &analysis.verdict;
    let title = if frame.title.is_empty() {
        format!("{} against {}", text::name(&verdict.candidate.build), text::name(&verdict.baseline.build))
    } else {
        text::name(&frame.title)
    };
    Page {
        title,
        answer: phrases::answer(verdict.verdict),
        tone: phrases::answer_tone(verdict.verdict),
        consequence: phrases::consequence(verdict.verdict),
        sentence: text::visible(&phrases::why(verdict)),
        also: also(verdict),
        exit_code: phrases::exit_code(verdict.verdict),
        facts: facts(verdict),
        advice: advice(verdict),
        need: phrases::need(verdict),
        options: options(verdict),
        reasons: verdict.reasons.iter().map(reason_view).collect(),
        leading: leading(cases),
        notes: verdict.notes.iter().map(|note| text::visible(note)).collect(),
        plot: plot::plot(verdict),
        metrics: verdict.metrics.iter().map(metric_view).collect(),
        absent: verdict.absent.iter().map(|one| [text::name(&one.name), text::visible(&one.why)]).collect(),
        alpha: format!("{}", verdict.alpha),
        invariants: verdict.invariants.iter().map(invariant_view).collect(),
        tools,
        cases: CaseCounts {
            listed: cases.cases.len(),
            left_out: cases.left_out,
            traced: cases.traced,
            untraced: cases.cases.len() - cases.traced,
        },
        fidelity: verdict.fidelity.as_ref().map(|_| fidelity_view(evidence)),
        lanes: lanes(verdict, evidence),
        pairs: pairs(verdict),
        policy: text::visible_lines(&policy_text(evidence)),
        identity: identity(verdict),
        commands: frame.commands.iter().map(|command| text::visible(command)).collect(),
    }
}

fn facts(verdict: &Verdict) -> Vec<Fact> {
    let pairs = &verdict.pairs;
    let deciding = || verdict.metrics.iter().filter(|metric| metric.decides || metric.required);
    let worse = deciding().filter(|metric| phrases::state(metric).0 == phrases::BAD).count();
    let kept = deciding().filter(|metric| phrases::keeps_margin(metric.state)).count();
    let violations: u64 = verdict.invariants.iter().map(|invariant| invariant.violations).sum();
    vec![
        Fact {
            name: "Cases compared",
            value: text::count(pairs.paired),
            detail: format!("of {} in either run", text::count(pairs.cases)),
        },
        Fact {
            name: "Trials",
            value: format!(
                "{} + {}",
                text::count(pairs.trials_baseline),
                text::count(pairs.trials_candidate)
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
                text::count(violations)
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
    let weight = phrases::reason_tone(first.code);
    let others = verdict.reasons.iter().skip(1);
    let same = others.filter(|reason| phrases::reason_tone(reason.code) == weight);
    same.filter_map(|reason| Some((reason.code, reason.metric.as_deref()?)))
        .filter(|(_, metric)| Some(*metric) != first.metric.as_deref())
        .map(|(code, metric)| format!("{} {}", text::name(metric), phrases::briefly(code)))
        .collect()
}

/// What to do next, the most important first, each thing once.
fn advice(verdict: &Verdict) -> Vec<&'static str> {
    let mut advice: Vec<&'static str> = Vec::new();
    if verdict.verdict == Answer::Approve {
        advice.push("Roll out. Nothing more is needed.");
    }
    for reason in &verdict.reasons {
        let next = phrases::advice(reason.code);
        if !next.is_empty() && !advice.contains(&next) {
            advice.push(next);
        }
    }
    advice
}

fn options(verdict: &Verdict) -> Vec<[String; 3]> {
    let rows = verdict.need.options.iter();
    rows.map(|option| [option.trials, option.cases, option.trials_total].map(text::count)).collect()
}

fn reason_view(reason: &Reason) -> ReasonView {
    ReasonView {
        code: reason.code.as_str(),
        subject: reason.metric.as_deref().map(text::name).unwrap_or_default(),
        detail: text::visible(&reason.detail),
        tone: phrases::reason_tone(reason.code),
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
    let (tone, state) = phrases::state(metric);
    MetricView {
        name: text::name(&metric.name),
        meaning: phrases::meaning(&metric.name),
        role: phrases::role(metric),
        decides: metric.decides || metric.required,
        cases: text::count(metric.cases),
        baseline: words::value(metric.unit, metric.baseline),
        candidate: words::value(metric.unit, metric.candidate),
        effect: words::effect(metric.unit, metric.effect),
        interval: phrases::interval(metric),
        margin: phrases::margin(metric),
        p_block: text::p_value(metric.p_block),
        p_block_adjusted: metric.p_block_adjusted.map(text::p_value).unwrap_or_default(),
        p_approve: text::p_value(metric.p_approve),
        state,
        tone,
        floor: text::count(metric.floor),
        clipped: metric.clipped,
    }
}

fn invariant_view(invariant: &InvariantResult) -> InvariantView {
    let (tone, state) = match (invariant.violations, invariant.violations_baseline) {
        _ if invariant.cases == 0 => (phrases::OPEN, "not checked"),
        (0, _) => (phrases::GOOD, "kept"),
        (_, 0) => (phrases::BAD, "violated, blocks"),
        (_, _) => (phrases::WARN, "violated by both, compared as a rate"),
    };
    let details = invariant.details.iter().map(String::as_str).chain(std::iter::repeat(""));
    let examples = invariant.examples.iter().zip(details).take(EXAMPLES_SHOWN);
    InvariantView {
        name: text::name(&invariant.name),
        violations: text::count(invariant.violations),
        violations_baseline: text::count(invariant.violations_baseline),
        cases: text::count(invariant.cases),
        upper_bound: text::percent(invariant.upper_bound),
        tone,
        state,
        examples: examples
            .map(|(session, detail)| [text::name(session), text::visible(&text::shortened(detail, 300))])
            .collect(),
        examples_left_out: invariant.examples.len().saturating_sub(EXAMPLES_SHOWN),
    }
}

fn fidelity_view(evidence: &Evidence<'_>) -> FidelityView {
    let counts = [evidence.baseline, evidence.candidate].map(|run| {
        let mut sum = Fidelity::default();
        run.own().filter_map(|record| record.trial.fidelity.as_ref()).for_each(|one| sum.add(one));
        sum
    });
    let row = |name, meaning, of: fn(&Fidelity) -> u32| {
        let shown = |lane: &Fidelity| match lane.total() {
            0 => "not applicable".to_owned(),
            total => format!(
                "{} ({})",
                text::count(u64::from(of(lane))),
                text::percent(f64::from(of(lane)) / f64::from(total))
            ),
        };
        let is_bad = name == "missed" && counts.iter().any(|lane| of(lane) > 0);
        let tone = if is_bad { phrases::WARN } else { phrases::OPEN };
        FidelityRow { name, meaning, baseline: shown(&counts[0]), candidate: shown(&counts[1]), tone }
    };
    FidelityView {
        rows: vec![
            row("exact", "the recording held the same arguments", |lane| lane.exact),
            row("normalised", "the same after ids, times and spelling were evened out", |lane| {
                lane.normalised
            }),
            row("overlaid", "answered from a write of the same trial", |lane| lane.overlaid),
            row("derived", "derived from other recordings", |lane| lane.derived),
            row("live", "let through to the real service", |lane| lane.live),
            row("faulted", "answered by an injected fault", |lane| lane.faulted),
            row("missed", "not answerable: the agent got an error", |lane| lane.missed),
        ],
        totals: [0, 1].map(|lane: usize| text::count(u64::from(counts[lane].total()))),
    }
}

/// What became of the trials of each lane.
fn lanes(verdict: &Verdict, evidence: &Evidence<'_>) -> Vec<[String; 3]> {
    let runs = [evidence.baseline, evidence.candidate];
    let row = |name: &str, of: &dyn Fn(&Run) -> String| {
        let [baseline, candidate] = runs.map(of);
        [name.to_owned(), baseline, candidate]
    };
    let ended = |ending: TrialEnding| {
        move |run: &Run| {
            text::count(crate::count::of(run.own().filter(|record| record.trial.ending == ending).count()))
        }
    };
    let pairs = &verdict.pairs;
    let missing = [pairs.missing_baseline, pairs.missing_candidate].map(text::count);
    let alone = [pairs.unpaired_baseline, pairs.unpaired_candidate].map(text::count);
    let [missing_baseline, missing_candidate] = missing;
    let [alone_baseline, alone_candidate] = alone;
    vec![
        row("Run", &|run| text::name(&run.name)),
        row("Build", &|run| text::name(run.manifest.build.as_str())),
        row("Where it comes from", &|run| text::name(&run.manifest.source)),
        row("Trials", &|run| text::count(crate::count::of(run.own().count()))),
        row("… complete", &ended(TrialEnding::Complete)),
        row("… failed", &ended(TrialEnding::Failed)),
        row("… timed out", &ended(TrialEnding::TimedOut)),
        row("… left the recording (unscorable)", &ended(TrialEnding::Truncated)),
        row("… lost to the harness", &ended(TrialEnding::Infrastructure)),
        row("… torn: exchanges were lost, no vote", &|run| {
            text::count(crate::count::of(run.own().filter(|record| record.is_torn()).count()))
        }),
        row("… without a transcript", &|run| {
            text::count(crate::count::of(run.own().filter(|record| !record.trial.has_transcript).count()))
        }),
        ["Trials without an outcome, counted both ways".to_owned(), missing_baseline, missing_candidate],
        ["Cases that only this run has".to_owned(), alone_baseline, alone_candidate],
    ]
}

fn pairs(verdict: &Verdict) -> Vec<[String; 2]> {
    let pairs = &verdict.pairs;
    vec![
        ["Cases in either run".to_owned(), text::count(pairs.cases)],
        ["Cases paired".to_owned(), text::count(pairs.paired)],
        ["Trials that did not vote because exchanges of them were lost".to_owned(), text::count(pairs.torn)],
    ]
}

/// The policy as understood, defaults included.
fn policy_text(evidence: &Evidence<'_>) -> String {
    serde_json::to_string_pretty(evidence.policy).expect("a policy holds only finite numbers and text keys")
}

fn identity(verdict: &Verdict) -> Vec<[String; 2]> {
    let entry = |name: &str, value: &str| [name.to_owned(), text::name(value)];
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
    use crate::report::sample;

    fn render(answer: Answer) -> String {
        let runs = sample::runs();
        let analysis = sample::analysis(answer);
        let frame = Frame { title: sample::HOSTILE.to_owned(), commands: vec![sample::HOSTILE.to_owned()] };
        report_html(&analysis, &runs.evidence(), &frame).unwrap()
    }

    #[test]
    fn hostile_text_is_shown_and_never_run() {
        let html = render(Answer::Block);
        assert_eq!(html.matches("<script").count(), 3, "head, data, body script");
        assert_eq!(html.matches("</script").count(), 3);
        assert!(!html.contains("<img"), "a tag from a session got in");
        assert!(!html.contains("<b>x</b>"));
        for hidden in ['\u{0}', '\u{1b}', '\u{202e}'] {
            assert!(!html.contains(hidden), "{hidden:?} got in");
        }
        assert!(html.contains("&lt;&#x2f;script&gt;&lt;img src=x onerror=alert(1)&gt;"), "shown as text");
    }

    #[test]
    fn the_page_asks_the_network_for_nothing() {
        let html = render(Answer::Approve);
        assert!(html.contains("default-src &#39;none&#39;") || html.contains("default-src 'none'"));
        for fetch in ["src=\"", "href=\"http", "@import", "url(", "fetch(", "XMLHttpRequest", "innerHTML"] {
            assert!(!html.contains(fetch), "{fetch} is in the page");
        }
    }

    #[test]
    fn the_data_reads_back_as_json() {
        let html = render(Answer::Block);
        let (_, rest) = html.split_once("id=\"data\">").unwrap();
        let (json, _) = rest.split_once("</script>").unwrap();
        let data: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(data["cases"][0]["case"], sample::HOSTILE_CASE);
        assert_eq!(data["cases"][0]["trace"]["first"], 0);
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
        let runs = sample::runs();
        let mut analysis = sample::analysis(Answer::Block);
        analysis.verdict.fidelity = None;
        let html = report_html(&analysis, &runs.evidence(), &Frame::default()).unwrap();
        assert!(html.contains("Imported: not applicable"));
    }
}
