//! CLIPTextModel: a causal transformer over a prompt's tokens; the last layer's output after the final norm.

use crate::network::{Attention, Builder, BuiltNetwork, Dim, Linear, Value};
use crate::source::TextConfig;
use diffused_kernels::pack::Format;

/// The text encoder's network.
pub(super) fn build(config: &TextConfig, weights: Format) -> BuiltNetwork {
    let mut b = Builder::new(weights);
    let ids = b.ids("input_ids", &[Dim::Any("batch"), Dim::Any("tokens")]);
    let mut x = b.embedding(ids, "embeddings", (config.vocabulary, config.positions), config.channels);
    for layer in 0..config.layers {
        x = block(&mut b, x, &format!("encoder.layers.{layer}"), config);
    }
    let x = b.layer_norm(x, "final_layer_norm", config.eps);
    b.finish("text_encoder", x, "last_hidden_state")
}

fn block(b: &mut Builder, x: Value, name: &str, config: &TextConfig) -> Value {
    let attention = format!("{name}.self_attn");
    let h = b.layer_norm(x, &format!("{name}.layer_norm1"), config.eps);
    let qkv = ["q_proj", "k_proj", "v_proj"]
        .map(|part| b.linear(h, &format!("{attention}.{part}"), config.channels, Linear::default()));
    let settings = Attention { heads: config.heads, causal: true, precise: true };
    let h = b.attention(qkv, &attention, settings);
    let onto = |residual| Linear { residual: Some(residual), ..Linear::default() };
    let x = b.linear(h, &format!("{attention}.out_proj"), config.channels, onto(x));
    let h = b.layer_norm(x, &format!("{name}.layer_norm2"), config.eps);
    let activated = Linear { activation: config.activation, ..Linear::default() };
    let h = b.linear(h, &format!("{name}.mlp.fc1"), config.inner, activated);
    b.linear(h, &format!("{name}.mlp.fc2"), config.channels, onto(x))
}
