//! The vector levels' matrix product: an implicit GEMM over blocks of output pixels.
//!
//! A linear layer is a 1×1 convolution over one row of pixels, so there is one path. A task takes a block of output pixels and
//! some of the panels. It packs the input pixels that the block reads, each once ([`gather`]), into chunks of 64 bytes that lie
//! side by side for neighbouring pixels: whatever the tap, the rows of a tile are then 64 bytes apart, and no im2col
//! buffer exists. Then, two panels at a time and tap by tap, so that a tap's weights stay in L1, the level's inner loop adds to the
//! block's sums; a tile that has its last tap goes through the [`epilogue`].
//!
//! A convolution in phases (see [`crate::pack`]) is four of them over the same packed input, one after the other, each of which
//! writes every second pixel of every second row.
//!
//! How pixels and panels are split cannot change the result: no sum is split.

mod epilogue;
mod gather;
mod grid;

use std::cell::RefCell;
use std::ops::Range;
use std::ptr::null;

use self::epilogue::Finish;
use self::gather::Gathered;
use self::grid::{PhasePixels, PixelBlock, TaskGrid};
use crate::cancel::Tasks;
use crate::layout::Format;
use crate::operands::{ActivationFn, ConvCall};
use crate::simd::{CHUNK, DotTile, FmaTile, LANES, Line, Simd, SimdFn, reserve_lines};
use crate::tiles::{self, OutTile};

/// What a thread keeps between tasks, so that none allocates.
#[derive(Default)]
struct ProductScratch {
    gathered: Gathered,
    /// `[panel of the pair][pixel][16]`.
    sums: Vec<Line>,
}

thread_local! {
    static SCRATCH: RefCell<ProductScratch> = RefCell::default();
}

/// Computes the columns that the panels cover, of every pixel of the strip. The call's sizes are checked.
pub(crate) fn run<S: Simd>(simd: S, call: &ConvCall, out: &mut [f32]) {
    let grid = TaskGrid::new(call, S::ROWS, rayon::current_num_threads());
    tiles::split(out, grid.shape, grid.cuts).for_each_task(|out| {
        let block = grid.block(&out);
        SCRATCH.with_borrow_mut(|scratch| simd.run(ProductTask { call, block, out, scratch }));
    });
}

/// Frees what this thread keeps between tasks.
pub(crate) fn release_scratch() {
    drop(SCRATCH.take());
}

struct ProductTask<'a> {
    call: &'a ConvCall<'a>,
    block: PixelBlock,
    out: OutTile<'a>,
    scratch: &'a mut ProductScratch,
}

impl SimdFn for ProductTask<'_> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(self, simd: S) {
        let ProductTask { call, block, mut out, scratch } = self;
        scratch.gathered.fill(simd, call, &block);
        for phase in 0..call.panels.layout.phases() {
            let (pixels, panels) = (block.phase(&call.shape, phase), call.panels_of(phase, &out.values));
            let mut out = out.spaced(pixels.first, call.shape.phase_step());
            for first in panels.clone().step_by(2) {
                let count = 2.min(panels.end - first);
                reserve_lines(&mut scratch.sums, count * pixels.count());
                let pair = [call.panels.panel(first), call.panels.panel(first + count - 1)];
                let mut out = out.narrowed(call.columns(first..first + count));
                if count == 2 {
                    let finish = Finish::<S, 2>::new(simd, call, block.image, first);
                    multiply(simd, call, &pixels, &pair, scratch, &finish, &mut out);
                } else {
                    let finish = Finish::<S, 1>::new(simd, call, block.image, first);
                    multiply(simd, call, &pixels, &pair[..1], scratch, &finish, &mut out);
                }
            }
        }
    }
}

/// Adds every tap of `N` panels to the sums of a block's pixels, and finishes each tile once it has the last one, while its sums are in L1.
/// The output's lines, which are far apart, are prefetched meanwhile.
#[inline(always)]
fn multiply<S: Simd, const N: usize>(
    simd: S,
    call: &ConvCall,
    pixels: &PhasePixels,
    panels: &[&[u8]],
    scratch: &mut ProductScratch,
    finish: &Finish<S, N>,
    out: &mut OutTile,
) {
    let (shape, side) = (&call.shape, call.shape.side_taps());
    let taps = call.panels.layout.taps;
    let gated = call.epilogue.activation == ActivationFn::Geglu;
    let outputs = if gated { LANES } else { out.values.len() - (N - 1) * LANES };
    for tap in 0..taps {
        let (down, right) = (pixels.taps[0] + tap / side, pixels.taps[1] + tap % side);
        for y in 0..pixels.rows {
            let row = y * shape.stride + down;
            for tile in pixels.tiles(S::ROWS, S::TILE_ROWS) {
                let last = tap + 1 == taps;
                if last {
                    for x in tile.clone() {
                        let columns = out.address(y, x);
                        simd.prefetch_write(columns);
                        simd.prefetch_write(columns.wrapping_add(LANES));
                    }
                }
                // With a single tap no sums wait for others: all tiles use the same lines.
                let first = if taps == 1 { 0 } else { y * pixels.columns + tile.start };
                let place = TilePlace { tap, row, column: right, tile: tile.clone(), sums: first };
                one_tile(simd, call, pixels.count(), (panels, outputs), &place, scratch);
                if last {
                    let sums = |p: usize| &scratch.sums[p * pixels.count() + first..][..tile.len()];
                    finish.tile(simd, std::array::from_fn(sums), y, tile, out);
                }
            }
        }
    }
}

/// Where a tile reads and writes: gathered row and tap's column, output columns of the block's pixels, the first of its sums.
struct TilePlace {
    tap: usize,
    row: usize,
    column: usize,
    tile: Range<usize>,
    sums: usize,
}

#[inline(always)]
fn one_tile<S: Simd>(
    simd: S,
    call: &ConvCall,
    pixels: usize,
    (panels, outputs): (&[&[u8]], usize),
    place: &TilePlace,
    scratch: &mut ProductScratch,
) {
    let layout = &call.panels.layout;
    let pair = panels.len() == 2;
    let panel = |p: usize| panels[p.min(panels.len() - 1)];
    let data = |p: usize| panel(p)[layout.data_at() + place.tap * layout.tap_bytes()..].as_ptr();
    let (rows, scales) = scratch.gathered.tile(place.row, place.column, &place.tile);
    let sums: *mut f32 = scratch.sums[place.sums..].as_mut_ptr().cast();
    let (chunk_stride, panel_stride) = (scratch.gathered.chunk_stride(), pixels * LANES);
    let panels = [data(0), data(1)];
    let (count, k, fresh) = (place.tile.len(), layout.k, place.tap == 0);
    if layout.format == Format::Int8 {
        let weight_sums = [0, 1].map(|p| panel(p)[layout.sums_at() + place.tap * 64..].as_ptr());
        let tile = DotTile {
            rows,
            chunk_stride,
            count,
            panels,
            weight_sums,
            pair,
            k,
            scales,
            by_lane: false,
            row_sums: null(),
            fresh,
            sums,
            panel_stride,
        };
        // SAFETY: the gathered rows hold k values for each of the tile's pixels, the panels k lines from this tap on, the sums a
        // line for each pixel and panel; `Panels::check` has asserted that the panels are whole.
        unsafe { simd.dot_tile(&tile) }
    } else {
        let half = layout.format == Format::F16;
        for first in (0..count).step_by(S::ROWS) {
            let count = S::ROWS.min(count - first);
            // SAFETY: as above; the rows of the tile from `first` on.
            unsafe {
                let (rows, sums) = (rows.add(first * CHUNK), sums.add(first * LANES));
                simd.fma_tile(&FmaTile {
                    rows,
                    chunk_stride,
                    count,
                    panels,
                    half,
                    pair,
                    outputs,
                    k,
                    fresh,
                    sums,
                    panel_stride,
                });
            }
        }
    }
}
