//! Seeded choices of the generated traffic: `SplitMix64`, enough for ids and permutations.

/// A stream of numbers that depends on its seed alone.
#[derive(Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A name of letters and digits, as providers make them.
    pub(super) fn name(&mut self, prefix: &str, length: usize) -> String {
        const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        let letter = |value: u64| LETTERS[usize::try_from(value % 62).unwrap_or(0)] as char;
        let mut name = prefix.to_owned();
        name.extend((0..length).map(|_| letter(self.next())));
        name
    }

    /// A permutation of the digits that keeps 0, so that numbers stay numbers.
    pub(super) fn digits(&mut self) -> [u8; 10] {
        let mut digits = *b"0123456789";
        for place in (2..10_usize).rev() {
            let other = 1 + usize::try_from(self.next() % place as u64).unwrap_or(0);
            digits.swap(place, other);
        }
        digits
    }
}

/// Replaces the digits of a text.
pub(super) fn permute(text: &str, digits: Option<&[u8; 10]>) -> String {
    let Some(digits) = digits else { return text.to_owned() };
    let change = |letter: char| match letter.to_digit(10) {
        Some(digit) => digits[digit as usize] as char,
        None => letter,
    };
    text.chars().map(change).collect()
}
