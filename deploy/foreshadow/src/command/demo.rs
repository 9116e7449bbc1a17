//! `foreshadow demo`: the whole loop on embedded defaults, with nothing beyond loopback.
//!
//! A small shop's refund agent serves customers through the tap; then its current build, a harmless change and a
//! regressed change are replayed, and both changes are decided on. Everything goes the way a user's own traffic and
//! files go: the same configuration parsers, the same stages, the same report. Only the shop, its model and its
//! customers are made up, in the modules below.

mod agent;
mod builds;
mod dice;
mod files;
mod folder;
mod loop_once;
mod mind;
mod model;
mod production;
mod shop;
mod tools;
mod trials;
mod wire;

use std::path::PathBuf;
use std::time::Instant;

use serde::Serialize;

use self::folder::Folder;
use self::loop_once::{Decided, Loop, Size};
use crate::command::Context;
use crate::keys;
use crate::outcome::{Failure, Outcome};
use crate::screen::Screen;

/// Arguments of `foreshadow demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder for everything it makes; one that a former demo made is replaced.
    #[arg(long, default_value = "foreshadow-demo", value_name = "DIR")]
    out: PathBuf,
    /// Seed of everything random: customers, model, faults, decision.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Runs the whole loop with N seeds, one after the other, and says how many verdicts held.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
}

/// The result for a program.
#[derive(Debug, Serialize)]
struct Outcomes<'a> {
    /// Whether every harmless change was approved and every regressed one blocked.
    held: bool,
    seconds: f64,
    loops: &'a [Loop],
}

/// Runs `foreshadow demo`.
pub(crate) async fn run(args: Args, context: &Context<'_>) -> Result<Outcome, Failure> {
    let started = Instant::now();
    let screen = context.screen;
    let folder = Folder::claim(&args.out)?;
    // What it protects is made up, and the demo is to touch nothing outside its folder; a real key lies elsewhere.
    let key_file = context.key_file.clone().unwrap_or_else(|| folder.path("root.key"));
    let key = keys::load_or_create(&key_file).map_err(Failure::usage)?;
    let mut loops = Vec::new();
    for seed in (0..args.seeds).map(|more| args.seed.wrapping_add(more)) {
        let folder = if args.seeds == 1 {
            folder.clone()
        } else {
            Folder::claim(&folder.path(&format!("seeds/{seed}")))?
        };
        screen.line(screen.paint(&format!("Foreshadow demo, seed {seed}"), "1"));
        screen.line(
            "A small shop's support agent gives refunds. Two changes to it are waiting: may they roll out?",
        );
        let ended = loop_once::run(&folder, &key, seed, Size::FULL, screen).await?;
        show(&ended, screen);
        loops.push(ended);
    }
    let held = loops.iter().all(|ended| ended.wrong().is_empty());
    conclude(&folder, &loops, started, screen);
    screen.result(&Outcomes { held, seconds: started.elapsed().as_secs_f64(), loops: &loops });
    if held {
        return Ok(Outcome::Success);
    }
    let wrong = loops.iter().flat_map(|ended| ended.wrong().into_iter().map(|what| (ended.seed, what)));
    let wrong: Vec<String> = wrong.map(|(seed, what)| format!("with seed {seed}, {what}")).collect();
    Err(Failure::work(anyhow::anyhow!(
        "the demo did not show what it should: {}; please report it with the seed and `foreshadow --version`",
        wrong.join("; ")
    )))
}

/// Shows both verdicts with their reasons.
fn show(ended: &Loop, screen: &Screen) {
    for Decided { name, what, analysis, folder, .. } in &ended.decided {
        screen.line(String::new());
        screen.line(format!("{} {what}", screen.paint(&format!("The {name} change:"), "1")));
        let color = if ended.as_expected(name) { "1;32" } else { "1;31" };
        let sentence = analyzer::sentence(&analysis.verdict);
        screen.line(format!("  {}", screen.paint(&sentence, color)));
        for reason in &analysis.verdict.reasons {
            let detail = analyzer::escaped(&reason.detail);
            // The first reason is in the sentence already.
            if !sentence.contains(&detail) {
                screen.line(format!("    - {detail}"));
            }
        }
        screen.line(format!("  report:  {folder}/report.html"));
        screen.line(format!("  also:    {folder}/summary.md, {folder}/verdict.json, {folder}/junit.xml"));
    }
}

/// Says in the end what was shown and where to go on.
fn conclude(folder: &Folder, loops: &[Loop], started: Instant, screen: &Screen) {
    let seconds = started.elapsed().as_secs_f64();
    let held = loops.iter().filter(|ended| ended.wrong().is_empty()).count();
    screen.line(String::new());
    if loops.len() > 1 {
        screen.line(format!("Verdicts held for {held} of {} seeds, in {seconds:.1} s.", loops.len()));
        return;
    }
    if held == 1 {
        let said = "The harmless change may roll out and the regressed one may not, as it should be.";
        screen.line(format!("{} ({seconds:.1} s)", screen.paint(said, "1")));
    }
    screen.line("Next: open the reports, then look at what they rest on:");
    let store = folder.location("store");
    screen.line(format!("  foreshadow sessions list --store {store} --limit 10"));
    screen.line(format!("  foreshadow sessions show chat-0000 --store {store}"));
    screen.line(format!("The files of {} are examples for your own gateway;", folder.location("")));
    screen.line("the walk-through in README.md goes on from there.");
}
