//! How a product is split into tasks.

use std::ops::Range;

use crate::layout::{Format, PANEL};
use crate::operands::{ConvCall, ConvShape};
use crate::tiles::{Cuts, OutTile, part};

/// Output pixels, in phases of each, that a block aims at: enough that packing them and reading the weights from L2 cost little.
const PIXELS: usize = 96;
/// Bytes of packed input that a block may take: half of a small board's L2.
const PACKED: usize = 256 << 10;
/// Rows of a 3×3 convolution's block: nearly a square, whose border of pixels that only neighbours write is the shortest.
const ROWS: usize = 8;
/// Bytes of weights that a task goes through: all threads read the same at about the same time, from the cache that they share.
const WEIGHTS: usize = 1 << 20;
/// Tasks for each thread: enough that no thread waits long for the last one.
const TASKS_PER_THREAD: usize = 6;
/// Where there are too few panels for that, blocks are made smaller until each thread has this many.
const LEAST_TASKS_PER_THREAD: usize = 2;

/// Tiles of a row from which on its blocks are whole tiles: a few more or less make blocks no longer unequal then.
const LEAST_TILES: usize = 8;

/// Output pixels of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PixelBlock {
    pub(super) image: usize,
    /// Output rows of the whole image.
    pub(super) rows: Range<usize>,
    pub(super) columns: Range<usize>,
}

impl PixelBlock {
    /// The pixels that a phase makes.
    #[inline(always)]
    pub(super) fn phase(&self, shape: &ConvShape, phase: usize) -> PhasePixels {
        let step = shape.phase_step();
        let axis = |all: &Range<usize>, parity: usize| {
            let first = (all.start + parity) % step;
            let taps = shape.first_tap(all.start + first) - shape.first_tap(all.start);
            (all.len().saturating_sub(first).div_ceil(step), first, taps)
        };
        let (rows, first_row, row_taps) = axis(&self.rows, phase / 2);
        let (columns, first_column, column_taps) = axis(&self.columns, phase % 2);
        PhasePixels { rows, columns, first: [first_row, first_column], taps: [row_taps, column_taps] }
    }
}

/// The pixels of a block that a phase makes: of every second row every second one, or all where there are no phases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PhasePixels {
    /// Rows, and pixels of a row.
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Row and column of the first one, counted from the block's first.
    pub(super) first: [usize; 2],
    /// Row and column of its first tap, counted from that of the block's first pixel.
    pub(super) taps: [usize; 2],
}

impl PhasePixels {
    #[inline(always)]
    pub(super) fn count(&self) -> usize {
        self.rows * self.columns
    }

    /// Cuts the columns into tiles of at most `most`, as equal as possible. Where `most` is more than the `rows` that are taken at
    /// once, all tiles but the last are multiples of these.
    #[inline(always)]
    pub(super) fn tiles(&self, rows: usize, most: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let unit = if most > rows { rows } else { 1 };
        let (columns, count) = (self.columns, self.columns.div_ceil(most));
        (0..count).map(move |i| {
            let units = part(columns.div_ceil(unit), count, i);
            unit * units.start..columns.min(unit * units.end)
        })
    }
}

/// The tasks of a product: blocks of pixels by groups of features, each of which fills one tile of the output, with the panels
/// of all phases.
#[derive(Debug)]
pub(super) struct TaskGrid {
    /// The output as `[image and row][column][feature]`.
    pub(super) shape: [usize; 3],
    /// How its axes are cut. Neighbouring tasks share panels, so these are read from memory once.
    pub(super) cuts: [Cuts; 3],
    /// Output rows of the whole image that each image of the output has.
    rows: Range<usize>,
}

impl TaskGrid {
    /// For tiles of `tile_rows` pixels and a number of threads.
    pub(super) fn new(call: &ConvCall, tile_rows: usize, threads: usize) -> TaskGrid {
        let layout = &call.panels.layout;
        let pixel_bytes = layout.k * if layout.format == Format::Int8 { 1 } else { size_of::<f32>() };
        let (out_width, rows) = (call.shape.out_width(), call.strip.out_rows.clone());
        let (images, panels) = (call.shape.batch, call.panels.count());
        let (columns, panels_per_column) = (call.columns(0..panels), call.epilogue.activation.panels_per_column());
        let pairs = (columns.len().div_ceil(PANEL) * panels_per_column).div_ceil(2);
        // Of a phase.
        let step = call.shape.phase_step();
        let (width, height) = (out_width.div_ceil(step), rows.len().div_ceil(step));
        let fair = images * height * width * pairs.max(1) / (threads * LEAST_TASKS_PER_THREAD);
        let target = PIXELS.min(PACKED / pixel_bytes.max(1)).min(fair).max(tile_rows);
        let block_rows = if call.shape.kernel == 1 { 1 } else { ROWS.min(height).max(1) };
        let block_columns = (target / block_rows).next_multiple_of(tile_rows).clamp(1, width.max(1));
        let column_parts = width.div_ceil(block_columns);
        let block_rows = (target * column_parts / width.max(1)).max(1);
        let row_parts = height.div_ceil(block_rows);
        let wanted = (threads * TASKS_PER_THREAD).div_ceil((images * row_parts * column_parts).max(1));
        let panel_parts = wanted.max((panels * layout.panel_bytes()).div_ceil(WEIGHTS)).min(pairs);
        // Long rows are cut into whole tiles.
        let unit = if width < LEAST_TILES * tile_rows { 1 } else { tile_rows };
        let across = Cuts {
            first: 0,
            groups: 1,
            len: width.div_ceil(unit),
            parts: column_parts,
            unit: step * unit,
            end: out_width,
        };
        let features = Cuts {
            first: columns.start,
            groups: 1,
            len: pairs,
            parts: panel_parts,
            unit: 2 / panels_per_column * PANEL,
            end: columns.end,
        };
        TaskGrid {
            shape: [images * rows.len(), out_width, call.features],
            cuts: [Cuts::equal(images, rows.len(), row_parts), across, features],
            rows,
        }
    }

    /// The pixels of the task that fills a tile.
    pub(super) fn block(&self, tile: &OutTile) -> PixelBlock {
        let image = tile.lines.start / self.rows.len();
        let row = |line: usize| line - image * self.rows.len() + self.rows.start;
        PixelBlock { image, rows: row(tile.lines.start)..row(tile.lines.end), columns: tile.columns.clone() }
    }
}

#[cfg(test)]
mod tests {
    use rayon::prelude::*;

    use super::*;
    use crate::layout::Layout;
    use crate::layout::PHASES;
    use crate::operands::{ActivationFn, Enlarged, Epilogue, InputRows, Panels, Strip};
    use crate::tiles;

    fn call<'a>(shape: ConvShape, panels: Panels<'a>, features: usize, activation: ActivationFn) -> ConvCall<'a> {
        let epilogue = Epilogue { activation, ..Epilogue::NONE };
        let x = InputRows::Int8 { q: &[], scale: &[] };
        ConvCall { x, shape, strip: Strip::whole(&shape), panels, features, epilogue }
    }

    fn square(batch: usize, side: usize) -> ConvShape {
        ConvShape {
            batch,
            height: side,
            width: side,
            kernel: 3,
            stride: 1,
            pad_end_only: false,
            enlarged: Enlarged::No,
        }
    }

    /// A block of weights may be a single panel where a layer is deep and its image small.
    #[test]
    fn one_panel_of_a_small_layer_is_work_for_every_thread() {
        let layout = Layout { format: Format::Int8, k: 1280, taps: 9 };
        let bytes = vec![0; layout.panel_bytes()];
        let panels = Panels { layout, blocks: &[&bytes], first: 0 };
        for (side, batch, threads) in [(8, 1, 4), (8, 2, 4), (16, 1, 4), (16, 2, 3)] {
            for tile_rows in [4, 12] {
                let call = call(square(batch, side), panels, 1280, ActivationFn::None);
                let grid = TaskGrid::new(&call, tile_rows, threads);
                let tasks: usize = grid.cuts.iter().map(Cuts::count).product();
                assert!(tasks >= threads, "{batch} of {side}x{side}: {tasks} tasks for {threads} threads");
            }
        }
    }

    /// Of a matrix of 87 features the panels from the third or fourth on, of two images the rows from the second on.
    #[test]
    fn tasks_have_every_pixel_and_panel_once() {
        let layout = Layout { format: Format::Int8, k: 4, taps: 9 };
        for (activation, first, count) in
            [(ActivationFn::None, 2, 4), (ActivationFn::None, 3, 2), (ActivationFn::Geglu, 4, 8)]
        {
            let bytes = vec![0; count * layout.panel_bytes()];
            let panels = Panels { layout, blocks: &[&bytes], first };
            let mut call = call(square(2, 23), panels, 87, activation);
            call.strip.out_rows = 1..20;
            let grid = TaskGrid::new(&call, 4, 3);
            let seen = std::sync::Mutex::new(std::collections::HashSet::new());
            let mut out = vec![0.0; grid.shape.iter().product()];
            tiles::split(&mut out, grid.shape, grid.cuts).for_each(|tile| {
                let (block, panels) = (grid.block(&tile), call.panels_of(0, &tile.values));
                assert_eq!(call.columns(panels.clone()), tile.values);
                let mut seen = seen.lock().unwrap();
                for (y, x) in block.rows.clone().flat_map(|y| block.columns.clone().map(move |x| (y, x))) {
                    panels.clone().for_each(|p| assert!(seen.insert((block.image, y, x, p))));
                }
            });
            let seen = seen.into_inner().unwrap();
            assert_eq!(seen.len(), 2 * 19 * 23 * count);
            assert!(seen.iter().all(|(image, y, x, p)| *image < 2 && (1..20).contains(y) && *x < 23 && *p < count));
        }
    }

    /// Of a matrix of 87 features, 6 panels a phase, some panels; of two images the rows from an odd one on.
    #[test]
    fn tasks_have_every_pixel_and_panel_of_its_phase_once() {
        let layout = Layout { format: Format::Int8, k: 4, taps: PHASES };
        for (first, count) in [(0, 24), (2, 3), (4, 5), (11, 1), (5, 14)] {
            let bytes = vec![0; count * layout.panel_bytes()];
            let panels = Panels { layout, blocks: &[&bytes], first };
            let shape = ConvShape { enlarged: Enlarged::Phases, ..square(2, 23) };
            let mut call = call(shape, panels, 87, ActivationFn::None);
            call.strip.out_rows = 1..40;
            let grid = TaskGrid::new(&call, 4, 3);
            let seen = std::sync::Mutex::new(std::collections::HashSet::new());
            let mut out = vec![0.0; grid.shape.iter().product()];
            tiles::split(&mut out, grid.shape, grid.cuts).for_each(|tile| {
                let block = grid.block(&tile);
                for phase in 0..PHASES {
                    let (pixels, panels) = (block.phase(&shape, phase), call.panels_of(phase, &tile.values));
                    let columns = |y: usize| (0..pixels.columns).map(move |x| (y, x));
                    for (y, x) in (0..pixels.rows).flat_map(columns) {
                        let (y, x) = (block.rows.start + pixels.first[0] + 2 * y, pixels.first[1] + 2 * x);
                        let x = block.columns.start + x;
                        assert!(block.rows.contains(&y) && block.columns.contains(&x));
                        assert_eq!(shape.phase(y, x), phase);
                        let mut seen = seen.lock().unwrap();
                        panels.clone().for_each(|p| assert!(seen.insert((block.image, y, x, first + p))));
                    }
                }
            });
            let seen = seen.into_inner().unwrap();
            let all = (0..2).flat_map(|image| (1..40).flat_map(move |y| (0..46).map(move |x| (image, y, x))));
            let all = all.flat_map(|(image, y, x)| (first..first + count).map(move |p| (image, y, x, p)));
            let wanted: std::collections::HashSet<_> =
                all.filter(|(_, y, x, p)| shape.phase(*y, *x) == p / 6).collect();
            assert!(seen == wanted, "{count} panels from {first} on");
        }
    }

    #[test]
    fn tiles_are_as_equal_as_they_can_be() {
        let pixels = PhasePixels { rows: 1, columns: 64, first: [0; 2], taps: [0; 2] };
        let sizes = |rows, most| pixels.tiles(rows, most).map(|tile| tile.len()).collect::<Vec<_>>();
        let single = sizes(12, 12);
        assert_eq!((single.iter().sum::<usize>(), single.len()), (64, 6));
        assert!(single.iter().all(|s| *s == 10 || *s == 11));
        assert_eq!(sizes(4, 32), [32, 32]);
        let pixels = PhasePixels { columns: 91, ..pixels };
        assert_eq!(pixels.tiles(4, 32).collect::<Vec<_>>(), [0..28, 28..60, 60..91]);
    }
}
