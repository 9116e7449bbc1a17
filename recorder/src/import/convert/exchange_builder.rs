//! Builds drafts of exchanges from the messages of a transcript, in one pass.
//!
//! Its state: the history, the open turn, and the tool calls without a result.

use std::collections::BTreeMap;

use schemas::exchange::{Edge, RequestedCall};
use schemas::keys::TenantKeys;
use schemas::tools::ToolCatalog;
use serde_json::{Value, json};

use super::draft::ExchangeDraft;
use crate::import::arguments::{ArgumentSyntax, ToolArguments};
use crate::import::stats::{ImportStats, ImportWarning};
use crate::import::transcript::{Transcript, TranscriptMessage, TranscriptRole, TranscriptToolCall};

/// Label of the session for a last user message without an answer.
const CLOSING_LABEL: &str = "closing_message";

/// Characters of a closing message in its label.
const CLOSING_CHARS: usize = 500;

/// The current turn.
struct OpenTurn {
    /// Index of its draft.
    draft: usize,
    /// Whether the agent has sent a message in it.
    started: bool,
    /// Whether the last message of the agent has no tool calls, so it is an answer.
    answered: bool,
}

/// A tool call without a result so far.
struct OpenToolCall {
    call: TranscriptToolCall,
    /// Id in the bodies: from the file, or generated.
    id: String,
    /// Seq of the model call that requested it.
    requested_by: u32,
}

/// A tool call by the user.
struct UserToolCall {
    call: TranscriptToolCall,
    text: Option<String>,
    result: Option<String>,
}

/// Builds the drafts of one transcript.
pub(super) struct ExchangeBuilder<'a> {
    transcript: &'a Transcript,
    tools: &'a ToolCatalog,
    keys: &'a TenantKeys,
    stats: &'a mut ImportStats,
    drafts: Vec<ExchangeDraft>,
    labels: BTreeMap<String, String>,
    /// Messages so far, as JSON.
    history: Vec<String>,
    turn: Option<OpenTurn>,
    open_calls: Vec<OpenToolCall>,
    user_tool_calls: Vec<UserToolCall>,
    /// Seq of the last model call.
    last_model: Option<u32>,
    /// Time of the previous message, microseconds since 1970.
    previous_time: Option<i64>,
    generated_ids: u32,
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
            open_calls: Vec::new(),
            user_tool_calls: Vec::new(),
            last_model: None,
            previous_time: transcript.started_at,
            generated_ids: 0,
        }
    }

    /// Returns the drafts, and labels for messages that become no exchange.
    pub(super) fn build(mut self) -> (Vec<ExchangeDraft>, BTreeMap<String, String>) {
        for message in &self.transcript.messages {
            match message.role {
                TranscriptRole::System => {
                    self.add_to_history(&json!({"role": "system", "content": message.text}))
                }
                TranscriptRole::User if message.calls.is_empty() => self.user_message(message),
                TranscriptRole::User => self.user_tool_calls(message),
                TranscriptRole::Assistant => self.assistant_message(message),
                TranscriptRole::Tool if message.by_user => self.user_tool_result(message),
                TranscriptRole::Tool => self.tool_result(message),
            }
            self.previous_time = message.at.or(self.previous_time);
        }
        self.drop_open_calls();
        self.close_turn();
        (self.drafts, self.labels)
    }

    fn add_to_history(&mut self, message: &Value) {
        self.history.push(message.to_string());
    }

    fn next_seq(&self) -> u32 {
        u32::try_from(self.drafts.len()).unwrap_or(u32::MAX)
    }

    fn user_message(&mut self, message: &TranscriptMessage) {
        let text = message.text.clone().unwrap_or_default();
        self.add_to_history(&json!({"role": "user", "content": text}));
        let unanswered = self.turn.as_ref().filter(|turn| !turn.answered).map(|turn| turn.draft);
        let Some(input) =
            unanswered.and_then(|index| self.drafts.get_mut(index)).map(|draft| &mut draft.operation.input)
        else {
            self.open_turn(Some(text), message.at.or(self.previous_time));
            return self
                .drafts
                .iter_mut()
                .rev()
                .take(1)
                .for_each(|turn| turn.redactions.clone_from(&message.redactions));
        };
        // Before an answer, the benchmark repeats the message, or the user adds to it.
        match input {
            Some(earlier) if *earlier == text => self.stats.add_warning(ImportWarning::RepeatedUserMessage),
            Some(earlier) => {
                earlier.push_str("\n\n");
                earlier.push_str(&text);
                self.stats.add_warning(ImportWarning::JoinedUserMessages);
            }
            None => *input = Some(text),
        }
    }

    fn open_turn(&mut self, input: Option<String>, at: Option<i64>) {
        self.turn = Some(OpenTurn { draft: self.drafts.len(), started: false, answered: false });
        let mut draft = ExchangeDraft::new(Edge::Turn, at);
        draft.operation.input = input;
        let calls: Vec<Value> = self.user_tool_calls.drain(..).map(|call| call.into_json()).collect();
        if !calls.is_empty() {
            draft.identifiers.push(("user_tool_calls", calls.len().to_string()));
            draft.request = json!({"user_tool_calls": calls}).to_string().into_bytes();
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
            .position(|user_call| user_call.result.is_none() && user_call.call.id == message.call_id);
        let index =
            by_id.or_else(|| self.user_tool_calls.iter().position(|user_call| user_call.result.is_none()));
        match index.and_then(|index| self.user_tool_calls.get_mut(index)) {
            Some(user_call) => user_call.result = Some(message.text.clone().unwrap_or_default()),
            None => self.stats.add_warning(ImportWarning::ResultWithoutCall),
        }
    }

    fn assistant_message(&mut self, message: &TranscriptMessage) {
        if self.turn.is_none() {
            let by_model = message.usage.input_tokens.is_some() || !message.calls.is_empty();
            let ticket = self.transcript.opening.clone().filter(|_| !self.has_user());
            if self.drafts.is_empty() && !by_model && ticket.is_none() {
                self.stats.add_warning(ImportWarning::Greeting);
                return self.add_to_history(&json!({"role": "assistant", "content": message.text}));
            }
            if let Some(ticket) = &ticket {
                self.stats.add_warning(ImportWarning::TicketAsTurn);
                self.add_to_history(&json!({"role": "user", "content": ticket}));
            }
            self.open_turn(ticket, self.previous_time.or(message.at));
        }
        self.drop_open_calls();
        let seq = self.next_seq();
        let ids: Vec<String> = message.calls.iter().map(|call| self.call_id(call)).collect();
        let draft = self.model_call(message, &ids);
        self.drafts.push(draft);
        self.last_model = Some(seq);
        let calls = message.calls.iter().cloned().zip(ids);
        self.open_calls.extend(calls.map(|(call, id)| OpenToolCall { call, id, requested_by: seq }));
        if let Some(turn) = &mut self.turn {
            turn.started = true;
            turn.answered = message.calls.is_empty();
            if let Some(draft) = self.drafts.get_mut(turn.draft) {
                let answer = message.text.clone().unwrap_or_default();
                draft.operation.output = turn.answered.then_some(answer);
                draft.ended_at = message.at;
            }
        }
    }

    /// Whether the transcript has user messages. Without them the agent works on its ticket.
    fn has_user(&self) -> bool {
        self.transcript.messages.iter().any(|message| message.role == TranscriptRole::User)
    }

    fn call_id(&mut self, call: &TranscriptToolCall) -> String {
        call.id.clone().unwrap_or_else(|| {
            self.stats.add_warning(ImportWarning::CallIdMissing);
            self.generated_ids += 1;
            format!("call_{}", self.generated_ids)
        })
    }

    fn model_call(&mut self, message: &TranscriptMessage, ids: &[String]) -> ExchangeDraft {
        let mut draft = ExchangeDraft::new(
            Edge::Model,
            self.previous_time.filter(|_| message.at.is_some()).or(message.at),
        );
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
        self.add_to_history(&answer);
        draft
    }

    /// The request, built around the JSON of the history: equal messages stay equal bytes, so the store keeps them once.
    fn chat_request(&self) -> Vec<u8> {
        let model = self.transcript.model.as_ref().map(|model| format!("\"model\":{},", json!(model)));
        format!("{{{}\"messages\":[{}]}}", model.unwrap_or_default(), self.history.join(",")).into_bytes()
    }

    fn tool_result(&mut self, message: &TranscriptMessage) {
        let Some(index) = self.find_open_call(message) else { return self.result_without_call(message) };
        let OpenToolCall { call, id, requested_by } = self.open_calls.remove(index);
        let mut draft = self.tool_call(message);
        let arguments = ToolArguments::parse(&call.arguments);
        match arguments.syntax {
            ArgumentSyntax::Json => {}
            ArgumentSyntax::Python => self.stats.add_warning(ImportWarning::PythonArguments),
            ArgumentSyntax::Verbatim => self.stats.add_warning(ImportWarning::ArgumentsKeptVerbatim),
        }
        if arguments.syntax == ArgumentSyntax::Verbatim {
            draft.operation.arguments_verbatim = Some(arguments.text);
        } else {
            draft.operation.arguments_digest = Some(self.keys.digest(arguments.text.as_bytes()));
            draft.operation.arguments = Some(arguments.text);
        }
        draft.request = call.arguments.into_bytes();
        draft.redactions.extend(call.redactions);
        self.set_tool(&mut draft, &call.tool);
        draft.links.push((requested_by, "requested_by"));
        draft.identifiers.extend(call.id.map(|id| ("tool_call_id", id)));
        self.drafts.push(draft);
        self.add_to_history(&json!({"role": "tool", "tool_call_id": id, "content": message.text}));
    }

    fn tool_call(&self, message: &TranscriptMessage) -> ExchangeDraft {
        let mut draft = ExchangeDraft::new(
            Edge::Tool,
            self.previous_time.filter(|_| message.at.is_some()).or(message.at),
        );
        draft.ended_at = message.at;
        draft.response = message.text.clone().unwrap_or_default().into_bytes();
        draft.operation.result = Some(message.text.clone().unwrap_or_default());
        draft.operation.is_error = message.is_error;
        draft.redactions = message.redactions.clone();
        draft
    }

    fn set_tool(&self, draft: &mut ExchangeDraft, tool: &str) {
        draft.operation.tool = Some(tool.to_owned());
        draft.operation.effect = self.tools.effect(tool);
        let declared = self.tools.find(tool);
        draft.operation.reversible = declared.and_then(|tool| tool.reversible);
        draft.operation.idempotent = declared.and_then(|tool| tool.idempotent);
    }

    /// The call that a result belongs to: by id, else the first of its tool; without a name, the first of all.
    fn find_open_call(&mut self, message: &TranscriptMessage) -> Option<usize> {
        if let Some(id) = &message.call_id
            && let Some(index) = self.open_calls.iter().position(|open| open.call.id.as_ref() == Some(id))
        {
            return Some(index);
        }
        let named =
            message.tool.as_ref().and_then(|tool| self.open_calls.iter().position(|p| p.call.tool == *tool));
        let index = named.or_else(|| (message.tool.is_none() && !self.open_calls.is_empty()).then_some(0))?;
        self.stats.add_warning(ImportWarning::ResultJoinedByOrder);
        Some(index)
    }

    fn result_without_call(&mut self, message: &TranscriptMessage) {
        self.stats.add_warning(ImportWarning::ResultWithoutCall);
        let mut draft = self.tool_call(message);
        if let Some(tool) = &message.tool {
            self.set_tool(&mut draft, tool);
        }
        self.drafts.push(draft);
        self.add_to_history(
            &json!({"role": "tool", "tool_call_id": message.call_id, "content": message.text}),
        );
    }

    fn drop_open_calls(&mut self) {
        for _ in self.open_calls.drain(..) {
            self.stats.add_warning(ImportWarning::CallWithoutResult);
        }
    }

    fn close_turn(&mut self) {
        let Some(turn) = self.turn.take() else { return };
        let is_last = turn.draft + 1 == self.drafts.len();
        // The agent never received the last goodbye: as a turn, a replay would wait for its answer.
        if !turn.started && is_last && turn.draft > 0 {
            let text = self.drafts.pop().and_then(|draft| draft.operation.input).unwrap_or_default();
            self.labels.insert(CLOSING_LABEL.to_owned(), text.chars().take(CLOSING_CHARS).collect());
            self.stats.add_warning(ImportWarning::ClosingUserMessage);
        } else if !turn.answered {
            self.stats.add_warning(ImportWarning::UnansweredTurn);
            if let Some(draft) = self.drafts.get_mut(turn.draft) {
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

/// Writes the bodies of a finished turn. Its request may already have the tool calls of the user.
fn write_turn(draft: &mut ExchangeDraft) {
    let mut request = json!({"role": "user", "content": draft.operation.input});
    let existing: Option<Value> = serde_json::from_slice(&draft.request).ok();
    if let Some(calls) = existing.as_ref().and_then(|value| value.get("user_tool_calls")) {
        request["user_tool_calls"] = calls.clone();
    }
    draft.request = request.to_string().into_bytes();
    if let Some(answer) = &draft.operation.output {
        draft.response = json!({"role": "assistant", "content": answer}).to_string().into_bytes();
    }
}
