//! Whose failure an answer of the model provider is: the provider's, or that of the request.
//!
//! Pure. An error that the candidate's own request caused (an unknown model, a prompt that is too long) is the
//! candidate's. Rate limits, overload and cut connections are the provider's, and so are a refused key and an
//! exhausted quota.

use hyper::StatusCode;
use serde_json::Value;

use crate::shorten::shorten;

/// Codes by which providers say that no further call will be answered: a wrong key, or nothing left to spend.
const REFUSAL_CODES: [&str; 7] = [
    "insufficient_quota",
    "billing_hard_limit_reached",
    "billing_not_active",
    "account_deactivated",
    "invalid_api_key",
    "api_key_invalid",
    "authentication_error",
];

/// Words of the message of a provider that has no code for an exhausted quota.
const REFUSAL_MESSAGE: &str = "credit balance is too low";

/// Class of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnswerClass {
    /// An answer, or an error that the request itself caused.
    Answer,
    /// The provider failed; another attempt can succeed.
    Transient,
    /// The provider failed, and another attempt will fail too.
    Permanent,
    /// The provider refuses every call: the key or the quota.
    Refusal,
}

/// Class of an answer with this status, by the body of an error.
pub(crate) fn classify(status: StatusCode, body: &[u8]) -> AnswerClass {
    if status.is_success() {
        return AnswerClass::Answer;
    }
    let error = error_of(body);
    if error.as_ref().is_some_and(refuses) {
        return AnswerClass::Refusal;
    }
    match status.as_u16() {
        401 | 402 => AnswerClass::Refusal,
        403 if error.as_ref().is_some_and(is_moderation) => AnswerClass::Answer,
        403 => AnswerClass::Refusal,
        // 409: providers answer so when a lock on their side timed out; their own clients repeat it.
        408 | 409 | 425 | 429 => AnswerClass::Transient,
        500..=599 => AnswerClass::Transient,
        400..=499 => AnswerClass::Answer,
        // A redirect is not followed, so no answer ever comes from this URL.
        _ => AnswerClass::Permanent,
    }
}

/// An error that a provider reports in an answer with status 200, whole or as an event of a stream.
pub(crate) fn error_in_answer(body: &[u8]) -> Option<(AnswerClass, String)> {
    if !contains(body, b"\"error\"") {
        return None;
    }
    let text = String::from_utf8_lossy(body);
    let events = text.lines().filter_map(|line| line.strip_prefix("data:"));
    let answers = std::iter::once(text.trim()).chain(events.map(str::trim));
    let mut parsed = answers.filter_map(|text| serde_json::from_str::<Value>(text).ok());
    let error = parsed.find_map(|answer| {
        let is_answer = answer["choices"].as_array().is_some_and(|choices| !choices.is_empty());
        answer.get("error").filter(|error| !error.is_null() && !is_answer).cloned()
    })?;
    let class = class_without_status(&error);
    (class != AnswerClass::Answer).then(|| (class, message(&error)))
}

/// The message of an error body; the text itself if it has none.
pub(crate) fn error_text(body: &[u8]) -> String {
    match error_of(body) {
        Some(error) => message(&error),
        None => shorten(String::from_utf8_lossy(body).trim()),
    }
}

/// An error without status has at best a number or a type that names the fault.
fn class_without_status(error: &Value) -> AnswerClass {
    if refuses(error) {
        return AnswerClass::Refusal;
    }
    let number = error["code"].as_u64().or_else(|| error["status"].as_u64());
    let status = number.and_then(|number| StatusCode::from_u16(u16::try_from(number).ok()?).ok());
    if let Some(status) = status.filter(|status| !status.is_success()) {
        return classify(status, error.to_string().as_bytes());
    }
    let of_request =
        ["invalid_request_error", "content_filter", "context_length_exceeded", "not_found_error"];
    if codes(error).any(|code| of_request.contains(&code.as_str())) {
        AnswerClass::Answer
    } else {
        AnswerClass::Transient
    }
}

fn error_of(body: &[u8]) -> Option<Value> {
    let parsed: Value = serde_json::from_slice(body).ok()?;
    // Some gateways wrap the error in an array.
    let first = if parsed.is_array() { parsed[0].clone() } else { parsed };
    match first.get("error") {
        Some(error) if !error.is_null() => Some(error.clone()),
        Some(_) | None => first.is_object().then_some(first),
    }
}

/// The codes, types and reasons of an error, in lower case. The message is not searched: it may quote the request.
fn codes(error: &Value) -> impl Iterator<Item = String> {
    let details = error["details"].as_array().into_iter().flatten().map(|detail| &detail["reason"]);
    let own = ["code", "type", "status", "reason"].into_iter().map(|key| &error[key]);
    own.chain(details).filter_map(Value::as_str).map(str::to_ascii_lowercase)
}

fn refuses(error: &Value) -> bool {
    codes(error).any(|code| REFUSAL_CODES.contains(&code.as_str()))
        || error["message"].as_str().is_some_and(|text| text.to_ascii_lowercase().contains(REFUSAL_MESSAGE))
}

/// Whether the provider refuses what the request says, not who sends it.
fn is_moderation(error: &Value) -> bool {
    let metadata = &error["metadata"];
    metadata.get("flagged_input").is_some()
        || metadata.get("reasons").is_some()
        || codes(error).any(|code| code.contains("moderation") || code.contains("content"))
}

fn message(error: &Value) -> String {
    let text = error["message"].as_str().map_or_else(|| error.to_string(), str::to_owned);
    shorten(text.trim())
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(status: u16, body: &str) -> AnswerClass {
        classify(StatusCode::from_u16(status).expect("a status"), body.as_bytes())
    }

    #[test]
    fn the_status_tells_whose_failure_it_is() {
        for status in [400, 404, 413, 422] {
            assert_eq!(class(status, r#"{"error":{"message":"no"}}"#), AnswerClass::Answer, "{status}");
        }
        for status in [408, 429, 500, 502, 503, 504, 529] {
            assert_eq!(class(status, "busy"), AnswerClass::Transient, "{status}");
        }
        for status in [401, 402, 403] {
            assert_eq!(class(status, ""), AnswerClass::Refusal, "{status}");
        }
        assert_eq!(class(302, ""), AnswerClass::Permanent);
        assert_eq!(class(200, ""), AnswerClass::Answer);
    }

    #[test]
    fn an_exhausted_quota_is_found_by_its_code_and_not_in_a_quoted_request() {
        let quota = r#"{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","code":"x"}}"#;
        assert_eq!(class(429, quota), AnswerClass::Refusal);
        let anthropic = r#"{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low"}}"#;
        assert_eq!(class(400, anthropic), AnswerClass::Refusal);
        let google = r#"[{"error":{"code":400,"status":"INVALID_ARGUMENT","details":[{"reason":"API_KEY_INVALID"}]}}]"#;
        assert_eq!(class(400, google), AnswerClass::Refusal);
        let quoted =
            r#"{"error":{"message":"bad value: insufficient_quota","type":"invalid_request_error"}}"#;
        assert_eq!(class(400, quoted), AnswerClass::Answer);
        let flagged = r#"{"error":{"code":403,"message":"flagged","metadata":{"flagged_input":"x"}}}"#;
        assert_eq!(class(403, flagged), AnswerClass::Answer);
    }

    #[test]
    fn an_error_within_an_answer_of_status_200_is_found() {
        let of = |text: &str| error_in_answer(text.as_bytes()).map(|(class, _)| class);
        assert_eq!(of(r#"{"choices":[{"message":{"content":"an \"error\" occurred"}}]}"#), None);
        assert_eq!(of(r#"{"error":null,"choices":[]}"#), None);
        assert_eq!(of(r#"{"error":{"message":"overloaded","code":502}}"#), Some(AnswerClass::Transient));
        assert_eq!(of(r#"{"error":{"message":"too long","code":400}}"#), None);
        let stream =
            "data: {\"choices\":[{\"delta\":{}}]}\n\ndata: {\"error\":{\"type\":\"server_error\"}}\n\n";
        assert_eq!(of(stream), Some(AnswerClass::Transient));
        let stream = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\n";
        assert_eq!(of(stream), Some(AnswerClass::Transient));
    }
}
