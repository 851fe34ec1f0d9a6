//! A result that waits between passes: bands of rows, so that a band's memory comes with its first row and goes after
//! its last use, while the pass that reads it writes its own.

use std::ops::Range;

use diffused_kernels::Level;
use half::f16;

use super::RowNode;

/// Bytes that a band aims at.
const BAND: usize = 1 << 20;

/// Rows of one node, from top to bottom.
pub(crate) struct StoredRows {
    /// Values of a row.
    row: usize,
    band_rows: usize,
    bands: Vec<Band>,
}

enum Band {
    F32(Vec<f32>),
    /// In a unit.
    Half(Vec<f16>, f32),
}

impl StoredRows {
    /// Of nothing yet.
    pub(super) fn new(node: &RowNode) -> StoredRows {
        StoredRows { row: node.extent.row(), band_rows: band_rows(node), bands: Vec::new() }
    }

    /// Of nothing yet, to be taken out whole.
    pub(super) fn in_one_band(node: &RowNode) -> StoredRows {
        StoredRows { row: node.extent.row(), band_rows: node.extent.height, bands: Vec::new() }
    }

    /// Adds `values`, the rows from `first` on; rows come from top to bottom.
    pub(super) fn append(&mut self, node: &RowNode, first: usize, mut values: &[f32]) {
        for rows in self.by_band(first..first + values.len() / self.row) {
            let band = rows.start / self.band_rows;
            if band == self.bands.len() {
                let height = self.band_rows.min(node.extent.height - rows.start);
                self.bands.push(Band::new(node.half(), height * self.row));
            }
            let (now, later) = values.split_at(rows.len() * self.row);
            self.bands[band].append(now);
            values = later;
        }
    }

    /// Copies rows as f32.
    pub(super) fn read(&self, rows: Range<usize>, mut out: &mut [f32]) {
        for rows in self.by_band(rows) {
            let (now, later) = out.split_at_mut(rows.len() * self.row);
            let at = rows.start % self.band_rows * self.row;
            self.bands[rows.start / self.band_rows].read(at..at + now.len(), now);
            out = later;
        }
    }

    /// `rows` in parts that each lie in one band.
    fn by_band(&self, rows: Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
        let height = self.band_rows;
        let part = move |band: usize| rows.start.max(band * height)..rows.end.min((band + 1) * height);
        (rows.start / height..rows.end.div_ceil(height)).map(part)
    }

    /// Frees the bands whose rows all come before `row`.
    pub(super) fn free_before(&mut self, row: usize) {
        for band in &mut self.bands[..row / self.band_rows] {
            *band = Band::F32(Vec::new());
        }
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
    (BAND * node.extent.height / node.stored_bytes().max(1)).clamp(1, node.extent.height)
}

impl Band {
    fn new(half: Option<f32>, len: usize) -> Band {
        match half {
            Some(unit) => Band::Half(Vec::with_capacity(len), unit),
            None => Band::F32(Vec::with_capacity(len)),
        }
    }

    fn append(&mut self, values: &[f32]) {
        match self {
            Band::F32(band) => band.extend_from_slice(values),
            Band::Half(band, unit) => {
                let len = band.len();
                band.resize(len + values.len(), f16::ZERO);
                Level::current().f32_to_f16(values, *unit, &mut band[len..]);
            }
        }
    }

    fn read(&self, part: Range<usize>, out: &mut [f32]) {
        match self {
            Band::F32(values) => out.copy_from_slice(&values[part]),
            Band::Half(values, unit) => Level::current().f16_to_f32(&values[part], *unit, out),
        }
    }
}
