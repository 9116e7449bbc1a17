//! A transcript cut into exchanges: what the tap would have seen of it, as far as the transcript tells.
//!
//! Every assistant message becomes a model call with the history before it, every tool result a tool call, and every
//! user message that the agent worked on a turn that lasts until the agent's last text before the next one. Bodies are
//! written as OpenAI chat JSON; there were no wire bytes to keep. Nothing is invented: what a transcript does not say
//! (times, tokens) stays absent.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use schemas::body::Body;
use schemas::embedding::Embedding;
use schemas::exchange::{Confidence, Edge, Ending, Exchange, Identifier, Link, Protocol, Usage};
use schemas::id::{AgentId, BuildId, CaseId, ExchangeId, IdError, IncarnationId, SessionId, TenantId};
use schemas::keys::{Digest, TenantKeys};
use schemas::session::{CloseReason, SessionClose};
use schemas::tools::ToolCatalog;
use schemas::trial::{Lane, Trial};

use super::converted_session::Woven;
use super::redact_transcript::cleanse;
use super::stats::{Oddity, SetAside, Tally};
use super::transcript::Transcript;
use super::{Format, Source};
use crate::encode::redact::Redactor;

mod draft;
mod exchange_builder;

use draft::Draft;
use exchange_builder::Loom;

/// The longest part of a session id that comes from the transcript, in bytes; longer ones end in a digest.
const MAX_NAME_BYTES: usize = 300;

/// What vectors are said to be made by that a table brought.
const IMPORTED_MODEL: &str = "import";

/// Where an import goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImportInto {
    /// A store: sessions to look at and to replay.
    Store {
        /// The build that the sessions were recorded from, where known.
        build: Option<BuildId>,
    },
    /// A run: trials to compare.
    Run {
        /// The build whose trials they are.
        build: BuildId,
        /// The lane.
        lane: Lane,
    },
}

impl ImportInto {
    fn build(&self) -> Option<&BuildId> {
        match self {
            Self::Store { build } => build.as_ref(),
            Self::Run { build, .. } => Some(build),
        }
    }
}

/// What is the same for all sessions of a file.
#[derive(Debug)]
pub struct ImportPlan<'a> {
    /// What the file is.
    pub format: Format,
    /// The file.
    pub source: &'a Source,
    /// Whose sessions they are.
    pub tenant: TenantId,
    /// The tenant's keys.
    pub keys: &'a TenantKeys,
    /// The agent; else the file's word for it, else the format's name.
    pub agent: Option<AgentId>,
    /// Where they go.
    pub into: &'a ImportInto,
    /// What the tools do.
    pub tools: &'a ToolCatalog,
    /// Stands for the recorder process that there was none of.
    pub incarnation: IncarnationId,
    /// When the import runs, UTC, microseconds since 1970.
    pub now: i64,
    /// How many sessions earlier files made: sessions without times follow each other, one second apart, from 1970 on.
    pub sessions_before: u32,
}

/// Turns the transcripts of one file into what is stored.
#[derive(Debug)]
pub struct Weaver<'a> {
    plan: ImportPlan<'a>,
    redactor: Redactor,
    exchanges_before: u64,
    sessions_before: u32,
}

impl<'a> Weaver<'a> {
    /// Starts on a file.
    #[must_use]
    pub fn new(plan: ImportPlan<'a>) -> Self {
        let redactor = Redactor::new(plan.keys.clone(), Vec::new());
        let sessions_before = plan.sessions_before;
        Self { plan, redactor, exchanges_before: 0, sessions_before }
    }

    /// How many sessions this file and those before it made.
    #[must_use]
    pub fn sessions_made(&self) -> u32 {
        self.sessions_before
    }

    /// Cuts a transcript into exchanges.
    ///
    /// # Errors
    /// Its names cannot be stored, or there is nothing in it that could be replayed.
    pub fn weave(&mut self, mut transcript: Transcript) -> Result<Woven, SetAside> {
        let line = transcript.line;
        let has_transcript = !transcript.messages.is_empty();
        if !has_transcript && matches!(self.plan.into, ImportInto::Store { .. }) {
            let why =
                transcript.ending_detail.as_deref().and_then(|detail| detail.lines().next()).unwrap_or("");
            let detail = format!("expected at least one message to replay, found none {why}");
            return Err(self.plan.source.set_aside(line, "messages", detail.trim_end().to_owned()));
        }
        let names = self
            .names(&transcript)
            .map_err(|(field, error)| self.plan.source.set_aside(line, field, error.to_string()))?;
        let mut tally = Tally { sessions: 1, ..Tally::default() };
        (0..cleanse(&self.redactor, &mut transcript)).for_each(|_| tally.note(Oddity::SecretReplaced));
        transcript.oddities.iter().for_each(|oddity| tally.note(*oddity));
        let (drafts, labels) = Loom::new(&transcript, self.plan.tools, self.plan.keys, &mut tally).run();
        let untimed_start = i64::from(self.sessions_before) * 1_000_000;
        let woven = Cloth { weaver: self, names, transcript, drafts, labels, untimed_start }.finish(tally);
        self.exchanges_before += woven.exchanges.len() as u64;
        self.sessions_before = self.sessions_before.saturating_add(1);
        Ok(woven)
    }

    fn names(&self, transcript: &Transcript) -> Result<Names, (&'static str, IdError)> {
        let agent = match (&self.plan.agent, &transcript.agent) {
            (Some(agent), _) => agent.clone(),
            (None, Some(name)) => AgentId::parse(name).map_err(|error| ("agent", error))?,
            (None, None) => AgentId::parse(self.plan.format.as_str()).map_err(|error| ("agent", error))?,
        };
        let case = CaseId::parse(&transcript.case).map_err(|error| ("task", error))?;
        let name = shortened(&transcript.name);
        let session = format!("{}/{}/{name}", self.plan.format.as_str(), self.plan.source.stem());
        let session = SessionId::parse(&session).map_err(|error| ("task", error))?;
        Ok(Names { agent, case, session })
    }
}

fn shortened(name: &str) -> String {
    if name.len() <= MAX_NAME_BYTES {
        return name.to_owned();
    }
    let mut end = MAX_NAME_BYTES - 17;
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}~{}", &name[..end], &blake3::hash(name.as_bytes()).to_hex().as_str()[..16])
}

struct Names {
    agent: AgentId,
    case: CaseId,
    session: SessionId,
}

/// The drafts of one session and what is needed to finish them.
struct Cloth<'w, 'a> {
    weaver: &'w Weaver<'a>,
    names: Names,
    transcript: Transcript,
    drafts: Vec<Draft>,
    labels: BTreeMap<String, String>,
    untimed_start: i64,
}

impl Cloth<'_, '_> {
    fn finish(self, mut tally: Tally) -> Woven {
        let timed =
            self.transcript.started_at.or_else(|| self.drafts.iter().find_map(|draft| draft.started_at));
        let session_started_at = timed.unwrap_or(self.untimed_start);
        let trial = self.trial(timed, &mut tally);
        let embedding = trial.as_ref().and_then(|trial| self.embedding(trial));
        let mut exchanges = Vec::with_capacity(self.drafts.len());
        let mut pieces = Vec::new();
        let mut kept: HashSet<Digest> = HashSet::new();
        let mut clock = session_started_at;
        for (seq, draft) in (0_u32..).zip(&self.drafts) {
            // Exchanges without a time follow the one before by a microsecond, so that their order is kept.
            clock = match draft.started_at {
                Some(at) => at.max(clock),
                None => clock + i64::from(seq > 0),
            };
            let mut keep = |(digest, piece): (Digest, &[u8])| {
                if kept.insert(digest) {
                    pieces.push((self.names.session.clone(), digest, Bytes::copy_from_slice(piece)));
                }
            };
            let request = Body::cut(&draft.request, self.weaver.plan.keys, &mut keep);
            let response = Body::cut(&draft.response, self.weaver.plan.keys, &mut keep);
            exchanges.push(self.exchange(seq, draft, (request, response), (clock, session_started_at)));
        }
        count_edges(&exchanges, &mut tally);
        let close = (!exchanges.is_empty()).then(|| self.close(&exchanges, session_started_at, &tally));
        Woven { exchanges, pieces, close, trial, embedding, tally }
    }

    fn exchange(
        &self,
        seq: u32,
        draft: &Draft,
        (request, response): (Body, Body),
        (started_at, session_started_at): (i64, i64),
    ) -> Exchange {
        let weaver = self.weaver;
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
            tenant: weaver.plan.tenant.clone(),
            agent: self.names.agent.clone(),
            build: weaver.plan.into.build().cloned(),
            session: self.names.session.clone(),
            incarnation: weaver.plan.incarnation.clone(),
            seq,
            incarnation_seq: weaver.exchanges_before + u64::from(seq),
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
            envelope: None,
        }
    }

    fn exchange_id(&self, seq: u32) -> ExchangeId {
        let number = self.weaver.exchanges_before + u64::from(seq);
        ExchangeId::parse(&format!("{}-{number}", self.weaver.plan.incarnation))
            .expect("an incarnation with a short number behind it is a valid id")
    }

    fn close(&self, exchanges: &[Exchange], started_at: i64, tally: &Tally) -> SessionClose {
        let count = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let mut labels = self.labels.clone();
        labels.extend(self.transcript.slices.clone());
        labels.insert("file".to_owned(), self.weaver.plan.source.stem().to_owned());
        labels.insert("trial".to_owned(), self.transcript.trial.to_string());
        labels.extend(self.transcript.model.clone().map(|model| ("model".to_owned(), model)));
        SessionClose {
            tenant: self.weaver.plan.tenant.clone(),
            agent: self.names.agent.clone(),
            build: self.weaver.plan.into.build().cloned(),
            session: self.names.session.clone(),
            incarnation: self.weaver.plan.incarnation.clone(),
            started_at,
            closed_at: self.weaver.plan.now,
            reason: CloseReason::Imported,
            turns: count(tally.turns),
            model_calls: count(tally.model_calls),
            tool_calls: count(tally.tool_calls),
            last_seq: exchanges.last().map(|exchange| exchange.seq),
            shed: 0,
            shed_reason: None,
            case: Some(self.names.case.as_str().to_owned()),
            success: self.transcript.success,
            labels,
        }
    }

    fn trial(&self, started_at: Option<i64>, tally: &mut Tally) -> Option<Trial> {
        let ImportInto::Run { build, lane } = self.weaver.plan.into else { return None };
        let transcript = &self.transcript;
        let has_transcript = !self.drafts.is_empty();
        if transcript.success.is_none() {
            tally.note(Oddity::LabelMissing);
        }
        if !has_transcript && self.weaver.plan.format != Format::Outcomes {
            tally.note(Oddity::TranscriptMissing);
        }
        let usage = self.usage();
        Some(Trial {
            tenant: self.weaver.plan.tenant.clone(),
            agent: self.names.agent.clone(),
            build: Some(build.clone()),
            lane: *lane,
            case: self.names.case.clone(),
            trial: transcript.trial,
            session: self.names.session.clone(),
            seed: None,
            started_at,
            duration_us: transcript.reported.duration_us.or_else(|| draft::turn_time(&self.drafts)),
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
            whole: has_transcript.then_some(true),
            slices: transcript.slices.clone(),
        })
    }

    /// The answer's vector as the file brought it; which model made it is not known.
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

fn count_edges(exchanges: &[Exchange], tally: &mut Tally) {
    tally.exchanges = exchanges.len() as u64;
    for exchange in exchanges {
        match exchange.edge {
            Edge::Turn => tally.turns += 1,
            Edge::Model => tally.model_calls += 1,
            Edge::Tool => tally.tool_calls += 1,
        }
    }
}
