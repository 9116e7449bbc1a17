//! The disk under the stages: the checksummed log between tap and archive, and the store of Parquet files and commits.
//!
//! The one place that opens files and object stores for sessions, so that recorder, replayer and the binary read and
//! write the same layout without importing one another. It knows nothing of protocols, Kafka or statistics.

mod batch;
mod chunk_index;
pub mod commit;
mod commits;
pub mod keyring;
mod load;
mod location;
pub mod log;
mod lookup;
pub mod maintenance;
mod objects;
mod range_read;
mod session;
pub mod table;

pub use batch::Batch;
pub use chunk_index::ChunkIndex;
pub use commits::{Claim, Snapshot};
pub use load::SessionGroup;
pub use objects::{Store, StoreError};
pub use range_read::ReadStats;
pub use session::StoredSession;
