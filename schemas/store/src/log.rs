//! An append-only log in segment files: what was appended and synced is there after a crash, once and in order.
//!
//! Every frame carries its length and a CRC-32; a torn tail is cut when the log is opened for writing. Positions are
//! record numbers from 0 and are never reused. It blocks on the disk, so async code calls it from a thread of its own,
//! and it does not know what its records mean.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// First bytes of every segment: the name of the format and its version.
const MAGIC: [u8; 8] = *b"FSLOG\0\0\x01";

/// Bytes before each payload: its length and its CRC-32, little-endian.
const FRAME_HEAD: usize = 8;

/// The longest record that is accepted, in bytes.
pub const MAX_RECORD_BYTES: usize = 64 << 20;

/// Bounds of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOptions {
    /// A segment is closed when it reaches this many bytes.
    pub segment_bytes: u64,
    /// Appending is refused when all segments together have this many bytes.
    pub max_bytes: u64,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { segment_bytes: 16 << 20, max_bytes: 1 << 30 }
    }
}

/// A log that cannot be opened, read or appended to.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk said no.
    #[error("log {path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process has it.
    #[error("log {path} is in use by another process; stop that one first")]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The bound is reached.
    #[error("log is full: {bytes} of {max_bytes} bytes")]
    Full {
        /// On disk now.
        bytes: u64,
        /// The bound.
        max_bytes: u64,
    },
    /// An empty or overlong record.
    #[error("record has {bytes} bytes, allowed are 1 to {MAX_RECORD_BYTES}")]
    RecordSize {
        /// Its length.
        bytes: usize,
    },
    /// Bytes before the tail are not what was written.
    #[error(
        "segment {path} is damaged at byte {offset}; restore it from a copy, or move it away to go on without its records"
    )]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where.
        offset: u64,
    },
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> LogError {
    let path = path.to_owned();
    move |source| LogError::Io { path, source }
}

/// The one writer of a log.
#[derive(Debug)]
pub struct LogWriter {
    folder: PathBuf,
    options: LogOptions,
    name: String,
    // Held for as long as the writer lives.
    _lock: File,
    file: BufWriter<File>,
    segment: PathBuf,
    segment_bytes: u64,
    closed_bytes: u64,
    next: u64,
}

impl LogWriter {
    /// Opens the log in this folder, which is made where it is not there; cuts a torn tail.
    ///
    /// # Errors
    /// Another process has it, the disk says no, or the last segment was not written by this format.
    pub fn open(folder: &Path, options: LogOptions) -> Result<Self, LogError> {
        std::fs::create_dir_all(folder).map_err(io(folder))?;
        let lock = lock(folder)?;
        let name = read_or_make_name(folder)?;
        let segments = segments(folder)?;
        let (segment, first) = match segments.last() {
            Some((first, path)) => (path.clone(), *first),
            None => (make_segment(folder, 0)?, 0),
        };
        let (end, count) = scan(&segment)?;
        let mut file = OpenOptions::new().read(true).write(true).open(&segment).map_err(io(&segment))?;
        file.set_len(end).and_then(|()| file.sync_all()).map_err(io(&segment))?;
        file.seek(SeekFrom::End(0)).map_err(io(&segment))?;
        let mut closed_bytes = 0;
        for (_, path) in segments.iter().rev().skip(1) {
            closed_bytes += path.metadata().map_err(io(path))?.len();
        }
        Ok(Self {
            folder: folder.to_owned(),
            options,
            name,
            _lock: lock,
            file: BufWriter::with_capacity(256 << 10, file),
            segment,
            segment_bytes: end,
            closed_bytes,
            next: first + count,
        })
    }

    /// The log's own name, made once and kept in its folder.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The position that the next record gets.
    #[must_use]
    pub fn next_position(&self) -> u64 {
        self.next
    }

    /// Bytes of all segments, those not yet flushed included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.closed_bytes + self.segment_bytes
    }

    /// Appends a record; it is safe only after [`Self::sync`].
    ///
    /// # Errors
    /// The log is full, the record is empty or overlong, or the disk says no.
    pub fn append(&mut self, payload: &[u8]) -> Result<u64, LogError> {
        if payload.is_empty() || payload.len() > MAX_RECORD_BYTES {
            return Err(LogError::RecordSize { bytes: payload.len() });
        }
        let frame_bytes = (FRAME_HEAD + payload.len()) as u64;
        if self.bytes() + frame_bytes > self.options.max_bytes {
            return Err(LogError::Full { bytes: self.bytes(), max_bytes: self.options.max_bytes });
        }
        if self.segment_bytes >= self.options.segment_bytes {
            self.roll()?;
        }
        let length =
            u32::try_from(payload.len()).map_err(|_| LogError::RecordSize { bytes: payload.len() })?;
        let mut head = [0; FRAME_HEAD];
        head[..4].copy_from_slice(&length.to_le_bytes());
        head[4..].copy_from_slice(&crc32fast::hash(payload).to_le_bytes());
        self.file.write_all(&head).and_then(|()| self.file.write_all(payload)).map_err(io(&self.segment))?;
        self.segment_bytes += frame_bytes;
        let position = self.next;
        self.next += 1;
        Ok(position)
    }

    /// Makes everything appended so far survive a crash of the machine.
    ///
    /// # Errors
    /// The disk says no.
    pub fn sync(&mut self) -> Result<(), LogError> {
        self.file.flush().and_then(|()| self.file.get_ref().sync_data()).map_err(io(&self.segment))
    }

    /// Deletes the segments that hold only records before `position`; returns how many bytes that freed.
    ///
    /// # Errors
    /// The disk says no.
    pub fn delete_before(&mut self, position: u64) -> Result<u64, LogError> {
        let segments = segments(&self.folder)?;
        let mut freed = 0;
        for pair in segments.windows(2) {
            let [(_, path), (next_first, _)] = pair else { continue };
            if *next_first <= position {
                freed += path.metadata().map_err(io(path))?.len();
                std::fs::remove_file(path).map_err(io(path))?;
            }
        }
        self.closed_bytes = self.closed_bytes.saturating_sub(freed);
        Ok(freed)
    }

    fn roll(&mut self) -> Result<(), LogError> {
        self.sync()?;
        let segment = make_segment(&self.folder, self.next)?;
        let mut file = OpenOptions::new().read(true).write(true).open(&segment).map_err(io(&segment))?;
        file.seek(SeekFrom::End(0)).map_err(io(&segment))?;
        self.closed_bytes += self.segment_bytes;
        self.segment_bytes = MAGIC.len() as u64;
        self.file = BufWriter::with_capacity(256 << 10, file);
        self.segment = segment;
        Ok(())
    }
}

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
            match self.read_frame()? {
                Some(payload) => {
                    let position = self.next;
                    self.next += 1;
                    if position >= self.from {
                        return Ok(Some((position, payload)));
                    }
                }
                None if self.enter_following()? => {}
                None => return Ok(None),
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

    /// Goes on to the segment that begins where this one ends; says whether there is one.
    fn enter_following(&mut self) -> Result<bool, LogError> {
        let following = segments(&self.folder)?.into_iter().find(|(first, path)| {
            *first == self.next && self.open.as_ref().is_none_or(|(open, _)| open != path)
        });
        match following {
            Some((first, path)) => {
                // The writer closed the old segment before it made this one, so one more look decides its end.
                self.enter(path, first)?;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    fn read_frame(&mut self) -> Result<Option<Vec<u8>>, LogError> {
        let Some((path, file)) = self.open.as_mut() else { return Ok(None) };
        if self.offset == 0 {
            let mut magic = [0; MAGIC.len()];
            if !read_whole(file, &mut magic, 0).map_err(io(path))? {
                return Ok(None);
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
fn scan(segment: &Path) -> Result<(u64, u64), LogError> {
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
            // Before the tail a damage is a loss that must be seen; at the tail it is a torn write.
            Err(LogError::Damaged { offset, .. }) if offset > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok((reader.offset, count))
}

fn segments(folder: &Path) -> Result<Vec<(u64, PathBuf)>, LogError> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io(folder))? {
        let path = entry.map_err(io(folder))?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        if path.extension().is_some_and(|extension| extension == "log")
            && let Some(first) = stem.and_then(|stem| stem.parse().ok())
        {
            found.push((first, path));
        }
    }
    found.sort();
    Ok(found)
}

fn make_segment(folder: &Path, first: u64) -> Result<PathBuf, LogError> {
    let path = folder.join(format!("{first:020}.log"));
    let mut file = File::create(&path).map_err(io(&path))?;
    file.write_all(&MAGIC).and_then(|()| file.sync_all()).map_err(io(&path))?;
    sync_folder(folder)?;
    Ok(path)
}

fn sync_folder(folder: &Path) -> Result<(), LogError> {
    File::open(folder).and_then(|file| file.sync_all()).map_err(io(folder))
}

fn lock(folder: &Path) -> Result<File, LogError> {
    let path = folder.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(io(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(LogError::InUse { path: folder.to_owned() }),
        Err(std::fs::TryLockError::Error(source)) => Err(LogError::Io { path, source }),
    }
}

fn read_or_make_name(folder: &Path) -> Result<String, LogError> {
    let path = folder.join("name");
    match std::fs::read_to_string(&path) {
        Ok(name) if !name.trim().is_empty() => Ok(name.trim().to_owned()),
        Ok(_) => make_name(folder, &path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => make_name(folder, &path),
        Err(source) => Err(LogError::Io { path, source }),
    }
}

fn make_name(folder: &Path, path: &Path) -> Result<String, LogError> {
    let name = uuid::Uuid::new_v4().simple().to_string();
    let staged = folder.join("name.tmp");
    let mut file = File::create(&staged).map_err(io(&staged))?;
    writeln!(file, "{name}").and_then(|()| file.sync_all()).map_err(io(&staged))?;
    std::fs::rename(&staged, path).map_err(io(path))?;
    sync_folder(folder)?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_all(folder: &Path, from: u64) -> Vec<(u64, Vec<u8>)> {
        let mut reader = LogReader::open(folder, from).expect("opens");
        std::iter::from_fn(|| reader.next().expect("reads")).collect()
    }

    #[test]
    fn only_one_writer() {
        let folder = tempfile::tempdir().expect("temp");
        let _writer = LogWriter::open(folder.path(), LogOptions::default()).expect("opens");
        assert!(matches!(LogWriter::open(folder.path(), LogOptions::default()), Err(LogError::InUse { .. })));
    }

    #[test]
    fn a_full_log_refuses_and_space_comes_back() {
        let folder = tempfile::tempdir().expect("temp");
        let options = LogOptions { segment_bytes: 64, max_bytes: 200 };
        let mut writer = LogWriter::open(folder.path(), options).expect("opens");
        while writer.append(&[1; 30]).is_ok() {}
        let end = writer.next_position();
        assert!(writer.delete_before(end).expect("deletes") > 0);
        assert_eq!(writer.append(&[2; 30]).expect("has room"), end);
        writer.sync().expect("syncs");
        let name = writer.name().to_owned();
        drop(writer);
        let writer = LogWriter::open(folder.path(), options).expect("opens again");
        assert_eq!((writer.name(), writer.next_position()), (name.as_str(), end + 1));
    }

    #[test]
    fn a_reader_follows_a_writer() {
        let folder = tempfile::tempdir().expect("temp");
        let mut writer = LogWriter::open(folder.path(), LogOptions { segment_bytes: 20, max_bytes: 1 << 20 })
            .expect("opens");
        let mut reader = LogReader::open(folder.path(), 0).expect("opens");
        for number in 0..50_u8 {
            assert_eq!(reader.next().expect("reads"), None);
            writer.append(&[number; 10]).expect("appends");
            writer.sync().expect("syncs");
            assert_eq!(reader.next().expect("reads"), Some((u64::from(number), vec![number; 10])));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_torn_tail_loses_only_what_was_not_whole(
            records in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 1..30),
            segment_bytes in 20_u64..200,
            cut in 0_usize..60,
            garbage in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let folder = tempfile::tempdir().expect("temp");
            let options = LogOptions { segment_bytes, max_bytes: 1 << 20 };
            let mut writer = LogWriter::open(folder.path(), options).expect("opens");
            for record in &records {
                writer.append(record).expect("appends");
            }
            writer.sync().expect("syncs");
            let last = writer.segment.clone();
            drop(writer);
            let mut bytes = std::fs::read(&last).expect("reads");
            bytes.truncate(bytes.len().saturating_sub(cut).max(MAGIC.len()));
            bytes.extend_from_slice(&garbage);
            std::fs::write(&last, bytes).expect("writes");
            let mut writer = LogWriter::open(folder.path(), options).expect("recovers");
            let kept = read_all(folder.path(), 0);
            let whole = usize::try_from(writer.next_position()).expect("small");
            prop_assert!(whole <= records.len());
            if cut == 0 {
                prop_assert_eq!(whole, records.len());
            }
            prop_assert_eq!(kept.len(), whole);
            for (position, (number, payload)) in kept.iter().enumerate() {
                prop_assert_eq!(*number, position as u64);
                prop_assert_eq!(payload, &records[position]);
            }
            writer.append(b"after").expect("appends");
            writer.sync().expect("syncs");
            prop_assert_eq!(read_all(folder.path(), whole as u64), vec![(whole as u64, b"after".to_vec())]);
        }
    }
}
