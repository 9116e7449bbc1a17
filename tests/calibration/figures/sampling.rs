//! What the tests assume of the sessions: clusters, copies, weights, runs in time, trials that share state.

use analyzer::verdict::RunTiming;
use analyzer::{AnalysisRequest, Decision, Policy, Run, Verdict};
use schemas::trial::{Lane, Trial};

use super::{SUCCESS, Scale, policy};
use crate::rate::{Rate, repeat};
use crate::report::{Row, Standing, demand};
use crate::rng::SimulationRng;
use crate::table::{self, Outcome, Table};

const ALPHA: f64 = 0.05;

/// Trials per session and lane.
const TRIALS: usize = 4;

/// A session of a simulated corpus.
#[derive(Debug, Clone, Copy)]
struct Session {
    /// Number of its user.
    user: usize,
    /// Probability of success before and after the change.
    before: f64,
    after: f64,
}

/// Sizes of the users' clusters.
#[derive(Debug, Clone, Copy)]
enum Sizes {
    /// All have this many sessions.
    Equal(usize),
    /// One to nine sessions, drawn.
    Drawn,
}

/// Sessions of `users` users whose effect is common to their sessions: `mean` plus a number between -spread and spread.
fn of_users(rng: &mut SimulationRng, users: usize, sizes: Sizes, mean: f64, spread: f64) -> Vec<Session> {
    let mut sessions = Vec::new();
    for user in 0..users {
        let effect = mean + spread * (2.0 * rng.uniform() - 1.0);
        let count = match sizes {
            Sizes::Equal(count) => count,
            Sizes::Drawn => 1 + rng.below(9),
        };
        for _ in 0..count {
            let before = 0.35 + 0.3 * rng.uniform();
            sessions.push(Session { user, before, after: before + effect });
        }
    }
    sessions
}

/// Sessions without a failure before the change, of users of whom a share fails entirely after it.
fn broken_users(rng: &mut SimulationRng, users: usize, sizes: Sizes, share: f64) -> Vec<Session> {
    let mut sessions = Vec::new();
    for user in 0..users {
        let after = if rng.happens(share) { 0.0 } else { 1.0 };
        let count = match sizes {
            Sizes::Equal(count) => count,
            Sizes::Drawn => 1 + rng.below(9),
        };
        sessions.extend((0..count).map(|_| Session { user, before: 1.0, after }));
    }
    sessions
}

/// Trials of the sessions in both lanes.
fn play(rng: &mut SimulationRng, sessions: &[Session]) -> (Table, Table) {
    let mut lane = |chance: fn(&Session) -> f64| -> Table {
        let trials =
            |session: &Session| (0..TRIALS).map(|_| Outcome::of(rng.happens(chance(session)))).collect();
        sessions.iter().map(trials).collect()
    };
    (lane(|session| session.before), lane(|session| session.after))
}

/// Runs of these trials; `describe` is given the number of the case of each trial.
fn runs(trials: &(Table, Table), mut describe: impl FnMut(usize, &mut Trial)) -> (Run, Run) {
    let mut lane = |lane: Lane, table: &Table| {
        let mut run = table::run(lane, table);
        let numbers = table.iter().enumerate().flat_map(|(case, trials)| trials.iter().map(move |_| case));
        for (record, case) in run.trials.iter_mut().zip(numbers) {
            describe(case, &mut record.trial);
        }
        run
    };
    (lane(Lane::Baseline, &trials.0), lane(Lane::Candidate, &trials.1))
}

fn decide(policy: &Policy, runs: &(Run, Run), rng: &mut SimulationRng) -> Verdict {
    let seed = u64::try_from(rng.below(1 << 31)).expect("31 bits");
    let request = AnalysisRequest { forecast: false, ..AnalysisRequest::new(policy, &runs.0, &runs.1, seed) };
    analyzer::analyze(&request).expect("both runs hold trials").verdict
}

fn row(id: &'static str, figure: String, rate: Rate) -> Row {
    Row {
        id,
        figure,
        required: format!("<= {:.4} at this N", Rate::limit(rate.of, ALPHA)),
        measured: rate.to_string(),
        standing: Standing::of(rate.is_at_most(ALPHA)),
    }
}

fn beside(id: &'static str, figure: String, rate: Rate) -> Row {
    Row { id, figure, required: String::new(), measured: rate.to_string(), standing: Standing::Beside }
}

/// Names the user of each session as its cluster.
fn clustered(sessions: &[Session], trials: &(Table, Table)) -> (Run, Run) {
    runs(trials, |case, trial| trial.cluster = Some(format!("user-{}", sessions[case].user)))
}

// === clusters ===

/// C1: users whose effects have mean zero, or are the margin on average.
pub(crate) fn c1(scale: Scale) -> Vec<Row> {
    let policy = policy(SUCCESS);
    let mut rows = Vec::new();
    for (users, sizes, name) in [
        (40, Sizes::Equal(5), "40 users of 5 sessions"),
        (100, Sizes::Equal(2), "100 users of 2 sessions"),
        (80, Sizes::Drawn, "80 users of 1 to 9 sessions"),
    ] {
        // The short version takes the figure of the requirement.
        if scale == Scale::Short && users != 40 {
            continue;
        }
        let [blocked, plain] = repeat(&format!("C1 block {name}"), scale.times(2000, 16), |rng| {
            let sessions = of_users(rng, users, sizes, 0.0, 0.3);
            let trials = play(rng, &sessions);
            let known = decide(&policy, &clustered(&sessions, &trials), rng);
            let unknown = decide(&policy, &runs(&trials, |_, _| {}), rng);
            [known, unknown].map(|verdict| verdict.verdict == Decision::Block)
        });
        rows.push(row("C1", format!("block, {name}, user effects of mean zero, cluster known"), blocked));
        rows.push(beside("C1", format!("the same, {name}, cluster unknown"), plain));
        let [approved, plain] = repeat(&format!("C1 approve {name}"), scale.times(2000, 16), |rng| {
            let sessions = of_users(rng, users, sizes, -0.05, 0.3);
            let trials = play(rng, &sessions);
            let known = decide(&policy, &clustered(&sessions, &trials), rng);
            let unknown = decide(&policy, &runs(&trials, |_, _| {}), rng);
            [known, unknown].map(|verdict| verdict.verdict == Decision::Approve)
        });
        rows.push(row("C1", format!("approve at the margin, {name}, cluster known"), approved));
        rows.push(beside("C1", format!("the same, {name}, cluster unknown"), plain));
        let [approved, plain] = repeat(&format!("C1 broken {name}"), scale.times(2000, 16), |rng| {
            let sessions = broken_users(rng, users, sizes, 0.05);
            let trials = play(rng, &sessions);
            let known = decide(&policy, &clustered(&sessions, &trials), rng);
            let unknown = decide(&policy, &runs(&trials, |_, _| {}), rng);
            [known, unknown].map(|verdict| verdict.verdict == Decision::Approve)
        });
        rows.push(row("C1", format!("approve, {name}, of whom 5 % fail entirely, cluster known"), approved));
        rows.push(beside("C1", format!("the same, {name}, cluster unknown"), plain));
    }
    rows
}

/// C2: identical builds and the margin, each session in the tables three times under other names.
pub(crate) fn c2(scale: Scale) -> Vec<Row> {
    let policy = policy(SUCCESS);
    let copied = |table: Table| -> Table { table.into_iter().flat_map(|trials| vec![trials; 3]).collect() };
    let timed = |rng: &mut SimulationRng, mut table: Table| -> Table {
        for outcome in table.iter_mut().flatten() {
            outcome.duration_us = Some(1_000_000 + rng.below(8_000_000) as u64);
        }
        table
    };
    let step = |rng: &mut SimulationRng, sessions: &[Session], wanted: Decision| {
        let (before, after) = play(rng, sessions);
        let bare = (copied(before.clone()), copied(after.clone()));
        let trials = (copied(timed(rng, before)), copied(timed(rng, after)));
        let known = decide(&policy, &runs(&trials, |_, _| {}), rng);
        let named =
            decide(&policy, &runs(&bare, |case, trial| trial.cluster = Some(format!("{}", case / 3))), rng);
        let unknown = decide(&policy, &runs(&bare, |_, _| {}), rng);
        [known, named, unknown].map(|verdict| verdict.verdict == wanted)
    };
    let [blocked, named, plain] = repeat("C2 block", scale.times(2000, 16), |rng| {
        let sessions = of_users(rng, 67, Sizes::Equal(1), 0.0, 0.0);
        step(rng, &sessions, Decision::Block)
    });
    let [approved, named_approved, plain_approved] = repeat("C2 approve", scale.times(2000, 16), |rng| {
        let sessions = broken_users(rng, 80, Sizes::Equal(1), 0.05);
        step(rng, &sessions, Decision::Approve)
    });
    let what = "each session three times";
    vec![
        row("C2", format!("block of identical builds, {what}, durations known"), blocked),
        row("C2", format!("block of identical builds, {what}, cluster known"), named),
        beside("C2", format!("block of identical builds, {what}, nothing known"), plain),
        row("C2", format!("approve at the margin, {what}, durations known"), approved),
        row("C2", format!("approve at the margin, {what}, cluster known"), named_approved),
        beside("C2", format!("approve at the margin, {what}, nothing known"), plain_approved),
    ]
}

// === weights ===

/// Shares of the traffic of the first and second tier; the corpus has as many sessions of both.
const TRAFFIC: [f64; 2] = [0.9, 0.1];

fn tier(case: usize) -> &'static str {
    if case.is_multiple_of(2) { "free" } else { "gold" }
}

/// Sessions of two tiers in equal parts, changed by their tier's effect.
fn tiers(rng: &mut SimulationRng, count: usize, effects: [f64; 2]) -> Vec<Session> {
    let of = |case: usize, rng: &mut SimulationRng| {
        let before = 0.35 + 0.3 * rng.uniform();
        Session { user: case, before, after: before + effects[case % 2] }
    };
    (0..count).map(|case| of(case, rng)).collect()
}

/// C3: a corpus that is half gold, traffic that is a tenth gold.
pub(crate) fn c3(scale: Scale) -> Vec<Row> {
    let plain = policy(SUCCESS);
    let traffic =
        policy(&format!("{SUCCESS}[traffic]\nslice = \"tier\"\nshares = {{ free = 0.9, gold = 0.1 }}\n"));
    let decided = |rng: &mut SimulationRng, sessions: &[Session], wanted: Decision| {
        let trials = play(rng, sessions);
        let sliced = runs(&trials, |case, trial| {
            trial.slices.insert("tier".to_owned(), tier(case).to_owned());
        });
        let weighted = runs(&trials, |case, trial| trial.weight = Some(TRAFFIC[case % 2]));
        [decide(&traffic, &sliced, rng), decide(&plain, &weighted, rng), decide(&plain, &sliced, rng)]
            .map(|verdict| verdict.verdict == wanted)
    };
    let mut rows = Vec::new();
    let mut add = |figure: &str, [shares, weights, none]: [Rate; 3]| {
        rows.push(row("C3", format!("{figure}, shares of the traffic in the policy"), shares));
        rows.push(row("C3", format!("{figure}, weight of each session"), weights));
        rows.push(beside("C3", format!("{figure}, nothing known"), none));
    };
    for count in [200, 1000] {
        if scale == Scale::Short && count > 200 {
            continue;
        }
        let name = format!("approve, corpus 50/50, traffic 90/10, weighted effect -.064, M={count}");
        let rates = repeat(&name, scale.times(2000, 16), |rng| {
            let sessions = tiers(rng, count, [-0.08, 0.08]);
            decided(rng, &sessions, Decision::Approve)
        });
        add(&name, rates);
        let name = format!("approve at the margin, weighted effect -.05, M={count}");
        let rates = repeat(&name, scale.times(2000, 16), |rng| {
            let sessions = tiers(rng, count, [-0.06, 0.04]);
            decided(rng, &sessions, Decision::Approve)
        });
        add(&name, rates);
    }
    let name = "approve, 5.6 % of the free sessions fail entirely, weighted effect -.05, M=400";
    let rates = repeat(name, scale.times(2000, 16), |rng| {
        let session = |case: usize, rng: &mut SimulationRng| Session {
            user: case,
            before: 1.0,
            after: if case.is_multiple_of(2) && rng.happens(0.05 / 0.9) { 0.0 } else { 1.0 },
        };
        let sessions: Vec<Session> = (0..400).map(|case| session(case, rng)).collect();
        decided(rng, &sessions, Decision::Approve)
    });
    add(name, rates);
    let name = "block, weighted effect 0, M=400";
    let rates = repeat(name, scale.times(2000, 16), |rng| {
        let sessions = tiers(rng, 400, [0.02, -0.18]);
        decided(rng, &sessions, Decision::Block)
    });
    add(name, rates);
    rows
}

// === time ===

/// Logit of a probability moved by this much.
fn moved(chance: f64, by: f64) -> f64 {
    let odds = chance / (1.0 - chance) * by.exp();
    odds / (1.0 + odds)
}

/// C4: identical builds on two days that differ by a shift of sd .2 on the logit scale.
pub(crate) fn c4(scale: Scale) -> Vec<Row> {
    let flag = policy(SUCCESS);
    let refuse = policy(&format!("{SUCCESS}[sampling]\nruns-apart = \"refuse\"\n"));
    let [interleaved, apart, refused, flagged, silent] = repeat("C4", scale.times(2000, 16), |rng| {
        let days = [0.2 * rng.normal(), 0.2 * rng.normal()];
        let sessions = of_users(rng, 200, Sizes::Equal(1), 0.0, 0.0);
        let on = |rng: &mut SimulationRng, session: &Session, day: usize| {
            Outcome::of(rng.happens(moved(session.before, days[day])))
        };
        let mut lane = |day: fn(usize, usize) -> usize| -> Table {
            let trials = |session: &Session| {
                (0..TRIALS).map(|trial| on(rng, session, day(session.user, trial))).collect()
            };
            sessions.iter().map(trials).collect()
        };
        // Both lanes of a session on the same day, or each lane on its own.
        let together = (lane(|user, _| user % 2), lane(|user, _| user % 2));
        let parted = (lane(|_, _| 0), lane(|_, _| 1));
        let together = runs(&together, |case, trial| trial.batch = Some(format!("day {}", case % 2)));
        let parted = runs(&parted, |_, trial| trial.batch = Some(trial.lane.as_str().to_owned()));
        let interleaved = decide(&flag, &together, rng);
        let apart = decide(&flag, &parted, rng);
        let refused = decide(&refuse, &parted, rng);
        let is_said = |verdict: &Verdict| {
            verdict.sampling.runs == RunTiming::Apart
                && verdict.notes.iter().any(|note| note.contains("the runs were made apart"))
        };
        [
            interleaved.verdict == Decision::Block,
            apart.verdict == Decision::Block,
            refused.verdict == Decision::Block,
            !is_said(&apart),
            is_said(&interleaved),
        ]
    });
    let never = |figure: &str, rate: Rate| Row {
        id: "C4",
        figure: figure.to_owned(),
        required: "0".to_owned(),
        measured: rate.to_string(),
        standing: Standing::of(rate.hits == 0),
    };
    vec![
        row("C4", "block of identical builds, two days, lanes interleaved".to_owned(), interleaved),
        beside(
            "C4",
            "block of identical builds, each lane on its own day, decided and flagged".to_owned(),
            apart,
        ),
        never("the same, where the policy refuses runs made apart", refused),
        never("verdicts on runs made apart that do not say so", flagged),
        never("verdicts on interleaved lanes that are called runs made apart", silent),
    ]
}

// === shared state ===

/// C5: the trials of a lane share a state that is drawn anew for each lane of a session.
pub(crate) fn c5(scale: Scale) -> Vec<Row> {
    let free = policy("policy = 1\n[metric.agreement]\ndecides = true\n");
    let shared = policy("policy = 1\n[metric.agreement]\ndecides = true\n[drift]\nshared-state = true\n");
    let mut rows = Vec::new();
    for count in [12, 60] {
        let [shared, free] = repeat(&format!("C5 {count}"), scale.times(2000, 16), |rng| {
            let session = |user, rng: &mut SimulationRng| {
                let middle = rng.beta(0.8, 2.0);
                let mut state = || (middle + 0.5 * (rng.uniform() - 0.5)).clamp(0.0, 1.0);
                Session { user, before: state(), after: state() }
            };
            let sessions: Vec<Session> = (0..count).map(|user| session(user, rng)).collect();
            let trials = play(rng, &sessions);
            [&shared, &free]
                .map(|policy| decide(policy, &runs(&trials, |_, _| {}), rng).verdict == Decision::Block)
        });
        rows.push(row("C5", format!("block, {count} sessions whose trials share state, declared"), shared));
        rows.push(beside("C5", format!("the same, {count} sessions, not declared"), free));
    }
    rows
}

#[test]
fn sessions_of_one_user_count_as_one() {
    demand(&c1(Scale::Short));
}

#[test]
fn copies_of_a_session_count_as_one() {
    demand(&c2(Scale::Short));
}

#[test]
fn a_corpus_counts_as_its_traffic_does() {
    demand(&c3(Scale::Short));
}

#[test]
fn runs_made_apart_are_told_from_interleaved_ones() {
    demand(&c4(Scale::Short));
}

#[test]
fn trials_that_share_state_are_relabelled_together() {
    demand(&c5(Scale::Short));
}

#[test]
#[ignore = "full size: tests/calibration/run"]
fn full_c1() {
    c1(Scale::full()).iter().for_each(Row::print);
}

#[test]
#[ignore = "full size: tests/calibration/run"]
fn full_c2() {
    c2(Scale::full()).iter().for_each(Row::print);
}

#[test]
#[ignore = "full size: tests/calibration/run"]
fn full_c3() {
    c3(Scale::full()).iter().for_each(Row::print);
}

#[test]
#[ignore = "full size: tests/calibration/run"]
fn full_c4() {
    c4(Scale::full()).iter().for_each(Row::print);
}

#[test]
#[ignore = "full size: tests/calibration/run"]
fn full_c5() {
    c5(Scale::full()).iter().for_each(Row::print);
}
