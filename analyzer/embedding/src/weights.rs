//! Weights of the model, compiled in. `weights/make` writes the file, `weights/README.md` describes its layout.

use pulp::Simd;

use crate::matrix::PANEL;

/// Width of a hidden state.
pub(crate) const HIDDEN: usize = 384;

/// Attention heads; each has [`PANEL`] columns of the hidden state.
pub(crate) const HEADS: usize = HIDDEN / PANEL;

/// Word pieces in the vocabulary.
pub(crate) const VOCABULARY: usize = 30_522;

/// Positions of a window, `[CLS]` and `[SEP]` included.
pub(crate) const POSITIONS: usize = 256;

const LAYERS: usize = 6;
/// Width of the intermediate state of a feed-forward block.
pub(crate) const INTERMEDIATE: usize = 4 * HIDDEN;

/// Inputs of a dense layer that share one scale.
const GROUP: usize = 64;

const MAGIC: &[u8] = b"MiniLM-L6-H384 int8 v1\n\0\0\0\0\0\0\0\0\0";

static FILE: &[u8] = include_bytes!("../weights/all-MiniLM-L6-v2.i8");

/// One hidden state.
pub(crate) type Row = [f32; HIDDEN];

/// Weight and bias of a layer normalisation.
#[derive(Debug)]
pub(crate) struct Norm {
    pub(crate) weight: Row,
    pub(crate) bias: Row,
}

/// A dense layer with `K` inputs, in panels of 32 outputs: int8 weights, one scale for each 64 inputs of an output, and
/// one bias for each output.
#[derive(Debug)]
pub(crate) struct Dense<const K: usize> {
    weights: &'static [[[u8; PANEL]; K]],
    scales: Vec<[f32; PANEL]>,
    biases: Vec<[f32; PANEL]>,
}

/// One layer of the transformer.
#[derive(Debug)]
pub(crate) struct Layer {
    /// Queries, keys and values as one layer: one panel per head, 12 panels each.
    pub(crate) query_key_value: Dense<HIDDEN>,
    pub(crate) attention_output: Dense<HIDDEN>,
    pub(crate) attention_norm: Norm,
    pub(crate) intermediate: Dense<HIDDEN>,
    pub(crate) output: Dense<INTERMEDIATE>,
    pub(crate) output_norm: Norm,
}

/// All parameters of the model.
#[derive(Debug)]
pub(crate) struct Weights {
    words: &'static [[u8; HIDDEN]],
    word_scales: Vec<f32>,
    positions: Vec<Row>,
    pub(crate) norm: Norm,
    pub(crate) layers: Vec<Layer>,
}

impl Weights {
    /// Parses the compiled-in file. The int8 weights are borrowed from it.
    pub(crate) fn compiled_in() -> Self {
        let mut file = File(FILE);
        assert_eq!(file.take(MAGIC.len()), MAGIC, "the file of weights starts with its magic bytes");
        let words = file.take(VOCABULARY * HIDDEN).as_chunks().0;
        let word_scales = file.floats(VOCABULARY);
        let positions = file.floats(POSITIONS * HIDDEN).as_chunks().0.to_vec();
        let norm = file.norm();
        let layers = (0..LAYERS).map(|_| file.layer()).collect();
        assert!(file.0.is_empty(), "the file of weights ends after the last layer");
        Self { words, word_scales, positions, norm, layers }
    }

    /// Embedding of a word piece at a position, before normalisation.
    #[inline(always)]
    pub(crate) fn embedding(&self, word: u16, position: usize, row: &mut Row) {
        let word = usize::from(word);
        let scale = self.word_scales[word];
        for ((x, quantised), offset) in row.iter_mut().zip(&self.words[word]).zip(&self.positions[position]) {
            *x = f32::from(quantised.cast_signed()).mul_add(scale, *offset);
        }
    }
}

impl<const K: usize> Dense<K> {
    /// Biases by panel.
    pub(crate) fn biases(&self) -> &[[f32; PANEL]] {
        &self.biases
    }

    /// Dequantises the weights of a panel: for each input, the 32 weights of the outputs.
    #[inline(always)]
    pub(crate) fn dequantise<S: Simd>(&self, simd: S, panel: usize, into: &mut [[f32; PANEL]; K]) {
        for (into, quantised) in into.as_flattened_mut().iter_mut().zip(self.weights[panel].as_flattened()) {
            *into = f32::from(quantised.cast_signed());
        }
        let scales = &self.scales[panel * (K / GROUP)..][..K / GROUP];
        for (into, scales) in into.chunks_exact_mut(GROUP).zip(scales) {
            let scales = S::as_simd_f32s(scales).0;
            for into in into {
                for (into, scale) in S::as_mut_simd_f32s(into).0.iter_mut().zip(scales) {
                    *into = simd.mul_f32s(*into, *scale);
                }
            }
        }
    }
}

/// The unread rest of the file.
struct File(&'static [u8]);

impl File {
    fn take(&mut self, bytes: usize) -> &'static [u8] {
        let (taken, left) = self.0.split_at(bytes);
        self.0 = left;
        taken
    }

    fn floats(&mut self, count: usize) -> Vec<f32> {
        let (chunks, _) = self.take(count * size_of::<f32>()).as_chunks();
        chunks.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    fn norm(&mut self) -> Norm {
        let mut row = || self.floats(HIDDEN).try_into().expect("floats returns the requested number");
        Norm { weight: row(), bias: row() }
    }

    fn dense<const K: usize>(&mut self, outputs: usize) -> Dense<K> {
        let weights = self.take(K * outputs).as_chunks().0.as_chunks().0;
        let scales = self.floats(K / GROUP * outputs).as_chunks().0.to_vec();
        let biases = self.floats(outputs).as_chunks().0.to_vec();
        Dense { weights, scales, biases }
    }

    fn layer(&mut self) -> Layer {
        Layer {
            query_key_value: self.dense(3 * HIDDEN),
            attention_output: self.dense(HIDDEN),
            attention_norm: self.norm(),
            intermediate: self.dense(INTERMEDIATE),
            output: self.dense(HIDDEN),
            output_norm: self.norm(),
        }
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn the_model_name_contains_the_digest_of_the_weights() {
        let digest = Sha256::digest(FILE);
        let short: String = digest[..4].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(crate::MODEL, format!("all-MiniLM-L6-v2/int8-{short}"));
    }

    #[test]
    fn the_file_has_six_layers_and_256_positions() {
        let weights = Weights::compiled_in();
        assert_eq!((weights.layers.len(), weights.positions.len()), (LAYERS, POSITIONS));
    }
}
