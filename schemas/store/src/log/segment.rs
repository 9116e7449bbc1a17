//! The format of a segment file, and the errors of the log.

use std::path::{Path, PathBuf};

/// The version of segments that this build writes, and the only one it reads.
pub(super) const VERSION: u8 = 1;

/// First bytes of every segment: name of the format and [`VERSION`].
pub(super) const MAGIC: [u8; 8] = [b'F', b'S', b'L', b'O', b'G', 0, 0, VERSION];

/// Bytes before each payload: length and CRC-32, little-endian.
pub(super) const FRAME_HEAD: usize = 8;

/// Longest record, bytes.
pub const MAX_RECORD_BYTES: usize = 64 << 20;

/// A log cannot be opened, read or appended to.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk failed.
    #[error("log {path}: {source}")]
    Io {
        /// File or folder.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// Another process has locked the log.
    #[error("log {path} is in use by another process; stop that process first")]
    InUse {
        /// Folder of the log.
        path: PathBuf,
    },
    /// The segments have reached their largest size.
    #[error("log is full: {bytes} of {max_bytes} bytes")]
    Full {
        /// Size of the segments, bytes.
        bytes: u64,
        /// Largest allowed size, bytes: `LogOptions::max_bytes`.
        max_bytes: u64,
    },
    /// The record is empty or too long.
    #[error("record has {bytes} bytes, allowed are 1 to {MAX_RECORD_BYTES}")]
    RecordSize {
        /// Length of the record, bytes.
        bytes: usize,
    },
    /// The segment has another format version.
    #[error(
        "segment {path} has version {found}, this build reads {VERSION}; read it with the foreshadow that wrote it"
    )]
    Version {
        /// Path of the segment.
        path: PathBuf,
        /// Version of the segment.
        found: u8,
    },
    /// The segment is damaged before its end.
    #[error(
        "segment {path} is damaged at byte {offset}; restore it from a copy, or move it away to continue without its records"
    )]
    Damaged {
        /// Path of the segment.
        path: PathBuf,
        /// Offset of the damaged frame, bytes.
        offset: u64,
    },
}

pub(super) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> LogError {
    let path = path.to_owned();
    move |source| LogError::Io { path, source }
}

pub(super) fn segments(folder: &Path) -> Result<Vec<(u64, PathBuf)>, LogError> {
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
