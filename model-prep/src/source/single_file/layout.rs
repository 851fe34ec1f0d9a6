//! The names in single files, which are those of the original program (CompVis' latent diffusion), as diffusers names
//! them.
//!
//! Blocks are counted through in single files and by resolution in diffusers, so how many there are at a resolution is
//! found from the names first.

use std::collections::{BTreeMap, BTreeSet};

/// Names at the top of a UNet, and diffusers'.
pub(super) const UNET_TOP: [(&str, &str); 9] = [
    ("time_embed.0.", "time_embedding.linear_1."),
    ("time_embed.2.", "time_embedding.linear_2."),
    ("time_embed.cond_proj.", "time_embedding.cond_proj."),
    ("time_embedding.cond_proj.", "time_embedding.cond_proj."),
    ("label_emb.0.0.", "add_embedding.linear_1."),
    ("label_emb.0.2.", "add_embedding.linear_2."),
    ("input_blocks.0.0.", "conv_in."),
    ("out.0.", "conv_norm_out."),
    ("out.2.", "conv_out."),
];

/// Names in a UNet's residual block, and diffusers'.
pub(super) const RESNET: [(&str, &str); 6] = [
    ("in_layers.0.", "norm1."),
    ("in_layers.2.", "conv1."),
    ("emb_layers.1.", "time_emb_proj."),
    ("out_layers.0.", "norm2."),
    ("out_layers.3.", "conv2."),
    ("skip_connection.", "conv_shortcut."),
];

/// Names in an autoencoder, and diffusers'; those of resolutions are counted.
pub(super) const VAE: [(&str, &str); 10] = [
    ("norm_out.", "conv_norm_out."),
    ("mid.block_1.", "mid_block.resnets.0."),
    ("mid.block_2.", "mid_block.resnets.1."),
    ("mid.attn_1.norm.", "mid_block.attentions.0.group_norm."),
    ("mid.attn_1.q.", "mid_block.attentions.0.to_q."),
    ("mid.attn_1.k.", "mid_block.attentions.0.to_k."),
    ("mid.attn_1.v.", "mid_block.attentions.0.to_v."),
    ("mid.attn_1.proj_out.", "mid_block.attentions.0.to_out.0."),
    ("downsample.conv.", "downsamplers.0.conv."),
    ("upsample.conv.", "upsamplers.0.conv."),
];

/// Names in OpenCLIP's text encoder, and transformers'.
pub(super) const OPEN_CLIP: [(&str, &str); 11] = [
    ("token_embedding.", "embeddings.token_embedding."),
    ("ln_final.", "final_layer_norm."),
    ("transformer.resblocks.", "encoder.layers."),
    ("ln_1.", "layer_norm1."),
    ("ln_2.", "layer_norm2."),
    ("mlp.c_fc.", "mlp.fc1."),
    ("mlp.c_proj.", "mlp.fc2."),
    ("attn.out_proj.", "self_attn.out_proj."),
    ("attn.in_proj_weight", "self_attn.in_proj.weight"),
    ("attn.in_proj_bias", "self_attn.in_proj.bias"),
    ("positional_embedding", "embeddings.position_embedding.weight"),
];

/// A UNet as its names show it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct UnetLayout {
    /// Residual blocks of each resolution on the way down, finest first: how many transformer blocks follow each.
    pub(super) down: Vec<Vec<usize>>,
    /// The same of the way up, coarsest first.
    pub(super) up: Vec<Vec<usize>>,
    /// The same of the lowest resolution.
    pub(super) middle: Vec<usize>,
    /// By the beginning of a name, diffusers'.
    blocks: BTreeMap<String, String>,
    /// The beginnings of residual blocks' names.
    resnets: BTreeSet<String>,
}

impl UnetLayout {
    /// Of a UNet's names, without `model.diffusion_model.`.
    pub(crate) fn of(names: &BTreeSet<&str>) -> UnetLayout {
        let mut layout = UnetLayout::default();
        layout.way_down(names);
        layout.middle(names);
        layout.way_up(names);
        layout
    }

    fn way_down(&mut self, names: &BTreeSet<&str>) {
        let mut level = Vec::new();
        for block in 1.. {
            let (first, i) = (format!("input_blocks.{block}.0."), self.down.len());
            if any(names, &format!("{first}op.")) {
                self.blocks.insert(format!("{first}op."), format!("down_blocks.{i}.downsamplers.0.conv."));
                self.down.push(std::mem::take(&mut level));
            } else if any(names, &first) {
                let (j, second) = (level.len(), format!("input_blocks.{block}.1."));
                self.resnet(first, format!("down_blocks.{i}.resnets.{j}."));
                level.push(self.transformer(names, second, format!("down_blocks.{i}.attentions.{j}.")));
            } else {
                break;
            }
        }
        self.down.push(level);
    }

    fn middle(&mut self, names: &BTreeSet<&str>) {
        if any(names, "middle_block.0.") {
            self.resnet("middle_block.0.".into(), "mid_block.resnets.0.".into());
            let depth = self.transformer(names, "middle_block.1.".into(), "mid_block.attentions.0.".into());
            self.middle.push(depth);
        }
        if any(names, "middle_block.2.") {
            self.resnet("middle_block.2.".into(), "mid_block.resnets.1.".into());
            self.middle.push(0);
        }
    }

    /// The way up has a residual block more at each resolution.
    fn way_up(&mut self, names: &BTreeSet<&str>) {
        let mut block = 0;
        let counts: Vec<usize> = self.down.iter().rev().map(|level| level.len() + 1).collect();
        for (i, count) in counts.into_iter().enumerate() {
            let mut level = Vec::new();
            for j in 0..count {
                self.resnet(format!("output_blocks.{block}.0."), format!("up_blocks.{i}.resnets.{j}."));
                let second = format!("output_blocks.{block}.1.");
                level.push(self.transformer(names, second, format!("up_blocks.{i}.attentions.{j}.")));
                for part in [1, 2] {
                    let sampler = format!("output_blocks.{block}.{part}.conv.");
                    if any(names, &sampler) {
                        self.blocks.insert(sampler, format!("up_blocks.{i}.upsamplers.0.conv."));
                    }
                }
                block += 1;
            }
            self.up.push(level);
        }
    }

    fn resnet(&mut self, old: String, new: String) {
        self.resnets.insert(old.clone());
        self.blocks.insert(old, new);
    }

    /// Adds a transformer, if there is one; the number of its blocks.
    fn transformer(&mut self, names: &BTreeSet<&str>, old: String, new: String) -> usize {
        let blocks = (0..).take_while(|block| any(names, &format!("{old}transformer_blocks.{block}."))).count();
        if blocks > 0 {
            self.blocks.insert(old, new);
        }
        blocks
    }

    /// diffusers' name of a tensor; one that is not known keeps its name.
    pub(crate) fn name(&self, name: &str) -> String {
        if let Some(new) = replaced(name, &UNET_TOP) {
            return new;
        }
        let ends = name.rmatch_indices('.').map(|(at, _)| at + 1);
        let prefix = ends.filter_map(|end| name.get(..end)).find(|prefix| self.blocks.contains_key(*prefix));
        let Some((prefix, new)) = prefix.and_then(|prefix| Some((prefix, self.blocks.get(prefix)?))) else {
            return name.to_owned();
        };
        let rest = name.strip_prefix(prefix).unwrap_or_default();
        let rest =
            if self.resnets.contains(prefix) { replaced(rest, &RESNET) } else { None }.unwrap_or(rest.to_owned());
        format!("{new}{rest}")
    }
}

/// One of the names begins so.
fn any(names: &BTreeSet<&str>, prefix: &str) -> bool {
    names.range(prefix..).next().is_some_and(|name| name.starts_with(prefix))
}

/// `name` with its beginning replaced, where the table has it.
fn replaced(name: &str, table: &[(&str, &str)]) -> Option<String> {
    let (rest, new) = table.iter().find_map(|(old, new)| Some((name.strip_prefix(old)?, new)))?;
    Some(format!("{new}{rest}"))
}

/// diffusers' name of an autoencoder's tensor, which is without `first_stage_model.`, where there are `levels`
/// resolutions.
pub(crate) fn vae_name(name: &str, levels: usize) -> String {
    let (part, rest) = match name.split_once('.') {
        Some((part @ ("encoder" | "decoder"), rest)) => (part, rest),
        _ => return name.to_owned(),
    };
    let level = |rest: &str, way: &str| -> Option<(usize, String)> {
        let (level, rest) = rest.strip_prefix(way)?.split_once('.')?;
        let rest = rest.strip_prefix("block.").map(|rest| format!("resnets.{rest}")).unwrap_or(rest.to_owned());
        Some((level.parse().ok()?, rest))
    };
    let (place, rest) = match (level(rest, "down."), level(rest, "up.")) {
        (Some((level, rest)), _) => (format!("down_blocks.{level}."), rest),
        (_, Some((level, rest))) => (format!("up_blocks.{}.", (levels - 1).saturating_sub(level)), rest),
        _ => (String::new(), rest.to_owned()),
    };
    let rest = replaced(&rest, &VAE).unwrap_or(rest).replace("nin_shortcut.", "conv_shortcut.");
    format!("{part}.{place}{rest}")
}

/// How many resolutions an autoencoder has by its names, at least one.
pub(crate) fn vae_levels<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    let level =
        |name: &str| name.split_once("coder.up.").or(name.split_once("coder.down."))?.1.split('.').next()?.parse().ok();
    names.filter_map(level).max().map_or(1, |last: usize| last.min(16) + 1)
}

/// transformers' name of a tensor of OpenCLIP's text encoder; one that is not known keeps its name.
pub(super) fn open_clip_name(name: &str) -> String {
    let Some(new) = replaced(name, &OPEN_CLIP) else { return name.to_owned() };
    let Some((number, rest)) = new.strip_prefix("encoder.layers.").and_then(|rest| rest.split_once('.')) else {
        return new;
    };
    format!("encoder.layers.{number}.{}", replaced(rest, &OPEN_CLIP).unwrap_or(rest.to_owned()))
}
