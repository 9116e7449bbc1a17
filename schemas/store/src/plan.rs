//! Plan of a batch: an object written before the batch's files, with their paths and the chunks that they store.
//!
//! A writer that claims a source finds the files of an interrupted batch through its plan, without listing the tables. A
//! checkpoint takes the chunks of a committed batch from its plan, without reading the files, and then deletes the plan.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use schemas::FORMAT;
use schemas::keys::{DIGEST_BYTES, Digest};
use serde::{Deserialize, Serialize};

use crate::checkpoint::format::{decode, encode};
use crate::checkpoint::segment::SessionHash;
use crate::commit::escape;
use crate::error::StoreError;

/// Folder of the plans.
pub(crate) const PLANS: &str = "_plans";

/// Bytes of a chunk in a plan: session hash and digest.
const CHUNK_BYTES: usize = 8 + DIGEST_BYTES;

/// Creates the name of a new data file of a source: `<source>--<first, 20 digits>-<random tag>.parquet`.
pub(crate) fn file_name(source: &str, first: u64) -> String {
    let tag = uuid::Uuid::new_v4().simple().to_string();
    format!("{}--{first:020}-{}.parquet", escape(source), &tag[..8])
}

/// Parses a file name into the escaped source and the position of its commit.
pub(crate) fn parse_file_name(name: &str) -> Option<(&str, u64)> {
    let (stem, _tag) = name.strip_suffix(".parquet")?.rsplit_once('-')?;
    let (source, first) = stem.rsplit_once("--")?;
    Some((source, first.parse().ok()?))
}

/// Folder of the plans of a source.
pub(crate) fn plan_folder(source: &str) -> String {
    format!("{PLANS}/{}", escape(source))
}

/// Path of the plan of the batch whose files have this name.
pub(crate) fn plan_path(source: &str, file_name: &str) -> String {
    format!("{}/{file_name}.plan", plan_folder(source))
}

/// A path before the plans of batches that begin at this position or later, and after those of earlier ones.
pub(crate) fn plans_from(source: &str, first: u64) -> String {
    format!("{}/{}--{first:020}", plan_folder(source), escape(source))
}

/// File name of the batch that a plan is for.
pub(crate) fn planned_name(plan_path: &str) -> Option<&str> {
    plan_path.rsplit_once('/')?.1.strip_suffix(".plan")
}

/// Files of one batch before they are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BatchPlan {
    /// Format version, [`FORMAT`].
    format: u32,
    /// Paths of the files.
    pub(crate) files: Vec<String>,
    /// Chunks whose bytes the files store, by folder: rows of [`CHUNK_BYTES`] in Base64.
    chunks: BTreeMap<String, String>,
}

impl BatchPlan {
    pub(crate) fn new(files: Vec<String>, chunks: BTreeMap<String, Vec<(SessionHash, Digest)>>) -> Self {
        let pack = |rows: Vec<(SessionHash, Digest)>| {
            let rows =
                rows.iter().flat_map(|(session, digest)| session.0.to_be_bytes().into_iter().chain(digest.0));
            STANDARD_NO_PAD.encode(rows.collect::<Vec<u8>>())
        };
        let chunks = chunks.into_iter().map(|(folder, rows)| (folder, pack(rows))).collect();
        Self { format: FORMAT, files, chunks }
    }

    pub(crate) fn encode(&self, path: &str) -> Result<Vec<u8>, StoreError> {
        encode(path, self)
    }

    pub(crate) fn decode(path: &str, bytes: &[u8]) -> Result<Self, StoreError> {
        decode(path, bytes)
    }

    /// Returns the chunks stored in a folder.
    ///
    /// # Errors
    /// The plan is damaged.
    pub(crate) fn chunks_in(
        &self,
        path: &str,
        folder: &str,
    ) -> Result<Vec<(SessionHash, Digest)>, StoreError> {
        let Some(packed) = self.chunks.get(folder) else { return Ok(Vec::new()) };
        let failed = |detail: &str| StoreError::Metadata { path: path.to_owned(), detail: detail.to_owned() };
        let rows = STANDARD_NO_PAD.decode(packed).map_err(|_| failed("has chunks that are not Base64"))?;
        let row = |row: &[u8]| {
            let (session, digest) = row.split_first_chunk::<8>()?;
            Some((SessionHash(u64::from_be_bytes(*session)), Digest(digest.try_into().ok()?)))
        };
        let rows: Option<Vec<_>> = rows.chunks(CHUNK_BYTES).map(row).collect();
        rows.ok_or_else(|| failed("has a chunk that does not parse"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_parsed_whatever_the_source_is_called() {
        for (source, first) in
            [("t-0", 0), ("a--b", 7), ("~maintenance", u64::MAX), ("x--00000000000000000003-ab", 1)]
        {
            let name = file_name(source, first);
            assert_eq!(parse_file_name(&name), Some((escape(source).as_str(), first)), "{name}");
            assert_eq!(planned_name(&plan_path(source, &name)), Some(name.as_str()));
        }
        assert_eq!(parse_file_name("f.parquet"), None);
    }

    #[test]
    fn a_plan_is_read_as_it_was_written() {
        let rows = vec![(SessionHash(1), Digest([2; 16])), (SessionHash(u64::MAX), Digest([3; 16]))];
        let plan =
            BatchPlan::new(vec!["chunks/d/f".to_owned()], BTreeMap::from([("d".to_owned(), rows.clone())]));
        let bytes = plan.encode("p").expect("encodes");
        let read = BatchPlan::decode("p", &bytes).expect("decodes");
        assert_eq!((&read, read.chunks_in("p", "d").expect("parses")), (&plan, rows));
        assert_eq!(read.chunks_in("p", "other").expect("parses"), []);
        assert!(BatchPlan::decode("p", &bytes[..bytes.len() - 1]).is_err());
    }
}
