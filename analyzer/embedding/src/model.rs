//! The transformer: windows of word pieces to the sum of their last hidden states.
//!
//! All windows of a call go through the dense layers as rows of one matrix, and each through an attention of its own;
//! nothing is padded but the last rows of a tile.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use crate::function::{exp, gelu, layer_norm, sum_of_lanes};
use crate::matrix::{PANEL, Packed, ROWS, Tile, product};
use crate::weights::{Dense, HEADS, HIDDEN, Norm, Row, Weights};

/// Sums the last hidden states of each window, `[CLS]` and `[SEP]` among them; a window has at most 256 word pieces.
pub(crate) fn sums_of_states(weights: &Weights, windows: &[&[u16]]) -> Vec<Row> {
    let arch = Arch::new();
    let spans = spans(windows);
    let blocks = spans.last().map_or(0, |span| span.end).div_ceil(ROWS);
    let mut states = vec![[0.0; HIDDEN]; blocks * ROWS];
    let mut packed = Packed::zeros(blocks, HIDDEN);
    for (window, span) in windows.iter().zip(&spans) {
        for (place, (word, row)) in window.iter().zip(&mut states[span.clone()]).enumerate() {
            weights.start(*word, place, row);
        }
    }
    arch.dispatch(Normalise { states: &mut states, norm: &weights.norm, packed: &mut packed });
    let mut heads = vec![[0.0; PANEL]; 3 * HEADS * blocks * ROWS];
    let mut mixed = vec![[0.0; HIDDEN]; blocks * ROWS];
    let mut wide = Packed::zeros(blocks, weights.layers[0].narrow.inputs());
    for layer in &weights.layers {
        arch.dispatch(Layer { input: &packed, dense: &layer.ask, output: Output::Heads(&mut heads) });
        arch.dispatch(Attention { heads: &heads, spans: &spans, mixed: &mut mixed });
        arch.dispatch(Pack { states: &mixed, packed: &mut packed });
        arch.dispatch(Layer { input: &packed, dense: &layer.mix, output: Output::Added(&mut states) });
        arch.dispatch(Normalise { states: &mut states, norm: &layer.mix_norm, packed: &mut packed });
        arch.dispatch(Layer { input: &packed, dense: &layer.widen, output: Output::Gelu(&mut wide) });
        arch.dispatch(Layer { input: &wide, dense: &layer.narrow, output: Output::Added(&mut states) });
        arch.dispatch(Normalise { states: &mut states, norm: &layer.narrow_norm, packed: &mut packed });
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

/// Normalises every row and packs them.
struct Normalise<'a> {
    states: &'a mut [Row],
    norm: &'a Norm,
    packed: &'a mut Packed,
}

impl WithSimd for Normalise<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for row in &mut *self.states {
            layer_norm(row, &self.norm.weight, &self.norm.bias);
        }
        Pack { states: self.states, packed: self.packed }.with_simd(simd);
    }
}

/// Packs rows for a product.
struct Pack<'a> {
    states: &'a [Row],
    packed: &'a mut Packed,
}

impl WithSimd for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (block, rows) in self.states.as_chunks::<ROWS>().0.iter().enumerate() {
            for panel in 0..HIDDEN / PANEL {
                let part = |row: &Row| row.as_chunks::<PANEL>().0[panel];
                self.packed.put(block, panel, &rows.each_ref().map(part));
            }
        }
    }
}

/// A dense layer.
struct Layer<'a> {
    input: &'a Packed,
    dense: &'a Dense,
    output: Output<'a>,
}

/// Where the outputs of a dense layer go.
enum Output<'a> {
    /// One matrix of 32 columns for each panel.
    Heads(&'a mut [[f32; PANEL]]),
    /// Added to rows.
    Added(&'a mut [Row]),
    /// Through the activation, packed for the next layer.
    Gelu(&'a mut Packed),
}

impl WithSimd for Layer<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let mut weights = vec![[0.0; PANEL]; self.dense.inputs()];
        for (panel, bias) in self.dense.biases().iter().enumerate() {
            self.dense.unpack(panel, &mut weights);
            for (block, rows) in self.input.blocks().enumerate() {
                let mut tile = [[0.0; PANEL]; ROWS];
                product(simd, rows, &weights, &mut tile);
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
            Self::Gelu(packed) => {
                for row in &mut tile {
                    for x in row {
                        *x = gelu(*x);
                    }
                }
                packed.put(block, panel, &tile);
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
        let longest = self.spans.iter().map(ExactSizeIterator::len).max().unwrap_or(0);
        let mut scratch = Scratch {
            keys: vec![[[0.0; PANEL]; PANEL]; longest.div_ceil(PANEL)],
            scores: vec![[[0.0; PANEL]; ROWS]; longest.div_ceil(PANEL)],
            shares: vec![[0.0; ROWS]; longest.next_multiple_of(PANEL)],
        };
        for span in self.spans {
            let part = |number: usize| &self.heads[number * rows..][span.clone()];
            let mixed = &mut self.mixed[span.clone()];
            for head in 0..HEADS {
                let (queries, keys, values) = (part(head), part(HEADS + head), part(2 * HEADS + head));
                scratch.set_keys(keys);
                for (queries, mixed) in queries.chunks(ROWS).zip(mixed.chunks_mut(ROWS)) {
                    let tile = scratch.attend(simd, queries, values);
                    for (row, mixed) in tile.iter().zip(mixed) {
                        mixed.as_chunks_mut::<PANEL>().0[head] = *row;
                    }
                }
            }
        }
    }
}

/// What one head of one window works with.
struct Scratch {
    /// The keys as columns, 32 a panel.
    keys: Vec<[[f32; PANEL]; PANEL]>,
    /// For 12 queries, their products with the keys of each panel.
    scores: Vec<Tile>,
    /// For each key, the share that each of 12 queries gives it.
    shares: Vec<[f32; ROWS]>,
}

impl Scratch {
    #[inline(always)]
    fn set_keys(&mut self, keys: &[[f32; PANEL]]) {
        for (panel, keys) in self.keys.iter_mut().zip(keys.chunks(PANEL)) {
            for (row, into) in panel.iter_mut().enumerate() {
                *into = std::array::from_fn(|column| keys.get(column).map_or(0.0, |key| key[row]));
            }
        }
    }

    /// The mean of the values for each of at most 12 queries, weighted by e^(query * key / sqrt(32)).
    #[inline(always)]
    fn attend<S: Simd>(&mut self, simd: S, queries: &[[f32; PANEL]], values: &[[f32; PANEL]]) -> Tile {
        let columns: [[f32; ROWS]; PANEL] = std::array::from_fn(|column| {
            std::array::from_fn(|row| queries.get(row).map_or(0.0, |query| query[column]))
        });
        let panels = values.len().div_ceil(PANEL);
        for (keys, scores) in self.keys[..panels].iter().zip(&mut self.scores) {
            product(simd, &columns, keys, scores);
        }
        let mut sums = [0.0; ROWS];
        for (row, sum) in sums.iter_mut().enumerate() {
            *sum = soften(&mut self.scores[..panels], row, values.len());
        }
        for (scores, shares) in self.scores[..panels].iter().zip(self.shares.as_chunks_mut::<PANEL>().0) {
            for (column, shares) in shares.iter_mut().enumerate() {
                *shares = std::array::from_fn(|row| scores[row][column]);
            }
        }
        let mut tile = [[0.0; PANEL]; ROWS];
        product(simd, &self.shares[..values.len()], values, &mut tile);
        for (row, sum) in tile.iter_mut().zip(&sums) {
            for x in row {
                *x /= sum;
            }
        }
        tile
    }
}

/// Takes the scores of a row to e^((score - greatest) / sqrt(32)) and returns their sum; the last panel may hold more
/// columns than there are keys.
#[inline(always)]
fn soften(scores: &mut [Tile], row: usize, keys: usize) -> f32 {
    let scale = 1.0 / 32.0_f32.sqrt();
    let beyond = keys.next_multiple_of(PANEL) - keys;
    if let Some(last) = scores.last_mut() {
        last[row][PANEL - beyond..].fill(f32::NEG_INFINITY);
    }
    let mut greatest = [f32::NEG_INFINITY; PANEL];
    for tile in &*scores {
        for (greatest, score) in greatest.iter_mut().zip(&tile[row]) {
            *greatest = if *score > *greatest { *score } else { *greatest };
        }
    }
    let greatest = greatest.into_iter().fold(f32::NEG_INFINITY, f32::max);
    let mut lanes = [0.0; PANEL];
    for tile in &mut *scores {
        for (lane, score) in lanes.iter_mut().zip(&mut tile[row]) {
            let share = exp((*score - greatest) * scale);
            *score = share;
            *lane += share;
        }
    }
    sum_of_lanes(lanes)
}
