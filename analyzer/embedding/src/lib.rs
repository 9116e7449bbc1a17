//! Sentence embeddings with all-MiniLM-L6-v2: a text becomes a unit vector of 384 numbers. The cosine of two vectors
//! measures the similarity of meaning.
//!
//! Pure: no file, network, clock or randomness. The binary contains the weights (int8, 23 MB) and the vocabulary;
//! `weights/README.md` names their source. The vector of a text is the same bit by bit for any batch, number of threads
//! and processor: sums run in one fixed order, and every multiply-add is fused, in software if the processor has no
//! instruction for it.
//!
//! The crate does not train and reads no other model. For another model, configure an HTTP endpoint.

mod activation;
mod embedder;
mod matrix;
mod model;
mod tokenizer;
mod weights;

pub use embedder::{DIMENSIONS, Embedder, MODEL, Vector, WINDOW};
