//! What was read of one partition and is not committed: records of whole parcels, parts of unfinished ones, and how far
//! a commit may say that the partition is stored.
//!
//! Pure: it reads no clock and speaks to nobody. A record is new where its position is not before what is known of its
//! journal; therefore a batch may hold records from behind its cut, for they are known when the archiver goes on from the
//! cut, and pass as sent again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use codec::{MessageValueView, Record, RecordDecoder};
use store::Batch;

/// Journals that are remembered in a partition. Of one that was forgotten (the longest unseen first) a record that is
/// sent again is stored again.
pub(crate) const MAX_JOURNALS: usize = 1024;

/// Bytes of parts that wait in a partition for the rest of their parcels; beyond, the oldest go to the dead letters.
pub(crate) const MAX_SPLIT_BYTES: u64 = 64 << 20;

/// How long parts wait at the end of a partition for the rest of their parcel before they go to the dead letters.
pub(crate) const SPLIT_PATIENCE: Duration = Duration::from_secs(600);

/// A message that cannot become records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeadLetter {
    /// Its offset in the source partition.
    pub(crate) offset: u64,
    /// Its key, as it came.
    pub(crate) key: Vec<u8>,
    /// Its value, as it came.
    pub(crate) payload: Vec<u8>,
    /// Why it cannot be read.
    pub(crate) reason: String,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It was read before; nothing changed.
    Passed,
    /// Its record is known, so it was sent again; dropped.
    Redelivered,
    /// It waits for the rest of its parcel.
    Part,
    /// Its record is gathered: an exchange, or a close row.
    Gathered,
    /// It, or parts before it, are dead letters ([`Gathering::buried`]).
    Buried,
}

/// What is ready for one commit.
#[derive(Debug)]
pub(crate) struct Ready {
    /// The records.
    pub(crate) batch: Batch,
    /// Up to where the partition is stored with them.
    pub(crate) next: u64,
    /// Of each journal, how far it is stored with them.
    pub(crate) journals: BTreeMap<String, u64>,
    /// Bytes of the messages that they came in.
    pub(crate) bytes: u64,
    /// How many exchanges.
    pub(crate) exchanges: u64,
}

#[derive(Debug)]
struct Seen {
    next: u64,
    /// Offset of the last message; what the claim brought has none.
    offset: Option<u64>,
}

#[derive(Debug)]
struct Part {
    offset: u64,
    key: Vec<u8>,
    payload: Vec<u8>,
}

/// Parts of one parcel, from part 0 on without a gap.
#[derive(Debug)]
struct Split {
    position: u64,
    parts: Vec<Part>,
    bytes: u64,
    /// When its last part came, or reading went on after a stop.
    since: Instant,
}

/// Records of one partition on their way into a commit.
#[derive(Debug)]
pub(crate) struct Gathering {
    /// Up to where the partition is stored, once what was taken is committed.
    stored: u64,
    /// Offset after the last message.
    next: u64,
    /// Begun anew with each batch: no text is shared with what another thread is writing.
    reader: RecordDecoder,
    batch: Batch,
    bytes: u64,
    exchanges: u64,
    /// When the first message came that is not in a batch that was taken.
    since: Option<Instant>,
    journals: HashMap<Arc<str>, Seen>,
    splits: HashMap<Arc<str>, Split>,
    buried: Vec<DeadLetter>,
    /// Offsets of dead letters that are not known to lie in their topic.
    unburied: BTreeSet<u64>,
}

impl Gathering {
    /// Begins where a claim says.
    pub(crate) fn new(position: u64, journals: &BTreeMap<String, u64>) -> Self {
        let seen =
            |(name, next): (&String, &u64)| (Arc::from(name.as_str()), Seen { next: *next, offset: None });
        Self {
            stored: position,
            next: position,
            reader: RecordDecoder::default(),
            batch: Batch::default(),
            bytes: 0,
            exchanges: 0,
            since: None,
            journals: journals.iter().map(seen).collect(),
            splits: HashMap::new(),
            buried: Vec::new(),
            unburied: BTreeSet::new(),
        }
    }

    /// Takes the next message of the partition.
    pub(crate) fn push(&mut self, offset: u64, key: &[u8], payload: &[u8], now: Instant) -> Taken {
        if offset < self.next {
            return Taken::Passed;
        }
        self.next = offset + 1;
        self.since.get_or_insert(now);
        let message = || Part { offset, key: key.to_vec(), payload: payload.to_vec() };
        let parcel = match MessageValueView::decode(payload) {
            Ok(parcel) => parcel,
            Err(error) => return self.bury(message(), &error.to_string()),
        };
        if self.journals.get(parcel.journal).is_some_and(|seen| parcel.position < seen.next) {
            return Taken::Redelivered;
        }
        let waiting = self.splits.get(parcel.journal).map(|split| split.position);
        if waiting.is_some_and(|position| position < parcel.position) {
            self.give_up(parcel.journal, "a later record of its journal came before its last part");
        }
        if parcel.parts > 1 {
            return self.take_part(&parcel, message(), now);
        }
        // A journal that sends a record whole has begun again: parts of it are of no use.
        self.splits.remove(parcel.journal);
        match self.reader.records(parcel.content) {
            Ok(records) if holds_a_row(&records) => {
                self.finish(parcel.journal, parcel.position, records, parcel.content.len())
            }
            Ok(_) => self.bury(message(), NO_ROW),
            Err(error) => self.bury(message(), &error.to_string()),
        }
    }

    fn take_part(&mut self, parcel: &MessageValueView<'_>, part: Part, now: Instant) -> Taken {
        if parcel.part == 0 {
            // The journal has begun again with this record, or with one before it.
            let split = Split { position: parcel.position, parts: Vec::new(), bytes: 0, since: now };
            self.splits.insert(Arc::from(parcel.journal), split);
        }
        let split = self.splits.get_mut(parcel.journal);
        let Some(split) = split.filter(|split| split.position == parcel.position) else {
            return self.bury(part, "a part that came without the parts before it");
        };
        if (parcel.part as usize) < split.parts.len() {
            return Taken::Redelivered;
        }
        if parcel.part as usize > split.parts.len() {
            return self.bury(part, "a part that came without the part before it");
        }
        split.bytes += part.payload.len() as u64;
        split.since = now;
        split.parts.push(part);
        if parcel.part + 1 == parcel.parts {
            return self.join(parcel.journal, parcel.position);
        }
        while self.split_bytes() > MAX_SPLIT_BYTES
            && let Some(oldest) = self.oldest_split()
        {
            self.give_up(&oldest, "the parts of unfinished records are more than are kept");
        }
        Taken::Part
    }

    /// Puts a split parcel together.
    fn join(&mut self, journal: &str, position: u64) -> Taken {
        let parts = self.splits.remove(journal).map(|split| split.parts).unwrap_or_default();
        let mut content = Vec::new();
        for part in &parts {
            match MessageValueView::decode(&part.payload) {
                Ok(parcel) => content.extend_from_slice(parcel.content),
                Err(error) => return self.bury_all(parts, &error.to_string()),
            }
        }
        match self.reader.records(&content) {
            Ok(records) if holds_a_row(&records) => self.finish(journal, position, records, content.len()),
            Ok(_) => self.bury_all(parts, NO_ROW),
            Err(error) => self.bury_all(parts, &error.to_string()),
        }
    }

    fn finish(&mut self, journal: &str, position: u64, records: Vec<Record>, bytes: usize) -> Taken {
        let mut exchanges = 0;
        for record in records {
            exchanges += u64::from(matches!(record, Record::Exchange(_)));
            self.batch.push(record);
        }
        self.bytes += bytes as u64;
        self.exchanges += exchanges;
        let seen = Seen { next: position + 1, offset: Some(self.next - 1) };
        match self.journals.get_mut(journal) {
            Some(known) => *known = seen,
            None => {
                self.journals.insert(Arc::from(journal), seen);
            }
        }
        Taken::Gathered
    }

    fn bury(&mut self, message: Part, reason: &str) -> Taken {
        self.bury_all(vec![message], reason)
    }

    fn bury_all(&mut self, messages: Vec<Part>, reason: &str) -> Taken {
        for Part { offset, key, payload } in messages {
            self.unburied.insert(offset);
            self.buried.push(DeadLetter { offset, key, payload, reason: reason.to_owned() });
        }
        Taken::Buried
    }

    /// Sends the parts of a journal's unfinished record to the dead letters. Sent again from its first part, the record
    /// is taken.
    fn give_up(&mut self, journal: &str, reason: &str) {
        if let Some(split) = self.splits.remove(journal) {
            self.bury_all(split.parts, reason);
        }
    }

    fn oldest_split(&self) -> Option<Arc<str>> {
        let oldest = self.splits.iter().min_by_key(|(_, split)| split.first());
        oldest.map(|(journal, _)| journal.clone())
    }

    fn split_bytes(&self) -> u64 {
        self.splits.values().map(|split| split.bytes).sum()
    }

    /// Gives up on parts that have waited for [`SPLIT_PATIENCE`]; only for a partition that is read to its end.
    pub(crate) fn expire(&mut self, now: Instant) {
        let old = |split: &Split| now.saturating_duration_since(split.since) >= SPLIT_PATIENCE;
        while let Some(journal) = self.splits.iter().find_map(|(journal, s)| old(s).then(|| journal.clone()))
        {
            self.give_up(&journal, "the rest of its parts did not come");
        }
    }

    /// Lets parts wait anew: time in which nothing was read does not count.
    pub(crate) fn wait_anew(&mut self, now: Instant) {
        for split in self.splits.values_mut() {
            split.since = now;
        }
    }

    /// The dead letters since the last call.
    pub(crate) fn buried(&mut self) -> Vec<DeadLetter> {
        std::mem::take(&mut self.buried)
    }

    /// A dead letter lies in its topic.
    pub(crate) fn confirm_buried(&mut self, offset: u64) {
        self.unburied.remove(&offset);
    }

    /// Whether dead letters are not known to lie in their topic.
    pub(crate) fn awaits_burial(&self) -> bool {
        !self.unburied.is_empty()
    }

    /// How many messages wait for the rest of their parcels.
    pub(crate) fn waiting_parts(&self) -> usize {
        self.splits.values().map(|split| split.parts.len()).sum()
    }

    /// Bytes that can be committed, or wait for parts.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes + self.split_bytes()
    }

    /// Bytes that can be committed.
    pub(crate) fn ready_bytes(&self) -> u64 {
        self.bytes
    }

    /// Offset after the last message.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// When the first message came that is not in a batch that was taken.
    pub(crate) fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Up to where a commit may say that the partition is stored: not past the parts of an unfinished record, nor past a
    /// dead letter that is not known to lie in its topic.
    fn cut(&self) -> u64 {
        let blocked = self.splits.values().filter_map(Split::first).chain(self.unburied.first().copied());
        blocked.fold(self.next, u64::min)
    }

    /// Whether a commit would store records or move on.
    pub(crate) fn has_news(&self) -> bool {
        !self.batch.is_empty() || self.cut() > self.stored
    }

    /// Takes what can be committed.
    pub(crate) fn take(&mut self) -> Ready {
        let next = self.cut();
        self.stored = next;
        self.since = None;
        self.forget_journals(next);
        self.reader = RecordDecoder::default();
        let journals = self.journals.iter().map(|(name, seen)| (name.to_string(), seen.next)).collect();
        Ready {
            batch: std::mem::take(&mut self.batch),
            next,
            journals,
            bytes: std::mem::take(&mut self.bytes),
            exchanges: std::mem::take(&mut self.exchanges),
        }
    }

    /// Forgets the longest unseen journals over the bound; never one whose records lie behind the cut, for they will be
    /// read again.
    fn forget_journals(&mut self, cut: u64) {
        let over = self.journals.len().saturating_sub(MAX_JOURNALS);
        if over == 0 {
            return;
        }
        let old = self.journals.iter().filter(|(_, seen)| seen.offset.is_none_or(|offset| offset < cut));
        let mut old: Vec<_> = old.map(|(name, seen)| (seen.offset, name.clone())).collect();
        old.sort_unstable();
        for (_, name) in old.into_iter().take(over) {
            self.journals.remove(&name);
        }
    }
}

/// Why a parcel of pieces alone is a dead letter.
const NO_ROW: &str = "it holds neither an exchange nor a close row";

impl Split {
    fn first(&self) -> Option<u64> {
        self.parts.first().map(|part| part.offset)
    }
}

fn holds_a_row(records: &[Record]) -> bool {
    records.iter().any(|record| !matches!(record, Record::Chunk { .. }))
}

#[cfg(test)]
mod tests;
