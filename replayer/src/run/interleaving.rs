//! One random order of start for the trials of two lanes, so that a shift in time meets both lanes alike.
//!
//! The trials of both lanes with the same case and number are neighbours, in an order that the seed draws. A lane that has
//! no free slot holds up the other one: an order that gave way would let the faster lane run ahead.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use schemas::id::CaseId;
use seeded::Key;
use tokio::sync::watch;

use crate::plan::PlannedTrial;

/// The turns of the lanes that are still to come.
#[derive(Debug)]
struct Turns {
    lanes: Mutex<VecDeque<usize>>,
    /// Changes whenever a turn is taken or given up.
    changed: watch::Sender<()>,
}

/// Decides when a lane may start its next trial. Dropping it gives up the remaining turns of the lane.
#[derive(Debug)]
pub(super) struct Pace {
    /// Absent for a lane that runs alone.
    shared: Option<(Arc<Turns>, watch::Receiver<()>)>,
    lane: usize,
}

/// Draws the order of start for the open trials of two lanes, and returns the pace of each.
pub(super) fn interleave(open: [&VecDeque<PlannedTrial>; 2], seed: u64) -> [Pace; 2] {
    type TrialKey<'a> = (&'a CaseId, u32);
    let keys = |lane: usize| open[lane].iter().map(|planned| (&planned.case, planned.trial));
    let known: [BTreeSet<TrialKey<'_>>; 2] = [keys(0).collect(), keys(1).collect()];
    let mut lanes = VecDeque::new();
    for (case, trial) in keys(0) {
        let first = usize::from(is_candidate_first(seed, case, trial));
        let both = [first, 1 - first];
        lanes.extend(both.into_iter().filter(|lane| known[*lane].contains(&(case, trial))));
    }
    // Trials that only the second lane has left, as after an interruption.
    lanes.extend(keys(1).filter(|key| !known[0].contains(key)).map(|_| 1));
    let (changed, _) = watch::channel(());
    let turns = Arc::new(Turns { lanes: Mutex::new(lanes), changed });
    [0, 1].map(|lane| Pace { shared: Some((turns.clone(), turns.changed.subscribe())), lane })
}

fn is_candidate_first(seed: u64, case: &CaseId, trial: u32) -> bool {
    let parts: [&[u8]; 3] = [&seed.to_le_bytes(), case.as_str().as_bytes(), &trial.to_le_bytes()];
    Key::derive("foreshadow 2026 lane order v1", &parts).number() & 1 == 1
}

impl Turns {
    fn lanes(&self) -> MutexGuard<'_, VecDeque<usize>> {
        // Each change is a single call, so a panic leaves no partial one.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pace {
    /// The pace of a lane that runs alone: a trial may always start.
    pub(super) fn free() -> Self {
        Self { shared: None, lane: 0 }
    }

    /// Takes the next turn, if it is this lane's.
    pub(super) fn try_start(&self) -> bool {
        let Some((turns, _)) = &self.shared else { return true };
        let mut lanes = turns.lanes();
        let is_own = lanes.front() == Some(&self.lane);
        if is_own {
            lanes.pop_front();
            drop(lanes);
            turns.changed.send_replace(());
        }
        is_own
    }

    /// Waits until a turn was taken or given up since the last wait. Cancel-safe.
    pub(super) async fn changed(&mut self) {
        match &mut self.shared {
            // The sender lives in `turns`, so it is never closed here.
            Some((_, changed)) => drop(changed.changed().await),
            None => std::future::pending().await,
        }
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        if let Some((turns, _)) = &self.shared {
            turns.lanes().retain(|lane| *lane != self.lane);
            turns.changed.send_replace(());
        }
    }
}

#[cfg(test)]
mod tests {
    use schemas::trial::Lane;

    use super::*;
    use crate::plan::trials;

    fn open(lane: Lane, skip: usize) -> VecDeque<PlannedTrial> {
        let cases: Vec<CaseId> = (0..200).map(|n| CaseId::parse(&format!("case-{n}")).expect("id")).collect();
        trials(&cases, lane, 2, 7).into_iter().skip(skip).collect()
    }

    fn order(paces: &[Pace; 2]) -> Vec<usize> {
        let (turns, _) = paces[0].shared.as_ref().expect("shared");
        turns.lanes().iter().copied().collect()
    }

    #[test]
    fn trials_of_one_case_are_neighbours_in_an_order_that_the_seed_draws() {
        let (left, right) = (open(Lane::Baseline, 0), open(Lane::Candidate, 0));
        let paces = interleave([&left, &right], 7);
        let order_of_seed = order(&paces);
        assert_eq!(order_of_seed.len(), 800);
        assert!(order_of_seed.chunks(2).all(|pair| pair[0] != pair[1]));
        let first = order_of_seed.chunks(2).filter(|pair| pair[0] == 1).count();
        assert!((150..250).contains(&first), "{first} of 400 pairs start with the candidate");
        assert_eq!(order_of_seed, order(&interleave([&left, &right], 7)));
        assert_ne!(order_of_seed, order(&interleave([&left, &right], 8)));
    }

    #[test]
    fn a_lane_starts_only_in_its_turn_and_gives_up_its_turns_at_its_end() {
        let (left, right) = (open(Lane::Baseline, 390), open(Lane::Candidate, 395));
        let [baseline, candidate] = interleave([&left, &right], 7);
        let mut started = [0, 0];
        for _ in 0..15 {
            let by_baseline = baseline.try_start();
            let lane = usize::from(!by_baseline);
            assert!(by_baseline || candidate.try_start(), "one of the lanes has the turn");
            started[lane] += 1;
        }
        assert_eq!(started, [10, 5]);
        let [baseline, candidate] = interleave([&left, &right], 7);
        drop(candidate);
        assert!((0..10).all(|_| baseline.try_start()));
    }
}
