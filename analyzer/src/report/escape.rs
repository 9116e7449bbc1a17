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
}
