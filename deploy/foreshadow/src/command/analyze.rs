//! `foreshadow analyze`: compares two runs and decides.

use std::path::PathBuf;

use analyzer::policy::TokenKey;
use anyhow::Context as _;
use decision::{Collector, DecisionRequest, LookPlan};

use crate::clock;
use crate::context::Context;
use crate::exit::{Failure, Status};
use crate::verdict_text;

const AFTER_HELP: &str = "\
Exit codes: 0 approve, 3 block, 4 inconclusive, 1 the work failed, 2 wrong usage or configuration.

Example:
  foreshadow analyze --baseline foreshadow-demo/runs/baseline \\
    --candidate foreshadow-demo/runs/regressed --out verdict";

/// Arguments of `foreshadow analyze`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Run of the current build.
    #[arg(long, value_name = "RUN")]
    baseline: String,
    /// Run of the new build.
    #[arg(long, value_name = "RUN")]
    candidate: String,
    /// Run with the recordings, if neither run contains them.
    #[arg(long, value_name = "RUN")]
    recorded: Option<String>,
    /// Run of a reference build: the verdict shows the sum of changes since it, and blocks on it if the policy says so
    /// [default: that of the policy].
    #[arg(long, value_name = "RUN")]
    reference: Option<String>,
    /// Policy: invariants that block, metrics that approval needs, margins [default: the documented policy].
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Take N planned looks at growing parts of the cases, in a seeded order, and stop at the first look that decides
    /// [default: one look at all cases].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    looks: Option<u32>,
    /// Look after every case, in a seeded order, by betting: valid at any stopping time, with less power than planned looks.
    #[arg(long, conflicts_with = "looks")]
    anytime: bool,
    /// Output of `foreshadow calibrate`; the report shows its error rates next to the verdict.
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
    /// Capability envelope; every trial is checked against it.
    #[arg(long, value_name = "FILE")]
    envelope: Option<PathBuf>,
    /// Seed of the permutations; the same seed gives the same verdict, byte for byte.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Output folder: verdict.json, report.html, summary.md, junit.xml, otlp.json.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Send otlp.json, the verdict as OpenTelemetry events, to this collector (OTLP over HTTP with JSON).
    #[arg(long, value_name = "URL")]
    otlp: Option<String>,
    /// Headers of --otlp: comma-separated name=value pairs.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_HEADERS", hide_env_values = true, value_name = "HEADERS")]
    otlp_headers: Option<String>,
}

/// Runs `foreshadow analyze`.
pub(crate) async fn run(args: Args, context: &Context<'_>) -> Result<Status, Failure> {
    // An unusable policy is refused before any run is read.
    let mut policy = decision::read_policy(args.policy.as_deref())?;
    if let Some(path) = &args.envelope {
        policy.invariant.declared_envelope = Some(decision::read_envelope(path)?);
    }
    if policy.invariant.forbidden.is_some() {
        policy.invariant.token_key = Some(TokenKey::new(&context.root_key()?));
    }
    let collector = match &args.otlp {
        Some(address) => {
            Some(Collector::parse(address, args.otlp_headers.as_deref()).map_err(Failure::usage)?)
        }
        None => None,
    };
    let request = DecisionRequest {
        baseline: args.baseline,
        candidate: args.candidate,
        recorded: args.recorded,
        reference: args.reference,
        policy,
        looks: match (args.looks, args.anytime) {
            (_, true) => LookPlan::Anytime,
            (Some(looks), false) => LookPlan::Planned(looks),
            (None, false) => LookPlan::Once,
        },
        calibration: decision::read_calibration(args.calibration.as_deref())?,
        seed: args.seed,
        out: args.out,
        keys: context.key_ring()?,
        clock: clock::now_micros,
    };
    let analysis = decision::decide(&request).await?;
    verdict_text::show(&analysis, &request.out, context.console);
    if let Some(collector) = collector {
        let events = request.out.join("otlp.json");
        let sent =
            match std::fs::read(&events).with_context(|| format!("{} cannot be read", events.display())) {
                Ok(events) => collector.send(events).await,
                Err(error) => Err(error),
            };
        if let Err(error) = sent {
            let note = format!("the verdict is written, but sending its events to --otlp failed: {error:#}");
            context.console.note(note);
        }
    }
    verdict_text::conclude(&analysis.verdict, context.console);
    context.console.result(&analysis.verdict);
    Ok(Status::of_verdict(&analysis.verdict))
}
