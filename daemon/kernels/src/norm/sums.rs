//! What is done to rows of an image when they were made: group norms' statistics, rounding and storing, in one pass.

use half::f16;
use rayon::prelude::*;

use crate::cancel::Tasks;
use crate::cpu::Level;
use crate::rows::{Round, ToHalf, ToSingle};
use crate::scalar;
use crate::scalar::norm::NEIGHBOURS;
use crate::simd::{LANES, Simd, SimdFn, at_level};

/// Image rows whose sums are held at a time.
const ROWS: usize = 64;
/// Values that are rounded, stored and summed before the next ones: they stay in L1.
const NEAR: usize = 4 << 10;

/// The sums behind an image's group norm. They are built row by row, so strips pool to the bits of the whole image.
#[derive(Debug, Clone)]
pub struct GroupSums {
    sums: Vec<f64>,
    squares: Vec<f64>,
    pixels: usize,
}

impl GroupSums {
    /// Of no rows yet.
    pub fn new(channels: usize) -> GroupSums {
        GroupSums { sums: vec![0.0; channels], squares: vec![0.0; channels], pixels: 0 }
    }

    /// Adds rows of one image, `[rows][width][channels]`; strips come from top to bottom.
    ///
    /// Of a row's pixels from left to right, some neighbours' in f32, the others in f64; then of the rows from top to bottom.
    ///
    /// # Panics
    ///
    /// If `x` holds no whole rows, or the CPU does not have the level.
    pub fn add_rows(&mut self, level: Level, x: &[f32], width: usize) {
        let channels = self.sums.len();
        assert!(x.len().is_multiple_of(width * channels), "{} values are not rows of {width}x{channels}", x.len());
        for rows in x.chunks(ROWS * width * channels) {
            let mut partial = vec![0.0; rows.len() / width * 2];
            let rows = rows.par_chunks_exact(width * channels).zip(partial.par_chunks_exact_mut(2 * channels));
            rows.for_each_task(|(x, sums)| {
                at_level!(level, simd => simd.run(RowSums::of(x, sums)), scalar => RowSums::of(x, sums).scalar());
            });
            self.add_sums(&partial, width);
        }
    }

    /// Adds the sums of rows, of each as [`RowSums`] makes them.
    fn add_sums(&mut self, rows: &[f64], width: usize) {
        let channels = self.sums.len();
        for row in rows.chunks_exact(2 * channels) {
            let add = |(total, part): (&mut f64, &f64)| *total += part;
            self.sums.iter_mut().zip(&row[..channels]).for_each(add);
            self.squares.iter_mut().zip(&row[channels..]).for_each(add);
            self.pixels += width;
        }
    }

    /// What each channel is multiplied by and what is then added: `gamma / σ` and `beta − mean · gamma / σ`, in f64, rounded
    /// once.
    ///
    /// # Panics
    ///
    /// If sizes do not fit each other.
    pub fn finish(&self, groups: usize, eps: f32, gamma: &[f32], beta: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let channels = self.sums.len();
        assert!(gamma.len() == channels && beta.len() == channels, "gamma {}, beta {}", gamma.len(), beta.len());
        assert!(groups > 0 && channels.is_multiple_of(groups), "{groups} groups in {channels} channels");
        let size = channels / groups;
        let count = (self.pixels * size) as f64;
        let (mut scales, mut shifts) = (Vec::with_capacity(channels), Vec::with_capacity(channels));
        for first in (0..channels).step_by(size) {
            let group = first..first + size;
            let mean = self.sums[group.clone()].iter().sum::<f64>() / count;
            let variance = self.squares[group.clone()].iter().sum::<f64>() / count - mean * mean;
            let deviation = (variance.max(0.0) + f64::from(eps)).sqrt();
            for (gamma, beta) in gamma[group.clone()].iter().zip(&beta[group]) {
                let scale = f64::from(*gamma) / deviation;
                scales.push(scale as f32);
                shifts.push((f64::from(*beta) - mean * scale) as f32);
            }
        }
        (scales, shifts)
    }
}

/// A row of an image, `[width][channels]`.
#[derive(Debug)]
pub struct MadeRow<'a> {
    /// Its values.
    pub values: &'a mut [f32],
    /// As many: where it is stored, if it is.
    pub stored: Option<&'a mut [f16]>,
}

impl Level {
    /// Rounds rows of one image as [`Level::round_to_f16`] does, stores them as [`Level::f32_to_f16`] does, and adds them
    /// to each of `sums` as [`GroupSums::add_rows`] does, in one pass through memory.
    ///
    /// # Panics
    ///
    /// If sizes do not fit each other, or the CPU does not have the level.
    pub fn finish_rows(self, rows: &mut [MadeRow], channels: usize, unit: f32, sums: &mut [&mut GroupSums]) {
        let inverse = 1.0 / unit;
        for rows in rows.chunks_mut(ROWS) {
            let Some(row) = rows.first().map(|row| row.values.len()) else { return };
            assert!(row.is_multiple_of(channels), "{row} values are not pixels of {channels}");
            let mut partial = vec![0.0; rows.len() * 2 * channels];
            let pairs = rows.par_iter_mut().zip(partial.par_chunks_exact_mut(2 * channels));
            pairs.for_each_task(|(row, partial)| {
                let stored = row.stored.as_deref_mut();
                assert!(stored.as_ref().is_none_or(|stored| stored.len() == row.values.len()), "a row's place");
                let partial = if sums.is_empty() { None } else { Some(partial) };
                let work = FinishRow { values: row.values, stored, channels, unit, inverse, partial };
                at_level!(self, simd => simd.run(work), scalar => work.scalar());
            });
            sums.iter_mut().for_each(|sums| sums.add_sums(&partial, row / channels));
        }
    }
}

struct FinishRow<'a> {
    values: &'a mut [f32],
    stored: Option<&'a mut [f16]>,
    channels: usize,
    unit: f32,
    inverse: f32,
    partial: Option<&'a mut [f64]>,
}

impl FinishRow<'_> {
    fn scalar(self) {
        let FinishRow { values, stored, unit, inverse, partial, .. } = self;
        if let Some(out) = stored {
            ToHalf { x: values, inverse, out }.scalar();
        }
        Round { x: values, unit, inverse }.scalar();
        if let Some(sums) = partial {
            RowSums::of(values, sums).scalar();
        }
    }
}

impl SimdFn for FinishRow<'_> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(mut self, simd: S) {
        let (unit, inverse) = (self.unit, self.inverse);
        let near = NEAR.div_ceil(self.channels).next_multiple_of(NEIGHBOURS) * self.channels;
        for (n, x) in self.values.chunks_mut(near).enumerate() {
            match &mut self.stored {
                Some(stored) => {
                    let half = &mut stored[n * near..][..x.len()];
                    ToHalf { x, inverse, out: half }.call(simd);
                    ToSingle { x: half, unit, out: x }.call(simd);
                }
                None => Round { x, unit, inverse }.call(simd),
            }
            if let Some(sums) = &mut self.partial {
                RowSums::of(x, sums).call(simd);
            }
        }
    }
}

/// Adds pixels of a row to its sums; plain loops over a few channels at a time, which the compiler turns into the level's
/// vectors.
struct RowSums<'a> {
    x: &'a [f32],
    sums: &'a mut [f64],
    squares: &'a mut [f64],
}

impl<'a> RowSums<'a> {
    /// Of `x`, added to the sums of all channels and then those of their squares.
    #[inline(always)]
    fn of(x: &'a [f32], sums: &'a mut [f64]) -> RowSums<'a> {
        let (sums, squares) = sums.split_at_mut(sums.len() / 2);
        RowSums { x, sums, squares }
    }

    fn scalar(self) {
        scalar::norm::add_pixels(self.x, self.sums, self.squares);
    }

    /// The sums of `N` channels, or of those that are left.
    #[inline(always)]
    fn columns<const N: usize>(&mut self, first: usize) {
        let channels = self.sums.len();
        let columns = first..channels.min(first + N);
        let (mut sum, mut square) = ([0f64; N], [0f64; N]);
        sum[..columns.len()].copy_from_slice(&self.sums[columns.clone()]);
        square[..columns.len()].copy_from_slice(&self.squares[columns.clone()]);
        for pixels in self.x.chunks(NEIGHBOURS * channels) {
            let (mut near_sum, mut near_square) = ([0f32; N], [0f32; N]);
            for pixel in pixels.chunks_exact(channels) {
                let pixel = &pixel[first..];
                if let Some(values) = pixel.first_chunk::<N>() {
                    add_values(values, &mut near_sum, &mut near_square);
                } else {
                    add_values(pixel, &mut near_sum, &mut near_square);
                }
            }
            for (sum, near) in sum.iter_mut().zip(near_sum).chain(square.iter_mut().zip(near_square)) {
                *sum += f64::from(near);
            }
        }
        self.sums[columns.clone()].copy_from_slice(&sum[..columns.len()]);
        self.squares[columns.clone()].copy_from_slice(&square[..columns.len()]);
    }
}

impl SimdFn for RowSums<'_> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(mut self, _: S) {
        let channels = self.sums.len();
        let whole = if S::MANY_SUMS { channels / (4 * LANES) * (4 * LANES) } else { 0 };
        for first in (0..whole).step_by(4 * LANES) {
            self.columns::<{ 4 * LANES }>(first);
        }
        for first in (whole..channels).step_by(LANES) {
            self.columns::<LANES>(first);
        }
    }
}

#[inline(always)]
fn add_values<const N: usize>(values: &[f32], sum: &mut [f32; N], square: &mut [f32; N]) {
    for ((value, sum), square) in values.iter().zip(sum).zip(square) {
        *sum += value;
        *square = value.mul_add(*value, *square);
    }
}
