//! A diffusers folder, opened and checked: configurations, tokenizer, and the tensors of the three networks.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::unwrap_used))]

mod added_tokens;
mod clip_vocabulary;
mod keys;
mod locate;
mod model_index;
mod recognise;
mod sampling_config;
mod scheduler_class;
mod single_file;
mod text_config;
mod tokenizer;
mod unet_config;
mod vae_config;
mod words;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use diffused_engine::bundle::Family;
use diffused_engine::hash::Sha256;
use diffused_engine::layer::Activation;
use diffused_engine::sampler;
use serde_json::json;

pub(crate) use keys::ConfigFiles;
use locate::Located;
use model_index::ModelIndex;
use sampling_config::SamplingContext;
use single_file::SingleFile;
pub(crate) use text_config::TextConfig;
pub(crate) use tokenizer::{TokenizerFiles, TokenizerUse};
pub(crate) use unet_config::{Middle, UnetBlock, UnetConfig};
pub(crate) use vae_config::VaeConfig;

use crate::error::Result;
use crate::options::SourceOptions;
use crate::tensors::Checkpoint;

/// The three configurations.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Configs {
    pub(crate) text: TextConfig,
    pub(crate) unet: UnetConfig,
    pub(crate) vae: VaeConfig,
}

/// A model as people have it.
pub(crate) struct ModelSource {
    /// The folder or file.
    pub(crate) path: PathBuf,
    /// Its name.
    pub(crate) name: String,
    /// What it is, in one line.
    pub(crate) recognised: String,
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
    pub(crate) fn open(files: &ConfigFiles, warnings: &mut Vec<String>) -> Result<Configs> {
        let text = TextConfig::open(files.keys("text_encoder/config.json")?, warnings)?;
        let vae = VaeConfig::open(files.keys("vae/config.json")?, warnings)?;
        let unet = UnetConfig::open(files.keys("unet/config.json")?, warnings)?;
        let keys = files.keys("unet/config.json")?;
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

    /// The family: Stable Diffusion 2 took its text encoder from OpenCLIP, which has the exact GELU.
    pub(crate) fn family(&self) -> Family {
        if self.text.activation == Activation::Gelu { Family::Sd2 } else { Family::Sd1 }
    }
}

/// The tensors of a model's networks.
struct Weights {
    text_encoder: Checkpoint,
    unet: Checkpoint,
    vae: Checkpoint,
}

impl Weights {
    /// Of a diffusers folder.
    fn of_folder(path: &Path) -> Result<Weights> {
        let mut text_encoder = Checkpoint::open_folder(&path.join("text_encoder"), "model")?;
        text_encoder.rename(text_name)?;
        let unet = Checkpoint::open_folder(&path.join("unet"), "diffusion_pytorch_model")?;
        let mut vae = Checkpoint::open_folder(&path.join("vae"), "diffusion_pytorch_model")?;
        vae.rename(|name| Some(vae_name(name)))?;
        Ok(Weights { text_encoder, unet, vae })
    }
}

impl ModelSource {
    /// Opens the model at `path`.
    pub(crate) fn open(path: &Path, options: &SourceOptions) -> Result<ModelSource> {
        let mut warnings = Vec::new();
        let Located { path, single, name } = locate::locate(path)?;
        let (files, form, tokenizer, weights) = if single {
            let SingleFile { files, form, tokenizer, weights } = single_file::open(&path, options, &mut warnings)?;
            (files, form, tokenizer, Some(weights))
        } else {
            let tokenizer = Some(path.join("tokenizer")).filter(|folder| folder.exists());
            (ConfigFiles::folder(&path), "diffusers folder", tokenizer, None)
        };
        let index = ModelIndex::open(files.keys("model_index.json")?, &mut warnings)?;
        let mut configs = Configs::open(&files, &mut warnings)?;
        configs.text.skip(options.clip_skip)?;
        let tokenizer = open_tokenizer(tokenizer.as_deref(), &path, &configs, options)?;
        let guidance_embedding = configs.unet.guidance_channels.is_some();
        let context = SamplingContext { index: &index, guidance_embedding, options };
        let sampling = sampling_config::open(&files, context, &mut warnings)?;
        warnings.extend(tokenizer.warnings.iter().cloned());
        let Weights { text_encoder, unet, vae } = weights.map_or_else(|| Weights::of_folder(&path), Ok)?;
        for note in [&text_encoder, &unet, &vae].into_iter().flat_map(Checkpoint::notes) {
            if !warnings.contains(&note) {
                warnings.push(note);
            }
        }
        let words = words::open(&path.join("words.txt"))?;
        let examples = words::examples(&path.join("examples.txt"), words.as_deref())?;
        let recognised = recognise::line(&configs, &sampling, form, &unet);
        Ok(ModelSource {
            path,
            name,
            recognised,
            configs,
            tokenizer,
            sampling,
            words,
            examples,
            warnings,
            text_encoder,
            unet,
            vae,
        })
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

    /// SHA-256 over the weight files, each once, hexadecimal.
    pub(crate) fn sha256(&self) -> Result<String> {
        let (mut hash, mut hashed) = (Sha256::default(), BTreeSet::new());
        for file in self.parts().iter().flat_map(|(checkpoint, _)| checkpoint.files()) {
            if hashed.insert(&file.path) {
                file.hash(&mut hash)?;
            }
        }
        Ok(hash.finish())
    }
}

/// The tokenizer that the user gives, the model's `own`, or CLIP's. In the model's own, transformers pads with the end token
/// unless the files say otherwise.
fn open_tokenizer(
    own: Option<&Path>,
    model: &Path,
    configs: &Configs,
    options: &SourceOptions,
) -> Result<TokenizerFiles> {
    let usage = |family| TokenizerUse::of(family, configs.text.vocabulary, configs.text.positions);
    match (&options.tokenizer, own) {
        (Some(given), _) => TokenizerFiles::given(given, usage(configs.family())),
        (None, Some(own)) => TokenizerFiles::open(own, usage(Family::Sd1)),
        (None, None) => TokenizerFiles::carried(model, usage(configs.family())),
    }
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

    use serde_json::Value;

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
            let mut warnings = Vec::new();
            let files = ConfigFiles::folder(folder.path());
            let index = ModelIndex::open(files.keys("model_index.json").unwrap(), &mut warnings).unwrap();
            let configs = Configs::open(&files, &mut warnings).unwrap();
            let guidance_embedding = configs.unet.guidance_channels.is_some();
            let options = SourceOptions::default();
            let context = SamplingContext { index: &index, guidance_embedding, options: &options };
            let sampling = sampling_config::open(&files, context, &mut warnings).unwrap();
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
