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
        let affine: [Affine<S>; N] = std::array::from_fn(|p| self.affine(simd, first + p));
        let activation = self.product.epilogue.activation;
        self.each(simd, first, |pixel| {
            std::array::from_fn::<_, N, _>(|p| {
                let value = affine[p].apply(self.sum(simd, p, pixel));
                match activation {
                    Activation::None | Activation::Geglu => value,
                    Activation::Silu => math::silu(simd, value),
                    Activation::Gelu => math::gelu(simd, value),
                    Activation::QuickGelu => math::quick_gelu(simd, value),
                }
            })
        });
    }

    /// Writes the columns of a panel of values and its panel of gates.
    #[inline(always)]
    pub(super) fn gated<S: Simd>(&self, simd: S, first: usize) {
        let (value, gate) = (self.affine(simd, first), self.affine(simd, first + 1));
        self.each(simd, first, |pixel| {
            let gate = math::gelu(simd, gate.apply(self.sum(simd, 1, pixel)));
            [simd.mul(value.apply(self.sum(simd, 0, pixel)), gate)]
        });
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

    /// Stores, or adds to what is there, what `result` gives for each pixel of the block: 16 columns (fewer at the matrix's
    /// last panel) each.
    #[inline(always)]
    fn each<S: Simd, const N: usize>(&self, simd: S, first: usize, result: impl Fn(usize) -> [S::F; N]) {
        let Product { features, epilogue, .. } = *self.product;
        let column = self.product.column(first);
        let columns = (N * LANES).min(features - column);
        let mut pixel = 0;
        for y in 0..self.block.rows.len() {
            let start = self.product.out_at(self.block, y, 0) + column;
            for x in 0..self.block.columns.len() {
                // SAFETY: these columns of these pixels are this task's alone.
                let out = unsafe { self.out.part(start + x * features, columns) };
                for (mut value, out) in result(pixel).into_iter().zip(out.chunks_mut(LANES)) {
                    if epilogue.accumulate {
                        value = simd.add(value, simd.load(out));
                    }
                    simd.store(value, out);
                }
                pixel += 1;
            }
        }
    }
}
