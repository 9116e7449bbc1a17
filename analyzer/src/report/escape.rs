//! Text of sessions made safe to read. It is hostile.
//!
//! [`visible`] replaces characters that hide or reorder text: control characters, direction overrides, invisible tags.
//! The template engine, the XML writer and [`markdown`] escape their own syntax after it.

/// Longest answer, note or finding shown, characters.
pub(super) const MAX_TEXT_CHARS: usize = 1200;

/// Longest identifier shown, characters.
const MAX_NAME_CHARS: usize = 160;

/// Replaces control, direction and invisible characters by their code points, line feeds and tabs by arrows.
pub(super) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        show(character, &mut shown);
    }
    shown
}

/// As [`visible`], but keeps line feeds: for text in a block of its own.
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
        // Most fonts have these two arrows; few have the Unicode pictures of control characters.
        0x09 => shown.push('⇥'),
        0x0a => shown.push('↵'),
        // Control characters, soft hyphen, direction marks and overrides, zero width characters, invisible operators,
        // interlinear annotations, noncharacters, and tag characters, which can hide instructions.
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

/// The first `limit` characters, and the number of further ones.
pub(super) fn shortened(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}… (+{} characters)", &text[..end], text[end..].chars().count()),
    }
}

/// A name from a recording or a run (case, session, tool, build), visible and of limited length.
pub(super) fn name(text: &str) -> String {
    shortened(&visible(text), MAX_NAME_CHARS)
}

/// As [`visible`], and escapes Markdown, HTML, mentions and links: the text stays text in any table cell.
pub(super) fn markdown(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in visible(text).replace("www.", "www\u{2024}").chars() {
        match character {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '@' => escaped.push_str("&#64;"),
            '#' => escaped.push_str("&#35;"),
            // GitHub turns a bare `www.` address into a link.
            '\u{2024}' => escaped.push_str("&#46;"),
            // Parentheses may stay: without brackets they are no link.
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
    fn hidden_characters_become_visible() {
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
