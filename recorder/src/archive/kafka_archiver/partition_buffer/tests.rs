//! Gathering against a plain model: whatever is sent again, split, broken off or restarted, each record is committed once.

use codec::{MessageValue, write_framed};
use proptest::prelude::*;

use super::*;
use crate::journal::reader::tests::close;

/// The messages of the record at a position of a journal, in so many parts.
fn parcels(journal: &str, position: u64, parts: u32) -> Vec<Vec<u8>> {
    let mut content = Vec::new();
    write_framed(&mut content, &close(&format!("{journal}-{position}")));
    let spans: Vec<&[u8]> = content.chunks(content.len().div_ceil(parts as usize)).collect();
    let count = u32::try_from(spans.len()).expect("few");
    let parcel = |(part, span): (u32, &&[u8])| MessageValue {
        journal: journal.to_owned(),
        position,
        part,
        parts: count,
        content: span.to_vec(),
    };
    (0..count).zip(&spans).map(parcel).map(|parcel| parcel.encode().expect("encodes")).collect()
}

/// A partition's log, and an archiver that reads it, commits and is killed.
struct Run {
    log: Vec<Vec<u8>>,
    gathering: Gathering,
    read: usize,
    position: u64,
    journals: BTreeMap<String, u64>,
    committed: Vec<String>,
    now: Instant,
}

impl Run {
    fn new() -> Self {
        let (journals, now) = (BTreeMap::new(), Instant::now());
        let gathering = Gathering::new(0, &journals);
        Self { log: vec![], gathering, read: 0, position: 0, journals, committed: vec![], now }
    }

    fn read(&mut self, messages: usize) -> Option<Taken> {
        let mut last = None;
        for _ in 0..messages {
            let Some(payload) = self.log.get(self.read) else { break };
            last = Some(self.gathering.push(self.read as u64, b"key", payload, self.now));
            self.read += 1;
        }
        last
    }

    fn commit(&mut self) {
        if self.gathering.has_news() {
            let ready = self.gathering.take();
            assert!(ready.next >= self.position && ready.next <= self.read as u64);
            self.committed.extend(ready.batch.closes.iter().map(|close| close.session.to_string()));
            self.position = ready.next;
            self.journals = ready.journals;
        }
    }

    fn restart(&mut self) {
        self.gathering = Gathering::new(self.position, &self.journals);
        self.read = usize::try_from(self.position).expect("small");
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// A journal sends its next record in so many parts.
    Send {
        journal: usize,
        parts: u32,
    },
    /// A journal sends the first parts of its next record and is killed; it begins again so many records before.
    BreakOff {
        journal: usize,
        parts: u32,
        sent: usize,
        back: u64,
    },
    /// Somebody sends what nobody can read.
    Garbage,
    Read(usize),
    Commit,
    /// The dead letters lie in their topic.
    Confirm,
    /// The archiver is killed and goes on from its last commit.
    Kill,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..3usize, 1..5u32).prop_map(|(journal, parts)| Step::Send { journal, parts }),
        2 => (0..3usize, 2..5u32, 1..4usize, 0..3u64)
            .prop_map(|(journal, parts, sent, back)| Step::BreakOff { journal, parts, sent, back }),
        1 => Just(Step::Garbage),
        6 => (1..6usize).prop_map(Step::Read),
        4 => Just(Step::Commit),
        1 => Just(Step::Confirm),
        2 => Just(Step::Kill),
    ];
    proptest::collection::vec(step, 1..80)
}

proptest! {
    #[test]
    fn each_record_is_committed_once(steps in steps()) {
        let mut run = Run::new();
        // Of each journal: the next position, and how many parts each record had when it was sent first.
        let mut next = [0_u64; 3];
        let mut highest = [0_u64; 3];
        for step in &steps {
            match step {
                Step::Send { journal, parts } => {
                    run.log.extend(parcels(&format!("j{journal}"), next[*journal], *parts));
                    next[*journal] += 1;
                    highest[*journal] = highest[*journal].max(next[*journal]);
                }
                Step::BreakOff { journal, parts, sent, back } => {
                    let messages = parcels(&format!("j{journal}"), next[*journal], *parts);
                    let some = messages.len().saturating_sub(1).min(*sent);
                    run.log.extend_from_slice(&messages[..some]);
                    next[*journal] = next[*journal].saturating_sub(*back);
                }
                Step::Garbage => run.log.push(vec![7, 7, 7]),
                Step::Read(messages) => { run.read(*messages); }
                Step::Commit => run.commit(),
                Step::Confirm => {
                    for letter in run.gathering.buried() {
                        run.gathering.confirm_buried(letter.offset);
                    }
                }
                Step::Kill => run.restart(),
            }
        }
        // Each journal ends in order: what was broken off is sent once more, whole.
        for (journal, (next, highest)) in next.iter().zip(&highest).enumerate() {
            for position in *next..=*highest {
                run.log.extend(parcels(&format!("j{journal}"), position, 2));
            }
        }
        run.read(usize::MAX);
        for letter in run.gathering.buried() {
            run.gathering.confirm_buried(letter.offset);
        }
        run.commit();
        let mut expected: Vec<String> = (highest.iter().enumerate())
            .flat_map(|(journal, highest)| (0..=*highest).map(move |position| format!("j{journal}-{position}")))
            .collect();
        expected.sort();
        run.committed.sort();
        prop_assert_eq!(run.committed, expected);
        prop_assert_eq!(run.position, run.log.len() as u64, "nothing holds the end back");
    }
}

#[test]
fn the_cut_is_before_an_unfinished_record_and_what_is_behind_is_stored_all_the_same() {
    let mut run = Run::new();
    let split = parcels("a", 0, 3);
    run.log.push(split[0].clone());
    run.log.extend(parcels("b", 0, 1));
    run.log.push(split[1].clone());
    run.read(3);
    run.commit();
    assert_eq!((run.position, run.committed.as_slice()), (0, ["b-0".to_owned()].as_slice()));
    assert_eq!(run.gathering.waiting_parts(), 2);
    run.restart();
    run.log.push(split[2].clone());
    run.read(1);
    assert_eq!(run.read(1), Some(Taken::Redelivered));
    run.read(2);
    run.commit();
    assert_eq!((run.position, run.committed.len()), (4, 2));
}

#[test]
fn a_dead_letter_holds_the_cut_until_it_lies_in_its_topic() {
    let mut run = Run::new();
    run.log.extend(parcels("a", 0, 1));
    run.log.push(vec![9, 1, 2]);
    run.log.push(vec![]);
    run.log.extend(parcels("a", 1, 1));
    run.read(4);
    run.commit();
    assert_eq!((run.position, run.committed.len()), (1, 2));
    let letters = run.gathering.buried();
    let reasons: Vec<&str> = letters.iter().map(|letter| letter.reason.as_str()).collect();
    assert!(reasons[0].contains("version 9") && reasons[1].contains("empty"), "{reasons:?}");
    assert_eq!((letters[0].payload.as_slice(), letters[0].key.as_slice()), (&[9, 1, 2][..], &b"key"[..]));
    run.gathering.confirm_buried(1);
    run.commit();
    assert_eq!(run.position, 2);
    run.gathering.confirm_buried(2);
    run.commit();
    assert_eq!(run.position, 4);
}

#[test]
fn parts_that_never_become_whole_are_given_up_and_taken_when_they_come_again() {
    let mut run = Run::new();
    let split = parcels("a", 0, 3);
    run.log.extend_from_slice(&split[..2]);
    run.read(2);
    run.gathering.expire(run.now + SPLIT_PATIENCE / 2);
    assert!(!run.gathering.awaits_burial());
    run.gathering.expire(run.now + SPLIT_PATIENCE);
    assert_eq!(run.gathering.buried().len(), 2);
    run.gathering.confirm_buried(0);
    run.gathering.confirm_buried(1);
    run.log.extend_from_slice(&split);
    run.read(3);
    run.commit();
    assert_eq!((run.position, run.committed.as_slice()), (5, ["a-0".to_owned()].as_slice()));
}

#[test]
fn journals_longest_unseen_are_forgotten_over_the_bound() {
    let journals = (0..=MAX_JOURNALS as u64).map(|n| (format!("old-{n:05}"), 5)).collect();
    let mut gathering = Gathering::new(10, &journals);
    let now = Instant::now();
    assert_eq!(gathering.push(10, b"", &parcels("old-00000", 4, 1)[0], now), Taken::Redelivered);
    assert_eq!(gathering.push(11, b"", &parcels("old-00000", 5, 1)[0], now), Taken::Gathered);
    let ready = gathering.take();
    assert_eq!(ready.journals.len(), MAX_JOURNALS);
    assert_eq!(ready.journals.get("old-00000"), Some(&6), "seen last");
    assert!(!ready.journals.contains_key("old-00001"), "the longest unseen, by name where none was seen");
}
