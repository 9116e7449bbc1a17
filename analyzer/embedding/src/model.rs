//! The transformer: from windows of word pieces to the sums of their last hidden states.
//!
//! All windows of a call are rows of one matrix in the dense layers; attention runs for each window by itself. Only the
//! last tile is padded. Some loops are written out instead of using closures: the compiler may compile a closure as a
//! function of its own, without the SIMD features of its caller.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use crate::activation::{exp, gelu, layer_norm, max, max_of_lanes, sum_of_lanes};
use crate::matrix::{PANEL, ROWS, Tile, add_product};
use crate::weights::{Dense, HEADS, HIDDEN, INTERMEDIATE, Norm, Row, Weights};

/// Sums the last hidden states of each window, `[CLS]` and `[SEP]` included; a window has at most 256 word pieces.
/// `arch` chooses the SIMD code; the bits of the result do not depend on it.
pub(crate) fn sums_of_states(arch: Arch, weights: &Weights, windows: &[&[u16]]) -> Vec<Row> {
    let spans = spans(windows);
    let rows = spans.last().map_or(0, |span| span.end).next_multiple_of(ROWS);
    let mut states = vec![[0.0; HIDDEN]; rows];
    let mut heads = vec![[0.0; PANEL]; 3 * HEADS * rows];
    let mut attended = vec![[0.0; HIDDEN]; rows];
    let mut intermediate = vec![[0.0; INTERMEDIATE]; rows];
    arch.dispatch(EmbedPieces { weights, windows, spans: &spans, states: &mut states });
    arch.dispatch(Normalise { states: &mut states, norm: &weights.norm });
    for layer in &weights.layers {
        arch.dispatch(DenseLayer {
            input: &states,
            dense: &layer.query_key_value,
            output: Output::Heads(&mut heads),
        });
        arch.dispatch(Attention { heads: &heads, spans: &spans, attended: &mut attended });
        arch.dispatch(DenseLayer {
            input: &attended,
            dense: &layer.attention_output,
            output: Output::Added(&mut states),
        });
        arch.dispatch(Normalise { states: &mut states, norm: &layer.attention_norm });
        arch.dispatch(DenseLayer {
            input: &states,
            dense: &layer.intermediate,
            output: Output::Gelu(&mut intermediate),
        });
        arch.dispatch(DenseLayer {
            input: &intermediate,
            dense: &layer.output,
            output: Output::Added(&mut states),
        });
        arch.dispatch(Normalise { states: &mut states, norm: &layer.output_norm });
    }
    spans.into_iter().map(|span| sum_of_rows(&states[span])).collect()
}

/// The range of rows of each window.
fn spans(windows: &[&[u16]]) -> Vec<Range<usize>> {
    let mut end = 0;
    let span = |window: &&[u16]| {
        let start = end;
        end += window.len();
        start..end
    };
    windows.iter().map(span).collect()
}

fn sum_of_rows(rows: &[Row]) -> Row {
    let mut sum = [0.0; HIDDEN];
    for row in rows {
        for (sum, x) in sum.iter_mut().zip(row) {
            *sum += x;
        }
    }
    sum
}

/// Sets the rows of each window to the embeddings of its word pieces.
struct EmbedPieces<'a> {
    weights: &'a Weights,
    windows: &'a [&'a [u16]],
    spans: &'a [Range<usize>],
    states: &'a mut [Row],
}

impl WithSimd for EmbedPieces<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (window, span) in self.windows.iter().zip(self.spans) {
            for (position, (word, row)) in window.iter().zip(&mut self.states[span.clone()]).enumerate() {
                self.weights.embedding(*word, position, row);
            }
        }
    }
}

/// Layer normalisation of every row.
struct Normalise<'a> {
    states: &'a mut [Row],
    norm: &'a Norm,
}

impl WithSimd for Normalise<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for row in self.states {
            layer_norm(row, &self.norm.weight, &self.norm.bias);
        }
    }
}

/// One dense layer over all rows.
struct DenseLayer<'a, const K: usize> {
    input: &'a [[f32; K]],
    dense: &'a Dense<K>,
    output: Output<'a>,
}

/// Destination of the outputs of a dense layer.
enum Output<'a> {
    /// Stored as one matrix of 32 columns per panel.
    Heads(&'a mut [[f32; PANEL]]),
    /// Added to the rows (residual connection).
    Added(&'a mut [Row]),
    /// Stored after the activation.
    Gelu(&'a mut [[f32; INTERMEDIATE]]),
}

impl<const K: usize> WithSimd for DenseLayer<'_, K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let mut buffer = vec![[0.0; PANEL]; K];
        let weights = buffer.first_chunk_mut().expect("the buffer has K rows");
        for (panel, bias) in self.dense.biases().iter().enumerate() {
            self.dense.dequantise(simd, panel, weights);
            for (block, rows) in self.input.as_chunks().0.iter().enumerate() {
                let mut tile = [[0.0; PANEL]; ROWS];
                add_product(simd, rows, weights, &mut tile);
                for row in &mut tile {
                    for (x, bias) in row.iter_mut().zip(bias) {
                        *x += bias;
                    }
                }
                self.output.store(panel, block, tile);
            }
        }
    }
}

impl Output<'_> {
    #[inline(always)]
    fn store(&mut self, panel: usize, block: usize, mut tile: Tile) {
        match self {
            Self::Heads(heads) => {
                let rows = heads.len() / (3 * HEADS);
                heads[panel * rows + block * ROWS..][..ROWS].copy_from_slice(&tile);
            }
            Self::Added(states) => {
                for (state, row) in states[block * ROWS..][..ROWS].iter_mut().zip(&tile) {
                    for (x, add) in state.as_chunks_mut::<PANEL>().0[panel].iter_mut().zip(row) {
                        *x += add;
                    }
                }
            }
            Self::Gelu(intermediate) => {
                for x in tile.as_flattened_mut() {
                    *x = gelu(*x);
                }
                for (state, row) in intermediate[block * ROWS..][..ROWS].iter_mut().zip(&tile) {
                    state.as_chunks_mut::<PANEL>().0[panel] = *row;
                }
            }
        }
    }
}

/// Self-attention within every window.
struct Attention<'a> {
    /// Queries, keys and values: 12 matrices of 32 columns each, rows by window.
    heads: &'a [[f32; PANEL]],
    spans: &'a [Range<usize>],
    attended: &'a mut [Row],
}

impl WithSimd for Attention<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let rows = self.heads.len() / (3 * HEADS);
        let mut attention = Head::default();
        for span in self.spans {
            let part = |number: usize| &self.heads[number * rows..][span.clone()];
            for head in 0..HEADS {
                attention.load(part(HEADS + head), part(2 * HEADS + head));
                let blocks = part(head).chunks(ROWS).zip(self.attended[span.clone()].chunks_mut(ROWS));
                for (queries, attended) in blocks {
                    let tile = attention.attend(simd, queries);
                    for (row, state) in tile.iter().zip(attended) {
                        state.as_chunks_mut::<PANEL>().0[head] = *row;
                    }
                }
            }
        }
    }
}

/// One attention head in one window.
#[derive(Default)]
struct Head {
    /// Keys and values in use.
    count: usize,
    /// Keys as columns, 32 per panel; zeros after the last.
    keys: Vec<[[f32; PANEL]; PANEL]>,
    /// Values as rows, 32 per panel; zeros after the last.
    values: Vec<[[f32; PANEL]; PANEL]>,
    /// Products of 12 queries with the keys of each panel, then their softmax weights (not yet divided by the sum).
    scores: Vec<Tile>,
}

impl Head {
    #[inline(always)]
    fn load(&mut self, keys: &[[f32; PANEL]], values: &[[f32; PANEL]]) {
        self.count = keys.len();
        let panels = self.count.div_ceil(PANEL);
        self.keys.resize(panels, [[0.0; PANEL]; PANEL]);
        self.values.resize(panels, [[0.0; PANEL]; PANEL]);
        self.scores.resize(panels, [[0.0; PANEL]; ROWS]);
        for (panel, keys) in self.keys.iter_mut().zip(keys.chunks(PANEL)) {
            let keys: [_; PANEL] = padded(keys);
            for (row, into) in panel.iter_mut().enumerate() {
                for (into, key) in into.iter_mut().zip(&keys) {
                    *into = key[row];
                }
            }
        }
        for (panel, values) in self.values.iter_mut().zip(values.chunks(PANEL)) {
            *panel = padded(values);
        }
    }

    /// Scaled dot-product attention: for each of at most 12 queries the mean of the values, weighted by
    /// e^(query * key / sqrt(32)).
    #[inline(always)]
    fn attend<S: Simd>(&mut self, simd: S, queries: &[[f32; PANEL]]) -> Tile {
        let queries: Tile = padded(queries);
        for (keys, scores) in self.keys.iter().zip(&mut self.scores) {
            *scores = [[0.0; PANEL]; ROWS];
            add_product(simd, &queries, keys, scores);
        }
        let mut sums = [0.0; ROWS];
        for (row, sum) in sums.iter_mut().enumerate() {
            *sum = softmax(&mut self.scores, row, self.count);
        }
        let mut tile = [[0.0; PANEL]; ROWS];
        for (weights, values) in self.scores.iter().zip(&self.values) {
            add_product(simd, weights, values, &mut tile);
        }
        for (row, sum) in tile.iter_mut().zip(&sums) {
            for x in row {
                *x /= sum;
            }
        }
        tile
    }
}

/// At most `N` rows, padded with zeros to `N`.
#[inline(always)]
fn padded<const N: usize>(rows: &[[f32; PANEL]]) -> [[f32; PANEL]; N] {
    let mut padded = [[0.0; PANEL]; N];
    padded[..rows.len()].copy_from_slice(rows);
    padded
}

/// Replaces the scores of a row by e^((score - max) / sqrt(32)) and returns their sum: the softmax without its division.
/// Scores after the last key become 0.
#[inline(always)]
fn softmax(scores: &mut [Tile], row: usize, keys: usize) -> f32 {
    let scale = 1.0 / 32.0_f32.sqrt();
    let unused = scores.len() * PANEL - keys;
    if let Some(last) = scores.last_mut() {
        last[row][PANEL - unused..].fill(f32::NEG_INFINITY);
    }
    let mut maxima = [f32::NEG_INFINITY; PANEL];
    for tile in &*scores {
        for (maximum, score) in maxima.iter_mut().zip(&tile[row]) {
            *maximum = max(*maximum, *score);
        }
    }
    let maximum = max_of_lanes(maxima);
    for tile in &mut *scores {
        for score in &mut tile[row] {
            *score = exp((*score - maximum) * scale);
        }
    }
    if let Some(last) = scores.last_mut() {
        last[row][PANEL - unused..].fill(0.0);
    }
    let mut lanes = [0.0; PANEL];
    for tile in &*scores {
        for (lane, weight) in lanes.iter_mut().zip(&tile[row]) {
            *lane += weight;
        }
    }
    sum_of_lanes(lanes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn every_register_width_gives_the_same_bits() {
        let weights = Weights::compiled_in();
        let windows: [&[u16]; 2] = [&[101, 7592, 2088, 102], &[101, 102]];
        let scalar = sums_of_states(Arch::Scalar, &weights, &windows);
        assert!(scalar == sums_of_states(Arch::new(), &weights, &windows), "the widest registers");
        if let Some(simd) = pulp::x86::V3::try_new() {
            assert!(scalar == sums_of_states(Arch::V3(simd), &weights, &windows), "registers of 8");
        }
    }
}
