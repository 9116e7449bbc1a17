//! Times, durations and recorded texts as a person reads them.

use crate::screen::plain;

/// Characters of a text that is not shown whole.
const SHORT_CHARS: usize = 160;

/// Sessions before this moment have no time of their own: an import numbers them from 1970 on.
const FIRST_REAL_MICROS: i64 = 365 * 86_400 * 1_000_000;

/// Whether the time is one, and not the number of a session whose source has no times.
pub(super) fn is_real(micros: i64) -> bool {
    micros >= FIRST_REAL_MICROS
}

/// `2025-07-31 22:02:29`, UTC; `no time` where it is none.
pub(super) fn moment(micros: i64) -> String {
    match jiff::Timestamp::from_microsecond(micros) {
        Ok(time) if is_real(micros) => time.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Ok(_) | Err(_) => "no time".to_owned(),
    }
}

/// `1.234 s`, `12 ms`, `340 µs`.
pub(super) fn duration(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..100_000 => format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100),
        100_000..60_000_000 => format!("{}.{:03} s", micros / 1_000_000, micros % 1_000_000 / 1_000),
        _ => format!("{} min {} s", micros / 60_000_000, micros % 60_000_000 / 1_000_000),
    }
}

/// `1 turn`, `2 turns`.
pub(in crate::command) fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// How recorded text is written to a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// The beginning, on one line.
    Short,
    /// All of it; its lines stay lines, further ones are indented.
    Full,
}

/// Escapes a recorded text; a short one is cut, and says how much is missing.
pub(super) fn shown(text: &str, length: Length, indent: &str) -> String {
    match length {
        Length::Full => {
            let lines: Vec<String> =
                text.split('\n').map(|line| plain(line.strip_suffix('\r').unwrap_or(line))).collect();
            lines.join(&format!("\n{indent}"))
        }
        Length::Short => {
            let folded = text.split_whitespace().collect::<Vec<_>>().join(" ");
            match folded.char_indices().nth(SHORT_CHARS) {
                Some((end, _)) => format!("{}… (+{})", plain(&folded[..end]), folded[end..].chars().count()),
                None => plain(&folded),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_at_characters_and_escaped() {
        let long = "é".repeat(200);
        assert_eq!(shown(&long, Length::Short, ""), format!("{}… (+40)", "é".repeat(160)));
        assert_eq!(shown("a\n\u{1b}[31mb", Length::Short, ""), "a \\u{1b}[31mb");
        assert_eq!(shown("a\r\n\u{7}b", Length::Full, "  "), "a\n  \\u{7}b");
    }

    #[test]
    fn times_read_well() {
        assert_eq!(
            (moment(5_000_000), moment(1_753_999_349_632_337)),
            ("no time".to_owned(), "2025-07-31 22:02:29".to_owned())
        );
        let durations: Vec<_> = [7, 1_250, 123_456, 61_000_000].map(duration).to_vec();
        assert_eq!(durations, ["7 µs", "1.2 ms", "0.123 s", "1 min 1 s"]);
    }
}
