//! The HTTP client for candidates and model providers: HTTP/1.1, HTTP/2, and TLS for `https` URLs.
//!
//! The client neither retries nor follows redirects, because a replay measures the candidate's first answer.

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};

/// A client with a connection pool.
pub(crate) type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Makes a client. With `tls` it trusts the root certificates of the system.
///
/// Reading the certificates takes milliseconds and blocks; call it with `tls` from a blocking thread.
pub(crate) fn http_client(tls: bool) -> HttpClient {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let builder = || {
        ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("ring supports the default TLS versions")
    };
    // Without certificates `http` URLs still work, and each `https` request reports the missing roots.
    let native = tls.then(|| builder().with_native_roots().ok()).flatten();
    let config = match native {
        Some(config) => config.with_no_client_auth(),
        None => builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth(),
    };
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    let https = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_all_versions();
    Client::builder(TokioExecutor::new()).build(https.wrap_connector(http))
}

/// An error followed by its causes: hyper puts the cause in the source chain.
pub(crate) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
