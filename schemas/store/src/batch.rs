//! Batches of records, and their layout as the files of one commit: one set of files per folder, each chunk once per file.
//!
//! Bytes and names only: `commits` writes and commits them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::commit::{folder, utc_date};
use crate::table::{self, Chunk, ExchangeWithChunkRows, Level, Table, TableError, TableRow};
use bytes::Bytes;
use codec::Record;
use schemas::embedding::Embedding;
use schemas::exchange::Exchange;
use schemas::id::{AgentId, SessionId, TenantId};
use schemas::keys::Digest;
use schemas::score::Score;
use schemas::session::SessionClose;
use schemas::trial::Trial;

use crate::checkpoint::segment::SessionHash;
use crate::chunk_index::{ChunkIndex, FastMap};
use crate::error::StoreError;
use crate::keyring::KeyRing;
use crate::plan::BatchPlan;
use crate::row_number::{TooManyRows, row_number};
use crate::snapshot::folder_of;

/// Records for one commit.
///
/// A chunk must be in the same batch as the first exchange that refers to it, or in an earlier one. So a batch ends after an
/// exchange or a close row, never after a chunk.
#[derive(Debug, Default)]
pub struct Batch {
    /// Exchanges; boxed, because they are sorted and moved and have about a kilobyte each.
    pub exchanges: Vec<Box<Exchange>>,
    /// Chunks of their bodies, once per session.
    pub chunks: Vec<(SessionId, Digest, Bytes)>,
    /// Close rows of sessions.
    pub closes: Vec<SessionClose>,
    /// Trials of a run.
    pub trials: Vec<Trial>,
    /// Scores that evaluators gave to trials of a run.
    pub scores: Vec<Score>,
    /// Embeddings of texts of trials of a run.
    pub embeddings: Vec<Embedding>,
}

impl Batch {
    /// Adds a record.
    pub fn push(&mut self, record: Record) {
        match record {
            Record::Chunk { session, digest, bytes } => self.chunks.push((session, digest, bytes)),
            Record::Exchange(exchange) => self.exchanges.push(exchange),
            Record::Close(close) => self.closes.push(*close),
        }
    }

    /// Estimates the payload, bytes, without the sizes of the structures.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let chunks: usize = self.chunks.iter().map(|(_, _, bytes)| bytes.len()).sum();
        let templates =
            self.exchanges.iter().map(|x| x.request.template.len() + x.response.template.len() + 512);
        let reasons = self.scores.iter().map(|score| score.reason.as_deref().map_or(0, str::len));
        let vectors = self.embeddings.iter().map(|embedding| 4 * embedding.vector.len());
        let rows = self.closes.len() + self.trials.len() + self.scores.len() + self.embeddings.len();
        chunks + templates.sum::<usize>() + reasons.sum::<usize>() + vectors.sum::<usize>() + 256 * rows
    }

    /// Returns whether the batch makes no file. Chunks without an exchange make none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.exchanges.is_empty()
            && self.closes.is_empty()
            && self.trials.is_empty()
            && self.scores.is_empty()
            && self.embeddings.is_empty()
    }
}

/// A data file ready to be written.
#[derive(Debug)]
pub(crate) struct EncodedFile {
    pub(crate) table: Table,
    /// Path below the store's root.
    pub(crate) path: String,
    pub(crate) rows: u64,
    pub(crate) bytes: Vec<u8>,
}

/// Tenant, agent and UTC day: the folder of a row.
type FolderKey = (TenantId, AgentId, String);

/// Chunks of the batch that are not in a file yet, by session.
type NewChunks = FastMap<SessionId, SessionChunks>;

/// Chunks of one session that are not in a file yet.
#[derive(Default)]
struct SessionChunks {
    bytes: FastMap<Digest, Bytes>,
    /// Exchanges of the session are in several folders (two agents share it): each folder stores the chunks that it refers to.
    multi_folder: bool,
}

impl SessionChunks {
    fn take(&mut self, digest: &Digest) -> Option<Bytes> {
        if self.multi_folder { self.bytes.get(digest).cloned() } else { self.bytes.remove(digest) }
    }
}

/// Rows of one folder.
#[derive(Default)]
struct Group {
    #[expect(clippy::vec_box, reason = "moved from the batch as they are")]
    exchanges: Vec<Box<Exchange>>,
    references: References,
    chunks: Vec<Chunk>,
    /// Sessions and chunks whose bytes are in `chunks`.
    stored: Vec<(SessionHash, Digest)>,
    /// Rows of `chunks` with bytes neither in this batch nor in a known file, and the session that refers to each.
    missing: Vec<(usize, SessionId)>,
    closes: Vec<SessionClose>,
    trials: Vec<Trial>,
    scores: Vec<Score>,
    embeddings: Vec<Embedding>,
}

impl Group {
    /// Returns the tables that the group has a file of.
    fn tables(&self) -> impl Iterator<Item = Table> {
        let has_exchanges = !self.exchanges.is_empty();
        let tables = [
            (Table::Chunks, has_exchanges && !self.chunks.is_empty()),
            (Table::Exchanges, has_exchanges),
            (Table::Sessions, !self.closes.is_empty()),
            (Table::Trials, !self.trials.is_empty()),
            (Table::Scores, !self.scores.is_empty()),
            (Table::Embeddings, !self.embeddings.is_empty()),
        ];
        tables.into_iter().filter(|(_, has_rows)| *has_rows).map(|(table, _)| table)
    }
}

/// A batch divided by folder, its exchanges referring to rows of their chunks file. All files have one name.
pub(crate) struct BatchLayout {
    name: String,
    groups: BTreeMap<FolderKey, Group>,
}

impl BatchLayout {
    /// Divides a batch. Finds chunks of earlier files in `chunk_index`, and adds the chunks that these files will store.
    ///
    /// # Errors
    /// [`StoreError::TooManyChunks`] if a chunks file would have more rows than its numbers can count.
    pub(crate) fn new(
        mut batch: Batch,
        name: String,
        chunk_index: &mut ChunkIndex,
    ) -> Result<Self, StoreError> {
        chunk_index.evict();
        let mut new_chunks = by_session(std::mem::take(&mut batch.chunks));
        let mut groups = by_folder(batch, &mut new_chunks);
        for group in groups.values_mut() {
            group
                .resolve_chunks(&name, &mut new_chunks, chunk_index)
                .map_err(|TooManyRows| StoreError::TooManyChunks { path: name.clone() })?;
        }
        Ok(Self { name, groups })
    }

    /// Returns the sessions that refer to chunks of unknown files, by folder below the tables.
    pub(crate) fn missing(&self) -> BTreeMap<String, BTreeSet<SessionId>> {
        let mut missing: BTreeMap<String, BTreeSet<SessionId>> = BTreeMap::new();
        for (key, group) in &self.groups {
            if !group.missing.is_empty() {
                let sessions = group.missing.iter().map(|(_, session)| session.clone());
                let path = format!("{}/", path_of(key, Table::Exchanges));
                missing.entry(folder_of(&path).to_owned()).or_default().extend(sessions);
            }
        }
        missing
    }

    /// Names the files of missing chunks that a look-up added to the index.
    pub(crate) fn resolve_missing(&mut self, chunk_index: &ChunkIndex) {
        for group in self.groups.values_mut() {
            for (row, session) in group.missing.drain(..) {
                if let Some(chunk) = group.chunks.get_mut(row) {
                    chunk.stored_in = chunk_index.find(&session, &chunk.digest).map(|file| file.to_string());
                }
            }
        }
    }

    /// Returns the paths of the files, and the chunks that they store by folder.
    pub(crate) fn plan(&self) -> BatchPlan {
        let mut files = Vec::new();
        let mut chunks = BTreeMap::new();
        for (key, group) in &self.groups {
            files.extend(group.tables().map(|table| format!("{}/{}", path_of(key, table), self.name)));
            if !group.stored.is_empty() {
                let mut stored = group.stored.clone();
                stored.sort_unstable();
                stored.dedup();
                let path = format!("{}/", path_of(key, Table::Chunks));
                chunks.insert(folder_of(&path).to_owned(), stored);
            }
        }
        BatchPlan::new(files, chunks)
    }

    /// Encodes the files. Those of tenants in the key ring are encrypted.
    ///
    /// # Errors
    /// A row does not fit its table, or no data key can be made.
    pub(crate) fn encode(self, keys: &KeyRing) -> Result<Vec<EncodedFile>, TableError> {
        let mut files = Files { name: &self.name, keys, encoded: Vec::new() };
        for (key, group) in self.groups {
            group.encode(&key, &mut files)?;
        }
        Ok(files.encoded)
    }
}

fn by_session(unsorted: Vec<(SessionId, Digest, Bytes)>) -> NewChunks {
    let mut new_chunks = NewChunks::default();
    let mut unsorted = unsorted.into_iter().peekable();
    while let Some((session, digest, bytes)) = unsorted.next() {
        // Chunks of one exchange follow each other, so most need no look-up of their session.
        let own = &mut new_chunks.entry(session.clone()).or_default().bytes;
        own.entry(digest).or_insert(bytes);
        while let Some((_, digest, bytes)) = unsorted.next_if(|(other, ..)| *other == session) {
            own.entry(digest).or_insert(bytes);
        }
    }
    new_chunks
}

fn by_folder(mut batch: Batch, new_chunks: &mut NewChunks) -> BTreeMap<FolderKey, Group> {
    batch
        .exchanges
        .sort_by(|a, b| (&a.session, &a.incarnation, a.seq).cmp(&(&b.session, &b.incarnation, b.seq)));
    let mut groups: BTreeMap<FolderKey, Group> = BTreeMap::new();
    let mut exchanges = batch.exchanges.into_iter().peekable();
    let mut before: Option<SessionId> = None;
    while let Some(first) = exchanges.next() {
        if before.as_ref() == Some(&first.session)
            && let Some(own) = new_chunks.get_mut(&first.session)
        {
            own.multi_folder = true;
        }
        let (tenant, agent, started_at) =
            (first.tenant.clone(), first.agent.clone(), first.session_started_at);
        let group = &mut groups.entry(folder_key(&tenant, &agent, started_at)).or_default().exchanges;
        group.push(first);
        // Most exchanges of a session are in one folder.
        while let Some(next) = exchanges.next_if(|next| {
            next.session_started_at == started_at && next.agent == agent && next.tenant == tenant
        }) {
            group.push(next);
        }
        before = group.last().map(|last| last.session.clone());
    }
    for close in batch.closes {
        groups
            .entry(folder_key(&close.tenant, &close.agent, close.started_at))
            .or_default()
            .closes
            .push(close);
    }
    for trial in batch.trials {
        let started_at = trial.started_at.unwrap_or(0);
        groups.entry(folder_key(&trial.tenant, &trial.agent, started_at)).or_default().trials.push(trial);
    }
    // Scores and embeddings of a trial are in the folder of the trial.
    for score in batch.scores {
        let started_at = score.trial_started_at.unwrap_or(0);
        groups.entry(folder_key(&score.tenant, &score.agent, started_at)).or_default().scores.push(score);
    }
    for embedding in batch.embeddings {
        let started_at = embedding.trial_started_at.unwrap_or(0);
        let key = folder_key(&embedding.tenant, &embedding.agent, started_at);
        groups.entry(key).or_default().embeddings.push(embedding);
    }
    groups
}

fn folder_key(tenant: &TenantId, agent: &AgentId, started_at: i64) -> FolderKey {
    (tenant.clone(), agent.clone(), utc_date(started_at))
}

fn path_of((tenant, agent, date): &FolderKey, table: Table) -> String {
    folder(table, tenant, agent, date)
}

impl Group {
    /// Finds the row number of each referenced chunk in the chunks file, and adds that file's rows.
    ///
    /// A row with bytes serves every session of the file. A row that names an earlier file serves only sessions that have
    /// exchanges in that file. A row of a missing chunk serves only the session that refers to it.
    fn resolve_chunks(
        &mut self,
        name: &str,
        new_chunks: &mut NewChunks,
        chunk_index: &mut ChunkIndex,
    ) -> Result<(), TooManyRows> {
        let file: Arc<str> = Arc::from(name);
        let Self { exchanges, references, chunks, stored, missing, .. } = self;
        let mut with_bytes: FastMap<Digest, u32> = FastMap::default();
        let mut in_earlier_file: FastMap<(Digest, Arc<str>), u32> = FastMap::default();
        for exchanges in exchanges.chunk_by(|a, b| a.session == b.session) {
            let Some(session) = exchanges.first().map(|exchange| &exchange.session) else { continue };
            chunk_index.touch(session);
            let hash = SessionHash::of(session);
            let mut own_chunks = new_chunks.get_mut(session);
            let mut taken = Vec::new();
            let mut unknown: FastMap<Digest, u32> = FastMap::default();
            let find = |digest: Digest| {
                let own = own_chunks.as_mut().and_then(|own| own.take(&digest));
                if own.is_some() {
                    taken.push(digest);
                }
                let next = row_number(chunks.len())?;
                let (number, stored_in) = match (with_bytes.get(&digest), &own) {
                    (Some(number), _) => {
                        stored.push((hash, digest));
                        (*number, None)
                    }
                    (None, Some(_)) => {
                        stored.push((hash, digest));
                        (*with_bytes.entry(digest).or_insert(next), None)
                    }
                    (None, None) => match chunk_index.find(session, &digest) {
                        Some(earlier) => {
                            let stored_in = Some(earlier.to_string());
                            (*in_earlier_file.entry((digest, earlier)).or_insert(next), stored_in)
                        }
                        None => (*unknown.entry(digest).or_insert(next), None),
                    },
                };
                if number == next {
                    if own.is_none() && stored_in.is_none() {
                        missing.push((chunks.len(), session.clone()));
                    }
                    chunks.push(Chunk { chunk: number, digest, bytes: own, stored_in });
                }
                Ok(number)
            };
            let bodies = exchanges.iter().map(|x| (&x.request.chunks[..], &x.response.chunks[..]));
            references.add(bodies, find)?;
            if !taken.is_empty() {
                chunk_index.insert(session, taken, &file);
            }
        }
        Ok(())
    }

    fn encode(mut self, key: &FolderKey, files: &mut Files<'_>) -> Result<(), TableError> {
        if !self.exchanges.is_empty() {
            if !self.chunks.is_empty() {
                files.add(key, Table::Chunks, &self.chunks)?;
            }
            files.add(key, Table::Exchanges, &self.references.rows(&self.exchanges))?;
        }
        if !self.closes.is_empty() {
            self.closes.sort_by(|a, b| {
                (&a.session, &a.incarnation, a.closed_at).cmp(&(&b.session, &b.incarnation, b.closed_at))
            });
            files.add(key, Table::Sessions, &self.closes)?;
        }
        if !self.trials.is_empty() {
            self.trials.sort_by(|a, b| (a.lane, &a.case, a.trial).cmp(&(b.lane, &b.case, b.trial)));
            files.add(key, Table::Trials, &self.trials)?;
        }
        if !self.scores.is_empty() {
            self.scores.sort_by(|a, b| {
                (a.lane, &a.case, a.trial, a.priority).cmp(&(b.lane, &b.case, b.trial, b.priority))
            });
            files.add(key, Table::Scores, &self.scores)?;
        }
        if !self.embeddings.is_empty() {
            self.embeddings
                .sort_by(|a, b| (a.lane, &a.case, a.trial, a.turn).cmp(&(b.lane, &b.case, b.trial, b.turn)));
            files.add(key, Table::Embeddings, &self.embeddings)?;
        }
        Ok(())
    }
}

/// Files encoded so far, all of one name.
struct Files<'a> {
    name: &'a str,
    keys: &'a KeyRing,
    encoded: Vec<EncodedFile>,
}

impl Files<'_> {
    fn add<T: TableRow>(&mut self, key: &FolderKey, table: Table, rows: &[T]) -> Result<(), TableError> {
        let options = self.keys.write_options(&key.0, Level::Archive)?;
        let bytes = table::encode(table, rows, &options)?;
        let path = format!("{}/{}", path_of(key, table), self.name);
        self.encoded.push(EncodedFile { table, path, rows: rows.len() as u64, bytes });
        Ok(())
    }
}

/// Row numbers that the bodies of exchanges refer to: per exchange those of its request, then of its response.
#[derive(Default)]
struct References {
    numbers: Vec<u32>,
    ends: Vec<usize>,
}

impl References {
    /// Adds the request and response of each exchange of a session, in their order. `find` returns the row of a chunk.
    ///
    /// A model call repeats the history of the call before with a few chunks inserted. Each request is compared with the
    /// longest one so far in its session: most of its chunks are the next ones there and need no look-up.
    fn add<'a>(
        &mut self,
        exchanges: impl Iterator<Item = (&'a [Digest], &'a [Digest])>,
        mut find: impl FnMut(Digest) -> Result<u32, TooManyRows>,
    ) -> Result<(), TooManyRows> {
        let (mut history, mut rows): (&[Digest], _) = (&[], 0);
        for (request, response) in exchanges {
            let begin = self.numbers.len();
            let (mut known, mut at, mut rest) = (history, rows, request);
            loop {
                let run = known.iter().zip(rest).take_while(|(known, chunk)| known == chunk).count();
                self.numbers.extend_from_within(at..at + run);
                at += run;
                known = known.get(run..).unwrap_or_default();
                let Some((chunk, after)) = rest.get(run..).and_then(<[Digest]>::split_first) else { break };
                self.numbers.push(find(*chunk)?);
                rest = after;
            }
            self.ends.push(self.numbers.len());
            if request.len() >= history.len() {
                (history, rows) = (request, begin);
            }
            for chunk in response {
                self.numbers.push(find(*chunk)?);
            }
            self.ends.push(self.numbers.len());
        }
        Ok(())
    }

    fn of(&self, body: usize) -> &[u32] {
        let begin = body.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        self.ends.get(body).and_then(|end| self.numbers.get(begin..*end)).unwrap_or_default()
    }

    /// Pairs the exchanges with their references.
    fn rows<'a>(&'a self, exchanges: &'a [Box<Exchange>]) -> Vec<ExchangeWithChunkRows<'a>> {
        let rows = exchanges.iter().enumerate().map(|(place, exchange)| ExchangeWithChunkRows {
            exchange: &**exchange,
            request: self.of(2 * place),
            response: self.of(2 * place + 1),
        });
        rows.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_history_reuses_the_rows_of_the_one_before() {
        let list = |of: &[u8]| of.iter().map(|byte| Digest([*byte; 16])).collect::<Vec<_>>();
        let requests: [&[u8]; 8] = [
            &[],
            &[1, 2, 8, 9],
            &[8],
            &[1, 2, 3, 8, 9],
            &[1, 2, 3, 8, 9],
            &[2, 1, 2, 3],
            &[1, 2],
            &[1, 4, 2, 3],
        ];
        let (requests, response) = (requests.map(list), list(&[7]));
        let (mut references, mut looked_up) = (References::default(), Vec::new());
        let added = references.add(requests.iter().map(|request| (&request[..], &response[..])), |chunk| {
            looked_up.push(chunk.0[0]);
            Ok(10 * u32::from(chunk.0[0]))
        });
        assert_eq!(added, Ok(()));
        for (place, request) in requests.iter().enumerate() {
            let expected: Vec<u32> = request.iter().map(|chunk| 10 * u32::from(chunk.0[0])).collect();
            assert_eq!((references.of(2 * place), references.of(2 * place + 1)), (&expected[..], &[70][..]));
        }
        let expected: [&[u8]; 8] = [&[7], &[1, 2, 8, 9, 7], &[8, 7], &[3, 7], &[7], &[2, 7], &[7], &[4, 7]];
        assert_eq!(looked_up, expected.concat());
    }
}
