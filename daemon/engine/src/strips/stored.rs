//! A result that waits between passes: bands of rows, so that a band's memory comes with its first row and goes after
//! its last use, while the pass that reads it writes its own.

use std::ops::Range;

use diffused_kernels::{FloatRows, InputRows, Level, NormOut};
use half::f16;
use half::slice::HalfBitsSliceExt;
use rayon::prelude::*;

use super::{RowNode, internal};
use crate::error::Result;

/// Bytes that a band aims at.
const BAND: usize = 256 << 10;

/// Rows of one node, from top to bottom.
pub(crate) struct StoredRows {
    /// Values of a row, and its pixels.
    row: usize,
    width: usize,
    band_rows: usize,
    /// Rows that are stored in the end.
    end: usize,
    bands: Vec<Band>,
}

enum Band {
    Freed,
    F32(Vec<f32>),
    /// The bits of f16 in a unit: memory that the system has zeroed is not written before its rows are there.
    Half(Vec<u16>, f32),
    /// With a scale for each pixel.
    Int8(Vec<i8>, Vec<f32>),
}

/// Rows of a node, where they are.
#[derive(Debug, Clone, Copy)]
pub(super) enum RowsAt<'a> {
    Float(FloatRows<'a>),
    /// With a scale for each pixel.
    Int8(&'a [i8], &'a [f32]),
}

impl RowsAt<'_> {
    pub(super) fn copy_to(self, out: NormOut) -> Result<()> {
        match (self, out) {
            (RowsAt::Float(FloatRows::F32(from)), NormOut::F32(to)) => to.copy_from_slice(from),
            (RowsAt::Float(FloatRows::F16(from, unit)), NormOut::F32(to)) => {
                Level::current().f16_to_f32(from, unit, to)
            }
            (RowsAt::Int8(q, scale), NormOut::Int8 { q: q_to, scale: scale_to }) => {
                q_to.copy_from_slice(q);
                scale_to.copy_from_slice(scale);
            }
            _ => return Err(internal("rows of one node are of two kinds")),
        }
        Ok(())
    }
}

impl<'a> From<InputRows<'a>> for RowsAt<'a> {
    fn from(rows: InputRows<'a>) -> RowsAt<'a> {
        match rows {
            InputRows::F32(values) => RowsAt::Float(FloatRows::F32(values)),
            InputRows::Int8 { q, scale } => RowsAt::Int8(q, scale),
        }
    }
}

impl StoredRows {
    /// Of nothing yet, for the rows of `node` before `end`.
    pub(super) fn new(node: &RowNode, end: usize) -> StoredRows {
        StoredRows::in_bands(node, end, band_rows(node))
    }

    /// Of nothing yet, to be taken out whole.
    pub(super) fn in_one_band(node: &RowNode) -> StoredRows {
        StoredRows::in_bands(node, node.extent.height, node.extent.height)
    }

    fn in_bands(node: &RowNode, end: usize, band_rows: usize) -> StoredRows {
        StoredRows { row: node.extent.row(), width: node.extent.width, band_rows, end, bands: Vec::new() }
    }

    /// Adds `rows` of `node`, which is not stored as f16; they come from top to bottom, and those past the end are left out.
    pub(super) fn append(&mut self, node: &RowNode, rows: Range<usize>, values: InputRows) -> Result<()> {
        let (first, row, width, band_rows) = (rows.start, self.row, self.width, self.band_rows);
        self.fill(node, rows).into_par_iter().try_for_each(|(part, band)| {
            let within = |unit: usize| (part.start - first) * unit..(part.end - first) * unit;
            let to = |unit: usize| part.start % band_rows * unit..(part.start % band_rows + part.len()) * unit;
            match (band, values) {
                (Band::F32(band), InputRows::F32(values)) => band[to(row)].copy_from_slice(&values[within(row)]),
                (Band::Int8(band, scales), InputRows::Int8 { q, scale }) => {
                    band[to(row)].copy_from_slice(&q[within(row)]);
                    scales[to(width)].copy_from_slice(&scale[within(width)]);
                }
                _ => return Err(internal("rows of another kind than those that are stored")),
            }
            Ok(())
        })
    }

    /// Where `rows` of `node` are stored as f16, to be written: from top to bottom, and those past the end are left out.
    pub(super) fn half_rows(&mut self, node: &RowNode, rows: Range<usize>) -> Result<Vec<&mut [f16]>> {
        let (row, band_rows) = (self.row, self.band_rows);
        let mut places = Vec::with_capacity(rows.len());
        for (part, band) in self.fill(node, rows) {
            let Band::Half(band, _) = band else { return Err(internal("rows are stored, but not as f16")) };
            let band = band[part.start % band_rows * row..].reinterpret_cast_mut();
            places.extend(band.chunks_exact_mut(row).take(part.len()));
        }
        Ok(places)
    }

    /// The bands that take `rows` of `node`, with the rows that each takes; new ones hold zeros.
    fn fill(&mut self, node: &RowNode, rows: Range<usize>) -> Vec<(Range<usize>, &mut Band)> {
        let parts: Vec<_> = self.by_band(rows.start..rows.end.min(self.end)).collect();
        let Some(first) = parts.first().map(|part| part.start / self.band_rows) else { return Vec::new() };
        let (end, band_rows) = (self.end, self.band_rows);
        let new = self.bands.len()..first + parts.len();
        self.bands.par_extend(new.into_par_iter().map(|n| Band::new(node, band_rows.min(end - n * band_rows))));
        parts.into_iter().zip(&mut self.bands[first..]).collect()
    }

    /// `rows` in parts that lie together: how many rows, and where they are.
    pub(super) fn parts(&self, rows: Range<usize>) -> Result<Vec<(usize, RowsAt<'_>)>> {
        let of_band = |part: Range<usize>| {
            let at = part.start % self.band_rows;
            let stored = |unit: usize| at * unit..(at + part.len()) * unit;
            let (row, width) = (stored(self.row), stored(self.width));
            let values = match self.bands.get(part.start / self.band_rows) {
                Some(Band::F32(band)) => RowsAt::Float(FloatRows::F32(&band[row])),
                Some(Band::Half(band, unit)) => RowsAt::Float(FloatRows::F16(band[row].reinterpret_cast(), *unit)),
                Some(Band::Int8(band, scales)) => RowsAt::Int8(&band[row], &scales[width]),
                Some(Band::Freed) | None => return Err(internal("rows are read that are not stored")),
            };
            Ok((part.len(), values))
        };
        self.by_band(rows).map(of_band).collect()
    }

    /// `rows` in parts that each lie in one band.
    fn by_band(&self, rows: Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
        let height = self.band_rows;
        let part = move |band: usize| rows.start.max(band * height)..rows.end.min((band + 1) * height);
        let bands = if rows.is_empty() { 0..0 } else { rows.start / height..rows.end.div_ceil(height) };
        bands.map(part)
    }

    /// Frees the bands whose rows all come before `row`.
    pub(super) fn free_before(&mut self, row: usize) {
        let bands = if row >= self.end { self.bands.len() } else { row / self.band_rows };
        self.bands.iter_mut().take(bands).for_each(|band| *band = Band::Freed);
    }

    /// The whole image, if it was made in one band.
    pub(super) fn into_whole(mut self) -> Option<Vec<f32>> {
        match (self.bands.pop(), self.bands.is_empty()) {
            (Some(Band::F32(values)), true) => Some(values),
            _ => None,
        }
    }
}

/// Rows of a band of `node`.
pub(super) fn band_rows(node: &RowNode) -> usize {
    (BAND / node.stored_row_bytes().max(1)).clamp(1, node.extent.height)
}

impl Band {
    /// Of `rows` rows of `node`, all zero.
    fn new(node: &RowNode, rows: usize) -> Band {
        let values = rows * node.extent.row();
        match node.half() {
            Some(unit) => Band::Half(vec![0; values], unit),
            None if node.quantized() => Band::Int8(vec![0; values], vec![0.0; rows * node.extent.width]),
            None => Band::F32(vec![0.0; values]),
        }
    }
}
