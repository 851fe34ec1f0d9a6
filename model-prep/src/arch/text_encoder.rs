//! CLIPTextModel: a causal transformer over a prompt's tokens; the embeddings are the last layer's output after the
//! final norm, or an earlier layer's.
//!
//! SDXL's second text encoder also projects the last layer's output. Only the end token's projection is used, but which
//! token that is depends on the prompt: the network projects all of them and has each one's beside its embedding.

use crate::network::{Attention, Builder, BuiltNetwork, Dim, Linear, Value};
use crate::source::TextConfig;
use diffused_kernels::pack::Format;

/// Dimensions of a prompt's embeddings: batch, tokens, channels.
const EMBEDDINGS: usize = 3;

/// A text encoder's network.
pub(super) fn build(name: &'static str, config: &TextConfig, weights: Format) -> BuiltNetwork {
    let mut b = Builder::new(weights);
    let ids = b.ids("input_ids", &[Dim::Any("batch"), Dim::Any("tokens")]);
    let x = b.embedding(ids, "embeddings", (config.vocabulary, config.positions), config.channels);
    let embedded = config.layers.saturating_sub(config.skip);
    let blocks = |b: &mut Builder, x, layers: std::ops::Range<usize>| {
        layers.fold(x, |x, layer| block(b, x, &format!("encoder.layers.{layer}"), config))
    };
    let x = blocks(&mut b, x, 0..embedded);
    let Some(projection) = config.projection else {
        let x = if config.final_norm { b.layer_norm(x, "final_layer_norm", config.eps) } else { x };
        return b.finish(name, x, "last_hidden_state");
    };
    let last = blocks(&mut b, x, embedded..config.layers);
    let last = b.layer_norm(last, "final_layer_norm", config.eps);
    let precise = Linear { bias: false, precise: true, ..Linear::default() };
    let projected = b.linear(last, "text_projection", projection, precise);
    let x = b.concat(x, projected, "embeddings_and_projections", EMBEDDINGS);
    b.finish(name, x, "hidden_states")
}

fn block(b: &mut Builder, x: Value, name: &str, config: &TextConfig) -> Value {
    let attention = format!("{name}.self_attn");
    let h = b.layer_norm(x, &format!("{name}.layer_norm1"), config.eps);
    let qkv = ["q_proj", "k_proj", "v_proj"]
        .map(|part| b.linear(h, &format!("{attention}.{part}"), config.channels, Linear::default()));
    let settings = Attention { heads: config.heads, causal: true, cross: false };
    let h = b.attention(qkv, &attention, settings);
    let onto = |residual| Linear { residual: Some(residual), ..Linear::default() };
    let x = b.linear(h, &format!("{attention}.out_proj"), config.channels, onto(x));
    let h = b.layer_norm(x, &format!("{name}.layer_norm2"), config.eps);
    let activated = Linear { activation: config.activation, ..Linear::default() };
    let h = b.linear(h, &format!("{name}.mlp.fc1"), config.inner, activated);
    b.linear(h, &format!("{name}.mlp.fc2"), config.channels, onto(x))
}
