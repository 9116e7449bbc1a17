//! The HTTP client of a replay: candidates and model providers, HTTP/1.1 and HTTP/2, TLS where the URL says so.
//!
//! No retries and no redirects: what a candidate does is measured as it is.

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};

/// The client.
pub(crate) type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Makes a client; with `tls` the certificates of the system are trusted, where there are any. Reading them takes a
/// while, so a replay that only speaks plain HTTP does without.
pub(crate) fn http_client(tls: bool) -> HttpClient {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let builder = || {
        ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("ring speaks the default TLS versions")
    };
    // A system without certificates can still reach every http:// address; an https:// one then says what it lacks.
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
