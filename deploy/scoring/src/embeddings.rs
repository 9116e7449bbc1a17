//! Answers to vectors: by the model inside the binary, or by an OpenAI-compatible `/embeddings` endpoint.
//!
//! Each distinct text is embedded once. The model inside the binary reads a long text in windows; of a text that is too
//! long for the endpoint's configured bound the rest is not sent, and the report counts how many were.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context as _;
#[cfg(feature = "embedding")]
use embedding::{Embedder, MODEL, WINDOW};
use serde::Deserialize;
use serde_json::json;

use crate::budget::Budget;
use crate::config::{EmbeddingsConfig, ProviderKind};
use crate::endpoint::Endpoint;
use crate::grade::quoted;

/// The longest answer of an endpoint that is read, bytes.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Vectors of texts that were met before, at most: about 40 MB.
const MAX_REMEMBERED: usize = 25_000;

/// A text as a vector.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Vector {
    /// Its numbers.
    pub(crate) numbers: Arc<[f32]>,
    /// Windows that the text was read in, where that is known.
    pub(crate) windows: Option<u32>,
}

/// Why texts did not become vectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EmbedError {
    /// A bound of the budget forbids it.
    Bound,
    /// It failed, and how.
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

/// What makes vectors.
#[derive(Debug)]
pub(crate) struct EmbeddingProvider {
    backend: Backend,
    /// The model's name.
    pub(crate) model: String,
    /// What tells two models, or ways of using one, apart.
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
    /// Takes a configuration; nothing where no vectors are wanted.
    ///
    /// # Errors
    /// Names the key and what is wrong with it.
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

    /// Whether so much of a text is not read.
    pub(crate) fn cuts(&self, text: &str) -> bool {
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
                    let answer = answer.ok_or(EmbedError::Bound)?;
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
    let made = tokio::task::spawn_blocking(move || {
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
    made.await.map_err(|error| EmbedError::Failed(format!("the sentence model panicked: {error}")))
}

/// The beginning of a text.
fn head(text: &str, max_bytes: usize) -> &str {
    let mut end = text.len().min(max_bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Reads the answer of an endpoint: one vector for each text, all of one length, none without a direction.
fn read(answer: &[u8], texts: usize) -> Result<Vec<Vector>, String> {
    let parsed: Answer = serde_json::from_slice(answer).map_err(|error| {
        format!("expected an embeddings answer ({error}), found {}", quoted(&String::from_utf8_lossy(answer)))
    })?;
    let mut vectors: Vec<Option<Vector>> = vec![None; texts];
    let length = parsed.data.first().map_or(0, |item| item.embedding.len());
    for Item { index, embedding } in parsed.data {
        let sound = embedding.iter().all(|number| number.is_finite())
            && embedding.iter().any(|number| *number != 0.0);
        if embedding.len() != length || !sound {
            return Err(format!("vector {index} has no direction, or another length than the first"));
        }
        let free = vectors.get_mut(index).filter(|place| place.is_none());
        let place = free.ok_or_else(|| format!("vector {index} is there twice, or of no text"))?;
        *place = Some(Vector { numbers: Arc::from(embedding), windows: None });
    }
    let found = vectors.iter().flatten().count();
    vectors.into_iter().collect::<Option<Vec<_>>>().ok_or(format!("expected {texts} vectors, found {found}"))
}

/// Vectors of texts that were met before.
#[derive(Debug, Default)]
pub(crate) struct EmbeddingCache {
    known: HashMap<blake3::Hash, Vector>,
    length: Option<usize>,
}

impl EmbeddingCache {
    /// The vectors of these texts, in their order; each distinct one that was not met before is embedded.
    ///
    /// # Errors
    /// A bound was reached, or the model failed.
    pub(crate) async fn vectors(
        &mut self,
        provider: &EmbeddingProvider,
        texts: &[&str],
        budget: &Budget,
    ) -> Result<Vec<Vector>, EmbedError> {
        if self.known.len() + texts.len() > MAX_REMEMBERED {
            self.known.clear();
        }
        let names: Vec<blake3::Hash> = texts.iter().map(|text| blake3::hash(text.as_bytes())).collect();
        let mut new: Vec<(blake3::Hash, String)> = Vec::new();
        let mut asked = std::collections::HashSet::new();
        for (name, text) in names.iter().zip(texts) {
            if !self.known.contains_key(name) && asked.insert(*name) {
                new.push((*name, (*text).to_owned()));
            }
        }
        if !new.is_empty() {
            let (new, texts): (Vec<_>, Vec<_>) = new.into_iter().unzip();
            let made = provider.embed(texts, budget).await?;
            for vector in &made {
                let length = *self.length.get_or_insert(vector.numbers.len());
                if vector.numbers.len() != length {
                    let found = vector.numbers.len();
                    return Err(EmbedError::Failed(format!("vectors of {length} and of {found} numbers")));
                }
            }
            self.known.extend(new.into_iter().zip(made));
        }
        let of = |name: &blake3::Hash| self.known.get(name).cloned();
        let missing = || EmbedError::Failed("a text has no vector".to_owned());
        names.iter().map(of).collect::<Option<Vec<_>>>().ok_or_else(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_one_sound_vector_for_each_text() {
        let of = |text: &str, texts| read(text.as_bytes(), texts);
        let good = "{\"data\":[{\"index\":1,\"embedding\":[0,2]},{\"index\":0,\"embedding\":[1,0]}],\"model\":\"m\"}";
        let vectors = of(good, 2).expect("vectors");
        assert_eq!((vectors[0].numbers[0], vectors[1].numbers[1]), (1.0, 2.0));
        assert!(of(good, 3).expect_err("too few").contains("expected 3 vectors, found 2"));
        assert!(of(good, 1).expect_err("too many").contains("of no text"));
        let twice = "{\"data\":[{\"index\":0,\"embedding\":[1]},{\"index\":0,\"embedding\":[1]}]}";
        assert!(of(twice, 2).expect_err("twice").contains("twice"));
        assert!(of("{\"data\":[{\"index\":0,\"embedding\":[0,0]}]}", 1).is_err());
        assert!(of("{\"data\":[{\"index\":0,\"embedding\":[1e39]}]}", 1).is_err());
        let uneven = "{\"data\":[{\"index\":0,\"embedding\":[1]},{\"index\":1,\"embedding\":[1,2]}]}";
        assert!(of(uneven, 2).expect_err("uneven").contains("another length"));
        assert!(of("busy", 1).expect_err("no JSON").contains("\"busy\""));
    }

    #[test]
    fn a_text_is_cut_between_letters() {
        assert_eq!((head("aé", 2), head("aé", 3), head("aé", 9)), ("a", "aé", "aé"));
    }

    #[cfg(feature = "embedding")]
    #[tokio::test]
    async fn a_distinct_text_is_embedded_once_and_like_itself() {
        let provider = EmbeddingProvider::new(None, &|_| None).expect("built in").expect("is the default");
        let budget = Budget::new(&crate::config::Limits::default(), crate::budget::Cost::default());
        let mut memory = EmbeddingCache::default();
        let long = "word ".repeat(600);
        let vectors =
            memory.vectors(&provider, &["hello", "bye", "hello", &long], &budget).await.expect("vectors");
        assert_eq!(vectors[0], vectors[2]);
        assert_ne!(vectors[0].numbers, vectors[1].numbers);
        assert_eq!((vectors[0].windows, vectors[3].windows), (Some(1), Some(3)));
        assert_eq!(memory.known.len(), 3);
    }
}
