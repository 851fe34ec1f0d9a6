//! The vector levels' matrix product: an implicit GEMM over blocks of output pixels.
//!
//! A linear layer is a 1×1 convolution over one row of pixels, so there is one path. A task takes a block of output pixels and
//! some of the panels. It packs the input pixels that the block reads, each once ([`gather`]), into chunks of 64 bytes that lie
//! side by side for neighbouring pixels: whatever the tap, the rows of a tile are then 64 bytes apart, and no im2col
//! buffer exists. Then, two panels at a time and tap by tap, so that a tap's weights stay in the first cache, the level's inner loop
//! adds to the block's sums; last comes the [`epilogue`].
//!
//! How pixels and panels are split cannot change the result: no sum is split.

mod epilogue;
mod gather;
mod plan;

use std::cell::RefCell;

use rayon::prelude::*;

use self::gather::Gathered;
use self::plan::{Block, Plan};
use crate::matmul::{Activation, ConvShape, Epilogue, Panels, Rows, Strip};
use crate::pack::Format;
use crate::shared::SharedOut;
use crate::simd::{DotTile, FmaTile, LANES, Line, Simd, Work, room};

/// One call of [`crate::conv2d`], its sizes checked.
#[derive(Clone, Copy)]
pub(crate) struct Product<'a> {
    pub(crate) x: Rows<'a>,
    pub(crate) shape: &'a ConvShape,
    pub(crate) strip: &'a Strip,
    pub(crate) panels: &'a Panels<'a>,
    pub(crate) features: usize,
    pub(crate) epilogue: &'a Epilogue<'a>,
}

impl Product<'_> {
    /// The first of the columns that a panel makes, alone or with its gates.
    #[inline(always)]
    fn column(&self, panel: usize) -> usize {
        let gated = self.epilogue.activation == Activation::Geglu;
        (self.panels.first + panel) / if gated { 2 } else { 1 } * LANES
    }

    /// Where the output of a block's pixel starts.
    #[inline(always)]
    fn out_at(&self, block: &Block, y: usize, x: usize) -> usize {
        let row = block.picture * self.strip.out_rows.len() + block.rows.start + y - self.strip.out_rows.start;
        (row * self.shape.out_width() + block.columns.start + x) * self.features
    }
}

/// What a thread keeps between tasks, so that none allocates.
#[derive(Default)]
struct Scratch {
    gathered: Gathered,
    /// `[panel of the pair][pixel][16]`.
    sums: Vec<Line>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Computes the columns that the panels cover, of every pixel of the strip.
pub(crate) fn run<S: Simd>(simd: S, product: &Product, out: &mut [f32]) {
    let plan = Plan::new(product, S::ROWS, rayon::current_num_threads());
    let out = SharedOut::new(out);
    (0..plan.tasks()).into_par_iter().with_max_len(1).for_each(|task| {
        let (block, panels) = plan.task(task);
        SCRATCH.with_borrow_mut(|scratch| simd.run(Task { product, block, panels, out, scratch }));
    });
}

struct Task<'a> {
    product: &'a Product<'a>,
    block: Block,
    panels: std::ops::Range<usize>,
    out: SharedOut<'a>,
    scratch: &'a mut Scratch,
}

impl Work for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn work<S: Simd>(self, simd: S) {
        let Task { product, block, panels, out, scratch } = self;
        scratch.gathered.fill::<S>(product, &block);
        let gated = product.epilogue.activation == Activation::Geglu;
        for first in panels.clone().step_by(2) {
            let count = 2.min(panels.end - first);
            room(&mut scratch.sums, count * block.pixels());
            let pair = [product.panels.panel(first), product.panels.panel(first + count - 1)];
            multiply(simd, product, &block, first, &pair[..count], scratch, out);
            let finish = epilogue::Finish { product, block: &block, out, sums: &scratch.sums };
            match (gated, count) {
                (true, _) => finish.gated(simd, first),
                (false, 1) => finish.panels::<S, 1>(simd, first),
                (false, _) => finish.panels::<S, 2>(simd, first),
            }
        }
    }
}

/// Adds every tap of one or two panels to the block's sums. The output's lines, which are far apart, are asked for meanwhile.
#[inline(always)]
fn multiply<S: Simd>(
    simd: S,
    product: &Product,
    block: &Block,
    first: usize,
    panels: &[&[u8]],
    scratch: &mut Scratch,
    out: SharedOut,
) {
    let shape = product.shape;
    let taps = product.panels.layout.taps;
    for tap in 0..taps {
        let (down, right) = (tap / shape.kernel, tap % shape.kernel);
        for y in 0..block.rows.len() {
            let row = y * shape.stride + down;
            for tile in block.tiles(S::ROWS) {
                if tap + 1 == taps {
                    let at = product.out_at(block, y, tile.start) + product.column(first);
                    for x in 0..tile.len() {
                        simd.prefetch(out.address(at + x * product.features));
                        simd.prefetch(out.address(at + x * product.features + LANES));
                    }
                }
                let place = Place { tap, row, column: right, tile, sums: y * block.columns.len() };
                one_tile(simd, product, block, panels, &place, scratch);
            }
        }
    }
}

/// Where a tile reads and writes: gathered row and tap's column, output columns of the block, first pixel of their row.
struct Place {
    tap: usize,
    row: usize,
    column: usize,
    tile: std::ops::Range<usize>,
    sums: usize,
}

#[inline(always)]
fn one_tile<S: Simd>(
    simd: S,
    product: &Product,
    block: &Block,
    panels: &[&[u8]],
    place: &Place,
    scratch: &mut Scratch,
) {
    let layout = &product.panels.layout;
    let pair = panels.len() == 2;
    let panel = |p: usize| panels[p.min(panels.len() - 1)];
    let data = |p: usize| panel(p)[layout.data_at() + place.tap * layout.tap_bytes()..].as_ptr();
    let pixels = block.pixels();
    let (rows, scales) = scratch.gathered.tile(place.row, place.column, &place.tile);
    let sums = scratch.sums[place.sums + place.tile.start..].as_mut_ptr().cast();
    let (chunk_stride, panel_stride) = (scratch.gathered.chunk_stride(), pixels * LANES);
    let panels = [data(0), data(1)];
    let (count, k, fresh) = (place.tile.len(), layout.k, place.tap == 0);
    if layout.format == Format::Int8 {
        let weight_sums = [0, 1].map(|p| panel(p)[layout.sums_at() + place.tap * 64..].as_ptr());
        let tile =
            DotTile { rows, chunk_stride, count, panels, weight_sums, pair, k, scales, fresh, sums, panel_stride };
        // SAFETY: the gathered rows hold k values for each of the tile's pixels, the panels k lines from this tap on, the sums a
        // line for each pixel and panel; `Panels::check` has seen that the panels are whole.
        unsafe { simd.dot_tile(&tile) }
    } else {
        let half = layout.format == Format::F16;
        let tile = FmaTile { rows, chunk_stride, count, panels, half, pair, k, fresh, sums, panel_stride };
        // SAFETY: as above.
        unsafe { simd.fma_tile(&tile) }
    }
}
