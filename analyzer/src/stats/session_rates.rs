//! Exact one-sided test of rare events in paired sessions: whether the candidate's trials break an invariant more often.
//!
//! Under identical builds the labels of a session's trials are exchangeable, so the number of violating trials that fall
//! to the candidate is hypergeometric given the session's total, independently of other sessions. The test is the tail
//! of the sum over all sessions, computed by convolution: no draws, no approximation, and no loss where a handful of
//! violations is all there is.

use crate::cast::to_f64;

/// Counts of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionCounts {
    /// Trials of both lanes.
    pub(crate) trials: u64,
    /// Trials of the candidate.
    pub(crate) candidate: u64,
    /// Violating trials of both lanes.
    pub(crate) violations: u64,
    /// Violating trials of the candidate.
    pub(crate) of_candidate: u64,
}

/// Probability that identical builds give the candidate at least as many violating trials as it has.
pub(crate) fn p_value(sessions: &[SessionCounts]) -> f64 {
    let observed: u64 = sessions.iter().map(|session| session.of_candidate).sum();
    // `sums[s]` is the probability that the candidate has `least + s` violations in the sessions so far.
    let (mut sums, mut least) = (vec![1.0], 0_u64);
    for session in sessions {
        let (from, shares) = hypergeometric(*session);
        least += from;
        if shares.len() == 1 {
            continue;
        }
        let mut next = vec![0.0; sums.len() + shares.len() - 1];
        for (place, sum) in sums.iter().enumerate() {
            for (more, share) in shares.iter().enumerate() {
                next[place + more] += sum * share;
            }
        }
        sums = next;
    }
    let skipped = usize::try_from(observed.saturating_sub(least)).unwrap_or(usize::MAX);
    // The smallest terms first.
    sums.iter().skip(skipped).rev().sum::<f64>().min(1.0)
}

/// Smallest number of violations that the candidate can have, and the probabilities of this number and the next ones.
fn hypergeometric(session: SessionCounts) -> (u64, Vec<f64>) {
    let SessionCounts { trials, candidate, violations, .. } = session;
    let least = (candidate + violations).saturating_sub(trials);
    let most = candidate.min(violations);
    let mut weights = vec![1.0];
    for hits in least..most {
        // Ratio of neighbouring terms of C(v, x) C(n - v, c - x).
        let up = to_f64(violations - hits) * to_f64(candidate - hits);
        let down = to_f64(hits + 1) * to_f64(trials + hits + 1 - violations - candidate);
        let last: f64 = weights.last().copied().unwrap_or(1.0);
        weights.push(last * up / down);
    }
    let total: f64 = weights.iter().sum();
    (least, weights.into_iter().map(|weight| weight / total).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::stream::StreamKey;

    fn session(trials: u64, candidate: u64, baseline_hits: u64, of_candidate: u64) -> SessionCounts {
        SessionCounts { trials, candidate, violations: baseline_hits + of_candidate, of_candidate }
    }

    #[test]
    fn one_session_is_fishers_exact_test() {
        // scipy.stats.fisher_exact([[5, 0], [1, 4]], alternative="greater").pvalue
        assert!((p_value(&[session(10, 5, 1, 5)]) - 0.023_809_523_809_523_81).abs() < 1e-14);
        assert!((p_value(&[session(10, 5, 0, 0)]) - 1.0).abs() < 1e-15);
        assert!((p_value(&[session(10, 5, 5, 5)]) - 1.0).abs() < 1e-15);
        assert!((p_value(&[]) - 1.0).abs() < 1e-15);
    }

    #[test]
    fn forty_sessions_against_one_trial_in_a_thousand() {
        let mut sessions = vec![session(10, 5, 0, 0); 159];
        sessions.extend(vec![session(10, 5, 0, 1); 40]);
        sessions.push(session(10, 5, 1, 0));
        // 40 or more heads of 41: 42 / 2^41.
        let expected = 42.0 / 2.0_f64.powi(41);
        assert!((p_value(&sessions) / expected - 1.0).abs() < 1e-9, "{:e}", p_value(&sessions));
    }

    #[test]
    fn the_level_is_kept_by_identical_builds() {
        let key = StreamKey::new(16, "session rates");
        let (mut rejected, rounds) = (0, 2_000_u64);
        for round in 0..rounds {
            let mut stream = key.stream(round);
            let mut sessions = Vec::new();
            for number in 0..60 {
                // Sessions differ: violations are common in few of them, and the lanes have 4 and 2 trials.
                let percent = if number % 10 == 0 { 40 } else { 2 };
                let mut hits =
                    |trials: u64| (0..trials).map(|_| u64::from(stream.below(100) < percent)).sum();
                let (before, after): (u64, u64) = (hits(4), hits(2));
                sessions.push(session(6, 2, before, after));
            }
            rejected += u32::from(p_value(&sessions) <= 0.05);
        }
        // Discrete, so below the level: at most 5 % within the noise of 2,000 rounds.
        let share = f64::from(rejected) / 2_000.0;
        assert!((0.01..=0.062).contains(&share), "{share}");
    }
}
