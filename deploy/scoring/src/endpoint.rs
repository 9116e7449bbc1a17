//! A client of one JSON service: bounded responses, time and retries, no redirects.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use backon::{BackoffBuilder as _, ExponentialBuilder};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, StatusCode, Url};
use schemas::variables::expand;

use crate::budget::Budget;
use crate::config::Retry;
use crate::grade::quoted;

/// Longest pause before a retry, also for a `retry-after` header.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Longest part of an error response that is read, bytes.
const MAX_ERROR_BYTES: usize = 4 << 10;

/// A service with its headers and limits.
#[derive(Debug)]
pub(crate) struct Endpoint {
    client: Client,
    url: Url,
    headers: HeaderMap,
    retry: Retry,
    max_bytes: usize,
}

/// A failed attempt.
struct AttemptError {
    detail: String,
    /// A retry can succeed.
    retryable: bool,
    /// Value of the `retry-after` header.
    retry_after: Option<Duration>,
}

impl Endpoint {
    /// Creates a client for `url` with `path` appended.
    ///
    /// # Errors
    /// The text names the unusable key: `url` or `headers.NAME`.
    pub(crate) fn new(
        url: &str,
        path: &str,
        headers: &BTreeMap<String, String>,
        timeout: Duration,
        retry: &Retry,
        max_bytes: usize,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> anyhow::Result<Self> {
        let whole = format!("{}{path}", if path.is_empty() { url } else { url.trim_end_matches('/') });
        let parsed = Url::parse(&whole).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let url = parsed
            .ok_or_else(|| anyhow!("url: {whole:?} is not a URL that starts with http:// or https://"))?;
        let mut map = HeaderMap::new();
        for (name, text) in headers {
            let key = || format!("headers.{name}");
            let header =
                HeaderName::try_from(name).map_err(|_| anyhow!("not a header name")).with_context(key)?;
            let value = expand(text, env).map_err(|detail| anyhow!(detail)).with_context(key)?;
            let mut value =
                HeaderValue::try_from(value).map_err(|_| anyhow!("not a header value")).with_context(key)?;
            value.set_sensitive(true);
            map.insert(header, value);
        }
        map.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let client = Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(timeout).build();
        let client = client.context("the HTTP client cannot be created")?;
        Ok(Self { client, url, headers: map, retry: retry.clone(), max_bytes })
    }

    /// Posts a body and returns the body of a 2xx response; retries transient failures. `None` if the budget is exhausted.
    ///
    /// # Errors
    /// The text describes the failure of the last attempt.
    pub(crate) async fn post(&self, body: &str, budget: &Budget) -> Result<Option<Vec<u8>>, String> {
        let mut attempts = 0_u32;
        let mut pauses = self.pauses();
        loop {
            if !budget.try_request() {
                return Ok(None);
            }
            attempts += 1;
            let failed = match self.attempt(body.to_owned()).await {
                Ok(answer) => return Ok(Some(answer)),
                Err(failed) => failed,
            };
            let Some(pause) = pauses.next().filter(|_| failed.retryable) else {
                let times = if attempts == 1 { String::new() } else { format!(" ({attempts} attempts)") };
                return Err(format!("{}{times}", failed.detail));
            };
            tokio::time::sleep(failed.retry_after.unwrap_or(pause).min(MAX_PAUSE)).await;
        }
    }

    /// The pauses before the retries: each twice as long as the one before.
    fn pauses(&self) -> impl Iterator<Item = Duration> {
        ExponentialBuilder::new()
            .with_min_delay(self.retry.pause)
            .with_max_delay(MAX_PAUSE)
            .with_factor(2.0)
            .with_max_times(self.retry.times as usize)
            .build()
    }

    async fn attempt(&self, body: String) -> Result<Vec<u8>, AttemptError> {
        let host = self.url.host_str().unwrap_or_default();
        let lost = |error: reqwest::Error| {
            let detail = format!("no response from {host}: {}", causes(&error));
            AttemptError { detail, retryable: !error.is_builder(), retry_after: None }
        };
        let request = self.client.post(self.url.clone()).headers(self.headers.clone()).body(body);
        let mut response = request.send().await.map_err(lost)?;
        let status = response.status();
        let most = if status.is_success() { self.max_bytes } else { MAX_ERROR_BYTES };
        let retry_after =
            response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let mut answer = Vec::new();
        while let Some(part) = response.chunk().await.map_err(lost)? {
            if answer.len() + part.len() > most {
                if !status.is_success() {
                    answer.extend_from_slice(&part[..most - answer.len()]);
                    break;
                }
                let detail = format!("the response of {host} is longer than {most} bytes");
                return Err(AttemptError { detail, retryable: false, retry_after: None });
            }
            answer.extend_from_slice(&part);
        }
        if status.is_success() {
            return Ok(answer);
        }
        let retryable = status.is_server_error()
            || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
        let detail = format!("{host} responded {status}: {}", quoted(&String::from_utf8_lossy(&answer)));
        Err(AttemptError { detail, retryable, retry_after: retry_after.map(Duration::from_secs) })
    }
}

/// The causes of an error, without the URL, which can contain a secret.
fn causes(error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut cause = std::error::Error::source(error);
    while let Some(found) = cause {
        causes.push(found.to_string());
        cause = found.source();
    }
    if error.is_timeout() {
        causes.insert(0, "the request timed out".to_owned());
    }
    if causes.is_empty() { "the request failed".to_owned() } else { causes.join(": ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pause_is_twice_the_one_before_up_to_one_minute() {
        // Another test may have installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let retry = Retry { times: 4, pause: Duration::from_secs(20) };
        let url = "http://127.0.0.1:1";
        let endpoint = Endpoint::new(url, "", &BTreeMap::new(), Duration::from_secs(1), &retry, 1, &|_| None)
            .expect("a URL");
        let pauses: Vec<u64> = endpoint.pauses().map(|pause| pause.as_secs()).collect();
        assert_eq!(pauses, [20, 40, 60, 60]);
    }
}
