//! What happens in one round: which process is hit, how, and when.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::Rng as _;

/// The process that is hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Victim {
    /// Tap, journal and publisher.
    Recorder,
    /// One of the two archivers.
    Archiver,
    /// A broker, by its number.
    Broker(i32),
}

/// What is done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blow {
    /// `kill -9`, and started again after this long.
    Kill(Duration),
    /// Paused for this long.
    Pause(Duration),
}

/// When.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// After so many answers since the round began.
    Answers(u64),
    /// So long after the process was started.
    Started(Duration),
    /// When the publisher has noted so often how far its messages are acknowledged.
    Acknowledged(u64),
    /// When so many data files have appeared in the store: most of the time before their commit.
    Files(u64),
    /// When so many commits have appeared, claims included.
    Commits(u64),
}

/// One round.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) victim: Victim,
    pub(super) blow: Blow,
    pub(super) moment: Moment,
    /// Answers between the blow's end and the end of the round.
    pub(super) after: u64,
    /// Whether a message is put into the topic that cannot be read.
    pub(super) poison: bool,
}

/// A number from `low` to `high`, both included.
fn draw(random: &mut ChaCha8Rng, low: u64, high: u64) -> u64 {
    low + random.next_u64() % (high - low + 1)
}

fn millis(random: &mut ChaCha8Rng, low: u64, high: u64) -> Duration {
    Duration::from_millis(draw(random, low, high))
}

impl Plan {
    pub(super) fn draw(random: &mut ChaCha8Rng, is_real: bool, brokers: usize) -> Self {
        let victim = match draw(random, 0, 99) {
            0..40 => Victim::Recorder,
            40..80 => Victim::Archiver,
            _ => Victim::Broker(i32::try_from(draw(random, 1, brokers as u64)).unwrap_or(1)),
        };
        let pauses = draw(random, 0, 99) < 20;
        let blow = match victim {
            // Longer than the group waits for it, so that its partitions move meanwhile.
            Victim::Archiver if pauses => Blow::Pause(millis(random, 500, 6_000)),
            Victim::Recorder | Victim::Broker(_) if pauses => Blow::Pause(millis(random, 100, 2_000)),
            Victim::Recorder | Victim::Archiver | Victim::Broker(_) => Blow::Kill(millis(random, 0, 1_500)),
        };
        let kind = draw(random, 0, 2);
        let moment = match (victim, kind) {
            (Victim::Recorder, 0) => Moment::Started(millis(random, 0, 800)),
            (Victim::Recorder, 1) => Moment::Acknowledged(draw(random, 1, 20)),
            (Victim::Archiver, 0) => Moment::Started(millis(random, 0, 3_000)),
            (Victim::Archiver, 1) => Moment::Files(draw(random, 1, 30)),
            (Victim::Archiver, _) => Moment::Commits(draw(random, 1, 20)),
            // The mock forgets nothing when it goes away, so one kind of moment is as good as another.
            (Victim::Recorder | Victim::Broker(_), _) => Moment::Answers(draw(random, 1, 200)),
        };
        let after = draw(random, 20, 150);
        let poison = draw(random, 0, 3) == 0 && is_real;
        Self { victim, blow, moment, after, poison }
    }

    /// The kind of fault, for counts.
    pub(super) fn kind(&self) -> &'static str {
        match (self.victim, self.blow) {
            (Victim::Recorder, Blow::Kill(_)) => "recorder killed",
            (Victim::Recorder, Blow::Pause(_)) => "recorder paused",
            (Victim::Archiver, Blow::Kill(_)) => "archiver killed",
            (Victim::Archiver, Blow::Pause(_)) => "archiver paused",
            (Victim::Broker(_), Blow::Kill(_)) => "broker killed",
            (Victim::Broker(_), Blow::Pause(_)) => "broker paused",
        }
    }

    /// The whole fault.
    pub(super) fn describe(&self) -> String {
        let long = match self.blow {
            Blow::Kill(time) => format!("started again after {} ms", time.as_millis()),
            Blow::Pause(time) => format!("for {} ms", time.as_millis()),
        };
        format!("{} at {:?}, {long}{}", self.kind(), self.moment, if self.poison { ", poison" } else { "" })
    }
}
