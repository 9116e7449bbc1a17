//! Expiry: deletes sessions that started before a day.
//!
//! A session that another recorder process continued later is in several folders; it stays until the last of them is old
//! enough. Sessions without times never expire, because their age is unknown: imports number them from 1970 on.

use std::collections::HashSet;

use schemas::id::SessionId;
use serde::Serialize;

use super::partition::{PartitionDir, pairs};
use super::report::{MaintenanceError, MaintenanceReport, changes};
use super::rewrite::RemovedRows;
use super::task::{MaintenanceTask, refuse_runs};
use crate::error::StoreError;
use crate::objects::Store;
use crate::snapshot::Snapshot;
use crate::table::Table;

/// Folders before this day have sessions without times.
const FIRST_REAL_DATE: &str = "1971-01-01";

/// Result of [`Store::expire`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExpiryReport {
    /// Deleted sessions.
    pub sessions: u64,
    /// Sessions with old and recent exchanges; they stay.
    pub continued: u64,
    /// Files of sessions without times; they stay.
    pub files_without_time: u64,
    /// Deleted rows.
    pub removed: RemovedRows,
    /// Changes of the tables.
    pub report: MaintenanceReport,
}

/// Session ids with the tenant folder: two tenants may have the same id.
type Ids = HashSet<(String, SessionId)>;

/// Sessions to expire, and others with old files.
struct ExpiryPlan {
    expiring: Ids,
    continued: Ids,
    files_without_time: u64,
}

fn is_old(date: &str, before: &str) -> bool {
    (FIRST_REAL_DATE..before).contains(&date)
}

/// Needs memory for the ids of the old sessions, not for those of the store.
async fn plan(store: &Store, snapshot: &Snapshot, before: &str) -> Result<ExpiryPlan, StoreError> {
    let mut plan = ExpiryPlan { expiring: Ids::new(), continued: Ids::new(), files_without_time: 0 };
    let files = || snapshot.files(Table::Exchanges).chain(snapshot.files(Table::Sessions));
    for file in files() {
        let dir = PartitionDir::of(&file.path)?;
        plan.files_without_time += u64::from(dir.date < FIRST_REAL_DATE);
        if is_old(dir.date, before) {
            let ids = store.sessions_in(file).await?;
            plan.expiring.extend(ids.into_iter().map(|id| (dir.tenant.to_owned(), id)));
        }
    }
    if plan.expiring.is_empty() {
        return Ok(plan);
    }
    for file in files() {
        let dir = PartitionDir::of(&file.path)?;
        if !is_old(dir.date, before) {
            for id in store.sessions_in(file).await? {
                let id = (dir.tenant.to_owned(), id);
                if plan.expiring.remove(&id) {
                    plan.continued.insert(id);
                }
            }
        }
    }
    Ok(plan)
}

impl Store {
    /// Deletes the sessions that started before a UTC day, `YYYY-MM-DD`.
    ///
    /// # Errors
    /// The store cannot be read or written, is a run, or other maintenance was started meanwhile.
    pub async fn expire(&self, before: &str) -> Result<ExpiryReport, MaintenanceError> {
        let mut task = MaintenanceTask::begin(self).await?;
        let snapshot = task.snapshot.clone();
        match task.expire(&snapshot, before).await {
            Ok((plan, removed)) => {
                task.finish().await;
                Ok(plan.report(removed, task.report(&snapshot)))
            }
            Err(error) => Err(task.explain(error).await),
        }
    }

    /// Returns the report that [`Self::expire`] would return. Sizes in bytes are not estimated.
    ///
    /// # Errors
    /// The store cannot be read, or is a run.
    pub async fn plan_expiry(&self, before: &str) -> Result<ExpiryReport, MaintenanceError> {
        refuse_runs(self).await?;
        let snapshot = self.snapshot().await?;
        let plan = plan(self, &snapshot, before).await?;
        let tables = changes(&snapshot, &snapshot);
        Ok(plan.report(RemovedRows::default(), MaintenanceReport::of_dry_run(tables)))
    }
}

impl MaintenanceTask<'_> {
    async fn expire(
        &mut self,
        snapshot: &Snapshot,
        before: &str,
    ) -> Result<(ExpiryPlan, RemovedRows), MaintenanceError> {
        let plan = plan(self.store, snapshot, before).await?;
        let mut removed = RemovedRows::default();
        for pair in pairs(snapshot) {
            let dir = PartitionDir::of(&pair.exchanges.path)?;
            if is_old(dir.date, before) {
                self.rewrite_pair_without(pair, |id| plan.expires(dir, id), &mut removed).await?;
            }
        }
        for file in snapshot.files(Table::Sessions) {
            let dir = PartitionDir::of(&file.path)?;
            if is_old(dir.date, before) {
                self.rewrite_closes_without(file, |id| plan.expires(dir, id), &mut removed).await?;
            }
        }
        self.commit().await?;
        Ok((plan, removed))
    }
}

impl ExpiryPlan {
    /// Returns whether a session is to be deleted. Rows added to an old folder after the plan are of other sessions.
    fn expires(&self, dir: PartitionDir<'_>, id: &SessionId) -> bool {
        self.expiring.contains(&(dir.tenant.to_owned(), id.clone()))
    }

    fn report(&self, removed: RemovedRows, report: MaintenanceReport) -> ExpiryReport {
        ExpiryReport {
            sessions: self.expiring.len() as u64,
            continued: self.continued.len() as u64,
            files_without_time: self.files_without_time,
            removed,
            report,
        }
    }
}
