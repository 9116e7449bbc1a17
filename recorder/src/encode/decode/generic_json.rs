//! JSON over HTTP, read by the JSON pointers of the route.
//!
//! Of a streamed response, the texts at the output pointer of each event are joined.

use schemas::canonical::{canonical, canonical_at};
use schemas::exchange::{Edge, OperationKind, Protocol};
use serde_json::Value;
use wire::sse;

use super::decoded::{DecodeInput, Decoded, chat_kind};
use crate::config::values::Pointer;

pub(super) fn decode(input: &DecodeInput<'_>) -> Decoded {
    let request = serde_json::from_slice::<Value>(input.request).ok();
    let kind =
        if input.route.edge == Edge::Tool { OperationKind::CallTool } else { chat_kind(input.route.edge) };
    let mut decoded = Decoded::new(Protocol::GenericJson, kind);
    let output = output(input, &mut decoded);
    if request.is_none() && output.is_none() {
        let notes = std::mem::take(&mut decoded.notes);
        return Decoded { notes, ..Decoded::opaque() };
    }
    let asked = request.as_ref().and_then(|value| at(value, input.route.input.as_ref()));
    let operation = &mut decoded.operation;
    if kind == OperationKind::CallTool {
        let segment = input.path.rsplit('/').next().unwrap_or_default();
        operation.tool = Some(input.route.tool.clone().unwrap_or_else(|| segment.to_owned()));
        // Read from the body: the parsed value has rounded long numbers.
        let exact = || canonical_at(input.request, input.route.input.as_ref().map_or("", Pointer::as_str));
        operation.arguments = asked.map(|value| exact().unwrap_or_else(|| canonical(value)));
        if operation.arguments.is_none() && !input.request.is_empty() {
            operation.arguments_verbatim = Some(String::from_utf8_lossy(input.request).into_owned());
        }
        operation.result = output;
    } else {
        operation.input = asked.map(text).filter(|_| kind == OperationKind::Turn);
        operation.output = output;
    }
    decoded
}

fn output(input: &DecodeInput<'_>, decoded: &mut Decoded) -> Option<String> {
    let pointer = input.route.output.as_ref();
    if !input.is_event_stream {
        let value = match serde_json::from_slice::<Value>(input.response) {
            Ok(value) => value,
            Err(_) if input.response.is_empty() => return None,
            Err(error) => {
                decoded.notes.push(format!("the response is not JSON ({error})"));
                return None;
            }
        };
        decoded.finished = Some(true);
        let found = at(&value, pointer).map(text);
        if found.is_none() {
            decoded
                .notes
                .push(format!("the response has no value at {:?}", pointer.map_or("", Pointer::as_str)));
        }
        return found;
    }
    decoded.joins_events = true;
    let mut joined: Option<String> = None;
    for event in sse::events(input.response) {
        let value = serde_json::from_str::<Value>(&event.text(input.response)).ok();
        if let Some(part) = value.as_ref().and_then(|value| at(value, pointer)) {
            joined.get_or_insert_default().push_str(&text(part));
        }
    }
    joined
}

fn at<'v>(value: &'v Value, pointer: Option<&Pointer>) -> Option<&'v Value> {
    value.pointer(pointer.map_or("", Pointer::as_str)).filter(|found| !found.is_null())
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| canonical(value), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{read, route};
    use super::*;

    #[test]
    fn reads_a_turn_plain_and_streamed() {
        let route = route("turn", "protocol = \"generic-json\"\ninput = \"/q\"\noutput = \"/a\"");
        let operation = read(&route, br#"{"q":"hi"}"#, br#"{"a":{"x":1}}"#, false).operation;
        assert_eq!(
            (operation.input.as_deref(), operation.output.as_deref()),
            (Some("hi"), Some("{\"x\":1}"))
        );
        let operation = read(
            &route,
            br#"{"q":"hi"}"#,
            b"data: {\"a\":\"he\"}\n\ndata: {}\n\ndata: {\"a\":\"llo\"}\n\n",
            true,
        )
        .operation;
        assert_eq!(operation.output.as_deref(), Some("hello"));
        assert_eq!(read(&route, b"?", b"?", false).operation.kind, OperationKind::Opaque);
    }

    #[test]
    fn names_a_tool_by_its_path() {
        let route = route("tool", "protocol = \"generic-json\"\noutput = \"\"");
        let operation = read(&route, br#"{"id":1}"#, br#"{"ok":true}"#, false).operation;
        assert_eq!(
            (operation.tool.as_deref(), operation.arguments.as_deref()),
            (Some("x"), Some("{\"id\":1}"))
        );
        assert_eq!(operation.result.as_deref(), Some("{\"ok\":true}"));
    }
}
