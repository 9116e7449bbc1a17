//! Expiry: sessions that started before a day are taken out, each as a whole.
//!
//! A session that another recorder process went on with later lies in several folders; it stays until the last of them
//! is old enough. Sessions without times (imports number those from 1970 on) never expire: nobody knows how old they are.

use std::collections::HashSet;

use schemas::id::SessionId;
use schemas::table::Table;
use serde::Serialize;

use super::rewrite::Stripped;
use super::{Home, Upkeep, UpkeepError, Upkept, changes, pairs, refuse_runs};
use crate::commits::Snapshot;
use crate::objects::{Lake, LakeError};

/// Folders before this day hold sessions without times.
const FIRST_REAL_DATE: &str = "1971-01-01";

/// What an expiry did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Expired {
    /// Sessions that are gone.
    pub sessions: u64,
    /// Sessions with parts that are old enough and parts that are not: they stay whole.
    pub going_on: u64,
    /// Files that hold sessions without times, which stay.
    pub files_without_time: u64,
    /// What went.
    pub stripped: Stripped,
    /// The tables.
    pub upkept: Upkept,
}

/// Sessions by tenant folder: two tenants may have the same id.
type Ids = HashSet<(String, SessionId)>;

/// What there is to expire.
struct Plan {
    expiring: Ids,
    going_on: Ids,
    files_without_time: u64,
}

fn is_old(date: &str, before: &str) -> bool {
    (FIRST_REAL_DATE..before).contains(&date)
}

/// Holds the ids of the sessions that may expire, not those of the store.
async fn plan(lake: &Lake, snapshot: &Snapshot, before: &str) -> Result<Plan, LakeError> {
    let mut plan = Plan { expiring: Ids::new(), going_on: Ids::new(), files_without_time: 0 };
    let files = || snapshot.files(Table::Exchanges).chain(snapshot.files(Table::Sessions));
    for file in files() {
        let home = Home::of(&file.path)?;
        plan.files_without_time += u64::from(home.date < FIRST_REAL_DATE);
        if is_old(home.date, before) {
            let ids = lake.sessions_in(file).await?;
            plan.expiring.extend(ids.into_iter().map(|id| (home.tenant.to_owned(), id)));
        }
    }
    if plan.expiring.is_empty() {
        return Ok(plan);
    }
    for file in files() {
        let home = Home::of(&file.path)?;
        if !is_old(home.date, before) {
            for id in lake.sessions_in(file).await? {
                let id = (home.tenant.to_owned(), id);
                if plan.expiring.remove(&id) {
                    plan.going_on.insert(id);
                }
            }
        }
    }
    Ok(plan)
}

impl Lake {
    /// Takes out the sessions that started before a UTC day, `YYYY-MM-DD`.
    ///
    /// # Errors
    /// The store cannot be read or written, is a run, or another upkeep was started meanwhile.
    pub async fn expire(&self, before: &str) -> Result<Expired, UpkeepError> {
        let mut upkeep = Upkeep::begin(self).await?;
        let snapshot = upkeep.snapshot.clone();
        match upkeep.expire(&snapshot, before).await {
            Ok((plan, stripped)) => Ok(plan.expired(stripped, upkeep.upkept(&snapshot))),
            Err(error) => Err(upkeep.explain(error).await),
        }
    }

    /// Says what [`Self::expire`] would do, without doing it: sessions, not bytes.
    ///
    /// # Errors
    /// The store cannot be read, or is a run.
    pub async fn expire_dry(&self, before: &str) -> Result<Expired, UpkeepError> {
        refuse_runs(self).await?;
        let snapshot = self.snapshot().await?;
        let plan = plan(self, &snapshot, before).await?;
        let tables = changes(&snapshot, &snapshot);
        Ok(plan.expired(Stripped::default(), Upkept { tables, commits: 0, leftovers: 0 }))
    }
}

impl Upkeep<'_> {
    async fn expire(&mut self, snapshot: &Snapshot, before: &str) -> Result<(Plan, Stripped), UpkeepError> {
        let plan = plan(self.lake, snapshot, before).await?;
        let mut stripped = Stripped::default();
        for pair in pairs(snapshot) {
            let home = Home::of(&pair.exchanges.path)?;
            if is_old(home.date, before) {
                self.strip_pair(pair, |id| plan.expires(home, id), &mut stripped).await?;
            }
        }
        for file in snapshot.files(Table::Sessions) {
            let home = Home::of(&file.path)?;
            if is_old(home.date, before) {
                self.strip_closes(file, |id| plan.expires(home, id), &mut stripped).await?;
            }
        }
        self.commit().await?;
        Ok((plan, stripped))
    }
}

impl Plan {
    /// What came into an old folder after the plan was made belongs to no session of it, and stays.
    fn expires(&self, home: Home<'_>, id: &SessionId) -> bool {
        self.expiring.contains(&(home.tenant.to_owned(), id.clone()))
    }

    fn expired(&self, stripped: Stripped, upkept: Upkept) -> Expired {
        Expired {
            sessions: self.expiring.len() as u64,
            going_on: self.going_on.len() as u64,
            files_without_time: self.files_without_time,
            stripped,
            upkept,
        }
    }
}
