//! One trial: the recorded user turns are asked of the candidate one after the other, in open mode.
//!
//! Knows neither the plan nor the ledger: it is given a trial and gives back its rows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use schemas::exchange::{Edge, Ending, Operation, OperationKind, Protocol};
use schemas::id::IncarnationId;
use schemas::keys::RootKey;
use schemas::trial::{Lane, TrialEnding};

use crate::candidate::turn::{Asked, Message, Place, Role, Turn, TurnFailure};
use crate::candidate::{Candidate, Way, command, http};
use crate::faults::Draw;
use crate::plan::{PlannedTrial, token};
use crate::tool_index::shorten;
use crate::trial_log::Entry;
use crate::trial_rows::{self, Ended};
use crate::world::active_trial::{Case, Settings, TrialWorld};
use crate::world::registry::Registry;

/// What every trial of a replay is played with.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) candidate: Candidate,
    pub(crate) lane: Lane,
    pub(crate) settings: Arc<Settings>,
    pub(crate) registry: Arc<Registry>,
    /// Address of the world, `http://host:port`.
    pub(crate) world: String,
    pub(crate) incarnation: IncarnationId,
    /// Exchanges that this start has numbered.
    pub(crate) exchanges: AtomicU64,
    pub(crate) keys: RootKey,
}

/// A trial that was played to its end.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) entry: Entry,
    pub(crate) duplicated_writes: u32,
    pub(crate) model_calls: u32,
}

/// Keeps a trial in the registry for as long as it is played, whatever ends it.
struct Entered<'a> {
    registry: &'a Registry,
    token: String,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.registry.leave(&self.token);
    }
}

fn place(stage: &Stage, token: String, seed: u64) -> Place {
    Place { base: format!("{}/t/{token}", stage.world), token, seed }
}

/// Plays a trial.
pub(crate) async fn play(stage: &Stage, case: Arc<Case>, planned: PlannedTrial) -> Finished {
    let token = token(&stage.incarnation, &planned.session);
    let place = place(stage, token.clone(), planned.seed);
    let world = Arc::new(TrialWorld::new(place, case.clone(), planned.trial, false, stage.settings.clone()));
    let started_at = stage.settings.clock.now_micros();
    stage.registry.enter(world.clone());
    let entered = Entered { registry: &stage.registry, token: token.clone() };
    let spoken = speak(stage, &world, &case.script.turns, stage.candidate.turn_timeout()).await;
    drop(entered);
    let played = world.close();
    let (duplicated_writes, model_calls) = (played.duplicated_writes, played.model_calls);
    let (ending, ending_detail) = match (&spoken.failure, &played.provider_lost) {
        (None, _) => (TrialEnding::Complete, None),
        (Some(failure), Some(lost)) => {
            (TrialEnding::Infrastructure, Some(format!("{}; the model provider at {lost}", failure.detail())))
        }
        (Some(TurnFailure::TimedOut(detail)), None) => (TrialEnding::TimedOut, Some(detail.clone())),
        (Some(TurnFailure::Failed(detail)), None) => (TrialEnding::Failed, Some(detail.clone())),
    };
    let count = played.exchanges.len() as u64;
    let whose = Draw { seed: stage.settings.run_seed, case: &planned.case, trial: planned.trial };
    let ended = Ended {
        planned: &planned,
        lane: stage.lane,
        build: stage.candidate.build(),
        token: &token,
        incarnation: &stage.incarnation,
        incarnation_seq: stage.exchanges.fetch_add(count, Ordering::Relaxed),
        started_at,
        closed_at: stage.settings.clock.now_micros(),
        ending,
        ending_detail,
        answer: spoken.answer,
        fault_plan: stage.settings.faults.plan(whose, case.script.observed.keys().map(String::as_str)),
    };
    let keys = stage.keys.tenant(&case.script.tenant);
    let entry = trial_rows::entry(&ended, &case.script, played, &keys);
    Finished { entry, duplicated_writes, model_calls }
}

/// Asks the first turn of a case once, without faults and delays; nothing of it is kept.
pub(crate) async fn probe(stage: &Stage, case: Arc<Case>, timeout: Duration) -> Result<(), String> {
    let token = crate::seed::digest("foreshadow 2026 probe v1", &[stage.incarnation.as_str().as_bytes()]);
    let token = blake3::Hash::from_bytes(token).to_hex().as_str()[..32].to_owned();
    let seed = crate::seed::trial_seed(stage.settings.run_seed, &case.script.case, 0);
    let world =
        TrialWorld::new(place(stage, token.clone(), seed), case.clone(), 0, true, stage.settings.clone());
    let world = Arc::new(world);
    stage.registry.enter(world.clone());
    let entered = Entered { registry: &stage.registry, token };
    let first = case.script.turns.get(..1).unwrap_or_default();
    let spoken = speak(stage, &world, first, timeout).await;
    drop(entered);
    let played = world.close();
    let Some(failure) = spoken.failure else { return Ok(()) };
    let lost = played.provider_lost.map(|lost| format!("; the model provider at {lost}")).unwrap_or_default();
    let (sent, got, status) = match played.exchanges.first() {
        Some(raw) => (&raw.request[..], &raw.response[..], raw.status),
        None => (&[][..], &[][..], None),
    };
    Err(probe_failure(failure.detail(), &lost, sent, got, status.is_some()))
}

/// What was wrong, what was sent and what came back, a line each; a body that the failure ends with is shown once.
fn probe_failure(detail: &str, lost: &str, sent: &[u8], got: &[u8], answered: bool) -> String {
    let shown = |bytes: &[u8]| match bytes {
        [] => "nothing".to_owned(),
        bytes => shorten(&String::from_utf8_lossy(bytes)),
    };
    let one_line = |text: &str| text.replace(|letter: char| letter.is_control(), " ");
    let (sent, got) = (shown(sent), shown(got));
    let detail = detail.strip_suffix(&format!(": {got}")).unwrap_or(detail);
    let head = if answered { "answered the probe with a failure" } else { "does not answer" };
    format!(
        "the candidate {head}: {}{lost}\n  sent: {}\n  got: {}",
        one_line(detail),
        one_line(&sent),
        one_line(&got)
    )
}

/// What came of a trial's turns.
struct Spoken {
    answer: Option<String>,
    failure: Option<TurnFailure>,
}

async fn speak(stage: &Stage, world: &TrialWorld, turns: &[String], timeout: Duration) -> Spoken {
    let mut history: Vec<Message> = Vec::new();
    let mut running = None;
    let mut spoken = Spoken { answer: None, failure: None };
    for (number, input) in turns.iter().enumerate() {
        let turn = Turn { input, number, history: &history, place: world.place() };
        let seq = open(world, input);
        let asked = match &stage.candidate.way {
            Way::Http(service) => {
                let propagate = stage.candidate.propagate.as_ref();
                http::ask(&stage.settings.client, service, propagate, &turn, timeout).await
            }
            Way::Command(program) => command::ask(program, &mut running, &turn, timeout).await,
        };
        note(world, seq, &asked);
        match asked.answer {
            Ok(answer) => {
                history.push(Message { role: Role::User, content: input.clone() });
                history.push(Message { role: Role::Assistant, content: answer.clone() });
                spoken.answer = Some(answer);
            }
            Err(failure) => {
                spoken.failure = Some(failure);
                break;
            }
        }
    }
    command::stop(running).await;
    spoken
}

/// Gives the turn its number before the calls that it causes get theirs.
fn open(world: &TrialWorld, input: &str) -> Option<usize> {
    let mut operation = Operation::new(OperationKind::Turn);
    operation.input = Some(input.to_owned());
    let raw = world.raw(Edge::Turn, Protocol::Opaque, operation, bytes::Bytes::new());
    world.state().map(|mut state| state.open(raw))
}

fn note(world: &TrialWorld, seq: Option<usize>, asked: &Asked) {
    let Some(seq) = seq else { return };
    world.finish(seq, |raw| {
        raw.protocol = asked.protocol;
        raw.http.clone_from(&asked.http);
        raw.request = asked.request.clone();
        raw.response = asked.response.clone();
        raw.status = asked.status;
        raw.first_byte = asked.first_byte;
        raw.duration = Some(asked.duration);
        match &asked.answer {
            Ok(answer) => raw.operation.output = Some(answer.clone()),
            Err(failure) => {
                // A whole answer that says no is complete; what broke off after its head is cut.
                raw.ending = Some(match (failure, asked.status) {
                    (TurnFailure::Failed(_), Some(_)) => Ending::Complete,
                    (TurnFailure::TimedOut(_), Some(_)) => Ending::Truncated,
                    (TurnFailure::Failed(_) | TurnFailure::TimedOut(_), None) => Ending::Failed,
                });
                raw.ending_detail = Some(failure.detail().to_owned());
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_probe_shows_the_body_once() {
        let text = probe_failure("HTTP status 500 from http://a/: oh\nno", "", b"{}", b"oh\nno", true);
        assert_eq!(
            text,
            "the candidate answered the probe with a failure: HTTP status 500 from http://a/\n  sent: {}\n  got: oh no"
        );
        let text = probe_failure("no answer from http://a/ within 60ms", "", b"{}", b"", false);
        assert!(text.starts_with("the candidate does not answer: no answer from"), "{text}");
        assert!(text.ends_with("\n  got: nothing"), "{text}");
    }
}
