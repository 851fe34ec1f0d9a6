//! The input pixels that a block reads, packed for the inner loops.
//!
//! A pixel's values are cut into chunks of 64 bytes. For each row: chunk by chunk, the chunks of the row's pixels side by side.
//! Zero padding and the nearest-neighbour enlargement are written out here, so the inner loops know neither; in phases the input
//! is packed as it is. Under a stride of 2 the even pixels come first, then the odd ones, so that the pixels of a tap are
//! neighbours again.

use std::ops::Range;

use bytemuck::Pod;

use super::grid::PixelBlock;
use crate::operands::{ConvCall, ConvShape, InputRows};
use crate::simd::{CHUNK, Chunk, Simd};

/// How many bytes ahead the input is prefetched.
const AHEAD: usize = 1 << 10;

/// Packed pixels, and a scale for each.
#[derive(Default)]
pub(super) struct Gathered {
    chunks: Vec<Chunk<u8>>,
    scales: Vec<f32>,
    /// Chunks of a pixel.
    depth: usize,
    /// Pixels of a row.
    pitch: usize,
    /// Where in a row the pixels of each tap start.
    taps: [usize; 3],
}

impl Gathered {
    /// Packs what `block` reads, its bytes XORed with [`Simd::FLIP`] if they are int8.
    #[inline(always)]
    pub(super) fn fill<S: Simd>(&mut self, simd: S, call: &ConvCall, block: &PixelBlock) {
        match call.x {
            InputRows::Int8 { q, scale } => self.fill_from(simd, (q, Some(scale)), S::FLIP, call, block),
            InputRows::F32(x) => self.fill_from(simd, (x, None), 0, call, block),
        }
    }

    #[inline(always)]
    fn fill_from<S: Simd, T: Pod>(
        &mut self,
        simd: S,
        (x, scale): (&[T], Option<&[f32]>),
        flip: u8,
        call: &ConvCall,
        block: &PixelBlock,
    ) {
        let (shape, k) = (&call.shape, call.panels.layout.k);
        let (rows, columns) = (shape.span(&block.rows), shape.span(&block.columns));
        self.size(rows, columns, k * size_of::<T>(), shape);
        let held = &call.strip.in_rows;
        for row in 0..rows {
            let y = shape.source_row(block.rows.start, row);
            for column in 0..columns {
                let x_at = shape.source_column(block.columns.start, column);
                let slot = column % shape.stride * (self.pitch / shape.stride) + column / shape.stride;
                let pixel = y.zip(x_at).map(|(y, x)| (block.image * held.len() + y - held.start) * shape.width + x);
                let values = pixel.map(|pixel| &x[pixel * k..(pixel + 1) * k]);
                self.put(simd, row, slot, values, flip);
                self.scales[row * self.pitch + slot] = pixel.zip(scale).map_or(0.0, |(pixel, scale)| scale[pixel]);
            }
        }
    }

    fn size(&mut self, rows: usize, columns: usize, pixel_bytes: usize, shape: &ConvShape) {
        self.depth = pixel_bytes.div_ceil(CHUNK);
        self.pitch = columns.next_multiple_of(shape.stride);
        self.taps = [0, 1, 2].map(|tap| tap % shape.stride * (self.pitch / shape.stride) + tap / shape.stride);
        let (chunks, scales) = (rows * self.depth * self.pitch, rows * self.pitch);
        self.chunks.resize(chunks.max(self.chunks.len()), Chunk([0; CHUNK]));
        self.scales.resize(scales.max(self.scales.len()), 0.0);
    }

    /// Writes one pixel; `None` is a pixel of zeros.
    #[inline(always)]
    fn put<S: Simd, T: Pod>(&mut self, simd: S, row: usize, slot: usize, values: Option<&[T]>, flip: u8) {
        let first = row * self.depth * self.pitch + slot;
        let slots = self.chunks[first..].iter_mut().step_by(self.pitch).take(self.depth);
        let Some(values) = values else {
            return slots.for_each(|chunk| *chunk = Chunk([flip; CHUNK]));
        };
        let (whole, rest) = bytemuck::cast_slice::<T, u8>(values).as_chunks::<CHUNK>();
        for (chunk, bytes) in slots.zip(whole) {
            simd.prefetch_read(bytes.as_ptr().wrapping_add(AHEAD).cast());
            simd.prefetch_write(std::ptr::from_ref(chunk).wrapping_add(8).cast());
            *chunk = Chunk(bytes.map(|byte| byte ^ flip));
        }
        if !rest.is_empty() {
            let last = &mut self.chunks[first + (self.depth - 1) * self.pitch];
            *last = Chunk([flip; CHUNK]);
            last.0.iter_mut().zip(rest).for_each(|(to, from)| *to = from ^ flip);
        }
    }

    /// From a chunk of a pixel to its next.
    pub(super) fn chunk_stride(&self) -> usize {
        self.pitch * CHUNK
    }

    /// The pixels and scales that a tap to the `right` reads for the output columns `tile` in a packed row.
    #[inline(always)]
    pub(super) fn tile(&self, row: usize, right: usize, tile: &Range<usize>) -> (*const u8, *const f32) {
        let slot = self.taps[right] + tile.start;
        let pixels = &self.chunks[row * self.depth * self.pitch + slot..];
        (pixels.as_ptr().cast(), self.scales[row * self.pitch + slot..].as_ptr())
    }
}
