//! The operands of every matrix product: the rows, the packed matrix, and what follows the product.

use std::ops::Range;

use crate::layout::{Format, Layout, PANEL};

/// The most products of two int8 values within ±127 whose sum always fits an i32: 133,144.
pub const MOST_TERMS: usize = i32::MAX as usize / (127 * 127);

/// The rows (tokens or pixels) that a matrix is applied to.
#[derive(Debug, Clone, Copy)]
pub enum InputRows<'a> {
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

impl<'a> InputRows<'a> {
    /// Some of the rows of `k` values.
    pub fn part(&self, rows: Range<usize>, k: usize) -> InputRows<'a> {
        let values = rows.start * k..rows.end * k;
        match *self {
            InputRows::Int8 { q, scale } => InputRows::Int8 { q: &q[values], scale: &scale[rows] },
            InputRows::F32(x) => InputRows::F32(&x[values]),
        }
    }

    pub(crate) fn check(&self, rows: usize, layout: &Layout) {
        let len = match self {
            InputRows::Int8 { q, scale } => {
                assert_eq!(scale.len(), rows, "a scale for each row");
                q.len()
            }
            InputRows::F32(x) => x.len(),
        };
        assert_eq!(len, rows * layout.k, "{rows} rows of {} inputs", layout.k);
        let int8 = matches!(self, InputRows::Int8 { .. });
        assert_eq!(int8, layout.format == Format::Int8, "int8 rows go with int8 weights only");
    }
}

/// Consecutive panels of a packed matrix (see [`crate::pack`]).
#[derive(Debug, Clone, Copy)]
pub struct Panels<'a> {
    /// The shape of the matrix.
    pub layout: Layout,
    /// Whole panels, in one or more blocks: as many in each, but the last may hold fewer. Fastest where blocks are
    /// aligned to 64 bytes, and where one call gets many panels: each call packs its input.
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

    /// The panels, each with the index of the 16 outputs that it makes; values come with their gates in GEGLU.
    pub(crate) fn groups(&self, activation: ActivationFn) -> impl Iterator<Item = (usize, &'a [u8], Option<&'a [u8]>)> {
        let (gated, step) = (activation == ActivationFn::Geglu, activation.panels_per_column());
        let group = move |i: usize| ((self.first + i) / step, self.panel(i), gated.then(|| self.panel(i + 1)));
        (0..self.count()).step_by(step).map(group)
    }

    pub(crate) fn check(&self, features: usize, epilogue: &Epilogue) {
        let gated = epilogue.activation == ActivationFn::Geglu;
        let phases = self.layout.phases();
        assert!(!gated || phases == 1, "GEGLU has no phases");
        let all = phases * features.div_ceil(PANEL) * epilogue.activation.panels_per_column();
        let (whole, size) = (self.blocks.first().map_or(0, |block| block.len()), self.layout.panel_bytes());
        for (i, block) in self.blocks.iter().enumerate() {
            assert!(!block.is_empty() && block.len().is_multiple_of(size), "block {i} holds no whole panels");
            let last = i + 1 == self.blocks.len();
            assert!(block.len() == whole || last && block.len() < whole, "block {i} holds more or fewer panels");
        }
        assert!(self.first + self.count() <= all, "panels past the matrix's {all}");
        assert!(!gated || (self.first.is_multiple_of(2) && self.count().is_multiple_of(2)), "whole pairs for GEGLU");
        let int8 = self.layout.format == Format::Int8;
        assert!(!int8 || self.layout.k.is_multiple_of(4), "int8 takes k in fours");
        assert!(!int8 || self.layout.k <= MOST_TERMS, "{} terms overflow an i32, {MOST_TERMS} do not", self.layout.k);
        let whole = |time: &[f32]| !time.is_empty() && time.len().is_multiple_of(features) && !gated;
        assert!(epilogue.time.is_none_or(whole), "a time value for each feature");
        if let Rectifier::Prelu(slopes) = epilogue.rectifier {
            assert!(slopes.len() == features && !gated, "a slope for each feature");
        }
    }
}

/// What is applied to a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActivationFn {
    /// Nothing.
    None,
    /// `x · sigmoid(x)`.
    Silu,
    /// `x · Φ(x)` with the error function.
    Gelu,
    /// `x · sigmoid(1.702 x)`.
    QuickGelu,
    /// `value · gelu(gate)`: panels of 16 values and of 16 gates alternate; half as many features as the matrix has
    /// outputs.
    Geglu,
}

impl ActivationFn {
    /// Panels that 16 columns of the result are made of.
    #[inline(always)]
    pub(crate) fn panels_per_column(self) -> usize {
        if self == ActivationFn::Geglu { 2 } else { 1 }
    }
}

/// What becomes of what is negative in a result.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rectifier<'a> {
    /// It stays.
    None,
    /// It becomes 0 (ReLU).
    Relu,
    /// It is multiplied by its feature's slope (PReLU): one value for each feature, not with GEGLU.
    Prelu(&'a [f32]),
}

/// What follows the product, in this order: the bias (with `time` added to it), the activation, the sum with `out`,
/// the rectifier.
#[derive(Debug, Clone, Copy)]
pub struct Epilogue<'a> {
    /// Applied to the biased result.
    pub activation: ActivationFn,
    /// The result is added to what `out` holds (the residual).
    pub accumulate: bool,
    /// Added to the bias, one value for each feature (not with GEGLU): the same for all images, or each image's own in
    /// turn.
    pub time: Option<&'a [f32]>,
    /// What becomes of what is negative at the end.
    pub rectifier: Rectifier<'a>,
}

impl<'a> Epilogue<'a> {
    /// What `time` adds to the features of an image.
    #[inline(always)]
    pub(crate) fn time_of(&self, image: usize, features: usize) -> Option<&'a [f32]> {
        self.time.map(|time| if time.len() == features { time } else { &time[image * features..][..features] })
    }
}

impl Epilogue<'_> {
    /// The bias alone.
    pub const NONE: Epilogue<'static> =
        Epilogue { activation: ActivationFn::None, accumulate: false, time: None, rectifier: Rectifier::None };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One term more than fits is refused before anything is computed.
    #[test]
    fn sums_that_may_overflow_are_refused() {
        let k = MOST_TERMS;
        assert!(k * 127 * 127 <= i32::MAX as usize && (k + 1) * 127 * 127 > i32::MAX as usize);
        let check = |k: usize| {
            let layout = Layout { format: Format::Int8, k, taps: 1 };
            let bytes = vec![0; layout.panel_bytes()];
            Panels { layout, blocks: &[&bytes], first: 0 }.check(PANEL, &Epilogue::NONE);
        };
        check(k / 4 * 4);
        assert!(std::panic::catch_unwind(|| check(k / 4 * 4 + 4)).is_err());
    }
}
