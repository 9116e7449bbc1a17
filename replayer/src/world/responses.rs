//! The bodies that the world sends.

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

/// A whole or a streamed body.
pub(crate) type Reply = UnsyncBoxBody<Bytes, hyper::Error>;

/// A reply with these bytes.
pub(crate) fn bytes_reply(
    status: StatusCode,
    content_type: &'static str,
    bytes: impl Into<Bytes>,
) -> Response<Reply> {
    let body = Full::new(bytes.into()).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A JSON reply.
pub(crate) fn json_reply(status: StatusCode, value: &Value) -> Response<Reply> {
    bytes_reply(status, "application/json", value.to_string())
}

/// A JSON reply in the shape that OpenAI clients and most others print.
pub(crate) fn error_reply(status: StatusCode, message: &str) -> Response<Reply> {
    json_reply(status, &error_value(message))
}

/// The body of [`error_reply`].
pub(crate) fn error_value(message: &str) -> Value {
    json!({"error": {"message": format!("replay: {message}"), "type": "replay_error"}})
}

/// An HTTP status from a number that may be none.
pub(crate) fn status(number: u16) -> StatusCode {
    StatusCode::from_u16(number).unwrap_or(StatusCode::BAD_GATEWAY)
}
