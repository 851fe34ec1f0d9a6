//! From sums to results: weight scale, bias, activation, residual, ReLU or PReLU.

use std::ops::Range;

use crate::layout::{self, Format};
use crate::operands::{ActivationFn, ConvCall, Epilogue, Rectifier};
use crate::simd::{LANES, Line, Simd, math};
use crate::tiles::OutTile;

/// What follows the sums of `N` panels.
pub(super) struct Finish<'a, S: Simd, const N: usize> {
    epilogue: Epilogue<'a>,
    affine: [Affine<S>; N],
}

/// A panel's scales, biases and slopes.
#[derive(Clone, Copy)]
struct Affine<S: Simd> {
    /// 1 in f16 and f32, which changes nothing.
    scale: S::F,
    bias: S::F,
    /// PReLU's; 0 elsewhere.
    slopes: S::F,
}

impl<S: Simd> Affine<S> {
    #[inline(always)]
    fn of(simd: S, call: &ConvCall, image: usize, panel: usize) -> Affine<S> {
        let column = call.columns(panel..panel + 1).start;
        let matrix = &call.panels.layout;
        let panel = call.panels.panel(panel);
        let lanes = |at: usize| simd.load(&layout::line_at(panel, at));
        let time = call.epilogue.time_of(image, call.features);
        let time = time.map_or(simd.splat(0.0), |time| simd.load(&time[column..]));
        let scale = if matrix.format == Format::Int8 { lanes(0) } else { simd.splat(1.0) };
        let slopes = match call.epilogue.rectifier {
            Rectifier::Prelu(slopes) => simd.load(&slopes[column..]),
            Rectifier::None | Rectifier::Relu => simd.splat(0.0),
        };
        Affine { scale, bias: simd.add(lanes(matrix.bias_at()), time), slopes }
    }

    #[inline(always)]
    fn apply(&self, simd: S, sum: &Line) -> S::F {
        simd.fma(simd.load(&sum.0), self.scale, self.bias)
    }
}

impl<'a, S: Simd, const N: usize> Finish<'a, S, N> {
    /// For pixels of an image and the panels from `first` on.
    #[inline(always)]
    pub(super) fn new(simd: S, call: &ConvCall<'a>, image: usize, first: usize) -> Finish<'a, S, N> {
        let mut affine = [Affine::of(simd, call, image, first); N];
        for (p, affine) in affine.iter_mut().enumerate().skip(1) {
            *affine = Affine::of(simd, call, image, first + p);
        }
        Finish { epilogue: call.epilogue, affine }
    }

    /// Writes what becomes of a tile's sums, a line for each pixel and panel, to the columns `tile` of the output's line `y`.
    #[inline(always)]
    pub(super) fn tile(&self, simd: S, sums: [&[Line]; N], y: usize, tile: Range<usize>, out: &mut OutTile) {
        let Epilogue { activation, accumulate, rectifier, .. } = self.epilogue;
        let gated = activation == ActivationFn::Geglu;
        let whole = out.values.len() == if gated { LANES } else { N * LANES };
        match (activation, rectifier, accumulate) {
            (ActivationFn::None, Rectifier::None, false) if whole => self.plain::<false>(simd, sums, y, tile, out),
            (ActivationFn::None, Rectifier::None, true) if whole => self.plain::<true>(simd, sums, y, tile, out),
            (ActivationFn::Geglu, Rectifier::None, false) if whole => self.gated(simd, sums, y, tile, out),
            (ActivationFn::Geglu, ..) => self.gated_any(simd, sums, y, tile, out),
            _ => self.any(simd, sums, y, tile, out),
        }
    }

    /// Whole lines with nothing but a bias and perhaps a residual: most of all there are, so that each step counts.
    #[inline(always)]
    fn plain<const ACCUMULATE: bool>(
        &self,
        simd: S,
        sums: [&[Line]; N],
        y: usize,
        tile: Range<usize>,
        out: &mut OutTile,
    ) {
        for (i, x) in tile.enumerate() {
            let (out, _) = out.at(y, x).as_chunks_mut::<LANES>();
            for p in 0..N {
                let value = self.affine[p].apply(simd, &sums[p][i]);
                simd.store(if ACCUMULATE { simd.add(value, simd.load(&out[p])) } else { value }, &mut out[p]);
            }
        }
    }

    /// Whole lines of two panels, the first of values and the second of gates.
    #[inline(always)]
    fn gated(&self, simd: S, sums: [&[Line]; N], y: usize, tile: Range<usize>, out: &mut OutTile) {
        for (i, x) in tile.enumerate() {
            let (out, _) = out.at(y, x).as_chunks_mut::<LANES>();
            simd.store(self.product(simd, sums, i), &mut out[0]);
        }
    }

    /// Of two such panels, whatever follows.
    #[inline(always)]
    fn gated_any(&self, simd: S, sums: [&[Line]; N], y: usize, tile: Range<usize>, out: &mut OutTile) {
        for (i, x) in tile.enumerate() {
            self.put(simd, self.product(simd, sums, i), self.affine[0].slopes, out.at(y, x));
        }
    }

    /// Values by the GELU of their gates, of pixel `i`.
    #[inline(always)]
    fn product(&self, simd: S, sums: [&[Line]; N], i: usize) -> S::F {
        let gate = math::gelu(simd, self.affine[N - 1].apply(simd, &sums[N - 1][i]));
        simd.mul(self.affine[0].apply(simd, &sums[0][i]), gate)
    }

    #[inline(always)]
    fn any(&self, simd: S, sums: [&[Line]; N], y: usize, tile: Range<usize>, out: &mut OutTile) {
        for (i, x) in tile.enumerate() {
            for ((affine, sums), out) in self.affine.iter().zip(sums).zip(out.at(y, x).chunks_mut(LANES)) {
                self.put(simd, self.activated(simd, affine.apply(simd, &sums[i])), affine.slopes, out);
            }
        }
    }

    #[inline(always)]
    fn activated(&self, simd: S, value: S::F) -> S::F {
        match self.epilogue.activation {
            ActivationFn::None | ActivationFn::Geglu => value,
            ActivationFn::Silu => math::silu(simd, value),
            ActivationFn::Gelu => math::gelu(simd, value),
            ActivationFn::QuickGelu => math::quick_gelu(simd, value),
        }
    }

    /// Stores a result, or its sum with what is there, rectified.
    #[inline(always)]
    fn put(&self, simd: S, value: S::F, slopes: S::F, out: &mut [f32]) {
        let zero = simd.splat(0.0);
        let value = if self.epilogue.accumulate { simd.add(value, simd.load(out)) } else { value };
        let value = match self.epilogue.rectifier {
            Rectifier::Prelu(_) => simd.fma(slopes, simd.min(value, zero), simd.max(zero, value)),
            Rectifier::Relu => simd.max(zero, value),
            Rectifier::None => value,
        };
        simd.store(value, out);
    }
}
