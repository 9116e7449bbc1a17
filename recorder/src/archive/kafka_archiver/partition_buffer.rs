//! Messages of one partition that are read and not committed, and the offset that a commit may record.
//!
//! A record is new if its position is not below the known position of its journal, so a batch may contain records past the
//! committed offset; a restart drops them as duplicates. The buffer reads no clock and does no I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use codec::{MessageValueView, Record, decode_framed};
use store::Batch;

/// Journals whose position a partition remembers. Past the bound the partition forgets those it has not seen for longest;
/// a record that such a journal sends again is stored twice.
pub(crate) const MAX_JOURNALS: usize = 1024;

/// Bytes of the parts of incomplete messages in a partition. Past the bound the oldest become dead letters.
pub(crate) const MAX_PARTIAL_BYTES: u64 = 64 << 20;

/// Time that an incomplete message may wait at the end of a partition before its parts become dead letters.
pub(crate) const PART_TIMEOUT: Duration = Duration::from_secs(600);

/// Reason of a dead letter that contains chunks only.
const NO_ROW: &str = "the message has neither an exchange nor a close row";

/// A message that cannot become rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeadLetter {
    /// Offset in the source partition.
    pub(crate) offset: u64,
    /// Key of the message, unchanged.
    pub(crate) key: Vec<u8>,
    /// Value of the message, unchanged.
    pub(crate) payload: Vec<u8>,
    /// Error that the dead letter's header carries.
    pub(crate) reason: String,
}

/// Result of [`PartitionBuffer::push`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PushOutcome {
    /// The offset is below the next one; the buffer is unchanged.
    AlreadyRead,
    /// The position of its journal is known, so the message is a duplicate; it was dropped.
    Redelivered,
    /// The message is a part of a longer one and waits for the other parts.
    Part,
    /// The message completed a record: an exchange, or a close row.
    Buffered,
    /// The message, or parts before it, became dead letters ([`PartitionBuffer::take_dead_letters`]).
    DeadLettered,
}

/// The content of one commit.
#[derive(Debug)]
pub(crate) struct CommitRequest {
    /// The rows.
    pub(crate) batch: Batch,
    /// Offset after the last message that the commit covers.
    pub(crate) next: u64,
    /// Position after the last stored record, by journal.
    pub(crate) journals: BTreeMap<String, u64>,
    /// Bytes of the messages.
    pub(crate) bytes: u64,
    /// Number of exchanges in the batch.
    pub(crate) exchanges: u64,
}

/// How far a journal is read.
#[derive(Debug)]
struct JournalPosition {
    /// Position after the last record.
    next: u64,
    /// Offset of its last message; absent for a journal known from the claim alone.
    offset: Option<u64>,
}

#[derive(Debug)]
struct Message {
    offset: u64,
    key: Vec<u8>,
    payload: Vec<u8>,
}

/// A message in parts, of which the first ones have arrived without a gap.
#[derive(Debug)]
struct PartialMessage {
    position: u64,
    parts: Vec<Message>,
    bytes: u64,
    /// Arrival of the last part, or the end of a pause in reading.
    waiting_since: Instant,
}

impl PartialMessage {
    fn first_offset(&self) -> Option<u64> {
        self.parts.first().map(|part| part.offset)
    }
}

/// The uncommitted messages of one partition.
#[derive(Debug)]
pub(crate) struct PartitionBuffer {
    /// Offset that the last commit request recorded.
    requested: u64,
    /// Offset after the last message.
    next: u64,
    batch: Batch,
    bytes: u64,
    exchanges: u64,
    /// Arrival of the first message after the last commit request.
    oldest: Option<Instant>,
    journals: HashMap<Arc<str>, JournalPosition>,
    partial_messages: HashMap<Arc<str>, PartialMessage>,
    new_dead_letters: Vec<DeadLetter>,
    /// Offsets of dead letters that the dead-letter topic has not acknowledged.
    pending_dead_letters: BTreeSet<u64>,
}

impl PartitionBuffer {
    /// Starts at the position of a claim.
    pub(crate) fn new(position: u64, journals: &BTreeMap<String, u64>) -> Self {
        let known = |(name, next): (&String, &u64)| {
            (Arc::from(name.as_str()), JournalPosition { next: *next, offset: None })
        };
        Self {
            requested: position,
            next: position,
            batch: Batch::default(),
            bytes: 0,
            exchanges: 0,
            oldest: None,
            journals: journals.iter().map(known).collect(),
            partial_messages: HashMap::new(),
            new_dead_letters: Vec::new(),
            pending_dead_letters: BTreeSet::new(),
        }
    }

    /// Adds the next message of the partition.
    pub(crate) fn push(&mut self, offset: u64, key: &[u8], payload: &[u8], now: Instant) -> PushOutcome {
        if offset < self.next {
            return PushOutcome::AlreadyRead;
        }
        self.next = offset + 1;
        self.oldest.get_or_insert(now);
        let message = || Message { offset, key: key.to_vec(), payload: payload.to_vec() };
        let value = match MessageValueView::decode(payload) {
            Ok(value) => value,
            Err(error) => return self.dead_letter(vec![message()], &error.to_string()),
        };
        if self.journals.get(value.journal).is_some_and(|journal| value.position < journal.next) {
            return PushOutcome::Redelivered;
        }
        let partial = self.partial_messages.get(value.journal).map(|partial| partial.position);
        if partial.is_some_and(|position| position < value.position) {
            self.drop_partial(value.journal, "a later record of the journal arrived before the last part");
        }
        if value.parts > 1 {
            return self.push_part(&value, message(), now);
        }
        // A journal that sends a record in one message has started over: earlier parts of it are useless.
        self.partial_messages.remove(value.journal);
        self.push_records(value.journal, value.position, value.content, || vec![message()])
    }

    fn push_part(&mut self, value: &MessageValueView<'_>, part: Message, now: Instant) -> PushOutcome {
        if value.part == 0 {
            // The journal has started over with this record, or with one before it.
            let partial =
                PartialMessage { position: value.position, parts: Vec::new(), bytes: 0, waiting_since: now };
            self.partial_messages.insert(Arc::from(value.journal), partial);
        }
        let partial = self.partial_messages.get_mut(value.journal);
        let Some(partial) = partial.filter(|partial| partial.position == value.position) else {
            return self.dead_letter(vec![part], "the parts before this part are missing");
        };
        if (value.part as usize) < partial.parts.len() {
            return PushOutcome::Redelivered;
        }
        if value.part as usize > partial.parts.len() {
            return self.dead_letter(vec![part], "the part before this part is missing");
        }
        partial.bytes += part.payload.len() as u64;
        partial.waiting_since = now;
        partial.parts.push(part);
        if value.part + 1 == value.parts {
            return self.join_parts(value.journal, value.position);
        }
        while self.partial_bytes() > MAX_PARTIAL_BYTES
            && let Some(oldest) = self.oldest_partial()
        {
            self.drop_partial(&oldest, "the parts of incomplete messages exceed the memory bound");
        }
        PushOutcome::Part
    }

    fn join_parts(&mut self, journal: &str, position: u64) -> PushOutcome {
        let parts = self.partial_messages.remove(journal).map(|partial| partial.parts).unwrap_or_default();
        let mut content = Vec::new();
        for part in &parts {
            match MessageValueView::decode(&part.payload) {
                Ok(value) => content.extend_from_slice(value.content),
                Err(error) => return self.dead_letter(parts, &error.to_string()),
            }
        }
        self.push_records(journal, position, &content, || parts)
    }

    /// Adds the records of a complete message; `messages` are the Kafka messages that carried it.
    fn push_records(
        &mut self,
        journal: &str,
        position: u64,
        content: &[u8],
        messages: impl FnOnce() -> Vec<Message>,
    ) -> PushOutcome {
        let records = match decode_framed(content) {
            Ok(records) if has_row(&records) => records,
            Ok(_) => return self.dead_letter(messages(), NO_ROW),
            Err(error) => return self.dead_letter(messages(), &error.to_string()),
        };
        for record in records {
            self.exchanges += u64::from(matches!(record, Record::Exchange(_)));
            self.batch.push(record);
        }
        self.bytes += content.len() as u64;
        let read = JournalPosition { next: position + 1, offset: Some(self.next - 1) };
        match self.journals.get_mut(journal) {
            Some(known) => *known = read,
            None => {
                self.journals.insert(Arc::from(journal), read);
            }
        }
        PushOutcome::Buffered
    }

    fn dead_letter(&mut self, messages: Vec<Message>, reason: &str) -> PushOutcome {
        for Message { offset, key, payload } in messages {
            self.pending_dead_letters.insert(offset);
            self.new_dead_letters.push(DeadLetter { offset, key, payload, reason: reason.to_owned() });
        }
        PushOutcome::DeadLettered
    }

    /// Makes the parts of a journal's incomplete message dead letters. If the journal sends the message again from its first
    /// part, the buffer accepts it.
    fn drop_partial(&mut self, journal: &str, reason: &str) {
        if let Some(partial) = self.partial_messages.remove(journal) {
            self.dead_letter(partial.parts, reason);
        }
    }

    fn oldest_partial(&self) -> Option<Arc<str>> {
        let oldest = self.partial_messages.iter().min_by_key(|(_, partial)| partial.first_offset());
        oldest.map(|(journal, _)| journal.clone())
    }

    fn partial_bytes(&self) -> u64 {
        self.partial_messages.values().map(|partial| partial.bytes).sum()
    }

    /// Makes parts that have waited for [`PART_TIMEOUT`] dead letters. The caller calls it for partitions that are read to
    /// their end.
    pub(crate) fn expire_parts(&mut self, now: Instant) {
        let expired =
            |partial: &PartialMessage| now.saturating_duration_since(partial.waiting_since) >= PART_TIMEOUT;
        let find = |partials: &HashMap<Arc<str>, PartialMessage>| {
            partials.iter().find_map(|(journal, partial)| expired(partial).then(|| journal.clone()))
        };
        while let Some(journal) = find(&self.partial_messages) {
            self.drop_partial(&journal, "the other parts did not arrive in time");
        }
    }

    /// Restarts the timeout of parts: time in which the partition was not read does not count.
    pub(crate) fn reset_part_timeouts(&mut self, now: Instant) {
        for partial in self.partial_messages.values_mut() {
            partial.waiting_since = now;
        }
    }

    /// The dead letters since the last call.
    pub(crate) fn take_dead_letters(&mut self) -> Vec<DeadLetter> {
        std::mem::take(&mut self.new_dead_letters)
    }

    /// Records that the dead-letter topic has acknowledged the message at this offset. The offset that a commit may record
    /// rises, so the time to the next commit runs from `now` if no message has arrived since the last commit request.
    pub(crate) fn ack_dead_letter(&mut self, offset: u64, now: Instant) {
        if self.pending_dead_letters.remove(&offset) && self.is_dirty() {
            self.oldest.get_or_insert(now);
        }
    }

    /// Whether the dead-letter topic has not acknowledged all dead letters.
    pub(crate) fn has_pending_dead_letters(&self) -> bool {
        !self.pending_dead_letters.is_empty()
    }

    /// Number of parts that wait for the other parts of their message.
    pub(crate) fn waiting_parts(&self) -> usize {
        self.partial_messages.values().map(|partial| partial.parts.len()).sum()
    }

    /// Bytes of messages in memory: committable ones and parts.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes + self.partial_bytes()
    }

    /// Bytes of messages that the next commit would store.
    pub(crate) fn committable_bytes(&self) -> u64 {
        self.bytes
    }

    /// Offset after the last message.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Arrival of the first message or acknowledgement of a dead letter after the last commit request; absent if there is none.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.oldest
    }

    /// The offset that a commit may record: not past a part of an incomplete message, nor past an unacknowledged dead
    /// letter.
    fn committable_offset(&self) -> u64 {
        let parts = self.partial_messages.values().filter_map(PartialMessage::first_offset);
        parts.chain(self.pending_dead_letters.first().copied()).fold(self.next, u64::min)
    }

    /// Whether a commit would store rows or record a higher offset.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.batch.is_empty() || self.committable_offset() > self.requested
    }

    /// Takes the content of the next commit.
    pub(crate) fn take_commit(&mut self) -> CommitRequest {
        let next = self.committable_offset();
        self.requested = next;
        self.oldest = None;
        self.forget_journals(next);
        let journals = self.journals.iter().map(|(name, journal)| (name.to_string(), journal.next)).collect();
        CommitRequest {
            batch: std::mem::take(&mut self.batch),
            next,
            journals,
            bytes: std::mem::take(&mut self.bytes),
            exchanges: std::mem::take(&mut self.exchanges),
        }
    }

    /// Forgets the journals not seen for longest over [`MAX_JOURNALS`]. It keeps a journal with records past the committed
    /// offset, because a restart reads them again.
    fn forget_journals(&mut self, committed: u64) {
        let excess = self.journals.len().saturating_sub(MAX_JOURNALS);
        if excess == 0 {
            return;
        }
        let old = self.journals.iter();
        let old = old.filter(|(_, journal)| journal.offset.is_none_or(|offset| offset < committed));
        let mut old: Vec<_> = old.map(|(name, journal)| (journal.offset, name.clone())).collect();
        old.sort_unstable();
        for (_, name) in old.into_iter().take(excess) {
            self.journals.remove(&name);
        }
    }
}

fn has_row(records: &[Record]) -> bool {
    records.iter().any(|record| !matches!(record, Record::Chunk { .. }))
}

#[cfg(test)]
mod tests;
