//! Expiry: sessions that started before a day are taken out, each as a whole.
//!
//! A session that another recorder process went on with later lies in several folders; it stays until the last of them
//! is old enough. Sessions without times (imports number those from 1970 on) never expire: nobody knows how old they are.

use std::collections::HashSet;

use crate::table::Table;
use schemas::id::SessionId;
use serde::Serialize;

use super::rewrite::RemovedRows;
use super::{Maintenance, MaintenanceError, MaintenanceReport, PartitionDir, changes, pairs, refuse_runs};
use crate::commits::Snapshot;
use crate::objects::{Store, StoreError};

/// Folders before this day hold sessions without times.
const FIRST_REAL_DATE: &str = "1971-01-01";

/// What an expiry did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExpiryReport {
    /// Sessions that are gone.
    pub sessions: u64,
    /// Sessions with parts that are old enough and parts that are not: they stay whole.
    pub continued: u64,
    /// Files that hold sessions without times, which stay.
    pub files_without_time: u64,
    /// What went.
    pub removed: RemovedRows,
    /// The tables.
    pub report: MaintenanceReport,
}

/// Sessions by tenant folder: two tenants may have the same id.
type Ids = HashSet<(String, SessionId)>;

/// What there is to expire.
struct Plan {
    expiring: Ids,
    continued: Ids,
    files_without_time: u64,
}

fn is_old(date: &str, before: &str) -> bool {
    (FIRST_REAL_DATE..before).contains(&date)
}

/// Holds the ids of the sessions that may expire, not those of the store.
async fn plan(store: &Store, snapshot: &Snapshot, before: &str) -> Result<Plan, StoreError> {
    let mut plan = Plan { expiring: Ids::new(), continued: Ids::new(), files_without_time: 0 };
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
    /// Takes out the sessions that started before a UTC day, `YYYY-MM-DD`.
    ///
    /// # Errors
    /// The store cannot be read or written, is a run, or another maintenance was started meanwhile.
    pub async fn expire(&self, before: &str) -> Result<ExpiryReport, MaintenanceError> {
        let mut maintenance = Maintenance::begin(self).await?;
        let snapshot = maintenance.snapshot.clone();
        match maintenance.expire(&snapshot, before).await {
            Ok((plan, removed)) => Ok(plan.expired(removed, maintenance.report(&snapshot))),
            Err(error) => Err(maintenance.explain(error).await),
        }
    }

    /// Says what [`Self::expire`] would do, without doing it: sessions, not bytes.
    ///
    /// # Errors
    /// The store cannot be read, or is a run.
    pub async fn plan_expiry(&self, before: &str) -> Result<ExpiryReport, MaintenanceError> {
        refuse_runs(self).await?;
        let snapshot = self.snapshot().await?;
        let plan = plan(self, &snapshot, before).await?;
        let tables = changes(&snapshot, &snapshot);
        Ok(plan
            .expired(RemovedRows::default(), MaintenanceReport { tables, commits: 0, leftovers_deleted: 0 }))
    }
}

impl Maintenance<'_> {
    async fn expire(
        &mut self,
        snapshot: &Snapshot,
        before: &str,
    ) -> Result<(Plan, RemovedRows), MaintenanceError> {
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

impl Plan {
    /// What came into an old folder after the plan was made belongs to no session of it, and stays.
    fn expires(&self, dir: PartitionDir<'_>, id: &SessionId) -> bool {
        self.expiring.contains(&(dir.tenant.to_owned(), id.clone()))
    }

    fn expired(&self, removed: RemovedRows, report: MaintenanceReport) -> ExpiryReport {
        ExpiryReport {
            sessions: self.expiring.len() as u64,
            continued: self.continued.len() as u64,
            files_without_time: self.files_without_time,
            removed,
            report,
        }
    }
}
