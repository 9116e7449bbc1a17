//! Responses of the world.

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

/// A complete or a streamed body.
pub(crate) type WorldBody = UnsyncBoxBody<Bytes, BoxError>;

/// The reason why a streamed body breaks off.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A complete body.
pub(crate) fn full_body(bytes: Bytes) -> WorldBody {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// A response with these bytes.
pub(crate) fn bytes_response(
    status: StatusCode,
    content_type: &'static str,
    bytes: impl Into<Bytes>,
) -> Response<WorldBody> {
    let mut response = Response::new(full_body(bytes.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A JSON response.
pub(crate) fn json_response(status: StatusCode, value: &Value) -> Response<WorldBody> {
    bytes_response(status, "application/json", value.to_string())
}

/// A JSON error in the shape of `OpenAI`, which most clients print.
pub(crate) fn error_response(status: StatusCode, message: &str) -> Response<WorldBody> {
    json_response(status, &error_value(message))
}

/// The body of [`error_response`].
pub(crate) fn error_value(message: &str) -> Value {
    json!({"error": {"message": format!("replay: {message}"), "type": "replay_error"}})
}

/// The response to a call of a trial that has ended.
pub(crate) fn trial_ended() -> Response<WorldBody> {
    error_response(StatusCode::GONE, "this trial has ended")
}

/// The status with this number; 502 for a number outside 100 to 999.
pub(crate) fn status(number: u16) -> StatusCode {
    StatusCode::from_u16(number).unwrap_or(StatusCode::BAD_GATEWAY)
}
