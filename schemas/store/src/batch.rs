//! A batch of records as the files of one commit: grouped by folder, each distinct piece stored once a file.
//!
//! Pure: it makes bytes and names; writing and committing them is `lake`'s.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use schemas::commit::{escape, folder};
use schemas::embedding::Embedding;
use schemas::exchange::Exchange;
use schemas::id::{AgentId, SessionId, TenantId};
use schemas::keys::Digest;
use schemas::record::Record;
use schemas::score::Score;
use schemas::session::SessionClose;
use schemas::table::{self, Chunk, Level, Numbered, Row, Table, TableError};
use schemas::trial::Trial;

use crate::keyring::KeyRing;

/// Pieces of open sessions that [`Leaning`] carries from one batch to the next; past that it forgets all of them, and what
/// is forgotten is looked up in the store again.
const MAX_LEANING_PIECES: usize = 1_000_000;

/// Records on their way into one commit.
///
/// A piece must lie in the same batch as the first exchange that refers to it, so a batch is cut after an exchange or a
/// close row, never after a piece.
#[derive(Debug, Default)]
pub struct Batch {
    /// Exchanges; boxed, for they are sorted and handed on, and each is a kilobyte.
    pub exchanges: Vec<Box<Exchange>>,
    /// Pieces of their bodies, each once a session.
    pub pieces: Vec<(SessionId, Digest, Vec<u8>)>,
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
            Record::Piece { session, digest, bytes } => self.pieces.push((session, digest, bytes)),
            Record::Exchange(exchange) => self.exchanges.push(exchange),
            Record::Close(close) => self.closes.push(*close),
        }
    }

    /// About how many bytes it holds: payloads, not the sizes of the structures.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let pieces: usize = self.pieces.iter().map(|(_, _, bytes)| bytes.len()).sum();
        let skeletons =
            self.exchanges.iter().map(|x| x.request.skeleton.len() + x.response.skeleton.len() + 512);
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

/// Which earlier file holds which piece of which open session.
#[derive(Debug)]
pub struct Leaning {
    sessions: QuickMap<SessionId, QuickMap<Digest, Arc<str>>>,
    pieces: usize,
    carried: usize,
}

impl Default for Leaning {
    fn default() -> Self {
        Self::carrying(MAX_LEANING_PIECES)
    }
}

impl Leaning {
    /// One that carries up to so many pieces from one batch to the next.
    #[must_use]
    pub fn carrying(pieces: usize) -> Self {
        Self { sessions: QuickMap::default(), pieces: 0, carried: pieces }
    }

    /// Forgets all it knows if that is too much. Only before a batch: what is found for a batch must last until it is
    /// encoded.
    pub(crate) fn begin_batch(&mut self) {
        if self.pieces > self.carried {
            self.sessions.clear();
            self.pieces = 0;
        }
    }

    /// The earlier file that holds the piece, by its name in the session's folder.
    #[must_use]
    pub fn find(&self, session: &SessionId, digest: &Digest) -> Option<Arc<str>> {
        self.sessions.get(session)?.get(digest).cloned()
    }

    /// The earlier files that hold pieces of the session.
    pub(crate) fn of(&self, session: &SessionId) -> Option<&QuickMap<Digest, Arc<str>>> {
        self.sessions.get(session)
    }

    /// Remembers where a piece lies.
    pub fn insert(&mut self, session: &SessionId, digest: Digest, file: Arc<str>) {
        self.insert_all(session, [digest], &file);
    }

    /// Remembers that all of these pieces lie in one file.
    fn insert_all(
        &mut self,
        session: &SessionId,
        digests: impl IntoIterator<Item = Digest>,
        file: &Arc<str>,
    ) {
        let known = self.sessions.entry(session.clone()).or_default();
        let digests = digests.into_iter();
        known.reserve(digests.size_hint().0);
        for digest in digests {
            if known.insert(digest, file.clone()).is_none() {
                self.pieces += 1;
            }
        }
    }

    /// Forgets a session.
    pub fn forget(&mut self, session: &SessionId) {
        if let Some(pieces) = self.sessions.remove(session) {
            self.pieces -= pieces.len();
        }
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
type Home = (TenantId, AgentId, String);

/// Looked up for every reference of every body, so it hashes quickly.
pub(crate) type QuickMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// The pieces of each session that are not in a file yet.
type Pieces = QuickMap<SessionId, OwnPieces>;

/// The pieces of one session.
pub(crate) type OwnPieces = QuickMap<Digest, Vec<u8>>;

#[derive(Default)]
struct Group {
    #[expect(clippy::vec_box, reason = "as in a batch")]
    exchanges: Vec<Box<Exchange>>,
    closes: Vec<SessionClose>,
    trials: Vec<Trial>,
    scores: Vec<Score>,
    embeddings: Vec<Embedding>,
}

/// A batch whose exchanges stand by session, incarnation and number, with the pieces of each session at hand.
pub(crate) struct Sorted {
    batch: Batch,
    pieces: Pieces,
}

impl Sorted {
    pub(crate) fn new(mut batch: Batch) -> Self {
        let mut pieces = Pieces::default();
        let mut unsorted = std::mem::take(&mut batch.pieces).into_iter().peekable();
        while let Some((session, digest, bytes)) = unsorted.next() {
            // Pieces of one exchange come one after another.
            let own = pieces.entry(session.clone()).or_default();
            own.entry(digest).or_insert(bytes);
            while let Some((_, digest, bytes)) = unsorted.next_if(|(other, ..)| *other == session) {
                own.entry(digest).or_insert(bytes);
            }
        }
        batch
            .exchanges
            .sort_by(|a, b| (&a.session, &a.incarnation, a.seq).cmp(&(&b.session, &b.incarnation, b.seq)));
        Self { batch, pieces }
    }

    /// The sessions that have exchanges here: these, and the pieces that came with them.
    pub(crate) fn sessions(&self) -> impl Iterator<Item = (&[Box<Exchange>], Option<&OwnPieces>)> {
        let sessions = self.batch.exchanges.chunk_by(|a, b| a.session == b.session);
        sessions.map(|exchanges| {
            (exchanges, exchanges.first().and_then(|exchange| self.pieces.get(&exchange.session)))
        })
    }

    /// The close rows.
    pub(crate) fn closes(&self) -> &[SessionClose] {
        &self.batch.closes
    }
}

/// Makes the files of a batch, all named `name` in their folders; `leaning` is asked for pieces of earlier files and
/// told of those in these. Files of tenants in the key ring are encrypted.
///
/// # Errors
/// A row does not fit its table, or no data key can be made.
pub(crate) fn encode(
    sorted: Sorted,
    name: &str,
    leaning: &mut Leaning,
    keys: &KeyRing,
) -> Result<Vec<EncodedFile>, TableError> {
    let Sorted { batch, mut pieces } = sorted;
    let mut groups: BTreeMap<Home, Group> = BTreeMap::new();
    let mut exchanges = batch.exchanges.into_iter().peekable();
    while let Some(first) = exchanges.next() {
        let (tenant, agent, started_at) =
            (first.tenant.clone(), first.agent.clone(), first.session_started_at);
        let group = &mut groups.entry(home(&tenant, &agent, started_at)).or_default().exchanges;
        group.push(first);
        // Those of one session mostly lie together.
        while let Some(next) = exchanges.next_if(|next| {
            next.session_started_at == started_at && next.agent == agent && next.tenant == tenant
        }) {
            group.push(next);
        }
    }
    for close in batch.closes {
        groups.entry(home(&close.tenant, &close.agent, close.started_at)).or_default().closes.push(close);
    }
    for trial in batch.trials {
        let started_at = trial.started_at.unwrap_or(0);
        groups.entry(home(&trial.tenant, &trial.agent, started_at)).or_default().trials.push(trial);
    }
    // What is said of a trial lies where the trial lies.
    for score in batch.scores {
        let started_at = score.trial_started_at.unwrap_or(0);
        groups.entry(home(&score.tenant, &score.agent, started_at)).or_default().scores.push(score);
    }
    for embedding in batch.embeddings {
        let started_at = embedding.trial_started_at.unwrap_or(0);
        let home = home(&embedding.tenant, &embedding.agent, started_at);
        groups.entry(home).or_default().embeddings.push(embedding);
    }
    let mut files = Files { name, keys, made: Vec::new() };
    for (home, group) in groups {
        encode_group(&home, group, &mut pieces, leaning, &mut files)?;
    }
    Ok(files.made)
}

fn home(tenant: &TenantId, agent: &AgentId, started_at: i64) -> Home {
    (tenant.clone(), agent.clone(), schemas::commit::utc_date(started_at))
}

/// The folder that a session's exchanges lie in.
#[must_use]
pub fn exchange_folder(exchange: &Exchange) -> String {
    folder(Table::Exchanges, &exchange.tenant, &exchange.agent, exchange.session_started_at)
}

fn encode_group(
    home: &Home,
    mut group: Group,
    pieces: &mut Pieces,
    leaning: &mut Leaning,
    files: &mut Files<'_>,
) -> Result<(), TableError> {
    if !group.exchanges.is_empty() {
        let (references, chunks) = refer(&group.exchanges, files.name, pieces, leaning);
        if !chunks.is_empty() {
            files.add(home, Table::Chunks, &chunks)?;
        }
        files.add(home, Table::Exchanges, &references.rows(&group.exchanges))?;
    }
    if !group.closes.is_empty() {
        group.closes.sort_by(|a, b| {
            (&a.session, &a.incarnation, a.closed_at).cmp(&(&b.session, &b.incarnation, b.closed_at))
        });
        files.add(home, Table::Sessions, &group.closes)?;
    }
    if !group.trials.is_empty() {
        group.trials.sort_by(|a, b| (a.lane, &a.case, a.trial).cmp(&(b.lane, &b.case, b.trial)));
        files.add(home, Table::Trials, &group.trials)?;
    }
    if !group.scores.is_empty() {
        group
            .scores
            .sort_by(|a, b| (a.lane, &a.case, a.trial, a.rank).cmp(&(b.lane, &b.case, b.trial, b.rank)));
        files.add(home, Table::Scores, &group.scores)?;
    }
    if !group.embeddings.is_empty() {
        group
            .embeddings
            .sort_by(|a, b| (a.lane, &a.case, a.trial, a.turn).cmp(&(b.lane, &b.case, b.trial, b.turn)));
        files.add(home, Table::Embeddings, &group.embeddings)?;
    }
    Ok(())
}

/// The files made so far, all of one name.
struct Files<'a> {
    name: &'a str,
    keys: &'a KeyRing,
    made: Vec<EncodedFile>,
}

impl Files<'_> {
    fn add<T: Row>(&mut self, home: &Home, table: Table, rows: &[T]) -> Result<(), TableError> {
        let (tenant, agent, date) = home;
        let options = self.keys.write_options(tenant, Level::Archive)?;
        let bytes = table::encode(table, rows, &options)?;
        let (tenant, agent) = (escape(tenant.as_str()), escape(agent.as_str()));
        let path = format!("{}/tenant={tenant}/agent={agent}/date={date}/{}", table.as_str(), self.name);
        self.made.push(EncodedFile { table, path, rows: rows.len() as u64, bytes });
        Ok(())
    }
}

/// Finds for each digest the row number in the chunks file, and makes that file's rows.
///
/// A row with bytes serves every session in the file; a row that leans serves only those whose own earlier file it names.
fn refer(
    exchanges: &[Box<Exchange>],
    name: &str,
    pieces: &mut Pieces,
    leaning: &mut Leaning,
) -> (References, Vec<Chunk>) {
    let file: Arc<str> = Arc::from(name);
    let mut chunks: Vec<Chunk> = Vec::new();
    let mut with_bytes: QuickMap<Digest, u32> = QuickMap::default();
    let mut without_bytes: QuickMap<(Digest, Option<Arc<str>>), u32> = QuickMap::default();
    let mut references = References::default();
    for exchanges in exchanges.chunk_by(|a, b| a.session == b.session) {
        let Some(session) = exchanges.first().map(|exchange| &exchange.session) else { continue };
        let mut own_pieces = pieces.get_mut(session);
        let mut taken = Vec::new();
        let mut find = |digest: Digest| {
            let own = own_pieces.as_mut().and_then(|own| own.remove(&digest));
            if own.is_some() {
                taken.push(digest);
            }
            let next = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
            let (number, leans_on) = match (with_bytes.get(&digest), &own) {
                (Some(number), _) => (*number, None),
                (None, Some(_)) => (*with_bytes.entry(digest).or_insert(next), None),
                (None, None) => {
                    let earlier = leaning.find(session, &digest);
                    let leans_on = earlier.as_deref().map(str::to_owned);
                    (*without_bytes.entry((digest, earlier)).or_insert(next), leans_on)
                }
            };
            if number == next {
                chunks.push(Chunk { chunk: number, digest, bytes: own, leans_on });
            }
            number
        };
        let mut before = Repeated::default();
        for exchange in exchanges {
            references.add(&exchange.request.chunks, &mut before, &mut find);
            before.replace(&exchange.request.chunks, references.last());
            references.add(&exchange.response.chunks, &mut Repeated::default(), &mut find);
        }
        if !taken.is_empty() {
            leaning.insert_all(session, taken, &file);
        }
    }
    (references, chunks)
}

/// The row numbers that the bodies of exchanges refer to: of each exchange those of its request, then of its response.
#[derive(Default)]
struct References {
    numbers: Vec<u32>,
    ends: Vec<usize>,
}

impl References {
    fn add(&mut self, digests: &[Digest], before: &mut Repeated<'_>, mut find: impl FnMut(Digest) -> u32) {
        for (numbers, other) in before.parts(digests) {
            self.numbers.extend_from_slice(numbers);
            self.numbers.extend(other.map(|digest| find(*digest)));
        }
        self.ends.push(self.numbers.len());
    }

    fn of(&self, body: usize) -> &[u32] {
        let begin = body.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        self.ends.get(body).and_then(|end| self.numbers.get(begin..*end)).unwrap_or_default()
    }

    fn last(&self) -> &[u32] {
        self.of(self.ends.len().saturating_sub(1))
    }

    /// The exchanges that the references were made of, with them.
    fn rows<'a>(&'a self, exchanges: &'a [Box<Exchange>]) -> Vec<Numbered<'a>> {
        let rows = exchanges.iter().enumerate().map(|(place, exchange)| Numbered {
            exchange: &**exchange,
            request: self.of(2 * place),
            response: self.of(2 * place + 1),
        });
        rows.collect()
    }
}

/// The longest list of pieces so far in a session: a model call repeats the history of the one before it with a few pieces
/// put in, so most of its pieces are the next ones here, and need no looking up.
#[derive(Default)]
pub(crate) struct Repeated<'a> {
    pieces: &'a [Digest],
    numbers: Vec<u32>,
    next: usize,
}

impl<'a> Repeated<'a> {
    /// Divides a list: each time the numbers of the pieces that are the next ones, then the piece that is another, if the
    /// list does not end there.
    pub(crate) fn parts<'p>(
        &mut self,
        pieces: &'p [Digest],
    ) -> impl Iterator<Item = (&[u32], Option<&'p Digest>)> {
        let (known, numbers, next) = (self.pieces, self.numbers.as_slice(), &mut self.next);
        let mut rest = pieces.iter();
        std::iter::from_fn(move || {
            if rest.as_slice().is_empty() {
                return None;
            }
            let begin = *next;
            let known = known.get(begin..).unwrap_or_default();
            let run = known.iter().zip(rest.as_slice()).take_while(|(known, piece)| known == piece).count();
            *next += run;
            Some((numbers.get(begin..*next).unwrap_or_default(), rest.nth(run)))
        })
    }

    /// Ends a list; it is compared with from now on, if it is long enough.
    pub(crate) fn replace(&mut self, pieces: &'a [Digest], numbers: &[u32]) {
        self.next = 0;
        if pieces.len() >= self.pieces.len() {
            self.pieces = pieces;
            self.numbers.clear();
            self.numbers.extend_from_slice(numbers);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_that_goes_on_is_found_in_the_one_before() {
        let list = |of: &[u8]| of.iter().map(|byte| Digest([*byte; 16])).collect::<Vec<_>>();
        let (first, short, longer) = (list(&[1, 2, 8, 9]), list(&[8]), list(&[1, 2, 3, 8, 9]));
        let mut repeated = Repeated::default();
        let mut references = References::default();
        let mut numbers = |pieces: &'static [Digest]| {
            let mut looked_up = Vec::new();
            references.add(pieces, &mut repeated, |piece| {
                looked_up.push(piece);
                10 * u32::from(piece.0[0])
            });
            repeated.replace(pieces, references.last());
            (references.last().to_vec(), looked_up)
        };
        assert_eq!(numbers(&[]), (vec![], vec![]));
        assert_eq!(numbers(first.clone().leak()), (vec![10, 20, 80, 90], first));
        assert_eq!(numbers(short.clone().leak()), (vec![80], short));
        assert_eq!(numbers(longer.clone().leak()), (vec![10, 20, 30, 80, 90], list(&[3])));
        assert_eq!(numbers(longer.leak()), (vec![10, 20, 30, 80, 90], vec![]));
        assert_eq!(numbers(list(&[2, 1, 2, 3]).leak()), (vec![20, 10, 20, 30], list(&[2])));
    }
}
