//! Converts a transcript to exchanges, as the tap would have recorded the session.
//!
//! An assistant message becomes a model call with the history before it. A tool result becomes a tool call. A user message
//! becomes a turn that ends with the agent's last text before the next one. Bodies are OpenAI chat JSON, because a transcript
//! has no wire bytes. Values that the transcript lacks (times, tokens) stay absent.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use schemas::body::Body;
use schemas::embedding::Embedding;
use schemas::exchange::{Confidence, Edge, Ending, Exchange, Identifier, Link, Protocol, Usage};
use schemas::id::{AgentId, CaseId, ExchangeId, IdError, SessionId};
use schemas::keys::Digest;
use schemas::session::{CloseReason, SessionClose};
use schemas::trial::{BLANK_LABEL, Trial, TrialEnding, UNREADABLE_LABEL};

use super::converted_session::ConvertedSession;
use super::format::ImportFormat;
use super::plan::{ImportInto, ImportPlan};
use super::redact_transcript::redact_transcript;
use super::skipped::SkippedItem;
use super::stats::{ImportStats, ImportWarning};
use super::transcript::Transcript;
use crate::encode::redact::Redactor;

mod draft;
mod exchange_builder;

use draft::ExchangeDraft;
use exchange_builder::ExchangeBuilder;

/// Bytes of the transcript's name in a session id. A longer name is cut and ends in a digest.
const MAX_NAME_BYTES: usize = 300;

/// Model name and digest of embeddings from an outcome table, whose model is unknown.
const IMPORTED_MODEL: &str = "import";

/// Converts the transcripts of one file.
#[derive(Debug)]
pub struct TranscriptConverter<'a> {
    plan: ImportPlan<'a>,
    redactor: Redactor,
    /// Exchanges of earlier sessions of the file.
    exchanges_before: u64,
    /// Sessions of this file and of earlier ones.
    sessions_before: u32,
}

impl<'a> TranscriptConverter<'a> {
    /// Starts with the first transcript of a file.
    #[must_use]
    pub fn new(plan: ImportPlan<'a>) -> Self {
        let redactor = Redactor::new(plan.keys.clone(), Vec::new());
        let sessions_before = plan.sessions_before;
        Self { plan, redactor, exchanges_before: 0, sessions_before }
    }

    /// Sessions converted from this file and the earlier ones.
    #[must_use]
    pub fn sessions_converted(&self) -> u32 {
        self.sessions_before
    }

    /// Converts a transcript.
    ///
    /// # Errors
    /// A name is not a valid id, or the destination is a store and the transcript has no messages.
    pub fn convert(&mut self, mut transcript: Transcript) -> Result<ConvertedSession, SkippedItem> {
        let line = transcript.line;
        let has_transcript = !transcript.messages.is_empty();
        if let (Some(item), ImportInto::Store { .. }) = (&transcript.lost_messages, self.plan.into) {
            return Err(item.clone());
        }
        if !has_transcript && matches!(self.plan.into, ImportInto::Store { .. }) {
            let cause =
                transcript.ending_detail.as_deref().and_then(|detail| detail.lines().next()).unwrap_or("");
            let detail = format!("expected at least one message to replay, found none {cause}");
            return Err(self.plan.file.skipped_item(line, "messages", detail.trim_end().to_owned()));
        }
        let names = self
            .names(&transcript)
            .map_err(|(field, error)| self.plan.file.skipped_item(line, field, error.to_string()))?;
        let mut stats = ImportStats { sessions: 1, ..ImportStats::default() };
        (0..redact_transcript(&self.redactor, &mut transcript))
            .for_each(|_| stats.add_warning(ImportWarning::SecretReplaced));
        transcript.warnings.iter().for_each(|warning| stats.add_warning(*warning));
        let (drafts, labels) =
            ExchangeBuilder::new(&transcript, self.plan.tools, self.plan.keys, &mut stats).build();
        let untimed_start = i64::from(self.sessions_before) * 1_000_000;
        let converted =
            SessionAssembler { converter: self, names, transcript, drafts, labels, untimed_start }
                .finish(stats);
        self.exchanges_before += converted.exchanges.len() as u64;
        self.sessions_before = self.sessions_before.saturating_add(1);
        Ok(converted)
    }

    fn names(&self, transcript: &Transcript) -> Result<SessionNames, (&'static str, IdError)> {
        let agent = match (&self.plan.agent, &transcript.agent) {
            (Some(agent), _) => agent.clone(),
            (None, Some(name)) => AgentId::parse(name).map_err(|error| ("agent", error))?,
            (None, None) => AgentId::parse(self.plan.format.as_str()).map_err(|error| ("agent", error))?,
        };
        let case = CaseId::parse(&transcript.case).map_err(|error| ("task", error))?;
        let name = shorten(&transcript.name);
        let session = format!("{}/{}/{name}", self.plan.format.as_str(), self.plan.file.stem());
        let session = SessionId::parse(&session).map_err(|error| ("task", error))?;
        Ok(SessionNames { agent, case, session })
    }
}

/// Reason why a trial has no outcome. A trial that failed without a label is a failure.
fn outcome_missing(transcript: &Transcript) -> Option<&'static str> {
    if transcript.unreadable_label.is_some() {
        return Some(UNREADABLE_LABEL);
    }
    (transcript.success.is_none() && transcript.ending == TrialEnding::Complete).then_some(BLANK_LABEL)
}

fn shorten(name: &str) -> String {
    if name.len() <= MAX_NAME_BYTES {
        return name.to_owned();
    }
    let mut end = MAX_NAME_BYTES - 17;
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}~{}", &name[..end], &blake3::hash(name.as_bytes()).to_hex().as_str()[..16])
}

struct SessionNames {
    agent: AgentId,
    case: CaseId,
    session: SessionId,
}

/// Assembles the rows of one session from its drafts.
struct SessionAssembler<'w, 'a> {
    converter: &'w TranscriptConverter<'a>,
    names: SessionNames,
    transcript: Transcript,
    drafts: Vec<ExchangeDraft>,
    labels: BTreeMap<String, String>,
    /// Start of a session without times, microseconds since 1970.
    untimed_start: i64,
}

impl SessionAssembler<'_, '_> {
    fn finish(self, mut stats: ImportStats) -> ConvertedSession {
        let timed =
            self.transcript.started_at.or_else(|| self.drafts.iter().find_map(|draft| draft.started_at));
        let session_started_at = timed.unwrap_or(self.untimed_start);
        let trial = self.trial(timed, &mut stats);
        let embedding = trial.as_ref().and_then(|trial| self.embedding(trial));
        let mut exchanges = Vec::with_capacity(self.drafts.len());
        let mut chunks = Vec::new();
        let mut kept: HashSet<Digest> = HashSet::new();
        let mut clock = session_started_at;
        for (seq, draft) in (0_u32..).zip(&self.drafts) {
            // An exchange without a time starts a microsecond after the one before, which keeps their order.
            clock = match draft.started_at {
                Some(at) => at.max(clock),
                None => clock + i64::from(seq > 0),
            };
            let mut keep = |(digest, chunk): (Digest, &[u8])| {
                if kept.insert(digest) {
                    chunks.push((self.names.session.clone(), digest, Bytes::copy_from_slice(chunk)));
                }
            };
            let request = Body::split(&draft.request, self.converter.plan.keys, &mut keep);
            let response = Body::split(&draft.response, self.converter.plan.keys, &mut keep);
            exchanges.push(self.exchange(seq, draft, (request, response), (clock, session_started_at)));
        }
        count_edges(&exchanges, &mut stats);
        let close = (!exchanges.is_empty()).then(|| self.close(&exchanges, session_started_at, &stats));
        ConvertedSession { exchanges, chunks, close, trial, embedding, stats }
    }

    fn exchange(
        &self,
        seq: u32,
        draft: &ExchangeDraft,
        (request, response): (Body, Body),
        (started_at, session_started_at): (i64, i64),
    ) -> Exchange {
        let converter = self.converter;
        let links = draft.links.iter().map(|(to, kind)| Link {
            to: self.exchange_id(*to),
            kind: (*kind).into(),
            source: "import".into(),
            confidence: Confidence::Certain,
        });
        let identifiers = draft.identifiers.iter().map(|(name, value)| Identifier {
            name: (*name).into(),
            value: value.into(),
            source: "import".into(),
            confidence: Confidence::Weak,
            chosen: false,
        });
        Exchange {
            exchange: self.exchange_id(seq),
            tenant: converter.plan.tenant.clone(),
            agent: self.names.agent.clone(),
            build: converter.plan.into.build().cloned(),
            session: self.names.session.clone(),
            incarnation: converter.plan.incarnation.clone(),
            seq,
            incarnation_seq: converter.exchanges_before + u64::from(seq),
            edge: draft.edge,
            protocol: Protocol::Imported,
            started_at,
            session_started_at,
            first_byte_us: None,
            duration_us: draft.duration_us(),
            frame_gaps_us: Vec::new(),
            ending: if draft.unanswered { Ending::Cancelled } else { Ending::Complete },
            ending_detail: draft
                .unanswered
                .then(|| "the transcript ends before the agent answered".to_owned()),
            http_method: None,
            path: None,
            status: None,
            request_headers: Vec::new(),
            response_headers: Vec::new(),
            request,
            response,
            operation: draft.operation.clone(),
            usage: draft.usage,
            identifiers: identifiers.collect(),
            links: links.collect(),
            redactions: draft.redactions.clone(),
        }
    }

    fn exchange_id(&self, seq: u32) -> ExchangeId {
        let number = self.converter.exchanges_before + u64::from(seq);
        ExchangeId::parse(&format!("{}-{number}", self.converter.plan.incarnation))
            .expect("an incarnation and a number are a valid id")
    }

    fn close(&self, exchanges: &[Exchange], started_at: i64, stats: &ImportStats) -> SessionClose {
        let count = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let mut labels = self.labels.clone();
        labels.extend(self.transcript.slices.clone());
        labels.insert("file".to_owned(), self.converter.plan.file.stem().to_owned());
        labels.insert("trial".to_owned(), self.transcript.trial.to_string());
        labels.extend(self.transcript.model.clone().map(|model| ("model".to_owned(), model)));
        SessionClose {
            tenant: self.converter.plan.tenant.clone(),
            agent: self.names.agent.clone(),
            build: self.converter.plan.into.build().cloned(),
            session: self.names.session.clone(),
            incarnation: self.converter.plan.incarnation.clone(),
            started_at,
            closed_at: self.converter.plan.now,
            reason: CloseReason::Imported,
            turns: count(stats.turns),
            model_calls: count(stats.model_calls),
            tool_calls: count(stats.tool_calls),
            last_seq: exchanges.last().map(|exchange| exchange.seq),
            shed: 0,
            shed_reason: None,
            case: Some(self.names.case.as_str().to_owned()),
            success: self.transcript.success,
            labels,
        }
    }

    fn trial(&self, started_at: Option<i64>, stats: &mut ImportStats) -> Option<Trial> {
        let ImportInto::Run { build, lane } = self.converter.plan.into else { return None };
        let transcript = &self.transcript;
        let has_transcript = !self.drafts.is_empty();
        if transcript.unreadable_label.is_some() {
            stats.add_warning(ImportWarning::LabelUnreadable);
        } else if transcript.success.is_none() {
            stats.add_warning(ImportWarning::LabelMissing);
        }
        if transcript.lost_messages.is_some() {
            stats.add_warning(ImportWarning::MessagesLost);
        } else if !has_transcript && self.converter.plan.format != ImportFormat::Outcomes {
            stats.add_warning(ImportWarning::TranscriptMissing);
        }
        transcript.unreadable_cells.iter().for_each(|_| stats.add_warning(ImportWarning::CellUnreadable));
        let usage = self.usage();
        Some(Trial {
            model_fidelity: None,
            model_inputs: None,
            provider_retries: None,
            provider_failures: None,
            cluster: transcript.cluster.clone(),
            weight: transcript.weight,
            batch: transcript.batch.clone(),
            outcome_missing: outcome_missing(transcript).map(str::to_owned),
            tenant: self.converter.plan.tenant.clone(),
            agent: self.names.agent.clone(),
            build: Some(build.clone()),
            lane: *lane,
            case: self.names.case.clone(),
            trial: transcript.trial,
            session: self.names.session.clone(),
            seed: None,
            started_at,
            duration_us: transcript.reported.duration_us.or_else(|| draft::turn_duration(&self.drafts)),
            ending: transcript.ending,
            ending_detail: transcript.ending_detail.clone(),
            success: transcript.success,
            success_source: transcript.success.map(|_| "label".to_owned()),
            answer: transcript.reported.answer.clone().or_else(|| draft::last_answer(&self.drafts)),
            input_tokens: usage.input_tokens,
            output_tokens: usage.output_tokens,
            cost_usd: usage.cost_usd,
            exchanges: u32::try_from(self.drafts.len()).unwrap_or(u32::MAX),
            has_transcript,
            fidelity: None,
            divergences: Vec::new(),
            fault_plan: None,
            complete: if transcript.lost_messages.is_some() {
                Some(false)
            } else {
                has_transcript.then_some(true)
            },
            slices: transcript.slices.clone(),
        })
    }

    /// The embedding that the file has for the answer; its model is unknown.
    fn embedding(&self, trial: &Trial) -> Option<Embedding> {
        let vector = self.transcript.reported.embedding.clone()?;
        Some(Embedding {
            tenant: trial.tenant.clone(),
            agent: trial.agent.clone(),
            lane: trial.lane,
            case: trial.case.clone(),
            trial: trial.trial,
            session: trial.session.clone(),
            trial_started_at: trial.started_at,
            turn: None,
            model: IMPORTED_MODEL.to_owned(),
            model_digest: IMPORTED_MODEL.to_owned(),
            embedded_at: None,
            windows: None,
            vector,
        })
    }

    fn usage(&self) -> Usage {
        if self.drafts.is_empty() { self.transcript.reported.usage } else { draft::total_usage(&self.drafts) }
    }
}

fn count_edges(exchanges: &[Exchange], stats: &mut ImportStats) {
    stats.exchanges = exchanges.len() as u64;
    for exchange in exchanges {
        match exchange.edge {
            Edge::Turn => stats.turns += 1,
            Edge::Model => stats.model_calls += 1,
            Edge::Tool => stats.tool_calls += 1,
        }
    }
}
