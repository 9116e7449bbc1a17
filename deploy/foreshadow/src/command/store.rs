//! `foreshadow store`: compacts files, expires old sessions, erases sessions and tenants.

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

/// Copies of the data that `erase` does not delete.
const NOT_ERASED: [&str; 5] = [
    "the Kafka topic, until its retention ends",
    "journals of recorders that are not archived yet",
    "runs replayed or imported from these sessions, and the reports on them",
    "backups, snapshots and older object versions of the store",
    "names of tenants and agents in the folder and file names of older commits",
];

/// Sessions on the terminal; `--json` lists all.
const MAX_NAMED: usize = 5;

const AFTER_HELP: &str = "\
Example:
  foreshadow store compact --store foreshadow-demo/store --dry-run";

const COMPACT_HELP: &str = "\
Example:
  foreshadow store compact --store foreshadow-demo/store --dry-run";

const EXPIRE_HELP: &str = "\
Example:
  foreshadow store expire --store foreshadow-demo/store --older-than 90days --dry-run";

const ERASE_HELP: &str = "\
Example:
  foreshadow store erase --store foreshadow-demo/store --session chat-0000 --dry-run";

/// Arguments of `foreshadow store`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The subcommand.
    #[command(subcommand)]
    command: StoreCommand,
}

/// The subcommands of `foreshadow store`.
#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Merge small files. Readers see the same rows, archivers can continue.
    Compact(CompactArgs),
    /// Delete complete days of old sessions.
    Expire(ExpireArgs),
    /// Delete sessions or tenants, then read the store again and verify that nothing is left.
    Erase(EraseArgs),
}

/// Arguments of `foreshadow store compact`.
#[derive(Debug, clap::Args)]
#[command(after_help = COMPACT_HELP)]
struct CompactArgs {
    /// Store to compact.
    #[arg(long, value_name = "STORE")]
    store: String,
    /// Target size of a merged file, such as 134217728, 64MiB or 1GiB [default: 128MiB].
    #[arg(long, value_name = "SIZE", value_parser = size)]
    target_bytes: Option<u64>,
    /// Print the changes without making them.
    #[arg(long)]
    dry_run: bool,
}

/// Arguments of `foreshadow store expire`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXPIRE_HELP)]
struct ExpireArgs {
    /// Store to expire sessions from.
    #[arg(long, value_name = "STORE")]
    store: String,
    /// Delete sessions whose start day (UTC) is longer ago, such as 90days or 6months.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    older_than: Duration,
    /// Print the changes without making them.
    #[arg(long)]
    dry_run: bool,
}

/// Arguments of `foreshadow store erase`.
#[derive(Debug, clap::Args)]
#[command(after_help = ERASE_HELP, group(clap::ArgGroup::new("what").required(true).args(["session", "tenant"])))]
struct EraseArgs {
    /// Store to erase from.
    #[arg(long, value_name = "STORE")]
    store: String,
    /// Session to erase; repeatable.
    #[arg(long, value_name = "ID")]
    session: Vec<SessionId>,
    /// Tenant whose sessions are erased; repeatable.
    #[arg(long, value_name = "ID")]
    tenant: Vec<TenantId>,
    /// Print the changes without making them.
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Erase; this cannot be undone.
    #[arg(long)]
    yes: bool,
}

/// Runs `foreshadow store`.
pub(crate) async fn run(args: Args, context: &Context<'_>) -> Result<Status, Failure> {
    match args.command {
        StoreCommand::Compact(args) => compact(args, context).await,
        StoreCommand::Expire(args) => expire(args, context).await,
        StoreCommand::Erase(args) => erase(args, context).await,
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
            console.line("nothing to merge: no folder has two files below the target size");
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
        text.push_str(&format!("; {} of them have later exchanges and stay", done.continued));
    }
    if done.files_without_time > 0 {
        let number = files(done.files_without_time);
        text.push_str(&format!(
            "; {number} with sessions without a start time stay (erase them with --session)"
        ));
    }
    text
}

async fn erase(args: EraseArgs, context: &Context<'_>) -> Result<Status, Failure> {
    if !args.dry_run && !args.yes {
        let error = anyhow!(
            "erasing cannot be undone: check the effect with --dry-run, then repeat the command with --yes"
        );
        return Err(Failure::usage(error));
    }
    let (store, _) = context.open_committed(&args.store).await?;
    let erasure =
        Erasure { sessions: args.session.into_iter().collect(), tenants: args.tenant.into_iter().collect() };
    let done = if args.dry_run { store.plan_erasure(&erasure).await } else { store.erase(&erasure).await };
    let done = done.map_err(failure)?;
    let console = context.console;
    console.result(&serde_json::json!({ "erased": done, "not_erased": NOT_ERASED }));
    for line in erasure_lines(&done) {
        console.line(line);
    }
    if !args.dry_run {
        tables(console, &done.report);
    }
    console.line("not erased, delete separately:");
    NOT_ERASED.iter().for_each(|copy| console.line(format!("  {copy}")));
    Ok(Status::Success)
}

fn erasure_lines(done: &ErasureReport) -> Vec<String> {
    let named: Vec<String> =
        done.sessions.iter().take(MAX_NAMED).map(|id| escape_control(id.as_str())).collect();
    let more = done.sessions.len() - named.len();
    let more = if more > 0 { format!(" and {more} more (--json lists them)") } else { String::new() };
    let rows = format!("{} exchanges, {} close rows", done.removed.exchanges, done.removed.closes);
    let what = format!("{}: {}{more}", sessions(done.sessions.len() as u64), named.join(", "));
    let mut lines: Vec<String> =
        done.absent.iter().map(|absent| format!("{} not found", escape_control(absent))).collect();
    match &done.proof {
        None => lines.push(format!("would erase {what} ({rows} and their chunks)")),
        Some(proof) => {
            lines.push(format!("erased {what} ({rows}, {} chunks of bodies)", done.removed.chunks));
            lines.push(format!(
                "verified: read {} with {} rows again, nothing is left; {} replaced files are deleted",
                files(proof.files_read),
                proof.rows_read,
                proof.replaced_gone
            ));
            if proof.uncommitted > 0 {
                let number = files(proof.uncommitted);
                lines.push(format!(
                    "not verified: {number} without a commit, from a running archiver or a crash"
                ));
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
            "{name}: {}, {} before; {}, {} after",
            files(before.files),
            bytes(before.bytes),
            files(after.files),
            bytes(after.bytes)
        ));
    }
    if done.leftovers_deleted > 0 {
        console.line(format!("{} of an interrupted maintenance deleted", files(done.leftovers_deleted)));
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
