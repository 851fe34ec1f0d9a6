//! A diffusers folder, opened and checked: configurations, tokenizer, and the tensors of the three networks.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::unwrap_used))]

mod added_tokens;
mod keys;
mod sampling_config;
mod text_config;
mod tokenizer;
mod unet_config;
mod vae_config;
mod words;

use std::path::{Path, PathBuf};

use diffused_engine::hash::Sha256;
use diffused_engine::sampler;
use serde_json::{Value, json};

use keys::Keys;
pub(crate) use text_config::TextConfig;
pub(crate) use tokenizer::TokenizerFiles;
pub(crate) use unet_config::{Middle, UnetBlock, UnetConfig};
pub(crate) use vae_config::VaeConfig;

use crate::error::{Error, Result};
use crate::options::SourceOptions;
use crate::tensors::Checkpoint;

/// The three configurations.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Configs {
    pub(crate) text: TextConfig,
    pub(crate) unet: UnetConfig,
    pub(crate) vae: VaeConfig,
}

/// A diffusers folder.
pub(crate) struct ModelFolder {
    pub(crate) path: PathBuf,
    pub(crate) configs: Configs,
    pub(crate) tokenizer: TokenizerFiles,
    pub(crate) sampling: sampler::SamplingConfig,
    /// The words that the model was trained with (`words.txt`), sorted; `None`: any.
    pub(crate) words: Option<Vec<String>>,
    /// Prompts that show what the model can paint (`examples.txt`).
    pub(crate) examples: Vec<String>,
    /// What the user should know of.
    pub(crate) warnings: Vec<String>,
    pub(crate) text_encoder: Checkpoint,
    pub(crate) unet: Checkpoint,
    pub(crate) vae: Checkpoint,
}

impl Configs {
    /// Reads `text_encoder/config.json`, `unet/config.json` and `vae/config.json`, and checks that they fit together.
    pub(crate) fn open(folder: &Path) -> Result<Configs> {
        let text = TextConfig::open(&folder.join("text_encoder/config.json"))?;
        let vae = VaeConfig::open(&folder.join("vae/config.json"))?;
        let path = folder.join("unet/config.json");
        let unet = UnetConfig::open(&path)?;
        let keys = Keys::open(&path)?;
        if unet.latent_channels != vae.latent_channels {
            let expected = format!("{}, as latent_channels of vae/config.json", vae.latent_channels);
            return Err(keys.refuse("in_channels", &json!(unet.latent_channels), &expected));
        }
        if let Some(block) = unet.blocks.iter().find(|block| block.text_channels != text.channels) {
            let expected = format!("{}, as hidden_size of text_encoder/config.json", text.channels);
            return Err(keys.refuse("cross_attention_dim", &json!(block.text_channels), &expected));
        }
        Ok(Configs { text, unet, vae })
    }
}

impl ModelFolder {
    /// Opens the folder `path`.
    pub(crate) fn open(path: &Path, options: &SourceOptions) -> Result<ModelFolder> {
        check_model_index(&path.join("model_index.json"))?;
        let mut configs = Configs::open(path)?;
        configs.text.skip(options.clip_skip)?;
        let tokenizer = TokenizerFiles::open(&path.join("tokenizer"), configs.text.vocabulary, configs.text.positions)?;
        let guidance_embedding = configs.unet.guidance_channels.is_some();
        let scheduler = path.join("scheduler/scheduler_config.json");
        let (mut sampling, mut warnings) = sampling_config::open(&scheduler, guidance_embedding)?;
        sampling_config::overrule(&mut sampling, options);
        warnings.extend(tokenizer.warnings.iter().cloned());
        let words = words::open(&path.join("words.txt"))?;
        let examples = words::examples(&path.join("examples.txt"), words.as_deref())?;
        let mut text_encoder = Checkpoint::open_folder(&path.join("text_encoder"), "model")?;
        text_encoder.rename(text_name)?;
        let unet = Checkpoint::open_folder(&path.join("unet"), "diffusion_pytorch_model")?;
        let mut vae = Checkpoint::open_folder(&path.join("vae"), "diffusion_pytorch_model")?;
        vae.rename(|name| Some(vae_name(name)))?;
        let path = path.to_owned();
        Ok(ModelFolder { path, configs, tokenizer, sampling, words, examples, warnings, text_encoder, unet, vae })
    }

    /// The source's tensors, each part with the networks of the bundle that are made of it.
    pub(crate) fn parts(&self) -> Vec<(&Checkpoint, &'static [&'static str])> {
        vec![
            (&self.text_encoder, &["text_encoder"]),
            (&self.unet, &["unet"]),
            (&self.vae, &["vae_decoder", "vae_encoder"]),
        ]
    }

    /// The tensors of one of the bundle's networks.
    pub(crate) fn checkpoint(&self, network: &str) -> &Checkpoint {
        let part = self.parts().into_iter().find(|(_, networks)| networks.contains(&network));
        part.expect("each network that is built has a part of the source").0
    }

    /// SHA-256 over the weight files, hexadecimal.
    pub(crate) fn sha256(&self) -> Result<String> {
        let mut hash = Sha256::default();
        for (checkpoint, _) in self.parts() {
            checkpoint.hash(&mut hash)?;
        }
        Ok(hash.finish())
    }
}

/// Refuses pipelines of other parts. The safety checker and its like are not part of painting.
fn check_model_index(path: &Path) -> Result<()> {
    if !path.exists() {
        let message = "there is no such file, so this is not a folder in diffusers' layout (of a single .safetensors file \
                       diffusers makes one: StableDiffusionPipeline.from_single_file, save_pretrained)";
        return Err(Error::file(path, message));
    }
    let mut keys = Keys::open(path)?;
    for (part, library, class) in [
        ("text_encoder", "transformers", "CLIPTextModel"),
        ("unet", "diffusers", "UNet2DConditionModel"),
        ("vae", "diffusers", "AutoencoderKL"),
    ] {
        keys.only(part, &[json!([library, class])])?;
    }
    keys.only("tokenizer", &["CLIPTokenizer", "CLIPTokenizerFast"].map(|class| json!(["transformers", class])))?;
    keys.only("image_encoder", &[Value::Null, json!([null, null])])?;
    match keys.some("text_encoder_2") {
        Some(value) if value != json!([null, null]) => {
            let expected = "a model of one text encoder (Stable Diffusion 1 or 2; not XL)";
            return Err(keys.refuse("text_encoder_2", &value, expected));
        }
        _ => {}
    }
    keys.ignore(&[
        "_class_name",
        "_diffusers_version",
        "_name_or_path",
        "feature_extractor",
        "requires_safety_checker",
        "safety_checker",
        "scheduler",
    ]);
    keys.finish()
}

/// The text encoder's tensors without the prefix that older transformers give them, and without what is not needed.
fn text_name(name: &str) -> Option<String> {
    let name = name.strip_prefix("text_model.").unwrap_or(name);
    let needed = name != "embeddings.position_ids" && name != "text_projection.weight";
    needed.then(|| name.to_owned())
}

/// The autoencoder's tensors as newer diffusers name them.
fn vae_name(name: &str) -> String {
    if !name.contains("mid_block.attentions.0.") {
        return name.to_owned();
    }
    let renamed = [(".query.", ".to_q."), (".key.", ".to_k."), (".value.", ".to_v."), (".proj_attn.", ".to_out.0.")];
    renamed.iter().fold(name.to_owned(), |name, (old, new)| name.replace(old, new))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use diffused_engine::sampler::{Prediction, SamplerKind};

    use super::*;
    use crate::arch;
    use diffused_kernels::pack::Format;

    /// What a published model's configurations should come to.
    struct Known {
        name: &'static str,
        /// Values of the UNet, as published.
        unet: usize,
        sampler: SamplerKind,
        prediction: Prediction,
        picture: usize,
    }

    const fn known(
        name: &'static str,
        unet: usize,
        sampler: SamplerKind,
        prediction: Prediction,
        picture: usize,
    ) -> Known {
        Known { name, unet, sampler, prediction, picture }
    }

    const PUBLISHED: [Known; 8] = [
        known("Stable Diffusion 1.4", 859_520_964, SamplerKind::Pndm, Prediction::Epsilon, 512),
        known("Stable Diffusion 1.5", 859_520_964, SamplerKind::Pndm, Prediction::Epsilon, 512),
        known("Stable Diffusion 2.1 base", 865_910_724, SamplerKind::Pndm, Prediction::Epsilon, 512),
        known("Stable Diffusion 2.1", 865_910_724, SamplerKind::Ddim, Prediction::VPrediction, 768),
        known("LCM Dreamshaper v7", 859_602_884, SamplerKind::Lcm, Prediction::Epsilon, 768),
        known("BK-SDM-Small", 482_346_884, SamplerKind::Pndm, Prediction::Epsilon, 512),
        known("tiny-sd", 323_384_964, SamplerKind::Dpmpp2m, Prediction::Epsilon, 512),
        known(
            "a fine-tune saved by diffusers 0.42 with its moving average",
            859_520_964,
            SamplerKind::Euler,
            Prediction::Epsilon,
            512,
        ),
    ];

    /// The configurations of models that people have, every key of them, are understood.
    #[test]
    fn published_models_are_understood() {
        let published: BTreeMap<String, BTreeMap<String, Value>> =
            serde_json::from_str(include_str!("../tests/published.json")).unwrap();
        assert_eq!(published.len(), PUBLISHED.len());
        for Known { name, unet, sampler, prediction, picture } in PUBLISHED {
            let folder = tempfile::tempdir().unwrap();
            for (file, json) in &published[name] {
                let path = folder.path().join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, json.to_string()).unwrap();
            }
            check_model_index(&folder.path().join("model_index.json")).unwrap();
            let configs = Configs::open(folder.path()).unwrap();
            let guidance = configs.unet.guidance_channels.is_some();
            let scheduler = folder.path().join("scheduler/scheduler_config.json");
            let (sampling, warnings) = sampling_config::open(&scheduler, guidance).unwrap();
            assert_eq!((sampling.default, sampling.prediction), (sampler, prediction), "{name}");
            assert_eq!(warnings, Vec::<String>::new(), "{name}");
            assert_eq!(configs.unet.sample_size * configs.vae.factor(), picture, "{name}");
            let networks = arch::networks(&configs, Format::F32);
            let network = networks.iter().find(|network| network.name == "unet").unwrap();
            let shapes = network.parameters.iter().flat_map(|parameter| parameter.tensors());
            assert_eq!(shapes.map(|(_, shape)| shape.iter().product::<usize>()).sum::<usize>(), unet, "{name}");
        }
    }

    #[test]
    fn older_names_are_understood() {
        assert_eq!(
            vae_name("decoder.mid_block.attentions.0.proj_attn.bias"),
            "decoder.mid_block.attentions.0.to_out.0.bias"
        );
        assert_eq!(vae_name("encoder.mid_block.attentions.0.key.weight"), "encoder.mid_block.attentions.0.to_k.weight");
        assert_eq!(vae_name("decoder.conv_in.weight"), "decoder.conv_in.weight");
        assert_eq!(text_name("text_model.final_layer_norm.bias").as_deref(), Some("final_layer_norm.bias"));
        assert_eq!(text_name("text_model.embeddings.position_ids"), None);
    }
}
