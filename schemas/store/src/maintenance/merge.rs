//! Rows of several files of one folder as the rows of one: what a reader sees of each session stays the same.
//!
//! Each distinct piece is kept once with its bytes. Where a piece lay in an earlier file that is merged too, it lies in the
//! new file now; where it lies in a file that stays, the row goes on chunk_index on that file.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::table::Chunk;
use bytes::Bytes;
use schemas::exchange::Exchange;
use schemas::keys::Digest;

use crate::commits::Snapshot;

/// Where an exchange of an input finds a piece.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Lies {
    /// In the chunks file of its own.
    Here,
    /// In an earlier one of the same folder.
    Earlier(Arc<str>),
    /// Nowhere: it was lost before it was stored.
    Nowhere,
}

/// Files of one folder, read and not yet written.
#[derive(Debug)]
pub(super) struct Merge<'a> {
    snapshot: &'a Snapshot,
    /// `chunks/tenant=…/agent=…/date=…`
    chunks_folder: String,
    /// The chunks files that are merged.
    inputs: HashSet<String>,
    /// Exchanges whose references are places in `wanted`.
    exchanges: Vec<Exchange<u32>>,
    wanted: Vec<(Digest, Lies)>,
    places: HashMap<(Digest, Lies), u32>,
    /// The pieces whose bytes the inputs bring, in the order in which they came.
    brought: Vec<Digest>,
    bytes: HashMap<Digest, Bytes>,
    held: usize,
}

/// Rows of a pair of files.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) exchanges: Vec<Exchange<u32>>,
    pub(super) chunks: Vec<Chunk>,
}

impl Rows {
    /// About how many bytes of memory they take.
    pub(super) fn held(&self) -> usize {
        let chunk = |chunk: &Chunk| 128 + chunk.bytes.as_ref().map_or(0, Bytes::len);
        self.exchanges.iter().map(held).sum::<usize>() + self.chunks.iter().map(chunk).sum::<usize>()
    }
}

fn held(exchange: &Exchange<u32>) -> usize {
    let body = |body: &schemas::body::Body<u32>| body.template.len() + 8 * body.chunk_offsets.len();
    let operation = &exchange.operation;
    let texts = [&operation.input, &operation.output, &operation.arguments, &operation.result];
    let texts: usize = texts.into_iter().flatten().map(String::len).sum();
    1_024 + body(&exchange.request) + body(&exchange.response) + texts
}

impl<'a> Merge<'a> {
    /// Begins with nothing.
    pub(super) fn new(snapshot: &'a Snapshot, folder: &str) -> Self {
        Self {
            snapshot,
            chunks_folder: format!("chunks/{folder}"),
            inputs: HashSet::new(),
            exchanges: Vec::new(),
            wanted: Vec::new(),
            places: HashMap::new(),
            brought: Vec::new(),
            bytes: HashMap::new(),
            held: 0,
        }
    }

    /// About how many bytes of memory it takes.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Adds the rows of a pair; an exchange that refers to a chunk which is not there is said.
    pub(super) fn push(&mut self, chunks_path: Option<&str>, rows: Rows) -> Result<(), u32> {
        self.held += rows.held();
        self.inputs.extend(chunks_path.map(str::to_owned));
        let mut by_number: HashMap<u32, u32> = HashMap::with_capacity(rows.chunks.len());
        for chunk in rows.chunks {
            let lies = match (&chunk.bytes, chunk.stored_in) {
                (Some(_), _) => Lies::Here,
                (None, Some(name)) => Lies::Earlier(Arc::from(name)),
                (None, None) => Lies::Nowhere,
            };
            by_number.insert(chunk.chunk, self.place(chunk.digest, lies));
            if let Some(bytes) = chunk.bytes
                && !self.bytes.contains_key(&chunk.digest)
            {
                self.brought.push(chunk.digest);
                self.bytes.insert(chunk.digest, bytes);
            }
        }
        for exchange in rows.exchanges {
            let renamed = exchange.try_map(|number| by_number.get(&number).copied().ok_or(number))?;
            self.exchanges.push(renamed);
        }
        Ok(())
    }

    fn place(&mut self, digest: Digest, lies: Lies) -> u32 {
        let next = u32::try_from(self.wanted.len()).unwrap_or(u32::MAX);
        let wanted = &mut self.wanted;
        *self.places.entry((digest, lies)).or_insert_with_key(|key| {
            wanted.push(key.clone());
            next
        })
    }

    /// Makes the rows of the new pair, sorted and numbered.
    pub(super) fn finish(mut self) -> Rows {
        let mut exchanges = std::mem::take(&mut self.exchanges);
        exchanges
            .sort_by(|a, b| (&a.session, &a.incarnation, a.seq).cmp(&(&b.session, &b.incarnation, b.seq)));
        let mut chunks = Chunks::default();
        let mut rows = Vec::with_capacity(exchanges.len());
        for exchange in exchanges {
            let row = exchange.try_map(|place| {
                let (digest, lies) = &self.wanted[place as usize];
                let name = self.stored_in(digest, lies);
                Ok::<u32, std::convert::Infallible>(chunks.number(*digest, name, &mut self.bytes))
            });
            match row {
                Ok(row) => rows.push(row),
                Err(never) => match never {},
            }
        }
        for digest in &self.brought {
            if self.bytes.contains_key(digest) {
                chunks.number(*digest, Held::Here, &mut self.bytes);
            }
        }
        Rows { exchanges: rows, chunks: chunks.rows }
    }

    /// Where the new file has the piece. A piece that a reader did not find before, it must not find afterwards: a torn
    /// session stays torn.
    fn stored_in(&self, digest: &Digest, lies: &Lies) -> Held {
        let brought = self.places.contains_key(&(*digest, Lies::Here));
        match lies {
            Lies::Here => Held::Here,
            Lies::Nowhere => Held::Nowhere,
            Lies::Earlier(name) => {
                let path = format!("{}/{name}", self.chunks_folder);
                match self.snapshot.current(&path) {
                    Some(now) if self.inputs.contains(now) && brought => Held::Here,
                    Some(now) if !self.inputs.contains(now) && now != path => {
                        let name = now.rsplit_once('/').map_or(now, |(_, name)| name);
                        Held::Earlier(name.to_owned())
                    }
                    Some(_) | None => Held::Earlier(name.as_ref().to_owned()),
                }
            }
        }
    }
}

/// Where a row of the new file has its piece.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Held {
    Here,
    Earlier(String),
    Nowhere,
}

/// The chunk rows of the new file.
#[derive(Debug, Default)]
struct Chunks {
    rows: Vec<Chunk>,
    numbers: HashMap<(Digest, Held), u32>,
}

impl Chunks {
    fn number(&mut self, digest: Digest, held: Held, bytes: &mut HashMap<Digest, Bytes>) -> u32 {
        let rows = &mut self.rows;
        *self.numbers.entry((digest, held)).or_insert_with_key(|(digest, held)| {
            let chunk = u32::try_from(rows.len()).unwrap_or(u32::MAX);
            let (bytes, stored_in) = match held {
                Held::Here => (bytes.remove(digest), None),
                Held::Earlier(name) => (None, Some(name.clone())),
                Held::Nowhere => (None, None),
            };
            rows.push(Chunk { chunk, digest: *digest, bytes, stored_in });
            chunk
        })
    }
}
