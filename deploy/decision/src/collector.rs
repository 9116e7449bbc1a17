//! Client of an OpenTelemetry collector: OTLP over HTTP with JSON.
//!
//! The verdict is written first, so an unreachable collector changes neither verdict nor exit code.

use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Url};

/// Time limit of the request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// A collector with its headers.
#[derive(Debug, Clone)]
pub struct Collector {
    url: Url,
    headers: HeaderMap,
}

impl Collector {
    /// Parses the URL of a collector and comma-separated `name=value` headers.
    ///
    /// # Errors
    /// The URL or a header is invalid; the error does not contain a header value.
    pub fn parse(address: &str, headers: Option<&str>) -> anyhow::Result<Self> {
        let mut url = Url::parse(address)
            .with_context(|| format!("--otlp {address} is not a URL; expected http://HOST:4318"))?;
        if !matches!(url.scheme(), "http" | "https") {
            bail!("--otlp {address} has another scheme than http and https; expected http://HOST:4318");
        }
        // OTLP/HTTP puts each signal below the base URL.
        if !url.path().ends_with("/v1/logs") {
            let base = url.path().trim_end_matches('/').to_owned();
            url.set_path(&format!("{base}/v1/logs"));
        }
        let mut parsed = HeaderMap::new();
        for pair in headers.unwrap_or_default().split(',').filter(|pair| !pair.trim().is_empty()) {
            let (name, value) = pair.split_once('=').with_context(|| {
                "OTEL_EXPORTER_OTLP_HEADERS: expected comma-separated name=value pairs".to_owned()
            })?;
            let name: HeaderName =
                name.trim().parse().context("OTEL_EXPORTER_OTLP_HEADERS: a name is not a header name")?;
            let mut value: HeaderValue = value.trim().parse().with_context(|| {
                format!("OTEL_EXPORTER_OTLP_HEADERS: the value of {name} is not a header value")
            })?;
            value.set_sensitive(true);
            parsed.insert(name, value);
        }
        Ok(Self { url, headers: parsed })
    }

    /// Sends an export request (the contents of `otlp.json`).
    ///
    /// # Errors
    /// The collector cannot be reached or responds with an error status.
    pub async fn send(&self, request: Vec<u8>) -> anyhow::Result<()> {
        let client = Client::builder()
            .timeout(REQUEST_TIMEOUT)
            .build()
            .context("the HTTP client cannot be created")?;
        let answer = client
            .post(self.url.clone())
            .headers(self.headers.clone())
            .header(CONTENT_TYPE, "application/json")
            .body(request)
            .send()
            .await
            .with_context(|| format!("{} cannot be reached", self.url))?;
        if !answer.status().is_success() {
            bail!("{} responded {}", self.url, answer.status());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_logs_is_appended_once() {
        for (given, expected) in [
            ("http://localhost:4318", "http://localhost:4318/v1/logs"),
            ("http://localhost:4318/", "http://localhost:4318/v1/logs"),
            ("https://example.com/otlp/", "https://example.com/otlp/v1/logs"),
            ("https://example.com/otlp/v1/logs", "https://example.com/otlp/v1/logs"),
        ] {
            assert_eq!(Collector::parse(given, None).expect("an address").url.as_str(), expected);
        }
    }

    #[test]
    fn an_invalid_url_or_header_is_refused_without_showing_a_value() {
        for (address, headers) in [
            ("localhost", None),
            ("ftp://x", None),
            ("http://x", Some("secret")),
            ("http://x", Some("a b=secret")),
        ] {
            let error = format!("{:#}", Collector::parse(address, headers).expect_err("refused"));
            assert!(!error.contains("secret"), "{error}");
        }
        let collector =
            Collector::parse("http://x", Some("authorization=Bearer%20s3cret, x-a=1")).expect("fits");
        assert_eq!(collector.headers.len(), 2);
        assert!(!format!("{collector:?}").contains("s3cret"));
    }
}
