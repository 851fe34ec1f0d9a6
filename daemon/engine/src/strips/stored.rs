//! A result that waits between passes: bands of rows, so that a band's memory comes with its first row and goes after
//! its last use, while the pass that reads it writes its own.

use std::ops::Range;

use diffused_kernels::{InputRows, Level, NormOut};
use half::f16;

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
    /// In a unit.
    Half(Vec<f16>, f32),
    /// With a scale for each pixel.
    Int8(Vec<i8>, Vec<f32>),
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

    /// Adds `rows` of `node`; they come from top to bottom, and those past the end are left out.
    pub(super) fn append(&mut self, node: &RowNode, rows: Range<usize>, values: InputRows) -> Result<()> {
        for part in self.by_band(rows.start..rows.end.min(self.end)) {
            let band = part.start / self.band_rows;
            if band == self.bands.len() {
                self.bands.push(Band::new(node, self.band_rows.min(self.end - part.start)));
            }
            let within = |unit: usize| (part.start - rows.start) * unit..(part.end - rows.start) * unit;
            self.bands[band].append(match values {
                InputRows::F32(values) => InputRows::F32(&values[within(self.row)]),
                InputRows::Int8 { q, scale } => {
                    InputRows::Int8 { q: &q[within(self.row)], scale: &scale[within(self.width)] }
                }
            })?;
        }
        Ok(())
    }

    /// Copies rows.
    pub(super) fn read(&self, rows: Range<usize>, out: NormOut) -> Result<()> {
        let (row, width) = (self.row, self.width);
        let first = rows.start;
        let (values, q, scale) = match out {
            NormOut::F32(values) => (values, &mut [][..], &mut [][..]),
            NormOut::Int8 { q, scale } => (&mut [][..], q, scale),
        };
        for part in self.by_band(rows) {
            let within = |unit: usize| (part.start - first) * unit..(part.end - first) * unit;
            let at = part.start % self.band_rows;
            let stored = |unit: usize| at * unit..(at + part.len()) * unit;
            match self.bands.get(part.start / self.band_rows) {
                Some(Band::F32(band)) => values[within(row)].copy_from_slice(&band[stored(row)]),
                Some(Band::Half(band, unit)) => {
                    Level::current().f16_to_f32(&band[stored(row)], *unit, &mut values[within(row)]);
                }
                Some(Band::Int8(band, scales)) => {
                    q[within(row)].copy_from_slice(&band[stored(row)]);
                    scale[within(width)].copy_from_slice(&scales[stored(width)]);
                }
                Some(Band::Freed) | None => return Err(internal("rows are read that are not stored")),
            }
        }
        Ok(())
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
    /// With room for `rows` rows of `node`.
    fn new(node: &RowNode, rows: usize) -> Band {
        let values = rows * node.extent.row();
        match node.half() {
            Some(unit) => Band::Half(Vec::with_capacity(values), unit),
            None if node.quantized() => {
                Band::Int8(Vec::with_capacity(values), Vec::with_capacity(rows * node.extent.width))
            }
            None => Band::F32(Vec::with_capacity(values)),
        }
    }

    fn append(&mut self, values: InputRows) -> Result<()> {
        match (self, values) {
            (Band::F32(band), InputRows::F32(values)) => band.extend_from_slice(values),
            (Band::Half(band, unit), InputRows::F32(values)) => {
                let len = band.len();
                band.resize(len + values.len(), f16::ZERO);
                Level::current().f32_to_f16(values, *unit, &mut band[len..]);
            }
            (Band::Int8(band, scales), InputRows::Int8 { q, scale }) => {
                band.extend_from_slice(q);
                scales.extend_from_slice(scale);
            }
            _ => return Err(internal("rows of another kind than those that are stored")),
        }
        Ok(())
    }
}
