//! Server-sent events, read from a whole body (WHATWG HTML, section 9.2.6).
//!
//! Says where in the body each event and each of its data lines lies, so that a fragment can be replaced in place.
//! It does not understand what is in the data, and it never works on a part of a stream: the tap assembles first.

use std::ops::Range;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// The value of its `event` field.
    pub(crate) name: Option<String>,
    /// Where the values of its `data` fields lie in the body.
    pub(crate) data: Vec<Range<usize>>,
    /// Whether the empty line that ends it was there.
    pub(crate) closed: bool,
}

impl Event {
    /// The data: its lines joined by line feeds; bytes that are not UTF-8 become replacement characters.
    pub(crate) fn text(&self, body: &[u8]) -> String {
        let mut text = String::new();
        for (place, range) in self.data.iter().enumerate() {
            if place > 0 {
                text.push('\n');
            }
            text.push_str(&String::from_utf8_lossy(&body[range.clone()]));
        }
        text
    }
}

/// Finds the events of a body that have data; comments and other fields are passed over.
pub(crate) fn events(body: &[u8]) -> Vec<Event> {
    let mut found = Vec::new();
    let mut current = Event { name: None, data: Vec::new(), closed: false };
    for line in lines(body) {
        if line.is_empty() {
            let event =
                std::mem::replace(&mut current, Event { name: None, data: Vec::new(), closed: false });
            if !event.data.is_empty() {
                found.push(Event { closed: true, ..event });
            }
            continue;
        }
        let (field, value) = split_field(body, line);
        match &body[field] {
            b"data" => current.data.push(value),
            b"event" => current.name = Some(String::from_utf8_lossy(&body[value]).into_owned()),
            _ => {}
        }
    }
    if !current.data.is_empty() {
        found.push(current);
    }
    found
}

/// The lines of the body without their ends (`\n`, `\r\n` or `\r`), after a byte order mark.
fn lines(body: &[u8]) -> Vec<Range<usize>> {
    let mut start = if body.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    let mut found = Vec::new();
    while start < body.len() {
        let length = body[start..].iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let end = length.map_or(body.len(), |length| start + length);
        found.push(start..end);
        let crlf = body[end..].starts_with(b"\r\n");
        start = end + if crlf { 2 } else { 1 };
    }
    found
}

/// Parts a line at its first colon; one space after the colon is not part of the value.
fn split_field(body: &[u8], line: Range<usize>) -> (Range<usize>, Range<usize>) {
    let Some(colon) = body[line.clone()].iter().position(|byte| *byte == b':') else {
        return (line.clone(), line.end..line.end);
    };
    let colon = line.start + colon;
    let value = if body[colon + 1..line.end].starts_with(b" ") { colon + 2 } else { colon + 1 };
    (line.start..colon, value..line.end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(body: &[u8]) -> Vec<(Option<String>, String, bool)> {
        events(body).into_iter().map(|event| (event.name.clone(), event.text(body), event.closed)).collect()
    }

    #[test]
    fn reads_every_line_end_and_skips_comments() {
        let body = b"\xef\xbb\xbf: hi\r\nevent: a\rdata: 1\ndata:2\r\n\r\n\n\ndata\n\nid: 3\n\ndata: [DONE]";
        let expected = vec![
            (Some("a".to_owned()), "1\n2".to_owned(), true),
            (None, String::new(), true),
            (None, "[DONE]".to_owned(), false),
        ];
        assert_eq!(texts(body), expected);
    }

    proptest! {
        #[test]
        fn never_panics_and_stays_inside(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            for event in events(&body) {
                for range in &event.data {
                    prop_assert!(range.end <= body.len() && range.start <= range.end);
                }
            }
        }

        #[test]
        fn written_events_are_read_back(data in proptest::collection::vec("[a-z{}:\" ]{1,20}", 1..8), crlf in any::<bool>()) {
            let end = if crlf { "\r\n" } else { "\n" };
            let body: String = data.iter().map(|text| format!("data: {text}{end}{end}")).collect();
            let read: Vec<String> = texts(body.as_bytes()).into_iter().map(|event| event.1).collect();
            prop_assert_eq!(read, data);
        }
    }
}
