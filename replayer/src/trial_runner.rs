//! Runs one trial: sends the recorded user turns to the candidate one after the other.
//!
//! The recorded turns are sent whatever the candidate answers (open mode). This module knows neither plan nor trial log:
//! it takes a planned trial and returns its rows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use schemas::exchange::{Edge, Ending, Operation, OperationKind, Protocol};
use schemas::id::IncarnationId;
use schemas::keys::RootKey;
use schemas::trial::{Lane, TrialEnding};

use crate::blocking::run_blocking;
use crate::candidate::endpoint::TrialEndpoint;
use crate::candidate::settings::Transport;
use crate::candidate::turn::{Message, Role, Turn, TurnFailure, TurnResult};
use crate::candidate::{Candidate, command, http};
use crate::faults::FaultKey;
use crate::plan::{PlannedTrial, probe_token, trial_seed, trial_token};
use crate::provider_clock::TurnLimit;
use crate::shorten::shorten;
use crate::trial_log::TrialRecord;
use crate::trial_rows::{TrialMeta, trial_record};
use crate::world::active_trial::{ActiveTrial, ReplayCase, ReplaySettings};
use crate::world::provider_calls::ProviderCalls;
use crate::world::registry::Registry;

/// Everything that the trials of a replay share.
#[derive(Debug)]
pub(crate) struct ReplayContext {
    pub(crate) candidate: Candidate,
    pub(crate) lane: Lane,
    pub(crate) settings: Arc<ReplaySettings>,
    pub(crate) registry: Arc<Registry>,
    /// Address of the world, `http://host:port`.
    pub(crate) world_url: String,
    pub(crate) incarnation: IncarnationId,
    /// Exchanges that this start has numbered.
    pub(crate) exchanges: AtomicU64,
    pub(crate) root_key: RootKey,
    /// Texts of errors that mark an infrastructure failure.
    pub(crate) infrastructure: Vec<String>,
}

/// A finished trial.
#[derive(Debug)]
pub(crate) struct FinishedTrial {
    pub(crate) record: TrialRecord,
    pub(crate) duplicated_writes: u32,
    pub(crate) model_calls: u32,
}

/// Unregisters a trial when it ends for any reason, cancellation included.
struct RegistrationGuard<'a> {
    registry: &'a Registry,
    token: String,
}

impl<'a> RegistrationGuard<'a> {
    fn register(registry: &'a Registry, trial: &Arc<ActiveTrial>) -> Self {
        registry.register(trial.clone());
        Self { registry, token: trial.endpoint().token.clone() }
    }
}

impl Drop for RegistrationGuard<'_> {
    fn drop(&mut self) {
        self.registry.unregister(&self.token);
    }
}

fn endpoint(context: &ReplayContext, token: String, seed: u64) -> TrialEndpoint {
    TrialEndpoint { base: format!("{}/t/{token}", context.world_url), token, seed }
}

/// Runs a trial to its end.
pub(crate) async fn run_trial(
    context: &ReplayContext,
    case: Arc<ReplayCase>,
    planned: PlannedTrial,
) -> FinishedTrial {
    let token = trial_token(&context.incarnation, &planned.session);
    let endpoint = endpoint(context, token.clone(), planned.seed);
    let settings = context.settings.clone();
    let trial = Arc::new(ActiveTrial::new(endpoint, case.clone(), planned.trial, false, settings));
    let started_at = context.settings.clock.now_micros();
    let registration = RegistrationGuard::register(&context.registry, &trial);
    let timeout = context.candidate.turn_timeout();
    let conversation = run_turns(context, &trial, &case.recording.turns, timeout).await;
    drop(registration);
    let output = trial.close();
    let (duplicated_writes, model_calls) = (output.duplicated_writes, output.model_calls);
    let (ending, ending_detail) = ending(&conversation, &output.provider, &context.infrastructure);
    let health = &context.settings.provider_health;
    match output.provider.last_cause() {
        Some(cause) => health.trial_lost(cause),
        None if output.provider.answered > 0 => health.trial_answered(),
        None => {}
    }
    let count = output.exchanges.len() as u64;
    let fault_key =
        FaultKey { run_seed: context.settings.run_seed, case: &planned.case, trial: planned.trial };
    let tools = case.recording.effects.keys().map(String::as_str);
    let fault_plan = context.settings.faults.plan(fault_key, tools);
    let meta = TrialMeta {
        planned,
        lane: context.lane,
        build: context.candidate.build().clone(),
        token,
        incarnation: context.incarnation.clone(),
        incarnation_seq: context.exchanges.fetch_add(count, Ordering::Relaxed),
        started_at,
        closed_at: context.settings.clock.now_micros(),
        ending,
        ending_detail,
        answer: conversation.answer,
        fault_plan,
    };
    let keys = context.root_key.tenant(&case.recording.tenant);
    // Chunking and hashing megabytes of bodies would delay the other trials on an async thread.
    let record = run_blocking(move || trial_record(&meta, &case.recording, output, &keys)).await;
    FinishedTrial { record, duplicated_writes, model_calls }
}

/// How a trial ended. A provider's failure that remained makes the trial missing, whatever the candidate answered: it
/// may have swallowed the error.
fn ending(
    conversation: &ConversationResult,
    provider: &ProviderCalls,
    infrastructure: &[String],
) -> (TrialEnding, Option<String>) {
    if let Some(failures) = provider.describe() {
        let own = match &conversation.failure {
            Some(failure) => failure.detail(),
            None => "answered every turn",
        };
        return (TrialEnding::Infrastructure, Some(format!("{failures}; the candidate: {own}")));
    }
    let Some(failure) = &conversation.failure else { return (TrialEnding::Complete, None) };
    let detail = failure.detail();
    let error = [detail, &conversation.error_text];
    let is_marked = |text: &&String| error.iter().any(|error| error.contains(text.as_str()));
    if let Some(text) = infrastructure.iter().find(is_marked) {
        let detail = format!("the error contains {text:?}, which --infrastructure names: {detail}");
        return (TrialEnding::Infrastructure, Some(detail));
    }
    match failure {
        TurnFailure::TimedOut(_) => (TrialEnding::TimedOut, Some(detail.to_owned())),
        TurnFailure::Failed(_) => (TrialEnding::Failed, Some(detail.to_owned())),
    }
}

/// Why a probe failed.
#[derive(Debug)]
pub(crate) enum ProbeFailure {
    /// The candidate does not answer, or answers with a failure.
    Candidate(String),
    /// The model provider failed a model call of the candidate.
    Provider(String),
}

/// Sends the first turn of a case, without faults and delays, and discards the result.
pub(crate) async fn probe(
    context: &ReplayContext,
    case: Arc<ReplayCase>,
    timeout: Duration,
) -> Result<(), ProbeFailure> {
    let token = probe_token(&context.incarnation);
    let seed = trial_seed(context.settings.run_seed, &case.recording.case, 0);
    let endpoint = endpoint(context, token, seed);
    let trial = Arc::new(ActiveTrial::new(endpoint, case.clone(), 0, true, context.settings.clone()));
    let registration = RegistrationGuard::register(&context.registry, &trial);
    let first = case.recording.turns.get(..1).unwrap_or_default();
    let conversation = run_turns(context, &trial, first, timeout).await;
    drop(registration);
    let output = trial.close();
    if let Some(failures) = output.provider.describe() {
        return Err(ProbeFailure::Provider(failures));
    }
    let Some(failure) = conversation.failure else { return Ok(()) };
    let (sent, received, status) = match output.exchanges.first() {
        Some(turn) => (&turn.request[..], &turn.response[..], turn.status),
        None => (&[][..], &[][..], None),
    };
    let detail = failure.detail();
    Err(ProbeFailure::Candidate(probe_failure(detail, sent, received, status.is_some())))
}

/// Describes a failed probe: cause, request and answer on a line each. An answer at the end of `detail` is not repeated.
fn probe_failure(detail: &str, sent: &[u8], received: &[u8], has_status: bool) -> String {
    let quoted = |bytes: &[u8]| match bytes {
        [] => "nothing".to_owned(),
        bytes => shorten(&String::from_utf8_lossy(bytes)),
    };
    let one_line = |text: &str| text.replace(|letter: char| letter.is_control(), " ");
    let (sent, received) = (quoted(sent), quoted(received));
    let detail = detail.strip_suffix(&format!(": {received}")).unwrap_or(detail);
    let head = if has_status { "answered the probe with a failure" } else { "does not answer" };
    format!(
        "the candidate {head}: {}\n  sent: {}\n  received: {}",
        one_line(detail),
        one_line(&sent),
        one_line(&received)
    )
}

/// The last answer of a conversation, or the failure that ended it.
struct ConversationResult {
    answer: Option<String>,
    failure: Option<TurnFailure>,
    /// What the failed turn said: the body of its answer, or the program's standard error.
    error_text: String,
}

async fn run_turns(
    context: &ReplayContext,
    trial: &ActiveTrial,
    turns: &[String],
    timeout: Duration,
) -> ConversationResult {
    let mut history: Vec<Message> = Vec::new();
    let mut running = None;
    let mut conversation = ConversationResult { answer: None, failure: None, error_text: String::new() };
    for (number, input) in turns.iter().enumerate() {
        let turn = Turn { input, number, history: &history, endpoint: trial.endpoint() };
        let seq = open_turn(trial, input);
        let (started, limit) = (Instant::now(), TurnLimit { timeout, clock: trial.provider_clock() });
        let mut result = match &context.candidate.transport {
            Transport::Http(service) => {
                let propagate = context.candidate.propagate.as_ref();
                http::send_turn(&context.settings.client, service, propagate, &turn, limit).await
            }
            Transport::Command(program) => command::send_turn(program, &mut running, &turn, limit).await,
        };
        // A failing provider must not make the candidate slow.
        result.duration = limit.clock.own_time(started, result.duration);
        result.first_byte = result.first_byte.map(|time| limit.clock.own_time(started, time));
        finish_turn(trial, seq, &result);
        match result.answer {
            Ok(answer) => {
                history.push(Message { role: Role::User, content: input.clone() });
                history.push(Message { role: Role::Assistant, content: answer.clone() });
                conversation.answer = Some(answer);
            }
            Err(failure) => {
                let said = String::from_utf8_lossy(&result.response);
                conversation.error_text = format!("{said}\n{}", result.stderr);
                conversation.failure = Some(failure);
                break;
            }
        }
    }
    command::stop(running).await;
    conversation
}

/// Numbers the turn before the calls that it causes.
fn open_turn(trial: &ActiveTrial, input: &str) -> Option<usize> {
    let mut operation = Operation::new(OperationKind::Turn);
    operation.input = Some(input.to_owned());
    let exchange = trial.begin_exchange(Edge::Turn, Protocol::Opaque, operation, bytes::Bytes::new());
    trial.state().map(|mut state| state.open(exchange))
}

fn finish_turn(trial: &ActiveTrial, seq: Option<usize>, result: &TurnResult) {
    let Some(seq) = seq else { return };
    trial.finish(seq, |exchange| {
        exchange.protocol = result.protocol;
        exchange.http.clone_from(&result.http);
        exchange.request = result.request.clone();
        exchange.response = result.response.clone();
        exchange.status = result.status;
        exchange.first_byte = result.first_byte;
        exchange.duration = Some(result.duration);
        match &result.answer {
            Ok(answer) => exchange.operation.output = Some(answer.clone()),
            Err(failure) => {
                // An error answer is complete; an answer that timed out after its head is truncated.
                exchange.ending = Some(match (failure, result.status) {
                    (TurnFailure::Failed(_), Some(_)) => Ending::Complete,
                    (TurnFailure::TimedOut(_), Some(_)) => Ending::Truncated,
                    (TurnFailure::Failed(_) | TurnFailure::TimedOut(_), None) => Ending::Failed,
                });
                exchange.ending_detail = Some(failure.detail().to_owned());
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_probe_quotes_the_answer_once() {
        let text = probe_failure("HTTP status 500 from http://a/: oh\nno", b"{}", b"oh\nno", true);
        assert_eq!(
            text,
            "the candidate answered the probe with a failure: HTTP status 500 from http://a/\n  sent: {}\n  received: oh no"
        );
        let text = probe_failure("no answer from http://a/ within 60ms", b"{}", b"", false);
        assert!(text.starts_with("the candidate does not answer: no answer from"), "{text}");
        assert!(text.ends_with("\n  received: nothing"), "{text}");
    }
}
