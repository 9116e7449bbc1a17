//! An append-only log in segment files: what was appended and synced is there after a crash, once and in order.
//!
//! Every frame carries its length and a CRC-32; a torn tail is cut when the log is opened for writing, and damage before
//! whole frames is an error. Positions are record numbers from 0. A writer never gives one out twice: where the disk
//! refused records, it cuts what it had written of them and goes on in a new segment, and their positions stay empty.
//! It blocks on the disk, so async code calls it from a thread of its own, and it does not know what its records mean.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

mod reader;

pub use reader::LogReader;
use reader::scan;

/// The version of segments that this build writes, and the only one it reads.
const VERSION: u8 = 1;

/// First bytes of every segment: the name of the format and its version.
const MAGIC: [u8; 8] = [b'F', b'S', b'L', b'O', b'G', 0, 0, VERSION];

/// Bytes before each payload: its length and its CRC-32, little-endian.
const FRAME_HEAD: usize = 8;

/// Frames are gathered in memory up to this many bytes before they are written.
const BUFFER_BYTES: usize = 256 << 10;

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
    /// Written by another version.
    #[error(
        "segment {path} has version {found}, this build reads {VERSION}; read it with the foreshadow that wrote it"
    )]
    Version {
        /// The segment.
        path: PathBuf,
        /// Its version.
        found: u8,
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

/// What the writer does to the file of a segment; in tests also one on a disk that is full.
trait SegmentFile: Write + std::fmt::Debug + Send + Sync {
    /// Makes what was written survive a crash of the machine.
    fn sync(&self) -> std::io::Result<()>;

    /// Ends the file here for good, and goes on writing here.
    fn cut(&mut self, end: u64) -> std::io::Result<()>;
}

impl SegmentFile for File {
    fn sync(&self) -> std::io::Result<()> {
        self.sync_data()
    }

    fn cut(&mut self, end: u64) -> std::io::Result<()> {
        self.set_len(end)?;
        self.seek(SeekFrom::Start(end))?;
        self.sync_all()
    }
}

/// The one writer of a log.
///
/// An I/O error loses every record appended since the last successful [`Self::sync`]: their bytes are dropped and cut
/// from the file, so that they are not written later. Where that happens in [`Self::append`], the next sync fails too,
/// and with it what is appended until then: so a record is safe just when the first sync after its append succeeds.
/// Where the bytes cannot be cut, the writer refuses all further records.
#[derive(Debug)]
pub struct LogWriter {
    folder: PathBuf,
    options: LogOptions,
    name: String,
    // Held for as long as the writer lives.
    _lock: File,
    file: Box<dyn SegmentFile>,
    // Whole frames that are not yet in the file.
    buffer: Vec<u8>,
    segment: PathBuf,
    segment_bytes: u64,
    synced_bytes: u64,
    closed_bytes: u64,
    next: u64,
    // Records appended since the last successful sync.
    unsynced: u64,
    // Records were lost that no sync has reported yet.
    lost: bool,
    // Positions before `next` were lost, so the next record needs a new segment.
    skips: bool,
    // Bytes of lost records could not be cut.
    poisoned: bool,
}

impl LogWriter {
    /// Opens the log in this folder, which is made where it is not there; cuts a torn tail.
    ///
    /// # Errors
    /// Another process has it, the disk says no, or the last segment was not written by this format or is damaged before
    /// whole frames.
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
            file: Box::new(file),
            buffer: Vec::with_capacity(BUFFER_BYTES),
            segment,
            segment_bytes: end,
            synced_bytes: end,
            closed_bytes,
            next: first + count,
            unsynced: 0,
            lost: false,
            skips: false,
            poisoned: false,
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

    /// Appends a record; it is safe only if the next [`Self::sync`] succeeds.
    ///
    /// # Errors
    /// The log is full, the record is empty or overlong, or the disk says no. After [`LogError::Io`] this record is lost,
    /// and what was appended since the last sync is safe only if the next one succeeds.
    pub fn append(&mut self, payload: &[u8]) -> Result<u64, LogError> {
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        if payload.is_empty() || payload.len() > MAX_RECORD_BYTES {
            return Err(LogError::RecordSize { bytes: payload.len() });
        }
        self.refuse_poisoned()?;
        let position = self.next;
        if self.lost {
            // The next sync fails, so this record is lost with those before it.
            self.next += 1;
            self.skips = true;
            return Ok(position);
        }
        let frame_bytes = (FRAME_HEAD + payload.len()) as u64;
        if self.bytes() + frame_bytes > self.options.max_bytes {
            return Err(LogError::Full { bytes: self.bytes(), max_bytes: self.options.max_bytes });
        }
        if self.skips || self.segment_bytes >= self.options.segment_bytes {
            self.roll()?;
        }
        self.buffer.extend_from_slice(&length.to_le_bytes());
        self.buffer.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
        self.buffer.extend_from_slice(payload);
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush().map_err(|source| self.give_up(source))?;
        }
        self.segment_bytes += frame_bytes;
        self.next += 1;
        self.unsynced += 1;
        Ok(position)
    }

    /// Makes everything appended so far survive a crash of the machine.
    ///
    /// # Errors
    /// The disk says no, now or in an [`Self::append`] since the last sync: then nothing that was appended since the last
    /// successful sync is in the log, nor will be.
    pub fn sync(&mut self) -> Result<(), LogError> {
        self.refuse_poisoned()?;
        let lost = std::mem::take(&mut self.lost);
        if lost {
            let source = std::io::Error::other("records were lost when the disk refused an earlier one");
            return Err(LogError::Io { path: self.segment.clone(), source });
        }
        let synced = self.make_durable();
        // This error says what is lost.
        self.lost = false;
        synced
    }

    fn refuse_poisoned(&self) -> Result<(), LogError> {
        if !self.poisoned {
            return Ok(());
        }
        let source = std::io::Error::other(
            "lost records could not be cut from the segment; see to the disk and start again",
        );
        Err(LogError::Io { path: self.segment.clone(), source })
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.write_all(&self.buffer)?;
        self.buffer.clear();
        self.buffer.shrink_to(2 * BUFFER_BYTES);
        Ok(())
    }

    fn make_durable(&mut self) -> Result<(), LogError> {
        if self.unsynced == 0 {
            return Ok(());
        }
        self.flush().and_then(|()| self.file.sync()).map_err(|source| self.give_up(source))?;
        self.synced_bytes = self.segment_bytes;
        self.unsynced = 0;
        Ok(())
    }

    /// Drops everything since the last successful sync, from memory and file.
    fn give_up(&mut self, source: std::io::Error) -> LogError {
        self.buffer.clear();
        self.buffer.shrink_to(2 * BUFFER_BYTES);
        self.segment_bytes = self.synced_bytes;
        // A reader may have seen some of them, so their positions are not for others.
        self.lost |= self.unsynced > 0;
        self.skips |= self.unsynced > 0;
        self.unsynced = 0;
        self.poisoned = self.file.cut(self.synced_bytes).is_err();
        LogError::Io { path: self.segment.clone(), source }
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
        self.make_durable()?;
        // Where this fails nothing has moved, and the next append tries again.
        let segment = make_segment(&self.folder, self.next)?;
        let mut file = OpenOptions::new().read(true).write(true).open(&segment).map_err(io(&segment))?;
        file.seek(SeekFrom::End(0)).map_err(io(&segment))?;
        let empty = MAGIC.len() as u64;
        // A disk that refuses record after record must not leave a segment for each.
        let removed =
            self.skips && self.segment_bytes == empty && std::fs::remove_file(&self.segment).is_ok();
        if !removed {
            self.closed_bytes += self.segment_bytes;
        }
        self.segment_bytes = empty;
        self.synced_bytes = empty;
        self.file = Box::new(file);
        self.segment = segment;
        self.skips = false;
        Ok(())
    }
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
mod tests;
