//! Attention with an online softmax: the scores of a block of keys at a time.

use super::fold_lanes;
use super::math;
use super::rows::{TINY, quantize_row, rounded};
use super::weights::{KeyUnit, PowerScale, score, score_shift, weight, weight_bytes};

/// Keys in a block. Part of the specification: the running maximum is known block by block.
pub(crate) const BLOCK: usize = 128;
/// The power of 2 below which int8 attention leaves out a block's part of the sums.
pub(crate) const LEAST_SHARE: f32 = -16.0;
/// The power of 2 above which int8 attention rescales the sums to a block's greatest power.
pub(crate) const GREATEST_SHARE: f32 = 4.0;

/// What the queries are multiplied by, so that the softmax's powers are of 2: `log2(e) / √head_dim`.
pub(crate) fn query_scale(head_dim: usize) -> f32 {
    (std::f64::consts::LOG2_E / (head_dim as f64).sqrt()) as f32
}

/// One query of one head against the keys that it sees, all rows of `head_dim` numbers (Milakov & Gimelshein 2018, "Online
/// normalizer calculation for softmax").
///
/// Per block: scores `s = Σ fma(q · scale, k)` over the dimensions in order from 0; the maximum `m`; `p = 2^(s − m)`; what was
/// summed is multiplied by `2^(old m − m)`; `l` takes `p`, by sixteen lanes; `o = fma(p, v, o)` over the keys in order. Last,
/// `o / l + 0` (so that no zero has a sign).
pub(crate) fn attend(query: &[f32], keys: &[&[f32]], values: &[&[f32]], out: &mut [f32]) {
    let scale = query_scale(query.len());
    let mut softmax = ScalarSoftmax::new(out.len());
    for (keys, values) in keys.chunks(BLOCK).zip(values.chunks(BLOCK)) {
        let score = |key: &&[f32]| query.iter().zip(*key).fold(0f32, |s, (q, k)| (q * scale).mul_add(*k, s));
        let scores: Vec<f32> = keys.iter().map(score).collect();
        let max = softmax.raise_max(&scores);
        let weights: Vec<f32> = scores.iter().map(|s| math::exp2(s - max)).collect();
        softmax.add(&weights);
        for (i, sum) in softmax.sums.iter_mut().enumerate() {
            *sum = values.iter().zip(&weights).fold(*sum, |o, (v, p)| p.mul_add(v[i], o));
        }
    }
    softmax.finish(&vec![1.0; out.len()], out);
}

/// [`attend`] with both products in int8 (after Zhang et al. 2024, "SageAttention").
///
/// Keys lose their mean, which changes no softmax. Query and keys are quantized as rows; values by dimension, with
/// `max|v| / 127` over all keys. Per block: scores `s` of [`score`], integers in a unit of the query and the head; their greatest
/// `g`, and its power `top = g · unit`; weights are the integers `p` of [`weight`], relative to `g`. The sums are relative to a power
/// `m`, the first block's `top`; where a later one is above `m + `[`GREATEST_SHARE`], they are multiplied by `2^(m − top)`, and
/// it is `m` from then on. Each sum `o` takes `Σ p v` times `2^(top − m)`, which is 0 below `2^`[`LEAST_SHARE`], and so does `l`,
/// where all values are 1. Last, `o · (1 / l)` by the dimension's scale.
pub(crate) fn attend_int8(query: &[f32], keys: &[&[f32]], values: &[&[f32]], out: &mut [f32]) {
    let offset = vec![0.0; out.len()];
    attend_with_weights(query, keys, values, &offset, |power, j| [(weight(power, j), 1.0)], out);
}

/// [`attend_int8`] to a text: the first value is subtracted from all values and added to the result, and weights are
/// [`weight_bytes`]: each sum takes the products with the whole parts, then those with the fractions, by 1/128.
pub(crate) fn cross_attend_int8(query: &[f32], keys: &[&[f32]], values: &[&[f32]], out: &mut [f32]) {
    let bytes = |power: i16, _: usize| {
        let [whole, fraction] = weight_bytes(power);
        [(whole, 1.0), (fraction, 1.0 / 128.0)]
    };
    attend_with_weights(query, keys, values, values[0], bytes, out);
}

/// The `offset` is subtracted from all values and added to the result. A key's weight is so many bytes, each with its unit.
fn attend_with_weights<const BYTES: usize>(
    query: &[f32],
    keys: &[&[f32]],
    values: &[&[f32]],
    offset: &[f32],
    weight: impl Fn(i16, usize) -> [(u8, f32); BYTES],
    out: &mut [f32],
) {
    let mean = mean(keys);
    let centred: Vec<_> = keys.iter().map(|key| quantized(key.iter().zip(&mean).map(|(k, m)| k - m))).collect();
    let shift = score_shift(centred.iter().map(|(key, _)| sum_of_magnitudes(key)).fold(0, u32::max));
    let key_unit =
        KeyUnit::new(centred.iter().fold(0.0, |max, (_, scale)| if *scale > max { *scale } else { max }), shift);
    let (query, scale) = quantized(query.iter().copied());
    let unit = scale * (query_scale(query.len()) * key_unit.unit);
    let power_scale = PowerScale::new(unit);
    let values: Vec<Vec<f32>> = values.iter().map(|v| v.iter().zip(offset).map(|(v, o)| v - o).collect()).collect();
    let (inverse, value_scale): (Vec<_>, Vec<_>) = (0..out.len()).map(|i| scales_of_values(&values, i)).unzip();
    let (mut max, mut sums) = (f32::NEG_INFINITY, vec![0f32; out.len() + 1]);
    for (keys, values) in centred.chunks(BLOCK).zip(values.chunks(BLOCK)) {
        let scores: Vec<i16> =
            keys.iter().map(|(key, scale)| score(dot(&query, key), shift, key_unit.factor(*scale))).collect();
        let greatest = scores.iter().fold(i16::MIN, |max, s| max.max(*s));
        let (before, top) = (max, f32::from(greatest) * unit);
        max = if top - before > GREATEST_SHARE { top } else { before };
        let (faded, share) = (math::exp2(before - max), math::exp2(top - max));
        let share = if top - max < LEAST_SHARE { 0.0 } else { share };
        let weights = scores.iter().enumerate().map(|(j, s)| weight(power_scale.power(*s, greatest), j));
        let weights: Vec<[(u8, f32); BYTES]> = weights.collect();
        for (i, sum) in sums.iter_mut().enumerate() {
            let value = |v: &Vec<f32>| if i == v.len() { 1 } else { rounded(v[i], inverse[i]) };
            *sum *= faded;
            for byte in 0..BYTES {
                let unit = weights[0][byte].1;
                let dot: i32 =
                    weights.iter().zip(values).map(|(p, v)| i32::from(p[byte].0) * i32::from(value(v))).sum();
                *sum = (dot as f32).mul_add(share * unit, *sum);
            }
        }
    }
    let inverse = 1.0 / sums[query.len()];
    for ((i, out), scale) in out.iter_mut().enumerate().zip(value_scale) {
        *out = (sums[i] * inverse).mul_add(scale, offset[i]);
    }
}

/// The sums so far of an online softmax, for one query.
struct ScalarSoftmax {
    max: f32,
    weights: [f32; 16],
    sums: Vec<f32>,
}

impl ScalarSoftmax {
    fn new(dimensions: usize) -> ScalarSoftmax {
        ScalarSoftmax { max: f32::NEG_INFINITY, weights: [0.0; 16], sums: vec![0.0; dimensions] }
    }

    /// Takes scores into account: the sums are rescaled to the greatest score so far, which is returned.
    fn raise_max(&mut self, scores: &[f32]) -> f32 {
        let before = self.max;
        self.max = greatest(before, scores);
        let factor = math::exp2(before - self.max);
        self.weights.iter_mut().chain(&mut self.sums).for_each(|sum| *sum *= factor);
        self.max
    }

    fn add(&mut self, weights: &[f32]) {
        weights.iter().enumerate().for_each(|(i, weight)| self.weights[i % 16] += weight);
    }

    fn finish(&self, scale: &[f32], out: &mut [f32]) {
        let weight = fold_lanes(self.weights);
        for ((out, sum), scale) in out.iter_mut().zip(&self.sums).zip(scale) {
            *out = (sum / weight).mul_add(*scale, 0.0);
        }
    }
}

/// The greatest of `least` and the numbers.
fn greatest(least: f32, numbers: &[f32]) -> f32 {
    numbers.iter().fold(least, |max, s| if *s > max { *s } else { max })
}

/// Each dimension's mean: the rows' sum in order, over their number.
fn mean(rows: &[&[f32]]) -> Vec<f32> {
    let sum = |i: usize| rows.iter().fold(0.0, |sum, row| sum + row[i]);
    (0..rows[0].len()).map(|i| sum(i) / rows.len() as f32).collect()
}

fn quantized(row: impl Iterator<Item = f32>) -> (Vec<i8>, f32) {
    let row: Vec<f32> = row.collect();
    let mut q = vec![0; row.len()];
    let scale = quantize_row(&row, &mut q);
    (q, scale)
}

/// A key's magnitudes, summed.
pub(crate) fn sum_of_magnitudes(key: &[i8]) -> u32 {
    // At most 64 numbers' fit 16 bits in each of the lanes that vectors have then.
    let sum = |key: &[i8]| key.iter().map(|k| u16::from(k.unsigned_abs())).sum::<u16>();
    key.chunks(64).map(|key| u32::from(sum(key))).sum()
}

/// What quantizes a dimension of the values, and what undoes it.
fn scales_of_values(values: &[Vec<f32>], dimension: usize) -> (f32, f32) {
    let max = values.iter().fold(0.0, |max, v| if v[dimension].abs() > max { v[dimension].abs() } else { max });
    if max < TINY { (0.0, 0.0) } else { (127.0 / max, max / 127.0) }
}

fn dot(a: &[i8], b: &[i8]) -> i32 {
    a.iter().zip(b).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum()
}
