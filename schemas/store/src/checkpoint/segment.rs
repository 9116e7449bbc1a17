//! Chunk segments: sorted tables from a session's chunk to the file that stores its bytes.
//!
//! Layout: rows of [`ROW_BYTES`] (session hash, digest, file number, big-endian), sorted; then the footer as compressed
//! JSON; then its length and CRC-32, little-endian. The footer has the file names, and per block of [`BLOCK_ROWS`] rows the
//! first session hash and the CRC-32. A look-up reads the footer and the blocks of its sessions.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use schemas::FORMAT;
use schemas::id::SessionId;
use schemas::keys::{DIGEST_BYTES, Digest};
use serde::{Deserialize, Serialize};

use super::format::{decode, encode};
use crate::error::StoreError;

/// Bytes of a row.
const ROW_BYTES: usize = 8 + DIGEST_BYTES + 4;

/// Rows of a block.
const BLOCK_ROWS: usize = 512;

/// Bytes after the footer: its length and checksum.
const TRAILER_BYTES: usize = 8;

/// Bytes read first at the end of a segment; enough for the footer of most.
pub(crate) const TAIL_BYTES: u64 = 16 << 10;

/// First 64 bits of the BLAKE3 hash of a session id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SessionHash(pub(crate) u64);

impl SessionHash {
    pub(crate) fn of(session: &SessionId) -> Self {
        let mut first = [0; 8];
        first.copy_from_slice(&blake3::hash(session.as_str().as_bytes()).as_bytes()[..8]);
        Self(u64::from_be_bytes(first))
    }
}

/// A row: the chunk of a session and the name of the file that stores it.
pub(crate) type Row = (SessionHash, Digest, String);

#[derive(Debug, Serialize, Deserialize)]
struct SegmentFooter {
    format: u32,
    /// File names by number.
    files: Vec<String>,
    /// First session hash and CRC-32 of each block.
    blocks: Vec<(u64, u32)>,
    rows: usize,
}

/// The footer of a segment, and its length in the object.
#[derive(Debug)]
pub(crate) struct Footer(SegmentFooter);

/// Builds the bytes of a segment.
///
/// # Errors
/// More files than a 32-bit number can count.
pub(crate) fn build(path: &str, mut rows: Vec<Row>) -> Result<Vec<u8>, StoreError> {
    rows.sort();
    rows.dedup_by(|a, b| (a.0, a.1) == (b.0, b.1));
    let names: BTreeSet<&str> = rows.iter().map(|(_, _, file)| file.as_str()).collect();
    let numbers: BTreeMap<&str, usize> = names.iter().copied().zip(0..).collect();
    let mut bytes = Vec::with_capacity(rows.len() * ROW_BYTES);
    let mut blocks = Vec::new();
    for block in rows.chunks(BLOCK_ROWS) {
        let begin = bytes.len();
        for (session, digest, file) in block {
            let number = u32::try_from(numbers[file.as_str()])
                .map_err(|_| StoreError::TooManyChunks { path: path.to_owned() })?;
            bytes.extend_from_slice(&session.0.to_be_bytes());
            bytes.extend_from_slice(&digest.0);
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        blocks.push((block[0].0.0, crc32fast::hash(&bytes[begin..])));
    }
    let files = names.into_iter().map(str::to_owned).collect();
    let footer = SegmentFooter { format: FORMAT, files, blocks, rows: rows.len() };
    let footer = encode(path, &footer)?;
    let length = u32::try_from(footer.len()).map_err(|_| damaged(path, "footer is too long"))?;
    bytes.extend_from_slice(&footer);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&footer).to_le_bytes());
    Ok(bytes)
}

fn damaged(path: &str, detail: &str) -> StoreError {
    StoreError::Metadata { path: path.to_owned(), detail: detail.to_owned() }
}

/// The end of a segment, parsed.
pub(crate) enum Tail {
    /// The footer.
    Footer(Footer),
    /// The footer is longer than the bytes given: read this many at the end.
    NeedsBytes(u64),
}

/// Parses the last bytes of a segment.
///
/// # Errors
/// The bytes are not the end of a segment, or damaged.
pub(crate) fn parse_tail(path: &str, tail: &[u8]) -> Result<Tail, StoreError> {
    let body = tail.len().checked_sub(TRAILER_BYTES).ok_or_else(|| damaged(path, "is too short"))?;
    let (before, trailer) = tail.split_at(body);
    let [a, b, c, d, e, f, g, h] = trailer else { return Err(damaged(path, "is too short")) };
    let length = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
    let crc = u32::from_le_bytes([*e, *f, *g, *h]);
    let Some(start) = before.len().checked_sub(length) else {
        return Ok(Tail::NeedsBytes((length + TRAILER_BYTES) as u64));
    };
    let footer = &before[start..];
    if crc32fast::hash(footer) != crc {
        return Err(damaged(path, "has a damaged footer"));
    }
    Ok(Tail::Footer(Footer(decode(path, footer)?)))
}

impl Footer {
    /// Returns the byte ranges of the blocks that may have rows of these sessions.
    pub(crate) fn ranges(&self, sessions: &BTreeSet<SessionHash>) -> Vec<(usize, Range<u64>)> {
        let blocks = &self.0.blocks;
        let mut wanted = BTreeSet::new();
        for session in sessions {
            // The rows of a session begin in the last block that starts before it.
            let first = blocks.partition_point(|(start, _)| *start < session.0).saturating_sub(1);
            let end = blocks.partition_point(|(start, _)| *start <= session.0);
            wanted.extend(first..end);
        }
        wanted.into_iter().map(|block| (block, self.range(block))).collect()
    }

    fn range(&self, block: usize) -> Range<u64> {
        let begin = block * BLOCK_ROWS;
        let end = (begin + BLOCK_ROWS).min(self.0.rows);
        (begin * ROW_BYTES) as u64..(end * ROW_BYTES) as u64
    }

    /// Returns the range of all rows.
    pub(crate) fn all_rows(&self) -> Range<u64> {
        0..(self.0.rows * ROW_BYTES) as u64
    }

    /// Parses the rows of one block.
    ///
    /// # Errors
    /// The block is damaged.
    pub(crate) fn rows(&self, path: &str, block: usize, bytes: &[u8]) -> Result<Vec<Row>, StoreError> {
        let expected = self.0.blocks.get(block).map(|(_, crc)| *crc);
        if expected != Some(crc32fast::hash(bytes)) {
            return Err(damaged(path, "has a damaged block"));
        }
        let row = |row: &[u8]| {
            let (session, rest) = row.split_first_chunk::<8>()?;
            let (digest, number) = rest.split_first_chunk::<DIGEST_BYTES>()?;
            let number = u32::from_be_bytes(number.try_into().ok()?) as usize;
            let file = self.0.files.get(number)?.clone();
            Some((SessionHash(u64::from_be_bytes(*session)), Digest(*digest), file))
        };
        let rows: Option<Vec<Row>> = bytes.chunks(ROW_BYTES).map(row).collect();
        rows.ok_or_else(|| damaged(path, "has a row that does not parse"))
    }

    /// Splits the bytes of all rows into blocks.
    pub(crate) fn split<'a>(&self, bytes: &'a [u8]) -> impl Iterator<Item = (usize, &'a [u8])> {
        bytes.chunks(BLOCK_ROWS * ROW_BYTES).enumerate()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(count: u64) -> Vec<Row> {
        let row = |n: u64| {
            let mut digest = [0; DIGEST_BYTES];
            digest[..8].copy_from_slice(&n.to_be_bytes());
            (SessionHash(n / 700 * 3), Digest(digest), format!("f{}.parquet", n % 5))
        };
        (0..count).rev().map(row).collect()
    }

    fn footer(bytes: &[u8]) -> Footer {
        match parse_tail("s", bytes).expect("parses") {
            Tail::Footer(footer) => footer,
            Tail::NeedsBytes(_) => panic!("all bytes are there"),
        }
    }

    #[test]
    fn a_look_up_reads_the_blocks_of_its_sessions_and_finds_all_their_rows() {
        for count in [0, 1, 511, 512, 513, 5_000] {
            let mut all = rows(count);
            let bytes = build("s", all.clone()).expect("builds");
            let footer = footer(&bytes);
            all.sort();
            for wanted in
                [BTreeSet::from([SessionHash(3)]), BTreeSet::from([SessionHash(0), SessionHash(18)])]
            {
                let mut found = Vec::new();
                let ranges = footer.ranges(&wanted);
                assert!(count < 5_000 || ranges.len() < footer.0.blocks.len() / 2, "few blocks are read");
                for (block, range) in ranges {
                    let range = usize::try_from(range.start).expect("small")
                        ..usize::try_from(range.end).expect("small");
                    found.extend(footer.rows("s", block, &bytes[range]).expect("parses"));
                }
                found.retain(|(session, ..)| wanted.contains(session));
                let expected: Vec<Row> =
                    all.iter().filter(|(session, ..)| wanted.contains(session)).cloned().collect();
                assert_eq!(found, expected, "{count} rows");
            }
        }
    }

    #[test]
    fn a_damaged_byte_anywhere_is_found() {
        let bytes = build("s", rows(600)).expect("builds");
        let read = |bytes: &[u8]| -> Result<Vec<Row>, StoreError> {
            let Tail::Footer(footer) = parse_tail("s", bytes)? else { return Err(damaged("s", "footer")) };
            let end = usize::try_from(footer.all_rows().end).expect("small");
            let blocks = footer.split(bytes.get(..end).ok_or_else(|| damaged("s", "short"))?);
            let mut rows = Vec::new();
            for (block, bytes) in blocks {
                rows.append(&mut footer.rows("s", block, bytes)?);
            }
            Ok(rows)
        };
        let rows = read(&bytes).expect("reads");
        assert_eq!(rows.len(), 600);
        for at in (0..bytes.len()).step_by(37).chain(bytes.len() - 60..bytes.len()) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            assert!(read(&damaged).is_err(), "byte {at}");
        }
        for end in [0, 4, bytes.len() - 1] {
            assert!(read(&bytes[..end]).is_err(), "cut at {end}");
        }
    }
}
