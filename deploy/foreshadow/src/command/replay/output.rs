//! The summary of a replay on the terminal, and how the command ends.

use std::time::Duration;

use replayer::{MissCount, Progress, Summary};

use crate::console::Console;
use crate::exit::{Failure, Status};
use crate::format::escape_control;

/// Excluded sessions on the terminal; `--json` lists all.
const MAX_NAMED: usize = 5;

/// Prints how many sessions were selected.
pub(super) fn show_corpus(console: &Console, progress: &Progress) {
    if let Progress::Corpus { complete, incomplete, unusable, selected } = progress {
        console.note(format!(
            "{selected} of {complete} complete sessions selected; excluded: {incomplete} incomplete, {unusable} without a turn to replay"
        ));
    }
}

/// The end of a replay: an error if trials are left to run.
pub(super) fn ended(summary: &Summary) -> Result<Status, Failure> {
    if let Some(reason) = &summary.provider_down {
        let (done, all) = (summary.already + summary.ran, summary.planned);
        return Err(Failure::work(anyhow::anyhow!(
            "the model provider is down for good: {reason}; replay stopped after {done} of {all} trials; finished trials are \
             kept; mend the key, the quota or the provider, then repeat the command with --resume"
        )));
    }
    if summary.interrupted {
        let (done, all) = (summary.already + summary.ran, summary.planned);
        return Err(Failure::work(anyhow::anyhow!(
            "replay stopped after {done} of {all} trials; finished trials are kept; repeat the command with --resume"
        )));
    }
    Ok(Status::Success)
}

/// The lines of a summary.
#[expect(clippy::too_many_lines, reason = "one entry for each line of the output")]
pub(super) fn lines(summary: &Summary) -> Vec<String> {
    let Summary { endings, fidelity, model_fidelity: model, .. } = summary;
    let (earlier, scope) = match summary.already {
        0 => (String::new(), ""),
        already => (
            format!(", {already} by earlier invocations and {} by this one", summary.ran),
            " in this invocation",
        ),
    };
    let mut lines = vec![
        format!(
            "{} trials of {} sessions by build {} (lane {}){earlier} in {:.1} s",
            summary.already + summary.ran,
            summary.cases,
            summary.build,
            summary.lane.as_str(),
            Duration::from_millis(summary.elapsed_ms).as_secs_f64()
        ),
        format!(
            "  endings: {} complete, {} failed, {} timed out, {} truncated, {} infrastructure failures",
            endings.complete, endings.failed, endings.timed_out, endings.truncated, endings.infrastructure
        ),
        format!(
            "  world responses: {} exact, {} normalised, {} derived, {} live, {} faulted, {} missed",
            fidelity.exact,
            fidelity.normalised,
            fidelity.derived,
            fidelity.live,
            fidelity.faulted,
            fidelity.missed
        ),
        format!(
            "  of these answered model calls: {} of {}, tool calls: {} of {}",
            model.total() - model.missed,
            model.total(),
            fidelity.total() - model.total() - (fidelity.missed - model.missed),
            fidelity.total() - model.total()
        ),
        format!(
            "  divergences: {}, duplicated writes{scope}: {}, model calls: {}, tokens: {} read, {} written",
            summary.divergences,
            summary.duplicated_writes,
            summary.model_calls,
            summary.input_tokens,
            summary.output_tokens
        ),
    ];
    lines.extend(provider_lines(summary));
    lines.extend(miss_lines(&summary.misses));
    if summary.late_calls > 0 {
        lines.push(format!(
            "  {} calls came after the end of their trial and are part of none: the candidate works on after its answer",
            summary.late_calls
        ));
    }
    if summary.uncorrelated_calls > 0 {
        let paths = summary.uncorrelated_paths.iter().take(MAX_NAMED);
        let paths: Vec<String> =
            paths.map(|(path, calls)| format!("{} ({calls})", escape_control(path))).collect();
        lines.push(format!("  calls without a trial: {}", paths.join(", ")));
        lines.push(format!(
            "  {} calls match no trial, and each counts as missed in every trial that ran then: the candidate must pass on `traceparent` or `baggage` of its turn, or a header that \
             [propagate] header = \"…\" of the candidate file names; or replay with --concurrency 1",
            summary.uncorrelated_calls
        ));
    }
    let incomplete = summary.incomplete.iter().map(|session| (&session.session, session.reasons.join(", ")));
    let unusable = summary.unusable.iter().map(|session| (&session.session, session.reason.clone()));
    let excluded: Vec<_> = incomplete.chain(unusable).collect();
    for (session, reason) in excluded.iter().take(MAX_NAMED) {
        lines.push(format!("  excluded {}: {}", escape_control(session.as_str()), escape_control(reason)));
    }
    if excluded.len() > MAX_NAMED {
        lines
            .push(format!("  and {} more excluded sessions (--json lists them)", excluded.len() - MAX_NAMED));
    }
    lines.push(format!("  run: {}", summary.run));
    lines
}

/// The most frequent misses, by tool or path.
fn miss_lines(misses: &[MissCount]) -> Vec<String> {
    let mut sorted: Vec<&MissCount> = misses.iter().collect();
    sorted.sort_by_key(|miss| std::cmp::Reverse(miss.calls));
    let line = |miss: &&MissCount| {
        let MissCount { tool, path, argument, calls, trials } = miss;
        let named = match (tool, path) {
            (Some(tool), _) => format!("tool {tool}"),
            (None, Some(path)) => path.clone(),
            (None, None) => "unknown path".to_owned(),
        };
        let argument = argument.as_ref().map(|argument| format!(", argument {argument}")).unwrap_or_default();
        let text = escape_control(&format!("{named}{argument}")).to_string();
        format!("  missed: {text}: {calls} calls in {trials} trials")
    };
    let mut lines: Vec<String> = sorted.iter().take(MAX_NAMED).map(line).collect();
    if sorted.len() > MAX_NAMED {
        lines.push(format!(
            "  and {} more kinds of missed calls (--json lists them)",
            sorted.len() - MAX_NAMED
        ));
    }
    lines
}

/// What the model provider and the infrastructure failed.
fn provider_lines(summary: &Summary) -> Vec<String> {
    let mut lines = Vec::new();
    if summary.provider_retries + summary.provider_failures > 0 {
        lines.push(format!(
            "  model provider: {} attempts repeated, {} model calls failed after all attempts",
            summary.provider_retries, summary.provider_failures
        ));
    }
    if summary.endings.infrastructure > 0 {
        lines.push("  infrastructure failures count as missing; --resume runs these trials again".to_owned());
    }
    if summary.rerun > 0 {
        let rerun = summary.rerun;
        lines.push(format!("  {rerun} trials that the infrastructure had failed were run again"));
    }
    lines
}
