//! How a product is split into tasks.

use std::ops::Range;

use super::Product;
use crate::pack::Format;

/// Output pixels that a block aims at: enough that packing them and reading the weights from the second cache cost little.
const PIXELS: usize = 96;
/// Bytes of packed input that a block may take: half of a small board's second cache.
const PACKED: usize = 256 << 10;
/// Rows of a 3×3 convolution's block: nearly a square, whose border of pixels that only neighbours write is the shortest.
const ROWS: usize = 8;
/// Bytes of weights that a task goes through: all threads read the same at about the same time, from the cache that they share.
const WEIGHTS: usize = 1 << 20;
/// Tasks for each thread, so that none waits long for the last.
const TASKS_PER_THREAD: usize = 6;
/// Where there are too few panels for that, blocks are made smaller until each thread has this many.
const LEAST_TASKS_PER_THREAD: usize = 2;

/// Output pixels of one picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) picture: usize,
    /// Output rows of the whole picture.
    pub(super) rows: Range<usize>,
    pub(super) columns: Range<usize>,
}

impl Block {
    pub(super) fn pixels(&self) -> usize {
        self.rows.len() * self.columns.len()
    }

    /// Its columns, counted from its first, in tiles of at most `most`, as equal as they can be.
    #[inline(always)]
    pub(super) fn tiles(&self, most: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        parts(self.columns.len(), self.columns.len().div_ceil(most))
    }
}

/// `0..len` in `count` parts, as equal as they can be.
#[inline(always)]
fn parts(len: usize, count: usize) -> impl Iterator<Item = Range<usize>> {
    (0..count).map(move |i| part(len, count, i))
}

#[inline(always)]
fn part(len: usize, count: usize, i: usize) -> Range<usize> {
    len * i / count..len * (i + 1) / count
}

/// A grid of tasks: blocks of pixels by groups of panels.
#[derive(Debug)]
pub(super) struct Plan {
    pictures: usize,
    rows: Range<usize>,
    width: usize,
    /// Into how many parts the rows, a row, and the pairs of panels are cut.
    row_parts: usize,
    column_parts: usize,
    panel_parts: usize,
    panels: usize,
}

impl Plan {
    /// For tiles of `tile_rows` pixels and a number of threads.
    pub(super) fn new(product: &Product, tile_rows: usize, threads: usize) -> Plan {
        let layout = &product.panels.layout;
        let pixel_bytes = layout.k * if layout.format == Format::Int8 { 1 } else { size_of::<f32>() };
        let (width, rows) = (product.shape.out_width(), product.strip.out_rows.clone());
        let (pictures, panels) = (product.shape.batch, product.panels.count());
        let pairs = panels.div_ceil(2).max(1);
        let fair = pictures * rows.len() * width * pairs / (threads * LEAST_TASKS_PER_THREAD);
        let target = PIXELS.min(PACKED / pixel_bytes.max(1)).min(fair).max(tile_rows);
        let block_rows = if product.shape.kernel == 1 { 1 } else { ROWS.min(rows.len()).max(1) };
        let block_columns = (target / block_rows).next_multiple_of(tile_rows).clamp(1, width.max(1));
        let column_parts = width.div_ceil(block_columns);
        let block_rows = (target * column_parts / width.max(1)).max(1);
        let row_parts = rows.len().div_ceil(block_rows);
        let mut plan = Plan { pictures, rows, width, row_parts, column_parts, panel_parts: 1, panels };
        let wanted = (threads * TASKS_PER_THREAD).div_ceil(plan.blocks().max(1));
        plan.panel_parts = wanted.max((panels * layout.panel_bytes()).div_ceil(WEIGHTS)).clamp(1, pairs);
        plan
    }

    fn blocks(&self) -> usize {
        self.pictures * self.row_parts * self.column_parts
    }

    pub(super) fn tasks(&self) -> usize {
        if self.panels == 0 { 0 } else { self.blocks() * self.panel_parts }
    }

    /// A task's pixels and panels. Neighbouring tasks share panels, so these are read from memory once.
    pub(super) fn task(&self, task: usize) -> (Block, Range<usize>) {
        let (group, block) = (task / self.blocks(), task % self.blocks());
        let (strip, column) = (block / self.column_parts, block % self.column_parts);
        let (picture, row) = (strip / self.row_parts, strip % self.row_parts);
        let rows = part(self.rows.len(), self.row_parts, row);
        let pairs = part(self.panels.div_ceil(2), self.panel_parts, group);
        let block = Block {
            picture,
            rows: self.rows.start + rows.start..self.rows.start + rows.end,
            columns: part(self.width, self.column_parts, column),
        };
        (block, pairs.start * 2..self.panels.min(pairs.end * 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matmul::{ConvShape, Epilogue, Panels, Rows, Strip};
    use crate::pack::Layout;

    /// A block of weights may be a single panel where a layer is deep and its picture small.
    #[test]
    fn one_panel_of_a_small_layer_is_work_for_every_thread() {
        let layout = Layout { format: Format::Int8, k: 1280, taps: 9 };
        let bytes = vec![0; layout.panel_bytes()];
        let panels = Panels { layout, blocks: &[&bytes], first: 0 };
        for (side, batch, threads) in [(8, 1, 4), (8, 2, 4), (16, 1, 4), (16, 2, 3)] {
            let shape = ConvShape {
                batch,
                height: side,
                width: side,
                kernel: 3,
                stride: 1,
                pad_end_only: false,
                enlarged: None,
            };
            let (strip, epilogue) = (Strip::whole(&shape), Epilogue::NONE);
            let x = Rows::Int8 { q: &[], scale: &[] };
            let product =
                Product { x, shape: &shape, strip: &strip, panels: &panels, features: 1280, epilogue: &epilogue };
            for tile_rows in [4, 12] {
                let tasks = Plan::new(&product, tile_rows, threads).tasks();
                assert!(tasks >= threads, "{batch} of {side}x{side}: {tasks} tasks for {threads} threads");
            }
        }
    }

    #[test]
    fn tasks_cover_every_pixel_and_panel_once() {
        for (width, rows, panels, row_parts, column_parts, panel_parts) in
            [(7, 3..9, 5, 4, 2, 3), (1, 0..1, 1, 1, 1, 1), (512, 0..2, 8, 2, 6, 4)]
        {
            let plan = Plan { pictures: 2, rows: rows.clone(), width, row_parts, column_parts, panel_parts, panels };
            let mut seen = std::collections::HashSet::new();
            for task in 0..plan.tasks() {
                let (block, panels) = plan.task(task);
                for y in block.rows.clone() {
                    for x in block.columns.clone() {
                        panels.clone().for_each(|p| assert!(seen.insert((block.picture, y, x, p))));
                    }
                }
            }
            assert_eq!(seen.len(), 2 * rows.len() * width * panels);
        }
    }

    #[test]
    fn tiles_are_as_equal_as_they_can_be() {
        let block = Block { picture: 0, rows: 0..1, columns: 10..74 };
        let sizes: Vec<_> = block.tiles(12).map(|t| t.len()).collect();
        assert_eq!((sizes.iter().sum::<usize>(), sizes.len()), (64, 6));
        assert!(sizes.iter().all(|s| *s == 10 || *s == 11));
    }
}
