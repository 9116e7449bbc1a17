//! Matrix products in tiles of 12 rows by 32 columns, with the widest SIMD registers of the processor.
//!
//! Each element is a sum over the inner dimension from first to last, one fused multiply-add per step. It depends on its
//! row and column only, not on the other rows and not on the register width. The inner dimension is a const parameter,
//! so that the compiler knows every stride and the kernel needs no packing of rows.

use pulp::Simd;

/// Rows of a tile.
pub(crate) const ROWS: usize = 12;

/// Columns of a tile.
pub(crate) const PANEL: usize = 32;

/// Block of a product.
pub(crate) type Tile = [[f32; PANEL]; ROWS];

/// Adds the product of 12 rows and a panel of 32 columns to a tile.
#[inline(always)]
pub(crate) fn add_product<S: Simd, const K: usize>(
    simd: S,
    rows: &[[f32; K]; ROWS],
    panel: &[[f32; PANEL]; K],
    tile: &mut Tile,
) {
    // Each block has as many accumulators as fit in the registers.
    match S::F32_LANES {
        16 => block::<S, K, 12, 2>(simd, rows, panel, tile, (0, 0)),
        8 => {
            for corner in [(0, 0), (6, 0), (0, 16), (6, 16)] {
                block::<S, K, 6, 2>(simd, rows, panel, tile, corner);
            }
        }
        lanes => {
            for row in [0, 6] {
                for column in (0..PANEL).step_by(4 * lanes) {
                    block::<S, K, 6, 4>(simd, rows, panel, tile, (row, column));
                }
            }
        }
    }
}

/// The block of `R` rows and `V` registers at a corner (row, column) of the tile.
#[inline(always)]
fn block<S: Simd, const K: usize, const R: usize, const V: usize>(
    simd: S,
    rows: &[[f32; K]; ROWS],
    panel: &[[f32; PANEL]; K],
    tile: &mut Tile,
    (row, column): (usize, usize),
) {
    let columns = column..column + V * S::F32_LANES;
    let mut sums = [[simd.splat_f32s(0.0); V]; R];
    for (sums, from) in sums.iter_mut().zip(&tile[row..row + R]) {
        sums.copy_from_slice(S::as_simd_f32s(&from[columns.clone()]).0);
    }
    for (k, right) in panel.iter().enumerate() {
        let right = S::as_simd_f32s(&right[columns.clone()]).0;
        for (sums, row) in sums.iter_mut().zip(&rows[row..row + R]) {
            let left = simd.splat_f32s(row[k]);
            for (sum, right) in sums.iter_mut().zip(right) {
                *sum = simd.mul_add_f32s(left, *right, *sum);
            }
        }
    }
    for (into, sums) in tile[row..row + R].iter_mut().zip(&sums) {
        S::as_mut_simd_f32s(&mut into[columns.clone()]).0.copy_from_slice(sums);
    }
}

#[cfg(test)]
mod tests {
    use pulp::{Arch, Scalar, WithSimd};

    use super::*;

    struct Product<'a, const K: usize> {
        rows: &'a [[f32; K]; ROWS],
        panel: &'a [[f32; PANEL]; K],
        onto: Tile,
    }

    impl<const K: usize> WithSimd for Product<'_, K> {
        type Output = Tile;

        #[inline(always)]
        fn with_simd<S: Simd>(mut self, simd: S) -> Tile {
            add_product(simd, self.rows, self.panel, &mut self.onto);
            self.onto
        }
    }

    fn number(seed: usize) -> f32 {
        let bits = u16::try_from(seed * 40_503 % 65_521).expect("below 2^16");
        f32::from(bits) / 65_521.0 - 0.5
    }

    fn check<const K: usize>() {
        let rows: [[f32; K]; ROWS] = std::array::from_fn(|row| std::array::from_fn(|k| number(row * K + k)));
        let panel: [[f32; PANEL]; K] =
            std::array::from_fn(|k| std::array::from_fn(|column| number(7 + k * PANEL + column)));
        let onto: Tile = std::array::from_fn(|row| std::array::from_fn(|column| number(row * 99 + column)));
        let mut scalar = onto;
        for (row, sums) in rows.iter().zip(&mut scalar) {
            for (left, right) in row.iter().zip(&panel) {
                for (sum, right) in sums.iter_mut().zip(right) {
                    *sum = left.mul_add(*right, *sum);
                }
            }
        }
        let product = || Product { rows: &rows, panel: &panel, onto };
        assert_eq!(Simd::vectorize(Scalar::new(), product()), scalar);
        assert_eq!(Arch::new().dispatch(product()), scalar);
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = pulp::x86::V3::try_new() {
            assert_eq!(Simd::vectorize(simd, product()), scalar);
        }
    }

    #[test]
    fn every_register_width_gives_the_bits_of_the_scalar_sum() {
        check::<1>();
        check::<31>();
        check::<32>();
        check::<384>();
    }
}
