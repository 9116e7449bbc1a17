//! Maintenance of a store: compaction of small files, expiry of old sessions, erasure of sessions and tenants.
//!
//! Every change is a commit of source [`crate::commit::MAINTENANCE`] that names the files it replaces. They are deleted after
//! it, and then a checkpoint is made. After a crash readers see the old state or the new one, and the next maintenance
//! deletes what is left. Archivers may run meanwhile: they only add files. A second maintenance fences the first, whose next
//! commit is refused. Runs have no maintenance.

mod compact;
mod erase;
mod expire;
mod merge;
mod partition;
mod report;
mod rewrite;
mod task;

pub use compact::{CompactOptions, DEFAULT_TARGET_BYTES};
pub use erase::{Erasure, ErasureProof, ErasureReport};
pub use expire::ExpiryReport;
pub use report::{MaintenanceError, MaintenanceReport, TableChange, TableSize};
pub use rewrite::RemovedRows;
