//! LoRAs that make a model paint in few steps (LCM-LoRA, Hyper-SD, SDXL-Lightning and their like) are told by their names,
//! since their tensors are those of any LoRA. The settings are those of their model cards.

use std::path::Path;

use diffused_engine::sampler::{SamplerKind, Spacing};

use super::sampling_config::FewSteps;

/// File names that say nothing; the folder's name says more.
const GENERIC: [&str; 4] = ["pytorch_lora_weights", "adapter_model", "diffusion_pytorch_model", "model"];
/// The guidance scale of Hyper-SD's files for guidance ("CFG"), of which the card says 5 to 8.
const HYPER_CFG: f64 = 5.0;

/// A kind of LoRA: words in a row that its name has, and what it was made for.
struct FewStepLora {
    words: &'static [&'static str],
    steps: usize,
    sampler: SamplerKind,
    spacing: Option<Spacing>,
}

const fn lora(
    words: &'static [&'static str],
    sampler: SamplerKind,
    spacing: Option<Spacing>,
    steps: usize,
) -> FewStepLora {
    FewStepLora { words, steps, sampler, spacing }
}

const LORAS: [FewStepLora; 8] = [
    lora(&["lcm"], SamplerKind::Lcm, None, 4),
    lora(&["hyper", "sd"], SamplerKind::Ddim, Some(Spacing::Trailing), 8),
    lora(&["hyper", "sdxl"], SamplerKind::Ddim, Some(Spacing::Trailing), 8),
    lora(&["sdxl", "lightning"], SamplerKind::Euler, Some(Spacing::Trailing), 4),
    lora(&["xl", "turbo"], SamplerKind::EulerAncestral, Some(Spacing::Trailing), 4),
    lora(&["sdxl", "turbo"], SamplerKind::EulerAncestral, Some(Spacing::Trailing), 4),
    lora(&["tcd"], SamplerKind::Ddim, Some(Spacing::Trailing), 4),
    lora(&["dmd", "2"], SamplerKind::Lcm, None, 4),
];

impl FewSteps {
    /// What the LoRA in the file `path` was made for, if its name is one of those.
    pub(super) fn of_lora(path: &Path) -> Option<FewSteps> {
        let words = words(&name(path)?);
        let FewStepLora { steps, sampler, spacing, .. } =
            LORAS.iter().find(|lora| words.windows(lora.words.len()).any(|found| found == lora.words))?;
        let named = words.windows(2).find_map(|pair| match pair {
            [number, step] if step.starts_with("step") => number.parse().ok(),
            _ => None,
        });
        let steps = named.filter(|steps| (1..=32).contains(steps)).unwrap_or(*steps);
        // A single step of latent consistency is what the card's sampler (TCD) does in one.
        let sampler = if steps == 1 { SamplerKind::Lcm } else { *sampler };
        let cfg_scale = words.iter().any(|word| word == "cfg").then_some(HYPER_CFG);
        Some(FewSteps { steps, sampler: Some(sampler), spacing: *spacing, cfg_scale })
    }
}

/// The name that says what a file is: its own, its folder's, or a hub's of the cache that it is in.
fn name(path: &Path) -> Option<String> {
    let text = |part: Option<&std::ffi::OsStr>| part.map(|name| name.to_string_lossy().into_owned());
    let stem = text(path.file_stem())?;
    if !GENERIC.contains(&&*stem) {
        return Some(stem);
    }
    let whole = std::path::absolute(path).ok()?;
    let folder = whole.parent()?;
    match folder.parent().filter(|parent| parent.ends_with("snapshots")) {
        Some(snapshots) => text(snapshots.parent()?.file_name()),
        None => text(folder.file_name()),
    }
}

/// The words and numbers of a name, in lower case: `Hyper-SD15-8steps` has hyper, sd, 15, 8 and steps.
fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut last = None;
    for char in name.chars() {
        let kind = (char.is_alphabetic(), char.is_ascii_digit());
        if kind != (false, false) {
            match words.last_mut().filter(|_| last == Some(kind)) {
                Some(word) => word.extend(char.to_lowercase()),
                None => words.push(char.to_lowercase().collect()),
            }
        }
        last = Some(kind);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_published_files_are_known() {
        let (ddim, euler, lcm) = (SamplerKind::Ddim, SamplerKind::Euler, SamplerKind::Lcm);
        for (path, steps, sampler, cfg) in [
            ("lcm-lora-sdv1-5/pytorch_lora_weights.safetensors", 4, lcm, None),
            (
                "/cache/models--latent-consistency--lcm-lora-sdxl/snapshots/0a1/pytorch_lora_weights.safetensors",
                4,
                lcm,
                None,
            ),
            ("LCM_LoRA_Weights_SD15.safetensors", 4, lcm, None),
            ("Hyper-SD15-8steps-lora.safetensors", 8, ddim, None),
            ("Hyper-SD15-1step-lora.safetensors", 1, lcm, None),
            ("Hyper-SDXL-4steps-lora.safetensors", 4, ddim, None),
            ("Hyper-SD15-12steps-CFG-lora.safetensors", 12, ddim, Some(5.0)),
            ("sdxl_lightning_4step_lora.safetensors", 4, euler, None),
            ("sd_xl_turbo_lora_v1.safetensors", 4, SamplerKind::EulerAncestral, None),
            ("dmd2_sdxl_4step_lora.safetensors", 4, lcm, None),
            ("TCD-SD15-LoRA/pytorch_lora_weights.safetensors", 4, ddim, None),
        ] {
            let found = FewSteps::of_lora(Path::new(path)).unwrap_or_else(|| panic!("{path}"));
            assert_eq!((found.steps, found.sampler, found.cfg_scale), (steps, Some(sampler), cfg), "{path}");
        }
    }

    #[test]
    fn other_loras_are_not_taken_for_them() {
        for path in [
            "lightning_bolts.safetensors",
            "add_detail.safetensors",
            "falcmania.safetensors",
            "turbocharged.safetensors",
        ] {
            assert_eq!(FewSteps::of_lora(Path::new(path)), None, "{path}");
        }
    }
}
