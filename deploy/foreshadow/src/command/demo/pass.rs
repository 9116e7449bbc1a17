//! Runs the passes of the demo and prints their events.

use std::path::Path;
use std::time::Instant;

use ::demo::{DecidedChange, DemoEvent, OutputFolder, RecordingCounts, Scenario, ScenarioResult, Size};
use indicatif::ProgressBar;
use replayer::Summary;
use serde::Serialize;

use crate::clock;
use crate::console::Console;
use crate::context::Context;
use crate::exit::{Failure, Status};
use crate::keys;

/// The result with `--json`.
#[derive(Debug, Serialize)]
struct DemoResult<'a> {
    /// Every harmless change was approved and every regressed change blocked.
    held: bool,
    seconds: f64,
    loops: &'a [ScenarioResult],
}

/// Runs one pass per seed.
pub(super) async fn run(out: &Path, seed: u64, seeds: u64, context: &Context<'_>) -> Result<Status, Failure> {
    let started = Instant::now();
    let console = context.console;
    let folder = OutputFolder::claim(out)?;
    // The demo writes only into its folder, so it does not use the key of a real deployment.
    let key_file = context.key_file.clone().unwrap_or_else(|| folder.path("root.key"));
    let key = keys::load_or_create(&key_file).map_err(Failure::usage)?;
    let mut results = Vec::new();
    for seed in (0..seeds).map(|more| seed.wrapping_add(more)) {
        let folder = if seeds == 1 {
            folder.clone()
        } else {
            OutputFolder::claim(&folder.path(&format!("seeds/{seed}")))?
        };
        console.line(console.paint(&format!("Foreshadow demo, seed {seed}"), "1"));
        console.line(
            "A small shop's support agent gives refunds. Two changes to it are waiting: may they roll out?",
        );
        let mut bar = None;
        let scenario =
            Scenario { folder: &folder, key: &key, seed, size: Size::FULL, clock: clock::now_micros };
        let result = scenario.run(&mut |event| show_event(&event, &mut bar, console)).await?;
        show_verdicts(&result, console);
        results.push(result);
    }
    let held = results.iter().all(|result| result.problems().is_empty());
    conclude(&folder, &results, started, console);
    console.result(&DemoResult { held, seconds: started.elapsed().as_secs_f64(), loops: &results });
    if held {
        return Ok(Status::Success);
    }
    let problems =
        results.iter().flat_map(|result| result.problems().into_iter().map(|text| (result.seed, text)));
    let problems: Vec<String> = problems.map(|(seed, text)| format!("with seed {seed}, {text}")).collect();
    Err(Failure::work(anyhow::anyhow!(
        "the demo did not show the expected result: {}; please report it with the seed and `foreshadow --version`",
        problems.join("; ")
    )))
}

fn show_event(event: &DemoEvent<'_>, bar: &mut Option<ProgressBar>, console: &Console) {
    match event {
        DemoEvent::RecordingStarted { sessions } => {
            console.line(
                "\n1. Record: customers talk to the current build, and the tap records all three edges.",
            );
            *bar = Some(console.progress("recording sessions", u64::from(*sessions)));
        }
        DemoEvent::SessionRecorded => {
            if let Some(bar) = bar {
                bar.inc(1);
            }
        }
        DemoEvent::Recorded { counts, seconds } => {
            clear(bar);
            console.line(format!("   {} ({seconds:.1} s)", recording_text(counts)));
        }
        DemoEvent::ReplaysStarted { trials } => {
            let text = format!(
                "\n2. Replay: each session {trials} times against each build. Tools answer from the recording, one payment \
                 response in ten is lost on the way, and no write is executed."
            );
            console.hanging(text, 3);
        }
        DemoEvent::BuildStarted { name, trials } => {
            *bar = Some(console.progress(&format!("replaying {name}"), u64::from(*trials)));
        }
        DemoEvent::TrialsFinished(done) => {
            if let Some(bar) = bar {
                bar.set_position(*done as u64);
            }
        }
        DemoEvent::BuildReplayed { name, summary, model_calls, seconds } => {
            clear(bar);
            console.line(format!("   {name:<10} {} ({seconds:.1} s)", replay_text(summary, *model_calls)));
        }
        DemoEvent::ReplaysFinished { escaped_writes } => {
            console.line(format!("   Writes that reached the shop during the replays: {escaped_writes}."));
        }
        DemoEvent::Embedded { answers, seconds } => {
            console.line(format!(
                "   {answers} answers embedded by the built-in sentence model ({seconds:.1} s)"
            ));
        }
        DemoEvent::DecisionsStarted => {
            console.line("\n3. Decide: each change against the current build, session by session.");
        }
    }
}

fn clear(bar: &mut Option<ProgressBar>) {
    if let Some(bar) = bar.take() {
        bar.finish_and_clear();
    }
}

fn recording_text(counts: &RecordingCounts) -> String {
    let RecordingCounts { sessions, turns, model_calls, tool_calls, exchanges, shed, whole, torn, writes } =
        counts;
    format!(
        "{sessions} sessions: {turns} turns, {model_calls} model calls, {tool_calls} exchanges with tools \
         ({exchanges} in all, {shed} lost); {whole} complete, {torn} incomplete; the shop executed {writes} writes"
    )
}

fn replay_text(summary: &Summary, model_calls: u64) -> String {
    let fidelity = &summary.fidelity;
    format!(
        "{} trials, {model_calls} live model calls; tool answers: {} exact, {} normalised, {} faulted, {} missed; \
         {} duplicated writes",
        summary.ran,
        fidelity.exact,
        fidelity.normalised,
        fidelity.faulted,
        fidelity.missed,
        summary.duplicated_writes,
    )
}

/// Prints the reasons of both verdicts, then the verdicts.
fn show_verdicts(result: &ScenarioResult, console: &Console) {
    for change in &result.decided {
        let DecidedChange { name, what, analysis, folder, .. } = change;
        console.line(String::new());
        console.line(format!("{} {what}", console.paint(&format!("The {name} change:"), "1")));
        for line in analyzer::comparison_lines(&analysis.verdict) {
            console.line(format!("  {}", analyzer::escape_control(&line)));
        }
        for reason in &analysis.verdict.reasons {
            console.line(format!("  - {}", analyzer::escape_control(&reason.detail)));
        }
        console.line(format!("  files: {folder}/ with report.html, summary.md, verdict.json, junit.xml"));
        let color = if change.is_correct() { "1;32" } else { "1;31" };
        let sentence = analyzer::escape_control(&analyzer::verdict_sentence(&analysis.verdict));
        console.line(format!("  {}", console.paint(&sentence, color)));
    }
}

/// Prints the result of all passes and the next commands.
fn conclude(folder: &OutputFolder, results: &[ScenarioResult], started: Instant, console: &Console) {
    let seconds = started.elapsed().as_secs_f64();
    let held = results.iter().filter(|result| result.problems().is_empty()).count();
    console.line(String::new());
    if results.len() > 1 {
        console.line(format!("Correct verdicts for {held} of {} seeds, in {seconds:.1} s.", results.len()));
        return;
    }
    console.line("Next: open the reports, then look at the recorded sessions:");
    let store = folder.location("store");
    console.verbatim(format!("  foreshadow sessions list --store {store} --limit 10"));
    console.verbatim(format!("  foreshadow sessions show chat-0000 --store {store}"));
    console.line(format!("The files in {} are examples for your own gateway.", folder.location("")));
    if held == 1 {
        let text =
            "The harmless change may roll out and the regressed one may not: both verdicts are correct.";
        console.line(format!("\n{} ({seconds:.1} s)", console.paint(text, "1")));
    }
}
