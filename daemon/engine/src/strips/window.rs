//! Rows that wait in a pass until others have read them.

use std::ops::Range;

use diffused_kernels::{InputRows, NormOut};

use super::memory::RowRoom;
use super::{RowNode, internal};
use crate::error::Result;

/// Rows of a node: f32, or int8 with a scale for each pixel. Its buffers keep their size whatever they hold.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// The first row that is held.
    pub(super) start: usize,
    /// How many rows there are.
    pub(super) held: usize,
    pub(super) values: Vec<f32>,
    q: Vec<i8>,
    scale: Vec<f32>,
}

impl Window {
    /// With room for so many values; its first row will be row number `start`.
    pub(super) fn new(room: RowRoom, start: usize) -> Window {
        Window {
            start,
            held: 0,
            values: Vec::with_capacity(room.values),
            q: Vec::with_capacity(room.q),
            scale: Vec::with_capacity(room.scale),
        }
    }

    pub(super) fn forget_before(&mut self, row: usize, node: &RowNode) {
        let (gone, held) = (row.saturating_sub(self.start).min(self.held), self.held);
        let kept = |unit: usize| gone * unit..held * unit;
        match node.quantized() {
            true => {
                self.q.copy_within(kept(node.extent.row()), 0);
                self.scale.copy_within(kept(node.extent.width), 0);
            }
            false => self.values.copy_within(kept(node.extent.row()), 0),
        }
        self.held -= gone;
        self.start = self.start.max(row);
    }

    /// `rows` more rows of `node`, to be written: they hold anything.
    pub(super) fn add(&mut self, rows: usize, node: &RowNode) -> Result<NormOut<'_>> {
        let (first, end) = (self.held, self.held + rows);
        self.held = end;
        let part = |unit: usize| first * unit..end * unit;
        let (row, width) = (part(node.extent.row()), part(node.extent.width));
        match node.quantized() {
            true => Ok(NormOut::Int8 { q: part_of(&mut self.q, row)?, scale: part_of(&mut self.scale, width)? }),
            false => Ok(NormOut::F32(part_of(&mut self.values, row)?)),
        }
    }

    /// The last `rows` rows.
    pub(super) fn newest(&self, node: &RowNode, rows: usize) -> InputRows<'_> {
        let end = self.start + self.held;
        self.rows(node, &(end - rows..end))
    }

    pub(super) fn rows(&self, node: &RowNode, rows: &Range<usize>) -> InputRows<'_> {
        let part = |unit: usize| (rows.start - self.start) * unit..(rows.end - self.start) * unit;
        match node.quantized() {
            true => {
                InputRows::Int8 { q: &self.q[part(node.extent.row())], scale: &self.scale[part(node.extent.width)] }
            }
            false => InputRows::F32(&self.values[part(node.extent.row())]),
        }
    }
}

/// The first `rows` rows of what rows are written to, and the rest.
pub(super) fn split_rows(out: NormOut<'_>, rows: usize, row: usize, width: usize) -> (NormOut<'_>, NormOut<'_>) {
    match out {
        NormOut::F32(values) => {
            let (first, rest) = values.split_at_mut(rows * row);
            (NormOut::F32(first), NormOut::F32(rest))
        }
        NormOut::Int8 { q, scale } => {
            let (q, q_rest) = q.split_at_mut(rows * row);
            let (scale, scale_rest) = scale.split_at_mut(rows * width);
            (NormOut::Int8 { q, scale }, NormOut::Int8 { q: q_rest, scale: scale_rest })
        }
    }
}

/// Part of a buffer whose length grows to what the part needs, within the capacity that it has.
pub(super) fn part_of<T: Default + Clone>(buffer: &mut Vec<T>, part: Range<usize>) -> Result<&mut [T]> {
    if part.end > buffer.capacity() {
        return Err(internal("a pass needs more than its plan has"));
    }
    buffer.resize(part.end.max(buffer.len()), T::default());
    Ok(&mut buffer[part])
}
