//! The transformer: windows of word pieces to the sum of their last hidden states.
//!
//! All windows of a call go through the dense layers as rows of one matrix, and each through an attention of its own;
//! nothing is padded but the last rows of a tile. Loops are written out where an iterator with a closure would be
//! shorter: a closure may be compiled apart, without the vector code of its caller.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use crate::activation::{exp, gelu, greater, greatest_of_lanes, layer_norm, sum_of_lanes};
use crate::matrix::{PANEL, ROWS, Tile, add_product};
use crate::weights::{Dense, HEADS, HIDDEN, Norm, Row, WIDE, Weights};

/// Sums the last hidden states of each window, `[CLS]` and `[SEP]` among them; a window has at most 256 word pieces.
/// `arch` says which vector code to run; the bits are the same by any.
pub(crate) fn sums_of_states(arch: Arch, weights: &Weights, windows: &[&[u16]]) -> Vec<Row> {
    let spans = spans(windows);
    let rows = spans.last().map_or(0, |span| span.end).next_multiple_of(ROWS);
    let mut states = vec![[0.0; HIDDEN]; rows];
    let mut heads = vec![[0.0; PANEL]; 3 * HEADS * rows];
    let mut mixed = vec![[0.0; HIDDEN]; rows];
    let mut wide = vec![[0.0; WIDE]; rows];
    arch.dispatch(Start { weights, windows, spans: &spans, states: &mut states });
    arch.dispatch(Normalise { states: &mut states, norm: &weights.norm });
    for layer in &weights.layers {
        arch.dispatch(Layer { input: &states, dense: &layer.ask, output: Output::Heads(&mut heads) });
        arch.dispatch(Attention { heads: &heads, spans: &spans, mixed: &mut mixed });
        arch.dispatch(Layer { input: &mixed, dense: &layer.mix, output: Output::Added(&mut states) });
        arch.dispatch(Normalise { states: &mut states, norm: &layer.mix_norm });
        arch.dispatch(Layer { input: &states, dense: &layer.widen, output: Output::Gelu(&mut wide) });
        arch.dispatch(Layer { input: &wide, dense: &layer.narrow, output: Output::Added(&mut states) });
        arch.dispatch(Normalise { states: &mut states, norm: &layer.narrow_norm });
    }
    spans.into_iter().map(|span| sum_of_rows(&states[span])).collect()
}

/// The rows of each window, one window after the other.
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

/// Sets the rows of each window to what its word pieces start as.
struct Start<'a> {
    weights: &'a Weights,
    windows: &'a [&'a [u16]],
    spans: &'a [Range<usize>],
    states: &'a mut [Row],
}

impl WithSimd for Start<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (window, span) in self.windows.iter().zip(self.spans) {
            for (place, (word, row)) in window.iter().zip(&mut self.states[span.clone()]).enumerate() {
                self.weights.start(*word, place, row);
            }
        }
    }
}

/// Normalises every row.
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

/// A dense layer.
struct Layer<'a, const K: usize> {
    input: &'a [[f32; K]],
    dense: &'a Dense<K>,
    output: Output<'a>,
}

/// Where the outputs of a dense layer go.
enum Output<'a> {
    /// One matrix of 32 columns for each panel.
    Heads(&'a mut [[f32; PANEL]]),
    /// Added to rows.
    Added(&'a mut [Row]),
    /// Through the activation.
    Gelu(&'a mut [[f32; WIDE]]),
}

impl<const K: usize> WithSimd for Layer<'_, K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let mut room = vec![[0.0; PANEL]; K];
        let weights = room.first_chunk_mut().expect("room for K rows was made");
        for (panel, bias) in self.dense.biases().iter().enumerate() {
            self.dense.unpack(simd, panel, weights);
            for (block, rows) in self.input.as_chunks().0.iter().enumerate() {
                let mut tile = [[0.0; PANEL]; ROWS];
                add_product(simd, rows, weights, &mut tile);
                for row in &mut tile {
                    for (x, bias) in row.iter_mut().zip(bias) {
                        *x += bias;
                    }
                }
                self.output.take(panel, block, tile);
            }
        }
    }
}

impl Output<'_> {
    #[inline(always)]
    fn take(&mut self, panel: usize, block: usize, mut tile: Tile) {
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
            Self::Gelu(wide) => {
                for x in tile.as_flattened_mut() {
                    *x = gelu(*x);
                }
                for (wide, row) in wide[block * ROWS..][..ROWS].iter_mut().zip(&tile) {
                    wide.as_chunks_mut::<PANEL>().0[panel] = *row;
                }
            }
        }
    }
}

/// Attention of every window to itself.
struct Attention<'a> {
    /// Queries, keys and values: 12 matrices of 32 columns each.
    heads: &'a [[f32; PANEL]],
    spans: &'a [Range<usize>],
    mixed: &'a mut [Row],
}

impl WithSimd for Attention<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let rows = self.heads.len() / (3 * HEADS);
        let mut one = Head::default();
        for span in self.spans {
            let part = |number: usize| &self.heads[number * rows..][span.clone()];
            for head in 0..HEADS {
                one.read(part(HEADS + head), part(2 * HEADS + head));
                let blocks = part(head).chunks(ROWS).zip(self.mixed[span.clone()].chunks_mut(ROWS));
                for (queries, mixed) in blocks {
                    let tile = one.attend(simd, queries);
                    for (row, mixed) in tile.iter().zip(mixed) {
                        mixed.as_chunks_mut::<PANEL>().0[head] = *row;
                    }
                }
            }
        }
    }
}

/// One head of one window.
#[derive(Default)]
struct Head {
    /// How many keys and values there are.
    count: usize,
    /// The keys as columns, 32 a panel; zeros after the last.
    keys: Vec<[[f32; PANEL]; PANEL]>,
    /// The values, 32 a panel; zeros after the last.
    values: Vec<[[f32; PANEL]; PANEL]>,
    /// The products of 12 queries with the keys of each panel, then the shares they give them.
    scores: Vec<Tile>,
}

impl Head {
    #[inline(always)]
    fn read(&mut self, keys: &[[f32; PANEL]], values: &[[f32; PANEL]]) {
        self.count = keys.len();
        let panels = self.count.div_ceil(PANEL);
        self.keys.resize(panels, [[0.0; PANEL]; PANEL]);
        self.values.resize(panels, [[0.0; PANEL]; PANEL]);
        self.scores.resize(panels, [[0.0; PANEL]; ROWS]);
        for (panel, keys) in self.keys.iter_mut().zip(keys.chunks(PANEL)) {
            let keys: [_; PANEL] = filled(keys);
            for (row, into) in panel.iter_mut().enumerate() {
                for (into, key) in into.iter_mut().zip(&keys) {
                    *into = key[row];
                }
            }
        }
        for (panel, values) in self.values.iter_mut().zip(values.chunks(PANEL)) {
            *panel = filled(values);
        }
    }

    /// The mean of the values for each of at most 12 queries, weighted by e^(query * key / sqrt(32)).
    #[inline(always)]
    fn attend<S: Simd>(&mut self, simd: S, queries: &[[f32; PANEL]]) -> Tile {
        let queries: Tile = filled(queries);
        for (keys, scores) in self.keys.iter().zip(&mut self.scores) {
            *scores = [[0.0; PANEL]; ROWS];
            add_product(simd, &queries, keys, scores);
        }
        let mut sums = [0.0; ROWS];
        for (row, sum) in sums.iter_mut().enumerate() {
            *sum = soften(&mut self.scores, row, self.count);
        }
        let mut tile = [[0.0; PANEL]; ROWS];
        for (shares, values) in self.scores.iter().zip(&self.values) {
            add_product(simd, shares, values, &mut tile);
        }
        for (row, sum) in tile.iter_mut().zip(&sums) {
            for x in row {
                *x /= sum;
            }
        }
        tile
    }
}

/// At most `N` rows, then zeros.
#[inline(always)]
fn filled<const N: usize>(rows: &[[f32; PANEL]]) -> [[f32; PANEL]; N] {
    let mut filled = [[0.0; PANEL]; N];
    filled[..rows.len()].copy_from_slice(rows);
    filled
}

/// Takes the scores of a row to e^((score - greatest) / sqrt(32)) and returns their sum. What is in the last panel after
/// so many keys becomes 0.
#[inline(always)]
fn soften(scores: &mut [Tile], row: usize, keys: usize) -> f32 {
    let scale = 1.0 / 32.0_f32.sqrt();
    let unused = scores.len() * PANEL - keys;
    if let Some(last) = scores.last_mut() {
        last[row][PANEL - unused..].fill(f32::NEG_INFINITY);
    }
    let mut greatest = [f32::NEG_INFINITY; PANEL];
    for tile in &*scores {
        for (greatest, score) in greatest.iter_mut().zip(&tile[row]) {
            *greatest = greater(*greatest, *score);
        }
    }
    let greatest = greatest_of_lanes(greatest);
    for tile in &mut *scores {
        for score in &mut tile[row] {
            *score = exp((*score - greatest) * scale);
        }
    }
    if let Some(last) = scores.last_mut() {
        last[row][PANEL - unused..].fill(0.0);
    }
    let mut lanes = [0.0; PANEL];
    for tile in &*scores {
        for (lane, share) in lanes.iter_mut().zip(&tile[row]) {
            *lane += share;
        }
    }
    sum_of_lanes(lanes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn every_processor_gives_the_same_bits() {
        let weights = Weights::compiled_in();
        let windows: [&[u16]; 2] = [&[101, 7592, 2088, 102], &[101, 102]];
        let plain = sums_of_states(Arch::Scalar, &weights, &windows);
        assert!(plain == sums_of_states(Arch::new(), &weights, &windows), "the widest vectors");
        if let Some(simd) = pulp::x86::V3::try_new() {
            assert!(plain == sums_of_states(Arch::V3(simd), &weights, &windows), "vectors of 8");
        }
    }
}
