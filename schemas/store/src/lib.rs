//! The disk under the stages: the checksummed log between tap and archive, and the lake of Parquet files and commits.
//!
//! The one place that opens files and object stores for sessions, so that recorder, replayer and the binary read and
//! write the same layout without importing one another. It knows nothing of protocols, Kafka or statistics.

pub mod batch;
mod commits;
pub mod keyring;
mod load;
mod location;
pub mod log;
mod lookup;
pub mod maintenance;
mod objects;
mod range_read;
pub mod session;

/// A store or a run of Parquet files and commits.
pub mod lake {
    pub use crate::commits::{Claim, Snapshot};
    pub use crate::load::SessionGroup;
    pub use crate::maintenance as upkeep;
    pub use crate::objects::{Lake, LakeError};
    pub use crate::range_read::ReadCount;
}
