//! How a product is split into tasks.

use std::ops::Range;

use crate::layout::{Format, PANEL};
use crate::operands::ConvCall;
use crate::tiles::{Cuts, OutTile, part};

/// Output pixels that a block aims at: enough that packing them and reading the weights from L2 cost little.
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

/// Output pixels of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PixelBlock {
    pub(super) image: usize,
    /// Output rows of the whole image.
    pub(super) rows: Range<usize>,
    pub(super) columns: Range<usize>,
}

impl PixelBlock {
    pub(super) fn pixels(&self) -> usize {
        self.rows.len() * self.columns.len()
    }

    /// Its columns, counted from its first, in tiles of at most `most`, as equal as they can be.
    #[inline(always)]
    pub(super) fn tiles(&self, most: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let (len, count) = (self.columns.len(), self.columns.len().div_ceil(most));
        (0..count).map(move |i| part(len, count, i))
    }
}

/// The tasks of a product: blocks of pixels by groups of panels, each of which fills one tile of the output.
#[derive(Debug)]
pub(super) struct TaskGrid {
    /// The output as `[image and row][column][feature]`.
    pub(super) shape: [usize; 3],
    /// How its axes are cut. Neighbouring tasks share panels, so these are read from memory once.
    pub(super) cuts: [Cuts; 3],
    /// Output rows of the whole image that each image of the output has.
    rows: Range<usize>,
    /// The first panel, and the panels that 16 features are made of.
    first_panel: usize,
    panels_per_column: usize,
}

impl TaskGrid {
    /// For tiles of `tile_rows` pixels and a number of threads.
    pub(super) fn new(call: &ConvCall, tile_rows: usize, threads: usize) -> TaskGrid {
        let layout = &call.panels.layout;
        let pixel_bytes = layout.k * if layout.format == Format::Int8 { 1 } else { size_of::<f32>() };
        let (width, rows) = (call.shape.out_width(), call.strip.out_rows.clone());
        let (images, panels) = (call.shape.batch, call.panels.count());
        let pairs = panels.div_ceil(2);
        let fair = images * rows.len() * width * pairs.max(1) / (threads * LEAST_TASKS_PER_THREAD);
        let target = PIXELS.min(PACKED / pixel_bytes.max(1)).min(fair).max(tile_rows);
        let block_rows = if call.shape.kernel == 1 { 1 } else { ROWS.min(rows.len()).max(1) };
        let block_columns = (target / block_rows).next_multiple_of(tile_rows).clamp(1, width.max(1));
        let column_parts = width.div_ceil(block_columns);
        let block_rows = (target * column_parts / width.max(1)).max(1);
        let row_parts = rows.len().div_ceil(block_rows);
        let wanted = (threads * TASKS_PER_THREAD).div_ceil((images * row_parts * column_parts).max(1));
        let panel_parts = wanted.max((panels * layout.panel_bytes()).div_ceil(WEIGHTS)).min(pairs);
        let (columns, panels_per_column) = (call.columns(0..panels), call.epilogue.activation.panels_per_column());
        let features = Cuts {
            first: columns.start,
            groups: 1,
            len: pairs,
            parts: panel_parts,
            unit: 2 / panels_per_column * PANEL,
            end: columns.end,
        };
        TaskGrid {
            shape: [images * rows.len(), width, call.features],
            cuts: [Cuts::equal(images, rows.len(), row_parts), Cuts::equal(1, width, column_parts), features],
            rows,
            first_panel: call.panels.first,
            panels_per_column,
        }
    }

    /// The pixels and the panels of the task that fills a tile.
    pub(super) fn task(&self, tile: &OutTile) -> (PixelBlock, Range<usize>) {
        let image = tile.lines.start / self.rows.len();
        let row = |line: usize| line - image * self.rows.len() + self.rows.start;
        let panel = |column: usize| column.div_ceil(PANEL) * self.panels_per_column - self.first_panel;
        let block =
            PixelBlock { image, rows: row(tile.lines.start)..row(tile.lines.end), columns: tile.columns.clone() };
        (block, panel(tile.values.start)..panel(tile.values.end))
    }
}

#[cfg(test)]
mod tests {
    use rayon::prelude::*;

    use super::*;
    use crate::layout::Layout;
    use crate::operands::{ActivationFn, ConvShape, Epilogue, InputRows, Panels, Strip};
    use crate::tiles;

    fn call<'a>(shape: ConvShape, panels: Panels<'a>, features: usize, activation: ActivationFn) -> ConvCall<'a> {
        let epilogue = Epilogue { activation, ..Epilogue::NONE };
        let x = InputRows::Int8 { q: &[], scale: &[] };
        ConvCall { x, shape, strip: Strip::whole(&shape), panels, features, epilogue }
    }

    fn square(batch: usize, side: usize) -> ConvShape {
        ConvShape { batch, height: side, width: side, kernel: 3, stride: 1, pad_end_only: false, enlarged: None }
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
                let (block, panels) = grid.task(&tile);
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

    #[test]
    fn tiles_are_as_equal_as_they_can_be() {
        let block = PixelBlock { image: 0, rows: 0..1, columns: 10..74 };
        let sizes: Vec<_> = block.tiles(12).map(|t| t.len()).collect();
        assert_eq!((sizes.iter().sum::<usize>(), sizes.len()), (64, 6));
        assert!(sizes.iter().all(|s| *s == 10 || *s == 11));
    }
}
