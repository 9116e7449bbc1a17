//! Sending the events of a verdict to an OpenTelemetry collector: OTLP over HTTP, as JSON.
//!
//! The verdict does not hang on it: it is written before, and a collector that is away changes no exit code.

use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Url};

/// How long the collector may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the events go.
#[derive(Debug, Clone)]
pub struct Collector {
    url: Url,
    headers: HeaderMap,
}

impl Collector {
    /// Reads `--otlp` and the headers of `OTEL_EXPORTER_OTLP_HEADERS` (`name=value`, by commas, values per cent encoded or
    /// not).
    ///
    /// # Errors
    /// The address or a header is none.
    pub fn parse(address: &str, headers: Option<&str>) -> anyhow::Result<Self> {
        let mut url = Url::parse(address)
            .with_context(|| format!("--otlp {address} is no address; give http://HOST:4318"))?;
        if !matches!(url.scheme(), "http" | "https") {
            bail!("--otlp {address}: expected http or https; give http://HOST:4318");
        }
        // OTLP/HTTP: signals have paths of their own below the base address.
        if !url.path().ends_with("/v1/logs") {
            let base = url.path().trim_end_matches('/').to_owned();
            url.set_path(&format!("{base}/v1/logs"));
        }
        let mut parsed = HeaderMap::new();
        for pair in headers.unwrap_or_default().split(',').filter(|pair| !pair.trim().is_empty()) {
            let (name, value) = pair
                .split_once('=')
                .with_context(|| "OTEL_EXPORTER_OTLP_HEADERS: expected name=value, by commas".to_owned())?;
            let name: HeaderName =
                name.trim().parse().context("OTEL_EXPORTER_OTLP_HEADERS: a name is no header's")?;
            let mut value: HeaderValue = value.trim().parse().with_context(|| {
                format!("OTEL_EXPORTER_OTLP_HEADERS: the value of {name} is none of a header")
            })?;
            value.set_sensitive(true);
            parsed.insert(name, value);
        }
        Ok(Self { url, headers: parsed })
    }

    /// Sends an export request.
    ///
    /// # Errors
    /// The collector cannot be reached or refuses.
    pub async fn send(&self, request: Vec<u8>) -> anyhow::Result<()> {
        let client = Client::builder().timeout(PATIENCE).build().context("no HTTP client can be made")?;
        let answer = client
            .post(self.url.clone())
            .headers(self.headers.clone())
            .header(CONTENT_TYPE, "application/json")
            .body(request)
            .send()
            .await
            .with_context(|| format!("{} cannot be reached", self.url))?;
        if !answer.status().is_success() {
            bail!("{} answered {}", self.url, answer.status());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_logs_is_added_once() {
        for (given, meant) in [
            ("http://localhost:4318", "http://localhost:4318/v1/logs"),
            ("http://localhost:4318/", "http://localhost:4318/v1/logs"),
            ("https://example.com/otlp/", "https://example.com/otlp/v1/logs"),
            ("https://example.com/otlp/v1/logs", "https://example.com/otlp/v1/logs"),
        ] {
            assert_eq!(Collector::parse(given, None).expect("an address").url.as_str(), meant);
        }
    }

    #[test]
    fn what_is_no_address_or_header_is_refused_and_no_value_is_shown() {
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
