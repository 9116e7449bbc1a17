//! Forwards model calls to the provider, repeats those that it failed, and tells its failures from the candidate's.
//!
//! Nothing but headers is changed. A call is repeated only while no byte of its answer has reached the candidate.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::http::response::Parts;
use hyper::{Request, Response, StatusCode};
use schemas::exchange::Ending;

use super::active_trial::ActiveTrial;
use super::model_call::ModelCall;
use super::provider_calls::FailureText;
use super::provider_failure::{AnswerClass, classify, error_in_answer, error_text};
use super::recorded_body::RecordedBody;
use super::request::WorldRequest;
use super::responses::{WorldBody, error_response, full_body, trial_ended};
use crate::candidate::settings::Upstream;
use crate::clock::Clock;
use crate::http_client::error_chain;

/// Longest error body of a provider, bytes; the rest is not forwarded.
const MAX_ERROR_BYTES: usize = 1 << 20;

/// Headers that are not forwarded: hop-by-hop (RFC 9110 section 7.6.1), about the encoding of the body, or the replayer's.
const DROPPED_HEADERS: [&str; 16] = [
    "host",
    "content-length",
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "accept-encoding",
    "traceparent",
    "tracestate",
    "baggage",
    "foreshadow-seed",
    "foreshadow-session",
];

/// Tells the clients of both large vendors not to repeat a call: the trial is lost already.
const NO_RETRY: (&str, &str) = ("x-should-retry", "false");

/// A failed attempt.
struct FailedAttempt {
    class: AnswerClass,
    text: FailureText,
    /// Pause that the provider asks for.
    retry_after: Option<Duration>,
    /// The provider's own answer, or the status that the candidate gets without one.
    answer: Result<(Parts, Bytes), StatusCode>,
}

/// Forwards a model call to the provider.
pub(crate) async fn forward(
    trial: &Arc<ActiveTrial>,
    call: ModelCall,
    request: WorldRequest,
) -> Response<WorldBody> {
    let settings = trial.settings();
    let Some(upstream) = &settings.upstream else {
        let text = "the candidate file has no [model] upstream";
        return failed(trial, call.seq, no_answer("no upstream", text, StatusCode::BAD_GATEWAY));
    };
    let mut pauses = upstream.retry.pauses();
    loop {
        let request = match upstream_request(trial, upstream, call, &request) {
            Ok(request) => request,
            Err(error) => {
                let text = error.to_string();
                return failed(trial, call.seq, no_answer("invalid request", &text, StatusCode::BAD_GATEWAY));
            }
        };
        let started = Instant::now();
        let failure = match attempt(trial, upstream, call, request, started).await {
            Ok(response) => return response,
            Err(failure) => failure,
        };
        let is_over =
            failure.class != AnswerClass::Transient || settings.provider_health.down().is_cancelled();
        let Some(pause) = pauses.next().filter(|_| !is_over) else {
            trial.provider_clock().exclude(started, Instant::now());
            return failed(trial, call.seq, failure);
        };
        let pause = failure.retry_after.unwrap_or(pause).min(upstream.retry.max_pause);
        trial.provider_clock().exclude(started, Instant::now() + pause);
        match trial.state() {
            Some(mut state) => state.provider.retry(call.seq, failure.text),
            None => return trial_ended(),
        }
        tokio::time::sleep(pause).await;
        if trial.state().is_none() {
            return trial_ended();
        }
    }
}

/// Sends the call once, and waits for the first byte of the answer.
async fn attempt(
    trial: &Arc<ActiveTrial>,
    upstream: &Upstream,
    call: ModelCall,
    request: Request<Full<Bytes>>,
    started: Instant,
) -> Result<Response<WorldBody>, FailedAttempt> {
    let base = &upstream.base;
    let silent = || {
        let text = format!("{base} did not answer within {:?}", upstream.timeout);
        no_answer("timeout", &text, StatusCode::GATEWAY_TIMEOUT)
    };
    let cut = |what: &str, error: &hyper_util::client::legacy::Error| {
        let text = format!("{what} {base}: {}", error_chain(error));
        no_answer("connection", &text, StatusCode::BAD_GATEWAY)
    };
    let _waiting = trial.provider_clock().wait(call.seq);
    let sent = tokio::time::timeout(upstream.timeout, trial.settings().client.request(request)).await;
    let response = sent.map_err(|_| silent())?.map_err(|error| cut("cannot reach", &error))?;
    let (parts, mut body) = response.into_parts();
    let first = tokio::time::timeout(upstream.timeout, async {
        if parts.status.is_success() { first_frame(&mut body).await } else { error_body(&mut body).await }
    });
    let first = first.await.map_err(|_| silent())?.map_err(|error| {
        let text = format!("{base} cut the answer off: {}", error_chain(&error));
        no_answer("connection", &text, StatusCode::BAD_GATEWAY)
    })?;
    let data = first.as_ref().and_then(Frame::data_ref).cloned().unwrap_or_default();
    if let Some(failure) = failure_of(&parts, &data, trial.settings().clock) {
        return Err(failure);
    }
    if let Some(mut state) = trial.state() {
        state.provider.answer(call.seq);
    }
    let status = parts.status;
    let body = RecordedBody::new(body, first, trial.clone(), call.seq, status, started, upstream.timeout);
    Ok(respond(parts, body.boxed_unsync()))
}

/// The first frame with data. `None` at the end of an empty body.
async fn first_frame(body: &mut Incoming) -> Result<Option<Frame<Bytes>>, hyper::Error> {
    while let Some(frame) = body.frame().await {
        let frame = frame?;
        if frame.data_ref().is_some_and(|data| !data.is_empty()) {
            return Ok(Some(frame));
        }
    }
    Ok(None)
}

/// The body of an error, complete up to its limit.
async fn error_body(body: &mut Incoming) -> Result<Option<Frame<Bytes>>, hyper::Error> {
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame?;
        let data = frame.data_ref().map_or(&[][..], |data| data);
        let room = MAX_ERROR_BYTES - read.len();
        read.extend_from_slice(&data[..data.len().min(room)]);
        if data.len() >= room {
            break;
        }
    }
    Ok(Some(Frame::data(read.freeze())))
}

/// The failure that an answer reports; `None` for an answer, and for an error that the request itself caused.
fn failure_of(parts: &Parts, data: &Bytes, clock: Clock) -> Option<FailedAttempt> {
    let status = parts.status;
    let failure = |class, text| FailedAttempt {
        class,
        text,
        retry_after: retry_after(&parts.headers, clock),
        answer: Ok((parts.clone(), data.clone())),
    };
    if status.is_success() {
        if data.is_empty() {
            let detail = format!("an empty answer with status {}", status.as_u16());
            return Some(failure(
                AnswerClass::Transient,
                FailureText { cause: "empty answer".to_owned(), detail },
            ));
        }
        let (class, text) = error_in_answer(data)?;
        let detail = format!("an error in an answer with status {}: {text}", status.as_u16());
        return Some(failure(class, FailureText { cause: "error in the answer".to_owned(), detail }));
    }
    let class = classify(status, data);
    (class != AnswerClass::Answer).then(|| {
        let detail = format!("status {status}: {}", error_text(data));
        failure(class, FailureText { cause: format!("status {}", status.as_u16()), detail })
    })
}

/// The pause of `retry-after-ms` or `retry-after`: seconds, or a date.
fn retry_after(headers: &HeaderMap, clock: Clock) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let seconds =
        |text: &str| text.parse::<f64>().ok().and_then(|number| Duration::try_from_secs_f64(number).ok());
    if let Some(pause) = text("retry-after-ms").and_then(seconds) {
        return Some(pause / 1000);
    }
    let text = text("retry-after")?;
    seconds(text).or_else(|| {
        let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
        let micros = date.as_microsecond().saturating_sub(clock.now_micros());
        Some(Duration::from_micros(u64::try_from(micros).unwrap_or(0)))
    })
}

/// A failed attempt without an answer of the provider.
fn no_answer(cause: &str, detail: &str, status: StatusCode) -> FailedAttempt {
    let text = FailureText { cause: cause.to_owned(), detail: detail.to_owned() };
    FailedAttempt { class: AnswerClass::Transient, text, retry_after: None, answer: Err(status) }
}

fn respond(parts: Parts, body: WorldBody) -> Response<WorldBody> {
    let mut response = Response::new(body);
    *response.status_mut() = parts.status;
    let headers = parts.headers.iter().filter(|(name, _)| !DROPPED_HEADERS.contains(&name.as_str()));
    response.headers_mut().extend(headers.map(|(name, value)| (name.clone(), value.clone())));
    response
}

fn upstream_request(
    trial: &ActiveTrial,
    upstream: &Upstream,
    call: ModelCall,
    received: &WorldRequest,
) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
    let path = received.path.strip_prefix("/v1").unwrap_or(&received.path);
    let query = received.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
    let mut request = Request::builder()
        .method(received.method.clone())
        .uri(format!("{}{path}{query}", upstream.base))
        .body(Full::new(received.body.clone()))?;
    let propagate = trial.settings().propagate.as_ref();
    let forwarded = received
        .headers
        .iter()
        .filter(|(name, _)| !DROPPED_HEADERS.contains(&name.as_str()) && Some(*name) != propagate);
    let headers: &mut HeaderMap = request.headers_mut();
    headers.extend(forwarded.map(|(name, value)| (name.clone(), value.clone())));
    headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
    for (name, value) in &upstream.headers {
        headers.insert(name.clone(), value.clone());
    }
    if upstream.identify {
        let identifiers = [
            ("foreshadow-case", trial.case().recording.case.to_string()),
            ("foreshadow-trial", trial.number().to_string()),
            ("foreshadow-call", call.number.to_string()),
            ("foreshadow-seed", trial.endpoint().seed.to_string()),
        ];
        for (name, text) in identifiers {
            // A case id that is no valid header value is left out.
            if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
    }
    Ok(request)
}

/// Records that the provider failed the call after all attempts: the trial ends as `infrastructure`, whatever the
/// candidate makes of the answer.
fn failed(trial: &ActiveTrial, seq: usize, failure: FailedAttempt) -> Response<WorldBody> {
    let FailedAttempt { class, text, answer, .. } = failure;
    let settings = trial.settings();
    if class == AnswerClass::Refusal {
        settings.provider_health.refused(&text.detail);
    }
    let detail = text.detail.clone();
    trial.provider_failed(seq, text);
    let (status, bytes) = match &answer {
        Ok((parts, bytes)) => (parts.status, bytes.clone()),
        Err(status) => (*status, Bytes::new()),
    };
    trial.finish(seq, |exchange| {
        exchange.status = Some(status.as_u16());
        exchange.response = bytes;
        // An error answer is complete.
        exchange.ending = Some(if answer.is_ok() { Ending::Complete } else { Ending::Failed });
        exchange.ending_detail = Some(detail.clone());
    });
    let mut response = match answer {
        Ok((parts, bytes)) => respond(parts, full_body(bytes)),
        Err(status) => error_response(status, &format!("model provider: {detail}")),
    };
    let (name, value) = NO_RETRY;
    response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_of_the_provider_is_read_as_seconds_milliseconds_or_a_date() {
        let clock = Clock::new(|| 784_111_777_000_000);
        let of = |name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            retry_after(&headers, clock)
        };
        assert_eq!(of("retry-after", "7"), Some(Duration::from_secs(7)));
        assert_eq!(of("retry-after", "0.5"), Some(Duration::from_millis(500)));
        assert_eq!(of("retry-after-ms", "250"), Some(Duration::from_millis(250)));
        assert_eq!(of("retry-after", "Sun, 06 Nov 1994 08:49:47 GMT"), Some(Duration::from_secs(10)));
        assert_eq!(of("retry-after", "Sun, 06 Nov 1994 08:49:00 GMT"), Some(Duration::ZERO));
        assert_eq!(of("retry-after", "-1"), None);
        assert_eq!(of("x-other", "1"), None);
    }
}
