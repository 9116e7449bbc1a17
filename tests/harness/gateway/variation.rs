//! Ids and digits that make each repetition of a recorded session a different session of the same kind.

use seeded::Stream;

/// An id of ASCII letters and digits in the style of model providers.
pub(super) fn provider_id(rng: &mut Stream, prefix: &str, length: usize) -> String {
    const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut id = prefix.to_owned();
    id.extend((0..length).map(|_| *rng.pick(LETTERS) as char));
    id
}

/// A permutation of the digits that keeps 0, so that numbers have no leading zero after it.
pub(super) fn digit_permutation(rng: &mut Stream) -> [u8; 10] {
    let mut digits = *b"0123456789";
    rng.shuffle(&mut digits[1..]);
    digits
}

/// Replaces the digits of a text.
pub(super) fn permute_digits(text: &str, digits: Option<&[u8; 10]>) -> String {
    let Some(digits) = digits else { return text.to_owned() };
    let change = |letter: char| match letter.to_digit(10) {
        Some(digit) => digits[digit as usize] as char,
        None => letter,
    };
    text.chars().map(change).collect()
}
