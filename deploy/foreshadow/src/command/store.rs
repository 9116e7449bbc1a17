//! `foreshadow store`: small files merged, old sessions expired, sessions and tenants erased.
//!
//! The work is the store's; here are its flags, its words, and what it cannot reach.

use std::time::Duration;

use anyhow::anyhow;
use clap::Subcommand;
use recorder::config::values::ByteSize;
use schemas::id::{SessionId, TenantId};
use serde::Deserialize;
use serde::de::IntoDeserializer as _;
use store::maintenance::{
    CompactOptions, DEFAULT_TARGET_BYTES, Erasure, ErasureReport, ExpiryReport, MaintenanceError,
    MaintenanceReport,
};

use crate::clock;
use crate::console::Console;
use crate::context::Context;
use crate::exit::{Failure, Status};
use crate::format::{count_u64, escape_control, parse_duration};

/// What an erasure in the store does not reach.
const OUT_OF_REACH: [&str; 5] = [
    "the Kafka topic, until its retention has passed",
    "recorders' journals that are not archived yet",
    "runs replayed or imported from these sessions, and their reports",
    "backups, snapshots and older object versions of the store",
    "the names of folders and files in the store's commits, which hold tenants and agents",
];

/// Sessions that are named on the terminal; `--json` names all.
const MAX_NAMED: usize = 5;

/// Arguments of `foreshadow store`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to do with it.
    #[command(subcommand)]
    work: Work,
}

/// What to do with a store.
#[derive(Debug, Subcommand)]
enum Work {
    /// Merge small files; readers see the same, archivers may go on.
    Compact(CompactArgs),
    /// Delete sessions that started long ago, each as a whole.
    Expire(ExpireArgs),
    /// Delete all of some sessions or tenants, and read the store again to see that nothing is left.
    Erase(EraseArgs),
}

/// Arguments of `foreshadow store compact`.
#[derive(Debug, clap::Args)]
struct CompactArgs {
    /// Store to compact.
    #[arg(long, value_name = "STORE")]
    store: String,
    /// Size that merged files aim at: 134217728, 64MiB, 1GiB [default: 128MiB].
    #[arg(long, value_name = "SIZE", value_parser = size)]
    target_bytes: Option<u64>,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
}

/// Arguments of `foreshadow store expire`.
#[derive(Debug, clap::Args)]
struct ExpireArgs {
    /// Store to clean.
    #[arg(long, value_name = "STORE")]
    store: String,
    /// Sessions that started on a day (UTC) all of which is longer ago: 90days, 6months.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    older_than: Duration,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
}

/// Arguments of `foreshadow store erase`.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["session", "tenant"])))]
struct EraseArgs {
    /// Store to erase from.
    #[arg(long, value_name = "STORE")]
    store: String,
    /// Session to erase; may be given again.
    #[arg(long, value_name = "ID")]
    session: Vec<SessionId>,
    /// Tenant to erase all sessions of; may be given again.
    #[arg(long, value_name = "ID")]
    tenant: Vec<TenantId>,
    /// Only say what would be done.
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Do it: this cannot be undone.
    #[arg(long)]
    yes: bool,
}

/// Runs `foreshadow store`.
pub(crate) async fn run(args: Args, context: &Context<'_>) -> Result<Status, Failure> {
    match args.work {
        Work::Compact(args) => compact(args, context).await,
        Work::Expire(args) => expire(args, context).await,
        Work::Erase(args) => erase(args, context).await,
    }
}

async fn compact(args: CompactArgs, context: &Context<'_>) -> Result<Status, Failure> {
    let (store, _) = context.open_committed(&args.store).await?;
    let options = CompactOptions { target_bytes: args.target_bytes.unwrap_or(DEFAULT_TARGET_BYTES) };
    let done = if args.dry_run { store.plan_compaction(options).await } else { store.compact(options).await };
    let done = done.map_err(failure)?;
    let console = context.console;
    console.result(&done);
    if args.dry_run {
        for change in &done.tables {
            let (before, after) = (change.before.files, change.after.files);
            console.line(format!("{}: {} would become {after}", change.table.as_str(), files(before)));
        }
    } else {
        tables(console, &done);
        if done.commits == 0 {
            console.line("nothing to merge: no folder has two small files");
        }
    }
    Ok(Status::Success)
}

async fn expire(args: ExpireArgs, context: &Context<'_>) -> Result<Status, Failure> {
    let (store, _) = context.open_committed(&args.store).await?;
    let ago = i64::try_from(args.older_than.as_micros()).unwrap_or(i64::MAX);
    let before = store::commit::utc_date(clock::now_micros().saturating_sub(ago));
    let done = if args.dry_run { store.plan_expiry(&before).await } else { store.expire(&before).await };
    let done = done.map_err(failure)?;
    let console = context.console;
    console.result(&done);
    if !args.dry_run {
        tables(console, &done.report);
    }
    console.line(expiry(&done, &before, args.dry_run));
    Ok(Status::Success)
}

fn expiry(done: &ExpiryReport, before: &str, dry_run: bool) -> String {
    let verb = if dry_run { "would be deleted" } else { "deleted" };
    let mut text = format!("{} from before {before} {verb}", sessions(done.sessions));
    if done.continued > 0 {
        text.push_str(&format!("; {} that went on later stay", done.continued));
    }
    if done.files_without_time > 0 {
        let number = files(done.files_without_time);
        text.push_str(&format!("; {number} of sessions without times stay (erase them by --session)"));
    }
    text
}

async fn erase(args: EraseArgs, context: &Context<'_>) -> Result<Status, Failure> {
    if !args.dry_run && !args.yes {
        let error = anyhow!("erasing cannot be undone: look with --dry-run first, then say --yes");
        return Err(Failure::usage(error));
    }
    let (store, _) = context.open_committed(&args.store).await?;
    let erasure =
        Erasure { sessions: args.session.into_iter().collect(), tenants: args.tenant.into_iter().collect() };
    let done = if args.dry_run { store.plan_erasure(&erasure).await } else { store.erase(&erasure).await };
    let done = done.map_err(failure)?;
    let console = context.console;
    console.result(&serde_json::json!({ "erased": done, "out_of_reach": OUT_OF_REACH }));
    for line in erasure_lines(&done) {
        console.line(line);
    }
    if !args.dry_run {
        tables(console, &done.report);
    }
    console.line("not reached, to be seen to apart:");
    OUT_OF_REACH.iter().for_each(|place| console.line(format!("  {place}")));
    Ok(Status::Success)
}

fn erasure_lines(done: &ErasureReport) -> Vec<String> {
    let named: Vec<String> =
        done.sessions.iter().take(MAX_NAMED).map(|id| escape_control(id.as_str())).collect();
    let more = done.sessions.len() - named.len();
    let more = if more > 0 { format!(" and {more} more (--json names them)") } else { String::new() };
    let rows = format!("{} exchanges, {} close rows", done.removed.exchanges, done.removed.closes);
    let what = format!("{}: {}{more}", sessions(done.sessions.len() as u64), named.join(", "));
    let mut lines: Vec<String> =
        done.absent.iter().map(|absent| format!("{} is not there", escape_control(absent))).collect();
    match &done.proof {
        None => lines.push(format!("would erase {what} ({rows} and their pieces)")),
        Some(proof) => {
            lines.push(format!("erased {what} ({rows}, {} pieces of bodies)", done.removed.pieces));
            lines.push(format!(
                "read {} with {} rows again: nothing of it is left; {} replaced files are gone",
                files(proof.files_read),
                proof.rows_read,
                proof.replaced_gone
            ));
            if proof.uncommitted > 0 {
                let number = files(proof.uncommitted);
                lines.push(format!("not read: {number} of an archiver's batch under way or of a crash"));
            }
        }
    }
    lines
}

fn failure(error: MaintenanceError) -> Failure {
    match error {
        MaintenanceError::Run { .. } | MaintenanceError::NothingFound { .. } => Failure::usage(error),
        MaintenanceError::Store(_)
        | MaintenanceError::Superseded { .. }
        | MaintenanceError::NotErased { .. } => Failure::work(error),
    }
}

fn tables(console: &Console, done: &MaintenanceReport) {
    for change in &done.tables {
        let (before, after) = (change.before, change.after);
        let name = change.table.as_str();
        console.line(format!(
            "{name}: {}, {} before; {}, {} now",
            files(before.files),
            bytes(before.bytes),
            files(after.files),
            bytes(after.bytes)
        ));
    }
    if done.leftovers_deleted > 0 {
        console.line(format!("{} left by an interrupted upkeep deleted", files(done.leftovers_deleted)));
    }
}

fn files(number: u64) -> String {
    count_u64(number, "file")
}

fn sessions(number: u64) -> String {
    count_u64(number, "session")
}

/// `812 bytes`, `3.4 KiB`, `1.2 GiB`.
fn bytes(number: u64) -> String {
    let mut unit = 1_u64;
    for (name, next) in [("bytes", 1 << 10), ("KiB", 1 << 20), ("MiB", 1 << 30), ("GiB", u64::MAX)] {
        if number < next {
            let (whole, tenth) = (number / unit, number % unit * 10 / unit);
            return if unit == 1 { format!("{whole} {name}") } else { format!("{whole}.{tenth} {name}") };
        }
        unit = next;
    }
    format!("{number} bytes")
}

fn size(text: &str) -> Result<u64, String> {
    let text: serde::de::value::StrDeserializer<'_, serde::de::value::Error> = text.into_deserializer();
    ByteSize::deserialize(text).map(|size| size.0).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_parsed_and_printed() {
        assert_eq!((size("64MiB"), size("1000")), (Ok(64 << 20), Ok(1000)));
        assert!(size("0").is_err() && size("many").is_err());
        let written: Vec<String> = [7, 3_500, 5 << 20, 3 << 30].map(bytes).to_vec();
        assert_eq!(written, ["7 bytes", "3.4 KiB", "5.0 MiB", "3.0 GiB"]);
    }
}
