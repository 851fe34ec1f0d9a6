//! Attention with an online softmax: the scores of a block of keys at a time.

use super::{math, sum_lanes};

/// Keys in a block. Part of the specification: the running maximum is known block by block.
pub(crate) const BLOCK: usize = 128;

/// What the queries are multiplied by, so that the softmax's powers are of 2: `log2(e) / √head_dim`.
pub(crate) fn query_scale(head_dim: usize) -> f32 {
    (std::f64::consts::LOG2_E / (head_dim as f64).sqrt()) as f32
}

/// One query of one head against the keys that it sees. `key(j)` and `value(j)` are rows of `head_dim` numbers.
///
/// Per block: scores `s = Σ fma(q · scale, k)` over the dimensions in order from 0; the maximum `m`; `p = 2^(s − m)`; what was
/// summed is multiplied by `2^(old m − m)`; `l` takes the sum of `p` over sixteen lanes; `o = fma(p, v, o)` over the keys in
/// order. Last, `o / l + 0` (so that no zero has a sign).
pub(crate) fn attend<'a>(
    query: &[f32],
    keys: usize,
    key: impl Fn(usize) -> &'a [f32],
    value: impl Fn(usize) -> &'a [f32],
    out: &mut [f32],
) {
    let scale = query_scale(query.len());
    let (mut max, mut sum) = (f32::NEG_INFINITY, 0f32);
    out.fill(0.0);
    for start in (0..keys).step_by(BLOCK) {
        let block = start..keys.min(start + BLOCK);
        let score = |j| query.iter().zip(key(j)).fold(0f32, |s, (q, k)| (q * scale).mul_add(*k, s));
        let mut p: Vec<f32> = block.clone().map(score).collect();
        let new = p.iter().fold(max, |max, s| if *s > max { *s } else { max });
        let fade = math::exp2(max - new);
        p.iter_mut().for_each(|s| *s = math::exp2(*s - new));
        sum = sum.mul_add(fade, sum_lanes(p.iter().copied()));
        for (i, out) in out.iter_mut().enumerate() {
            *out = block.clone().zip(&p).fold(*out * fade, |o, (j, p)| p.mul_add(value(j)[i], o));
        }
        max = new;
    }
    out.iter_mut().for_each(|o| *o = *o / sum + 0.0);
}
