//! Attention with an online softmax: the scores of a block of keys at a time.

use super::rows::{TINY, quantize_row};
use super::{fold_lanes, math};

/// Keys in a block. Part of the specification: the running maximum is known block by block.
pub(crate) const BLOCK: usize = 128;
/// Below its upper digit, a weight is a multiple of this.
pub(crate) const DIGIT: f32 = 128.0;

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
/// `max|v| / 127` over all keys. Per block: scores `s = dot · (query's scale) · (key's scale)`; weights are the integers
/// `p = round(2^(s − m) · 127 · 128)`, whose power is one fma of the first product; `l` as above. With `p = 128 h + r`, `o`
/// takes `128 Σ h v`, then `Σ r v`. Last, `o / l` by the dimension's scale.
pub(crate) fn attend_int8(query: &[f32], keys: &[&[f32]], values: &[&[f32]], out: &mut [f32]) {
    let mean = mean(keys);
    let centred: Vec<_> = keys.iter().map(|key| quantized(key.iter().zip(&mean).map(|(k, m)| k - m))).collect();
    let (query, scale) = quantized(query.iter().copied());
    let scale = scale * query_scale(query.len());
    let (inverse, value_scale): (Vec<_>, Vec<_>) = (0..out.len()).map(|i| scales_of_values(values, i)).unzip();
    let mut softmax = ScalarSoftmax::new(out.len());
    for (keys, values) in centred.chunks(BLOCK).zip(values.chunks(BLOCK)) {
        let dots: Vec<f32> = keys.iter().map(|(key, _)| dot(&query, key) as f32 * scale).collect();
        let max = softmax.raise_max(&dots.iter().zip(keys).map(|(dot, (_, scale))| dot * scale).collect::<Vec<_>>());
        let power = |(dot, (_, scale)): (&f32, &(_, f32))| dot.mul_add(*scale, math::WEIGHT_BITS - max);
        let weights: Vec<f32> = dots.iter().zip(keys).map(|x| math::weight(power(x)).round_ties_even()).collect();
        softmax.add(&weights);
        let digits = [0, 1].map(|d| weights.iter().map(|p| digits(*p)[d]).collect::<Vec<_>>());
        for (i, sum) in softmax.sums.iter_mut().enumerate() {
            let values: Vec<i8> = values.iter().map(|v| (v[i] * inverse[i]).round_ties_even() as i8).collect();
            *sum = (dot(&digits[0], &values) as f32).mul_add(DIGIT, *sum);
            *sum += dot(&digits[1], &values) as f32;
        }
    }
    softmax.finish(&value_scale, out);
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
        self.max = scores.iter().fold(before, |max, s| if *s > max { *s } else { max });
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

/// Upper and lower seven bits of a weight.
fn digits(weight: f32) -> [i8; 2] {
    let (weight, digit) = (weight as i32, DIGIT as i32);
    [(weight / digit) as i8, (weight % digit) as i8]
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

/// What quantizes a dimension of the values, and what undoes it.
fn scales_of_values(values: &[&[f32]], dimension: usize) -> (f32, f32) {
    let max = values.iter().fold(0.0, |max, v| if v[dimension].abs() > max { v[dimension].abs() } else { max });
    if max < TINY { (0.0, 0.0) } else { (127.0 / max, max / 127.0) }
}

fn dot(a: &[i8], b: &[i8]) -> i32 {
    a.iter().zip(b).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum()
}
