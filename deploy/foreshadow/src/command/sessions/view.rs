//! A session as JSON: decoded operations, bodies as text.

use schemas::body::Body;
use schemas::exchange::Exchange;
use schemas::trial::Trial;
use serde_json::{Value, json};
use store::{ReadStats, StoredSession};

/// The session with all bodies, and the bytes read from the store.
pub(super) fn session(session: &StoredSession, trial: Option<&Trial>, read: ReadStats) -> Value {
    json!({
        "session": session.session,
        "gaps": session.gaps().iter().map(ToString::to_string).collect::<Vec<_>>(),
        "closes": session.closes,
        "trial": trial,
        "read": read,
        "exchanges": session.exchanges.iter().map(|one| exchange(session, one)).collect::<Vec<_>>(),
    })
}

fn exchange(session: &StoredSession, one: &Exchange) -> Value {
    let mut operation = serde_json::to_value(&one.operation).unwrap_or(Value::Null);
    if let (Some(digest), Some(field)) =
        (one.operation.arguments_digest, operation.get_mut("arguments_digest"))
    {
        *field = Value::String(digest.hex());
    }
    json!({
        "exchange": one.exchange,
        "incarnation": one.incarnation,
        "seq": one.seq,
        "edge": one.edge,
        "protocol": one.protocol,
        "agent": one.agent,
        "build": one.build,
        "started_at": one.started_at,
        "first_byte_us": one.first_byte_us,
        "duration_us": one.duration_us,
        "ending": one.ending,
        "ending_detail": one.ending_detail,
        "http_method": one.http_method,
        "path": one.path,
        "status": one.status,
        "request_headers": one.request_headers,
        "response_headers": one.response_headers,
        "request": body(session, &one.request),
        "response": body(session, &one.response),
        "operation": operation,
        "usage": one.usage,
        "identifiers": one.identifiers,
        "links": one.links,
        "redactions": one.redactions,
    })
}

/// The body as text; an object with `not_utf8` or `missing` if it is not text or a chunk is missing.
fn body(session: &StoredSession, body: &Body) -> Value {
    match session.body(body).map(String::from_utf8) {
        Ok(Ok(text)) => Value::String(text),
        Ok(Err(error)) => json!({"not_utf8": error.utf8_error().to_string(), "bytes": body.bytes}),
        Err(error) => json!({"missing": error.to_string(), "bytes": body.bytes}),
    }
}
