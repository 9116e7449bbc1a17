//! Embeddings of answers: by the built-in sentence model or by an OpenAI-compatible `/embeddings` endpoint.
//!
//! Each distinct text is embedded once. The built-in model reads a long text in several windows. An endpoint gets at most
//! `max-text-bytes` of a text; the report counts the truncated texts.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::Arc;

use anyhow::Context as _;
#[cfg(feature = "embedding")]
use embedding::{Embedder, MODEL, WINDOW};
use lru::LruCache;
use serde::Deserialize;
use serde_json::json;

use crate::budget::Budget;
use crate::config::{EmbeddingsConfig, ProviderKind};
use crate::endpoint::Endpoint;
use crate::grade::quoted;

/// Longest response of an endpoint, bytes.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Cached embeddings: about 40 MB of 384-dimensional vectors.
const MAX_CACHED: NonZeroUsize = NonZeroUsize::new(25_000).expect("25000 is not zero");

/// An embedding.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Vector {
    /// Components, all finite, not all zero.
    pub(crate) numbers: Arc<[f32]>,
    /// Number of windows of the text; `None` for an endpoint.
    pub(crate) windows: Option<u32>,
}

/// Why texts were not embedded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EmbedError {
    /// The budget is exhausted.
    Budget,
    /// The model failed, with the error text.
    Failed(String),
}

#[derive(Debug)]
enum Backend {
    #[cfg(feature = "embedding")]
    BuiltIn(Arc<Embedder>),
    Http {
        endpoint: Box<Endpoint>,
        batch: usize,
        max_text_bytes: usize,
    },
}

/// A source of embeddings.
#[derive(Debug)]
pub(crate) struct EmbeddingProvider {
    backend: Backend,
    /// Name of the model.
    pub(crate) model: String,
    /// BLAKE3 of the settings that can change an embedding, hexadecimal.
    pub(crate) digest: String,
}

#[derive(Debug, Deserialize)]
struct Answer {
    data: Vec<Item>,
}

#[derive(Debug, Deserialize)]
struct Item {
    index: usize,
    embedding: Vec<f32>,
}

impl EmbeddingProvider {
    /// Creates the provider of a configuration; `None` if embeddings are off.
    ///
    /// # Errors
    /// The text names the unusable key, or the missing feature of the build.
    pub(crate) fn new(
        config: Option<&EmbeddingsConfig>,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> anyhow::Result<Option<Self>> {
        let by = config.map_or(ProviderKind::BuiltIn, |config| config.provider);
        match (by, config) {
            (ProviderKind::Off, _) => Ok(None),
            (ProviderKind::BuiltIn, _) | (ProviderKind::Http, None) => Self::built_in().map(Some),
            (ProviderKind::Http, Some(config)) => Self::http(config, env).context("embeddings").map(Some),
        }
    }

    #[cfg(feature = "embedding")]
    #[expect(clippy::unnecessary_wraps, reason = "a build without the sentence model refuses here")]
    fn built_in() -> anyhow::Result<Self> {
        let digest = blake3::hash(MODEL.as_bytes()).to_hex().to_string();
        Ok(Self { backend: Backend::BuiltIn(Arc::new(Embedder::new())), model: MODEL.to_owned(), digest })
    }

    #[cfg(not(feature = "embedding"))]
    fn built_in() -> anyhow::Result<Self> {
        anyhow::bail!(
            "this build has no sentence model: rebuild with --features embedding, or set score.embeddings.provider to \
             \"http\" or \"off\""
        )
    }

    fn http(config: &EmbeddingsConfig, env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<Self> {
        let EmbeddingsConfig { headers, timeout, retry, batch, max_text_bytes, .. } = config;
        let url = config.url.as_deref().unwrap_or_default();
        let model = config.model.clone().unwrap_or_default();
        let endpoint = Endpoint::new(url, "/embeddings", headers, *timeout, retry, MAX_ANSWER_BYTES, env)?;
        let identity = json!({"url": url, "model": model, "max_text_bytes": max_text_bytes}).to_string();
        let digest = blake3::hash(identity.as_bytes()).to_hex().to_string();
        let backend =
            Backend::Http { endpoint: Box::new(endpoint), batch: *batch, max_text_bytes: *max_text_bytes };
        Ok(Self { backend, model, digest })
    }

    /// Whether the provider truncates this text.
    pub(crate) fn truncates(&self, text: &str) -> bool {
        match &self.backend {
            #[cfg(feature = "embedding")]
            Backend::BuiltIn(_) => false,
            Backend::Http { max_text_bytes, .. } => text.len() > *max_text_bytes,
        }
    }

    /// Embeds distinct texts, in their order.
    async fn embed(&self, texts: Vec<String>, budget: &Budget) -> Result<Vec<Vector>, EmbedError> {
        match &self.backend {
            #[cfg(feature = "embedding")]
            Backend::BuiltIn(embedder) => embed_locally(embedder.clone(), texts).await,
            Backend::Http { endpoint, batch, max_text_bytes } => {
                let mut vectors = Vec::with_capacity(texts.len());
                for part in texts.chunks(*batch) {
                    let inputs: Vec<&str> = part.iter().map(|text| head(text, *max_text_bytes)).collect();
                    let body = json!({"model": self.model, "input": inputs, "encoding_format": "float"});
                    let answer =
                        endpoint.post(&body.to_string(), budget).await.map_err(EmbedError::Failed)?;
                    let answer = answer.ok_or(EmbedError::Budget)?;
                    vectors.extend(read(&answer, part.len()).map_err(EmbedError::Failed)?);
                }
                Ok(vectors)
            }
        }
    }
}

/// Runs the sentence model on a blocking thread.
#[cfg(feature = "embedding")]
async fn embed_locally(embedder: Arc<Embedder>, texts: Vec<String>) -> Result<Vec<Vector>, EmbedError> {
    let embedded = tokio::task::spawn_blocking(move || {
        let plain: Vec<&str> = texts.iter().map(String::as_str).collect();
        let windows = |text: &&str| embedder.word_pieces(text).div_ceil(WINDOW).max(1);
        let windows: Vec<usize> = plain.iter().map(windows).collect();
        let vectors = embedder.embed(&plain).into_iter().zip(windows);
        let vector = |(numbers, windows): ([f32; embedding::DIMENSIONS], usize)| Vector {
            numbers: Arc::from(&numbers[..]),
            windows: u32::try_from(windows).ok(),
        };
        vectors.map(vector).collect()
    });
    embedded.await.map_err(|error| EmbedError::Failed(format!("the sentence model panicked: {error}")))
}

/// The longest prefix of at most `max_bytes`, cut between characters.
fn head(text: &str, max_bytes: usize) -> &str {
    let mut end = text.len().min(max_bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Parses the response of an endpoint: one vector per text, all of one length, finite and not zero.
fn read(answer: &[u8], texts: usize) -> Result<Vec<Vector>, String> {
    let parsed: Answer = serde_json::from_slice(answer).map_err(|error| {
        format!(
            "expected an embeddings response ({error}), found {}",
            quoted(&String::from_utf8_lossy(answer))
        )
    })?;
    let mut vectors: Vec<Option<Vector>> = vec![None; texts];
    let length = parsed.data.first().map_or(0, |item| item.embedding.len());
    for Item { index, embedding } in parsed.data {
        let sound = embedding.iter().all(|number| number.is_finite())
            && embedding.iter().any(|number| *number != 0.0);
        if embedding.len() != length || !sound {
            return Err(format!("vector {index} is zero, not finite, or has another length than the first"));
        }
        let free = vectors.get_mut(index).filter(|place| place.is_none());
        let place = free.ok_or_else(|| format!("vector {index} occurs twice or belongs to no text"))?;
        *place = Some(Vector { numbers: Arc::from(embedding), windows: None });
    }
    let found = vectors.iter().flatten().count();
    vectors.into_iter().collect::<Option<Vec<_>>>().ok_or(format!("expected {texts} vectors, found {found}"))
}

/// Embeddings by BLAKE3 of the text; a new one evicts the least recently used.
#[derive(Debug)]
pub(crate) struct EmbeddingCache {
    known: LruCache<blake3::Hash, Vector>,
    length: Option<usize>,
}

impl Default for EmbeddingCache {
    fn default() -> Self {
        Self { known: LruCache::new(MAX_CACHED), length: None }
    }
}

impl EmbeddingCache {
    /// The embeddings of these texts, in their order; embeds each distinct text that is not cached.
    ///
    /// # Errors
    /// The budget is exhausted, or the model failed.
    pub(crate) async fn vectors(
        &mut self,
        provider: &EmbeddingProvider,
        texts: &[&str],
        budget: &Budget,
    ) -> Result<Vec<Vector>, EmbedError> {
        let keys: Vec<blake3::Hash> = texts.iter().map(|text| blake3::hash(text.as_bytes())).collect();
        // The result holds its own vectors: more distinct texts than the cache has entries still get one each.
        let mut found: HashMap<blake3::Hash, Vector> = HashMap::new();
        let mut missing: Vec<(blake3::Hash, String)> = Vec::new();
        let mut requested = HashSet::new();
        for (key, text) in keys.iter().zip(texts) {
            if let Some(vector) = self.known.get(key) {
                found.insert(*key, vector.clone());
            } else if requested.insert(*key) {
                missing.push((*key, (*text).to_owned()));
            }
        }
        if !missing.is_empty() {
            let (missing, texts): (Vec<_>, Vec<_>) = missing.into_iter().unzip();
            let vectors = provider.embed(texts, budget).await?;
            for (key, vector) in missing.into_iter().zip(vectors) {
                let length = *self.length.get_or_insert(vector.numbers.len());
                if vector.numbers.len() != length {
                    let found = vector.numbers.len();
                    return Err(EmbedError::Failed(format!(
                        "the model returned vectors of {length} and of {found} dimensions"
                    )));
                }
                self.known.put(key, vector.clone());
                found.insert(key, vector);
            }
        }
        let of = |key: &blake3::Hash| found.get(key).cloned();
        let incomplete = || EmbedError::Failed("the model returned fewer vectors than texts".to_owned());
        keys.iter().map(of).collect::<Option<Vec<_>>>().ok_or_else(incomplete)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_has_one_valid_vector_per_text() {
        let of = |text: &str, texts| read(text.as_bytes(), texts);
        let good = "{\"data\":[{\"index\":1,\"embedding\":[0,2]},{\"index\":0,\"embedding\":[1,0]}],\"model\":\"m\"}";
        let vectors = of(good, 2).expect("vectors");
        assert_eq!((vectors[0].numbers[0], vectors[1].numbers[1]), (1.0, 2.0));
        assert!(of(good, 3).expect_err("too few").contains("expected 3 vectors, found 2"));
        assert!(of(good, 1).expect_err("too many").contains("belongs to no text"));
        let twice = "{\"data\":[{\"index\":0,\"embedding\":[1]},{\"index\":0,\"embedding\":[1]}]}";
        assert!(of(twice, 2).expect_err("twice").contains("twice"));
        assert!(of("{\"data\":[{\"index\":0,\"embedding\":[0,0]}]}", 1).is_err());
        assert!(of("{\"data\":[{\"index\":0,\"embedding\":[1e39]}]}", 1).is_err());
        let uneven = "{\"data\":[{\"index\":0,\"embedding\":[1]},{\"index\":1,\"embedding\":[1,2]}]}";
        assert!(of(uneven, 2).expect_err("uneven").contains("another length"));
        assert!(of("busy", 1).expect_err("no JSON").contains("\"busy\""));
    }

    #[test]
    fn a_text_is_truncated_between_characters() {
        assert_eq!((head("aé", 2), head("aé", 3), head("aé", 9)), ("a", "aé", "aé"));
    }

    #[cfg(feature = "embedding")]
    #[tokio::test]
    async fn each_distinct_text_is_embedded_once() {
        let provider = EmbeddingProvider::new(None, &|_| None).expect("built in").expect("is the default");
        let budget = Budget::new(&crate::config::Limits::default(), crate::budget::Cost::default());
        let mut cache = EmbeddingCache::default();
        let long = "word ".repeat(600);
        let vectors =
            cache.vectors(&provider, &["hello", "bye", "hello", &long], &budget).await.expect("vectors");
        assert_eq!(vectors[0], vectors[2]);
        assert_ne!(vectors[0].numbers, vectors[1].numbers);
        assert_eq!((vectors[0].windows, vectors[3].windows), (Some(1), Some(3)));
        assert_eq!(cache.known.len(), 3);
    }
}
