//! Server-sent events: an incremental scanner and a writer.
//!
//! Source: WHATWG HTML, section 9.2.6 "Interpreting an event stream"
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
//!
//! The [`Scanner`] reports byte ranges instead of copies, so that a caller can replace one data line in place. It
//! buffers no input: its memory is the ranges of the event in progress. Two deviations from the specification serve
//! recording: an event whose data is empty is reported, and [`Scanner::finish`] reports an event that the end of the
//! input cut off. The fields `id` and `retry` and comments are skipped.

use std::borrow::Cow;
use std::ops::Range;

/// UTF-8 byte order mark; the specification strips one at the start of the stream.
const BYTE_ORDER_MARK: &[u8; 3] = b"\xef\xbb\xbf";

/// Bytes of a field name that the scanner keeps: a byte order mark and `event`.
const FIELD_PREFIX_BYTES: usize = 8;

/// One event, as byte ranges into the input.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// Value of the last `event` field.
    pub name: Option<Range<usize>>,
    /// Values of the `data` fields, in order.
    pub data: Vec<Range<usize>>,
    /// Whether an empty line ended the event; false for an event that the end of the input cut off.
    pub is_terminated: bool,
}

impl Event {
    /// Joins the data lines with line feeds. Bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Panics
    /// If `input` is shorter than the input that was scanned.
    #[must_use]
    pub fn text(&self, input: &[u8]) -> String {
        let mut text = String::with_capacity(self.data.iter().map(|range| range.len() + 1).sum());
        for (number, range) in self.data.iter().enumerate() {
            if number > 0 {
                text.push('\n');
            }
            text.push_str(&String::from_utf8_lossy(&input[range.clone()]));
        }
        text
    }

    /// The value of the `event` field.
    ///
    /// # Panics
    /// If `input` is shorter than the input that was scanned.
    #[must_use]
    pub fn name<'input>(&self, input: &'input [u8]) -> Option<Cow<'input, str>> {
        self.name.clone().map(|range| String::from_utf8_lossy(&input[range]))
    }
}

/// Finds the events of a complete body. The result does not depend on the chunks in which the body arrived.
#[must_use]
pub fn events(body: &[u8]) -> Vec<Event> {
    let mut scanner = Scanner::default();
    let mut events = Vec::new();
    scanner.push(body, &mut events);
    events.extend(scanner.finish());
    events
}

/// The data of each event of a complete body.
#[must_use]
pub fn data(body: &[u8]) -> Vec<String> {
    events(body).iter().map(|event| event.text(body)).collect()
}

/// Appends one event: an optional `event` field, a `data` line for each line of `data`, and an empty line.
///
/// `data` must not contain a carriage return, which ends a line; JSON text never does.
pub fn write_event(out: &mut Vec<u8>, name: Option<&str>, data: &str) {
    if let Some(name) = name {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(name.as_bytes());
        out.push(b'\n');
    }
    for line in data.split('\n') {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
    }
    out.push(b'\n');
}

/// Incremental scanner. Ranges count from the first byte that was pushed.
#[derive(Debug, Default)]
pub struct Scanner {
    /// Bytes pushed so far.
    position: usize,
    line: Line,
    event: Event,
    /// The last byte was a carriage return, so that a line feed now belongs to the same line end.
    after_carriage_return: bool,
}

/// The line in progress.
#[derive(Debug, Default)]
struct Line {
    start: usize,
    /// First bytes of the field name; bytes past [`FIELD_PREFIX_BYTES`] are counted by position only.
    prefix: [u8; FIELD_PREFIX_BYTES],
    prefix_len: usize,
    colon: Option<usize>,
    /// First byte after the colon.
    value_start: Option<u8>,
}

impl Scanner {
    /// Scans the next chunk and appends the events that it ends.
    pub fn push(&mut self, chunk: &[u8], events: &mut Vec<Event>) {
        let base = self.position;
        let mut at = 0;
        while at < chunk.len() {
            if std::mem::take(&mut self.after_carriage_return) && chunk[at] == b'\n' {
                at += 1;
                self.line = Line::starting_at(base + at);
                continue;
            }
            let Some(length) = memchr::memchr2(b'\n', b'\r', &chunk[at..]) else {
                self.line.extend(&chunk[at..], base + at);
                break;
            };
            let end = at + length;
            self.line.extend(&chunk[at..end], base + at);
            self.end_line(base + end, events);
            self.after_carriage_return = chunk[end] == b'\r';
            at = end + 1;
            self.line = Line::starting_at(base + at);
        }
        self.position = base + chunk.len();
    }

    /// Ends the input and returns the event that it cut off, if that has data.
    #[must_use]
    pub fn finish(mut self) -> Option<Event> {
        let end = self.position;
        if end > self.line.start {
            self.end_line(end, &mut Vec::new());
        }
        (!self.event.data.is_empty()).then_some(self.event)
    }

    fn end_line(&mut self, end: usize, events: &mut Vec<Event>) {
        let line = std::mem::take(&mut self.line);
        let (name, value) = line.field(end);
        if name.is_empty() && line.colon.is_none() {
            let event = std::mem::take(&mut self.event);
            if !event.data.is_empty() {
                events.push(Event { is_terminated: true, ..event });
            }
            return;
        }
        match name {
            b"data" => self.event.data.push(value),
            b"event" => self.event.name = Some(value),
            _ => {}
        }
    }
}

impl Line {
    fn starting_at(start: usize) -> Self {
        Self { start, ..Self::default() }
    }

    /// Adds the next bytes of the line, which begin at `offset` of the input.
    fn extend(&mut self, part: &[u8], offset: usize) {
        let value = match self.colon {
            Some(_) => part,
            None => {
                let name_len = memchr::memchr(b':', part);
                self.keep_prefix(&part[..name_len.unwrap_or(part.len())]);
                let Some(name_len) = name_len else { return };
                self.colon = Some(offset + name_len);
                &part[name_len + 1..]
            }
        };
        if self.value_start.is_none() {
            self.value_start = value.first().copied();
        }
    }

    fn keep_prefix(&mut self, name: &[u8]) {
        let kept = name.len().min(FIELD_PREFIX_BYTES - self.prefix_len);
        self.prefix[self.prefix_len..self.prefix_len + kept].copy_from_slice(&name[..kept]);
        self.prefix_len += kept;
    }

    /// Field name and value of the line that ends at `end`. A name longer than the kept prefix is no known field and
    /// comes back shortened. One space after the colon is not part of the value.
    fn field(&self, end: usize) -> (&[u8], Range<usize>) {
        let mut name = &self.prefix[..self.prefix_len];
        if self.start == 0 {
            name = name.strip_prefix(BYTE_ORDER_MARK).unwrap_or(name);
        }
        let value = match self.colon {
            Some(colon) => colon + if self.value_start == Some(b' ') { 2 } else { 1 }..end,
            None => end..end,
        };
        (name, value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(body: &[u8]) -> Vec<(Option<String>, String, bool)> {
        let read =
            |event: Event| (event.name(body).map(Cow::into_owned), event.text(body), event.is_terminated);
        events(body).into_iter().map(read).collect()
    }

    #[test]
    fn reads_every_line_end_and_skips_comments_and_other_fields() {
        let body = b"\xef\xbb\xbf: hi\r\nevent: a\rdata: 1\ndata:2\r\n\r\n\n\ndata\n\nid: 3\n\ndatatable: 4\n\ndata: [DONE]";
        let expected = vec![
            (Some("a".to_owned()), "1\n2".to_owned(), true),
            (None, String::new(), true),
            (None, "[DONE]".to_owned(), false),
        ];
        assert_eq!(read(body), expected);
    }

    #[test]
    fn strips_one_byte_order_mark_at_the_start_of_the_stream() {
        assert_eq!(data(b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n"), ["a"]);
        assert_eq!(data(b"\xef\xbb\xbf\ndata: a\n\n"), ["a"]);
    }

    #[test]
    fn a_value_keeps_all_spaces_but_the_first() {
        assert_eq!(data(b"data:  a \n\ndata:\n\ndata: \n\ndata:a:b\n\n"), [" a ", "", "", "a:b"]);
    }

    #[test]
    fn writes_the_event_field_before_the_data() {
        let mut out = Vec::new();
        write_event(&mut out, Some("message_stop"), "{}\n[]");
        assert_eq!(out, b"event: message_stop\ndata: {}\ndata: []\n\n");
    }

    /// Bytes that are likely to hit the grammar.
    fn stream_bytes() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            4 => proptest::sample::select(vec![
                &b"data"[..], b"data:", b"data: ", b"event: a", b": c", b"id: 1", b"\n", b"\n\n", b"\r", b"\r\n",
                b"\xef\xbb\xbf", b":", b" ", b"\xff",
            ]).prop_map(<[u8]>::to_vec),
            1 => proptest::collection::vec(any::<u8>(), 0..4),
        ];
        proptest::collection::vec(part, 0..40).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn chunk_boundaries_do_not_change_the_events(
            body in stream_bytes(),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
            cuts.extend([0, body.len()]);
            cuts.sort_unstable();
            let mut scanner = Scanner::default();
            let mut found = Vec::new();
            for pair in cuts.windows(2) {
                scanner.push(&body[pair[0]..pair[1]], &mut found);
            }
            found.extend(scanner.finish());
            prop_assert_eq!(found, events(&body));
        }

        #[test]
        fn never_panics_and_ranges_stay_inside(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            for event in events(&body) {
                for range in event.data.iter().chain(&event.name) {
                    prop_assert!(range.start <= range.end && range.end <= body.len());
                }
            }
        }

        #[test]
        fn written_events_are_read_back(
            texts in proptest::collection::vec("[a-z{}:\" \n]{0,20}", 0..8), crlf in any::<bool>(),
        ) {
            let mut body = Vec::new();
            for text in &texts {
                write_event(&mut body, Some("e"), text);
            }
            if crlf {
                body = String::from_utf8(body).expect("text").replace('\n', "\r\n").into_bytes();
            }
            prop_assert_eq!(data(&body), texts);
        }
    }
}
