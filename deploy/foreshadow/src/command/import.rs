//! `foreshadow import`: imports session files into a store, or trials into a run.
//!
//! All files are read, converted and checked before the first write, and each file is one commit: a refused import writes
//! nothing. `recorder::import` reads and converts; this command checks the destination.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::ValueEnum;
use recorder::import::{
    ImportFormat, ImportInto, ImportPlan, ImportWarning, OutcomeColumns, TranscriptConverter,
};
use schemas::id::{AgentId, BuildId, IncarnationId, TenantId};
use schemas::tools::ToolCatalog;
use schemas::trial::{ImportRecord, Lane};
use store::{Batch, ChunkIndex};

use crate::clock;
use crate::context::Context;
use crate::exit::{Failure, Status};

mod destination;
mod duplicates;
mod inputs;
mod summary;

use destination::Destination;
use inputs::{InputFile, Selection};
use summary::{FileSummary, ImportSummary};

const AFTER_HELP: &str = "\
Example:
  foreshadow import --format outcomes trials.csv --run runs/candidate --build v2 --lane candidate";

/// Arguments of `foreshadow import`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP, group = clap::ArgGroup::new("into").required(true))]
pub(crate) struct Args {
    /// Format of the files.
    #[arg(long, value_enum)]
    format: FormatName,
    /// Files to import, plain or compressed with zstd.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Import sessions into this store, to inspect and replay them.
    #[arg(long, group = "into", value_name = "STORE")]
    store: Option<String>,
    /// Import trials into this run, to compare them.
    #[arg(long, group = "into", requires = "build", value_name = "RUN")]
    run: Option<String>,
    /// Build that produced the sessions.
    #[arg(long, value_name = "ID")]
    build: Option<BuildId>,
    /// Lane of the trials.
    #[arg(long, value_enum, default_value = "candidate", requires = "run")]
    lane: LaneName,
    /// The sessions were selected by their outcome, so no test compares their means.
    #[arg(long, requires = "run")]
    outcome_selected: bool,
    /// The run has N trials of every case; a case with fewer lacks them. Without it, the case with the most says so.
    #[arg(long, requires = "run", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    trials: Option<u32>,
    /// Import although the outcomes of up to N rows are lost: rows that name no trial, labels and messages that cannot be
    /// read. The verdict counts each once against the candidate and once for it.
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_skipped: u64,
    /// Import only trials with this number.
    #[arg(long, value_name = "N")]
    trial: Option<u32>,
    /// Import only sessions with this slice value, such as attack=none or domain=airline; repeatable.
    #[arg(long = "where", value_name = "SLICE=VALUE")]
    filters: Vec<String>,
    /// Import at most N sessions.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Tool list (JSON, OpenAI or MCP form) with `effect`, `reversible` and `idempotent` for each tool.
    #[arg(long, value_name = "FILE")]
    tools: Option<PathBuf>,
    /// Tenant of the sessions.
    #[arg(long, default_value = "default", value_name = "ID")]
    tenant: TenantId,
    /// Agent of the sessions [default: the domain or suite in the file].
    #[arg(long, value_name = "ID")]
    agent: Option<AgentId>,
    /// Outcome table: read NAME from another column, or from several joined by `/`, such as case=service+task.
    #[arg(long = "column", value_name = "NAME=COLUMN")]
    columns: Vec<String>,
    /// Outcome table: an error that contains TEXT is an infrastructure failure, such as an outage of the provider, and the
    /// trial is missing instead of failed; repeatable, use the same values for both runs.
    #[arg(long, value_name = "TEXT")]
    infrastructure: Vec<String>,
}

/// Format of an import file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatName {
    /// tau-bench results.
    TauBench,
    /// tau2-bench results.
    Tau2,
    /// AgentDojo runs.
    #[value(name = "agentdojo")]
    AgentDojo,
    /// CSV or Parquet table of trials: case, trial, success and optionally seconds, input_tokens, output_tokens, cost, error,
    /// answer, cluster, weight, batch, slice.NAME; in Parquet also embedding, a list of numbers.
    Outcomes,
}

impl From<FormatName> for ImportFormat {
    fn from(name: FormatName) -> Self {
        match name {
            FormatName::TauBench => Self::TauBench,
            FormatName::Tau2 => Self::Tau2,
            FormatName::AgentDojo => Self::AgentDojo,
            FormatName::Outcomes => Self::Outcomes,
        }
    }
}

/// Lane of imported trials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LaneName {
    /// Recordings of production.
    Recorded,
    /// The current build.
    Baseline,
    /// The new build.
    Candidate,
}

impl From<LaneName> for Lane {
    fn from(name: LaneName) -> Self {
        match name {
            LaneName::Recorded => Self::Recorded,
            LaneName::Baseline => Self::Baseline,
            LaneName::Candidate => Self::Candidate,
        }
    }
}

/// What one file will add to the destination.
struct ConvertedFile {
    /// Name of its commit.
    source: String,
    sessions: u64,
    batch: Batch,
    /// Record of the import; absent if the destination is a store.
    record: Option<ImportRecord>,
}

/// Runs `foreshadow import`.
pub(crate) async fn run(args: Args, context: &Context<'_>) -> Result<Status, Failure> {
    let into = into(&args)?;
    let location = args.store.as_deref().or(args.run.as_deref()).unwrap_or_default();
    let store = context.open_store(location)?;
    let mut destination = Destination::read(
        &store,
        &into,
        args.outcome_selected,
        args.trials,
        &args.infrastructure,
        args.format.into(),
    )
    .await?;
    let selection =
        Selection::parse(args.trial, &args.filters, args.limit, columns(&args)?).map_err(Failure::usage)?;
    let tools = match &args.tools {
        Some(path) => read_tools(path).map_err(Failure::usage)?,
        None => ToolCatalog::default(),
    };
    // Reading and decoding files blocks, so it does not run on a thread of the async runtime.
    let (paths, format) = (args.paths.clone(), args.format.into());
    let read = tokio::task::spawn_blocking(move || {
        let inputs = inputs::read(&paths, format, &selection);
        (selection, inputs)
    });
    let (selection, inputs) = read.await.map_err(Failure::work)?;
    let mut inputs = inputs?;
    duplicates::leave_out(&mut inputs, args.run.is_some())?;
    let mut summary = ImportSummary::new(location, args.format.into());
    let converted =
        convert(&args, context, &into, &tools, &selection, inputs, &mut destination, &mut summary)?;
    if summary.is_empty() {
        summary.show(context.console);
        let hint = if summary.excluded > 0 {
            "; --trial, --where or --limit excludes every session"
        } else if summary.stats.warnings.contains_key(&ImportWarning::DuplicateTrial) {
            ": the run already has every trial of the files"
        } else if summary.skipped.is_empty() {
            ": the files contain no session"
        } else {
            ": every item was skipped for the reasons above; check --format"
        };
        return Err(Failure::work(anyhow::anyhow!("nothing imported{hint}")));
    }
    if args.run.is_some() {
        refuse_lost_outcomes(&summary, args.max_skipped, context)?;
    }
    destination.create_manifest(&store).await?;
    for file in converted {
        // The record comes first: trials without it would hide what is set aside.
        if let Some(record) = &file.record {
            store.put_import_record(&file.source, record).await.map_err(Failure::work)?;
        }
        if file.sessions == 0 {
            continue;
        }
        let first = store.resume_position(&file.source).await.map_err(Failure::work)?;
        store.delete_orphans(&file.source).await.map_err(Failure::work)?;
        let next = first + file.sessions;
        store
            .commit(&file.source, first, next, file.batch, &mut ChunkIndex::default())
            .await
            .map_err(Failure::work)?;
    }
    summary.show(context.console);
    Ok(Status::Success)
}

/// Refuses an import that loses more outcomes than allowed.
fn refuse_lost_outcomes(summary: &ImportSummary, allowed: u64, context: &Context<'_>) -> Result<(), Failure> {
    let lost = summary.lost_outcomes();
    if lost <= allowed {
        return Ok(());
    }
    summary.show_items(context.console);
    Err(Failure::work(anyhow::anyhow!(
        "the outcomes of {lost} rows are lost, and --max-skipped allows {allowed}; nothing was written: correct the rows above, or \
         pass --max-skipped {lost} to import the other rows and count these as missing"
    )))
}

/// The column mapping of an outcome table.
fn columns(args: &Args) -> Result<OutcomeColumns, Failure> {
    let mut columns = OutcomeColumns::default();
    for column in &args.columns {
        columns.map_column(column).map_err(Failure::usage)?;
    }
    if args.infrastructure.iter().any(String::is_empty) {
        let error = "--infrastructure \"\" matches every error; give a part of the error text";
        return Err(Failure::usage(anyhow::anyhow!(error)));
    }
    args.infrastructure.iter().for_each(|text| columns.infrastructure(text));
    Ok(columns)
}

fn into(args: &Args) -> Result<ImportInto, Failure> {
    if args.store.is_some() && args.format == FormatName::Outcomes {
        let error = "an outcome table has no transcripts, so a store cannot contain it; import it into a run with --run and --build";
        return Err(Failure::usage(anyhow::anyhow!(error)));
    }
    match (&args.run, &args.build) {
        (Some(_), Some(build)) => Ok(ImportInto::Run { build: build.clone(), lane: args.lane.into() }),
        (Some(_), None) => {
            Err(Failure::usage(anyhow::anyhow!("--run needs --build: name the build of the trials")))
        }
        (None, build) => Ok(ImportInto::Store { build: build.clone() }),
    }
}

fn read_tools(path: &std::path::Path) -> anyhow::Result<ToolCatalog> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("tool list {} cannot be read", path.display()))?;
    ToolCatalog::parse_json(&text).with_context(|| format!("tool list {} cannot be parsed", path.display()))
}

#[expect(
    clippy::too_many_arguments,
    reason = "each argument is a separate part of the command; a struct would only rename them"
)]
fn convert(
    args: &Args,
    context: &Context<'_>,
    into: &ImportInto,
    tools: &ToolCatalog,
    selection: &Selection,
    inputs: Vec<InputFile>,
    destination: &mut Destination,
    summary: &mut ImportSummary,
) -> Result<Vec<ConvertedFile>, Failure> {
    let keys = context.root_key()?.tenant(&args.tenant);
    let total = inputs.iter().map(|file| file.transcripts.len()).sum::<usize>();
    let bar = context.console.progress("importing", total as u64);
    let mut files = Vec::with_capacity(inputs.len());
    let mut sessions_before = 0;
    for mut file in inputs {
        let source = selection.source_name(&file.source);
        if !file.transcripts.is_empty() {
            destination.refuse_repeated_file(&source, file.source.name())?;
        }
        let mut converter = TranscriptConverter::new(ImportPlan {
            format: args.format.into(),
            file: &file.source,
            tenant: args.tenant.clone(),
            keys: &keys,
            agent: args.agent.clone(),
            into,
            tools,
            incarnation: IncarnationId::parse(&source).map_err(Failure::work)?,
            now: clock::now_micros(),
            sessions_before,
        });
        let mut batch = Batch::default();
        let mut part = FileSummary::default();
        for transcript in std::mem::take(&mut file.transcripts) {
            bar.inc(1);
            let outcome = transcript.unreadable_label.clone().or_else(|| transcript.lost_messages.clone());
            let cells = transcript.unreadable_cells.clone();
            match converter.convert(transcript) {
                Ok(converted) => {
                    if destination.has_equal(&converted, file.source.name())? {
                        file.duplicates += 1;
                        continue;
                    }
                    part.stats.add(&converted.stats);
                    part.unreadable_outcomes.extend(outcome);
                    part.unreadable_cells.extend(cells);
                    batch.exchanges.extend(converted.exchanges.into_iter().map(Box::new));
                    batch.chunks.extend(converted.chunks);
                    batch.closes.extend(converted.close);
                    batch.trials.extend(converted.trial);
                    batch.embeddings.extend(converted.embedding);
                }
                Err(item) => file.skipped.push(item),
            }
        }
        (0..file.duplicates).for_each(|_| part.stats.add_warning(ImportWarning::DuplicateTrial));
        sessions_before = converter.sessions_converted();
        let sessions = part.stats.sessions;
        let record = args.run.is_some().then(|| part.record(&file));
        files.push(ConvertedFile { source, sessions, batch, record });
        summary.add_file(file, part);
    }
    bar.finish_and_clear();
    Ok(files)
}
