//! The buffer against a model of journals, broker and restarts: every record is committed exactly once.

use codec::{MessageValue, write_framed};
use proptest::prelude::*;

use super::*;
use crate::journal::reader::tests::close;

/// The Kafka messages of a record, in `parts` parts.
fn messages(journal: &str, position: u64, parts: u32) -> Vec<Vec<u8>> {
    let mut content = Vec::new();
    write_framed(&mut content, &close(&format!("{journal}-{position}"))).expect("is short");
    let spans: Vec<&[u8]> = content.chunks(content.len().div_ceil(parts as usize)).collect();
    let count = u32::try_from(spans.len()).expect("fits");
    let message = |(part, span): (u32, &&[u8])| MessageValue {
        journal: journal.to_owned(),
        position,
        part,
        parts: count,
        content: span.to_vec(),
    };
    (0..count).zip(&spans).map(message).map(|message| message.encode().expect("encodes")).collect()
}

/// The log of a partition, and an archiver that reads it, commits and restarts.
struct Model {
    log: Vec<Vec<u8>>,
    buffer: PartitionBuffer,
    read: usize,
    position: u64,
    journals: BTreeMap<String, u64>,
    committed: Vec<String>,
    now: Instant,
}

impl Model {
    fn new() -> Self {
        let (journals, now) = (BTreeMap::new(), Instant::now());
        let buffer = PartitionBuffer::new(0, &journals);
        Self { log: vec![], buffer, read: 0, position: 0, journals, committed: vec![], now }
    }

    fn read(&mut self, messages: usize) -> Option<PushOutcome> {
        let mut last = None;
        for _ in 0..messages {
            let Some(payload) = self.log.get(self.read) else { break };
            last = Some(self.buffer.push(self.read as u64, b"key", payload, self.now));
            self.read += 1;
        }
        last
    }

    fn commit(&mut self) {
        if self.buffer.is_dirty() {
            let request = self.buffer.take_commit();
            assert!(request.next >= self.position && request.next <= self.read as u64);
            self.committed.extend(request.batch.closes.iter().map(|close| close.session.to_string()));
            self.position = request.next;
            self.journals = request.journals;
        }
    }

    fn restart(&mut self) {
        self.buffer = PartitionBuffer::new(self.position, &self.journals);
        self.read = usize::try_from(self.position).expect("small");
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// A journal sends its next record.
    Send {
        journal: usize,
        parts: u32,
    },
    /// A recorder is killed after the first `sent` parts of a record and resumes `back` records before it.
    Interrupt {
        journal: usize,
        parts: u32,
        sent: usize,
        back: u64,
    },
    /// A message that is no record.
    Garbage,
    Read(usize),
    Commit,
    /// The dead-letter topic acknowledges all dead letters.
    AckDeadLetters,
    /// The archiver is killed and resumes from its last commit.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..3usize, 1..5u32).prop_map(|(journal, parts)| Step::Send { journal, parts }),
        2 => (0..3usize, 2..5u32, 1..4usize, 0..3u64)
            .prop_map(|(journal, parts, sent, back)| Step::Interrupt { journal, parts, sent, back }),
        1 => Just(Step::Garbage),
        6 => (1..6usize).prop_map(Step::Read),
        4 => Just(Step::Commit),
        1 => Just(Step::AckDeadLetters),
        2 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..80)
}

proptest! {
    #[test]
    fn each_record_is_committed_once(steps in steps()) {
        let mut model = Model::new();
        // By journal: the next position, and the highest one.
        let mut next = [0_u64; 3];
        let mut highest = [0_u64; 3];
        for step in &steps {
            match step {
                Step::Send { journal, parts } => {
                    model.log.extend(messages(&format!("j{journal}"), next[*journal], *parts));
                    next[*journal] += 1;
                    highest[*journal] = highest[*journal].max(next[*journal]);
                }
                Step::Interrupt { journal, parts, sent, back } => {
                    let messages = messages(&format!("j{journal}"), next[*journal], *parts);
                    let some = messages.len().saturating_sub(1).min(*sent);
                    model.log.extend_from_slice(&messages[..some]);
                    next[*journal] = next[*journal].saturating_sub(*back);
                }
                Step::Garbage => model.log.push(vec![7, 7, 7]),
                Step::Read(messages) => { model.read(*messages); }
                Step::Commit => model.commit(),
                Step::AckDeadLetters => {
                    for letter in model.buffer.take_dead_letters() {
                        model.buffer.ack_dead_letter(letter.offset, Instant::now());
                    }
                }
                Step::Restart => model.restart(),
            }
        }
        // Every journal ends by sending its last records in full.
        for (journal, (next, highest)) in next.iter().zip(&highest).enumerate() {
            for position in *next..=*highest {
                model.log.extend(messages(&format!("j{journal}"), position, 2));
            }
        }
        model.read(usize::MAX);
        for letter in model.buffer.take_dead_letters() {
            model.buffer.ack_dead_letter(letter.offset, Instant::now());
        }
        model.commit();
        let mut expected: Vec<String> = (highest.iter().enumerate())
            .flat_map(|(journal, highest)| (0..=*highest).map(move |position| format!("j{journal}-{position}")))
            .collect();
        expected.sort();
        model.committed.sort();
        prop_assert_eq!(model.committed, expected);
        prop_assert_eq!(model.position, model.log.len() as u64, "the whole log is committed");
    }
}

#[test]
fn a_commit_stays_before_an_incomplete_message_but_stores_later_records() {
    let mut model = Model::new();
    let parts = messages("a", 0, 3);
    model.log.push(parts[0].clone());
    model.log.extend(messages("b", 0, 1));
    model.log.push(parts[1].clone());
    model.read(3);
    model.commit();
    assert_eq!((model.position, model.committed.as_slice()), (0, ["b-0".to_owned()].as_slice()));
    assert_eq!(model.buffer.waiting_parts(), 2);
    model.restart();
    model.log.push(parts[2].clone());
    model.read(1);
    assert_eq!(model.read(1), Some(PushOutcome::Redelivered));
    model.read(2);
    model.commit();
    assert_eq!((model.position, model.committed.len()), (4, 2));
}

#[test]
fn a_commit_stays_before_a_dead_letter_until_its_topic_acknowledges_it() {
    let mut model = Model::new();
    model.log.extend(messages("a", 0, 1));
    model.log.push(vec![9, 1, 2]);
    model.log.push(vec![]);
    model.log.extend(messages("a", 1, 1));
    model.read(4);
    model.commit();
    assert_eq!((model.position, model.committed.len()), (1, 2));
    let letters = model.buffer.take_dead_letters();
    let reasons: Vec<&str> = letters.iter().map(|letter| letter.reason.as_str()).collect();
    assert!(reasons[0].contains("version 9") && reasons[1].contains("no bytes"), "{reasons:?}");
    assert_eq!((letters[0].payload.as_slice(), letters[0].key.as_slice()), (&[9, 1, 2][..], &b"key"[..]));
    assert_eq!(model.buffer.oldest(), None, "no message arrived since the commit");
    model.buffer.ack_dead_letter(1, Instant::now());
    assert!(
        model.buffer.oldest().is_some(),
        "the raised offset must be committed although no message arrives"
    );
    model.commit();
    assert_eq!(model.position, 2);
    model.buffer.ack_dead_letter(2, Instant::now());
    model.commit();
    assert_eq!(model.position, 4);
}

#[test]
fn parts_become_dead_letters_after_the_timeout_and_are_accepted_when_sent_again() {
    let mut model = Model::new();
    let parts = messages("a", 0, 3);
    model.log.extend_from_slice(&parts[..2]);
    model.read(2);
    model.buffer.expire_parts(model.now + PART_TIMEOUT / 2);
    assert!(!model.buffer.has_pending_dead_letters());
    model.buffer.expire_parts(model.now + PART_TIMEOUT);
    assert_eq!(model.buffer.take_dead_letters().len(), 2);
    model.buffer.ack_dead_letter(0, Instant::now());
    model.buffer.ack_dead_letter(1, Instant::now());
    model.log.extend_from_slice(&parts);
    model.read(3);
    model.commit();
    assert_eq!((model.position, model.committed.as_slice()), (5, ["a-0".to_owned()].as_slice()));
}

#[test]
fn the_journals_not_seen_for_longest_are_forgotten_over_the_bound() {
    let journals = (0..=MAX_JOURNALS as u64).map(|n| (format!("old-{n:05}"), 5)).collect();
    let mut buffer = PartitionBuffer::new(10, &journals);
    let now = Instant::now();
    assert_eq!(buffer.push(10, b"", &messages("old-00000", 4, 1)[0], now), PushOutcome::Redelivered);
    assert_eq!(buffer.push(11, b"", &messages("old-00000", 5, 1)[0], now), PushOutcome::Buffered);
    let request = buffer.take_commit();
    assert_eq!(request.journals.len(), MAX_JOURNALS);
    assert_eq!(request.journals.get("old-00000"), Some(&6), "seen last, so kept");
    assert!(!request.journals.contains_key("old-00001"), "not seen, so forgotten in the order of names");
}
