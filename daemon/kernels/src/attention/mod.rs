//! `softmax(q kᵀ / √d) v`, for each head, without ever holding the scores.

mod float;
mod int8;
mod packed;
mod parts;
mod running;

use rayon::prelude::*;

use crate::cancel::Tasks;
use crate::cpu::Level;
use crate::operands::AttentionCall;
use crate::scalar;
use crate::simd::at_level;

impl Level {
    /// Attention of the queries in `q`, `[batch][queries][heads · head_dim]`; the result takes their place.
    ///
    /// # Panics
    ///
    /// If sizes do not fit each other, or the CPU does not have the level.
    pub fn attention(self, call: &AttentionCall, q: &mut [f32]) {
        call.check(q);
        at_level!(self, simd => float::run(simd, call, q), scalar => {
            scalar_attention(q, call, scalar::attention::attend);
        });
    }

    /// [`Level::attention`] with both products in int8, at a signal-to-noise ratio of about 30 to 36 dB: queries and keys are
    /// quantized row by row, less the mean key, which changes no weight; values dimension by dimension; weights have eight bits
    /// beside the greatest of their block.
    ///
    /// # Panics
    ///
    /// If sizes do not fit each other, the attention is causal, a head has more than 133,139 channels, or the CPU does not have
    /// the level.
    pub fn attention_int8(self, call: &AttentionCall, q: &mut [f32]) {
        call.check_int8(q);
        at_level!(self, simd => int8::run(simd, call, false, q), scalar => {
            scalar_attention(q, call, scalar::attention::attend_int8);
        });
    }

    /// [`Level::attention_int8`] to the few keys and values of a text, at a signal-to-noise ratio of about 36 to 50 dB. A text's first
    /// token often has most of the weight and a small value, while the other tokens carry the meaning. So the first
    /// token's value is subtracted from all values and added to the result, and weights have fifteen bits instead of eight.
    ///
    /// # Panics
    ///
    /// As [`Level::attention_int8`].
    pub fn cross_attention_int8(self, call: &AttentionCall, q: &mut [f32]) {
        call.check_int8(q);
        at_level!(self, simd => int8::run(simd, call, true, q), scalar => {
            scalar_attention(q, call, scalar::attention::cross_attend_int8);
        });
    }
}

/// Frees what this thread keeps between tasks.
pub(crate) fn release_scratch() {
    float::release_scratch();
    int8::release_scratch();
}

/// A query of a head, the rows of the keys and of the values that it sees, and where the result goes.
type Attend = fn(&[f32], &[&[f32]], &[&[f32]], &mut [f32]);

fn scalar_attention(q: &mut [f32], call: &AttentionCall, attend: Attend) {
    let AttentionCall { k, v, shape } = *call;
    let (d, channels) = (shape.head_dim, shape.channels());
    q.par_chunks_exact_mut(d).enumerate().for_each_task(|(i, out)| {
        let (token, head) = (i / shape.heads, i % shape.heads);
        let (sequence, query) = (token / shape.queries, token % shape.queries);
        let keys = if shape.causal { query + 1 } else { shape.keys };
        let row = |j: usize| (sequence * shape.keys + j) * channels + head * d;
        let [k, v] = [k, v].map(|x| (0..keys).map(|j| &x[row(j)..][..d]).collect::<Vec<_>>());
        let query = out.to_vec();
        attend(&query, &k, &v, out);
    });
}
