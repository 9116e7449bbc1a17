//! A sentence model inside the binary: all-MiniLM-L6-v2, texts to unit vectors of 384 numbers whose cosine says how
//! near two texts are in meaning.
//!
//! Pure: no file, no network, no clock, no randomness. The weights (int8, about 23 MB) and the vocabulary are compiled
//! in; `weights/README.md` says where they come from. A text has one vector, bit by bit, whatever else is embedded
//! with it, on however many threads and on whatever processor: every sum is taken in one fixed order, and every
//! product is added in one rounding (fused), by an instruction where there is one and in software elsewhere.
//!
//! It does not train, does not know other models, and does not read other files of weights: another model is reached
//! through an endpoint.

mod activation;
mod embedder;
mod matrix;
mod model;
mod tokenizer;
mod weights;

pub use embedder::{DIMENSIONS, Embedder, MODEL, Vector, WINDOW};
