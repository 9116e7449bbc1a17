//! `report.html`: one file that needs no network.

use minijinja::value::{Serde, Value};
use minijinja::{Environment, context};
use serde::Serialize;

use super::cases::{self, CaseList};
use super::error::ReportError;
use super::input::{ReportInput, ReportMeta};
use super::sections::answer_drift::{self, AnswerDriftSection};
use super::sections::calibration::{self, CalibrationSection};
use super::sections::completeness::{self, CompletenessSection};
use super::sections::invariants::{self, InvariantsSection};
use super::sections::look_history::{self, LookHistorySection};
use super::sections::metrics::{self, MetricsSection};
use super::sections::outcome_sources::{self, OutcomeSection};
use super::sections::reproduction::{self, ReproductionSection};
use super::sections::slices::{self, SlicesSection};
use super::sections::summary::{self, SummarySection};
use super::tool_table::{self, ToolTable};
use super::{chart_data, embed_data, number, trials};
use crate::analysis::Analysis;

/// The charting library with the licences of all its parts.
const CHARTS: &str =
    concat!("/*\n", include_str!("page/charts/LICENSES.txt"), "*/\n", include_str!("page/charts/plot.js"));

/// The style sheet that the charting library adds to each chart of class `chart`. The page's content security policy
/// names its digest.
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

/// Applies the reader's stored choice of light or dark before the first paint.
const THEME: &str = include_str!("page/theme.js");

/// The page's own script: charts, and the list of cases.
const SCRIPT: &str = include_str!("page/script.js");

/// The page's own style sheet.
const STYLE: &str = include_str!("page/style.css");

/// Renders the page.
///
/// # Errors
/// The runs differ from the analyzed ones; else only by a defect of this crate.
pub fn report_html(
    analysis: &Analysis,
    input: &ReportInput<'_>,
    meta: &ReportMeta,
) -> Result<String, ReportError> {
    let by_case = trials::by_case(input, analysis.verdict.seed)?;
    let cases = cases::case_list(analysis, &by_case, input.transcripts);
    let tools = tool_table::tool_table(&by_case, &analysis.verdict.review.tools);
    let page = report_page(analysis, input, meta, &cases, tools);
    let safe = |text: String| Value::from_safe_string(text);
    let mut environment = Environment::new();
    environment.add_template("report.html", include_str!("page/template.html"))?;
    let template = environment.get_template("report.html")?;
    Ok(template.render(context! {
        page => Value::from(Serde(&page)),
        // The browser runs and applies these texts only.
        script_hashes => safe([THEME, SCRIPT, CHARTS].map(embed_data::csp_hash).join(" ")),
        style_hashes => safe([STYLE, CHART_STYLE].map(embed_data::csp_hash).join(" ")),
        style => safe(STYLE.to_owned()),
        theme => safe(THEME.to_owned()),
        script => safe(SCRIPT.to_owned()),
        charts => safe(embed_data::compressed(CHARTS)),
        chart_data => safe(embed_data::json_for_script(&serde_json::to_string(&chart_data::chart_data(analysis))?)),
        case_list => safe(embed_data::compressed(&serde_json::to_string(&cases)?)),
        trace_blocks => cases.blocks.iter().map(|block| safe(block.clone())).collect::<Vec<_>>(),
    })?)
}

/// The view model of the page, by section. The list of cases is data of its own.
#[derive(Debug, Serialize)]
struct ReportPage {
    summary: SummarySection,
    metrics: MetricsSection,
    /// `None` without interim looks.
    looks: Option<LookHistorySection>,
    slices: Option<SlicesSection>,
    invariants: InvariantsSection,
    tools: ToolTable,
    answer_drift: Option<AnswerDriftSection>,
    outcome: Option<OutcomeSection>,
    cases: CaseCounts,
    completeness: CompletenessSection,
    calibration: Option<CalibrationSection>,
    reproduction: ReproductionSection,
}

/// Numbers of cases in the list and beyond it.
#[derive(Debug, Serialize)]
struct CaseCounts {
    listed: usize,
    left_out: usize,
    /// Cases with their traces in the page.
    traced: usize,
    /// Cases whose traces are left out to keep the page small.
    untraced: usize,
    /// Size of the traces as text.
    bytes: String,
}

fn report_page(
    analysis: &Analysis,
    input: &ReportInput<'_>,
    meta: &ReportMeta,
    cases: &CaseList,
    tools: ToolTable,
) -> ReportPage {
    let verdict = &analysis.verdict;
    ReportPage {
        summary: summary::summary(verdict, cases, meta),
        metrics: metrics::metrics(verdict),
        looks: verdict.monitoring.look_history.as_ref().map(look_history::look_history),
        slices: slices::slices(verdict),
        invariants: invariants::invariants(verdict),
        tools,
        answer_drift: verdict.review.drift.as_ref().map(answer_drift::answer_drift),
        outcome: outcome_sources::outcome(&verdict.outcome),
        cases: CaseCounts {
            listed: cases.cases.len(),
            left_out: cases.left_out,
            traced: cases.traced,
            untraced: cases.traceable - cases.traced,
            bytes: number::bytes(cases.blocks.iter().map(String::len).sum()),
        },
        completeness: completeness::completeness(verdict, input),
        calibration: verdict.calibration.as_ref().map(calibration::calibration),
        reproduction: reproduction::reproduction(verdict, input.policy, meta),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect_file;

    use super::*;
    use crate::report::fixture;
    use crate::verdict::Decision;

    fn render(decision: Decision) -> String {
        let runs = fixture::runs();
        let analysis = fixture::analysis(decision);
        let meta =
            ReportMeta { title: fixture::HOSTILE.to_owned(), commands: vec![fixture::HOSTILE.to_owned()] };
        report_html(&analysis, &runs.input(), &meta).unwrap()
    }

    /// A JSON value as lines `path: value`.
    fn flatten(path: &str, value: &serde_json::Value, lines: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(fields) => {
                for (name, value) in fields {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    flatten(&path, value, lines);
                }
            }
            // Cells of a table row.
            serde_json::Value::Array(cells)
                if cells.iter().all(|cell| cell.is_string() || cell.is_number()) =>
            {
                lines.push(format!("{path}: {value}"));
            }
            serde_json::Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    flatten(&format!("{path}[{index}]"), item, lines);
                }
            }
            _ => lines.push(format!("{path}: {value}")),
        }
    }

    #[test]
    fn the_view_model_of_a_blocked_build() {
        let runs = fixture::plain_runs();
        let analysis = fixture::plain_analysis(Decision::Block);
        let by_case = trials::by_case(&runs.input(), 7).unwrap();
        let cases = cases::case_list(&analysis, &by_case, runs.input().transcripts);
        let tools = tool_table::tool_table(&by_case, &analysis.verdict.review.tools);
        let meta = ReportMeta { title: String::new(), commands: vec!["foreshadow analyze".to_owned()] };
        let page = report_page(&analysis, &runs.input(), &meta, &cases, tools);
        let mut page = serde_json::to_value(&page).unwrap();
        // The policy's own tests cover its keys.
        page["reproduction"]["policy"] = serde_json::Value::Null;
        let mut lines = Vec::new();
        flatten("", &page, &mut lines);
        expect_file!["page/view_model.txt"].assert_eq(&(lines.join("\n") + "\n"));
        let list = serde_json::to_value(&cases).unwrap();
        let mut lines = Vec::new();
        flatten("", &list, &mut lines);
        expect_file!["page/case_list.txt"].assert_eq(&(lines.join("\n") + "\n"));
    }

    #[test]
    fn hostile_text_is_text() {
        let html = render(Decision::Block);
        assert_eq!(
            html.matches("<script").count(),
            6,
            "theme, chart data, case list, one trace block, charts, script"
        );
        assert_eq!(html.matches("</script").count(), 6);
        assert!(!html.contains("<img"), "a tag of a session is markup");
        assert!(!html.contains("<b>x</b>"));
        for hidden in ['\u{0}', '\u{1b}', '\u{202e}'] {
            assert!(!html.contains(hidden), "{hidden:?} is in the page");
        }
        assert!(html.contains("&lt;&#x2f;script&gt;&lt;img src=x onerror=alert(1)&gt;"), "shown as text");
    }

    #[test]
    fn the_content_security_policy_allows_the_own_scripts_only() {
        let html = render(Decision::Approve);
        let (_, policy) = html.split_once("Content-Security-Policy\" content=\"").unwrap();
        let (policy, _) = policy.split_once("\">").unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains("nonce"), "{policy}");
        let element = |start: &str, end: &str| html.split_once(start).unwrap().1.split_once(end).unwrap().0;
        for text in [element("<style>", "</style>"), element("<script id=\"main-script\">", "</script>")] {
            assert!(policy.contains(&embed_data::csp_hash(text)), "{policy}");
        }
        let charts = embed_data::decompressed(element("id=\"charts\">", "</script>"));
        assert!(policy.contains(&embed_data::csp_hash(&charts)) && charts.contains("Copyright"));
    }

    #[test]
    fn the_page_makes_no_request() {
        let html = render(Decision::Approve);
        for fetch in ["src=\"", "href=\"http", "@import", "url(", "fetch(", "XMLHttpRequest", "innerHTML"] {
            assert!(!html.contains(fetch), "{fetch} is in the page");
        }
    }

    #[test]
    fn the_case_list_is_readable_data() {
        let html = render(Decision::Block);
        let (_, rest) = html.split_once("id=\"case-list\">").unwrap();
        let (packed, _) = rest.split_once("</script>").unwrap();
        let data: serde_json::Value = serde_json::from_str(&embed_data::decompressed(packed)).unwrap();
        assert_eq!(data["cases"][0]["case"], fixture::HOSTILE_CASE);
        assert_eq!(data["cases"][0]["first_difference"], 1);
    }

    #[test]
    fn each_answer_has_its_heading_and_exit_code() {
        for (decision, heading, code) in [
            (Decision::Approve, "Approve", "exit code 0"),
            (Decision::Block, "Block", "exit code 3"),
            (Decision::Inconclusive, "Inconclusive", "exit code 4"),
        ] {
            let html = render(decision);
            assert!(html.contains(&format!("<h1>{heading}</h1>")) && html.contains(code), "{heading}");
        }
    }

    #[test]
    fn an_imported_run_has_no_fidelity() {
        let runs = fixture::runs();
        let mut analysis = fixture::analysis(Decision::Block);
        analysis.verdict.fidelity = None;
        let html = report_html(&analysis, &runs.input(), &ReportMeta::default()).unwrap();
        assert!(html.contains("Imported: not applicable"));
    }
}
