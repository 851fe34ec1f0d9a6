//! `softmax(q kᵀ / √d) v`, for each head, without ever holding the scores.

mod float;
mod int8;
mod packed;
mod parts;
mod running;

use rayon::prelude::*;

use self::parts::Inputs;
use crate::cpu::{self, Level};
use crate::scalar;
use crate::simd::at_level;

/// The shape of an attention. Tokens are `[batch][tokens][heads · head_dim]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionShape {
    /// Independent sequences.
    pub batch: usize,
    /// Heads.
    pub heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
    /// Tokens that ask.
    pub queries: usize,
    /// Tokens that are asked.
    pub keys: usize,
    /// A token sees itself and those before it; as many keys as queries.
    pub causal: bool,
}

impl AttentionShape {
    fn channels(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Where a head of a query starts.
    fn at(&self, sequence: usize, query: usize, head: usize) -> usize {
        ((sequence * self.queries + query) * self.heads + head) * self.head_dim
    }

    fn check(&self, q: &[f32], k: &[f32], v: &[f32]) {
        assert!(self.keys > 0 && self.head_dim > 0 && self.heads > 0, "an empty attention: {self:?}");
        assert!(!self.causal || self.keys == self.queries, "causal with {} keys, {} queries", self.keys, self.queries);
        let (queries, keys) = (self.batch * self.queries * self.channels(), self.batch * self.keys * self.channels());
        assert!(q.len() == queries, "{self:?}: q {}", q.len());
        assert!(k.len() == keys && v.len() == keys, "{self:?}: k {}, v {}", k.len(), v.len());
    }
}

/// Attention of the queries in `q` over `k` and `v`; the result takes the queries' place.
///
/// # Panics
///
/// If sizes do not fit each other.
pub fn attention(q: &mut [f32], k: &[f32], v: &[f32], shape: &AttentionShape) {
    attention_at(cpu::level(), q, k, v, shape);
}

/// [`attention`] at a level.
///
/// # Panics
///
/// If sizes do not fit each other, or the CPU does not have the level.
pub fn attention_at(level: Level, q: &mut [f32], k: &[f32], v: &[f32], shape: &AttentionShape) {
    shape.check(q, k, v);
    let inputs = Inputs { k, v, shape };
    at_level!(level, simd => float::run(simd, inputs, q), scalar => {
        scalar_attention(q, inputs, scalar::attention::attend);
    });
}

/// [`attention`] with both products in int8, within about a hundredth of the values: queries and keys are quantized row by row,
/// less the mean key, which changes no weight; values dimension by dimension; weights have 14 bits.
///
/// # Panics
///
/// If sizes do not fit each other, or the attention is causal.
pub fn attention_int8(q: &mut [f32], k: &[f32], v: &[f32], shape: &AttentionShape) {
    attention_int8_at(cpu::level(), q, k, v, shape);
}

/// [`attention_int8`] at a level.
///
/// # Panics
///
/// If sizes do not fit each other, the attention is causal, or the CPU does not have the level.
pub fn attention_int8_at(level: Level, q: &mut [f32], k: &[f32], v: &[f32], shape: &AttentionShape) {
    shape.check(q, k, v);
    assert!(!shape.causal, "int8 attention sees all keys");
    let inputs = Inputs { k, v, shape };
    at_level!(level, simd => int8::run(simd, inputs, q), scalar => {
        scalar_attention(q, inputs, scalar::attention::attend_int8);
    });
}

/// A query of a head, the rows of the keys and of the values that it sees, and where the result goes.
type Attend = fn(&[f32], &[&[f32]], &[&[f32]], &mut [f32]);

fn scalar_attention(q: &mut [f32], Inputs { k, v, shape }: Inputs, attend: Attend) {
    let (d, channels) = (shape.head_dim, shape.channels());
    q.par_chunks_exact_mut(d).enumerate().for_each(|(i, out)| {
        let (token, head) = (i / shape.heads, i % shape.heads);
        let (sequence, query) = (token / shape.queries, token % shape.queries);
        let keys = if shape.causal { query + 1 } else { shape.keys };
        let row = |j: usize| (sequence * shape.keys + j) * channels + head * d;
        let [k, v] = [k, v].map(|x| (0..keys).map(|j| &x[row(j)..][..d]).collect::<Vec<_>>());
        let query = out.to_vec();
        attend(&query, &k, &v, out);
    });
}
