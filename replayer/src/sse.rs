//! Server-sent events in a whole body: cut into their data, and nothing else.
//!
//! Not for a stream in flight: what is forwarded goes on as bytes and is read afterwards.

/// The data of each event in order; lines other than `data:` are left out.
pub(crate) fn data(body: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(body);
    let mut events = Vec::new();
    let mut held: Option<String> = None;
    for line in text.split('\n') {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() {
            events.extend(held.take());
        } else if let Some(rest) = line.strip_prefix("data:") {
            let rest = rest.strip_prefix(' ').unwrap_or(rest);
            match &mut held {
                Some(text) => {
                    text.push('\n');
                    text.push_str(rest);
                }
                None => held = Some(rest.to_owned()),
            }
        }
    }
    events.extend(held);
    events
}

/// One event with this data.
pub(crate) fn frame(data: &str) -> Vec<u8> {
    let mut frame = Vec::with_capacity(data.len() + 8);
    for line in data.split('\n') {
        frame.extend_from_slice(b"data: ");
        frame.extend_from_slice(line.as_bytes());
        frame.push(b'\n');
    }
    frame.push(b'\n');
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_spelling() {
        let body = b"event: x\r\ndata: a\r\n\r\n: comment\n\ndata:b\ndata: c\n\ndata: cut";
        assert_eq!(data(body), ["a", "b\nc", "cut"]);
    }

    #[test]
    fn writes_what_it_reads() {
        let body = [frame("{\"a\":1}"), frame("x\ny")].concat();
        assert_eq!(data(&body), ["{\"a\":1}", "x\ny"]);
    }
}
