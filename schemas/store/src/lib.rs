//! Storage: the segmented log of records, and the store of Parquet files and commits.
//!
//! The only crate that opens files and object stores for sessions, so that recorder, replayer and the binary share one
//! layout. It knows no protocols, Kafka or statistics.
//!
//! # Layout of a store
//!
//! | path | content |
//! |---|---|
//! | `<table>/tenant=…/agent=…/date=…/<source>--<position>-<tag>.parquet` | rows of one batch ([`table`]) |
//! | `_commits/<source>/<position>[_<epoch>].json` | [`commit::Commit`]: the files of one batch |
//! | `_plans/<source>/<file name>.plan` | files and chunks of a batch, written before its files; until a checkpoint |
//! | `_checkpoints/<sequence>.json` | last covered commit of each source |
//! | `_manifests/<sequence>-<tag>/folders` | manifest, chunk segments and replaced files of each folder |
//! | `_manifests/<sequence>-<tag>/<n>.manifest` | existing files of one folder |
//! | `_manifests/<sequence>-<tag>/<n>.chunks` | file that stores each chunk of each session, of one folder |
//! | `_manifests/<sequence>-<tag>/<n>.replaced` | replaced files of one folder, each with its replacement |
//! | `run.json` | manifest of a run of trials |
//! | `_imports/<source>.json` | what the import of a file into a run set aside |
//!
//! `<source>` is `<topic>-<partition>`, the name of a journal or of an import, or `~maintenance`, percent-encoded.
//! `<position>` and `<sequence>` have 20 digits. Readers of other systems need the tables and, to ignore files of batches
//! under way, the commits.
//!
//! # Protocol
//!
//! - **Commit.** A writer creates the plan, then the files, then the commit with a conditional put. The put decides which
//!   writer has the slot (position and epoch); the loser deletes its files and stops.
//! - **Claim.** A new writer creates a commit without files at the slot of the next batch. It fences the previous writer,
//!   whose next commit finds the slot taken. Then the new writer deletes the files in the plan of the interrupted batch.
//!   Commits are never deleted, because an empty slot would let a fenced writer commit.
//! - **Read.** A snapshot is the newest valid checkpoint and the commits after it, one listing per source from the
//!   checkpoint's position on. A damaged or half-written checkpoint is skipped for an older one or for the commits alone.
//! - **Checkpoint.** Every 64 commits a writer covers all commits by a new checkpoint, based on the last one: it writes the
//!   manifests of the changed folders and creates the root with a conditional put. The last three are kept.
//! - **Find chunks.** A body refers to chunks of its session in earlier files of the folder. A writer that does not know the
//!   file reads the folder's chunk segments (eight at most) and the plans after the checkpoint.
//! - **Maintenance.** Compaction, expiry and erasure commit replaced files under the source `~maintenance`, delete them, and
//!   make a checkpoint. Erasure removes the sessions from the chunk segments and deletes all older checkpoints.
//!
//! The number of requests to claim, to commit and to find chunks does not depend on the number of commits. A snapshot needs
//! one request per folder and source, and the commits after the checkpoint. Its bytes depend on the existing files.

mod batch;
mod checkpoint;
mod chunk_index;
pub mod commit;
mod commits;
mod error;
pub mod keyring;
mod load;
mod location;
pub mod log;
mod lookup;
pub mod maintenance;
mod objects;
mod plan;
mod range_read;
mod row_number;
mod session;
mod snapshot;
mod stored_chunks;
pub mod table;

pub use batch::Batch;
pub use chunk_index::ChunkIndex;
pub use commits::Claim;
pub use error::StoreError;
pub use load::SessionGroup;
pub use objects::{ReadStats, Store};
pub use session::StoredSession;
pub use snapshot::Snapshot;
