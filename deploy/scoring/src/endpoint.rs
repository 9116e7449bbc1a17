//! A service that JSON is posted to: bounded answers, bounded time, bounded tries, no redirects.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, StatusCode, Url};
use schemas::variables::expand;

use crate::budget::Budget;
use crate::config::Retry;
use crate::grade::quoted;

/// The longest pause before a request is made again, whatever the service asks for.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// How much of a refusal is read, bytes.
const MAX_REFUSAL_BYTES: usize = 4 << 10;

/// A service.
#[derive(Debug)]
pub(crate) struct Endpoint {
    client: Client,
    url: Url,
    headers: HeaderMap,
    retry: Retry,
    max_bytes: usize,
}

/// One try that did not lead to an answer.
struct Refused {
    detail: String,
    /// Whether another try may help.
    passing: bool,
    /// How long the service asks to wait before it.
    asked: Option<Duration>,
}

impl Endpoint {
    /// Takes an address (`path` is added to it), headers, and the bounds of a request.
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
            .ok_or_else(|| anyhow!("url: {whole:?} is not a URL that begins with http:// or https://"))?;
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
        let client = client.context("the HTTP client cannot be made")?;
        Ok(Self { client, url, headers: map, retry: retry.clone(), max_bytes })
    }

    /// Posts a body and reads the answer of a 2xx status; a passing failure is tried again. Nothing where the budget
    /// forbids another try.
    ///
    /// # Errors
    /// Says what the last try met.
    pub(crate) async fn post(&self, body: &str, budget: &Budget) -> Result<Option<Vec<u8>>, String> {
        let mut tries = 0;
        loop {
            if !budget.try_request() {
                return Ok(None);
            }
            let Refused { detail, passing, asked } = match self.once(body.to_owned()).await {
                Ok(answer) => return Ok(Some(answer)),
                Err(refused) => refused,
            };
            if !passing || tries >= self.retry.times {
                let times = if tries == 0 { String::new() } else { format!(" (tried {} times)", tries + 1) };
                return Err(format!("{detail}{times}"));
            }
            let pause = self.retry.pause.saturating_mul(1 << tries.min(10));
            tries += 1;
            tokio::time::sleep(asked.unwrap_or(pause).min(MAX_PAUSE)).await;
        }
    }

    async fn once(&self, body: String) -> Result<Vec<u8>, Refused> {
        let host = self.url.host_str().unwrap_or_default();
        let lost = |error: reqwest::Error| {
            let detail = format!("no answer from {host}: {}", causes(&error));
            Refused { detail, passing: !error.is_builder(), asked: None }
        };
        let request = self.client.post(self.url.clone()).headers(self.headers.clone()).body(body);
        let mut response = request.send().await.map_err(lost)?;
        let status = response.status();
        let most = if status.is_success() { self.max_bytes } else { MAX_REFUSAL_BYTES };
        let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let mut answer = Vec::new();
        while let Some(part) = response.chunk().await.map_err(lost)? {
            if answer.len() + part.len() > most {
                if !status.is_success() {
                    answer.extend_from_slice(&part[..most - answer.len()]);
                    break;
                }
                let detail = format!("{host} answered with more than {most} bytes");
                return Err(Refused { detail, passing: false, asked: None });
            }
            answer.extend_from_slice(&part);
        }
        if status.is_success() {
            return Ok(answer);
        }
        let passing = status.is_server_error()
            || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
        let detail = format!("{host} answered {status}: {}", quoted(&String::from_utf8_lossy(&answer)));
        Err(Refused { detail, passing, asked: asked.map(Duration::from_secs) })
    }
}

/// An error with what is behind it, without the address, which may hold a secret.
fn causes(error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut cause = std::error::Error::source(error);
    while let Some(found) = cause {
        causes.push(found.to_string());
        cause = found.source();
    }
    if error.is_timeout() {
        causes.insert(0, "it took too long".to_owned());
    }
    if causes.is_empty() { "the request failed".to_owned() } else { causes.join(": ") }
}
