//! Append-only log in segment files. Synced records survive a crash, once and in order.
//!
//! Every frame has its length and a CRC-32. Opening for writing truncates an incomplete frame at the end; damage before
//! complete frames is an error. Positions are record numbers from 0 and never reused: if the disk refuses records, the writer
//! truncates them, continues in a new segment, and leaves their positions empty. Calls block on the disk, so async code
//! calls them from a thread of its own. The log does not interpret its records.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

mod reader;
mod segment;

pub use reader::LogReader;
use reader::scan;
use segment::{FRAME_HEAD, MAGIC, io, segments};
pub use segment::{LogError, MAX_RECORD_BYTES};

/// Bytes of frames buffered in memory before they are written.
const BUFFER_BYTES: usize = 256 << 10;

/// Bounds of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOptions {
    /// Size at which a segment is closed, bytes. Default 16 MiB.
    pub segment_bytes: u64,
    /// Size of all segments at which appending fails with [`LogError::Full`], bytes. Default 1 GiB.
    pub max_bytes: u64,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { segment_bytes: 16 << 20, max_bytes: 1 << 30 }
    }
}

/// File of a segment; tests substitute a full disk.
trait SegmentFile: Write + std::fmt::Debug + Send + Sync {
    /// Flushes written bytes to the disk.
    fn sync(&self) -> std::io::Result<()>;

    /// Truncates the file durably; the next write begins at its end.
    fn truncate(&mut self, end: u64) -> std::io::Result<()>;
}

impl SegmentFile for File {
    fn sync(&self) -> std::io::Result<()> {
        self.sync_data()
    }

    fn truncate(&mut self, end: u64) -> std::io::Result<()> {
        self.set_len(end)?;
        self.seek(SeekFrom::Start(end))?;
        self.sync_all()
    }
}

/// The only writer of a log.
///
/// An I/O error loses every record appended since the last successful [`Self::sync`]: their bytes are truncated, so that they
/// are not written later. If it happens in [`Self::append`], the next sync fails too, and loses the records appended until
/// then. So a record is durable exactly if the first sync after its append succeeds. If the bytes cannot be truncated, the
/// writer refuses all further records.
#[derive(Debug)]
pub struct LogWriter {
    folder: PathBuf,
    options: LogOptions,
    name: String,
    // Locked while the writer exists.
    _lock: File,
    file: Box<dyn SegmentFile>,
    // Complete frames that are not in the file yet.
    buffer: Vec<u8>,
    segment: PathBuf,
    segment_bytes: u64,
    synced_bytes: u64,
    closed_bytes: u64,
    next: u64,
    // Records appended since the last successful sync.
    unsynced: u64,
    // No sync has reported yet that records were lost.
    lost: bool,
    // Positions before `next` are empty, so the next record needs a new segment.
    skips: bool,
    // Bytes of lost records could not be truncated.
    poisoned: bool,
}

impl LogWriter {
    /// Opens the log in a folder, creates the folder if needed, and truncates an incomplete frame at the end.
    ///
    /// # Errors
    /// Another process has locked the log, the disk failed, or the last segment has another format or is damaged before
    /// complete frames.
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

    /// Returns the unique name of the log, created once and stored in its folder.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the position of the next record.
    #[must_use]
    pub fn next_position(&self) -> u64 {
        self.next
    }

    /// Returns the size of all segments, buffered frames included, bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.closed_bytes + self.segment_bytes
    }

    /// Appends a record and returns its position. The record is durable only if the next [`Self::sync`] succeeds.
    ///
    /// # Errors
    /// The log is full, the record is empty or too long, or the disk failed. After [`LogError::Io`] this record is lost, and
    /// records appended since the last sync are durable only if the next sync succeeds.
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

    /// Makes all appended records durable.
    ///
    /// # Errors
    /// The disk failed, now or in an [`Self::append`] since the last sync: the records appended since the last successful
    /// sync are not in the log and never will be.
    pub fn sync(&mut self) -> Result<(), LogError> {
        self.refuse_poisoned()?;
        let lost = std::mem::take(&mut self.lost);
        if lost {
            let source = std::io::Error::other("records were lost when the disk refused an earlier one");
            return Err(LogError::Io { path: self.segment.clone(), source });
        }
        let synced = self.make_durable();
        // This error reports the loss, so the next sync need not.
        self.lost = false;
        synced
    }

    fn refuse_poisoned(&self) -> Result<(), LogError> {
        if !self.poisoned {
            return Ok(());
        }
        let source = std::io::Error::other(
            "lost records could not be truncated from the segment; check the disk and restart",
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

    /// Drops the records since the last successful sync from memory and file.
    fn give_up(&mut self, source: std::io::Error) -> LogError {
        self.buffer.clear();
        self.buffer.shrink_to(2 * BUFFER_BYTES);
        self.segment_bytes = self.synced_bytes;
        // A reader may have seen some of them, so their positions are not reused.
        self.lost |= self.unsynced > 0;
        self.skips |= self.unsynced > 0;
        self.unsynced = 0;
        self.poisoned = self.file.truncate(self.synced_bytes).is_err();
        LogError::Io { path: self.segment.clone(), source }
    }

    /// Deletes the segments with only records before `position`. Returns the bytes freed.
    ///
    /// # Errors
    /// The disk failed.
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
        // A failure changes nothing, and the next append tries again.
        let segment = make_segment(&self.folder, self.next)?;
        let mut file = OpenOptions::new().read(true).write(true).open(&segment).map_err(io(&segment))?;
        file.seek(SeekFrom::End(0)).map_err(io(&segment))?;
        let empty = MAGIC.len() as u64;
        // Without this, a disk that refuses each record would leave one empty segment per record.
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
