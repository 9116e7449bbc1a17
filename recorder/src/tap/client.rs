//! HTTP clients of the upstreams: one connection pool per route.
//!
//! The client retries no request that the upstream may have seen, and adds no timeout: callers have their own.

use std::io::BufReader;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::body::TapBody;
use crate::config::{Route, UpstreamHttp};

/// Idle time after which a pooled connection is not used again. Common servers close theirs after five seconds, and a
/// request on a closing connection would fail where the client's own connection would not.
const POOL_IDLE: Duration = Duration::from_secs(4);

/// Bytes of the headers of one HTTP/2 message. The default of 16 KiB would refuse messages that pass without the tap.
pub(super) const MAX_HEADER_BYTES: u32 = 1 << 20;

/// Client of one upstream.
pub(super) type Upstream = Client<HttpsConnector<HttpConnector>, TapBody>;

/// An error that keeps the client of an upstream from being created.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The file of `route.upstream-ca`.
    #[error("upstream-ca {path}: {detail}; give a PEM file with at least one certificate")]
    Roots {
        /// `route.upstream-ca`.
        path: PathBuf,
        /// Problem with the file.
        detail: String,
    },
    /// The system's root certificates.
    #[error("root certificates of the system cannot be read ({0}); set `upstream-ca` to a PEM file")]
    SystemRoots(std::io::Error),
    /// The TLS configuration is refused.
    #[error("TLS client cannot be created: {0}")]
    Tls(#[from] rustls::Error),
}

/// Creates the client of a route.
pub(super) fn client(route: &Route) -> Result<Upstream, ClientError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = match &route.upstream_ca {
        Some(path) => Some(read_roots(path)?),
        // A plain-http upstream needs no root certificates, so a system without any is no error.
        None if route.upstream.uri().scheme_str() == Some("http") => Some(RootCertStore::empty()),
        None => None,
    };
    let builder = match roots {
        Some(roots) => {
            let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
            HttpsConnectorBuilder::new()
                .with_tls_config(tls.with_root_certificates(roots).with_no_client_auth())
        }
        None => HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(provider)
            .map_err(ClientError::SystemRoots)?,
    };
    let builder = builder.https_or_http();
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    let connector = match route.upstream_http {
        UpstreamHttp::Auto => builder.enable_http1().enable_http2().wrap_connector(http),
        UpstreamHttp::Http1 => builder.enable_http1().wrap_connector(http),
        UpstreamHttp::Http2 => builder.enable_http2().wrap_connector(http),
    };
    let mut client = Client::builder(TokioExecutor::new());
    client.pool_timer(TokioTimer::new()).timer(TokioTimer::new()).pool_idle_timeout(POOL_IDLE);
    client.http2_max_header_list_size(MAX_HEADER_BYTES);
    client.http1_preserve_header_case(true).http2_only(route.upstream_http == UpstreamHttp::Http2);
    Ok(client.build(connector))
}

fn read_roots(path: &PathBuf) -> Result<RootCertStore, ClientError> {
    let failed = |detail: String| ClientError::Roots { path: path.clone(), detail };
    let file = std::fs::File::open(path).map_err(|error| failed(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_reader_iter(BufReader::new(file)) {
        let certificate = certificate.map_err(|error| failed(error.to_string()))?;
        roots.add(certificate).map_err(|error| failed(error.to_string()))?;
    }
    if roots.is_empty() { Err(failed("no certificate found".to_owned())) } else { Ok(roots) }
}
