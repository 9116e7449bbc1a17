//! Objects of a checkpoint and their encoding: JSON, compressed with zstd apart from the root.

use std::collections::{BTreeMap, HashMap};

use schemas::FORMAT;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::objects::parse_versioned;
use crate::snapshot::{CommitFiles, Head};

/// Folder of the roots.
pub(crate) const CHECKPOINTS: &str = "_checkpoints";

/// Folder of the other objects.
pub(crate) const MANIFESTS: &str = "_manifests";

/// Compression level: these objects are written often, and read more often.
const ZSTD_LEVEL: i32 = 3;

/// Largest decompressed object, bytes; a damaged length must not take all memory.
const MAX_BYTES: usize = 1 << 30;

/// Root of a checkpoint: small, because each claim reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Root {
    /// Format version, [`FORMAT`].
    pub(crate) format: u32,
    /// Number of the checkpoint, ascending.
    pub(crate) sequence: u64,
    /// Whether any covered commit had files.
    pub(crate) had_files: bool,
    /// Last covered commit of each source.
    pub(crate) heads: BTreeMap<String, Head>,
    /// Path of the [`FolderTable`].
    pub(crate) folders: String,
    /// Objects that the checkpoint before this one uses and this one does not.
    pub(crate) dropped: Vec<String>,
}

/// Path of the [`Manifest`] of each folder that has files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FolderTable {
    /// Format version, [`FORMAT`].
    pub(crate) format: u32,
    /// Manifest by folder: `tenant=…/agent=…/date=…`.
    pub(crate) manifests: BTreeMap<String, ManifestEntry>,
}

/// A folder in the [`FolderTable`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ManifestEntry {
    /// Path of the [`Manifest`].
    pub(crate) manifest: String,
    /// Chunk segments of the folder, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) segments: Vec<String>,
    /// Path of the [`ReplacedFiles`] of the folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) replaced: Option<String>,
    /// Whether the segments miss chunks of a covered commit, because its plan could not be read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) incomplete_index: bool,
}

impl ManifestEntry {
    /// Lists the objects that the entry refers to.
    pub(crate) fn objects(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.manifest).chain(&self.segments).chain(&self.replaced)
    }
}

/// Existing files of one folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// Format version, [`FORMAT`].
    pub(crate) format: u32,
    /// The files by commit, in commit order.
    pub(crate) commits: Vec<CommitFiles>,
}

/// Replaced files of one folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReplacedFiles {
    /// Format version, [`FORMAT`].
    pub(crate) format: u32,
    /// Replacement by replaced path; `null` if the rows were deleted.
    pub(crate) files: HashMap<String, Option<String>>,
}

impl Root {
    /// Returns the path of a root.
    pub(crate) fn path(sequence: u64) -> String {
        format!("{CHECKPOINTS}/{sequence:020}.json")
    }

    /// Parses the sequence number in the path of a root.
    pub(crate) fn sequence_of(path: &str) -> Option<u64> {
        path.strip_prefix(CHECKPOINTS)?.strip_prefix('/')?.strip_suffix(".json")?.parse().ok()
    }
}

/// Encodes an object as compressed JSON with a checksum.
pub(crate) fn encode(path: &str, value: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    let failed = |detail: String| StoreError::Metadata { path: path.to_owned(), detail };
    let json = serde_json::to_vec(value).map_err(|error| failed(error.to_string()))?;
    let compress = || -> std::io::Result<Vec<u8>> {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
        encoder.include_checksum(true)?;
        std::io::Write::write_all(&mut encoder, &json)?;
        encoder.finish()
    };
    compress().map_err(|error| failed(error.to_string()))
}

/// Decodes an object that [`encode`] made.
pub(crate) fn decode<T: DeserializeOwned>(path: &str, bytes: &[u8]) -> Result<T, StoreError> {
    let failed = |detail: String| StoreError::Metadata { path: path.to_owned(), detail };
    let mut json = Vec::new();
    let decoder = zstd::stream::Decoder::new(bytes).map_err(|error| failed(error.to_string()))?;
    std::io::Read::read_to_end(&mut std::io::Read::take(decoder, MAX_BYTES as u64), &mut json)
        .map_err(|error| failed(error.to_string()))?;
    parse_versioned(path, &json)
}

/// Returns an empty folder table.
pub(crate) fn no_folders() -> FolderTable {
    FolderTable { format: FORMAT, manifests: BTreeMap::new() }
}
