//! Numbers, times and recorded texts for a terminal.

use std::time::Duration;

/// Characters of a shortened text.
const SHORT_CHARS: usize = 160;

/// Start times before this moment are sequence numbers: an import counts sessions without a time from 1970 on.
const FIRST_REAL_MICROS: i64 = 365 * 86_400 * 1_000_000;

/// Escapes control characters and direction marks, so that recorded text cannot move the cursor, colour the terminal or
/// reorder what a person reads (Unicode TR 9).
pub(crate) fn escape_control(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        let reorders =
            matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if letter.is_control() || reorders {
            out.extend(letter.escape_default());
        } else {
            out.push(letter);
        }
    }
    out
}

/// Whether this is a time, and not the sequence number of a session without one.
pub(crate) fn is_real_time(micros: i64) -> bool {
    micros >= FIRST_REAL_MICROS
}

/// `2025-07-31 22:02:29`, UTC; `no time` for a sequence number.
pub(crate) fn moment(micros: i64) -> String {
    match jiff::Timestamp::from_microsecond(micros) {
        Ok(time) if is_real_time(micros) => time.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Ok(_) | Err(_) => "no time".to_owned(),
    }
}

/// `1.234 s`, `12 ms`, `340 µs`.
pub(crate) fn duration(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..100_000 => format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100),
        100_000..60_000_000 => format!("{}.{:03} s", micros / 1_000_000, micros % 1_000_000 / 1_000),
        _ => format!("{} min {} s", micros / 60_000_000, micros % 60_000_000 / 1_000_000),
    }
}

/// `1 turn`, `2 turns`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// [`count`] of a 64-bit number.
pub(crate) fn count_u64(number: u64, noun: &str) -> String {
    count(usize::try_from(number).unwrap_or(usize::MAX), noun)
}

/// Parses a duration of the command line, such as `10s`, `500ms` or `90days`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    use serde::de::IntoDeserializer as _;
    let text: serde::de::value::StrDeserializer<'_, serde::de::value::Error> = text.into_deserializer();
    humantime_serde::deserialize(text)
        .map_err(|error| format!("expected a duration such as 500ms, 10s or 90days ({error})"))
}

/// Columns of the terminal that every text must fit.
pub(crate) const COLUMNS: usize = 80;

/// Breaks each line between words so that it fits [`COLUMNS`]. Continuations are indented by `hanging` columns, or by
/// two more than their line. A word that is longer, for example a path, stays in one piece.
pub(crate) fn wrap(text: &str, hanging: Option<usize>) -> String {
    let lines: Vec<String> = text.split('\n').map(|line| wrap_line(line, hanging)).collect();
    lines.join("\n")
}

fn wrap_line(line: &str, hanging: Option<usize>) -> String {
    if columns(line) <= COLUMNS {
        return line.to_owned();
    }
    let words = line.trim_start_matches(' ');
    let own = line.len() - words.len();
    let indent = hanging.unwrap_or(own + 2).min(COLUMNS / 2);
    // A percent sign stays with its number.
    let words = &words.replace(" %", "\u{a0}%");
    let mut out = line[..own].to_owned();
    let mut used = own;
    let mut is_first = true;
    // Spaces inside a line align columns, so they stay unless the line breaks there.
    let mut gap = 0;
    for word in words.split(' ') {
        let width = columns(word);
        if word.is_empty() && !is_first {
            gap += 1;
        } else if !is_first && used + gap + width > COLUMNS {
            out.push('\n');
            out.push_str(&" ".repeat(indent));
            out.push_str(word);
            (used, gap) = (indent + width, 1);
        } else {
            let space = if is_first { 0 } else { gap };
            out.push_str(&" ".repeat(space));
            out.push_str(word);
            (used, gap) = (used + space + width, 1);
        }
        is_first = false;
    }
    out.replace("\u{a0}%", " %")
}

/// Columns of a text: without colour codes, and two for each wide character of East Asia.
pub(crate) fn columns(text: &str) -> usize {
    let mut columns = 0;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter == '\u{1b}' {
            letters.by_ref().find(|end| *end == 'm');
            continue;
        }
        let wide = matches!(
            u32::from(letter),
            0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff | 0xfe30..=0xfe6f
                | 0xff00..=0xff60 | 0xffe0..=0xffe6 | 0x1f300..=0x1faff | 0x20000..=0x3fffd
        );
        columns += if wide { 2 } else { 1 };
    }
    columns
}

/// Printed part of a recorded text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// The beginning, on one line.
    Short,
    /// The complete text; further lines are indented.
    Full,
}

/// Escapes a recorded text; a shortened text ends with the number of characters left out.
pub(crate) fn recorded(text: &str, length: Length, indent: &str) -> String {
    match length {
        Length::Full => {
            let lines: Vec<String> = text
                .split('\n')
                .map(|line| escape_control(line.strip_suffix('\r').unwrap_or(line)))
                .collect();
            lines.join(&format!("\n{indent}"))
        }
        Length::Short => {
            let folded = text.split_whitespace().collect::<Vec<_>>().join(" ");
            match folded.char_indices().nth(SHORT_CHARS) {
                Some((end, _)) => {
                    format!("{}… (+{})", escape_control(&folded[..end]), folded[end..].chars().count())
                }
                None => escape_control(&folded),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_text_cannot_control_the_terminal() {
        assert_eq!(escape_control("a\u{1b}[2Jb\nc\u{202e}d\u{9b}é"), "a\\u{1b}[2Jb\\nc\\u{202e}d\\u{9b}é");
    }

    #[test]
    fn texts_are_shortened_at_characters_and_escaped() {
        let long = "é".repeat(200);
        assert_eq!(recorded(&long, Length::Short, ""), format!("{}… (+40)", "é".repeat(160)));
        assert_eq!(recorded("a\n\u{1b}[31mb", Length::Short, ""), "a \\u{1b}[31mb");
        assert_eq!(recorded("a\r\n\u{7}b", Length::Full, "  "), "a\n  \\u{7}b");
    }

    #[test]
    fn long_lines_break_between_words() {
        let text = format!("  run: {} and more words that do not fit the first line", "x".repeat(60));
        let wrapped = wrap(&text, None);
        assert_eq!(
            wrapped,
            format!("  run: {} and more\n    words that do not fit the first line", "x".repeat(60))
        );
        // A path stays in one piece, colours take no columns, and short lines keep their alignment.
        let path = format!("written to /{}", "a".repeat(90));
        assert_eq!(wrap(&path, None), format!("written to\n  /{}", "a".repeat(90)));
        assert_eq!(columns("\u{1b}[1;32mok\u{1b}[0m 試"), 5);
        assert_eq!(wrap("a    b", None), "a    b");
        let wrapped = wrap(&"word ".repeat(50), Some(20));
        assert!(wrapped.lines().all(|line| columns(line) <= COLUMNS), "{wrapped}");
        assert!(wrapped.lines().nth(1).is_some_and(|line| line.starts_with(&" ".repeat(20))), "{wrapped}");
    }

    #[test]
    fn times_have_a_unit() {
        assert_eq!(
            (moment(5_000_000), moment(1_753_999_349_632_337)),
            ("no time".to_owned(), "2025-07-31 22:02:29".to_owned())
        );
        let durations: Vec<_> = [7, 1_250, 123_456, 61_000_000].map(duration).to_vec();
        assert_eq!(durations, ["7 µs", "1.2 ms", "0.123 s", "1 min 1 s"]);
        assert_eq!(parse_duration("90days"), Ok(Duration::from_secs(90 * 86_400)));
        assert!(parse_duration("old").is_err());
    }
}
