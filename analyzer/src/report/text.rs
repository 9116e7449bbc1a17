//! Text and numbers as a person reads them.
//!
//! Text of sessions is hostile: [`visible`] shows what would otherwise hide (control characters, direction overrides,
//! invisible tags); escaping for HTML, Markdown or XML comes after it and is not done here, but for Markdown's.

/// Longest identifier shown, characters.
const SHOWN_NAME: usize = 160;

/// Shows what would hide or act: control, direction and invisible characters become their code points, line feeds and
/// tabs arrows.
pub(super) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        show(character, &mut shown);
    }
    shown
}

/// As [`visible`], but keeps line feeds, for text shown in a block of its own.
pub(super) fn visible_lines(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.replace("\r\n", "\n").chars() {
        if character == '\n' { shown.push('\n') } else { show(character, &mut shown) }
    }
    shown
}

fn show(character: char, shown: &mut String) {
    let code = u32::from(character);
    match code {
        // Most fonts have these two arrows, few the pictures of control characters.
        0x09 => shown.push('⇥'),
        0x0a => shown.push('↵'),
        // Control characters, soft hyphen, marks and overrides of direction, zero width, invisible operators, interlinear
        // marks, noncharacters, and the tag characters in which instructions are hidden.
        0x00..=0x1f
        | 0x7f..=0x9f
        | 0xad
        | 0x61c
        | 0x115f..=0x1160
        | 0x180e
        | 0x200b
        | 0x200e..=0x200f
        | 0x2028..=0x202e
        | 0x2060..=0x206f
        | 0x3164
        | 0xfeff
        | 0xfff9..=0xfffb
        | 0xfffe..=0xffff
        | 0xe_0000..=0xe_0fff => {
            shown.push_str(&format!("⟨U+{code:04X}⟩"));
        }
        _ => shown.push(character),
    }
}

/// The first `limit` characters, and how many were left out where any were.
pub(super) fn shortened(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}… (+{} characters)", &text[..end], text[end..].chars().count()),
    }
}

/// A name from outside (case, session, tool, build, run) as it is shown.
pub(super) fn name(text: &str) -> String {
    shortened(&visible(text), SHOWN_NAME)
}

/// Escapes Markdown, HTML, mentions and links, and shows what would hide: the text stays text in any table cell.
pub(super) fn markdown(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in visible(text).replace("www.", "www\u{2024}").chars() {
        match character {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '@' => escaped.push_str("&#64;"),
            '#' => escaped.push_str("&#35;"),
            // A bare address would become a link.
            '\u{2024}' => escaped.push_str("&#46;"),
            // Without brackets there is no link, so parentheses may stay.
            '\\' | '`' | '*' | '_' | '[' | ']' | '!' | '|' | '~' | '$' => {
                escaped.push('\\');
                escaped.push(character);
            }
            _ => escaped.push(character),
        }
    }
    escaped.replace("://", "&#58;//")
}

/// A share as per cent with one decimal.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A whole number with its thousands apart.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A size as mebibytes or kibibytes.
pub(super) fn bytes(size: usize) -> String {
    if size >= 1 << 20 {
        format!("{}.{} MiB", size >> 20, ((size & 0xf_ffff) * 10) >> 20)
    } else {
        format!("{} KiB", size.div_ceil(1024))
    }
}

/// "1 case", "2 cases".
pub(super) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// A p value.
pub(super) fn p_value(p: f64) -> String {
    if p < 0.001 { "<0.001".to_owned() } else { format!("{p:.3}") }
}

/// Microseconds as milliseconds or seconds.
pub(super) fn duration(micros: u64) -> String {
    if micros < 1_000_000 {
        format!("{} ms", count(micros.div_ceil(1000)))
    } else {
        format!("{}.{} s", count(micros / 1_000_000), micros % 1_000_000 / 100_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_characters_are_shown() {
        assert_eq!(visible("a\u{0}\n\u{202e}b\u{e0041}"), "a⟨U+0000⟩↵⟨U+202E⟩b⟨U+E0041⟩");
        assert_eq!(visible_lines("a\r\nb\u{7}"), "a\nb⟨U+0007⟩");
        assert_eq!(visible("Grüße, שלום, 你好 👩\u{200d}🔧"), "Grüße, שלום, 你好 👩\u{200d}🔧");
    }

    #[test]
    fn markdown_stays_text() {
        let hostile = "|`x`|<img src=x onerror=alert(1)>\n# @team [a](https://evil.example) www.evil.example";
        let escaped = markdown(hostile);
        for active in ["<img", "@team", "://", "www.", "\n"] {
            assert!(!escaped.contains(active), "{active:?} is left in {escaped}");
        }
        assert!(escaped.starts_with("\\|\\`x\\`\\|&lt;img"), "{escaped}");
        assert!(escaped.contains("\\[a\\]("), "{escaped}");
    }

    #[test]
    fn numbers_read_as_a_person_writes_them() {
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(12), "12");
        assert_eq!((bytes(1).as_str(), bytes((3 << 20) + (1 << 19)).as_str()), ("1 KiB", "3.5 MiB"));
        assert_eq!(p_value(0.0001), "<0.001");
        assert_eq!(counted(1, "case", "cases"), "1 case");
        assert_eq!(duration(1_250_000), "1.2 s");
        assert_eq!(shortened("abcdef", 4), "abcd… (+2 characters)");
    }
}
