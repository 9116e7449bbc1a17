//! Products of matrices in tiles of 12 rows by 32 columns, by the widest vectors the processor has.
//!
//! An element of a product is summed over the inner dimension from first to last, one fused multiply-add a step, from
//! 0. So it depends on its row and its column alone: not on the other rows, nor on the width of the vectors.

use pulp::Simd;

/// Rows of a tile.
pub(crate) const ROWS: usize = 12;

/// Columns of a tile.
pub(crate) const PANEL: usize = 32;

/// Part of a product.
pub(crate) type Tile = [[f32; PANEL]; ROWS];

/// Rows of a left factor, 12 by 12: of each block all first elements, then all second ones, and so on.
#[derive(Debug)]
pub(crate) struct Packed {
    inputs: usize,
    columns: Vec<[f32; ROWS]>,
}

impl Packed {
    /// Zeros for this many blocks of rows of `inputs` elements.
    pub(crate) fn zeros(blocks: usize, inputs: usize) -> Self {
        Self { inputs, columns: vec![[0.0; ROWS]; blocks * inputs] }
    }

    /// The blocks in their order, each as its columns.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = &[[f32; ROWS]]> {
        self.columns.chunks_exact(self.inputs)
    }

    /// Puts a tile where its block and its panel of columns are.
    #[inline(always)]
    pub(crate) fn put(&mut self, block: usize, panel: usize, tile: &Tile) {
        let start = block * self.inputs + panel * PANEL;
        for (column, into) in self.columns[start..start + PANEL].iter_mut().enumerate() {
            for (into, row) in into.iter_mut().zip(tile) {
                *into = row[column];
            }
        }
    }
}

/// The product of a block of rows (as its columns) and a panel of columns (as its rows); both as long as each other.
#[inline(always)]
pub(crate) fn product<S: Simd>(simd: S, rows: &[[f32; ROWS]], panel: &[[f32; PANEL]], tile: &mut Tile) {
    // As many sums at a time as stay in registers.
    match S::F32_LANES {
        16 => part::<S, 12, 2>(simd, rows, panel, tile, (0, 0)),
        8 => {
            for corner in [(0, 0), (6, 0), (0, 16), (6, 16)] {
                part::<S, 6, 2>(simd, rows, panel, tile, corner);
            }
        }
        lanes => {
            for row in [0, 6] {
                for column in (0..PANEL).step_by(4 * lanes) {
                    part::<S, 6, 4>(simd, rows, panel, tile, (row, column));
                }
            }
        }
    }
}

/// The part of a tile of `R` rows and `V` vectors from a corner (row, column) on.
#[inline(always)]
fn part<S: Simd, const R: usize, const V: usize>(
    simd: S,
    rows: &[[f32; ROWS]],
    panel: &[[f32; PANEL]],
    tile: &mut Tile,
    (row, column): (usize, usize),
) {
    let columns = column..column + V * S::F32_LANES;
    let mut sums = [[simd.splat_f32s(0.0); V]; R];
    for (left, right) in rows.iter().zip(panel) {
        let right = S::as_simd_f32s(&right[columns.clone()]).0;
        for (sums, left) in sums.iter_mut().zip(&left[row..row + R]) {
            let left = simd.splat_f32s(*left);
            for (sum, right) in sums.iter_mut().zip(right) {
                *sum = simd.mul_add_f32s(left, *right, *sum);
            }
        }
    }
    for (into, sums) in tile[row..row + R].iter_mut().zip(&sums) {
        for (into, sum) in S::as_mut_simd_f32s(&mut into[columns.clone()]).0.iter_mut().zip(sums) {
            *into = *sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use pulp::{Arch, Scalar, WithSimd};

    use super::*;

    struct Product<'a> {
        rows: &'a [[f32; ROWS]],
        panel: &'a [[f32; PANEL]],
    }

    impl WithSimd for Product<'_> {
        type Output = Tile;

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> Tile {
            let mut tile = [[f32::NAN; PANEL]; ROWS];
            product(simd, self.rows, self.panel, &mut tile);
            tile
        }
    }

    fn number(seed: usize) -> f32 {
        let bits = u16::try_from(seed * 40_503 % 65_521).expect("below 2^16");
        f32::from(bits) / 65_521.0 - 0.5
    }

    #[test]
    fn every_width_of_vectors_gives_the_bits_of_the_plain_sum() {
        for inner in [1, 2, 31, 32, 384] {
            let rows: Vec<[f32; ROWS]> =
                (0..inner).map(|k| std::array::from_fn(|row| number(k * ROWS + row))).collect();
            let panel: Vec<[f32; PANEL]> =
                (0..inner).map(|k| std::array::from_fn(|column| number(7 + k * PANEL + column))).collect();
            let mut plain = [[0.0_f32; PANEL]; ROWS];
            for (left, right) in rows.iter().zip(&panel) {
                for row in 0..ROWS {
                    for column in 0..PANEL {
                        plain[row][column] = left[row].mul_add(right[column], plain[row][column]);
                    }
                }
            }
            let product = || Product { rows: &rows, panel: &panel };
            assert_eq!(Simd::vectorize(Scalar::new(), product()), plain);
            assert_eq!(Arch::new().dispatch(product()), plain);
            #[cfg(target_arch = "x86_64")]
            if let Some(simd) = pulp::x86::V3::try_new() {
                assert_eq!(Simd::vectorize(simd, product()), plain);
            }
        }
    }
}
