//! From sums to results: weight scale, bias, activation, residual.

use super::{Block, Product};
use crate::matmul::Activation;
use crate::pack::{self, Format};
use crate::shared::SharedOut;
use crate::simd::{LANES, Line, Simd, math};

/// A block's sums, and where they go.
pub(super) struct Finish<'a> {
    pub(super) product: &'a Product<'a>,
    pub(super) block: &'a Block,
    pub(super) out: SharedOut<'a>,
    /// `[panel][pixel][16]`.
    pub(super) sums: &'a [Line],
}

/// A panel's scales and biases.
#[derive(Clone, Copy)]
struct Affine<S: Simd> {
    simd: S,
    /// None in f16 and f32.
    scale: Option<S::F>,
    bias: S::F,
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
    pub(super) fn panels<S: Simd, const N: usize>(&self, simd: S, first: usize) {
        let mut affine = [self.affine(simd, first); N];
        for (p, affine) in affine.iter_mut().enumerate().skip(1) {
            *affine = self.affine(simd, first + p);
        }
        let (width, features) = (self.block.columns.len(), self.product.features);
        let column = self.product.column(first);
        let columns = (N * LANES).min(features - column);
        for y in 0..self.block.rows.len() {
            let start = self.product.out_at(self.block, y, 0) + column;
            for x in 0..width {
                let out = self.columns(start + x * features, columns);
                for (p, out) in out.chunks_mut(LANES).enumerate() {
                    let value = affine[p].apply(self.sum(simd, p, y * width + x));
                    self.put(simd, self.activated(simd, value), out);
                }
            }
        }
    }

    /// Writes the columns of a panel of values and its panel of gates.
    #[inline(always)]
    pub(super) fn gated<S: Simd>(&self, simd: S, first: usize) {
        let (value, gate) = (self.affine(simd, first), self.affine(simd, first + 1));
        let (width, features) = (self.block.columns.len(), self.product.features);
        let column = self.product.column(first);
        let columns = LANES.min(features - column);
        for y in 0..self.block.rows.len() {
            let start = self.product.out_at(self.block, y, 0) + column;
            for x in 0..width {
                let gate = math::gelu(simd, gate.apply(self.sum(simd, 1, y * width + x)));
                let result = simd.mul(value.apply(self.sum(simd, 0, y * width + x)), gate);
                self.put(simd, result, self.columns(start + x * features, columns));
            }
        }
    }

    #[inline(always)]
    fn affine<S: Simd>(&self, simd: S, panel: usize) -> Affine<S> {
        let column = self.product.column(panel);
        let layout = &self.product.panels.layout;
        let panel = self.product.panels.panel(panel);
        let lanes = |at: usize| simd.load(&std::array::from_fn::<f32, LANES, _>(|i| pack::f32_at(panel, at + 4 * i)));
        let time = self.product.epilogue.time.map_or(simd.splat(0.0), |time| simd.load(&time[column..]));
        let scale = (layout.format == Format::Int8).then(|| lanes(0));
        Affine { simd, scale, bias: simd.add(lanes(layout.bias_at()), time) }
    }

    #[inline(always)]
    fn sum<S: Simd>(&self, simd: S, slot: usize, pixel: usize) -> S::F {
        simd.load(&self.sums[slot * self.block.pixels() + pixel].0)
    }

    #[inline(always)]
    fn activated<S: Simd>(&self, simd: S, value: S::F) -> S::F {
        match self.product.epilogue.activation {
            Activation::None | Activation::Geglu => value,
            Activation::Silu => math::silu(simd, value),
            Activation::Gelu => math::gelu(simd, value),
            Activation::QuickGelu => math::quick_gelu(simd, value),
        }
    }

    /// A pixel's columns.
    #[inline(always)]
    #[allow(clippy::mut_from_ref, reason = "each pixel is asked for once")]
    fn columns(&self, at: usize, columns: usize) -> &mut [f32] {
        // SAFETY: these columns of these pixels are this task's alone, which asks for one pixel at a time.
        unsafe { self.out.part(at, columns) }
    }

    /// Stores a result, or adds it to what is there.
    #[inline(always)]
    fn put<S: Simd>(&self, simd: S, value: S::F, out: &mut [f32]) {
        let value = if self.product.epilogue.accumulate { simd.add(value, simd.load(out)) } else { value };
        simd.store(value, out);
    }
}
