//! Reads the journal entry by entry: an exchange or close row, with the chunks stored before it.
//!
//! Both sinks use it. It reads durable records only, and keeps no checkpoint.

use std::path::Path;

use codec::Record;
use schemas::id::{SessionId, TenantId};
use store::log::{LogError, LogReader};

/// Bytes of orphan chunks in memory: their exchange did not come yet. Past it, all but those of the newest session are
/// dropped. A full journal refused their exchange, so their session is shed.
const MAX_ORPHAN_BYTES: usize = 16 << 20;

/// A record with its encoded bytes.
#[derive(Debug)]
pub(crate) struct JournalRecord {
    pub(crate) record: Record,
    pub(crate) encoded: Vec<u8>,
}

/// An exchange or a close row, with its chunks.
#[derive(Debug)]
pub(crate) struct JournalEntry {
    /// Position of `last`.
    pub(crate) position: u64,
    pub(crate) chunks: Vec<JournalRecord>,
    /// The exchange or close row.
    pub(crate) last: JournalRecord,
}

impl JournalEntry {
    /// Encoded size in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.records().map(|record| record.encoded.len()).sum()
    }

    /// The chunks, then the exchange or close row.
    pub(crate) fn records(&self) -> impl Iterator<Item = &JournalRecord> {
        self.chunks.iter().chain([&self.last])
    }

    /// End of the exchange or session, microseconds since 1970.
    pub(crate) fn ended_at(&self) -> i64 {
        match &self.last.record {
            Record::Exchange(row) => {
                let duration = i64::try_from(row.duration_us.unwrap_or(0)).unwrap_or(0);
                row.started_at.saturating_add(duration)
            }
            Record::Close(row) => row.closed_at,
            Record::Chunk { .. } => 0,
        }
    }

    /// Exchanges in the entry: 1, or 0 for a close row.
    #[cfg(feature = "kafka")]
    pub(crate) fn exchanges(&self) -> u64 {
        u64::from(matches!(self.last.record, Record::Exchange(_)))
    }

    /// Key of its Kafka messages.
    #[cfg(feature = "kafka")]
    pub(crate) fn key(&self) -> Vec<u8> {
        owner(&self.last.record)
            .map(|(tenant, session)| codec::message_key(tenant, session))
            .unwrap_or_default()
    }
}

/// Tenant and session of an exchange or close row.
fn owner(record: &Record) -> Option<(&TenantId, &SessionId)> {
    match record {
        Record::Chunk { .. } => None,
        Record::Exchange(row) => Some((&row.tenant, &row.session)),
        Record::Close(row) => Some((&row.tenant, &row.session)),
    }
}

/// Reader of a journal.
#[derive(Debug)]
pub(crate) struct JournalReader {
    reader: LogReader,
    /// A record that was read before it was durable.
    ahead: Option<(u64, Vec<u8>)>,
    /// Chunks whose exchange did not come yet. After a crash, or with a full journal, it may never come.
    orphans: Vec<(SessionId, JournalRecord)>,
    orphan_bytes: usize,
    skipped: u64,
}

impl JournalReader {
    /// Opens the journal in `folder` at the position `from`.
    pub(crate) fn open(folder: &Path, from: u64) -> Result<Self, LogError> {
        let reader = LogReader::open(folder, from)?;
        Ok(Self { reader, ahead: None, orphans: Vec::new(), orphan_bytes: 0, skipped: 0 })
    }

    /// Unreadable records since the last call. The reader logs each with its position.
    pub(crate) fn take_skipped(&mut self) -> u64 {
        std::mem::take(&mut self.skipped)
    }

    /// The next entry before the position `durable`; `None` at the end. A power cut can take back a record that is not
    /// durable, so no sink may deliver it.
    pub(crate) fn next(&mut self, durable: u64) -> Result<Option<JournalEntry>, LogError> {
        loop {
            let record = match self.ahead.take() {
                Some(record) => Some(record),
                None => self.reader.next()?,
            };
            let Some((position, encoded)) = record else { return Ok(None) };
            if position >= durable {
                self.ahead = Some((position, encoded));
                return Ok(None);
            }
            match Record::decode(&encoded) {
                Ok(Record::Chunk { session, digest, bytes }) => {
                    let record = Record::Chunk { session: session.clone(), digest, bytes };
                    self.keep_orphan(session, JournalRecord { record, encoded });
                }
                Ok(record @ (Record::Exchange(_) | Record::Close(_))) => {
                    let chunks = self.take_chunks(&record);
                    let last = JournalRecord { record, encoded };
                    return Ok(Some(JournalEntry { position, chunks, last }));
                }
                Err(error) => {
                    self.skipped += 1;
                    tracing::error!(position, %error, "a journal record cannot be decoded and is skipped");
                }
            }
        }
    }

    fn keep_orphan(&mut self, session: SessionId, chunk: JournalRecord) {
        self.orphan_bytes += chunk.encoded.len();
        self.orphans.push((session, chunk));
        if self.orphan_bytes > MAX_ORPHAN_BYTES
            && let Some((newest, _)) = self.orphans.last()
        {
            let newest = newest.clone();
            self.orphans.retain(|(session, _)| *session == newest);
            self.orphan_bytes = self.orphans.iter().map(|(_, chunk)| chunk.encoded.len()).sum();
        }
    }

    fn take_chunks(&mut self, record: &Record) -> Vec<JournalRecord> {
        let Some((_, owner)) = owner(record) else { return Vec::new() };
        let mut chunks = Vec::new();
        for (session, chunk) in std::mem::take(&mut self.orphans) {
            if session == *owner {
                self.orphan_bytes -= chunk.encoded.len();
                chunks.push(chunk);
            } else {
                self.orphans.push((session, chunk));
            }
        }
        chunks
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

    pub(crate) fn chunk(session: &str, name: u8, bytes: usize) -> Vec<u8> {
        let session = SessionId::parse(session).expect("id");
        let bytes = (0..bytes).map(|index| u8::try_from(index % 251).unwrap_or(0)).collect();
        Record::Chunk { session, digest: Digest([name; 16]), bytes }.encode().expect("encodes")
    }

    #[test]
    fn chunks_come_with_their_session_and_only_when_durable() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut writer = LogWriter::open(folder.path(), LogOptions::default()).expect("opens");
        let malformed = b"\x01no record".to_vec();
        let written =
            [chunk("lost", 1, 9), chunk("one", 2, 9), close("one"), malformed, close("lost"), close("two")];
        for record in &written {
            writer.append(record).expect("has room");
        }
        writer.sync().expect("syncs");
        let mut reader = JournalReader::open(folder.path(), 0).expect("opens");
        assert!(reader.next(2).expect("reads").is_none());
        let mut found = Vec::new();
        while let Some(entry) = reader.next(5).expect("reads") {
            found.push((entry.position, entry.chunks.len()));
        }
        assert_eq!(found, [(2, 1), (4, 1)]);
        assert_eq!((reader.take_skipped(), reader.take_skipped()), (1, 0));
        assert_eq!(reader.next(6).expect("reads").map(|entry| entry.position), Some(5));
    }

    #[test]
    fn orphan_chunks_are_bounded() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut writer = LogWriter::open(folder.path(), LogOptions::default()).expect("opens");
        for _ in 0..2 {
            writer.append(&chunk("lost", 1, MAX_ORPHAN_BYTES / 2 + 1)).expect("has room");
        }
        writer.append(&chunk("one", 1, 9)).expect("has room");
        writer.append(&close("one")).expect("has room");
        writer.sync().expect("syncs");
        let mut reader = JournalReader::open(folder.path(), 0).expect("opens");
        assert_eq!(reader.next(9).expect("reads").map(|entry| entry.chunks.len()), Some(1));
        assert_eq!(reader.orphan_bytes, 0);
    }
}
