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
    /// Sums of eight neighbouring pixels are f32; these are added in f64, from left to right, then row by row.
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

/// Adds pixels of a row to its sums, a few channels at a time.
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

    /// The sums of `N` vectors of channels.
    #[inline(always)]
    fn columns<S: Simd, const N: usize>(&mut self, simd: S, first: usize) {
        let channels = self.sums.len();
        let columns = first..first + N * LANES;
        let (mut sums, mut squares) = ([[0f64; LANES]; N], [[0f64; LANES]; N]);
        sums.as_flattened_mut().copy_from_slice(&self.sums[columns.clone()]);
        squares.as_flattened_mut().copy_from_slice(&self.squares[columns.clone()]);
        for pixels in self.x.chunks(NEIGHBOURS * channels) {
            let (mut near_sums, mut near_squares) = ([simd.splat(0.0); N], [simd.splat(0.0); N]);
            for pixel in pixels.chunks_exact(channels) {
                let lines = pixel[columns.clone()].as_chunks::<LANES>().0;
                for (n, line) in lines.iter().enumerate() {
                    let x = simd.load(line);
                    near_sums[n] = simd.add(near_sums[n], x);
                    near_squares[n] = simd.fma(x, x, near_squares[n]);
                }
            }
            for n in 0..N {
                add_near(simd, near_sums[n], &mut sums[n]);
                add_near(simd, near_squares[n], &mut squares[n]);
            }
        }
        self.sums[columns.clone()].copy_from_slice(sums.as_flattened());
        self.squares[columns].copy_from_slice(squares.as_flattened());
    }

    /// The sums of the channels that are left, fewer than [`LANES`].
    #[inline(always)]
    fn last_columns<S: Simd>(&mut self, simd: S, first: usize) {
        let channels = self.sums.len();
        for pixels in self.x.chunks(NEIGHBOURS * channels) {
            let (mut near_sums, mut near_squares) = (simd.splat(0.0), simd.splat(0.0));
            for pixel in pixels.chunks_exact(channels) {
                let x = simd.load(&pixel[first..]);
                near_sums = simd.add(near_sums, x);
                near_squares = simd.fma(x, x, near_squares);
            }
            add_near(simd, near_sums, &mut self.sums[first..]);
            add_near(simd, near_squares, &mut self.squares[first..]);
        }
    }
}

impl SimdFn for RowSums<'_> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(mut self, simd: S) {
        let channels = self.sums.len();
        let many = if S::MANY_SUMS { channels / (4 * LANES) * (4 * LANES) } else { 0 };
        for first in (0..many).step_by(4 * LANES) {
            self.columns::<S, 4>(simd, first);
        }
        let whole = channels / LANES * LANES;
        for first in (many..whole).step_by(LANES) {
            self.columns::<S, 1>(simd, first);
        }
        if whole < channels {
            self.last_columns(simd, whole);
        }
    }
}

#[inline(always)]
fn add_near<S: Simd>(simd: S, near: S::F, sums: &mut [f64]) {
    let mut lanes = [0.0; LANES];
    simd.store(near, &mut lanes);
    sums.iter_mut().zip(&lanes).for_each(|(sum, lane)| *sum += f64::from(*lane));
}
