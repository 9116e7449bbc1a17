//! A request to the world, after its trial prefix was removed.

use bytes::Bytes;
use hyper::Method;

/// A request with its complete body.
#[derive(Debug)]
pub(crate) struct WorldRequest {
    pub(crate) method: Method,
    /// Path without the prefix `/t/<token>`.
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) headers: hyper::HeaderMap,
    pub(crate) body: Bytes,
}

impl WorldRequest {
    /// Path and query as an exchange stores them.
    pub(crate) fn path_and_query(&self) -> String {
        match &self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        }
    }
}
