//! Counts of replaced secrets.

use std::collections::BTreeMap;

use schemas::exchange::Redaction;

/// Replaced secrets of one exchange, by kind and location.
#[derive(Debug, Default)]
pub(crate) struct RedactionCounts(BTreeMap<(String, &'static str), u32>);

impl RedactionCounts {
    /// Counts one secret of this kind, such as `openai_key`, at this location, such as `request body`.
    pub(crate) fn add(&mut self, kind: &str, location: &'static str) {
        *self.0.entry((kind.to_owned(), location)).or_default() += 1;
    }

    /// One row for each kind and location, in their order.
    pub(crate) fn into_rows(self) -> Vec<Redaction> {
        let row = |((kind, location), count): ((String, &str), u32)| Redaction {
            kind: kind.into(),
            location: location.into(),
            count,
        };
        self.0.into_iter().map(row).collect()
    }
}
