//! TLS of the listeners. It requests no client certificates.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::config::TlsConfig;

/// The certificate or key of `listen.tls` cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("listen.tls.{key} {path}: {detail}; set it to a PEM file")]
pub struct TlsError {
    key: &'static str,
    path: PathBuf,
    detail: String,
}

/// Reads certificate and key, and offers HTTP/2 and HTTP/1.1.
pub(super) fn acceptor(config: &TlsConfig) -> Result<TlsAcceptor, TlsError> {
    let chain = CertificateDer::pem_file_iter(&config.cert).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|error| failed("cert", &config.cert, &error))?;
    let key =
        PrivateKeyDer::from_pem_file(&config.key).map_err(|error| failed("key", &config.key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let tls = tls.and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
    let mut tls = tls.map_err(|error| failed("cert", &config.cert, &error))?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(tls)))
}

fn failed(key: &'static str, path: &Path, detail: &dyn std::fmt::Display) -> TlsError {
    TlsError { key, path: path.to_owned(), detail: detail.to_string() }
}
