//! The trial log of a run: a checksummed log of finished trials, from which they are committed to Parquet.
//!
//! A trial counts as finished once its record is on disk. A record holds a whole trial, so no trial is stored in part.
//! The log keeps a record until a commit that contains it is durable; after a kill or a failed commit the records are
//! read back. Thus no finished trial is lost, and none runs twice. A trial that the infrastructure failed is not finished: a
//! later start runs it again, as a further session of the run, and [`schemas::trial::supersede`] drops the failed one.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use schemas::exchange::Exchange;
use schemas::id::CaseId;
use schemas::keys::Digest;
use schemas::session::SessionClose;
use schemas::trial::{Lane, Trial, TrialEnding};
use serde::{Deserialize, Serialize};
use store::log::{LogError, LogOptions, LogReader, LogWriter};
use store::table::Table;
use store::{Batch, ChunkIndex, Snapshot, Store, StoreError};

/// Directory of the log, below the run.
const DIRECTORY: &str = "_trial_log";

/// First byte of every record.
const RECORD_VERSION: u8 = 1;

/// Finished trials that trigger a commit.
const COMMIT_TRIALS: usize = 256;

/// Bytes of pending payload that trigger a commit; the payload stays in memory until then.
const COMMIT_BYTES: usize = 48 << 20;

/// The trial log cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum TrialLogError {
    /// The log cannot be read or written.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The run cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record cannot be decoded.
    #[error(
        "trial log {path}, record {position}: {detail}; the run cannot be resumed, replay into a new run"
    )]
    Record {
        /// Directory of the log.
        path: PathBuf,
        /// Position of the record.
        position: u64,
        /// Cause.
        detail: String,
    },
    /// A trial cannot be encoded.
    #[error("cannot encode trial {session}: {detail}")]
    Encode {
        /// Session id of the trial.
        session: String,
        /// Cause.
        detail: String,
    },
    /// The run is not a local directory.
    #[error("run {location} is not a local directory, which the trial log needs; give a directory")]
    NotLocal {
        /// Location of the run.
        location: String,
    },
    /// A thread that writes the log panicked.
    #[error(
        "the thread that writes the trial log panicked; see the messages before this one, then resume the run"
    )]
    Thread,
}

/// A finished trial with all its rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TrialRecord {
    pub(crate) trial: Trial,
    pub(crate) close: SessionClose,
    pub(crate) exchanges: Vec<Exchange>,
    pub(crate) chunks: Vec<TrialChunk>,
}

/// A distinct chunk of the trial's bodies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TrialChunk {
    pub(crate) digest: Digest,
    #[serde(with = "serde_bytes")]
    pub(crate) bytes: Vec<u8>,
}

impl TrialRecord {
    fn encode(&self) -> Result<Vec<u8>, TrialLogError> {
        let mut out = vec![RECORD_VERSION];
        let written = self.serialize(&mut rmp_serde::Serializer::new(&mut out).with_struct_map());
        written.map_err(|error| TrialLogError::Encode {
            session: self.trial.session.to_string(),
            detail: error.to_string(),
        })?;
        Ok(out)
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        match bytes.split_first() {
            Some((&RECORD_VERSION, rest)) => rmp_serde::from_slice(rest).map_err(|error| error.to_string()),
            Some((found, _)) => Err(format!("record version is {found}, this build reads {RECORD_VERSION}")),
            None => Err("the record is empty".to_owned()),
        }
    }

    fn add_to(self, batch: &mut Batch) {
        let session = self.trial.session.clone();
        batch
            .chunks
            .extend(self.chunks.into_iter().map(|chunk| (session.clone(), chunk.digest, chunk.bytes.into())));
        batch.exchanges.extend(self.exchanges.into_iter().map(Box::new));
        batch.closes.push(self.close);
        batch.trials.push(self.trial);
    }
}

/// The trial log of a run, open for writing.
#[derive(Debug)]
pub(crate) struct TrialLog {
    store: Store,
    directory: PathBuf,
    /// Absent while a blocking thread uses the writer, and after that thread panicked.
    writer: Option<LogWriter>,
    /// Source of the commits.
    source: String,
    /// Position of the first record that is not committed.
    first: u64,
    /// The records from `first` on, unless `is_stale`.
    pending: Batch,
    /// A commit took `pending` and failed; the records must be read back from the log.
    is_stale: bool,
    chunk_index: ChunkIndex,
    finished: BTreeSet<(CaseId, u32)>,
    /// Trials of earlier starts that the infrastructure failed, with the number of such failures.
    failed: BTreeMap<(CaseId, u32), u32>,
    earlier: Vec<Trial>,
    earlier_model_calls: u64,
}

fn key(trial: &Trial) -> (CaseId, u32) {
    (trial.case.clone(), trial.trial)
}

impl TrialLog {
    /// Opens the trial log of a run: deletes files of incomplete commits, then reads finished trials from commits and log.
    pub(crate) async fn open(store: Store, lane: Lane) -> Result<Self, TrialLogError> {
        let directory = directory(store.location())?;
        let path = directory.clone();
        let writer = blocking(move || Ok(LogWriter::open(&path, LogOptions::default())?)).await?;
        let source = writer.name().to_owned();
        store.delete_orphans(&source).await?;
        let first = store.resume_position(&source).await?;
        let snapshot = store.snapshot().await?;
        let mut earlier: Vec<Trial> = store.read_table(&snapshot, Table::Trials, None).await?;
        earlier.retain(|trial| trial.lane == lane);
        let path = directory.clone();
        let records = blocking(move || read_back(&path, first)).await?;
        let lost = |trial: &Trial| trial.ending == TrialEnding::Infrastructure;
        let mut failed = BTreeMap::new();
        for trial in earlier.iter().chain(records.iter().map(|record| &record.trial)) {
            if lost(trial) {
                *failed.entry(key(trial)).or_insert(0) += 1;
            }
        }
        earlier.retain(|trial| !lost(trial));
        let mut earlier_model_calls = committed_model_calls(&store, &snapshot, &earlier).await?;
        let mut pending = Batch::default();
        for record in records {
            if !lost(&record.trial) {
                earlier.push(record.trial.clone());
                earlier_model_calls += u64::from(record.close.model_calls);
            }
            record.add_to(&mut pending);
        }
        let finished: BTreeSet<_> = earlier.iter().map(key).collect();
        let mut log = Self {
            store,
            directory,
            writer: Some(writer),
            source,
            first,
            pending,
            is_stale: false,
            chunk_index: ChunkIndex::default(),
            finished,
            failed,
            earlier,
            earlier_model_calls,
        };
        log.commit().await?;
        Ok(log)
    }

    /// Whether the log or a commit contains this trial, and the infrastructure did not fail it.
    pub(crate) fn is_finished(&self, case: &CaseId, trial: u32) -> bool {
        self.finished.contains(&(case.clone(), trial))
    }

    /// Number of earlier starts in which the infrastructure failed this trial.
    pub(crate) fn failures(&self, case: &CaseId, trial: u32) -> u32 {
        self.failed.get(&(case.clone(), trial)).copied().unwrap_or(0)
    }

    /// The trials that earlier starts finished.
    pub(crate) fn earlier(&self) -> &[Trial] {
        &self.earlier
    }

    /// Model calls of the trials that earlier starts finished.
    pub(crate) fn earlier_model_calls(&self) -> u64 {
        self.earlier_model_calls
    }

    /// Writes finished trials to disk, and commits once enough are pending.
    pub(crate) async fn append(&mut self, records: Vec<TrialRecord>) -> Result<(), TrialLogError> {
        let mut writer = self.writer.take().ok_or(TrialLogError::Thread)?;
        let (writer, written) = blocking(move || {
            let payloads = records.iter().map(TrialRecord::encode).collect::<Result<Vec<_>, _>>();
            let written = payloads.and_then(|payloads| {
                payloads.iter().try_for_each(|payload| writer.append(payload).map(drop))?;
                writer.sync()?;
                Ok(records)
            });
            Ok((writer, written))
        })
        .await?;
        self.writer = Some(writer);
        for record in written? {
            if record.trial.ending != TrialEnding::Infrastructure {
                self.finished.insert(key(&record.trial));
            }
            if !self.is_stale {
                record.add_to(&mut self.pending);
            }
        }
        let is_due = self.pending.trials.len() >= COMMIT_TRIALS || self.pending.bytes() >= COMMIT_BYTES;
        if is_due || self.is_stale { self.commit().await } else { Ok(()) }
    }

    /// Commits the pending trials to Parquet, then deletes their records from the log.
    ///
    /// A failed commit leaves the records in the log; the next call reads them back and commits them.
    pub(crate) async fn commit(&mut self) -> Result<(), TrialLogError> {
        if self.is_stale {
            self.reload().await?;
        }
        if self.pending.is_empty() {
            return Ok(());
        }
        let next = self.writer.as_ref().ok_or(TrialLogError::Thread)?.next_position();
        self.is_stale = true;
        let batch = std::mem::take(&mut self.pending);
        let chunk_index = std::mem::take(&mut self.chunk_index);
        self.chunk_index =
            self.commit_batch(self.source.clone(), self.first..next, batch, chunk_index).await?;
        self.is_stale = false;
        self.first = next;
        let mut writer = self.writer.take().ok_or(TrialLogError::Thread)?;
        let (writer, deleted) = blocking(move || {
            let deleted = writer.delete_before(next);
            Ok((writer, deleted))
        })
        .await?;
        self.writer = Some(writer);
        deleted?;
        Ok(())
    }

    /// Commits a batch of another source, while the log is locked.
    pub(crate) async fn commit_recordings(
        &mut self,
        source: &str,
        first: u64,
        next: u64,
        batch: Batch,
    ) -> Result<(), TrialLogError> {
        let chunk_index = ChunkIndex::default();
        self.commit_batch(source.to_owned(), first..next, batch, chunk_index).await?;
        Ok(())
    }

    /// Encodes and writes a batch on a blocking thread.
    ///
    /// The thread owns the writer, and with it the lock of the log: if the caller is dropped, no other start opens the run
    /// before this commit has ended.
    async fn commit_batch(
        &mut self,
        source: String,
        positions: Range<u64>,
        batch: Batch,
        mut chunk_index: ChunkIndex,
    ) -> Result<ChunkIndex, TrialLogError> {
        let writer = self.writer.take().ok_or(TrialLogError::Thread)?;
        let (store, runtime) = (self.store.clone(), tokio::runtime::Handle::current());
        let (writer, chunk_index, committed) = blocking(move || {
            let Range { start, end } = positions;
            let committed = runtime.block_on(store.commit(&source, start, end, batch, &mut chunk_index));
            Ok((writer, chunk_index, committed))
        })
        .await?;
        self.writer = Some(writer);
        committed?;
        Ok(chunk_index)
    }

    /// Reads the pending records back after a failed commit, which may have become durable nevertheless.
    async fn reload(&mut self) -> Result<(), TrialLogError> {
        let first = self.store.resume_position(&self.source).await?;
        let path = self.directory.clone();
        let records = blocking(move || read_back(&path, first)).await?;
        self.first = first;
        self.pending = Batch::default();
        for record in records {
            record.add_to(&mut self.pending);
        }
        self.is_stale = false;
        Ok(())
    }
}

/// Sums the model calls of committed trials. The close row of a trial has the count, its trial row has not.
async fn committed_model_calls(
    store: &Store,
    snapshot: &Snapshot,
    trials: &[Trial],
) -> Result<u64, StoreError> {
    let closes: Vec<SessionClose> = store.read_table(snapshot, Table::Sessions, None).await?;
    let sessions: BTreeSet<_> = trials.iter().map(|trial| &trial.session).collect();
    let closes = closes.iter().filter(|close| sessions.contains(&close.session));
    Ok(closes.map(|close| u64::from(close.model_calls)).sum())
}

fn read_back(directory: &Path, from: u64) -> Result<Vec<TrialRecord>, TrialLogError> {
    let mut reader = LogReader::open(directory, from)?;
    let mut records = Vec::new();
    while let Some((position, payload)) = reader.next()? {
        let record = TrialRecord::decode(&payload).map_err(|detail| TrialLogError::Record {
            path: directory.to_owned(),
            position,
            detail,
        })?;
        records.push(record);
    }
    Ok(records)
}

/// Runs work that waits for the disk or the processor on a blocking thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TrialLogError> + Send + 'static,
) -> Result<T, TrialLogError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| TrialLogError::Thread)?
}

fn directory(location: &str) -> Result<PathBuf, TrialLogError> {
    match location.split_once("://") {
        None => Ok(Path::new(location).join(DIRECTORY)),
        Some(("file", path)) => Ok(Path::new(path).join(DIRECTORY)),
        Some(_) => Err(TrialLogError::NotLocal { location: location.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use schemas::id::{AgentId, BuildId, IncarnationId, SessionId, TenantId};
    use schemas::keys::RootKey;

    use super::*;
    use crate::case_recording::CaseRecording;
    use crate::plan::PlannedTrial;
    use crate::trial_rows::{TrialMeta, trial_record};
    use crate::world::active_trial::TrialOutput;

    fn record(number: u32) -> TrialRecord {
        let case = CaseId::parse("case").expect("id");
        let tenant = TenantId::parse("default").expect("id");
        let recording = CaseRecording {
            case: case.clone(),
            tenant: tenant.clone(),
            agent: AgentId::parse("agent").expect("id"),
            turns: Vec::new(),
            tool_calls: Vec::new(),
            model_calls: Vec::new(),
            effects: Default::default(),
            tool_list: Default::default(),
            slices: Default::default(),
            undecoded: Default::default(),
        };
        let planned = PlannedTrial {
            case,
            trial: number,
            seed: 1,
            session: SessionId::parse(&format!("case~candidate~{number}")).expect("id"),
        };
        let meta = TrialMeta {
            planned,
            lane: Lane::Candidate,
            build: BuildId::parse("b").expect("id"),
            token: format!("{number:032x}"),
            incarnation: IncarnationId::parse("i").expect("id"),
            incarnation_seq: u64::from(number),
            started_at: 1,
            closed_at: 2,
            ending: TrialEnding::Complete,
            ending_detail: None,
            answer: None,
            fault_plan: None,
        };
        trial_record(&meta, &recording, TrialOutput::default(), &RootKey::new([1; 32]).tenant(&tenant))
    }

    async fn committed(store: &Store) -> Vec<u32> {
        let snapshot = store.snapshot().await.expect("commits");
        let trials: Vec<Trial> = store.read_table(&snapshot, Table::Trials, None).await.expect("trials");
        let mut numbers: Vec<u32> = trials.iter().map(|trial| trial.trial).collect();
        numbers.sort_unstable();
        numbers
    }

    #[tokio::test]
    async fn a_failed_commit_keeps_its_trials_for_the_next_commit() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path().to_str().expect("a plain path")).expect("a store");
        let mut log = TrialLog::open(store.clone(), Lane::Candidate).await.expect("a log");
        log.append(vec![record(0), record(1)]).await.expect("written");

        // A file in place of the directory of trials makes the commit fail, also for root.
        let obstacle = folder.path().join("trials");
        std::fs::write(&obstacle, "").expect("a file");
        log.commit().await.expect_err("the table cannot be written");
        // The next append tries the commit again and reports its failure; the trial is in the log nevertheless.
        log.append(vec![record(2)]).await.expect_err("the table still cannot be written");
        std::fs::remove_file(&obstacle).expect("removed");

        log.append(vec![record(3)]).await.expect("written and committed");
        assert_eq!(committed(&store).await, [0, 1, 2, 3]);
        drop(log);
        let log = TrialLog::open(store.clone(), Lane::Candidate).await.expect("the log opens again");
        assert!((0..4).all(|number| log.is_finished(&record(number).trial.case, number)));
        assert_eq!(committed(&store).await, [0, 1, 2, 3]);
    }

    #[tokio::test]
    async fn a_log_that_was_never_committed_is_committed_when_it_is_opened() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path().to_str().expect("a plain path")).expect("a store");
        let mut log = TrialLog::open(store.clone(), Lane::Candidate).await.expect("a log");
        log.append(vec![record(0)]).await.expect("written");
        drop(log);
        assert_eq!(committed(&store).await, [0; 0]);
        let log = TrialLog::open(store.clone(), Lane::Candidate).await.expect("the log opens again");
        assert_eq!((committed(&store).await, log.earlier().len()), (vec![0], 1));
    }
}
