//! Reads a log: for followers, and to find its end when a writer opens it.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::segment::{FRAME_HEAD, LogError, MAGIC, MAX_RECORD_BYTES, VERSION, io, segments};

/// Distance of the prefix checksums in [`has_complete_frame`], bytes.
const CHECKSUM_STRIDE: usize = 4 << 10;

/// Reads a log from a position on, also while a writer appends. Sees the records that the writer has flushed.
#[derive(Debug)]
pub struct LogReader {
    folder: PathBuf,
    open: Option<(PathBuf, BufReader<File>)>,
    offset: u64,
    next: u64,
    from: u64,
}

impl LogReader {
    /// Opens the log in a folder. The first record returned is the first existing one at or after `from`.
    ///
    /// # Errors
    /// The disk failed.
    pub fn open(folder: &Path, from: u64) -> Result<Self, LogError> {
        let mut reader = Self { folder: folder.to_owned(), open: None, offset: 0, next: 0, from };
        let segments = if folder.exists() { segments(folder)? } else { Vec::new() };
        let start = segments.iter().rev().find(|(first, _)| *first <= from).or(segments.first());
        if let Some((first, path)) = start {
            reader.enter(path.clone(), *first)?;
        }
        Ok(reader)
    }

    /// Returns the next record with its position; `None` at the end, until the writer appends more.
    ///
    /// # Errors
    /// The disk failed, or a record is damaged.
    #[expect(clippy::should_implement_trait, reason = "an iterator ends at its first None; a log continues")]
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
                    Following::Segment => continue,
                    Following::Frame(payload) => payload,
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

    /// Opens the segment that begins at the end of this one, or later if positions are empty.
    fn enter_following(&mut self) -> Result<Following, LogError> {
        let following = segments(&self.folder)?.into_iter().find(|(first, path)| {
            *first >= self.next && self.open.as_ref().is_none_or(|(open, _)| open != path)
        });
        let Some((first, path)) = following else { return Ok(Following::None) };
        if first > self.next {
            // The writer ends a segment before it creates the next, so one more read decides the end of this one.
            if let Some(payload) = self.read_frame()? {
                return Ok(Following::Frame(payload));
            }
            if let Some((open, file)) = &self.open
                && file.get_ref().metadata().map_err(io(open))?.len() > self.offset
            {
                return Err(LogError::Damaged { path: open.clone(), offset: self.offset });
            }
        }
        self.enter(path, first)?;
        Ok(Following::Segment)
    }

    fn read_frame(&mut self) -> Result<Option<Vec<u8>>, LogError> {
        let Some((path, file)) = self.open.as_mut() else { return Ok(None) };
        if self.offset == 0 {
            let mut magic = [0; MAGIC.len()];
            if !read_full(file, &mut magic, 0).map_err(io(path))? {
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
        if !read_full(file, &mut head, self.offset).map_err(io(path))? {
            return Ok(None);
        }
        let (length, crc) = split_head(head);
        if length == 0 || length > MAX_RECORD_BYTES {
            return Err(LogError::Damaged { path: path.clone(), offset: self.offset });
        }
        let mut payload = vec![0; length];
        if !read_full(file, &mut payload, self.offset + FRAME_HEAD as u64).map_err(io(path))? {
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

/// Continuation after the last frame found in a segment.
enum Following {
    /// No continuation yet.
    None,
    /// The next segment, now open.
    Segment,
    /// One more frame of the same segment.
    Frame(Vec<u8>),
}

/// Fills the buffer and returns `true`; if the file is too short yet, seeks back to `offset` and returns `false`.
fn read_full(file: &mut BufReader<File>, buffer: &mut [u8], offset: u64) -> std::io::Result<bool> {
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

/// Returns the end of the complete frames of a segment, and their number.
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
    // Damage before complete frames is a loss that must be reported; at the end it is an interrupted write.
    let mut rest = Vec::new();
    let mut file = File::open(segment).map_err(io(segment))?;
    file.seek(SeekFrom::Start(reader.offset))
        .and_then(|_| file.read_to_end(&mut rest))
        .map_err(io(segment))?;
    if has_complete_frame(&rest) {
        return Err(LogError::Damaged { path: segment.to_owned(), offset: reader.offset });
    }
    Ok((reader.offset, count))
}

/// Returns whether a complete frame begins anywhere in these bytes.
///
/// The length of a damaged frame may be damaged too, so every offset is tried. Reading every candidate would be quadratic, so
/// its checksum is computed from those of the two prefixes of `bytes` up to its start and its end.
fn has_complete_frame(bytes: &[u8]) -> bool {
    let mut hasher = crc32fast::Hasher::new();
    let mut prefixes = vec![0];
    for step in bytes.chunks(CHECKSUM_STRIDE) {
        hasher.update(step);
        prefixes.push(hasher.clone().finalize());
    }
    let checksum_until = |end: usize| {
        let (prefix, begin) = (end / CHECKSUM_STRIDE, end / CHECKSUM_STRIDE * CHECKSUM_STRIDE);
        let mut hasher = crc32fast::Hasher::new_with_initial(prefixes.get(prefix).copied()?);
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
