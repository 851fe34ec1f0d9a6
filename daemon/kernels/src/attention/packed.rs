//! A head's queries, keys and values in int8, packed for the inner loops of attention.

use super::parts::{HeadKeys, HeadQueries};
use crate::operands::AttentionShape;
use crate::scalar::attention::{BLOCK, sum_of_magnitudes};
use crate::scalar::rows::TINY;
use crate::scalar::weights::{KeyUnit, PowerScale, score_shift};
use crate::simd::{CHUNK, Chunk, LANES, Line, OfKey, OfRow, Simd, reserve, reserve_lines};

/// Lines of a chunk's values before they are quantized.
const LINES: usize = CHUNK / LANES;

/// All keys and values of a head.
#[derive(Default)]
pub(super) struct PackedHead {
    /// The number of keys.
    keys: usize,
    /// Keys, less their mean: `[64 dimensions][key][64]`, XORed with [`Simd::FLIP`]. The last of an odd number is there twice.
    pub(super) k: Vec<Chunk<u8>>,
    /// The keys' scales beside the greatest, of [`KeyUnit::factor`].
    pub(super) k_factor: Vec<OfKey>,
    /// How far products with the keys are shifted to be scores.
    pub(super) shift: u32,
    /// What a score of 1 is, beside the query's scale.
    pub(super) unit: f32,
    k_scale: Vec<f32>,
    /// Values: `[64 keys][row][64]`; a row is a dimension, or, last, 1 for each key. What would be of keys past the last is 0.
    pub(super) v: Vec<Chunk<u8>>,
    /// For each [`BLOCK`] the sum of each row, times 128, where [`Simd::FLIP`] is 0.
    pub(super) v_sums: Vec<OfRow>,
    /// Rows of the values.
    pub(super) rows: usize,
    /// The scale of each dimension of the values, `max|v| / 127`.
    pub(super) v_scale: Vec<Line>,
    /// `127 / max|v|` of each dimension of the values.
    v_inverse: Vec<Line>,
    /// What is subtracted from the values, for each dimension: 0, or the first of a text's.
    pub(super) v_offset: Vec<Line>,
    /// The keys' mean, for each dimension.
    mean: Vec<Line>,
    row: PaddedRow,
}

impl AttentionShape {
    /// Bytes that [`crate::Level::attention_int8`] takes beside what each thread keeps: keys and values of a single head,
    /// packed.
    pub fn packed_bytes(&self) -> usize {
        if !self.is_one_head() {
            return 0;
        }
        let (d, keys) = (self.head_dim, self.keys);
        let of_key = d.next_multiple_of(CHUNK) + size_of::<f32>() + size_of::<OfKey>();
        let of_rows = keys.next_multiple_of(CHUNK) + keys.div_ceil(BLOCK) * size_of::<OfRow>();
        keys.next_multiple_of(2) * of_key + (d + 1) * of_rows + 5 * d.next_multiple_of(LANES) * size_of::<f32>()
    }
}

impl PackedHead {
    /// Packs the keys and values of a head. The first of a text's values is subtracted from all of them.
    #[inline(always)]
    pub(super) fn pack<S: Simd>(&mut self, simd: S, head: &HeadKeys, text: bool) {
        self.reserve(head);
        if text {
            let offsets = self.v_offset.iter_mut().zip(head.value_again(0).chunks(LANES));
            offsets.for_each(|(offset, v)| simd.store(simd.load(v), &mut offset.0));
        }
        self.find_mean_and_scales(simd, head);
        self.pack_keys(simd, head);
        self.pack_values(simd, head);
    }

    /// The number of keys in `k`.
    pub(super) fn even_keys(&self) -> usize {
        self.keys.next_multiple_of(2)
    }

    fn reserve(&mut self, head: &HeadKeys) {
        let d = head.dim();
        (self.keys, self.rows) = (head.shape().keys, d + 1);
        let even_keys = self.even_keys();
        for lines in [&mut self.mean, &mut self.v_inverse, &mut self.v_scale, &mut self.v_offset] {
            lines.clear();
            lines.resize(head.depth(), Line::ZERO);
        }
        reserve(&mut self.k, d.div_ceil(CHUNK) * even_keys, Chunk([0; CHUNK]));
        reserve(&mut self.k_scale, self.keys, 0.0);
        reserve(&mut self.k_factor, even_keys, [0; 4]);
        reserve(&mut self.v, self.keys.div_ceil(CHUNK) * self.rows, Chunk([0; CHUNK]));
        self.v_sums.clear();
        self.v_sums.resize(self.keys.div_ceil(BLOCK) * self.rows, [0; 4]);
        self.row.reserve(d);
    }

    /// Finds the keys' mean and the scales of the values' dimensions.
    #[inline(always)]
    fn find_mean_and_scales<S: Simd>(&mut self, simd: S, head: &HeadKeys) {
        for key in 0..self.keys {
            let sums = self.mean.iter_mut().zip(head.key(simd, key).chunks(LANES));
            sums.for_each(|(sum, k)| simd.store(simd.add(simd.load(&sum.0), simd.load(k)), &mut sum.0));
            let maxima = self.v_scale.iter_mut().zip(&self.v_offset).zip(head.value(simd, key).chunks(LANES));
            maxima.for_each(|((max, offset), v)| {
                let v = simd.sub(simd.load(v), simd.load(&offset.0));
                simd.store(simd.max_magnitude(v, simd.load(&max.0)), &mut max.0);
            });
        }
        let count = simd.splat(self.keys as f32);
        for ((sum, max), inverse) in self.mean.iter_mut().zip(&mut self.v_scale).zip(&mut self.v_inverse) {
            simd.store(simd.div(simd.load(&sum.0), count), &mut sum.0);
            for (max, inverse) in max.0.iter_mut().zip(&mut inverse.0) {
                (*inverse, *max) = if *max < TINY { (0.0, 0.0) } else { (127.0 / *max, *max / 127.0) };
            }
        }
    }

    #[inline(always)]
    fn pack_keys<S: Simd>(&mut self, simd: S, head: &HeadKeys) {
        let (keys, mut most) = (self.even_keys(), 0);
        for key in 0..self.keys {
            self.row.fill(head.key(simd, key), |c, k| simd.sub(simd.load(k), simd.load(&self.mean[c].0)), simd);
            let mut sum = 0;
            let k = &mut self.k;
            self.k_scale[key] = self.row.quantize(simd, |c, bytes| {
                sum += sum_of_magnitudes(&bytes);
                k[c * keys + key].0 = bytes.map(|byte| byte as u8 ^ S::FLIP);
            });
            most = most.max(sum);
        }
        if keys > self.keys {
            let chunks = head.dim().div_ceil(CHUNK);
            self.k[..chunks * keys].chunks_mut(keys).for_each(|chunk| chunk[keys - 1] = chunk[keys - 2]);
        }
        self.shift = score_shift(most);
        let scales = &self.k_scale[..self.keys];
        let unit =
            KeyUnit::new(scales.iter().fold(0.0, |max, scale| if *scale > max { *scale } else { max }), self.shift);
        self.unit = unit.unit;
        for (factor, scale) in self.k_factor.iter_mut().zip(scales.iter().chain(scales.last())) {
            *factor = [unit.factor(*scale); 4];
        }
    }

    /// Sixty-four keys by sixteen dimensions at a time: four keys' bytes side by side, as weights are stored, then transposed.
    #[inline(always)]
    fn pack_values<S: Simd>(&mut self, simd: S, head: &HeadKeys) {
        let d = self.rows - 1;
        for (chunk, rows) in self.v.chunks_exact_mut(self.rows).enumerate().take(self.keys.div_ceil(CHUNK)) {
            let first = chunk * CHUNK;
            let count = CHUNK.min(self.keys - first);
            let sums = &mut self.v_sums[first / BLOCK * (d + 1)..][..d + 1];
            for (c, rows) in rows[..d].chunks_mut(LANES).enumerate() {
                let (inverse, offset) = (simd.load(&self.v_inverse[c].0), simd.load(&self.v_offset[c].0));
                let mut lines = [simd.splat(0.0); LANES];
                let mut of_chunk = [0; LANES];
                for (quad, line) in lines.iter_mut().enumerate() {
                    let mut four = [simd.splat(0.0); 4];
                    for (key, less) in (4 * quad..count).zip(&mut four) {
                        let key = first + key;
                        let value = if c == 0 { head.value(simd, key) } else { head.value_again(key) };
                        *less = simd.sub(simd.load(&value[c * LANES..]), offset);
                    }
                    let mut bytes = Chunk([0; CHUNK]);
                    simd.store_columns(four, inverse, &mut of_chunk, &mut bytes.0);
                    *line = simd.load(bytes.floats());
                }
                for (row, line) in rows.iter_mut().zip(simd.transpose(lines)) {
                    simd.store(line, row.floats_mut());
                }
                if S::FLIP == 0 {
                    let sums = sums[c * LANES..d].iter_mut().zip(of_chunk);
                    sums.for_each(|(sum, of_chunk)| *sum = [sum[0] + 128 * of_chunk; 4]);
                }
            }
            rows[d].0.fill(0);
            rows[d].0[..count].fill(1);
            sums[d] = [sums[d][0] + 128 * count as i32; 4];
        }
    }
}

/// A row of f32 that is quantized, with zeros up to a whole line.
#[derive(Default)]
struct PaddedRow(Vec<Line>);

impl PaddedRow {
    fn reserve(&mut self, len: usize) {
        self.0.clear();
        self.0.resize(len.div_ceil(LANES), Line::ZERO);
    }

    /// The row is what `vector` makes of each sixteen of `x`, with zeros after its end.
    #[inline(always)]
    fn fill<S: Simd>(&mut self, x: &[f32], vector: impl Fn(usize, &[f32]) -> S::F, simd: S) {
        let (whole, rest) = x.as_chunks::<LANES>();
        for ((c, x), line) in whole.iter().enumerate().zip(&mut self.0) {
            simd.store(vector(c, x), &mut line.0);
        }
        if !rest.is_empty() {
            simd.store(vector(whole.len(), rest), &mut self.0[whole.len()].0);
        }
    }

    /// `scalar::rows::quantize_row`, which hands out the row chunk by chunk, with zeros after its end. Returns the scale.
    #[inline(always)]
    fn quantize<S: Simd>(&self, simd: S, mut put: impl FnMut(usize, [i8; CHUNK])) -> f32 {
        let max = self.0.iter().fold(simd.splat(0.0), |max, x| simd.max_magnitude(simd.load(&x.0), max));
        let max = simd.fold_max(max);
        let (inverse, scale) = if max < TINY { (0.0, 0.0) } else { (127.0 / max, max / 127.0) };
        for (c, lines) in self.0.chunks(LINES).enumerate() {
            let mut bytes = [0; CHUNK];
            for (line, bytes) in lines.iter().zip(bytes.as_chunks_mut::<LANES>().0) {
                simd.store_i8(simd.load(&line.0), simd.splat(inverse), bytes);
            }
            put(c, bytes);
        }
        scale
    }
}

/// [`PowerScale`] of a panel's queries.
#[derive(Debug, Clone, Copy)]
pub(super) struct PanelPowers {
    pub(super) factor: [i16; LANES],
    pub(super) above: [i16; LANES],
    /// Whether differences of scores are doubled for any query: the least that may be, and what multiplies them.
    pub(super) doubled: bool,
    pub(super) least: [i16; LANES],
    pub(super) multiple: [i16; LANES],
}

impl PanelPowers {
    fn new(units: &[f32; LANES]) -> PanelPowers {
        let scales = units.map(PowerScale::new);
        PanelPowers {
            factor: scales.map(|scale| scale.factor),
            above: scales.map(|scale| scale.above),
            doubled: scales.iter().any(|scale| scale.doublings > 0),
            least: scales.map(|scale| scale.least()),
            multiple: scales.map(|scale| 1 << scale.doublings),
        }
    }
}

/// Some panels of queries.
#[derive(Default)]
pub(super) struct PackedQueries {
    /// `[panel][4 dimensions][16][4]`.
    pub(super) q: Vec<Chunk<u8>>,
    /// Quads of a query.
    pub(super) quads: usize,
    /// The sums of the queries' values, where [`Simd::FLIP`] is not 0.
    pub(super) sums: Vec<[i32; LANES]>,
    /// What a score of 1 is for each query, as a power of 2.
    pub(super) unit: Vec<Line>,
    /// How the queries' scores become powers of 2.
    pub(super) powers: Vec<PanelPowers>,
    row: PaddedRow,
    /// A panel's quantized queries: `[64 dimensions][16][64]`.
    bytes: Vec<Chunk<u8>>,
}

impl PackedQueries {
    /// Packs `count` queries from `first` on; those that are missing in the last panel are zeros. A score of 1 is `unit` by the
    /// query's scale.
    #[inline(always)]
    pub(super) fn pack<S: Simd>(&mut self, simd: S, queries: &mut HeadQueries, first: usize, count: usize, unit: f32) {
        let (d, panels) = (queries.head.dim(), count.div_ceil(LANES));
        let chunks = d.div_ceil(CHUNK);
        self.quads = d.div_ceil(4);
        self.row.reserve(d);
        reserve(&mut self.q, panels * self.quads, Chunk([0; CHUNK]));
        reserve(&mut self.sums, panels, [0; LANES]);
        reserve_lines(&mut self.unit, panels);
        self.powers.clear();
        reserve(&mut self.bytes, chunks * LANES, Chunk([0; CHUNK]));
        for panel in 0..panels {
            let (sums, units) = (&mut self.sums[panel], &mut self.unit[panel].0);
            (*sums, *units) = ([0; LANES], [0.0; LANES]);
            self.bytes.fill(Chunk([0; CHUNK]));
            for lane in 0..LANES.min(count - panel * LANES) {
                self.row.fill(queries.query(simd, first + panel * LANES + lane), |_, q| simd.load(q), simd);
                let of_row = self.row.quantize(simd, |c, bytes| {
                    if S::FLIP != 0 {
                        sums[lane] += bytes.iter().map(|byte| i32::from(*byte)).sum::<i32>();
                    }
                    self.bytes[c * LANES + lane].0 = bytes.map(|byte| byte as u8);
                });
                units[lane] = of_row * unit;
            }
            self.powers.push(PanelPowers::new(units));
            let panel = &mut self.q[panel * self.quads..(panel + 1) * self.quads];
            for (quads, rows) in panel.chunks_mut(LANES).zip(self.bytes.as_chunks::<LANES>().0) {
                let columns = simd.transpose(std::array::from_fn(|row| simd.load(rows[row].floats())));
                quads.iter_mut().zip(columns).for_each(|(quad, column)| simd.store(column, quad.floats_mut()));
            }
        }
    }
}
