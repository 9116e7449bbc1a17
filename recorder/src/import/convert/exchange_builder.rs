//! The walk along a transcript's messages that makes the drafts of its exchanges.
//!
//! Holds the little state that takes: the history so far, the open turn, the tool calls that wait for a result.

use std::collections::BTreeMap;

use schemas::exchange::{Edge, RequestedCall};
use schemas::keys::TenantKeys;
use schemas::tools::ToolCatalog;
use serde_json::{Value, json};

use super::draft::ExchangeDraft;
use crate::import::arguments::{ArgumentSyntax, ToolArguments};
use crate::import::stats::{ImportStats, ImportWarning};
use crate::import::transcript::{Transcript, TranscriptMessage, TranscriptRole, TranscriptToolCall};

/// Label of a last user message that nobody answered.
const CLOSING_LABEL: &str = "closing_message";

/// How much of a closing message is kept as a label, in characters.
const CLOSING_CHARS: usize = 500;

/// A turn that the agent is working on.
struct Turn {
    /// Its draft.
    at: usize,
    /// The agent has done something about it.
    touched: bool,
    /// The last thing it did was to answer.
    answered: bool,
}

/// A tool call that waits for its result.
struct OpenToolCall {
    call: TranscriptToolCall,
    /// The id in the bodies: the source's, or a made one.
    id: String,
    /// ExchangeDraft of the model call that asked for it.
    asked_by: u32,
}

/// A tool that the caller used on its own side.
struct UserToolCall {
    call: TranscriptToolCall,
    text: Option<String>,
    result: Option<String>,
}

/// Walks along one transcript.
pub(super) struct ExchangeBuilder<'a> {
    transcript: &'a Transcript,
    tools: &'a ToolCatalog,
    keys: &'a TenantKeys,
    stats: &'a mut ImportStats,
    drafts: Vec<ExchangeDraft>,
    labels: BTreeMap<String, String>,
    /// The messages so far, as JSON texts.
    history: Vec<String>,
    turn: Option<Turn>,
    pending: Vec<OpenToolCall>,
    user_tool_calls: Vec<UserToolCall>,
    /// The last model call.
    last_model: Option<u32>,
    /// When the message before was complete.
    cursor: Option<i64>,
    made_ids: u32,
}

impl<'a> ExchangeBuilder<'a> {
    pub(super) fn new(
        transcript: &'a Transcript,
        tools: &'a ToolCatalog,
        keys: &'a TenantKeys,
        stats: &'a mut ImportStats,
    ) -> Self {
        Self {
            transcript,
            tools,
            keys,
            stats,
            drafts: Vec::new(),
            labels: BTreeMap::new(),
            history: Vec::new(),
            turn: None,
            pending: Vec::new(),
            user_tool_calls: Vec::new(),
            last_model: None,
            cursor: transcript.started_at,
            made_ids: 0,
        }
    }

    /// Makes the drafts, and labels for what is no exchange.
    pub(super) fn run(mut self) -> (Vec<ExchangeDraft>, BTreeMap<String, String>) {
        for message in &self.transcript.messages {
            match message.role {
                TranscriptRole::System => self.remember(&json!({"role": "system", "content": message.text})),
                TranscriptRole::User if message.calls.is_empty() => self.user(message),
                TranscriptRole::User => self.user_tool_calls(message),
                TranscriptRole::Assistant => self.assistant(message),
                TranscriptRole::Tool if message.by_user => self.user_tool_result(message),
                TranscriptRole::Tool => self.tool(message),
            }
            self.cursor = message.at.or(self.cursor);
        }
        self.drop_pending();
        self.end();
        (self.drafts, self.labels)
    }

    fn remember(&mut self, message: &Value) {
        self.history.push(message.to_string());
    }

    fn next_seq(&self) -> u32 {
        u32::try_from(self.drafts.len()).unwrap_or(u32::MAX)
    }

    fn user(&mut self, message: &TranscriptMessage) {
        let text = message.text.clone().unwrap_or_default();
        self.remember(&json!({"role": "user", "content": text}));
        let unanswered = self.turn.as_ref().filter(|turn| !turn.answered).map(|turn| turn.at);
        let Some(input) =
            unanswered.and_then(|at| self.drafts.get_mut(at)).map(|draft| &mut draft.operation.input)
        else {
            self.open_turn(Some(text), message.at.or(self.cursor));
            return self
                .drafts
                .iter_mut()
                .rev()
                .take(1)
                .for_each(|turn| turn.redactions.clone_from(&message.redactions));
        };
        // The agent has not answered yet: its harness speaks here, or the caller adds to what it said.
        match input {
            Some(said) if *said == text => self.stats.add_warning(ImportWarning::RepeatedUserMessage),
            Some(said) => {
                said.push_str("\n\n");
                said.push_str(&text);
                self.stats.add_warning(ImportWarning::JoinedUserMessages);
            }
            None => *input = Some(text),
        }
    }

    fn open_turn(&mut self, input: Option<String>, at: Option<i64>) {
        self.turn = Some(Turn { at: self.drafts.len(), touched: false, answered: false });
        let mut draft = ExchangeDraft::new(Edge::Turn, at);
        draft.operation.input = input;
        let callers: Vec<Value> = self.user_tool_calls.drain(..).map(|made| made.into_json()).collect();
        if !callers.is_empty() {
            draft.identifiers.push(("user_tool_calls", callers.len().to_string()));
            draft.request = json!({"user_tool_calls": callers}).to_string().into_bytes();
        }
        self.drafts.push(draft);
    }

    fn user_tool_calls(&mut self, message: &TranscriptMessage) {
        for call in &message.calls {
            self.stats.add_warning(ImportWarning::UserToolCall);
            self.user_tool_calls.push(UserToolCall {
                call: call.clone(),
                text: message.text.clone(),
                result: None,
            });
        }
    }

    fn user_tool_result(&mut self, message: &TranscriptMessage) {
        let by_id = self
            .user_tool_calls
            .iter()
            .position(|made| made.result.is_none() && made.call.id == message.call_id);
        let place = by_id.or_else(|| self.user_tool_calls.iter().position(|made| made.result.is_none()));
        match place.and_then(|place| self.user_tool_calls.get_mut(place)) {
            Some(made) => made.result = Some(message.text.clone().unwrap_or_default()),
            None => self.stats.add_warning(ImportWarning::ResultWithoutCall),
        }
    }

    fn assistant(&mut self, message: &TranscriptMessage) {
        if self.turn.is_none() {
            let by_model = message.usage.input_tokens.is_some() || !message.calls.is_empty();
            let ticket = self.transcript.opening.clone().filter(|_| !self.has_caller());
            if self.drafts.is_empty() && !by_model && ticket.is_none() {
                self.stats.add_warning(ImportWarning::Greeting);
                return self.remember(&json!({"role": "assistant", "content": message.text}));
            }
            if let Some(ticket) = &ticket {
                self.stats.add_warning(ImportWarning::TicketAsTurn);
                self.remember(&json!({"role": "user", "content": ticket}));
            }
            self.open_turn(ticket, self.cursor.or(message.at));
        }
        self.drop_pending();
        let seq = self.next_seq();
        let ids: Vec<String> = message.calls.iter().map(|call| self.call_id(call)).collect();
        let draft = self.model_call(message, &ids);
        self.drafts.push(draft);
        self.last_model = Some(seq);
        let calls = message.calls.iter().cloned().zip(ids);
        self.pending.extend(calls.map(|(call, id)| OpenToolCall { call, id, asked_by: seq }));
        if let Some(turn) = &mut self.turn {
            turn.touched = true;
            turn.answered = message.calls.is_empty();
            if let Some(draft) = self.drafts.get_mut(turn.at) {
                let answer = message.text.clone().unwrap_or_default();
                draft.operation.output = turn.answered.then_some(answer);
                draft.ended_at = message.at;
            }
        }
    }

    /// Whether anybody speaks to the agent at all; where nobody does, its task's ticket is what it works on.
    fn has_caller(&self) -> bool {
        self.transcript.messages.iter().any(|message| message.role == TranscriptRole::User)
    }

    fn call_id(&mut self, call: &TranscriptToolCall) -> String {
        call.id.clone().unwrap_or_else(|| {
            self.stats.add_warning(ImportWarning::CallIdMissing);
            self.made_ids += 1;
            format!("call_{}", self.made_ids)
        })
    }

    fn model_call(&mut self, message: &TranscriptMessage, ids: &[String]) -> ExchangeDraft {
        let mut draft =
            ExchangeDraft::new(Edge::Model, self.cursor.filter(|_| message.at.is_some()).or(message.at));
        draft.ended_at = message.at;
        let calls = message.calls.iter().zip(ids).map(|(call, id)| {
            json!({"id": id, "type": "function", "function": {"name": call.tool, "arguments": call.arguments}})
        });
        let calls: Vec<Value> = calls.collect();
        let mut answer = json!({"role": "assistant", "content": message.text});
        if !calls.is_empty() {
            answer["tool_calls"] = Value::Array(calls);
        }
        let stop = if message.calls.is_empty() { "stop" } else { "tool_calls" };
        let finish_reason = message.finish_reason.clone().unwrap_or_else(|| stop.to_owned());
        draft.request = self.chat_request();
        draft.response = chat_response(self.transcript.model.as_deref(), &answer, &finish_reason, message);
        draft.usage = message.usage;
        if message.usage.input_tokens.is_none() {
            self.stats.add_warning(ImportWarning::UsageMissing);
        }
        draft.operation.model = self.transcript.model.clone();
        draft.operation.output = message.text.clone();
        draft.operation.finish_reason = Some(finish_reason);
        draft.operation.requested = message.calls.iter().map(requested).collect();
        draft.links.extend(self.last_model.map(|to| (to, "continues")));
        draft.redactions = message.redactions.clone();
        draft.redactions.extend(message.calls.iter().flat_map(|call| call.redactions.clone()));
        self.remember(&answer);
        draft
    }

    /// Writes the request around the history, whose messages are JSON already: equal messages stay equal bytes, and
    /// so are stored once.
    fn chat_request(&self) -> Vec<u8> {
        let model = self.transcript.model.as_ref().map(|model| format!("\"model\":{},", json!(model)));
        format!("{{{}\"messages\":[{}]}}", model.unwrap_or_default(), self.history.join(",")).into_bytes()
    }

    fn tool(&mut self, message: &TranscriptMessage) {
        let Some(place) = self.find_pending(message) else { return self.orphan(message) };
        let OpenToolCall { call, id, asked_by } = self.pending.remove(place);
        let mut draft = self.tool_call(message);
        let arguments = ToolArguments::read(&call.arguments);
        match arguments.spelling {
            ArgumentSyntax::Json => {}
            ArgumentSyntax::Python => self.stats.add_warning(ImportWarning::PythonArguments),
            ArgumentSyntax::Verbatim => self.stats.add_warning(ImportWarning::ArgumentsKeptVerbatim),
        }
        if arguments.spelling == ArgumentSyntax::Verbatim {
            draft.operation.arguments_verbatim = Some(arguments.text);
        } else {
            draft.operation.arguments_digest = Some(self.keys.digest(arguments.text.as_bytes()));
            draft.operation.arguments = Some(arguments.text);
        }
        draft.request = call.arguments.into_bytes();
        draft.redactions.extend(call.redactions);
        self.declare(&mut draft, &call.tool);
        draft.links.push((asked_by, "requested_by"));
        draft.identifiers.extend(call.id.map(|id| ("tool_call_id", id)));
        self.drafts.push(draft);
        self.remember(&json!({"role": "tool", "tool_call_id": id, "content": message.text}));
    }

    fn tool_call(&self, message: &TranscriptMessage) -> ExchangeDraft {
        let mut draft =
            ExchangeDraft::new(Edge::Tool, self.cursor.filter(|_| message.at.is_some()).or(message.at));
        draft.ended_at = message.at;
        draft.response = message.text.clone().unwrap_or_default().into_bytes();
        draft.operation.result = Some(message.text.clone().unwrap_or_default());
        draft.operation.is_error = message.is_error;
        draft.redactions = message.redactions.clone();
        draft
    }

    fn declare(&self, draft: &mut ExchangeDraft, tool: &str) {
        draft.operation.tool = Some(tool.to_owned());
        draft.operation.effect = self.tools.effect(tool);
        let declared = self.tools.find(tool);
        draft.operation.reversible = declared.and_then(|tool| tool.reversible);
        draft.operation.idempotent = declared.and_then(|tool| tool.idempotent);
    }

    /// By id where there is one; else the first of that name, else the first of all.
    fn find_pending(&mut self, message: &TranscriptMessage) -> Option<usize> {
        if let Some(id) = &message.call_id
            && let Some(place) = self.pending.iter().position(|pending| pending.call.id.as_ref() == Some(id))
        {
            return Some(place);
        }
        let named =
            message.tool.as_ref().and_then(|tool| self.pending.iter().position(|p| p.call.tool == *tool));
        let place = named.or_else(|| (message.tool.is_none() && !self.pending.is_empty()).then_some(0))?;
        self.stats.add_warning(ImportWarning::ResultJoinedByOrder);
        Some(place)
    }

    fn orphan(&mut self, message: &TranscriptMessage) {
        self.stats.add_warning(ImportWarning::ResultWithoutCall);
        let mut draft = self.tool_call(message);
        if let Some(tool) = &message.tool {
            self.declare(&mut draft, tool);
        }
        self.drafts.push(draft);
        self.remember(&json!({"role": "tool", "tool_call_id": message.call_id, "content": message.text}));
    }

    fn drop_pending(&mut self) {
        for _ in self.pending.drain(..) {
            self.stats.add_warning(ImportWarning::CallWithoutResult);
        }
    }

    fn end(&mut self) {
        let Some(turn) = self.turn.take() else { return };
        let is_last = turn.at + 1 == self.drafts.len();
        // A goodbye that ended the session was never put to the agent: as a turn it would ask for an answer on replay.
        if !turn.touched && is_last && turn.at > 0 {
            let said = self.drafts.pop().and_then(|draft| draft.operation.input).unwrap_or_default();
            self.labels.insert(CLOSING_LABEL.to_owned(), said.chars().take(CLOSING_CHARS).collect());
            self.stats.add_warning(ImportWarning::ClosingUserMessage);
        } else if !turn.answered {
            self.stats.add_warning(ImportWarning::UnansweredTurn);
            if let Some(draft) = self.drafts.get_mut(turn.at) {
                draft.unanswered = true;
            }
        }
        self.drafts.iter_mut().filter(|draft| draft.edge == Edge::Turn).for_each(write_turn);
    }
}

impl UserToolCall {
    fn into_json(self) -> Value {
        let Self { call, text, result } = self;
        json!({"name": call.tool, "arguments": call.arguments, "content": text, "result": result})
    }
}

fn requested(call: &TranscriptToolCall) -> RequestedCall {
    RequestedCall { id: call.id.clone(), tool: call.tool.clone(), arguments: call.arguments.clone() }
}

fn chat_response(
    model: Option<&str>,
    answer: &Value,
    finish_reason: &str,
    message: &TranscriptMessage,
) -> Vec<u8> {
    let mut response = json!({"object": "chat.completion"});
    if let Some(model) = model {
        response["model"] = json!(model);
    }
    response["choices"] = json!([{"index": 0, "message": answer, "finish_reason": finish_reason}]);
    if let (Some(input), Some(output)) = (message.usage.input_tokens, message.usage.output_tokens) {
        let total = input.saturating_add(output);
        response["usage"] =
            json!({"prompt_tokens": input, "completion_tokens": output, "total_tokens": total});
    }
    response.to_string().into_bytes()
}

/// Writes a turn's bodies once all of it is known; what the caller did on its side is there already.
fn write_turn(draft: &mut ExchangeDraft) {
    let mut request = json!({"role": "user", "content": draft.operation.input});
    let callers: Option<Value> = serde_json::from_slice(&draft.request).ok();
    if let Some(calls) = callers.as_ref().and_then(|value| value.get("user_tool_calls")) {
        request["user_tool_calls"] = calls.clone();
    }
    draft.request = request.to_string().into_bytes();
    if let Some(answer) = &draft.operation.output {
        draft.response = json!({"role": "assistant", "content": answer}).to_string().into_bytes();
    }
}
