//! Memory of encoding one exchange, charged to the bound of all exchanges.
//!
//! A small compressed body can become a large text, and a small text can become a large tree. Both are charged before
//! they exist, so that no input takes the process past `limits.memory-bytes`.

use crate::capture::accounts::CaptureAccounts;

/// Bytes for each byte of a body: its redacted copy, its chunks, their records, and the texts that decoding takes out.
const PLAIN_FACTOR: usize = 3;

/// Further bytes for each byte of a body that becomes a tree or a list of events.
const TREE_FACTOR: usize = 2;

/// Bytes for each value of a tree: the value in a vector that has grown to twice its length, and its name.
const VALUE_BYTES: usize = 200;

/// Extent to which a body is processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// Redacted, decoded and stored.
    Decoded,
    /// Redacted and stored, and not decoded: its values need more memory than there is.
    Stored,
    /// Not stored.
    Dropped,
}

/// Charged memory of one exchange; dropping it gives the memory back.
#[derive(Debug)]
pub(super) struct EncodeMemory<'a> {
    accounts: &'a CaptureAccounts,
    charged: usize,
}

impl<'a> EncodeMemory<'a> {
    pub(super) fn new(accounts: &'a CaptureAccounts) -> Self {
        Self { accounts, charged: 0 }
    }

    /// Largest decompressed body to keep, bytes.
    pub(super) fn unpacked_bytes(&self) -> usize {
        self.accounts.unpacked_bytes()
    }

    /// Charges bytes.
    ///
    /// # Errors
    /// The memory is full.
    pub(super) fn charge(&mut self, bytes: usize) -> Result<(), String> {
        self.accounts.charge(bytes).map_err(|_| "limits.memory-bytes has no room for it".to_owned())?;
        self.charged += bytes;
        Ok(())
    }

    /// Charges the work on both bodies. `has_events` says that redaction needs the events of a stream one by one.
    pub(super) fn charge_work(&mut self, bodies: [&[u8]; 2], has_events: bool) -> Extent {
        let bytes: usize = bodies.iter().map(|body| body.len()).sum();
        let values: usize = bodies.iter().map(|body| count_values(body)).sum();
        let plain = PLAIN_FACTOR * bytes;
        let trees = TREE_FACTOR * bytes + VALUE_BYTES * values;
        if self.charge(plain + trees).is_ok() {
            Extent::Decoded
        } else if !has_events && self.charge(plain).is_ok() {
            Extent::Stored
        } else {
            Extent::Dropped
        }
    }
}

impl Drop for EncodeMemory<'_> {
    fn drop(&mut self) {
        self.accounts.release(self.charged);
    }
}

/// An upper bound of the values of a JSON text, and of the events of a stream.
fn count_values(body: &[u8]) -> usize {
    body.iter().filter(|byte| matches!(byte, b',' | b'[' | b'{' | b'\n' | b'\r')).count() + 1
}
