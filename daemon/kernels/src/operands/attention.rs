//! Attention's operands.

use crate::operands::matrix::MOST_TERMS;

/// The most channels of a head in int8: dot products, and the half that rounds them when they are shifted, fit an i32.
const MOST_CHANNELS: usize = MOST_TERMS - 5;

/// The shape of an attention. Tokens are `[batch][tokens][heads · head_dim]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionShape {
    /// Independent sequences.
    pub batch: usize,
    /// Heads.
    pub heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
    /// Query tokens of a sequence.
    pub queries: usize,
    /// Key tokens, and so value tokens, of a sequence.
    pub keys: usize,
    /// A query sees the keys up to its own position only; wants as many keys as queries.
    pub causal: bool,
}

impl AttentionShape {
    /// Channels of a token.
    pub(crate) fn channels(&self) -> usize {
        self.heads * self.head_dim
    }

    /// There is one head, as in the autoencoder's attention: large, so that an image's keys and values are packed in int8 once for
    /// all threads.
    pub(crate) fn is_one_head(&self) -> bool {
        self.batch * self.heads == 1
    }
}

/// One attention. The queries, `[batch][queries][heads · head_dim]`, are passed beside it, since the result takes their place.
#[derive(Debug, Clone, Copy)]
pub struct AttentionCall<'a> {
    /// Keys: `[batch][keys][heads · head_dim]`.
    pub k: &'a [f32],
    /// Values: `[batch][keys][heads · head_dim]`.
    pub v: &'a [f32],
    /// The sizes.
    pub shape: AttentionShape,
}

impl AttentionCall<'_> {
    pub(crate) fn check(&self, q: &[f32]) {
        let shape = &self.shape;
        assert!(shape.keys > 0 && shape.head_dim > 0 && shape.heads > 0, "an empty attention: {shape:?}");
        assert!(
            !shape.causal || shape.keys == shape.queries,
            "causal with {} keys, {} queries",
            shape.keys,
            shape.queries
        );
        let tokens = |count: usize| shape.batch * count * shape.channels();
        assert!(q.len() == tokens(shape.queries), "{shape:?}: q {}", q.len());
        let keys = tokens(shape.keys);
        assert!(self.k.len() == keys && self.v.len() == keys, "{shape:?}: k {}, v {}", self.k.len(), self.v.len());
    }

    pub(crate) fn check_int8(&self, q: &[f32]) {
        self.check(q);
        assert!(!self.shape.causal, "int8 attention sees all keys");
        assert!(self.shape.head_dim <= MOST_CHANNELS, "{} terms overflow an i32", self.shape.head_dim);
    }
}
