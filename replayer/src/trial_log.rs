//! The ledger of a run: each finished trial goes into a checksummed log before it counts, and from there into Parquet.
//!
//! A trial is one record, so it is there whole or not at all. What was committed is known by its commits, what was not
//! yet is read back from the log: after a kill no finished trial is lost and none is played twice.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use schemas::exchange::Exchange;
use schemas::id::CaseId;
use schemas::keys::Digest;
use schemas::session::SessionClose;
use schemas::trial::{Lane, Trial};
use serde::{Deserialize, Serialize};
use store::log::{LogError, LogOptions, LogReader, LogWriter};
use store::table::Table;
use store::{Batch, ChunkIndex, Snapshot, Store, StoreError};

/// The folder of the log below the run.
const FOLDER: &str = "_ledger";

/// The version byte that every record starts with.
const RECORD_VERSION: u8 = 1;

/// Finished trials that are committed together, at most.
const COMMIT_TRIALS: usize = 256;

/// Payload that is committed together, at most about; it is held in memory until then.
const COMMIT_BYTES: usize = 48 << 20;

/// The ledger cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The log said no.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The run said no.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record that is none of ours.
    #[error("ledger {path}, record {position}: {detail}; the run cannot be resumed, replay into a new one")]
    Record {
        /// The folder.
        path: PathBuf,
        /// The record.
        position: u64,
        /// What is wrong.
        detail: String,
    },
    /// A value that cannot be written.
    #[error("trial {session} cannot be encoded: {detail}")]
    Encode {
        /// The trial.
        session: String,
        /// What is wrong.
        detail: String,
    },
    /// The run is not on a disk.
    #[error("run {location} is not a local directory, and the ledger needs one; give a directory")]
    NotLocal {
        /// As given.
        location: String,
    },
    /// The thread that writes was lost.
    #[error(
        "the thread that writes the ledger ended early; see the messages before this one, then resume the run"
    )]
    Thread,
}

/// Everything of a finished trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) trial: Trial,
    pub(crate) close: SessionClose,
    pub(crate) exchanges: Vec<Exchange>,
    pub(crate) pieces: Vec<EntryPiece>,
}

/// A distinct piece of the trial's bodies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EntryPiece {
    pub(crate) digest: Digest,
    #[serde(with = "serde_bytes")]
    pub(crate) bytes: Vec<u8>,
}

impl Entry {
    fn encode(&self) -> Result<Vec<u8>, LedgerError> {
        let mut out = vec![RECORD_VERSION];
        let written = self.serialize(&mut rmp_serde::Serializer::new(&mut out).with_struct_map());
        written.map_err(|error| LedgerError::Encode {
            session: self.trial.session.to_string(),
            detail: error.to_string(),
        })?;
        Ok(out)
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        match bytes.split_first() {
            Some((&RECORD_VERSION, rest)) => rmp_serde::from_slice(rest).map_err(|error| error.to_string()),
            Some((found, _)) => Err(format!("version {found}, this build reads {RECORD_VERSION}")),
            None => Err("it is empty".to_owned()),
        }
    }

    fn add_to(self, batch: &mut Batch) {
        let session = self.trial.session.clone();
        batch
            .pieces
            .extend(self.pieces.into_iter().map(|piece| (session.clone(), piece.digest, piece.bytes.into())));
        batch.exchanges.extend(self.exchanges.into_iter().map(Box::new));
        batch.closes.push(self.close);
        batch.trials.push(self.trial);
    }
}

/// The ledger of a run, open for writing.
#[derive(Debug)]
pub(crate) struct Ledger {
    lake: Store,
    writer: Option<LogWriter>,
    name: String,
    /// Position of the first record that is not committed.
    first: u64,
    pending: Batch,
    leaning: ChunkIndex,
    finished: BTreeSet<(CaseId, u32)>,
    earlier: Vec<Trial>,
    earlier_model_calls: u64,
}

impl Ledger {
    /// Opens the ledger of a run and finds what is finished: deletes half-written files, reads commits and log.
    pub(crate) async fn open(lake: Store, lane: Lane) -> Result<Self, LedgerError> {
        let folder = folder(lake.location())?;
        let writer = blocking({
            let folder = folder.clone();
            move || Ok(LogWriter::open(&folder, LogOptions::default())?)
        })
        .await?;
        let name = writer.name().to_owned();
        lake.delete_orphans(&name).await?;
        let first = lake.resume_position(&name).await?;
        let snapshot = lake.snapshot().await?;
        let mut earlier: Vec<Trial> = lake.read_table(&snapshot, Table::Trials, None).await?;
        earlier.retain(|trial| trial.lane == lane);
        let mut earlier_model_calls = committed_model_calls(&lake, &snapshot, &earlier).await?;
        let entries = blocking(move || read_back(&folder, first)).await?;
        let mut pending = Batch::default();
        for entry in entries {
            earlier.push(entry.trial.clone());
            earlier_model_calls += u64::from(entry.close.model_calls);
            entry.add_to(&mut pending);
        }
        let finished = earlier.iter().map(|trial| (trial.case.clone(), trial.trial)).collect();
        let mut ledger = Self {
            lake,
            writer: Some(writer),
            name,
            first,
            pending,
            leaning: ChunkIndex::default(),
            finished,
            earlier,
            earlier_model_calls,
        };
        ledger.commit().await?;
        Ok(ledger)
    }

    /// Whether this trial was finished by an earlier start.
    pub(crate) fn is_finished(&self, case: &CaseId, trial: u32) -> bool {
        self.finished.contains(&(case.clone(), trial))
    }

    /// The trials that earlier starts finished.
    pub(crate) fn earlier(&self) -> &[Trial] {
        &self.earlier
    }

    /// The model calls in those trials.
    pub(crate) fn earlier_model_calls(&self) -> u64 {
        self.earlier_model_calls
    }

    /// Writes finished trials so that they survive a crash, and commits when enough are there.
    pub(crate) async fn append(&mut self, entries: Vec<Entry>) -> Result<(), LedgerError> {
        let mut payloads = Vec::with_capacity(entries.len());
        for entry in &entries {
            payloads.push(entry.encode()?);
        }
        let mut writer = self.writer.take().ok_or(LedgerError::Thread)?;
        let (writer, written) = blocking(move || {
            let written = payloads.iter().try_for_each(|payload| writer.append(payload).map(drop));
            let written = written.and_then(|()| writer.sync());
            Ok((writer, written))
        })
        .await?;
        self.writer = Some(writer);
        written?;
        for entry in entries {
            self.finished.insert((entry.trial.case.clone(), entry.trial.trial));
            entry.add_to(&mut self.pending);
        }
        if self.pending.trials.len() >= COMMIT_TRIALS || self.pending.bytes() >= COMMIT_BYTES {
            self.commit().await?;
        }
        Ok(())
    }

    /// Turns what is finished into Parquet and frees the log of it.
    pub(crate) async fn commit(&mut self) -> Result<(), LedgerError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let mut writer = self.writer.take().ok_or(LedgerError::Thread)?;
        let next = writer.next_position();
        let batch = std::mem::take(&mut self.pending);
        let committed = self.lake.commit(&self.name, self.first, next, batch, &mut self.leaning).await;
        if committed.is_ok() {
            self.first = next;
            let (kept, freed) = blocking(move || {
                let freed = writer.delete_before(next);
                Ok((writer, freed))
            })
            .await?;
            writer = kept;
            freed?;
        }
        self.writer = Some(writer);
        committed?;
        Ok(())
    }
}

/// A trial's row does not count its model calls, its close row does.
async fn committed_model_calls(
    lake: &Store,
    snapshot: &Snapshot,
    trials: &[Trial],
) -> Result<u64, StoreError> {
    let closes: Vec<SessionClose> = lake.read_table(snapshot, Table::Sessions, None).await?;
    let sessions: BTreeSet<_> = trials.iter().map(|trial| &trial.session).collect();
    let closes = closes.iter().filter(|close| sessions.contains(&close.session));
    Ok(closes.map(|close| u64::from(close.model_calls)).sum())
}

fn read_back(folder: &Path, from: u64) -> Result<Vec<Entry>, LedgerError> {
    let mut reader = LogReader::open(folder, from)?;
    let mut entries = Vec::new();
    while let Some((position, payload)) = reader.next()? {
        let entry = Entry::decode(&payload).map_err(|detail| LedgerError::Record {
            path: folder.to_owned(),
            position,
            detail,
        })?;
        entries.push(entry);
    }
    Ok(entries)
}

/// Runs what waits for the disk on a thread of its own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LedgerError> + Send + 'static,
) -> Result<T, LedgerError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| LedgerError::Thread)?
}

fn folder(location: &str) -> Result<PathBuf, LedgerError> {
    match location.split_once("://") {
        None => Ok(Path::new(location).join(FOLDER)),
        Some(("file", path)) => Ok(Path::new(path).join(FOLDER)),
        Some(_) => Err(LedgerError::NotLocal { location: location.to_owned() }),
    }
}
