//! Reads a journal exchange by exchange: the pieces that it brings, then itself; only what is durable.
//!
//! Shared by what archives and what publishes; it neither writes nor remembers how far anybody came.

use std::path::Path;

use codec::Record;
use schemas::id::{SessionId, TenantId};
use store::log::{LogError, LogReader};

/// Bytes of pieces that are held while their exchange does not come; past it the pieces are let go. Their exchange was
/// refused by a full journal, so their session is shed.
const MAX_ORPHAN_BYTES: usize = 16 << 20;

/// A record, decoded and as it lies in the journal.
#[derive(Debug)]
pub(crate) struct JournalRecord {
    pub(crate) record: Record,
    pub(crate) encoded: Vec<u8>,
}

/// An exchange or a close row, with the pieces that it brings.
#[derive(Debug)]
pub(crate) struct JournalEntry {
    /// Of the exchange or close row.
    pub(crate) position: u64,
    pub(crate) pieces: Vec<JournalRecord>,
    pub(crate) last: JournalRecord,
}

impl JournalEntry {
    /// Bytes in the journal.
    pub(crate) fn bytes(&self) -> usize {
        self.records().map(|read| read.encoded.len()).sum()
    }

    /// Pieces, then the exchange or close row.
    pub(crate) fn records(&self) -> impl Iterator<Item = &JournalRecord> {
        self.pieces.iter().chain([&self.last])
    }

    /// When it ended, in microseconds since 1970.
    pub(crate) fn ended_at(&self) -> i64 {
        match &self.last.record {
            Record::Exchange(row) => {
                let duration = i64::try_from(row.duration_us.unwrap_or(0)).unwrap_or(0);
                row.started_at.saturating_add(duration)
            }
            Record::Close(row) => row.closed_at,
            Record::Piece { .. } => 0,
        }
    }

    /// How many exchanges it is: one or, for a close row, none.
    #[cfg(feature = "kafka")]
    pub(crate) fn exchanges(&self) -> u64 {
        u64::from(matches!(self.last.record, Record::Exchange(_)))
    }

    /// The key of its Kafka messages.
    #[cfg(feature = "kafka")]
    pub(crate) fn key(&self) -> Vec<u8> {
        owner(&self.last.record)
            .map(|(tenant, session)| codec::message_key(tenant, session))
            .unwrap_or_default()
    }
}

/// Whose exchange or close row it is.
fn owner(record: &Record) -> Option<(&TenantId, &SessionId)> {
    match record {
        Record::Piece { .. } => None,
        Record::Exchange(row) => Some((&row.tenant, &row.session)),
        Record::Close(row) => Some((&row.tenant, &row.session)),
    }
}

/// The entries of a journal from a position on.
#[derive(Debug)]
pub(crate) struct JournalReader {
    reader: LogReader,
    /// A record that was read before it was known to be durable.
    ahead: Option<(u64, Vec<u8>)>,
    /// Pieces whose exchange is still to come; a crash or a full journal may keep it away for good.
    orphans: Vec<(SessionId, JournalRecord)>,
    orphan_bytes: usize,
    skipped: u64,
}

impl JournalReader {
    pub(crate) fn open(folder: &Path, from: u64) -> Result<Self, LogError> {
        let reader = LogReader::open(folder, from)?;
        Ok(Self { reader, ahead: None, orphans: Vec::new(), orphan_bytes: 0, skipped: 0 })
    }

    /// Takes how many records could not be read since it was asked last; each was said with its position.
    pub(crate) fn take_skipped(&mut self) -> u64 {
        std::mem::take(&mut self.skipped)
    }

    /// The next entry before `synced`; `None` where there is none for now. What is written but not yet durable may be
    /// gone after a power cut, so nobody else may learn of it.
    pub(crate) fn next(&mut self, synced: u64) -> Result<Option<JournalEntry>, LogError> {
        loop {
            let record = match self.ahead.take() {
                Some(record) => Some(record),
                None => self.reader.next()?,
            };
            let Some((position, encoded)) = record else { return Ok(None) };
            if position >= synced {
                self.ahead = Some((position, encoded));
                return Ok(None);
            }
            match Record::decode(&encoded) {
                Ok(Record::Piece { session, digest, bytes }) => {
                    let record = Record::Piece { session: session.clone(), digest, bytes };
                    self.hold(session, JournalRecord { record, encoded });
                }
                Ok(record @ (Record::Exchange(_) | Record::Close(_))) => {
                    let pieces = self.pieces_of(&record);
                    return Ok(Some(JournalEntry {
                        position,
                        pieces,
                        last: JournalRecord { record, encoded },
                    }));
                }
                Err(error) => {
                    self.skipped += 1;
                    tracing::error!(position, %error, "a journal record is set aside");
                }
            }
        }
    }

    fn hold(&mut self, session: SessionId, piece: JournalRecord) {
        self.orphan_bytes += piece.encoded.len();
        self.orphans.push((session, piece));
        if self.orphan_bytes > MAX_ORPHAN_BYTES
            && let Some((newest, _)) = self.orphans.last()
        {
            let newest = newest.clone();
            self.orphans.retain(|(session, _)| *session == newest);
            self.orphan_bytes = self.orphans.iter().map(|(_, piece)| piece.encoded.len()).sum();
        }
    }

    fn pieces_of(&mut self, record: &Record) -> Vec<JournalRecord> {
        let Some((_, owner)) = owner(record) else { return Vec::new() };
        let mut pieces = Vec::new();
        for (session, piece) in std::mem::take(&mut self.orphans) {
            if session == *owner {
                self.orphan_bytes -= piece.encoded.len();
                pieces.push(piece);
            } else {
                self.orphans.push((session, piece));
            }
        }
        pieces
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use schemas::id::{AgentId, IncarnationId};
    use schemas::keys::Digest;
    use schemas::session::{CloseReason, SessionClose};
    use store::log::{LogOptions, LogWriter};

    use super::*;

    pub(crate) fn close(session: &str) -> Vec<u8> {
        let row = SessionClose {
            tenant: TenantId::parse("t").expect("id"),
            agent: AgentId::parse("a").expect("id"),
            build: None,
            session: SessionId::parse(session).expect("id"),
            incarnation: IncarnationId::parse("i").expect("id"),
            started_at: 0,
            closed_at: 1,
            reason: CloseReason::Idle,
            turns: 0,
            model_calls: 0,
            tool_calls: 0,
            last_seq: None,
            shed: 0,
            shed_reason: None,
            case: None,
            success: None,
            labels: BTreeMap::new(),
        };
        Record::Close(Box::new(row)).encode().expect("encodes")
    }

    pub(crate) fn piece(session: &str, name: u8, bytes: usize) -> Vec<u8> {
        let session = SessionId::parse(session).expect("id");
        let bytes = (0..bytes).map(|place| u8::try_from(place % 251).unwrap_or(0)).collect();
        Record::Piece { session, digest: Digest([name; 16]), bytes }.encode().expect("encodes")
    }

    #[test]
    fn pieces_come_with_their_own_session_and_only_when_durable() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut writer = LogWriter::open(folder.path(), LogOptions::default()).expect("opens");
        let broken = b"\x01no record".to_vec();
        let written =
            [piece("lost", 1, 9), piece("one", 2, 9), close("one"), broken, close("lost"), close("two")];
        for record in &written {
            writer.append(record).expect("has room");
        }
        writer.sync().expect("syncs");
        let mut entries = JournalReader::open(folder.path(), 0).expect("opens");
        assert!(entries.next(2).expect("reads").is_none());
        let mut found = Vec::new();
        while let Some(entry) = entries.next(5).expect("reads") {
            found.push((entry.position, entry.pieces.len()));
        }
        assert_eq!(found, [(2, 1), (4, 1)]);
        assert_eq!((entries.take_skipped(), entries.take_skipped()), (1, 0));
        assert_eq!(entries.next(6).expect("reads").map(|entry| entry.position), Some(5));
    }

    #[test]
    fn pieces_without_an_exchange_are_bounded() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut writer = LogWriter::open(folder.path(), LogOptions::default()).expect("opens");
        for _ in 0..2 {
            writer.append(&piece("lost", 1, MAX_ORPHAN_BYTES / 2 + 1)).expect("has room");
        }
        writer.append(&piece("one", 1, 9)).expect("has room");
        writer.append(&close("one")).expect("has room");
        writer.sync().expect("syncs");
        let mut entries = JournalReader::open(folder.path(), 0).expect("opens");
        assert_eq!(entries.next(9).expect("reads").map(|entry| entry.pieces.len()), Some(1));
        assert_eq!(entries.orphan_bytes, 0);
    }
}
