//! `foreshadow calibrate`: measures the error rates of the decision on a run of one build.

use std::path::PathBuf;

use analyzer::verdict::Calibration;
use analyzer::{CalibrateRequest, calibrate};
use anyhow::{Context as _, anyhow};

use crate::console::Console;
use crate::context::Context;
use crate::exit::{Failure, Status};
use crate::format::count_u64;

const AFTER_HELP: &str = "\
Example:
  foreshadow calibrate --run foreshadow-demo/runs/baseline --splits 20 --out calibration.json";

/// Arguments of `foreshadow calibrate`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Run of the current build with at least two trials of each session.
    #[arg(long, value_name = "RUN")]
    run: String,
    /// Another run of the same build, made at another time; measures what differs between runs. Can be given several
    /// times; four or more give useful bounds.
    #[arg(long, value_name = "RUN")]
    against: Vec<String>,
    /// Policy of the later decisions [default: the documented policy].
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Number of random splits of the trials into two arms; each split is decided.
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    splits: u64,
    /// Looks of each decision; `analyze` takes one look by default.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    looks: u32,
    /// Seed of the splits.
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Output file for `analyze --calibration` and for the key `calibration` of a gate.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Runs `foreshadow calibrate`.
pub(crate) async fn run(args: Args, context: &Context<'_>) -> Result<Status, Failure> {
    let policy = decision::read_policy(args.policy.as_deref())?;
    let mut run = decision::read_run(&args.run, &context.key_ring()?, &policy.invariant).await?;
    let mut others = Vec::new();
    for location in &args.against {
        others.push(decision::read_run(location, &context.key_ring()?, &policy.invariant).await?);
    }
    analyzer::compare_arguments(&policy, &mut run, &mut others.iter_mut().collect::<Vec<_>>());
    let Args { splits, looks, seed, out, .. } = args;
    let calibrated = tokio::task::spawn_blocking(move || {
        let against: Vec<&analyzer::Run> = others.iter().collect();
        calibrate(&CalibrateRequest { policy: &policy, run: &run, against: &against, seed, splits, looks })
    });
    let calibrated = calibrated
        .await
        .map_err(|error| Failure::work(anyhow!(error).context("the calibration panicked")))?;
    let calibration = calibrated.map_err(Failure::usage)?;
    if let Some(path) = &out {
        let mut text = serde_json::to_string_pretty(&calibration)
            .context("the calibration cannot be serialised as JSON")?;
        text.push('\n');
        std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    show(&calibration, context.console);
    if let Some(path) = &out {
        context.console.line(format!("\nwritten to {}", path.display()));
    }
    context.console.result(&calibration);
    Ok(Status::Success)
}

/// Shifts of each metric between runs of the build.
fn show_shifts(calibration: &Calibration, console: &Console) {
    if calibration.against.is_empty() {
        return;
    }
    console.line(format!(
        "\nbetween runs of this build ({}):",
        count_u64(calibration.against.len() as u64, "other run")
    ));
    for metric in &calibration.metrics {
        let Some(shifts) = &metric.between else { continue };
        let drifts = if shifts.drifts { "drifts" } else { "no drift" };
        console.line(format!(
            "  {:<20} deviation {:.4} (trials {:.4}), p {:.3}: {drifts}",
            metric.name, shifts.deviation, shifts.within, shifts.p
        ));
    }
}

fn show(calibration: &Calibration, console: &Console) {
    let Calibration { decisions, false_block_interval: [low, high], cost, .. } = calibration;
    console.line(console.paint(
        &format!(
            "false blocks: {} of {} splits into two arms of the same build, {:.1} % (95 % interval {:.1} to {:.1} %)",
            decisions.block,
            calibration.splits,
            100.0 * calibration.false_block,
            100.0 * low,
            100.0 * high
        ),
        "1",
    ));
    console.line(format!(
        "  approved {}, inconclusive {}; {} cases, {:.1} trials in each arm, {}",
        decisions.approve,
        decisions.inconclusive,
        calibration.cases,
        calibration.trials,
        count_u64(u64::from(calibration.looks), "look")
    ));
    console.line("");
    console.line(format!(
        "{:<34}  {:>12}  {:>13}  {:>12}",
        "metric", "false alarms", "detectable", "cases needed"
    ));
    for metric in &calibration.metrics {
        let role = if metric.decides { "" } else { " (reported)" };
        console.line(format!(
            "{:<34}  {:>10.1} %  {:>13}  {:>12}",
            format!("{}{role}", metric.name),
            100.0 * metric.false_alarm,
            metric.detectable_text,
            metric.cases_to_approve
        ));
    }
    if let Some(cases) = calibration.cases_to_approve {
        console.line(format!(
            "\nidentical builds need {} for an approval with probability 0.80, all\nrequired metrics together",
            count_u64(cases, "case")
        ));
    }
    show_shifts(calibration, console);
    console.line("");
    console.line(
        "cases needed: to approve an identical candidate at the policy's margins; analyze forecasts for the candidate that it saw",
    );
    let mut costs = vec![format!("cost of a decision of this size: {} trials", cost.trials)];
    costs.extend(cost.tokens.map(|tokens| format!("{tokens:.0} tokens")));
    costs.extend(cost.usd.map(|usd| format!("${usd:.2}")));
    costs.extend(cost.agent_hours.map(|hours| format!("{hours:.2} hours of agent time")));
    console.line(costs.join(", "));
    if calibration.looks > 1 {
        console.line(format!(
            "with {} looks, a decision uses {:.0} % of it on average",
            calibration.looks,
            100.0 * cost.share_used
        ));
    }
    for note in &calibration.notes {
        console.line(format!("note: {note}"));
    }
}
