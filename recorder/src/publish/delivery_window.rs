//! What is on its way to Kafka, in the order of the journal, and how far all of it has arrived.
//!
//! Plain bookkeeping: partitions answer out of order, and only what has no gap before it is acknowledged.

use std::collections::VecDeque;

/// One entry on its way.
#[derive(Debug)]
struct Pending {
    position: u64,
    parts_left: u32,
    exchanges: u64,
    ended_at: i64,
}

/// Entries that are sent and not acknowledged without a gap.
#[derive(Debug)]
pub(super) struct Window {
    pending: VecDeque<Pending>,
    acknowledged: u64,
}

impl Window {
    /// Everything before this position has arrived.
    pub(super) fn new(acknowledged: u64) -> Self {
        Self { pending: VecDeque::new(), acknowledged }
    }

    /// Takes an entry; positions only grow.
    pub(super) fn push(&mut self, position: u64, parts: u32, exchanges: u64, ended_at: i64) {
        self.pending.push_back(Pending { position, parts_left: parts, exchanges, ended_at });
    }

    /// A part of the entry at this position has arrived; returns how many exchanges are acknowledged by it.
    pub(super) fn arrived(&mut self, position: u64) -> u64 {
        if let Ok(place) = self.pending.binary_search_by_key(&position, |pending| pending.position) {
            let pending = &mut self.pending[place];
            pending.parts_left = pending.parts_left.saturating_sub(1);
        }
        let mut exchanges = 0;
        while let Some(first) = self.pending.front()
            && first.parts_left == 0
        {
            exchanges += first.exchanges;
            self.acknowledged = first.position + 1;
            self.pending.pop_front();
        }
        exchanges
    }

    /// Everything before this position has arrived.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// How many entries are on their way.
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    /// When the oldest of them ended, in microseconds since 1970.
    pub(super) fn oldest(&self) -> Option<i64> {
        self.pending.front().map(|pending| pending.ended_at)
    }

    /// Whether nothing before this position is on its way.
    pub(super) fn is_clear_before(&self, position: u64) -> bool {
        self.pending.front().is_none_or(|pending| pending.position >= position)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_gap_holds_back_what_came_after_it() {
        let mut window = Window::new(0);
        window.push(4, 2, 1, 10);
        window.push(5, 1, 0, 11);
        window.push(9, 1, 1, 12);
        assert_eq!((window.arrived(5), window.arrived(9), window.acknowledged()), (0, 0, 0));
        assert_eq!((window.arrived(4), window.acknowledged(), window.oldest()), (0, 0, Some(10)));
        assert!(window.is_clear_before(4) && !window.is_clear_before(5));
        assert_eq!((window.arrived(4), window.acknowledged(), window.len()), (2, 10, 0));
        assert_eq!(window.arrived(4), 0);
    }

    proptest! {
        #[test]
        fn all_of_it_is_acknowledged_in_whatever_order_it_arrives(parts in prop::collection::vec(1u32..4, 1..40), seed in any::<u64>()) {
            let mut window = Window::new(0);
            let mut sent = Vec::new();
            for (position, parts) in (0u64..).zip(&parts) {
                window.push(position, *parts, 1, 0);
                sent.extend((0..*parts).map(|part| (position, part)));
            }
            sent.sort_by_key(|(position, part)| blake3::hash(format!("{seed} {position} {part}").as_bytes()).to_hex().to_string());
            let mut left: Vec<u32> = parts.clone();
            let mut exchanges = 0;
            for (position, _) in sent {
                exchanges += window.arrived(position);
                left[usize::try_from(position).expect("small")] -= 1;
                let whole = left.iter().take_while(|left| **left == 0).count() as u64;
                prop_assert_eq!((window.acknowledged(), exchanges), (whole, whole));
            }
            prop_assert_eq!(window.len(), 0);
        }
    }
}
