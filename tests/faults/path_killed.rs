//! Recorder, publisher, archivers and broker, killed or paused at seeded points under live traffic.
//!
//! Each round starts a recorder and two archivers, lets clients talk, kills or pauses one process at a drawn moment, starts it
//! again, lets the clients go on, stops everything in order, and compares. What was journaled is known from links to the
//! journal's own segments, which outlive their deletion; what is stored is read twice, with the commits and without them.
//! Faults come from outside alone: signals, timed by answers, by files that appear, or by the clock. A seed draws the same
//! faults again; where they hit is up to the machine.

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

/// Rounds that go into one topic and one store before they begin with empty ones: a comparison reads the whole store.
const ROUNDS_PER_STORE: u64 = 8;

/// Rounds of the test command; `tests/faults/long` runs more.
const SHORT_ROUNDS: u64 = 12;

/// The seed of the test command.
const SHORT_SEED: u64 = 20_260_101;

/// What all rounds together did.
#[derive(Debug, Default)]
struct Tally {
    rounds: u64,
    faults: BTreeMap<&'static str, u64>,
    compared: Compared,
    poison: u64,
}

fn say(text: &str) {
    // Past the capture of test output: a long run must show that it goes on.
    let _ = writeln!(std::io::stderr(), "{text}");
}

async fn run(rounds: u64, seed: u64, brokers: usize) -> Tally {
    let cluster = Cluster::start(brokers);
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut tally = Tally::default();
    while tally.rounds < rounds {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let last = rounds.min(tally.rounds + ROUNDS_PER_STORE);
        if let Err(error) = one_store(&cluster, folder.path(), &mut random, last, &mut tally).await {
            let (kept, round) = (folder.keep(), tally.rounds + 1);
            panic!(
                "round {round} of seed {seed}, {brokers} brokers: {error}\nthe folder is kept: {}",
                kept.display()
            );
        }
    }
    let faults: Vec<String> = tally.faults.iter().map(|(name, count)| format!("{count} {name}")).collect();
    say(&format!(
        "seed {seed}: {} rounds ({}), {} exchanges and {} close rows compared, {} with their bodies; {} poison messages; {} answered \
         calls were shed, or not journaled yet when their recorder was killed",
        tally.rounds,
        faults.join(", "),
        tally.compared.exchanges,
        tally.compared.closes,
        tally.compared.bodies,
        tally.poison,
        tally.compared.absent
    ));
    tally
}

/// Rounds until `last` in one folder, with one topic.
async fn one_store(
    cluster: &Cluster,
    folder: &Path,
    random: &mut ChaCha8Rng,
    last: u64,
    tally: &mut Tally,
) -> Result<(), String> {
    let topic = format!("faults-{}", tally.rounds);
    let pipeline = Pipeline::new(cluster, folder, &topic, 4, "").await;
    let mut calls = Vec::new();
    let mut poison = 0;
    let mut before = Compared::default();
    while tally.rounds < last {
        let number = tally.rounds + 1;
        let plan = Plan::draw(random, cluster.is_real(), cluster.servers().split(',').count());
        calls.append(&mut round::run(cluster, &pipeline, &plan, number, random.next_u64()).await?);
        poison += u64::from(plan.poison);
        let settled = pipeline.settle().await;
        let compared =
            pipeline.compare(&calls).await.map_err(|error| format!("after {}: {error}", plan.describe()))?;
        let letters = cluster.messages(&format!("{topic}.dead"));
        if (letters.len() as u64) < poison {
            return Err(format!("{poison} poison messages, but {} dead letters", letters.len()));
        }
        say(&format!(
            "round {number}: {}; {} exchanges compared, {} of them new{}",
            plan.describe(),
            compared.exchanges,
            compared.exchanges - before.exchanges,
            if settled > 0 { "; the journal needed another start to be sent" } else { "" }
        ));
        before = compared;
        tally.rounds = number;
        *tally.faults.entry(plan.kind()).or_default() += 1;
    }
    tally.poison += poison;
    tally.compared.exchanges += before.exchanges;
    tally.compared.closes += before.closes;
    tally.compared.bodies += before.bodies;
    tally.compared.absent += before.absent;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_journaled_is_stored_once_after_every_fault() {
    let tally = run(SHORT_ROUNDS, SHORT_SEED, 1).await;
    let compared = tally.compared;
    assert!(compared.exchanges > 1000 && compared.bodies > 1000, "too little was compared: {compared:?}");
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
    let tally = run(rounds, seed, brokers).await;
    assert_eq!(tally.rounds, rounds);
    assert!(tally.compared.exchanges as u64 > 50 * rounds, "too little was compared: {:?}", tally.compared);
}
