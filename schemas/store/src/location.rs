//! Opens the location of a store: a directory, or a prefix in an S3 bucket.
//!
//! S3 is configured by the environment, like other S3 clients: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
//! `AWS_SESSION_TOKEN`, `AWS_REGION`, `AWS_ENDPOINT_URL`, `AWS_ALLOW_HTTP`, or the role of the machine.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{BackoffConfig, RetryConfig};

use crate::error::StoreError;

/// Retries of a request that failed for a transient reason.
const RETRIES: usize = 6;

/// Longest time spent on one request with its retries.
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest pause between two tries.
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// Codes of S3 for a refused request.
const DENIAL_CODES: [&str; 4] =
    ["AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "403 Forbidden"];

/// An opened location.
pub(crate) struct Location {
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) root: Path,
    /// Bucket of an S3 location.
    pub(crate) bucket: Option<Arc<str>>,
}

/// Opens a location. A directory need not exist, a bucket must.
pub(crate) fn open(location: &str) -> Result<Location, StoreError> {
    match location.split_once("://") {
        None => folder(location, PathBuf::from(location)),
        Some(("file", path)) => folder(location, PathBuf::from(path)),
        Some(("s3", rest)) => bucket(location, rest),
        Some((scheme, _)) => {
            Err(invalid_location(location, format!("scheme {scheme} is not supported by this build")))
        }
    }
}

fn invalid_location(location: &str, detail: String) -> StoreError {
    StoreError::Location { location: location.to_owned(), detail }
}

fn folder(location: &str, folder: PathBuf) -> Result<Location, StoreError> {
    let folder =
        std::path::absolute(&folder).map_err(|error| invalid_location(location, error.to_string()))?;
    if folder.is_file() {
        return Err(invalid_location(location, "is a file, not a directory".to_owned()));
    }
    let root =
        Path::from_absolute_path(&folder).map_err(|error| invalid_location(location, error.to_string()))?;
    let store = Arc::new(LocalFileSystem::new().with_fsync(true));
    Ok(Location { objects: store, root, bucket: None })
}

fn bucket(location: &str, rest: &str) -> Result<Location, StoreError> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err(invalid_location(location, "the bucket is missing, as in s3://bucket/prefix".to_owned()));
    }
    let prefix = prefix.trim_end_matches('/');
    let root = Path::parse(prefix).map_err(|error| invalid_location(location, error.to_string()))?;
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        let detail = "no TLS provider is installed in this process; install one before opening it";
        return Err(invalid_location(location, detail.to_owned()));
    }
    let retry = RetryConfig {
        max_retries: RETRIES,
        retry_timeout: RETRY_TIMEOUT,
        backoff: BackoffConfig { max_backoff: MAX_BACKOFF, ..BackoffConfig::default() },
    };
    let store = AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(retry).build();
    let store = store.map_err(|error| invalid_location(location, error.to_string()))?;
    Ok(Location { objects: Arc::new(store), root, bucket: Some(Arc::from(bucket)) })
}

/// Turns a failed request into the error that names its cause: no such bucket, no credentials, not allowed, or else the
/// failure itself.
pub(crate) fn explain(
    location: String,
    path: String,
    bucket: Option<&str>,
    source: object_store::Error,
) -> StoreError {
    let text = source.to_string();
    let has_code = |codes: &[&str]| codes.iter().any(|code| text.contains(code));
    match (&source, bucket) {
        // object_store has no error kinds for these: only the code in the answer's body tells them apart.
        (_, Some(bucket)) if has_code(&["NoSuchBucket"]) => {
            StoreError::NoBucket { location, bucket: bucket.to_owned() }
        }
        (
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. },
            Some(_),
        ) => StoreError::Denied { location, path, detail: text },
        (_, Some(_)) if has_code(&DENIAL_CODES) => StoreError::Denied { location, path, detail: text },
        // Without keys the client asks the metadata service of the machine, at a link-local address.
        (object_store::Error::Generic { .. }, Some(_)) if has_code(&["169.254."]) => {
            StoreError::NoCredentials { location }
        }
        _ => StoreError::Object { location, path, source },
    }
}
