//! The UNet's modules as the original program (CompVis' latent diffusion) names them, for LoRAs that were extracted
//! from single files: `lora_unet_input_blocks_1_1_proj_in` is `down_blocks.0.attentions.0.proj_in`. There blocks are
//! counted through; diffusers counts them by resolution.

use std::collections::BTreeSet;

/// Modules at the top, diffusers' and the original names.
const TOP: [(&str, &str); 7] = [
    ("conv_in", "input_blocks.0.0"),
    ("conv_norm_out", "out.0"),
    ("conv_out", "out.2"),
    ("time_embedding.linear_1", "time_embed.0"),
    ("time_embedding.linear_2", "time_embed.2"),
    ("add_embedding.linear_1", "label_emb.0.0"),
    ("add_embedding.linear_2", "label_emb.0.2"),
];

/// Modules of a residual block.
const RESNET: [(&str, &str); 6] = [
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
];

/// Where a UNet has what.
#[derive(Debug, Default)]
pub(super) struct OriginalNames {
    /// Residual blocks of each resolution, on the way down and up.
    down: Vec<usize>,
    up: Vec<usize>,
    /// The resolutions of the way up that have attention.
    attention: BTreeSet<usize>,
}

impl OriginalNames {
    /// Of a UNet with these modules.
    pub(super) fn of<'a>(modules: impl Iterator<Item = &'a str>) -> OriginalNames {
        let mut names = OriginalNames::default();
        for module in modules {
            let (way, level, part, index) = match module.split('.').collect::<Vec<_>>()[..] {
                [way, level, part, index, ..] => (way, level.parse::<u8>(), part, index.parse::<u8>()),
                _ => continue,
            };
            let (Ok(level), Ok(index)) = (level.map(usize::from), index.map(usize::from)) else { continue };
            let counts = match (way, part) {
                ("down_blocks", "resnets") => &mut names.down,
                ("up_blocks", "resnets") => &mut names.up,
                ("up_blocks", "attentions") => {
                    names.attention.insert(level);
                    continue;
                }
                _ => continue,
            };
            counts.resize(counts.len().max(level + 1), 0);
            counts.iter_mut().skip(level).take(1).for_each(|count| *count = (*count).max(index + 1));
        }
        names
    }

    /// The original name of `module`, if it has one.
    pub(super) fn name(&self, module: &str) -> Option<String> {
        if let Some((_, name)) = TOP.iter().find(|(new, _)| *new == module) {
            return Some((*name).to_owned());
        }
        let parts: Vec<&str> = module.splitn(5, '.').collect();
        let number = |text: &str| text.parse::<usize>().ok();
        match parts[..] {
            ["mid_block", "resnets", index, inner] => {
                Some(format!("middle_block.{}.{}", 2 * number(index)?, resnet(inner)?))
            }
            ["mid_block", "attentions", "0", ..] => {
                Some(format!("middle_block.1.{}", module.strip_prefix("mid_block.attentions.0.")?))
            }
            ["down_blocks", level, "downsamplers", ..] => {
                Some(format!("input_blocks.{}.0.op", self.first_down(number(level)? + 1) - 1))
            }
            ["up_blocks", level, "upsamplers", ..] => {
                let level = number(level)?;
                let part = if self.attention.contains(&level) { 2 } else { 1 };
                Some(format!("output_blocks.{}.{part}.conv", self.first_up(level + 1).checked_sub(1)?))
            }
            ["down_blocks", level, part, index, inner] => {
                within(format!("input_blocks.{}", self.first_down(number(level)?) + number(index)?), part, inner)
            }
            ["up_blocks", level, part, index, inner] => {
                within(format!("output_blocks.{}", self.first_up(number(level)?) + number(index)?), part, inner)
            }
            _ => None,
        }
    }

    /// The first input block of a resolution: each before it ends with one that halves the size.
    fn first_down(&self, level: usize) -> usize {
        1 + self.down.iter().take(level).map(|count| count + 1).sum::<usize>()
    }

    fn first_up(&self, level: usize) -> usize {
        self.up.iter().take(level).sum()
    }
}

/// The original name of a module within a block.
fn within(block: String, part: &str, inner: &str) -> Option<String> {
    match part {
        "resnets" => Some(format!("{block}.0.{}", resnet(inner)?)),
        "attentions" => Some(format!("{block}.1.{inner}")),
        _ => None,
    }
}

fn resnet(inner: &str) -> Option<&'static str> {
    RESNET.iter().find(|(new, _)| *new == inner).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stable Diffusion 1: four levels of two residual blocks, the lowest without attention.
    fn names() -> OriginalNames {
        OriginalNames { down: vec![2; 4], up: vec![3; 4], attention: BTreeSet::from([1, 2, 3]) }
    }

    #[test]
    fn modules_have_the_names_of_stable_diffusion_1() {
        for (module, original) in [
            ("conv_in", "input_blocks.0.0"),
            ("time_embedding.linear_2", "time_embed.2"),
            ("down_blocks.0.attentions.0.proj_in", "input_blocks.1.1.proj_in"),
            ("down_blocks.0.downsamplers.0.conv", "input_blocks.3.0.op"),
            ("down_blocks.1.resnets.0.conv_shortcut", "input_blocks.4.0.skip_connection"),
            (
                "down_blocks.2.attentions.1.transformer_blocks.0.attn2.to_out.0",
                "input_blocks.8.1.transformer_blocks.0.attn2.to_out.0",
            ),
            ("down_blocks.3.resnets.1.time_emb_proj", "input_blocks.11.0.emb_layers.1"),
            ("mid_block.resnets.1.conv2", "middle_block.2.out_layers.3"),
            (
                "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj",
                "middle_block.1.transformer_blocks.0.ff.net.0.proj",
            ),
            ("up_blocks.0.upsamplers.0.conv", "output_blocks.2.1.conv"),
            ("up_blocks.1.upsamplers.0.conv", "output_blocks.5.2.conv"),
            ("up_blocks.1.resnets.0.conv1", "output_blocks.3.0.in_layers.2"),
            ("up_blocks.3.attentions.2.proj_out", "output_blocks.11.1.proj_out"),
            ("conv_out", "out.2"),
        ] {
            assert_eq!(names().name(module).as_deref(), Some(original), "{module}");
        }
        assert_eq!(names().name("conv_elsewhere"), None);
    }

    #[test]
    fn blocks_are_counted_by_their_modules() {
        let modules =
            ["down_blocks.0.resnets.1.conv1", "down_blocks.1.resnets.0.conv1", "up_blocks.1.attentions.0.norm"];
        let names = OriginalNames::of(modules.into_iter().chain(["up_blocks.0.resnets.2.conv1", "conv_in"]));
        assert_eq!((names.down, names.up, names.attention), (vec![2, 1], vec![3], BTreeSet::from([1])));
    }
}
