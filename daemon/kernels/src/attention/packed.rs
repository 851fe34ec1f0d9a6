//! A head's keys and values in int8, packed for the inner loops of attention.

use super::parts::HeadQueries;
use crate::rows::quantize_row;
use crate::scalar::rows::TINY;
use crate::simd::{CHUNK, Chunk, LANES, Line, Simd, reserve, reserve_lines};

/// Panels of keys in a chunk of 64 weights.
pub(super) const PANELS: usize = CHUNK / LANES;

/// All keys and values of a head. Keys come in chunks of 64: those past the last are zeros.
#[derive(Default)]
pub(super) struct PackedHead {
    /// Keys, less their mean: `[16 keys][4 dimensions][16][4]`.
    pub(super) k: Vec<Chunk<u8>>,
    /// Lines of a panel of keys.
    pub(super) k_quads: usize,
    /// For each panel of 16 the keys' scales and the sums of their values.
    pub(super) k_scale: Vec<Line>,
    pub(super) k_sums: Vec<[i32; LANES]>,
    /// Values: `[16 dimensions][4 keys][16][4]`; of each 64, key `i` is at [`Simd::slot`] `i`.
    pub(super) v: Vec<Chunk<u8>>,
    /// Lines of a panel of values.
    pub(super) v_quads: usize,
    /// The scale of each dimension of the values, `max|v| / 127`.
    pub(super) v_scale: Vec<f32>,
    /// `127 / max|v|` of each dimension of the values.
    v_inverse: Vec<f32>,
    /// The keys' mean, for each dimension.
    mean: Vec<f32>,
    /// A key less the mean, before it is quantized.
    row: Vec<f32>,
    /// A quantized key or value, before it is packed.
    bytes: Vec<i8>,
}

impl PackedHead {
    /// Packs the keys and values of the queries' head.
    #[inline(always)]
    pub(super) fn pack<S: Simd>(&mut self, simd: S, queries: &HeadQueries) {
        self.reserve(queries);
        self.find_mean_and_scales(simd, queries);
        self.pack_keys(simd, queries);
        self.pack_values(simd, queries);
    }

    fn reserve(&mut self, queries: &HeadQueries) {
        let (d, depth) = (queries.head_dim(), queries.depth());
        let panels = queries.shape().keys.div_ceil(CHUNK) * PANELS;
        (self.k_quads, self.v_quads) = (d.div_ceil(4), panels * LANES / 4);
        for values in [&mut self.mean, &mut self.v_inverse, &mut self.v_scale, &mut self.row] {
            values.clear();
            values.resize(d, 0.0);
        }
        self.bytes.clear();
        self.bytes.resize(depth * LANES, 0);
        reserve(&mut self.k, panels * self.k_quads, Chunk([0; CHUNK]));
        reserve_lines(&mut self.k_scale, panels);
        reserve(&mut self.k_sums, panels, [0; LANES]);
        reserve(&mut self.v, depth * self.v_quads, Chunk([0; CHUNK]));
    }

    /// Finds the keys' mean and the scales of the values' dimensions.
    #[inline(always)]
    fn find_mean_and_scales<S: Simd>(&mut self, simd: S, queries: &HeadQueries) {
        let keys = queries.shape().keys;
        for key in 0..keys {
            let sums = self.mean.chunks_mut(LANES).zip(queries.key(simd, key).chunks(LANES));
            sums.for_each(|(sum, k)| simd.store(simd.add(simd.load(sum), simd.load(k)), sum));
            let maxima = self.v_scale.chunks_mut(LANES).zip(queries.value(simd, key).chunks(LANES));
            maxima.for_each(|(max, v)| simd.store(simd.max(simd.abs(simd.load(v)), simd.load(max)), max));
        }
        self.mean.iter_mut().for_each(|sum| *sum /= keys as f32);
        for (max, inverse) in self.v_scale.iter_mut().zip(&mut self.v_inverse) {
            (*inverse, *max) = if *max < TINY { (0.0, 0.0) } else { (127.0 / *max, *max / 127.0) };
        }
    }

    /// Keys past the last are zeros with scale 1: their scores are numbers, which are then replaced.
    #[inline(always)]
    fn pack_keys<S: Simd>(&mut self, simd: S, queries: &HeadQueries) {
        let (d, quads, keys) = (queries.head_dim(), self.k_quads, queries.shape().keys);
        self.bytes.fill(0);
        for key in 0..keys.next_multiple_of(CHUNK) {
            let mut scale = 1.0;
            if key < keys {
                let row = queries.key(simd, key).chunks(LANES).zip(self.mean.chunks(LANES));
                for ((k, mean), row) in row.zip(self.row.chunks_mut(LANES)) {
                    simd.store(simd.sub(simd.load(k), simd.load(mean)), row);
                }
                scale = quantize_row(simd, &self.row, &mut self.bytes[..d]);
            } else {
                self.bytes.fill(0);
            }
            let (panel, lane) = (key / LANES, key % LANES);
            self.k_scale[panel].0[lane] = scale;
            self.k_sums[panel][lane] = self.bytes.iter().map(|byte| i32::from(*byte)).sum();
            let lines = &mut self.k[panel * quads..(panel + 1) * quads];
            for (line, quad) in lines.iter_mut().zip(self.bytes.as_chunks::<4>().0) {
                line.0.as_chunks_mut::<4>().0[lane] = quad.map(|byte| byte as u8);
            }
        }
    }

    /// Values past the last are zeros.
    #[inline(always)]
    fn pack_values<S: Simd>(&mut self, simd: S, queries: &HeadQueries) {
        let keys = queries.shape().keys;
        for key in 0..keys.next_multiple_of(CHUNK) {
            if key < keys {
                let value = queries.value(simd, key).chunks(LANES).zip(self.v_inverse.chunks(LANES));
                for ((v, inverse), bytes) in value.zip(self.bytes.chunks_mut(LANES)) {
                    simd.store_i8(simd.mul(simd.load(v), simd.load(inverse)), bytes);
                }
            } else {
                self.bytes.fill(0);
            }
            let slot = key / CHUNK * CHUNK + S::slot(key % CHUNK);
            for (panel, bytes) in self.bytes.chunks(LANES).enumerate() {
                let line = self.v[panel * self.v_quads + slot / 4].0.as_chunks_mut::<4>().0;
                line.iter_mut().zip(bytes).for_each(|(quad, byte)| quad[slot % 4] = *byte as u8);
            }
        }
    }
}
