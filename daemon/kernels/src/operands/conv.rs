//! The operands of convolutions and of linear layers, which are 1×1 convolutions over one row of pixels.

use std::ops::Range;

use crate::layout::{Layout, PANEL};
use crate::operands::matrix::{Epilogue, InputRows, Panels};

/// What of an input the kernel slides over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enlarged {
    /// The input as it is.
    No,
    /// The input enlarged, nearest neighbour (never stored), to this height and width. Each is twice the input's, or one
    /// less or more: what it was before a halving that rounded.
    To([usize; 2]),
    /// The input doubled in both directions, nearest neighbour, and convolved in phases (see [`crate::pack`]): four taps
    /// instead of nine. Only of a 3×3 kernel with a stride of 1 and a pixel of padding on every side.
    Phases,
}

/// A convolution over images `[batch][height][width][k]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvShape {
    /// Images.
    pub batch: usize,
    /// Rows of a whole input image.
    pub height: usize,
    /// Pixels of a row.
    pub width: usize,
    /// 1 or 3 (on a side).
    pub kernel: usize,
    /// 1 or 2.
    pub stride: usize,
    /// Zeros to the right and below only, instead of one pixel on every side. A 1×1 kernel never pads.
    pub pad_end_only: bool,
    /// What the kernel slides over.
    pub enlarged: Enlarged,
}

impl ConvShape {
    fn padding(&self) -> usize {
        if self.kernel == 1 || self.pad_end_only { 0 } else { 1 }
    }

    fn in_phases(&self) -> bool {
        self.enlarged == Enlarged::Phases
    }

    /// Taps on a side of the matrix.
    pub(crate) fn side_taps(&self) -> usize {
        if self.in_phases() { 2 } else { self.kernel }
    }

    /// Taps of the matrix: input pixels that a pixel of the result is made of.
    pub fn taps(&self) -> usize {
        self.side_taps() * self.side_taps()
    }

    /// From an output row or column to the next of the same phase.
    pub(crate) fn phase_step(&self) -> usize {
        if self.in_phases() { 2 } else { 1 }
    }

    /// The phase of an output pixel; 0 where there are none.
    pub(crate) fn phase(&self, row: usize, column: usize) -> usize {
        if self.in_phases() { row % 2 * 2 + column % 2 } else { 0 }
    }

    /// Height and width of what the kernel slides over.
    fn seen(&self) -> [usize; 2] {
        match self.enlarged {
            Enlarged::No => [self.height, self.width],
            Enlarged::To(size) => size,
            Enlarged::Phases => [2 * self.height, 2 * self.width],
        }
    }

    fn outputs(&self, seen: usize) -> usize {
        let end = if self.kernel == 1 { 0 } else { 1 };
        (seen + self.padding() + end - self.kernel) / self.stride + 1
    }

    /// Rows of an output image.
    pub fn out_height(&self) -> usize {
        self.outputs(self.seen()[0])
    }

    /// Pixels of an output row.
    pub fn out_width(&self) -> usize {
        self.outputs(self.seen()[1])
    }

    /// The input row that a tap of an output row reads; `None` in the padding.
    pub(crate) fn source_row(&self, out: usize, tap: usize) -> Option<usize> {
        self.source(self.height, self.seen()[0], out, tap)
    }

    /// The input column that a tap of an output column reads; `None` in the padding.
    pub(crate) fn source_column(&self, out: usize, tap: usize) -> Option<usize> {
        self.source(self.width, self.seen()[1], out, tap)
    }

    /// The source of a tap along a side of `side` pixels, `seen` after enlarging.
    fn source(&self, side: usize, seen: usize, out: usize, tap: usize) -> Option<usize> {
        let seen = if self.in_phases() { side } else { seen };
        let at = (self.first_tap(out) + tap).checked_sub(self.padding())?;
        (at < seen).then_some(if seen == side { at } else { at * side / seen })
    }

    /// Where an output row or column has its first tap, counted from the padding's first row or column: of what the kernel
    /// slides over, or in phases of the input.
    pub(crate) fn first_tap(&self, out: usize) -> usize {
        if self.in_phases() { out.div_ceil(2) } else { out * self.stride }
    }

    /// How many rows or columns the taps of these of the output, which are not empty, span.
    pub(crate) fn span(&self, out: &Range<usize>) -> usize {
        self.first_tap(out.end - 1) + self.side_taps() - self.first_tap(out.start)
    }

    /// The input rows that output rows need: the smallest [`Strip::in_rows`].
    pub fn rows_for(&self, out_rows: &Range<usize>) -> Range<usize> {
        let rows = || out_rows.clone().flat_map(|y| (0..self.side_taps()).filter_map(move |t| self.source_row(y, t)));
        rows().min().unwrap_or(0)..rows().max().map_or(0, |row| row + 1)
    }

    /// A 1×1 convolution over one row of pixels.
    fn row(pixels: usize) -> ConvShape {
        ConvShape {
            batch: 1,
            height: 1,
            width: pixels,
            kernel: 1,
            stride: 1,
            pad_end_only: false,
            enlarged: Enlarged::No,
        }
    }

    fn check(&self, strip: &Strip, layout: &Layout) {
        assert!(matches!(self.kernel, 1 | 3), "a kernel of {0}x{0}", self.kernel);
        assert_eq!(layout.taps, self.taps(), "the matrix's taps");
        assert!(matches!(self.stride, 1 | 2), "a stride of {}", self.stride);
        let doubled = |side: usize, enlarged: usize| (2 * side).abs_diff(enlarged) <= 1;
        let fits = match self.enlarged {
            Enlarged::No => true,
            Enlarged::To([height, width]) => doubled(self.height, height) && doubled(self.width, width),
            Enlarged::Phases => self.kernel == 3 && self.stride == 1 && !self.pad_end_only,
        };
        assert!(fits, "{self:?} is no convolution of what is enlarged so");
        assert!(strip.in_rows.end <= self.height && strip.out_rows.end <= self.out_height(), "rows past the image");
        let needed = self.rows_for(&strip.out_rows);
        let held = strip.in_rows.start <= needed.start && needed.end <= strip.in_rows.end;
        assert!(held || strip.out_rows.is_empty(), "needs input rows {needed:?}, has {:?}", strip.in_rows);
    }
}

/// Which rows a call holds and makes, as rows of the whole image; zero padding is at the image's borders only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strip {
    /// The rows of each input image that `x` holds.
    pub in_rows: Range<usize>,
    /// The rows of each output image that `out` gets.
    pub out_rows: Range<usize>,
}

impl Strip {
    /// The whole image.
    pub fn whole(shape: &ConvShape) -> Strip {
        Strip { in_rows: 0..shape.height, out_rows: 0..shape.out_height() }
    }
}

/// One convolution. It writes to an output `[batch][strip.out_rows][out_width][features]`, and of the features to the
/// columns that `panels` covers.
#[derive(Debug, Clone)]
pub struct ConvCall<'a> {
    /// `strip.in_rows` of each image of the batch: `[batch][strip.in_rows][width][k]`.
    pub x: InputRows<'a>,
    /// The images and the kernel.
    pub shape: ConvShape,
    /// Which rows are read and made.
    pub strip: Strip,
    /// The weights, or some panels of them.
    pub panels: Panels<'a>,
    /// Output channels of the whole matrix (half as many as its outputs with GEGLU).
    pub features: usize,
    /// What follows the product.
    pub epilogue: Epilogue<'a>,
}

impl<'a> ConvCall<'a> {
    /// Checks all sizes, and turns a 1×1 convolution that keeps the pixels as they are into one over a long row.
    pub(crate) fn checked(&self, out: &[f32]) -> ConvCall<'a> {
        let (shape, strip, layout) = (&self.shape, &self.strip, &self.panels.layout);
        assert!(self.features > 0, "a convolution without features");
        shape.check(strip, layout);
        self.x.check(shape.batch * strip.in_rows.len() * shape.width, layout);
        self.panels.check(self.features, &self.epilogue);
        let times = self.epilogue.time.map_or(1, |time| time.len() / self.features);
        assert!(times == 1 || times == shape.batch, "{times} times for {} images", shape.batch);
        let pixels = shape.batch * strip.out_rows.len() * shape.out_width();
        assert_eq!(out.len(), pixels * self.features, "the output strip's size");
        let flat = shape.kernel == 1 && shape.stride == 1 && shape.enlarged == Enlarged::No;
        if !(flat && strip.in_rows == strip.out_rows && times == 1) {
            return self.clone();
        }
        let shape = ConvShape::row(pixels);
        ConvCall { shape, strip: Strip::whole(&shape), ..self.clone() }
    }

    /// The output's columns that some of the panels make; those of GEGLU are whole pairs. Panels of several phases count as
    /// making all.
    #[inline(always)]
    pub(crate) fn columns(&self, panels: Range<usize>) -> Range<usize> {
        let step = self.epilogue.activation.panels_per_column();
        let of_phase = self.features.div_ceil(PANEL) * step;
        let (first, len) = ((self.panels.first + panels.start) % of_phase, panels.len());
        if first + len > of_phase {
            return 0..self.features;
        }
        let [first, end] = [first, first + len].map(|panel| panel / step * PANEL);
        first..end.min(self.features)
    }

    /// Those of this call's panels that make some of the output's columns in a phase.
    #[inline(always)]
    pub(crate) fn panels_of(&self, phase: usize, columns: &Range<usize>) -> Range<usize> {
        let step = self.epilogue.activation.panels_per_column();
        let of_phase = self.features.div_ceil(PANEL) * step;
        let (first, end) = (self.panels.first, self.panels.first + self.panels.count());
        let panel = |column: usize| (phase * of_phase + column.div_ceil(PANEL) * step).clamp(first, end) - first;
        panel(columns.start)..panel(columns.end)
    }
}

/// One linear layer, `x · Wᵀ` and what follows it. It writes to an output `[rows][features]`, and of the features to
/// the columns that `panels` covers: a matrix may come in several calls.
#[derive(Debug, Clone)]
pub struct LinearCall<'a> {
    /// `[rows][k]`.
    pub x: InputRows<'a>,
    /// The weights, or some panels of them.
    pub panels: Panels<'a>,
    /// Output channels of the whole matrix (half as many as its outputs with GEGLU).
    pub features: usize,
    /// What follows the product.
    pub epilogue: Epilogue<'a>,
}

impl<'a> LinearCall<'a> {
    /// As a convolution over one row of as many pixels as `out` has rows; `None` where `out` is empty.
    pub(crate) fn as_conv(&self, out: &[f32]) -> Option<ConvCall<'a>> {
        let LinearCall { x, panels, features, epilogue } = *self;
        assert_eq!(panels.layout.taps, 1, "a linear layer has one tap");
        assert!(features > 0 && out.len().is_multiple_of(features), "{} values are not rows of {features}", out.len());
        let shape = ConvShape::row(out.len() / features);
        let call = ConvCall { x, shape, strip: Strip::whole(&shape), panels, features, epilogue };
        (shape.width > 0).then_some(call)
    }
}
