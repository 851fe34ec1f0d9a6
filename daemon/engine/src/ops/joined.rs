//! Tensors that lie side by side along their last axis, as their readers see them: a row at a time, never whole.
//!
//! Those that waited in f16 come as they are, and those that all images of the batch share come once.

use std::ops::Range;

use diffused_kernels::{Level, cancel};
use half::f16;
use rayon::prelude::*;
use tract_onnx::prelude::*;

use super::values::{channels, leading, values};
use crate::error::{Error, Result};

/// Values that a thread copies at a time.
const PART: usize = 16 << 10;
/// Bytes of joined rows that a reader of several inputs aims at.
const BLOCK: usize = 2 << 20;

/// Inputs side by side.
pub(super) struct Joined<'a> {
    parts: Vec<JoinedRows<'a>>,
    shape: TVec<usize>,
}

/// Rows that go side by side with others.
struct JoinedRows<'a> {
    values: JoinedValues<'a>,
    /// Values of a row.
    width: usize,
    /// How many there are; if the result has more, they are repeated.
    count: usize,
}

enum JoinedValues<'a> {
    Single(&'a [f32]),
    Half(&'a [f16]),
}

/// The shape of inputs of these shapes side by side.
pub(super) fn shape(inputs: &[TVec<usize>]) -> Option<TVec<usize>> {
    let mut shape = inputs.iter().max_by_key(|input| input.first())?.clone();
    *shape.last_mut()? = inputs.iter().filter_map(|input| input.last()).sum();
    Some(shape)
}

/// Rows of the joined tensor of `shape` that a reader takes at a time: whole rows of the image.
pub(super) fn block_rows(shape: &[usize]) -> usize {
    let (width, lines) = match leading(shape) {
        [images @ .., width] => (*width, images.iter().product::<usize>()),
        [] => (1, 1),
    };
    width * (BLOCK / (width * channels(shape) * size_of::<f32>()).max(1)).clamp(1, lines.max(1))
}

/// Bytes of these rows in f32.
pub(super) fn block_bytes(shape: &[usize]) -> usize {
    block_rows(shape) * channels(shape) * size_of::<f32>()
}

impl Joined<'_> {
    pub(super) fn of(inputs: &[TValue]) -> Result<Joined<'_>> {
        let shapes: Vec<TVec<usize>> = inputs.iter().map(|input| input.shape().into()).collect();
        let shape = shape(&shapes).ok_or_else(|| Error::Internal("nothing to join".into()))?;
        Ok(Joined { parts: inputs.iter().map(|input| JoinedRows::of(input)).collect::<Result<_>>()?, shape })
    }

    pub(super) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Writes as many rows as `out` has, from row `first` on, on all threads.
    pub(super) fn read(&self, first: usize, out: &mut [f32]) {
        let width = channels(&self.shape);
        let rows = PART.div_ceil(width.max(1));
        let parts = out.par_chunks_mut(rows * width).enumerate();
        parts.for_each_init(Vec::new, |buffer, (part, out)| {
            if cancel::is_cancelled() {
                return;
            }
            let (first, mut at) = (first + part * rows, 0);
            for part in &self.parts {
                part.write(first..first + out.len() / width, at, width, out, buffer);
                at += part.width;
            }
        });
    }
}

impl JoinedRows<'_> {
    fn of(tensor: &Tensor) -> Result<JoinedRows<'_>> {
        let values = match tensor.datum_type() {
            DatumType::F16 => JoinedValues::Half(values(tensor)?),
            _ => JoinedValues::Single(values(tensor)?),
        };
        let count = leading(tensor.shape()).iter().product();
        Ok(JoinedRows { values, width: channels(tensor.shape()), count })
    }

    /// Some of the rows; those in f16 by way of `buffer`.
    fn part<'a>(&'a self, rows: Range<usize>, buffer: &'a mut Vec<f32>) -> &'a [f32] {
        let part = rows.start * self.width..rows.end * self.width;
        match self.values {
            JoinedValues::Single(values) => &values[part],
            JoinedValues::Half(values) => {
                buffer.resize(part.len(), 0.0);
                Level::current().f16_to_f32(&values[part], 1.0, buffer);
                buffer
            }
        }
    }

    /// Writes the rows `rows` of the result into `out`, rows of `width` values, from the value `at` of each row on.
    fn write(&self, mut rows: Range<usize>, at: usize, width: usize, out: &mut [f32], buffer: &mut Vec<f32>) {
        let mut out = out.chunks_exact_mut(width);
        while !rows.is_empty() {
            let first = rows.start % self.count;
            let last = self.count.min(first + rows.len());
            let from = self.part(first..last, buffer).chunks_exact(self.width);
            for (from, out) in from.zip(out.by_ref()) {
                out[at..at + self.width].copy_from_slice(from);
            }
            rows.start += last - first;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_whole_rows_of_an_image() {
        assert_eq!(block_rows(&[2, 64, 64, 960]), 8 * 64);
        assert_eq!(block_rows(&[1, 2, 4096, 4096]), 4096, "a row that is larger than a block");
        assert_eq!(block_rows(&[1, 3, 5, 7]), 15, "all there are");
        assert_eq!(block_bytes(&[2, 64, 64, 960]), 8 * 64 * 960 * 4);
    }
}
