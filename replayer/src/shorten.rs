//! Shortens recorded text for messages.

/// Characters of recorded text that a message quotes.
const MAX_QUOTED_CHARS: usize = 300;

/// Keeps the first 300 characters and marks a cut with `…`.
pub(crate) fn shorten(text: &str) -> String {
    match text.char_indices().nth(MAX_QUOTED_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
