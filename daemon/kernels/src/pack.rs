//! How weights lie in memory and in a bundle's `.weights` file: panels of 16 outputs, self-contained.
//!
//! A matrix of `n` outputs by `taps × k` inputs (`taps` is 1 for a linear layer or a 1×1 convolution, 9 for a 3×3 one,
//! taps in row-major order) is stored as `ceil(n / 16)` panels, one after the other, each:
//!
//! | Format | Panel |
//! |---|---|
//! | int8 | `scale f32[16]`, `bias f32[16]`, `sums i32[taps][16]`, `data i8[taps][k/4][16][4]` |
//! | f16 | `bias f32[16]`, `data f16[taps][k][16]` |
//! | f32 | `bias f32[16]`, `data f32[taps][k][16]` |
//!
//! Little-endian; every part is a multiple of 64 bytes (f16 data: of 32). Outputs past `n` are zero. `sums` are the sums of
//! a tap's int8 weights per output: VNNI multiplies u8 by s8 and takes 128 times the sum off.
//! int8 needs `k % 4 == 0`, and its values are within ±127. One 64-byte line of int8 data is one AVX-512 VNNI operand, two AVX2, four NEON SDOT operands.
//!
//! A 3×3 convolution of an image that was doubled, nearest neighbour, may be stored *in phases*. Of the nine pixels that an
//! output pixel sees only 2×2 are distinct, so its taps fall together into four, whose weights are sums. Which ones depends
//! on the parity of its row and of its column. Along one axis, with taps `w0 w1 w2`, input pixels `x` and an output pixel of
//! pair `j`:
//!
//! | Parity | First tap | Second tap |
//! |---|---|---|
//! | 0 | `w0 · x[j - 1]` | `(w1 + w2) · x[j]` |
//! | 1 | `(w0 + w1) · x[j]` | `w2 · x[j + 1]` |
//!
//! The matrix is then one of `4 · ceil(n / 16) · 16` outputs and four taps: the panels of phase 0, then those of the others,
//! phases in the order (row 0, column 0), (0, 1), (1, 0), (1, 1). Each phase's outputs past `n` are zero; biases are repeated.

use half::f16;

pub use crate::layout::{Format, Layout, PANEL, PHASES};
use crate::layout::{f32_at, value};
use crate::scalar;

/// Writes one panel: up to 16 `rows` of `taps × k` values in that order, and their biases.
///
/// int8 takes one scale per row, `max|w| / 127`, and rounds halves to even; the sum of an input's taps is kept to half a
/// step, for which some taps are rounded the other way.
///
/// # Panics
///
/// If a length does not fit the layout, or `k` is not a multiple of 4 in int8.
pub fn pack_panel(layout: &Layout, rows: &[&[f32]], bias: &[f32], out: &mut [u8]) {
    assert!(rows.len() <= PANEL && rows.len() == bias.len(), "{} rows, {} biases", rows.len(), bias.len());
    assert!(rows.iter().all(|row| row.len() == layout.taps * layout.k), "a row is not taps x k long");
    assert!(layout.format != Format::Int8 || layout.k.is_multiple_of(4), "k = {} is not a multiple of 4", layout.k);
    assert_eq!(out.len(), layout.panel_bytes(), "the panel's size");
    out.fill(0);
    for (output, (row, bias)) in rows.iter().zip(bias).enumerate() {
        put(out, layout.bias_at() + output * 4, &bias.to_le_bytes());
        match layout.format {
            Format::Int8 => pack_int8(layout, row, output, out),
            Format::F16 => pack_values(layout, row, output, out, |v| f16::from_f32(v).to_le_bytes()),
            Format::F32 => pack_values(layout, row, output, out, f32::to_le_bytes),
        }
    }
}

/// What the row of nine taps by `k` inputs becomes in a phase of a doubled image: four taps, each the sum of those of the nine
/// that read the same pixel, rounded once.
///
/// # Panics
///
/// If the row is not nine taps long.
pub fn phase_row(row: &[f32], phase: usize) -> Vec<f32> {
    assert!(row.len().is_multiple_of(9), "{} values are not nine taps", row.len());
    let k = row.len() / 9;
    let mut sums = vec![0f64; PHASES * k];
    for (i, value) in row.iter().enumerate() {
        // Tap t of three reads pixel (parity + t - 1) / 2 of the pair on, of which the phase's first tap reads parity - 1.
        let of = |tap: usize, parity: usize| (tap + 1 - parity) / 2;
        let (down, right) = (of(i / k / 3, phase / 2), of(i / k % 3, phase % 2));
        sums[(down * 2 + right) * k + i % k] += f64::from(*value);
    }
    sums.into_iter().map(|sum| sum as f32).collect()
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

fn pack_values<const N: usize>(layout: &Layout, row: &[f32], output: usize, out: &mut [u8], le: fn(f32) -> [u8; N]) {
    for (i, value) in row.iter().enumerate() {
        put(out, layout.value_at(i / layout.k, i % layout.k, output), &le(*value));
    }
}

fn pack_int8(layout: &Layout, row: &[f32], output: usize, out: &mut [u8]) {
    let mut q = vec![0; row.len()];
    let scale = scalar::rows::quantize_row(row, &mut q);
    if layout.taps > 1 {
        keep_sums(layout.k, row, scale, &mut q);
    }
    put(out, output * 4, &scale.to_le_bytes());
    for (tap, values) in q.chunks_exact(layout.k).enumerate() {
        let sum: i32 = values.iter().map(|v| i32::from(*v)).sum();
        put(out, layout.sums_at() + (tap * PANEL + output) * 4, &sum.to_le_bytes());
        for (k, value) in values.iter().enumerate() {
            out[layout.value_at(tap, k, output)] = *value as u8;
        }
    }
}

/// Changes some of the values `q` by one, so that of each input the taps' sum is the nearest: what they are multiplied with
/// are pixels side by side, which are alike, so that errors of one sign would add up. Those change that were rounded the
/// farthest.
fn keep_sums(k: usize, row: &[f32], scale: f32, q: &mut [i8]) {
    if scale == 0.0 {
        return;
    }
    let error = |at: usize, q: &[i8]| row[at] / scale - f32::from(q[at]);
    for input in 0..k {
        let taps = || (input..row.len()).step_by(k);
        let missing = taps().map(|at| error(at, q)).sum::<f32>().round();
        for _ in 0..missing.abs() as usize {
            let sign = missing.signum();
            let able = taps().filter(|at| f32::from(q[*at]) * sign < 127.0);
            let farthest = able.max_by(|a, b| (error(*a, q) * sign).total_cmp(&(error(*b, q) * sign)));
            if let Some(at) = farthest {
                q[at] += sign as i8;
            }
        }
    }
}

/// The 16 rows of a panel as f32 (int8 ones times their scale), and the biases.
///
/// # Panics
///
/// If the panel has another length than [`Layout::panel_bytes`].
pub fn unpack_panel(layout: &Layout, panel: &[u8]) -> (Vec<Vec<f32>>, [f32; PANEL]) {
    assert_eq!(panel.len(), layout.panel_bytes(), "the panel's size");
    let row = |output: usize| {
        let scale = if layout.format == Format::Int8 { f32_at(panel, output * 4) } else { 1.0 };
        let value = |i: usize| value(layout, panel, i / layout.k, i % layout.k, output) * scale;
        (0..layout.taps * layout.k).map(value).collect()
    };
    let bias = std::array::from_fn(|output| f32_at(panel, layout.bias_at() + output * 4));
    ((0..PANEL).map(row).collect(), bias)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(seed: usize, len: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 37 + seed * 101) % 255) as f32 - 127.0).collect()
    }

    #[test]
    fn values_come_back() {
        for (format, k, taps) in [(Format::Int8, 8, 9), (Format::F16, 5, 1), (Format::F32, 7, 9)] {
            let layout = Layout { format, k, taps };
            let rows: Vec<_> = (0..13).map(|i| row(i, k * taps)).collect();
            let bias: Vec<f32> = (0..13).map(|i| i as f32).collect();
            let mut panel = vec![1; layout.panel_bytes()];
            pack_panel(&layout, &rows.iter().map(Vec::as_slice).collect::<Vec<_>>(), &bias, &mut panel);
            let (back, back_bias) = unpack_panel(&layout, &panel);
            assert_eq!(back_bias[..13], bias);
            assert_eq!(back[13..], vec![vec![0.0; k * taps]; 3]);
            for (row, back) in rows.iter().zip(&back) {
                let step = row.iter().fold(0f32, |m, v| m.max(v.abs())) / 127.0;
                let most = step * if taps > 1 { 1.0 } else { 0.5001 };
                let close = |(a, b): (&f32, &f32)| (a - b).abs() <= most;
                assert!(row.iter().zip(back).all(close), "{format:?}: {row:?} {back:?}");
            }
        }
    }

    /// Taps of 1, 2, 4, … 256, of which a sum tells which there are; and of their negatives.
    #[test]
    fn each_tap_is_in_one_tap_of_each_phase() {
        let row: Vec<f32> = (0..9).flat_map(|tap| [1.0, -1.0].map(|sign| sign * (1 << tap) as f32)).collect();
        let rows: Vec<Vec<f32>> = (0..PHASES).map(|phase| phase_row(&row, phase)).collect();
        let expected = [
            [1.0, 6.0, 8.0 + 64.0, 16.0 + 32.0 + 128.0 + 256.0],
            [3.0, 4.0, 8.0 + 16.0 + 64.0 + 128.0, 32.0 + 256.0],
            [1.0 + 8.0, 2.0 + 4.0 + 16.0 + 32.0, 64.0, 128.0 + 256.0],
            [1.0 + 2.0 + 8.0 + 16.0, 4.0 + 32.0, 64.0 + 128.0, 256.0],
        ];
        assert_eq!(rows, expected.map(|taps| taps.into_iter().flat_map(|sum| [sum, -sum]).collect::<Vec<f32>>()));
    }

    #[test]
    fn the_sum_of_an_inputs_taps_is_kept() {
        let layout = Layout { format: Format::Int8, k: 64, taps: PHASES };
        let mut row: Vec<f32> = (0..PHASES * 64).map(|i| ((i * 37) % 199) as f32 - 98.6).collect();
        for (tap, value) in [127.0, 126.6, -30.4, -30.4].into_iter().enumerate() {
            row[tap * 64 + 5] = value;
        }
        let mut panel = vec![0; layout.panel_bytes()];
        pack_panel(&layout, &[&row], &[0.0], &mut panel);
        let found = &unpack_panel(&layout, &panel).0[0];
        let mut changed = 0;
        for input in 0..64 {
            let errors = [0, 1, 2, 3].map(|tap| found[tap * 64 + input] - row[tap * 64 + input]);
            assert!(errors.iter().sum::<f32>().abs() <= 0.5001, "input {input}: {errors:?}");
            assert!(errors.iter().all(|error| error.abs() < 1.0), "input {input}: {errors:?}");
            changed += usize::from(errors.iter().any(|error| error.abs() > 0.5001));
        }
        assert_eq!(changed, 64);
    }

    #[test]
    fn int8_is_laid_out_in_quads_with_sums() {
        let layout = Layout { format: Format::Int8, k: 8, taps: 1 };
        let row = [127.0, 1.0, 2.0, 3.0, -4.0, -5.0, -6.0, -127.0];
        let mut panel = vec![0; layout.panel_bytes()];
        pack_panel(&layout, &[&[0.0; 8], &row], &[0.0, 2.5], &mut panel);
        assert_eq!((f32_at(&panel, 4), f32_at(&panel, 64 + 4)), (1.0, 2.5));
        assert_eq!(panel[128 + 4..128 + 8], (-9i32).to_le_bytes());
        assert_eq!(panel[192 + 4..192 + 8], [127, 1, 2, 3]);
        assert_eq!(panel[192 + 64 + 4..192 + 64 + 8], [-4i8 as u8, -5i8 as u8, -6i8 as u8, -127i8 as u8]);
    }
}
