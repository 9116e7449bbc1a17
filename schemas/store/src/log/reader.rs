//! Reading a log: for those who follow it, and to find where it ends when it is opened for writing.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::{FRAME_HEAD, LogError, MAGIC, MAX_RECORD_BYTES, VERSION, io, segments};

/// How far apart the checksums lie that [`holds_whole_frame`] keeps.
const CHECKPOINT_BYTES: usize = 4 << 10;

/// Reads a log from a position on, also while a writer appends; it sees what the writer has flushed.
#[derive(Debug)]
pub struct LogReader {
    folder: PathBuf,
    open: Option<(PathBuf, BufReader<File>)>,
    offset: u64,
    next: u64,
    from: u64,
}

impl LogReader {
    /// Opens the log in this folder; the first record returned is the first one at or after `from` that is still there.
    ///
    /// # Errors
    /// The disk says no.
    pub fn open(folder: &Path, from: u64) -> Result<Self, LogError> {
        let mut reader = Self { folder: folder.to_owned(), open: None, offset: 0, next: 0, from };
        let segments = if folder.exists() { segments(folder)? } else { Vec::new() };
        let start = segments.iter().rev().find(|(first, _)| *first <= from).or(segments.first());
        if let Some((first, path)) = start {
            reader.enter(path.clone(), *first)?;
        }
        Ok(reader)
    }

    /// The next record with its position; `None` at the end, for now.
    ///
    /// # Errors
    /// The disk says no, or a record is damaged.
    #[expect(clippy::should_implement_trait, reason = "an iterator ends at its first None; a log goes on")]
    pub fn next(&mut self) -> Result<Option<(u64, Vec<u8>)>, LogError> {
        loop {
            if self.open.is_none() {
                match segments(&self.folder)?.into_iter().next() {
                    Some((first, path)) => self.enter(path, first)?,
                    None => return Ok(None),
                }
            }
            let payload = match self.read_frame()? {
                Some(payload) => payload,
                None => match self.enter_following()? {
                    Following::None => return Ok(None),
                    Following::Entered => continue,
                    Following::Not(payload) => payload,
                },
            };
            let position = self.next;
            self.next += 1;
            if position >= self.from {
                return Ok(Some((position, payload)));
            }
        }
    }

    fn enter(&mut self, path: PathBuf, first: u64) -> Result<(), LogError> {
        let file = File::open(&path).map_err(io(&path))?;
        self.open = Some((path, BufReader::with_capacity(256 << 10, file)));
        self.offset = 0;
        self.next = first;
        Ok(())
    }

    /// Goes on to the segment that begins where this one ends, or after it where positions were lost.
    fn enter_following(&mut self) -> Result<Following, LogError> {
        let following = segments(&self.folder)?.into_iter().find(|(first, path)| {
            *first >= self.next && self.open.as_ref().is_none_or(|(open, _)| open != path)
        });
        let Some((first, path)) = following else { return Ok(Following::None) };
        if first > self.next {
            // The writer ended the old segment before it made this one, so one more look decides its end.
            if let Some(payload) = self.read_frame()? {
                return Ok(Following::Not(payload));
            }
            if let Some((open, file)) = &self.open
                && file.get_ref().metadata().map_err(io(open))?.len() > self.offset
            {
                return Err(LogError::Damaged { path: open.clone(), offset: self.offset });
            }
        }
        self.enter(path, first)?;
        Ok(Following::Entered)
    }

    fn read_frame(&mut self) -> Result<Option<Vec<u8>>, LogError> {
        let Some((path, file)) = self.open.as_mut() else { return Ok(None) };
        if self.offset == 0 {
            let mut magic = [0; MAGIC.len()];
            if !read_whole(file, &mut magic, 0).map_err(io(path))? {
                return Ok(None);
            }
            if let [name @ .., found] = magic
                && name == MAGIC[..MAGIC.len() - 1]
                && found != VERSION
            {
                return Err(LogError::Version { path: path.clone(), found });
            }
            if magic != MAGIC {
                return Err(LogError::Damaged { path: path.clone(), offset: 0 });
            }
            self.offset = MAGIC.len() as u64;
        }
        let mut head = [0; FRAME_HEAD];
        if !read_whole(file, &mut head, self.offset).map_err(io(path))? {
            return Ok(None);
        }
        let (length, crc) = split_head(head);
        if length == 0 || length > MAX_RECORD_BYTES {
            return Err(LogError::Damaged { path: path.clone(), offset: self.offset });
        }
        let mut payload = vec![0; length];
        if !read_whole(file, &mut payload, self.offset + FRAME_HEAD as u64).map_err(io(path))? {
            file.seek(SeekFrom::Start(self.offset)).map_err(io(path))?;
            return Ok(None);
        }
        if crc32fast::hash(&payload) != crc {
            return Err(LogError::Damaged { path: path.clone(), offset: self.offset });
        }
        self.offset += (FRAME_HEAD + length) as u64;
        Ok(Some(payload))
    }
}

/// What comes after the last frame that a reader found in a segment.
enum Following {
    /// Nothing, for now.
    None,
    /// A segment, which the reader is in now.
    Entered,
    /// One more frame of the same segment.
    Not(Vec<u8>),
}

/// Fills the buffer, or goes back to `offset` and says that the bytes are not all there yet.
fn read_whole(file: &mut BufReader<File>, buffer: &mut [u8], offset: u64) -> std::io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            file.seek(SeekFrom::Start(offset))?;
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn split_head(head: [u8; FRAME_HEAD]) -> (usize, u32) {
    let [a, b, c, d, e, f, g, h] = head;
    (u32::from_le_bytes([a, b, c, d]) as usize, u32::from_le_bytes([e, f, g, h]))
}

/// Finds where the whole frames of a segment end, and how many there are.
pub(super) fn scan(segment: &Path) -> Result<(u64, u64), LogError> {
    let file = File::open(segment).map_err(io(segment))?;
    let length = file.metadata().map_err(io(segment))?.len();
    let folder = segment.parent().unwrap_or(segment).to_owned();
    let file = BufReader::with_capacity(256 << 10, file);
    if length < MAGIC.len() as u64 {
        std::fs::write(segment, MAGIC).map_err(io(segment))?;
        return Ok((MAGIC.len() as u64, 0));
    }
    let mut reader =
        LogReader { folder, open: Some((segment.to_owned(), file)), offset: 0, next: 0, from: 0 };
    let mut count = 0;
    loop {
        match reader.read_frame() {
            Ok(Some(_)) => count += 1,
            Ok(None) => break,
            Err(LogError::Damaged { offset, .. }) if offset > 0 => break,
            Err(error) => return Err(error),
        }
    }
    // Before whole frames a damage is a loss that must be seen; at the tail it is a torn write.
    let mut rest = Vec::new();
    let mut file = File::open(segment).map_err(io(segment))?;
    file.seek(SeekFrom::Start(reader.offset))
        .and_then(|_| file.read_to_end(&mut rest))
        .map_err(io(segment))?;
    if holds_whole_frame(&rest) {
        return Err(LogError::Damaged { path: segment.to_owned(), offset: reader.offset });
    }
    Ok((reader.offset, count))
}

/// Whether a whole frame begins anywhere in these bytes.
///
/// The length of a damaged frame may be damaged too, so every byte is tried. The checksum of a candidate is derived from
/// those of the two beginnings of `bytes` that end where it begins and ends, as reading every candidate is quadratic.
fn holds_whole_frame(bytes: &[u8]) -> bool {
    let mut hasher = crc32fast::Hasher::new();
    let mut checkpoints = vec![0];
    for step in bytes.chunks(CHECKPOINT_BYTES) {
        hasher.update(step);
        checkpoints.push(hasher.clone().finalize());
    }
    let checksum_until = |end: usize| {
        let (checkpoint, begin) = (end / CHECKPOINT_BYTES, end / CHECKPOINT_BYTES * CHECKPOINT_BYTES);
        let mut hasher = crc32fast::Hasher::new_with_initial(checkpoints.get(checkpoint).copied()?);
        hasher.update(bytes.get(begin..end)?);
        Some(hasher.finalize())
    };
    let is_frame = |(begin, head): (usize, &[u8])| {
        let (length, crc) = split_head(head.try_into().ok()?);
        if length == 0 || length > MAX_RECORD_BYTES || length > bytes.len() - begin - FRAME_HEAD {
            return None;
        }
        let begin = begin + FRAME_HEAD;
        let mut shifted = crc32fast::Hasher::new_with_initial(checksum_until(begin)?);
        shifted.combine(&crc32fast::Hasher::new_with_initial_len(0, length as u64));
        (checksum_until(begin + length)? ^ shifted.finalize() == crc).then_some(())
    };
    bytes.windows(FRAME_HEAD).enumerate().any(|window| is_frame(window).is_some())
}
