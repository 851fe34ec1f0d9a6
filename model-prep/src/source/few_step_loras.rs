//! LoRAs and models that paint in few steps (LCM-LoRA, Hyper-SD, SDXL-Lightning and their like) are told by their
//! names, since their tensors are those of any other. The settings are those of their model cards.

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
    lora(&["tcd"], SamplerKind::Tcd, None, 4),
    lora(&["dmd", "2"], SamplerKind::Lcm, None, 4),
];

/// Whole models that say so; what LoRAs are called, models that they were merged into are called, too.
const MODELS: [FewStepLora; 3] = [
    lora(&["sd", "xl", "turbo"], SamplerKind::EulerAncestral, Some(Spacing::Trailing), 1),
    lora(&["sd", "turbo"], SamplerKind::Euler, Some(Spacing::Trailing), 1),
    lora(&["lightning"], SamplerKind::Euler, Some(Spacing::Trailing), 4),
];

impl FewSteps {
    /// What the LoRA in the file `path` was made for, if its name is one of those.
    pub(super) fn of_lora(path: &Path) -> Option<FewSteps> {
        FewSteps::of_words(&words(&name(path)?), LORAS.iter())
    }

    /// What the model in the file `path` was made for, if its name says so.
    pub(super) fn of_model(path: &Path) -> Option<FewSteps> {
        FewSteps::of_words(&words(&name(path)?), MODELS.iter().chain(&LORAS))
    }

    fn of_words<'a>(words: &[String], mut known: impl Iterator<Item = &'a FewStepLora>) -> Option<FewSteps> {
        let FewStepLora { steps, sampler, spacing, .. } =
            known.find(|known| words.windows(known.words.len()).any(|found| found == known.words))?;
        let named = words.windows(2).find_map(|pair| match pair {
            [number, step] if step.starts_with("step") => number.parse().ok(),
            _ => None,
        });
        let steps = named.filter(|steps| (1..=32).contains(steps)).unwrap_or(*steps);
        // A single step of latent consistency is what the card's sampler (TCD) does in one.
        let sampler = if steps == 1 && *sampler == SamplerKind::Ddim { SamplerKind::Lcm } else { *sampler };
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
    fn names_of_models_are_known() {
        let (euler, lcm) = (SamplerKind::Euler, SamplerKind::Lcm);
        for (path, steps, sampler) in [
            ("sd_turbo.safetensors", 1, euler),
            ("sd_xl_turbo_1.0_fp16.safetensors", 1, SamplerKind::EulerAncestral),
            ("dreamshaper_8LCM.safetensors", 4, lcm),
            ("realvisXL-v4.0-lightning.safetensors", 4, euler),
            ("sdxl_lightning_8step.safetensors", 8, euler),
        ] {
            let found = FewSteps::of_model(Path::new(path)).unwrap_or_else(|| panic!("{path}"));
            assert_eq!((found.steps, found.sampler), (steps, Some(sampler)), "{path}");
        }
        for path in ["v1-5-pruned-emaonly.safetensors", "realisticVisionV60B1_v51VAE.safetensors", "turbo.ckpt"] {
            assert_eq!(FewSteps::of_model(Path::new(path)), None, "{path}");
        }
    }

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
            ("TCD-SD15-LoRA/pytorch_lora_weights.safetensors", 4, SamplerKind::Tcd, None),
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
