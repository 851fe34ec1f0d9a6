//! Linear layers and convolutions: one matrix product over panels of weights, with what follows it fused in.

use std::ops::Range;

use crate::cpu::{self, Level};
use crate::pack::{Format, Layout, PANEL};
use crate::product::{self, Product};
use crate::scalar;
use crate::simd::at_level;

/// The rows (tokens or pixels) that a matrix is applied to.
#[derive(Debug, Clone, Copy)]
pub enum Rows<'a> {
    /// Quantized: `[rows][k]` and a scale per row. Goes with [`Format::Int8`].
    Int8 {
        /// The values, within ±127.
        q: &'a [i8],
        /// A scale for each row.
        scale: &'a [f32],
    },
    /// `[rows][k]`. Goes with [`Format::F16`] and [`Format::F32`].
    F32(&'a [f32]),
}

impl<'a> Rows<'a> {
    /// Some of the rows of `k` values.
    pub fn part(&self, rows: Range<usize>, k: usize) -> Rows<'a> {
        let values = rows.start * k..rows.end * k;
        match *self {
            Rows::Int8 { q, scale } => Rows::Int8 { q: &q[values], scale: &scale[rows] },
            Rows::F32(x) => Rows::F32(&x[values]),
        }
    }

    fn check(&self, rows: usize, layout: &Layout) {
        let len = match self {
            Rows::Int8 { q, scale } => {
                assert_eq!(scale.len(), rows, "a scale for each row");
                q.len()
            }
            Rows::F32(x) => x.len(),
        };
        assert_eq!(len, rows * layout.k, "{rows} rows of {} inputs", layout.k);
        let int8 = matches!(self, Rows::Int8 { .. });
        assert_eq!(int8, layout.format == Format::Int8, "int8 rows go with int8 weights only");
    }
}

/// Consecutive panels of a packed matrix (see [`crate::pack`]).
#[derive(Debug, Clone, Copy)]
pub struct Panels<'a> {
    /// The shape of the matrix.
    pub layout: Layout,
    /// Whole panels, in one or more blocks: as many in each, but the last may hold fewer. Fastest where blocks are aligned to 64
    /// bytes, and where one call gets many panels: each call packs its input.
    pub blocks: &'a [&'a [u8]],
    /// The index of the first panel within the matrix.
    pub first: usize,
}

impl<'a> Panels<'a> {
    /// How many panels there are.
    pub fn count(&self) -> usize {
        self.blocks.iter().map(|block| block.len()).sum::<usize>() / self.layout.panel_bytes()
    }

    pub(crate) fn panel(&self, index: usize) -> &'a [u8] {
        let size = self.layout.panel_bytes();
        let at = index * size;
        let whole = self.blocks[0].len();
        &self.blocks[at / whole][at % whole..][..size]
    }

    /// The panels, each with the index of the 16 columns that it makes; values come with their gates in GEGLU.
    pub(crate) fn groups(&self, activation: Activation) -> impl Iterator<Item = (usize, &'a [u8], Option<&'a [u8]>)> {
        let gated = activation == Activation::Geglu;
        let step = if gated { 2 } else { 1 };
        let group = move |i: usize| ((self.first + i) / step, self.panel(i), gated.then(|| self.panel(i + 1)));
        (0..self.count()).step_by(step).map(group)
    }

    fn check(&self, features: usize, epilogue: &Epilogue) {
        let gated = epilogue.activation == Activation::Geglu;
        let all = features.div_ceil(PANEL) * if gated { 2 } else { 1 };
        let (whole, size) = (self.blocks.first().map_or(0, |block| block.len()), self.layout.panel_bytes());
        for (i, block) in self.blocks.iter().enumerate() {
            assert!(!block.is_empty() && block.len().is_multiple_of(size), "block {i} holds no whole panels");
            let last = i + 1 == self.blocks.len();
            assert!(block.len() == whole || last && block.len() < whole, "block {i} holds more or fewer panels");
        }
        assert!(self.first + self.count() <= all, "panels past the matrix's {all}");
        assert!(!gated || (self.first.is_multiple_of(2) && self.count().is_multiple_of(2)), "whole pairs for GEGLU");
        assert!(self.layout.format != Format::Int8 || self.layout.k.is_multiple_of(4), "int8 takes k in fours");
        assert!(epilogue.time.is_none_or(|time| time.len() == features && !gated), "a time value for each feature");
    }
}

/// What is applied to a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    None,
    /// `x · sigmoid(x)`.
    Silu,
    /// `x · Φ(x)` with the error function.
    Gelu,
    /// `x · sigmoid(1.702 x)`.
    QuickGelu,
    /// `value · gelu(gate)`: panels of 16 values and 16 gates by turns; half as many features as the matrix has outputs.
    Geglu,
}

/// What follows the product, in this order: the bias (with `time` added to it), the activation, the sum with `out`.
#[derive(Debug, Clone, Copy)]
pub struct Epilogue<'a> {
    /// Applied to the biased result.
    pub activation: Activation,
    /// The result is added to what `out` holds (the residual).
    pub accumulate: bool,
    /// Added to the bias, one value for each feature (not with GEGLU).
    pub time: Option<&'a [f32]>,
}

impl Epilogue<'_> {
    /// The bias alone.
    pub const NONE: Epilogue<'static> = Epilogue { activation: Activation::None, accumulate: false, time: None };
}

/// A convolution over pictures `[batch][height][width][k]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvShape {
    /// Pictures.
    pub batch: usize,
    /// Rows of a whole input picture.
    pub height: usize,
    /// Pixels of a row.
    pub width: usize,
    /// 1 or 3 (on a side).
    pub kernel: usize,
    /// 1 or 2.
    pub stride: usize,
    /// Zeros to the right and below only, instead of one pixel on every side. A 1×1 kernel never pads.
    pub pad_end_only: bool,
    /// The input is first enlarged, nearest neighbour (never stored), to this height and width. Each is twice the input's, or
    /// one less or more: what it was before a halving that rounded.
    pub enlarged: Option<[usize; 2]>,
}

impl ConvShape {
    fn padding(&self) -> usize {
        if self.kernel == 1 || self.pad_end_only { 0 } else { 1 }
    }

    /// Height and width of what the kernel slides over.
    fn seen(&self) -> [usize; 2] {
        self.enlarged.unwrap_or([self.height, self.width])
    }

    fn outputs(&self, seen: usize) -> usize {
        let end = if self.kernel == 1 { 0 } else { 1 };
        (seen + self.padding() + end - self.kernel) / self.stride + 1
    }

    /// Rows of an output picture.
    pub fn out_height(&self) -> usize {
        self.outputs(self.seen()[0])
    }

    /// Pixels of an output row.
    pub fn out_width(&self) -> usize {
        self.outputs(self.seen()[1])
    }

    /// The input row that a tap of an output row reads; none in the padding.
    pub(crate) fn source_row(&self, out: usize, tap: usize) -> Option<usize> {
        self.source(self.height, self.seen()[0], out, tap)
    }

    /// The input column that a tap of an output column reads; none in the padding.
    pub(crate) fn source_column(&self, out: usize, tap: usize) -> Option<usize> {
        self.source(self.width, self.seen()[1], out, tap)
    }

    /// Of `side` pixels, `seen` after enlarging.
    fn source(&self, side: usize, seen: usize, out: usize, tap: usize) -> Option<usize> {
        let at = (out * self.stride + tap).checked_sub(self.padding())?;
        (at < seen).then_some(if seen == side { at } else { at * side / seen })
    }

    /// The input rows that output rows need: the smallest [`Strip::in_rows`].
    pub fn rows_for(&self, out_rows: &Range<usize>) -> Range<usize> {
        let rows = || out_rows.clone().flat_map(|y| (0..self.kernel).filter_map(move |t| self.source_row(y, t)));
        rows().min().unwrap_or(0)..rows().max().map_or(0, |row| row + 1)
    }

    /// A 1×1 convolution that keeps the pixels as they are is one over a long row.
    fn flat(&self, strip: &Strip) -> (ConvShape, Strip) {
        let same = self.kernel == 1 && self.stride == 1 && self.enlarged.is_none() && strip.in_rows == strip.out_rows;
        if !same {
            return (*self, strip.clone());
        }
        let pixels = self.batch * strip.in_rows.len() * self.width;
        let row = ConvShape { batch: 1, height: 1, width: pixels, ..*self };
        (row, Strip::whole(&row))
    }

    fn check(&self, strip: &Strip, layout: &Layout) {
        assert!(matches!((self.kernel, layout.taps), (1, 1) | (3, 9)), "a kernel of {0}x{0}", self.kernel);
        assert!(matches!(self.stride, 1 | 2), "a stride of {}", self.stride);
        let doubled = |side: usize, enlarged: usize| (2 * side).abs_diff(enlarged) <= 1;
        let fits =
            self.enlarged.is_none_or(|[height, width]| doubled(self.height, height) && doubled(self.width, width));
        assert!(fits, "{}x{} enlarged to {:?}", self.height, self.width, self.enlarged);
        assert!(strip.in_rows.end <= self.height && strip.out_rows.end <= self.out_height(), "rows past the picture");
        let needed = self.rows_for(&strip.out_rows);
        let held = strip.in_rows.start <= needed.start && needed.end <= strip.in_rows.end;
        assert!(held || strip.out_rows.is_empty(), "needs input rows {needed:?}, has {:?}", strip.in_rows);
    }
}

/// Which rows a call holds and makes, as rows of the whole picture; zero padding is at the picture's borders only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strip {
    /// The rows of each input picture that `x` holds.
    pub in_rows: Range<usize>,
    /// The rows of each output picture that `out` gets.
    pub out_rows: Range<usize>,
}

impl Strip {
    /// The whole picture.
    pub fn whole(shape: &ConvShape) -> Strip {
        Strip { in_rows: 0..shape.height, out_rows: 0..shape.out_height() }
    }
}

/// `x · Wᵀ`, then the epilogue. Writes to `out`, `[m][features]`, the columns that `panels` covers: a matrix may come in several
/// chunks of panels.
///
/// # Panics
///
/// If sizes do not fit each other.
pub fn linear(x: Rows, m: usize, panels: &Panels, features: usize, epilogue: &Epilogue, out: &mut [f32]) {
    linear_at(cpu::level(), x, m, panels, features, epilogue, out);
}

/// [`linear`] at a level.
///
/// # Panics
///
/// If sizes do not fit each other, or the CPU does not have the level.
pub fn linear_at(
    level: Level,
    x: Rows,
    m: usize,
    panels: &Panels,
    features: usize,
    epilogue: &Epilogue,
    out: &mut [f32],
) {
    assert_eq!(panels.layout.taps, 1, "a linear layer has one tap");
    assert_eq!(out.len(), m * features, "{m} rows of {features} features");
    let row = ConvShape { batch: 1, height: 1, width: m, kernel: 1, stride: 1, pad_end_only: false, enlarged: None };
    if m > 0 {
        conv2d_at(level, x, &row, &Strip::whole(&row), panels, features, epilogue, out);
    }
}

/// Convolution, then the epilogue. `x` holds `strip.in_rows` of each picture of the batch, `out` gets `strip.out_rows` of
/// each, and of their features the columns that `panels` covers.
///
/// # Panics
///
/// If sizes do not fit each other.
pub fn conv2d(
    x: Rows,
    shape: &ConvShape,
    strip: &Strip,
    panels: &Panels,
    features: usize,
    epilogue: &Epilogue,
    out: &mut [f32],
) {
    conv2d_at(cpu::level(), x, shape, strip, panels, features, epilogue, out);
}

/// [`conv2d`] at a level.
///
/// # Panics
///
/// If sizes do not fit each other, or the CPU does not have the level.
#[allow(clippy::too_many_arguments, reason = "conv2d's, and the level")]
pub fn conv2d_at(
    level: Level,
    x: Rows,
    shape: &ConvShape,
    strip: &Strip,
    panels: &Panels,
    features: usize,
    epilogue: &Epilogue,
    out: &mut [f32],
) {
    assert!(level.available(), "this CPU has no {level}");
    shape.check(strip, &panels.layout);
    x.check(shape.batch * strip.in_rows.len() * shape.width, &panels.layout);
    panels.check(features, epilogue);
    let (rows, width) = (strip.out_rows.len(), shape.out_width());
    assert_eq!(out.len(), shape.batch * rows * width * features, "the output strip's size");
    let (shape, strip) = shape.flat(strip);
    let product = Product { x, shape: &shape, strip: &strip, panels, features, epilogue };
    at_level!(level, simd => product::run(simd, &product, out), scalar => scalar::matmul::matmul(&product, out));
}
