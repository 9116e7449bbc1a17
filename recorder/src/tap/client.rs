//! The way to the upstreams: pooled HTTP clients, one per route.
//!
//! Nothing is retried that may have been seen by the upstream, and no timeout is added: production has its own.

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

use super::body::Tee;
use crate::config::{Route, UpstreamHttp};

/// A pooled connection that was idle for this long is not used again: common servers close theirs after five seconds, and
/// a request on a closing connection would fail where the client's own would not have.
const POOL_IDLE: Duration = Duration::from_secs(4);

/// A client for upstreams.
pub(crate) type Upstream = Client<HttpsConnector<HttpConnector>, Tee>;

/// Roots that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The file of a route's roots.
    #[error("upstream-ca {path}: {detail}; give a PEM file with at least one certificate")]
    Roots {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The system's roots.
    #[error("the system's trusted certificates cannot be read ({0}); name a PEM file with `upstream-ca`")]
    SystemRoots(std::io::Error),
    /// TLS cannot be set up.
    #[error("TLS towards upstreams cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// The client of a route.
pub(super) fn client(route: &Route) -> Result<Upstream, ClientError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = match &route.upstream_ca {
        Some(path) => Some(read_roots(path)?),
        // Without an https upstream nothing is to be checked, and a system without roots is none of our business.
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
    client.http2_max_header_list_size(super::MAX_HEADER_BYTES);
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
