//! The spellings of a LoRA file's keys. Each names a module of a network and what the tensor is to it:
//! `lora_unet_mid_block_attentions_0_proj_in.lora_down.weight` is `down` of `mid_block.attentions.0.proj_in` of the
//! UNet.
//!
//! Dots and underscores of a module's name are not told apart, as kohya's spelling does not.

/// What a tensor is to its module. The names are LyCORIS' own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LoraPart {
    /// LoRA's second factor, `[rank, in, …]`.
    Down,
    /// LoRA's first factor, `[out, rank]`.
    Up,
    /// The kernel between them where a convolution is factored thrice, `[rank, rank, height, width]`.
    Mid,
    /// A scalar: the change is scaled by alpha/rank.
    Alpha,
    /// PEFT's DoRA: the outputs' magnitudes.
    Magnitude,
    /// LyCORIS' DoRA: the magnitudes of the outputs `[out, 1, …]` or of the inputs `[1, in, …]`.
    DoraScale,
    /// LoHa's factors and kernels.
    HadaW1A,
    HadaW1B,
    HadaW2A,
    HadaW2B,
    HadaT1,
    HadaT2,
    /// LoKr's factors, whole or factored themselves.
    LokrW1,
    LokrW1A,
    LokrW1B,
    LokrW2,
    LokrW2A,
    LokrW2B,
    LokrT2,
    /// What is added to the weight.
    Diff,
    /// What is added to the bias.
    DiffBias,
}

/// How the end of a key spells what it is: kohya's and LyCORIS' names, PEFT's, diffusers' from 0.17 to 0.23, and those
/// of its older attention processors.
/// Of two ends that fit, the longer comes first.
const PARTS: [(&str, LoraPart); 33] = [
    (".lora_down.weight", LoraPart::Down),
    (".lora_up.weight", LoraPart::Up),
    (".lora_mid.weight", LoraPart::Mid),
    ("_lora.alpha", LoraPart::Alpha),
    (".alpha", LoraPart::Alpha),
    (".dora_scale", LoraPart::DoraScale),
    (".lora_A.weight", LoraPart::Down),
    (".lora_B.weight", LoraPart::Up),
    (".lora_magnitude_vector", LoraPart::Magnitude),
    (".lora_magnitude_vector.weight", LoraPart::Magnitude),
    (".lora.down.weight", LoraPart::Down),
    (".lora.up.weight", LoraPart::Up),
    (".lora_linear_layer.down.weight", LoraPart::Down),
    (".lora_linear_layer.up.weight", LoraPart::Up),
    ("_lora.down.weight", LoraPart::Down),
    ("_lora.up.weight", LoraPart::Up),
    (".hada_w1_a", LoraPart::HadaW1A),
    (".hada_w1_b", LoraPart::HadaW1B),
    (".hada_w2_a", LoraPart::HadaW2A),
    (".hada_w2_b", LoraPart::HadaW2B),
    (".hada_t1", LoraPart::HadaT1),
    (".hada_t2", LoraPart::HadaT2),
    (".lokr_w1", LoraPart::LokrW1),
    (".lokr_w1_a", LoraPart::LokrW1A),
    (".lokr_w1_b", LoraPart::LokrW1B),
    (".lokr_w2", LoraPart::LokrW2),
    (".lokr_w2_a", LoraPart::LokrW2A),
    (".lokr_w2_b", LoraPart::LokrW2B),
    (".lokr_t2", LoraPart::LokrT2),
    (".diff", LoraPart::Diff),
    (".diff_b", LoraPart::DiffBias),
    (".w_norm", LoraPart::Diff),
    (".b_norm", LoraPart::DiffBias),
];

/// How the beginning of a key spells the network.
const NETWORKS: [(&str, &str); 9] = [
    ("lora_unet_", "unet"),
    ("lora_te_", "text_encoder"),
    ("lora_te1_", "text_encoder"),
    ("lora_te2_", "text_encoder_2"),
    ("unet.", "unet"),
    ("text_encoder.", "text_encoder"),
    ("text_encoder_2.", "text_encoder_2"),
    ("lycoris_", "unet"),
    ("diffusion_model.", "unet"),
];

/// A key, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LoraKey {
    /// The bundle's name of the network; `None`: the file does not say which.
    pub(super) network: Option<&'static str>,
    /// The module's name with underscores instead of dots.
    pub(super) module: String,
    /// What the tensor is to it.
    pub(super) part: LoraPart,
}

impl LoraKey {
    /// What `key` names, if it is spelled as a LoRA's.
    pub(super) fn parse(key: &str) -> Option<LoraKey> {
        let key = without_adapter_name(key.strip_prefix("base_model.model.").unwrap_or(key));
        let (module, part) = PARTS.iter().find_map(|(end, part)| Some((key.strip_suffix(end)?, *part)))?;
        let found = NETWORKS.iter().find_map(|(start, network)| Some((module.strip_prefix(start)?, *network)));
        let (module, network) = found.map_or((module, None), |(module, network)| (module, Some(network)));
        let module = module.replace(".processor", "").replace('.', "_");
        Some(LoraKey { network, module, part })
    }
}

/// PEFT puts the adapter's name between `lora_A` and `weight` where a model is saved with it.
fn without_adapter_name(key: &str) -> String {
    for part in [".lora_A.", ".lora_B.", ".lora_magnitude_vector."] {
        if let Some((module, end)) = key.split_once(part)
            && let Some((_, last)) = end.rsplit_once('.')
        {
            return format!("{module}{part}{last}");
        }
    }
    key.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_spelling_names_the_same_module() {
        let module = "mid_block_attentions_0_transformer_blocks_0_attn1_to_q";
        for (key, network, part) in [
            ("lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight", true, LoraPart::Down),
            ("lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.alpha", true, LoraPart::Alpha),
            ("unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_B.weight", true, LoraPart::Up),
            (
                "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.default_0.weight",
                true,
                LoraPart::Down,
            ),
            ("unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora.up.weight", true, LoraPart::Up),
            (
                "unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight",
                true,
                LoraPart::Down,
            ),
            ("mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.up.weight", false, LoraPart::Up),
            (
                "base_model.model.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight",
                false,
                LoraPart::Down,
            ),
            (
                "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_magnitude_vector.default.weight",
                true,
                LoraPart::Magnitude,
            ),
        ] {
            let network = network.then_some("unet");
            assert_eq!(LoraKey::parse(key), Some(LoraKey { network, module: module.into(), part }), "{key}");
        }
    }

    #[test]
    fn networks_are_told_apart() {
        for (key, network) in [
            ("lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight", "text_encoder"),
            ("lora_te1_text_model_encoder_layers_0_mlp_fc1.hada_w1_a", "text_encoder"),
            ("lora_te2_text_model_encoder_layers_0_mlp_fc1.lokr_w2", "text_encoder_2"),
            ("text_encoder_2.text_model.encoder.layers.0.mlp.fc1.lora_linear_layer.up.weight", "text_encoder_2"),
        ] {
            let found = LoraKey::parse(key).unwrap();
            assert_eq!(
                (found.network, &*found.module),
                (Some(network), "text_model_encoder_layers_0_mlp_fc1"),
                "{key}"
            );
        }
    }

    #[test]
    fn what_is_spelled_otherwise_is_no_part() {
        for key in ["model.diffusion_model.out.2.weight", "emb_params", "lora_unet_conv_in.oft_blocks"] {
            assert_eq!(LoraKey::parse(key), None, "{key}");
        }
    }
}
