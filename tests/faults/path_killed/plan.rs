//! Draws one fault: its target, its kind and its trigger.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::Rng as _;

/// The process that the fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// Tap, journal and publisher.
    Recorder,
    /// One of the two archivers.
    Archiver,
    /// The broker with this number, from 1.
    Broker(i32),
}

/// The kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// `kill -9`, and a restart after this long.
    Kill(Duration),
    /// SIGSTOP, and SIGCONT after this long.
    Pause(Duration),
}

/// The event that injects the fault. A round whose trigger does not fire fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trigger {
    /// The clients received this many answers since the round began.
    Answers(u64),
    /// This much time passed since the process started.
    Started(Duration),
    /// The publisher wrote its checkpoint this often.
    Checkpoints(u64),
    /// The topic holds at least this many messages that came after the latest checkpoint. A recorder that is killed now
    /// publishes them twice.
    PastCheckpoint(u64),
    /// This many data files appeared in the store: most of the time before their commit.
    Files(u64),
    /// This many commits appeared, claims included.
    Commits(u64),
}

impl Trigger {
    /// The name of its kind, for counts.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Answers(_) => "answers",
            Self::Started(_) => "started",
            Self::Checkpoints(_) => "checkpoints",
            Self::PastCheckpoint(_) => "past-checkpoint",
            Self::Files(_) => "files",
            Self::Commits(_) => "commits",
        }
    }
}

/// One round.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) target: Target,
    pub(super) fault: Fault,
    pub(super) trigger: Trigger,
    /// Answers between the end of the fault and the end of the round.
    pub(super) answers_after: u64,
    /// Whether the round sends a message that no archiver can decode.
    pub(super) sends_undecodable: bool,
}

/// Draws a number from `low` to `high`, both included.
fn draw(random: &mut ChaCha8Rng, low: u64, high: u64) -> u64 {
    low + random.next_u64() % (high - low + 1)
}

fn draw_millis(random: &mut ChaCha8Rng, low: u64, high: u64) -> Duration {
    Duration::from_millis(draw(random, low, high))
}

impl Plan {
    pub(super) fn draw(random: &mut ChaCha8Rng, is_real: bool, brokers: usize) -> Self {
        let target = match draw(random, 0, 99) {
            0..40 => Target::Recorder,
            40..80 => Target::Archiver,
            _ => Target::Broker(i32::try_from(draw(random, 1, brokers as u64)).unwrap_or(1)),
        };
        let pauses = draw(random, 0, 99) < 20;
        let fault = match target {
            // Longer than the consumer group waits for the archiver, so that its partitions move meanwhile.
            Target::Archiver if pauses => Fault::Pause(draw_millis(random, 500, 6_000)),
            Target::Recorder | Target::Broker(_) if pauses => Fault::Pause(draw_millis(random, 100, 2_000)),
            Target::Recorder | Target::Archiver | Target::Broker(_) => {
                Fault::Kill(draw_millis(random, 0, 1_500))
            }
        };
        let trigger = match (target, draw(random, 0, 3)) {
            (Target::Recorder, 0) => Trigger::Started(draw_millis(random, 0, 800)),
            (Target::Recorder, 1) => Trigger::Checkpoints(draw(random, 1, 5)),
            (Target::Recorder, 2) => Trigger::PastCheckpoint(draw(random, 1, 20)),
            (Target::Archiver, 0) => Trigger::Started(draw_millis(random, 0, 3_000)),
            (Target::Archiver, 1) => Trigger::Files(draw(random, 1, 30)),
            (Target::Archiver, _) => Trigger::Commits(draw(random, 1, 20)),
            // A broker has no progress of its own that the test could watch.
            (Target::Recorder | Target::Broker(_), _) => Trigger::Answers(draw(random, 1, 200)),
        };
        let answers_after = draw(random, 20, 150);
        let sends_undecodable = draw(random, 0, 3) == 0 && is_real;
        Self { target, fault, trigger, answers_after, sends_undecodable }
    }

    /// The name of target and fault, for counts.
    pub(super) fn name(&self) -> &'static str {
        match (self.target, self.fault) {
            (Target::Recorder, Fault::Kill(_)) => "recorder killed",
            (Target::Recorder, Fault::Pause(_)) => "recorder paused",
            (Target::Archiver, Fault::Kill(_)) => "archiver killed",
            (Target::Archiver, Fault::Pause(_)) => "archiver paused",
            (Target::Broker(_), Fault::Kill(_)) => "broker killed",
            (Target::Broker(_), Fault::Pause(_)) => "broker paused",
        }
    }

    /// Whether the fault makes the recorder publish messages twice.
    pub(super) fn must_publish_twice(&self) -> bool {
        matches!((self.fault, self.trigger), (Fault::Kill(_), Trigger::PastCheckpoint(_)))
    }

    /// Target, fault, trigger and duration.
    pub(super) fn describe(&self) -> String {
        let duration = match self.fault {
            Fault::Kill(time) => format!("restarted after {} ms", time.as_millis()),
            Fault::Pause(time) => format!("for {} ms", time.as_millis()),
        };
        let undecodable = if self.sends_undecodable { ", one undecodable message" } else { "" };
        format!("{} at {:?}, {duration}{undecodable}", self.name(), self.trigger)
    }
}
