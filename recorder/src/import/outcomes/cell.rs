//! Texts of cells as numbers and outcomes.

/// Texts of a success, in lower case.
const SUCCESSES: [&str; 6] = ["true", "t", "yes", "y", "pass", "passed"];

/// Texts of a failure, in lower case.
const FAILURES: [&str; 6] = ["false", "f", "no", "n", "fail", "failed"];

/// Decimal mark of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DecimalMark {
    /// `1.5`
    Point,
    /// `1,5`
    Comma,
}

/// Parses a finite number, and says which decimal mark it has. `comma` allows `1,5`, as spreadsheets write in many
/// languages; a table whose columns are separated by commas cannot have it.
pub(super) fn number(text: &str, comma: bool) -> Option<(f64, Option<DecimalMark>)> {
    let finite = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
    let mark = match (text.contains('.'), text.matches(',').count()) {
        (true, 0) => Some(DecimalMark::Point),
        (false, 1) if comma => Some(DecimalMark::Comma),
        (false, 0) => None,
        // `1.234,5` has a mark of thousands too, and which of the two is which is a guess.
        (true | false, _) => return None,
    };
    Some((finite(&text.replace(',', "."))?, mark))
}

/// Parses a whole number from 0, which spreadsheets may write as `3.0`.
pub(super) fn whole_number(text: &str, comma: bool) -> Option<u64> {
    let (number, _) = number(text, comma)?;
    if number.fract() != 0.0 || number < 0.0 {
        return None;
    }
    format!("{number:.0}").parse().ok()
}

/// Parses the number of a trial: a whole number, or a text that ends with one, such as `run-3`.
pub(super) fn trial(text: &str, comma: bool) -> Option<u32> {
    if number(text, comma).is_some() {
        return whole_number(text, comma)?.try_into().ok();
    }
    text.trim_start_matches(|letter: char| !letter.is_ascii_digit()).parse().ok()
}

/// Parses an outcome: a word, or a reward from 0 to 1.
pub(super) fn outcome(text: &str, comma: bool) -> Option<bool> {
    let word = text.to_lowercase();
    if SUCCESSES.contains(&word.as_str()) {
        return Some(true);
    }
    if FAILURES.contains(&word.as_str()) {
        return Some(false);
    }
    let (reward, _) = number(text, comma)?;
    (0.0..=1.0).contains(&reward).then(|| crate::import::chat_message::is_success(reward))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreadsheets_write_numbers_in_several_ways() {
        assert_eq!(number("1.5", false), Some((1.5, Some(DecimalMark::Point))));
        assert_eq!(number("1,5", true), Some((1.5, Some(DecimalMark::Comma))));
        assert_eq!(number("-2", true), Some((-2.0, None)));
        for text in ["1,5", "1.234,5", "1,234,567", "nan", "inf", "-inf", "1e999", "", "one", "None"] {
            assert_eq!(number(text, false), None, "{text}");
        }
        assert_eq!((number("1.234,5", true), number("1,234,567", true)), (None, None));
    }

    #[test]
    fn trials_are_whole_numbers_or_end_with_one() {
        let read = ["0", "0.0", "7", "run-3", "3,0"].map(|text| trial(text, true));
        assert_eq!(read, [Some(0), Some(0), Some(7), Some(3), Some(3)]);
        for text in ["-1", "1.5", "nan", "", "x", "4294967296", "2026-01-02"] {
            assert_eq!(trial(text, false), None, "{text}");
        }
    }

    #[test]
    fn outcomes_are_words_or_rewards() {
        for text in ["1", "1.0", "TRUE", "t", "Yes", "passed", "Pass"] {
            assert_eq!(outcome(text, false), Some(true), "{text}");
        }
        for text in ["0", "0.0", "False", "F", "no", "FAILED", "fail", "0.5"] {
            assert_eq!(outcome(text, false), Some(false), "{text}");
        }
        for text in ["None", "nan", "error", "maybe", "2", "-1", ""] {
            assert_eq!(outcome(text, false), None, "{text}");
        }
        assert_eq!(outcome("1,0", true), Some(true));
    }
}
