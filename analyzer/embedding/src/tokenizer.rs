//! WordPiece tokenizer of BERT uncased: removes control characters, separates Chinese characters, strips accents, lowers
//! case, splits at white space and punctuation, and splits each word greedily into the longest pieces of the vocabulary.
//!
//! It agrees with the model's own tokenizer for every Unicode character; `reference/make_sample` and the tests compare
//! them. It does not truncate and does not add `[CLS]` and `[SEP]`.

use std::collections::HashMap;

use unicode_categories::UnicodeCategories;
use unicode_normalization::UnicodeNormalization;

use crate::weights::VOCABULARY;

/// Word piece `[UNK]`, for a word without pieces in the vocabulary.
const UNKNOWN: u16 = 100;

/// Longest word, characters; a longer one becomes [`UNKNOWN`].
const MAX_WORD_CHARS: usize = 100;

/// Special pieces that a text can name.
const SPECIAL: [(&str, u16); 5] =
    [("[PAD]", 0), ("[UNK]", UNKNOWN), ("[CLS]", 101), ("[SEP]", 102), ("[MASK]", 103)];

/// Unicode blocks of Chinese characters; each character is a word.
const CHINESE: [(char, char); 8] = [
    ('\u{4E00}', '\u{9FFF}'),
    ('\u{3400}', '\u{4DBF}'),
    ('\u{20000}', '\u{2A6DF}'),
    ('\u{2A700}', '\u{2B73F}'),
    ('\u{2B740}', '\u{2B81F}'),
    ('\u{2B920}', '\u{2CEAF}'),
    ('\u{F900}', '\u{FAFF}'),
    ('\u{2F800}', '\u{2FA1F}'),
];

static VOCABULARY_FILE: &str = include_str!("../weights/vocab.txt");

/// The vocabulary by text.
#[derive(Debug)]
pub(crate) struct Tokenizer {
    /// Pieces at the start of a word.
    first: HashMap<&'static str, u16>,
    /// Pieces inside a word, without their `##`.
    next: HashMap<&'static str, u16>,
    /// Length of the longest piece, bytes.
    longest: usize,
}

impl Tokenizer {
    /// Loads the compiled-in vocabulary.
    pub(crate) fn compiled_in() -> Self {
        let mut made = Self { first: HashMap::with_capacity(VOCABULARY), next: HashMap::new(), longest: 0 };
        for (number, piece) in (0..).zip(VOCABULARY_FILE.lines()) {
            made.longest = made.longest.max(piece.len());
            match piece.strip_prefix("##") {
                Some(rest) if !rest.is_empty() => made.next.insert(rest, number),
                _ => made.first.insert(piece, number),
            };
        }
        assert_eq!(
            made.first.len() + made.next.len(),
            VOCABULARY,
            "the pieces of the vocabulary are distinct"
        );
        made
    }

    /// The word pieces of a text: none for an empty text, at most about one per character.
    pub(crate) fn pieces(&self, text: &str) -> Vec<u16> {
        let mut pieces = Vec::with_capacity(text.len() / 3);
        let mut rest = text;
        while let Some((at, name, piece)) = next_special(rest) {
            self.plain(&rest[..at], &mut pieces);
            pieces.push(piece);
            rest = &rest[at + name.len()..];
        }
        self.plain(rest, &mut pieces);
        pieces
    }

    /// The word pieces of a text without special pieces.
    fn plain(&self, text: &str, pieces: &mut Vec<u16>) {
        let mut word = String::new();
        for char in normalised(text) {
            if char.is_whitespace() {
                self.word(&word, pieces);
                word.clear();
            } else if is_punctuation(char) {
                self.word(&word, pieces);
                word.clear();
                self.word(char.encode_utf8(&mut [0; 4]), pieces);
            } else {
                word.push(char);
            }
        }
        self.word(&word, pieces);
    }

    /// Splits a word greedily into the longest pieces; an empty word has none.
    fn word(&self, word: &str, pieces: &mut Vec<u16>) {
        if word.len() > MAX_WORD_CHARS && word.chars().count() > MAX_WORD_CHARS {
            return pieces.push(UNKNOWN);
        }
        let before = pieces.len();
        let mut rest = word;
        while !rest.is_empty() {
            let known = if rest.len() == word.len() { &self.first } else { &self.next };
            let ends = (1..=rest.len().min(self.longest)).rev().filter(|end| rest.is_char_boundary(*end));
            let found =
                ends.map(|end| (end, known.get(&rest[..end]))).find_map(|(end, piece)| Some((end, *piece?)));
            let Some((end, piece)) = found else {
                pieces.truncate(before);
                return pieces.push(UNKNOWN);
            };
            pieces.push(piece);
            rest = &rest[end..];
        }
    }
}

/// The first special piece named in a text: byte offset, name, number.
fn next_special(text: &str) -> Option<(usize, &'static str, u16)> {
    for (at, _) in text.match_indices('[') {
        for (name, piece) in SPECIAL {
            if text[at..].starts_with(name) {
                return Some((at, name, piece));
            }
        }
    }
    None
}

/// The normalised characters: no control characters and accents, spaces around Chinese characters, lower case.
fn normalised(text: &str) -> impl Iterator<Item = char> {
    let kept = text.chars().filter(|char| !is_dropped(*char));
    let separated = kept.flat_map(|char| {
        let space = is_chinese(char).then_some(' ');
        space.into_iter().chain([char]).chain(space)
    });
    separated.nfd().filter(|char| !is_accent(*char)).flat_map(char::to_lowercase)
}

fn is_chinese(char: char) -> bool {
    CHINESE.iter().any(|(first, last)| (*first..=*last).contains(&char))
}

/// Control, format and private-use characters, and the replacement character.
fn is_dropped(char: char) -> bool {
    match char {
        '\t' | '\n' | '\r' => false,
        '\u{FFFD}' => true,
        _ if char.is_ascii() => char.is_ascii_control(),
        _ => char.is_other(),
    }
}

fn is_accent(char: char) -> bool {
    !char.is_ascii() && char.is_mark_nonspacing()
}

fn is_punctuation(char: char) -> bool {
    if char.is_ascii() { char.is_ascii_punctuation() } else { char.is_punctuation() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;
    use sha2::{Digest, Sha256};

    use super::*;

    /// SHA-256 of the reference tokenizer's pieces for every character, printed by `reference/make_sample`.
    const EVERY_CHARACTER: &str = "414b821a9e6b0564fb8e123831bd864df2d22c6f0bfb7217d1ae104b7c044734";

    #[derive(Deserialize)]
    struct Sample {
        text: String,
        ids: Vec<u16>,
    }

    #[test]
    fn the_sample_is_tokenized_like_the_reference() {
        let tokenizer = Tokenizer::compiled_in();
        let lines = include_str!("../reference/sample.jsonl").lines();
        let samples: Vec<Sample> =
            lines.map(|line| serde_json::from_str(line).expect("a line is a sample")).collect();
        assert_eq!(samples.len(), 200);
        for sample in samples {
            assert_eq!(tokenizer.pieces(&sample.text), sample.ids, "{:?}", sample.text);
        }
    }

    #[test]
    fn every_character_is_tokenized_like_the_reference() {
        let tokenizer = Tokenizer::compiled_in();
        let mut digest = Sha256::new();
        for char in '\0'..=char::MAX {
            for piece in tokenizer.pieces(&format!("a{char}b {char}")).into_iter().chain([u16::MAX]) {
                digest.update(piece.to_le_bytes());
            }
        }
        let digest: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest, EVERY_CHARACTER);
    }

    #[test]
    fn texts_of_a_million_bytes_are_tokenized() {
        let tokenizer = Tokenizer::compiled_in();
        let count = |unit: &str| tokenizer.pieces(&unit.repeat(1_000_000 / unit.len())).len();
        assert_eq!(
            (count("x"), count("e\u{301}"), count("a\u{301}\u{327}")),
            (1, 1, 1),
            "a word of more than 100 characters is unknown"
        );
        assert_eq!((count(" "), count("\0"), count("\u{301}"), count("\u{200b}\n")), (0, 0, 0, 0));
        assert_eq!(
            (count("["), count("[CLS"), count("[CLS]"), count("ok ")),
            (1_000_000, 750_000, 200_000, 333_333)
        );
        assert_eq!(count("\u{4e0d}"), 333_333);
        let marks = format!("a{}b", "\u{301}\u{327}".repeat(250_000));
        assert_eq!(tokenizer.pieces(&marks), tokenizer.pieces("ab"));
    }

    proptest! {
        #[test]
        fn pieces_are_in_the_vocabulary_and_at_most_as_many_as_characters(text in any::<String>()) {
            let pieces = Tokenizer::compiled_in().pieces(&text);
            prop_assert!(pieces.iter().all(|piece| usize::from(*piece) < VOCABULARY));
            prop_assert!(pieces.len() <= text.nfd().flat_map(char::to_lowercase).count());
        }

        #[test]
        fn each_word_is_tokenized_by_itself(words in prop::collection::vec("[^\\[\\p{M}]{0,120}", 0..8)) {
            let tokenizer = Tokenizer::compiled_in();
            let each: Vec<u16> = words.iter().flat_map(|word| tokenizer.pieces(word)).collect();
            prop_assert_eq!(tokenizer.pieces(&words.join(" ")), each.clone());
            prop_assert_eq!(tokenizer.pieces(&format!("\n{}\t", words.join("\u{3000}\r\n"))), each);
        }
    }
}
