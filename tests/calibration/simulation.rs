//! Simulated outcome tables: each session's probability of success, before and after a change.

use crate::rng::SimulationRng;
use crate::table::{Outcome, Table};

/// Change of a session's probability of success by the new build.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Change {
    /// No change: the builds are identical.
    None,
    /// Every session's probability falls by this much, down to 0.
    Spread(f64),
    /// Every session's probability falls by this share of itself.
    Scaled(f64),
    /// This share of the sessions always fails; the others do not change.
    Clustered(f64),
    /// Each session's probability is drawn again: sessions differ, their mean does not.
    Redrawn,
}

/// Distribution of sessions: a beta distribution of their probability of success.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sessions {
    pub(crate) count: usize,
    pub(crate) mean: f64,
    pub(crate) concentration: f64,
    /// Trials per session in the baseline and in the candidate.
    pub(crate) trials: (usize, usize),
}

/// Quantities drawn for a trial besides its success.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Extras {
    /// None.
    None,
    /// Time, tokens and money, each log-normal around a session's own median; the candidate's time is longer by this
    /// ratio.
    Effort(f64),
}

/// Standard deviation of the logarithm of time, tokens and money between sessions, and between the trials of one.
const BETWEEN: f64 = 0.8;
const WITHIN: f64 = 0.3;

/// Draws the trials of both lanes.
pub(crate) fn draw(
    rng: &mut SimulationRng,
    sessions: &Sessions,
    change: Change,
    extras: Extras,
) -> (Table, Table) {
    let mut before = Vec::with_capacity(sessions.count);
    let mut after = Vec::with_capacity(sessions.count);
    for _ in 0..sessions.count {
        let chance = rng.beta(sessions.mean, sessions.concentration);
        let changed = match change {
            Change::None => chance,
            Change::Spread(by) => (chance - by).max(0.0),
            Change::Scaled(share) => chance * (1.0 - share),
            Change::Clustered(share) if rng.happens(share) => 0.0,
            Change::Clustered(_) => chance,
            Change::Redrawn => rng.beta(sessions.mean, sessions.concentration),
        };
        let middle = [rng.normal(), rng.normal(), rng.normal()].map(|normal| BETWEEN * normal);
        let slower = match extras {
            Extras::None => 1.0,
            Extras::Effort(ratio) => ratio,
        };
        let (baseline, candidate) = sessions.trials;
        before.push((0..baseline).map(|_| trial(rng, chance, extras, middle, 1.0)).collect());
        after.push((0..candidate).map(|_| trial(rng, changed, extras, middle, slower)).collect());
    }
    (before, after)
}

fn trial(rng: &mut SimulationRng, chance: f64, extras: Extras, middle: [f64; 3], slower: f64) -> Outcome {
    let outcome = Outcome::of(rng.happens(chance));
    if extras == Extras::None {
        return outcome;
    }
    let [time, tokens, cost] = middle.map(|middle| (middle + WITHIN * rng.normal()).exp());
    Outcome {
        duration_us: Some(whole(8e6 * time * slower)),
        output_tokens: Some(whole(900.0 * tokens)),
        cost_usd: Some(0.02 * cost),
        ..outcome
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive and far below 2^53")]
fn whole(number: f64) -> u64 {
    number.round() as u64
}
