//! Recorder, publisher, archivers and broker, killed or paused at seeded points under live traffic.
//!
//! Each round starts a recorder and two archivers, sends traffic, kills or pauses one process when the drawn trigger fires,
//! restarts it, sends more traffic, stops everything in order, and compares. Hard links to the journal's segments outlive
//! their deletion, so the test knows every journaled record. It reads the store twice: through the commits, and without them.
//! Signals are the only faults, and answers, files, the topic or the clock trigger them. A seed draws the same faults again.
//! The exact instruction that a fault interrupts depends on the machine.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};
use tests::kafka::Cluster;
use tests::pipeline::{Compared, Pipeline};

mod plan;
mod round;

use plan::Plan;

/// Rounds that share a topic and a store. A comparison reads the whole store, so its cost grows with the rounds before it.
const ROUNDS_PER_STORE: u64 = 8;

/// Rounds of the test command; `tests/faults/long` runs more.
const SHORT_ROUNDS: u64 = 12;

/// The seed of the test command.
const SHORT_SEED: u64 = 20_260_101;

/// Triggers of the first rounds, so that each run has every one of them.
const FIRST_TRIGGERS: [&str; 4] = ["checkpoints", "past-checkpoint", "files", "commits"];

/// Totals over all rounds.
#[derive(Debug, Default)]
struct Totals {
    rounds: u64,
    faults: BTreeMap<&'static str, u64>,
    triggers: BTreeMap<&'static str, u64>,
    compared: Compared,
    undecodable: u64,
}

fn print(text: &str) {
    // Not through the captured output of the test: a long run must show progress.
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn list(counts: &BTreeMap<&'static str, u64>) -> String {
    counts.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
}

async fn run(rounds: u64, seed: u64, brokers: usize) -> Totals {
    let cluster = Cluster::start(brokers);
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut totals = Totals::default();
    while totals.rounds < rounds {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let last = rounds.min(totals.rounds + ROUNDS_PER_STORE);
        if let Err(error) = run_one_store(&cluster, folder.path(), &mut random, last, &mut totals).await {
            let (kept, round) = (folder.keep(), totals.rounds + 1);
            panic!(
                "round {round} of seed {seed}, {brokers} brokers: {error}\nthe folder is kept: {}",
                kept.display()
            );
        }
    }
    print(&format!(
        "seed {seed}: {} rounds ({}; triggers fired: {}), {} exchanges and {} close rows compared, {} with their bodies; \
         {} undecodable messages; {} answered calls were shed, or not journaled when their recorder was killed",
        totals.rounds,
        list(&totals.faults),
        list(&totals.triggers),
        totals.compared.exchanges,
        totals.compared.closes,
        totals.compared.bodies,
        totals.undecodable,
        totals.compared.absent
    ));
    totals
}

/// Runs rounds until `last` with one folder and one topic.
async fn run_one_store(
    cluster: &Cluster,
    folder: &Path,
    random: &mut ChaCha8Rng,
    last: u64,
    totals: &mut Totals,
) -> Result<(), String> {
    let topic = format!("faults-{}", totals.rounds);
    let pipeline = Pipeline::new(cluster, folder, &topic, 4, "").await;
    let mut calls = Vec::new();
    let mut undecodable = 0;
    let mut before = Compared::default();
    while totals.rounds < last {
        let number = totals.rounds + 1;
        let wanted = usize::try_from(totals.rounds).ok().and_then(|round| FIRST_TRIGGERS.get(round));
        let plan = loop {
            let plan = Plan::draw(random, cluster.is_real(), cluster.servers().split(',').count());
            if wanted.is_none_or(|wanted| plan.trigger.name() == *wanted) {
                break plan;
            }
        };
        let round = round::run(cluster, &pipeline, &plan, number, random.next_u64()).await;
        calls.append(&mut round.map_err(|error| format!("{}: {error}", plan.describe()))?);
        undecodable += u64::from(plan.sends_undecodable);
        let settled = pipeline.settle().await;
        let compared =
            pipeline.compare(&calls).await.map_err(|error| format!("after {}: {error}", plan.describe()))?;
        let dead_letters = cluster.messages(&format!("{topic}.dead"));
        if (dead_letters.len() as u64) < undecodable {
            return Err(format!(
                "{undecodable} undecodable messages, but {} dead letters",
                dead_letters.len()
            ));
        }
        print(&format!(
            "round {number}: {}; {} exchanges compared, {} of them new{}",
            plan.describe(),
            compared.exchanges,
            compared.exchanges - before.exchanges,
            if settled > 0 { "; the recorder needed another start to publish the journal" } else { "" }
        ));
        before = compared;
        totals.rounds = number;
        *totals.faults.entry(plan.name()).or_default() += 1;
        *totals.triggers.entry(plan.trigger.name()).or_default() += 1;
    }
    totals.undecodable += undecodable;
    totals.compared.exchanges += before.exchanges;
    totals.compared.closes += before.closes;
    totals.compared.bodies += before.bodies;
    totals.compared.absent += before.absent;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_journaled_record_is_stored_once_after_every_fault() {
    let totals = run(SHORT_ROUNDS, SHORT_SEED, 1).await;
    let compared = totals.compared;
    assert!(compared.exchanges > 1000 && compared.bodies > 1000, "too little was compared: {compared:?}");
    for trigger in FIRST_TRIGGERS {
        assert!(totals.triggers.contains_key(trigger), "{trigger} did not fire");
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    let Ok(text) = std::env::var(name) else { return otherwise };
    text.parse().unwrap_or_else(|_| panic!("{name} must be a number, found {text:?}"))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes an hour; tests/faults/long runs it"]
async fn long() {
    let rounds = number("FORESHADOW_FAULT_ROUNDS", 200);
    let seed = number("FORESHADOW_FAULT_SEED", SHORT_SEED);
    let brokers = usize::try_from(number("FORESHADOW_FAULT_BROKERS", 3)).expect("a few brokers");
    let totals = run(rounds, seed, brokers).await;
    assert_eq!(totals.rounds, rounds);
    assert!(totals.compared.exchanges as u64 > 50 * rounds, "too little was compared: {:?}", totals.compared);
}
