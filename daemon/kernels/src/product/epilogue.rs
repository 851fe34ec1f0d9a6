//! From sums to results: weight scale, bias, activation, residual, ReLU or PReLU.

use super::grid::PixelBlock;
use crate::layout::{self, Format};
use crate::operands::{ActivationFn, ConvCall, Rectifier};
use crate::simd::{LANES, Line, Simd, math};
use crate::tiles::OutTile;

/// A block's sums.
pub(super) struct Finish<'a> {
    pub(super) call: &'a ConvCall<'a>,
    pub(super) block: &'a PixelBlock,
    /// `[panel][pixel][16]`.
    pub(super) sums: &'a [Line],
}

/// A panel's scales, biases and slopes.
#[derive(Clone, Copy)]
struct Affine<S: Simd> {
    simd: S,
    /// None in f16 and f32.
    scale: Option<S::F>,
    bias: S::F,
    /// PReLU's.
    slopes: Option<S::F>,
}

impl<S: Simd> Affine<S> {
    #[inline(always)]
    fn apply(&self, sum: S::F) -> S::F {
        match self.scale {
            Some(scale) => self.simd.fma(sum, scale, self.bias),
            None => self.simd.add(sum, self.bias),
        }
    }
}

impl Finish<'_> {
    /// Writes the columns of `N` panels.
    #[inline(always)]
    pub(super) fn panels<S: Simd, const N: usize>(&self, simd: S, first: usize, mut out: OutTile) {
        let mut affine = [self.affine(simd, first); N];
        for (p, affine) in affine.iter_mut().enumerate().skip(1) {
            *affine = self.affine(simd, first + p);
        }
        let width = self.block.columns.len();
        for y in 0..self.block.rows.len() {
            for x in 0..width {
                for (p, (affine, out)) in affine.iter().zip(out.at(y, x).chunks_mut(LANES)).enumerate() {
                    let value = affine.apply(self.sum(simd, p, y * width + x));
                    self.put(simd, self.activated(simd, value), affine.slopes, out);
                }
            }
        }
    }

    /// Writes the columns of a panel of values and its panel of gates.
    #[inline(always)]
    pub(super) fn gated<S: Simd>(&self, simd: S, first: usize, mut out: OutTile) {
        let (value, gate) = (self.affine(simd, first), self.affine(simd, first + 1));
        let width = self.block.columns.len();
        for y in 0..self.block.rows.len() {
            for x in 0..width {
                let gate = math::gelu(simd, gate.apply(self.sum(simd, 1, y * width + x)));
                let result = simd.mul(value.apply(self.sum(simd, 0, y * width + x)), gate);
                self.put(simd, result, None, out.at(y, x));
            }
        }
    }

    #[inline(always)]
    fn affine<S: Simd>(&self, simd: S, panel: usize) -> Affine<S> {
        let column = self.call.columns(panel..panel).start;
        let matrix = &self.call.panels.layout;
        let panel = self.call.panels.panel(panel);
        let lanes = |at: usize| simd.load(&std::array::from_fn::<f32, LANES, _>(|i| layout::f32_at(panel, at + 4 * i)));
        let time = self.call.epilogue.time_of(self.block.image, self.call.features);
        let time = time.map_or(simd.splat(0.0), |time| simd.load(&time[column..]));
        let scale = (matrix.format == Format::Int8).then(|| lanes(0));
        let slopes = match self.call.epilogue.rectifier {
            Rectifier::Prelu(slopes) => Some(simd.load(&slopes[column..])),
            Rectifier::None | Rectifier::Relu => None,
        };
        Affine { simd, scale, bias: simd.add(lanes(matrix.bias_at()), time), slopes }
    }

    #[inline(always)]
    fn sum<S: Simd>(&self, simd: S, slot: usize, pixel: usize) -> S::F {
        simd.load(&self.sums[slot * self.block.pixels() + pixel].0)
    }

    #[inline(always)]
    fn activated<S: Simd>(&self, simd: S, value: S::F) -> S::F {
        match self.call.epilogue.activation {
            ActivationFn::None | ActivationFn::Geglu => value,
            ActivationFn::Silu => math::silu(simd, value),
            ActivationFn::Gelu => math::gelu(simd, value),
            ActivationFn::QuickGelu => math::quick_gelu(simd, value),
        }
    }

    /// Stores a result, or its sum with what is there, rectified.
    #[inline(always)]
    fn put<S: Simd>(&self, simd: S, value: S::F, slopes: Option<S::F>, out: &mut [f32]) {
        let zero = simd.splat(0.0);
        let value = if self.call.epilogue.accumulate { simd.add(value, simd.load(out)) } else { value };
        let value = match (slopes, self.call.epilogue.rectifier) {
            (Some(slopes), _) => simd.fma(slopes, simd.min(value, zero), simd.max(zero, value)),
            (None, Rectifier::Relu) => simd.max(zero, value),
            (None, _) => value,
        };
        simd.store(value, out);
    }
}
