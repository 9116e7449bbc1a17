//! The weights that are compiled in, as `weights/make` lays them out (`weights/README.md`).

use pulp::Simd;

use crate::matrix::PANEL;

/// Numbers of a hidden state.
pub(crate) const HIDDEN: usize = 384;

/// Heads of an attention; each has [`PANEL`] of the hidden numbers.
pub(crate) const HEADS: usize = HIDDEN / PANEL;

/// Word pieces of the vocabulary.
pub(crate) const VOCABULARY: usize = 30_522;

/// Places of a window.
pub(crate) const PLACES: usize = 256;

const LAYERS: usize = 6;
/// Numbers of a state within the second half of a layer.
pub(crate) const WIDE: usize = 4 * HIDDEN;

/// Inputs of a dense layer that share a scale.
const GROUP: usize = 64;

const MAGIC: &[u8] = b"MiniLM-L6-H384 int8 v1\n\0\0\0\0\0\0\0\0\0";

static FILE: &[u8] = include_bytes!("../weights/all-MiniLM-L6-v2.i8");

/// One number for each of a hidden state's.
pub(crate) type Row = [f32; HIDDEN];

/// A weight and a bias to normalise with.
#[derive(Debug)]
pub(crate) struct Norm {
    pub(crate) weight: Row,
    pub(crate) bias: Row,
}

/// A dense layer of `K` inputs in panels of 32 outputs: int8 weights, a scale for each 64 inputs of an output, a bias.
#[derive(Debug)]
pub(crate) struct Dense<const K: usize> {
    weights: &'static [[[u8; PANEL]; K]],
    scales: Vec<[f32; PANEL]>,
    biases: Vec<[f32; PANEL]>,
}

/// One layer of the transformer.
#[derive(Debug)]
pub(crate) struct Layer {
    /// Queries, keys and values: a panel a head, 12 of each.
    pub(crate) ask: Dense<HIDDEN>,
    pub(crate) mix: Dense<HIDDEN>,
    pub(crate) mix_norm: Norm,
    pub(crate) widen: Dense<HIDDEN>,
    pub(crate) narrow: Dense<WIDE>,
    pub(crate) narrow_norm: Norm,
}

/// All of the model's numbers.
#[derive(Debug)]
pub(crate) struct Weights {
    words: &'static [[u8; HIDDEN]],
    word_scales: Vec<f32>,
    places: Vec<Row>,
    pub(crate) norm: Norm,
    pub(crate) layers: Vec<Layer>,
}

impl Weights {
    /// Reads the file that is compiled in; its int8 numbers stay where they are.
    pub(crate) fn compiled_in() -> Self {
        let mut file = File(FILE);
        assert_eq!(file.take(MAGIC.len()), MAGIC, "the file of weights begins with its name");
        let words = file.take(VOCABULARY * HIDDEN).as_chunks().0;
        let word_scales = file.floats(VOCABULARY);
        let places = file.floats(PLACES * HIDDEN).as_chunks().0.to_vec();
        let norm = file.norm();
        let layers = (0..LAYERS).map(|_| file.layer()).collect();
        assert!(file.0.is_empty(), "the file of weights ends after the last layer");
        Self { words, word_scales, places, norm, layers }
    }

    /// What a word piece at a place starts as; not normalised yet.
    #[inline(always)]
    pub(crate) fn start(&self, word: u16, place: usize, row: &mut Row) {
        let word = usize::from(word);
        let scale = self.word_scales[word];
        for ((x, whole), place) in row.iter_mut().zip(&self.words[word]).zip(&self.places[place]) {
            *x = f32::from(whole.cast_signed()).mul_add(scale, *place);
        }
    }
}

impl<const K: usize> Dense<K> {
    /// The biases, a panel at a time.
    pub(crate) fn biases(&self) -> &[[f32; PANEL]] {
        &self.biases
    }

    /// The weights of a panel as real numbers: for each input, one for each of the 32 outputs.
    #[inline(always)]
    pub(crate) fn unpack<S: Simd>(&self, simd: S, panel: usize, into: &mut [[f32; PANEL]; K]) {
        for (into, whole) in into.as_flattened_mut().iter_mut().zip(self.weights[panel].as_flattened()) {
            *into = f32::from(whole.cast_signed());
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

/// What is left to read.
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
        let mut row = || self.floats(HIDDEN).try_into().expect("as many as were asked for");
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
            ask: self.dense(3 * HIDDEN),
            mix: self.dense(HIDDEN),
            mix_norm: self.norm(),
            widen: self.dense(WIDE),
            narrow: self.dense(HIDDEN),
            narrow_norm: self.norm(),
        }
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn the_name_of_the_model_holds_the_digest_of_its_weights() {
        let digest = Sha256::digest(FILE);
        let short: String = digest[..4].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(crate::MODEL, format!("all-MiniLM-L6-v2/int8-{short}"));
    }

    #[test]
    fn the_file_is_read_to_its_end() {
        let weights = Weights::compiled_in();
        assert_eq!((weights.layers.len(), weights.places.len()), (LAYERS, PLACES));
    }
}
