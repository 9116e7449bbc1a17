//! Journal entries in flight to Kafka, and the position up to which all of them are acknowledged.
//!
//! Partitions acknowledge in any order. Only entries without a gap before them count as acknowledged.

use std::collections::VecDeque;

/// One entry in flight.
#[derive(Debug)]
struct InFlightEntry {
    position: u64,
    /// Messages of the entry that are not acknowledged.
    parts_left: u32,
    exchanges: u64,
    ended_at: i64,
}

/// The entries that are sent, from the first one that is not acknowledged.
#[derive(Debug)]
pub(super) struct DeliveryWindow {
    entries: VecDeque<InFlightEntry>,
    acknowledged: u64,
}

impl DeliveryWindow {
    /// Starts with everything before `acknowledged` acknowledged.
    pub(super) fn new(acknowledged: u64) -> Self {
        Self { entries: VecDeque::new(), acknowledged }
    }

    /// Adds an entry of `parts` messages. Positions must increase. `ended_at` is in microseconds since 1970.
    pub(super) fn push(&mut self, position: u64, parts: u32, exchanges: u64, ended_at: i64) {
        self.entries.push_back(InFlightEntry { position, parts_left: parts, exchanges, ended_at });
    }

    /// Records the acknowledgement of one message of the entry at `position`; returns how many exchanges it completes
    /// without a gap.
    pub(super) fn acknowledge(&mut self, position: u64) -> u64 {
        if let Ok(index) = self.entries.binary_search_by_key(&position, |entry| entry.position) {
            let entry = &mut self.entries[index];
            entry.parts_left = entry.parts_left.saturating_sub(1);
        }
        let mut exchanges = 0;
        while let Some(first) = self.entries.front()
            && first.parts_left == 0
        {
            exchanges += first.exchanges;
            self.acknowledged = first.position + 1;
            self.entries.pop_front();
        }
        exchanges
    }

    /// Position after the last entry that is acknowledged without a gap.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Number of entries in the window.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// End time of the oldest entry, in microseconds since 1970.
    pub(super) fn oldest(&self) -> Option<i64> {
        self.entries.front().map(|entry| entry.ended_at)
    }

    /// Whether no entry before `position` is in flight.
    pub(super) fn is_clear_before(&self, position: u64) -> bool {
        self.entries.front().is_none_or(|entry| entry.position >= position)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_unacknowledged_entry_holds_back_later_ones() {
        let mut window = DeliveryWindow::new(0);
        window.push(4, 2, 1, 10);
        window.push(5, 1, 0, 11);
        window.push(9, 1, 1, 12);
        assert_eq!((window.acknowledge(5), window.acknowledge(9), window.acknowledged()), (0, 0, 0));
        assert_eq!((window.acknowledge(4), window.acknowledged(), window.oldest()), (0, 0, Some(10)));
        assert!(window.is_clear_before(4) && !window.is_clear_before(5));
        assert_eq!((window.acknowledge(4), window.acknowledged(), window.len()), (2, 10, 0));
        assert_eq!(window.acknowledge(4), 0);
    }

    proptest! {
        #[test]
        fn any_order_of_acknowledgements_completes_the_window(parts in prop::collection::vec(1u32..4, 1..40), seed in any::<u64>()) {
            let mut window = DeliveryWindow::new(0);
            let mut sent = Vec::new();
            for (position, parts) in (0u64..).zip(&parts) {
                window.push(position, *parts, 1, 0);
                sent.extend((0..*parts).map(|part| (position, part)));
            }
            sent.sort_by_key(|(position, part)| blake3::hash(format!("{seed} {position} {part}").as_bytes()).to_hex().to_string());
            let mut left: Vec<u32> = parts.clone();
            let mut exchanges = 0;
            for (position, _) in sent {
                exchanges += window.acknowledge(position);
                left[usize::try_from(position).expect("fits")] -= 1;
                let complete = left.iter().take_while(|left| **left == 0).count() as u64;
                prop_assert_eq!((window.acknowledged(), exchanges), (complete, complete));
            }
            prop_assert_eq!(window.len(), 0);
        }
    }
}
