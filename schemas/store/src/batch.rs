//! A batch of records as the files of one commit: grouped by folder, each distinct piece stored once a file.
//!
//! Pure: it makes bytes and names; writing and committing them is `store`'s.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::commit::{folder, utc_date};
use crate::table::{self, Chunk, ExchangeWithChunkRows, Level, Row, Table, TableError};
use bytes::Bytes;
use codec::Record;
use schemas::embedding::Embedding;
use schemas::exchange::Exchange;
use schemas::id::{AgentId, SessionId, TenantId};
use schemas::keys::Digest;
use schemas::score::Score;
use schemas::session::SessionClose;
use schemas::trial::Trial;

use crate::chunk_index::{ChunkIndex, FastMap};
use crate::keyring::KeyRing;

/// Records on their way into one commit.
///
/// A piece must lie in the same batch as the first exchange that refers to it, so a batch is cut after an exchange or a
/// close row, never after a piece.
#[derive(Debug, Default)]
pub struct Batch {
    /// Exchanges; boxed, for they are sorted and handed on, and each is a kilobyte.
    pub exchanges: Vec<Box<Exchange>>,
    /// Pieces of their bodies, each once a session.
    pub pieces: Vec<(SessionId, Digest, Bytes)>,
    /// Close rows.
    pub closes: Vec<SessionClose>,
    /// Trials, in a run.
    pub trials: Vec<Trial>,
    /// What evaluators say of trials, in a run.
    pub scores: Vec<Score>,
    /// Texts of trials as vectors, in a run.
    pub embeddings: Vec<Embedding>,
}

impl Batch {
    /// Adds a record.
    pub fn push(&mut self, record: Record) {
        match record {
            Record::Chunk { session, digest, bytes } => self.pieces.push((session, digest, bytes)),
            Record::Exchange(exchange) => self.exchanges.push(exchange),
            Record::Close(close) => self.closes.push(*close),
        }
    }

    /// About how many bytes it holds: payloads, not the sizes of the structures.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let pieces: usize = self.pieces.iter().map(|(_, _, bytes)| bytes.len()).sum();
        let skeletons =
            self.exchanges.iter().map(|x| x.request.template.len() + x.response.template.len() + 512);
        let reasons = self.scores.iter().map(|score| score.reason.as_deref().map_or(0, str::len));
        let vectors = self.embeddings.iter().map(|embedding| 4 * embedding.vector.len());
        let rows = self.closes.len() + self.trials.len() + self.scores.len() + self.embeddings.len();
        pieces + skeletons.sum::<usize>() + reasons.sum::<usize>() + vectors.sum::<usize>() + 256 * rows
    }

    /// Whether it holds nothing that makes a file.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.exchanges.is_empty()
            && self.closes.is_empty()
            && self.trials.is_empty()
            && self.scores.is_empty()
            && self.embeddings.is_empty()
    }
}

/// One file to be written.
#[derive(Debug)]
pub(crate) struct EncodedFile {
    /// Its table.
    pub table: Table,
    /// Its path below the root.
    pub path: String,
    /// Its rows.
    pub rows: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Tenant, agent and folder date: what decides where a row lies.
type PartitionDir = (TenantId, AgentId, String);

/// The pieces of each session that are not in a file yet.
type Pieces = FastMap<SessionId, OwnPieces>;

/// The pieces of one session.
#[derive(Default)]
struct OwnPieces {
    bytes: FastMap<Digest, Bytes>,
    /// Its exchanges lie in several folders (two agents, one session), and each keeps the pieces that it refers to.
    multi_folder: bool,
}

impl OwnPieces {
    fn take(&mut self, digest: &Digest) -> Option<Bytes> {
        if self.multi_folder { self.bytes.get(digest).cloned() } else { self.bytes.remove(digest) }
    }
}

/// The rows of one folder.
#[derive(Default)]
struct Group {
    #[expect(clippy::vec_box, reason = "as in a batch")]
    exchanges: Vec<Box<Exchange>>,
    references: References,
    chunks: Vec<Chunk>,
    /// Rows of `chunks` whose bytes are neither here nor in a file that is known, and the session that wants each.
    missing: Vec<(usize, SessionId)>,
    closes: Vec<SessionClose>,
    trials: Vec<Trial>,
    scores: Vec<Score>,
    embeddings: Vec<Embedding>,
}

/// A batch on its way into files, all of one name: divided by folder, each exchange with the rows of its pieces.
pub(crate) struct BatchLayout {
    name: String,
    groups: BTreeMap<PartitionDir, Group>,
}

impl BatchLayout {
    /// Divides a batch; `chunk_index` is asked for pieces of earlier files and told of those that these files will hold.
    pub(crate) fn new(mut batch: Batch, name: String, chunk_index: &mut ChunkIndex) -> Self {
        chunk_index.evict();
        let mut pieces = by_session(std::mem::take(&mut batch.pieces));
        let mut groups = by_folder(batch, &mut pieces);
        for group in groups.values_mut() {
            group.resolve_chunks(&name, &mut pieces, chunk_index);
        }
        Self { name, groups }
    }

    /// The sessions whose earlier files are to be looked for, by folder of exchanges.
    pub(crate) fn missing(&self) -> BTreeMap<String, BTreeSet<SessionId>> {
        let mut missing: BTreeMap<String, BTreeSet<SessionId>> = BTreeMap::new();
        for (dir, group) in &self.groups {
            if !group.missing.is_empty() {
                let sessions = group.missing.iter().map(|(_, session)| session.clone());
                missing.entry(folder_of(dir, Table::Exchanges)).or_default().extend(sessions);
            }
        }
        missing
    }

    /// Names the files of what was missing, now that they were looked for.
    pub(crate) fn resolve_missing(&mut self, chunk_index: &ChunkIndex) {
        for group in self.groups.values_mut() {
            for (row, session) in group.missing.drain(..) {
                if let Some(chunk) = group.chunks.get_mut(row) {
                    chunk.stored_in = chunk_index.find(&session, &chunk.digest).map(|file| file.to_string());
                }
            }
        }
    }

    /// Makes the files. Those of tenants in the key ring are encrypted.
    ///
    /// # Errors
    /// A row does not fit its table, or no data key can be made.
    pub(crate) fn encode(self, keys: &KeyRing) -> Result<Vec<EncodedFile>, TableError> {
        let mut files = Files { name: &self.name, keys, made: Vec::new() };
        for (dir, group) in self.groups {
            group.encode(&dir, &mut files)?;
        }
        Ok(files.made)
    }
}

fn by_session(unsorted: Vec<(SessionId, Digest, Bytes)>) -> Pieces {
    let mut pieces = Pieces::default();
    let mut unsorted = unsorted.into_iter().peekable();
    while let Some((session, digest, bytes)) = unsorted.next() {
        // Pieces of one exchange come one after another.
        let own = &mut pieces.entry(session.clone()).or_default().bytes;
        own.entry(digest).or_insert(bytes);
        while let Some((_, digest, bytes)) = unsorted.next_if(|(other, ..)| *other == session) {
            own.entry(digest).or_insert(bytes);
        }
    }
    pieces
}

fn by_folder(mut batch: Batch, pieces: &mut Pieces) -> BTreeMap<PartitionDir, Group> {
    batch
        .exchanges
        .sort_by(|a, b| (&a.session, &a.incarnation, a.seq).cmp(&(&b.session, &b.incarnation, b.seq)));
    let mut groups: BTreeMap<PartitionDir, Group> = BTreeMap::new();
    let mut exchanges = batch.exchanges.into_iter().peekable();
    let mut before: Option<SessionId> = None;
    while let Some(first) = exchanges.next() {
        if before.as_ref() == Some(&first.session)
            && let Some(own) = pieces.get_mut(&first.session)
        {
            own.multi_folder = true;
        }
        let (tenant, agent, started_at) =
            (first.tenant.clone(), first.agent.clone(), first.session_started_at);
        let group = &mut groups.entry(dir(&tenant, &agent, started_at)).or_default().exchanges;
        group.push(first);
        // Those of one session mostly lie together.
        while let Some(next) = exchanges.next_if(|next| {
            next.session_started_at == started_at && next.agent == agent && next.tenant == tenant
        }) {
            group.push(next);
        }
        before = group.last().map(|last| last.session.clone());
    }
    for close in batch.closes {
        groups.entry(dir(&close.tenant, &close.agent, close.started_at)).or_default().closes.push(close);
    }
    for trial in batch.trials {
        let started_at = trial.started_at.unwrap_or(0);
        groups.entry(dir(&trial.tenant, &trial.agent, started_at)).or_default().trials.push(trial);
    }
    // What is said of a trial lies where the trial lies.
    for score in batch.scores {
        let started_at = score.trial_started_at.unwrap_or(0);
        groups.entry(dir(&score.tenant, &score.agent, started_at)).or_default().scores.push(score);
    }
    for embedding in batch.embeddings {
        let started_at = embedding.trial_started_at.unwrap_or(0);
        let dir = dir(&embedding.tenant, &embedding.agent, started_at);
        groups.entry(dir).or_default().embeddings.push(embedding);
    }
    groups
}

fn dir(tenant: &TenantId, agent: &AgentId, started_at: i64) -> PartitionDir {
    (tenant.clone(), agent.clone(), utc_date(started_at))
}

fn folder_of((tenant, agent, date): &PartitionDir, table: Table) -> String {
    folder(table, tenant, agent, date)
}

impl Group {
    /// Finds for each digest the row number in the chunks file, and makes that file's rows.
    ///
    /// A row with bytes serves every session in the file; a row that leans serves only those whose own earlier file it
    /// names, and a row that is missing only the session that wants it.
    fn resolve_chunks(&mut self, name: &str, pieces: &mut Pieces, chunk_index: &mut ChunkIndex) {
        let file: Arc<str> = Arc::from(name);
        let Self { exchanges, references, chunks, missing, .. } = self;
        let mut with_bytes: FastMap<Digest, u32> = FastMap::default();
        let mut leant: FastMap<(Digest, Arc<str>), u32> = FastMap::default();
        for exchanges in exchanges.chunk_by(|a, b| a.session == b.session) {
            let Some(session) = exchanges.first().map(|exchange| &exchange.session) else { continue };
            chunk_index.touch(session);
            let mut own_pieces = pieces.get_mut(session);
            let mut taken = Vec::new();
            let mut unknown: FastMap<Digest, u32> = FastMap::default();
            let find = |digest: Digest| {
                let own = own_pieces.as_mut().and_then(|own| own.take(&digest));
                if own.is_some() {
                    taken.push(digest);
                }
                let next = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
                let (number, stored_in) = match (with_bytes.get(&digest), &own) {
                    (Some(number), _) => (*number, None),
                    (None, Some(_)) => (*with_bytes.entry(digest).or_insert(next), None),
                    (None, None) => match chunk_index.find(session, &digest) {
                        Some(earlier) => {
                            let stored_in = Some(earlier.to_string());
                            (*leant.entry((digest, earlier)).or_insert(next), stored_in)
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
                number
            };
            let bodies = exchanges.iter().map(|x| (&x.request.chunks[..], &x.response.chunks[..]));
            references.add(bodies, find);
            if !taken.is_empty() {
                chunk_index.insert(session, taken, &file);
            }
        }
    }

    fn encode(mut self, dir: &PartitionDir, files: &mut Files<'_>) -> Result<(), TableError> {
        if !self.exchanges.is_empty() {
            if !self.chunks.is_empty() {
                files.add(dir, Table::Chunks, &self.chunks)?;
            }
            files.add(dir, Table::Exchanges, &self.references.rows(&self.exchanges))?;
        }
        if !self.closes.is_empty() {
            self.closes.sort_by(|a, b| {
                (&a.session, &a.incarnation, a.closed_at).cmp(&(&b.session, &b.incarnation, b.closed_at))
            });
            files.add(dir, Table::Sessions, &self.closes)?;
        }
        if !self.trials.is_empty() {
            self.trials.sort_by(|a, b| (a.lane, &a.case, a.trial).cmp(&(b.lane, &b.case, b.trial)));
            files.add(dir, Table::Trials, &self.trials)?;
        }
        if !self.scores.is_empty() {
            self.scores.sort_by(|a, b| {
                (a.lane, &a.case, a.trial, a.priority).cmp(&(b.lane, &b.case, b.trial, b.priority))
            });
            files.add(dir, Table::Scores, &self.scores)?;
        }
        if !self.embeddings.is_empty() {
            self.embeddings
                .sort_by(|a, b| (a.lane, &a.case, a.trial, a.turn).cmp(&(b.lane, &b.case, b.trial, b.turn)));
            files.add(dir, Table::Embeddings, &self.embeddings)?;
        }
        Ok(())
    }
}

/// The files made so far, all of one name.
struct Files<'a> {
    name: &'a str,
    keys: &'a KeyRing,
    made: Vec<EncodedFile>,
}

impl Files<'_> {
    fn add<T: Row>(&mut self, dir: &PartitionDir, table: Table, rows: &[T]) -> Result<(), TableError> {
        let options = self.keys.write_options(&dir.0, Level::Archive)?;
        let bytes = table::encode(table, rows, &options)?;
        let path = format!("{}/{}", folder_of(dir, table), self.name);
        self.made.push(EncodedFile { table, path, rows: rows.len() as u64, bytes });
        Ok(())
    }
}

/// The row numbers that the bodies of exchanges refer to: of each exchange those of its request, then of its response.
#[derive(Default)]
struct References {
    numbers: Vec<u32>,
    ends: Vec<usize>,
}

impl References {
    /// Adds the request and response of each exchange of a session, in their order; `find` says the row of a piece.
    ///
    /// A model call repeats the history of the one before it with a few pieces put in. So each request is compared with
    /// the longest one so far in its session, and most of its pieces are the next ones there, and need no looking up.
    fn add<'a>(
        &mut self,
        exchanges: impl Iterator<Item = (&'a [Digest], &'a [Digest])>,
        mut find: impl FnMut(Digest) -> u32,
    ) {
        let (mut history, mut rows): (&[Digest], _) = (&[], 0);
        for (request, response) in exchanges {
            let begin = self.numbers.len();
            let (mut known, mut at, mut rest) = (history, rows, request);
            loop {
                let run = known.iter().zip(rest).take_while(|(known, piece)| known == piece).count();
                self.numbers.extend_from_within(at..at + run);
                at += run;
                known = known.get(run..).unwrap_or_default();
                let Some((piece, after)) = rest.get(run..).and_then(<[Digest]>::split_first) else { break };
                self.numbers.push(find(*piece));
                rest = after;
            }
            self.ends.push(self.numbers.len());
            if request.len() >= history.len() {
                (history, rows) = (request, begin);
            }
            self.numbers.extend(response.iter().map(|piece| find(*piece)));
            self.ends.push(self.numbers.len());
        }
    }

    fn of(&self, body: usize) -> &[u32] {
        let begin = body.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        self.ends.get(body).and_then(|end| self.numbers.get(begin..*end)).unwrap_or_default()
    }

    /// The exchanges that the references were made of, with them.
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
    fn a_history_that_goes_on_is_found_in_the_one_before() {
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
        references.add(requests.iter().map(|request| (&request[..], &response[..])), |piece| {
            looked_up.push(piece.0[0]);
            10 * u32::from(piece.0[0])
        });
        for (place, request) in requests.iter().enumerate() {
            let expected: Vec<u32> = request.iter().map(|piece| 10 * u32::from(piece.0[0])).collect();
            assert_eq!((references.of(2 * place), references.of(2 * place + 1)), (&expected[..], &[70][..]));
        }
        let expected: [&[u8]; 8] = [&[7], &[1, 2, 8, 9, 7], &[8, 7], &[3, 7], &[7], &[2, 7], &[7], &[4, 7]];
        assert_eq!(looked_up, expected.concat());
    }
}
