//! Residual blocks and attention: what the UNet and the autoencoder share.

use crate::network::{self, Builder, Conv, GroupNorm, Linear, Value};

/// What a network's residual blocks have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resnets {
    /// Groups of the norms.
    pub(super) groups: usize,
    /// Added to the variance.
    pub(super) eps: f32,
    /// The time embedding after SiLU, where there is one.
    pub(super) time: Option<Value>,
    /// The unit in which results are rounded to half precision.
    pub(super) half: Option<usize>,
}

impl Resnets {
    /// The norm before a convolution.
    pub(super) fn norm(&self) -> GroupNorm {
        GroupNorm { groups: self.groups, eps: self.eps, silu: true }
    }

    /// ResnetBlock2D: two 3×3 convolutions, a norm and SiLU before each, the time embedding added after the first, the
    /// input after the second.
    ///
    /// The shortcut comes early: it is never larger than the input, which can then be freed.
    pub(super) fn add(&self, b: &mut Builder, x: Value, name: &str, features: usize) -> Value {
        let h = b.group_norm(x, &format!("{name}.norm1"), self.norm());
        let shortcut = match x.channels == features {
            true => x,
            false => b.pointwise(x, &format!("{name}.conv_shortcut"), features),
        };
        let precise = Linear { precise: true, ..Linear::default() };
        let time = self.time.map(|time| b.linear(time, &format!("{name}.time_emb_proj"), features, precise));
        let h = b.conv(h, &format!("{name}.conv1"), features, Conv { time, half: self.half, ..Conv::default() });
        let h = b.group_norm(h, &format!("{name}.norm2"), self.norm());
        let onto = Conv { residual: Some(shortcut), half: self.half, ..Conv::default() };
        b.conv(h, &format!("{name}.conv2"), features, onto)
    }
}

/// Attention with its four projections (`to_q`, `to_k`, `to_v`, `to_out.0`); `residual` is added to the result.
pub(super) struct AttentionBlock {
    pub(super) heads: usize,
    /// Biases of the first three projections.
    pub(super) bias: bool,
    pub(super) residual: Value,
}

impl AttentionBlock {
    /// Queries from `x`, keys and values from `context`, which is `x` or a text.
    pub(super) fn add(&self, b: &mut Builder, x: Value, context: Value, name: &str) -> Value {
        let (channels, project) = (x.channels, Linear { bias: self.bias, ..Linear::default() });
        let q = b.linear(x, &format!("{name}.to_q"), channels, project);
        let k = b.linear(context, &format!("{name}.to_k"), channels, project);
        let v = b.linear(context, &format!("{name}.to_v"), channels, project);
        let cross = context != x;
        let settings = network::Attention { heads: self.heads, causal: false, cross };
        let h = b.attention([q, k, v], name, settings);
        let out = Linear { residual: Some(self.residual), ..Linear::default() };
        b.linear(h, &format!("{name}.to_out.0"), channels, out)
    }
}
