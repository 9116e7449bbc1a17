//! `foreshadow import`: files of past sessions into a store, or into the trials of a run.
//!
//! Everything is read, converted and checked before the first byte is written, and each file is one commit: a refused
//! import leaves nothing behind. Reading and converting is `recorder::import`; here are the files and the rules of the
//! destination they go to.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::ValueEnum;
use recorder::import::{ImportFormat, ImportInto, ImportPlan, OutcomeColumns, TranscriptConverter};
use schemas::id::{AgentId, BuildId, IncarnationId, TenantId};
use schemas::tools::ToolCatalog;
use schemas::trial::Lane;
use store::{Batch, ChunkIndex};

use crate::clock;
use crate::context::Context;
use crate::exit::{Failure, Status};

mod destination;
mod inputs;
mod summary;

use destination::Destination;
use inputs::{InputFile, Selection};
use summary::Summary;

/// Arguments of `foreshadow import`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("into").required(true))]
pub(crate) struct Args {
    /// What the files are.
    #[arg(long, value_enum)]
    format: FormatName,
    /// Files to read, plain or zstd.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Store to import sessions into, for looking at them and replaying them.
    #[arg(long, group = "into", value_name = "STORE")]
    store: Option<String>,
    /// Run to import trials into, for comparing them.
    #[arg(long, group = "into", requires = "build", value_name = "RUN")]
    run: Option<String>,
    /// The build that the sessions are from.
    #[arg(long, value_name = "ID")]
    build: Option<BuildId>,
    /// The lane of the run's trials.
    #[arg(long, value_enum, default_value = "candidate", requires = "run")]
    lane: LaneName,
    /// The sessions were selected by their outcome, so no test compares their means.
    #[arg(long, requires = "run")]
    outcome_selected: bool,
    /// Only the trials of this number.
    #[arg(long, value_name = "N")]
    trial: Option<u32>,
    /// Only sessions of this slice (`attack=none`, `domain=airline`); may be given several times.
    #[arg(long = "where", value_name = "SLICE=VALUE")]
    filters: Vec<String>,
    /// At most this many sessions.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Tool list (OpenAI or MCP form) with `effect`, `reversible` and `idempotent` beside each tool.
    #[arg(long, value_name = "FILE")]
    tools: Option<PathBuf>,
    /// Whose sessions they are.
    #[arg(long, default_value = "default", value_name = "ID")]
    tenant: TenantId,
    /// The agent; by default what the file says (its domain or suite).
    #[arg(long, value_name = "ID")]
    agent: Option<AgentId>,
    /// In an outcome table, read NAME from another column, or from several joined by `/` (`case=service+task`).
    #[arg(long = "column", value_name = "NAME=COLUMN")]
    columns: Vec<String>,
    /// In an outcome table, an error with this text is a failure of the surroundings (a provider's outage), not of the
    /// agent: the trial is missing, not failed; may be given several times, and must be the same for both runs.
    #[arg(long, value_name = "TEXT")]
    infrastructure: Vec<String>,
}

/// A format by its name on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatName {
    /// tau-bench results.
    TauBench,
    /// tau2-bench results.
    Tau2,
    /// AgentDojo runs.
    #[value(name = "agentdojo")]
    AgentDojo,
    /// CSV or Parquet table of trials: case,trial,success and any of seconds,input_tokens,output_tokens,cost,error,answer,
    /// slice.NAME; in Parquet also embedding, a list of numbers.
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

/// A lane by its name on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LaneName {
    /// What production did.
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
}

/// Runs `foreshadow import`.
pub(crate) async fn run(args: Args, context: &Context<'_>) -> Result<Status, Failure> {
    let into = into(&args)?;
    let location = args.store.as_deref().or(args.run.as_deref()).unwrap_or_default();
    let store = context.open_store(location)?;
    let mut destination = Destination::look(&store, &into, args.outcome_selected, args.format.into()).await?;
    let selection =
        Selection::parse(args.trial, &args.filters, args.limit, columns(&args)?).map_err(Failure::usage)?;
    let tools = match &args.tools {
        Some(path) => read_tools(path).map_err(Failure::usage)?,
        None => ToolCatalog::default(),
    };
    let inputs = inputs::read(&args.paths, args.format.into(), &selection)?;
    let mut summary = Summary::new(location, args.format.into());
    let converted =
        convert(&args, context, &into, &tools, &selection, inputs, &mut destination, &mut summary)?;
    if summary.nothing() {
        summary.show(context.console);
        let hint = if summary.left_out > 0 {
            "; --trial, --where or --limit left all others out"
        } else if summary.skipped.is_empty() {
            ": there is nothing in the files"
        } else {
            ": every item was skipped for the reasons above; check --format"
        };
        return Err(Failure::work(anyhow::anyhow!("nothing could be imported{hint}")));
    }
    destination.make_manifest(&store).await?;
    for file in converted {
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

/// How an outcome table is read.
fn columns(args: &Args) -> Result<OutcomeColumns, Failure> {
    let mut columns = OutcomeColumns::default();
    for column in &args.columns {
        columns.rename(column).map_err(Failure::usage)?;
    }
    if args.infrastructure.iter().any(String::is_empty) {
        let error = "--infrastructure \"\": every error holds an empty text; give a part of the errors that are meant";
        return Err(Failure::usage(anyhow::anyhow!(error)));
    }
    args.infrastructure.iter().for_each(|text| columns.infrastructure(text));
    Ok(columns)
}

fn into(args: &Args) -> Result<ImportInto, Failure> {
    if args.store.is_some() && args.format == FormatName::Outcomes {
        let error = "an outcome table has no transcripts to put into a store; import it into a run with --run and --build";
        return Err(Failure::usage(anyhow::anyhow!(error)));
    }
    match (&args.run, &args.build) {
        (Some(_), Some(build)) => Ok(ImportInto::Run { build: build.clone(), lane: args.lane.into() }),
        (Some(_), None) => {
            Err(Failure::usage(anyhow::anyhow!("--run needs --build: name the build whose trials these are")))
        }
        (None, build) => Ok(ImportInto::Store { build: build.clone() }),
    }
}

fn read_tools(path: &std::path::Path) -> anyhow::Result<ToolCatalog> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("tool list {} cannot be read", path.display()))?;
    ToolCatalog::parse_json(&text).with_context(|| format!("tool list {}", path.display()))
}

#[expect(
    clippy::too_many_arguments,
    reason = "each is a separate part of the command; a struct would only rename them"
)]
fn convert(
    args: &Args,
    context: &Context<'_>,
    into: &ImportInto,
    tools: &ToolCatalog,
    selection: &Selection,
    inputs: Vec<InputFile>,
    destination: &mut Destination,
    summary: &mut Summary,
) -> Result<Vec<ConvertedFile>, Failure> {
    let keys = context.root_key()?.tenant(&args.tenant);
    let total = inputs.iter().map(|file| file.transcripts.len()).sum::<usize>();
    let bar = context.console.progress("importing", total as u64);
    let mut files = Vec::with_capacity(inputs.len());
    let mut sessions_before = 0;
    for file in inputs {
        let source = selection.source_name(&file.source);
        if !file.transcripts.is_empty() {
            destination.refuse_again(&source, file.source.name())?;
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
        let mut sessions = 0;
        summary.take_file(file.skipped, file.ignored_columns, file.left_out);
        for transcript in file.transcripts {
            bar.inc(1);
            if let Some(item) = destination.claim(&file.source, &transcript)? {
                summary.skipped.push(item);
                continue;
            }
            match converter.convert(transcript) {
                Ok(converted) => {
                    destination.refuse_taken(&converted, file.source.name())?;
                    summary.stats.add(&converted.stats);
                    sessions += 1;
                    batch.exchanges.extend(converted.exchanges.into_iter().map(Box::new));
                    batch.pieces.extend(converted.pieces);
                    batch.closes.extend(converted.close);
                    batch.trials.extend(converted.trial);
                    batch.embeddings.extend(converted.embedding);
                }
                Err(item) => summary.skipped.push(item),
            }
        }
        sessions_before = converter.sessions_converted();
        if sessions > 0 {
            files.push(ConvertedFile { source, sessions, batch });
        }
    }
    bar.finish_and_clear();
    Ok(files)
}
