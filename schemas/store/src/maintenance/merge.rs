//! Merges the rows of several files of one folder; a reader sees the same of each session.
//!
//! Each distinct chunk is kept once with its bytes. A chunk of an earlier file that is merged too is in the new file; one of
//! another file keeps its reference to that file.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use schemas::exchange::Exchange;
use schemas::keys::Digest;

use crate::error::StoreError;
use crate::row_number::{TooManyRows, row_number};
use crate::snapshot::{Replacements, name_of};
use crate::table::{Chunk, Table};

/// Files cannot be merged or rewritten.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum MergeError {
    /// An exchange refers to a row that its chunks file does not have.
    MissingChunk(u32),
    /// The new chunks file would have too many rows.
    TooManyRows,
}

impl From<TooManyRows> for MergeError {
    fn from(TooManyRows: TooManyRows) -> Self {
        Self::TooManyRows
    }
}

impl MergeError {
    /// Returns the error for an exchanges file at this path.
    pub(super) fn at(self, path: &str) -> StoreError {
        let path = path.to_owned();
        match self {
            Self::MissingChunk(number) => {
                let detail = format!("refers to chunk {number}, which is not in its chunks file");
                StoreError::Metadata { path, detail }
            }
            Self::TooManyRows => StoreError::TooManyChunks { path },
        }
    }
}

/// Location of a chunk, as an input file says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum ChunkLocation {
    /// The chunks file of the input.
    Own,
    /// An earlier chunks file of the same folder, by name.
    Earlier(Arc<str>),
    /// No file: the chunk was lost before it was stored.
    Lost,
}

/// Rows of the files of one folder, read and not yet written.
#[derive(Debug)]
pub(super) struct Merge<'a> {
    replacements: &'a Replacements,
    /// `chunks/tenant=…/agent=…/date=…`
    chunks_folder: String,
    /// Paths of the chunks files that are merged.
    inputs: HashSet<String>,
    /// Exchanges; their references are indexes into `wanted`.
    exchanges: Vec<Exchange<u32>>,
    wanted: Vec<(Digest, ChunkLocation)>,
    index_of: HashMap<(Digest, ChunkLocation), u32>,
    /// Chunks with bytes in the inputs, in input order.
    with_bytes: Vec<Digest>,
    bytes: HashMap<Digest, Bytes>,
    memory_bytes: usize,
}

/// Rows of a pair of files.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) exchanges: Vec<Exchange<u32>>,
    pub(super) chunks: Vec<Chunk>,
}

impl Rows {
    /// Estimates the memory of the rows, bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        let chunk = |chunk: &Chunk| 128 + chunk.bytes.as_ref().map_or(0, Bytes::len);
        self.exchanges.iter().map(memory_bytes).sum::<usize>() + self.chunks.iter().map(chunk).sum::<usize>()
    }
}

fn memory_bytes(exchange: &Exchange<u32>) -> usize {
    let body = |body: &schemas::body::Body<u32>| body.template.len() + 8 * body.chunk_offsets.len();
    let operation = &exchange.operation;
    let texts = [&operation.input, &operation.output, &operation.arguments, &operation.result];
    let texts: usize = texts.into_iter().flatten().map(String::len).sum();
    1_024 + body(&exchange.request) + body(&exchange.response) + texts
}

impl<'a> Merge<'a> {
    /// Starts a merge without rows.
    pub(super) fn new(replacements: &'a Replacements, folder: &str) -> Self {
        Self {
            replacements,
            chunks_folder: format!("{}/{folder}", Table::Chunks.as_str()),
            inputs: HashSet::new(),
            exchanges: Vec::new(),
            wanted: Vec::new(),
            index_of: HashMap::new(),
            with_bytes: Vec::new(),
            bytes: HashMap::new(),
            memory_bytes: 0,
        }
    }

    /// Estimates the memory of the merge, bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// Adds the rows of a pair.
    pub(super) fn push(&mut self, chunks_path: Option<&str>, rows: Rows) -> Result<(), MergeError> {
        self.memory_bytes += rows.memory_bytes();
        self.inputs.extend(chunks_path.map(str::to_owned));
        let mut by_number: HashMap<u32, u32> = HashMap::with_capacity(rows.chunks.len());
        for chunk in rows.chunks {
            let location = match (&chunk.bytes, chunk.stored_in) {
                (Some(_), _) => ChunkLocation::Own,
                (None, Some(name)) => ChunkLocation::Earlier(Arc::from(name)),
                (None, None) => ChunkLocation::Lost,
            };
            by_number.insert(chunk.chunk, self.index(chunk.digest, location)?);
            if let Some(bytes) = chunk.bytes
                && !self.bytes.contains_key(&chunk.digest)
            {
                self.with_bytes.push(chunk.digest);
                self.bytes.insert(chunk.digest, bytes);
            }
        }
        for exchange in rows.exchanges {
            let renamed = exchange
                .try_map(|number| by_number.get(&number).copied().ok_or(MergeError::MissingChunk(number)))?;
            self.exchanges.push(renamed);
        }
        Ok(())
    }

    fn index(&mut self, digest: Digest, location: ChunkLocation) -> Result<u32, TooManyRows> {
        let key = (digest, location);
        if let Some(index) = self.index_of.get(&key) {
            return Ok(*index);
        }
        let index = row_number(self.wanted.len())?;
        self.wanted.push(key.clone());
        self.index_of.insert(key, index);
        Ok(index)
    }

    /// Returns the rows of the new pair, sorted and numbered.
    pub(super) fn finish(mut self) -> Result<Rows, MergeError> {
        let mut exchanges = std::mem::take(&mut self.exchanges);
        exchanges
            .sort_by(|a, b| (&a.session, &a.incarnation, a.seq).cmp(&(&b.session, &b.incarnation, b.seq)));
        let mut chunks = NewChunks::default();
        let mut rows = Vec::with_capacity(exchanges.len());
        for exchange in exchanges {
            rows.push(exchange.try_map(|index| {
                let (digest, location) =
                    self.wanted.get(index as usize).ok_or(MergeError::MissingChunk(index))?;
                let location = self.new_location(digest, location);
                Ok::<u32, MergeError>(chunks.number(*digest, location, &mut self.bytes)?)
            })?);
        }
        for digest in &self.with_bytes {
            if self.bytes.contains_key(digest) {
                chunks.number(*digest, NewLocation::Own, &mut self.bytes)?;
            }
        }
        Ok(Rows { exchanges: rows, chunks: chunks.rows })
    }

    /// Returns the location of a chunk for the new file. A chunk that readers did not find before, they must not find
    /// afterwards: an incomplete session stays incomplete.
    fn new_location(&self, digest: &Digest, location: &ChunkLocation) -> NewLocation {
        let has_bytes = self.index_of.contains_key(&(*digest, ChunkLocation::Own));
        match location {
            ChunkLocation::Own => NewLocation::Own,
            ChunkLocation::Lost => NewLocation::Lost,
            ChunkLocation::Earlier(name) => {
                let path = format!("{}/{name}", self.chunks_folder);
                match self.replacements.current(&path) {
                    Some(now) if self.inputs.contains(now) && has_bytes => NewLocation::Own,
                    Some(now) if !self.inputs.contains(now) && now != path => {
                        NewLocation::Earlier(name_of(now).to_owned())
                    }
                    Some(_) | None => NewLocation::Earlier(name.as_ref().to_owned()),
                }
            }
        }
    }
}

/// Location of a chunk, as the new file says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum NewLocation {
    /// The new chunks file.
    Own,
    /// Another chunks file of the folder, by name.
    Earlier(String),
    /// No file.
    Lost,
}

/// Rows of the new chunks file.
#[derive(Debug, Default)]
struct NewChunks {
    rows: Vec<Chunk>,
    numbers: HashMap<(Digest, NewLocation), u32>,
}

impl NewChunks {
    fn number(
        &mut self,
        digest: Digest,
        location: NewLocation,
        bytes: &mut HashMap<Digest, Bytes>,
    ) -> Result<u32, TooManyRows> {
        let key = (digest, location);
        if let Some(number) = self.numbers.get(&key) {
            return Ok(*number);
        }
        let chunk = row_number(self.rows.len())?;
        let (bytes, stored_in) = match &key.1 {
            NewLocation::Own => (bytes.remove(&digest), None),
            NewLocation::Earlier(name) => (None, Some(name.clone())),
            NewLocation::Lost => (None, None),
        };
        self.rows.push(Chunk { chunk, digest, bytes, stored_in });
        self.numbers.insert(key, chunk);
        Ok(chunk)
    }
}
