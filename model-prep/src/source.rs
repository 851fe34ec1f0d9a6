//! A model as people have it, opened and checked: configurations, tokenizer, and the tensors of the networks.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::unwrap_used))]

mod added_tokens;
mod autoencoders;
mod clip_vocabulary;
mod few_step_loras;
mod keys;
mod locate;
mod model_index;
mod recognise;
mod sampling_config;
mod scheduler_class;
mod scheduler_options;
mod second_text;
mod single_file;
#[cfg(test)]
mod tests;
mod text_config;
mod tiny_vae_config;
mod tokenizer;
mod unet_config;
mod upscaler;
mod vae_config;
mod words;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use diffused_engine::bundle::{Family, SecondText};
use diffused_engine::hash::Sha256;
use diffused_engine::layer::Activation;
use diffused_engine::sampler;
use serde_json::json;

use autoencoders::Autoencoders;
pub(crate) use autoencoders::VaeConfigs;
pub(crate) use keys::ConfigFiles;
use keys::Keys;
use locate::Located;
use model_index::ModelIndex;
use sampling_config::SamplingContext;
use single_file::SingleFile;
pub(crate) use text_config::TextConfig;
pub(crate) use tiny_vae_config::{TinyHalf, TinyVaeConfig};
pub(crate) use tokenizer::{TokenizerFiles, TokenizerUse};
pub(crate) use unet_config::{AddedEmbedding, Middle, UnetBlock, UnetConfig};
pub(crate) use upscaler::UpscalerConfig;
pub(crate) use vae_config::VaeConfig;

use crate::adapters::{self, NamedNetwork};
use crate::error::{Error, Result};
use crate::options::SourceOptions;
use crate::tensors::{Checkpoint, TensorFile};

/// Where a diffusers folder has the configuration of its autoencoder.
const VAE: &str = "vae/config.json";

/// The networks' configurations.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Configs {
    pub(crate) text: TextConfig,
    /// SDXL's second text encoder.
    pub(crate) text_2: Option<TextConfig>,
    pub(crate) unet: UnetConfig,
    pub(crate) vae: VaeConfigs,
    /// The upscaler, if one was given.
    pub(crate) upscaler: Option<UpscalerConfig>,
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
    /// SDXL's second text encoder.
    pub(crate) second: Option<SecondText>,
    pub(crate) sampling: sampler::SamplingConfig,
    /// The words that the model was trained with (`words.txt`), sorted; `None`: any.
    pub(crate) words: Option<Vec<String>>,
    /// Prompts that show what the model can paint (`examples.txt`).
    pub(crate) examples: Vec<String>,
    /// What the user should know of.
    pub(crate) warnings: Vec<String>,
    pub(crate) text_encoder: Checkpoint,
    pub(crate) text_encoder_2: Option<Checkpoint>,
    pub(crate) unet: Checkpoint,
    pub(crate) vae: Autoencoders,
    pub(crate) upscaler: Option<Checkpoint>,
    /// Files that were merged into the networks.
    adapters: Vec<Arc<TensorFile>>,
}

impl Configs {
    /// The layer of the embeddings, counted from the end, where that is not the usual one.
    pub(crate) fn clip_skip(&self) -> Option<usize> {
        let usual = usize::from(self.text_2.is_some());
        (self.text.skip > usual).then_some(self.text.skip + 1)
    }

    /// Reads `config.json` of `text_encoder`, of `text_encoder_2` if there is one, of `unet` and of `vae`, and checks
    /// that they fit together.
    pub(crate) fn open(files: &ConfigFiles, warnings: &mut Vec<String>) -> Result<Configs> {
        let text = TextConfig::open(files.keys("text_encoder/config.json")?, warnings)?;
        let second = "text_encoder_2/config.json";
        let text_2 = if files.has(second) { Some(TextConfig::open(files.keys(second)?, warnings)?) } else { None };
        let vae = match files.has(VAE) {
            true => VaeConfigs::open(files.keys(VAE)?, warnings)?,
            false => VaeConfigs::default(),
        };
        let unet = UnetConfig::open(files.keys("unet/config.json")?, warnings)?;
        let keys = files.keys("unet/config.json")?;
        if vae != VaeConfigs::default() && unet.latent_channels != vae.latent_channels() {
            let expected = format!("{}, as latent_channels of {VAE}", vae.latent_channels());
            return Err(keys.refuse("in_channels", &json!(unet.latent_channels), &expected));
        }
        let configs = Configs::new(text, text_2, unet, vae);
        let channels = configs.text_channels();
        if let Some(block) = configs.unet.blocks.iter().find(|block| block.text_channels != channels) {
            let of =
                if configs.text_2.is_some() { "the sum of both text encoders' hidden_size" } else { "hidden_size" };
            let expected = format!("{channels}, as {of} of text_encoder/config.json");
            return Err(keys.refuse("cross_attention_dim", &json!(block.text_channels), &expected));
        }
        configs.check_pooled(&keys)?;
        Ok(configs)
    }

    /// Of one text encoder, or of SDXL's two.
    fn new(text: TextConfig, text_2: Option<TextConfig>, unet: UnetConfig, vae: VaeConfigs) -> Configs {
        match text_2 {
            None => Configs { text, text_2: None, unet, vae, upscaler: None },
            Some(second) => {
                let (text, text_2) = (text.first_of_two(), Some(second.second_of_two()));
                Configs { text, text_2, unet, vae: vae.with_large_activations(), upscaler: None }
            }
        }
    }

    /// The UNet takes the pooled embedding that the second text encoder makes, or none where there is no such encoder.
    fn check_pooled(&self, keys: &Keys) -> Result<()> {
        let width = |pooled: Option<usize>| pooled.map_or("none".to_owned(), |width| width.to_string());
        let taken = self.unet.added.map(|added| added.pooled);
        let made = self.text_2.as_ref().and_then(|second| second.projection);
        if taken == made {
            return Ok(());
        }
        let value = json!(if taken.is_some() { Some("text_time") } else { None });
        let expected = format!(
            "a pooled embedding of {}, as projection_dim of text_encoder_2 has it (here the UNet's is {})",
            width(made),
            width(taken)
        );
        Err(keys.refuse("addition_embed_type", &value, &expected))
    }

    /// Width of the embeddings.
    pub(crate) fn text_channels(&self) -> usize {
        self.text.channels + self.text_2.as_ref().map_or(0, |second| second.channels)
    }

    /// The family: Stable Diffusion 2 took its text encoder from OpenCLIP, which has the exact GELU.
    pub(crate) fn family(&self) -> Family {
        match (&self.text_2, self.text.activation) {
            (Some(_), _) => Family::Sdxl,
            (None, Activation::Gelu) => Family::Sd2,
            (None, _) => Family::Sd1,
        }
    }
}

/// The tensors of a model's networks.
struct ModelTensors {
    text_encoder: Checkpoint,
    text_encoder_2: Option<Checkpoint>,
    unet: Checkpoint,
    vae: Autoencoders,
}

impl ModelTensors {
    /// Of a diffusers folder, which may have a second text encoder.
    fn of_folder(path: &Path, second: bool, vae: &VaeConfigs) -> Result<ModelTensors> {
        let text_encoder = |folder: &str| {
            let mut checkpoint = Checkpoint::open_folder(&path.join(folder), "model")?;
            checkpoint.rename(text_name)?;
            Ok::<_, Error>(checkpoint)
        };
        let text_encoder_2 = if second { Some(text_encoder("text_encoder_2")?) } else { None };
        let text_encoder = text_encoder("text_encoder")?;
        let mut unet = Checkpoint::open_folder(&path.join("unet"), "diffusion_pytorch_model")?;
        unet.rename(|name| Some(unwrapped(name).to_owned()))?;
        let vae = Autoencoders::open_folder(&path.join("vae"), vae)?;
        Ok(ModelTensors { text_encoder, text_encoder_2, unet, vae })
    }

    /// The networks that adapters are for.
    fn adapted(&mut self) -> Vec<NamedNetwork<'_>> {
        let mut networks = vec![("text_encoder", &mut self.text_encoder), ("unet", &mut self.unet)];
        networks.extend(self.text_encoder_2.iter_mut().map(|second| ("text_encoder_2", second)));
        networks
    }

    /// Without what the text encoders have and a model of this kind never needs.
    fn needed(mut self, configs: &Configs) -> Result<ModelTensors> {
        let texts = std::iter::once(&mut self.text_encoder).chain(&mut self.text_encoder_2);
        for (checkpoint, config) in texts.zip(std::iter::once(&configs.text).chain(&configs.text_2)) {
            checkpoint.rename(|name| config.needs(name).then(|| name.to_owned()))?;
        }
        Ok(self)
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
            if options.config.is_some() {
                warnings.push("--config is for single files; the folder's own configurations are taken".into());
            }
            let tokenizer = Some(path.join("tokenizer")).filter(|folder| folder.exists());
            (ConfigFiles::folder(&path), "diffusers folder", tokenizer, None)
        };
        let index = ModelIndex::open(files.keys("model_index.json")?, &mut warnings)?;
        let mut configs = Configs::open(&files, &mut warnings)?;
        let second = configs.text_2.is_some();
        if index.second_encoder && !second {
            return Err(Error::file(&files.path("text_encoder_2/config.json"), "there is no such file"));
        }
        for text in std::iter::once(&mut configs.text).chain(&mut configs.text_2) {
            text.clip_skip(options.clip_skip)?;
        }
        let own = tokenizer.as_deref().map(|first| first.with_file_name("tokenizer_2")).filter(|own| own.exists());
        let mut tokenizer = open_tokenizer(tokenizer.as_deref(), &path, &configs, options)?;
        let text_2 = second_text::open(&configs, &tokenizer, own.as_deref(), options, index.zeros_without_prompt)?;
        let guidance_embedding = configs.unet.guidance_channels.is_some();
        let context = SamplingContext { index: &index, guidance_embedding, options };
        let mut sampling = sampling_config::open(&files, context, &mut warnings)?;
        warnings.extend(tokenizer.warnings.iter().cloned());
        let mut weights = weights.map_or_else(|| ModelTensors::of_folder(&path, second, &configs.vae), Ok)?;
        let adapters = adapt(options, &mut weights.adapted(), &mut configs, &mut tokenizer, &mut warnings)?;
        if single && options.config.is_none() {
            sampling_config::follow_name(&mut sampling, &path, options, &mut warnings);
        }
        sampling_config::follow_loras(&mut sampling, options, &mut warnings);
        let ModelTensors { text_encoder, text_encoder_2, unet, mut vae } = weights.needed(&configs)?;
        if let Some(other) = &options.vae {
            vae.put(other, &mut configs, &mut warnings)?;
        }
        if configs.vae == VaeConfigs::default() {
            return Err(files.keys(VAE).err().unwrap_or_else(|| Error::file(&path, "holds no autoencoder")));
        }
        let parts = [Some(&text_encoder), text_encoder_2.as_ref(), Some(&unet)].into_iter().flatten();
        let parts = parts.chain(vae.parts().map(|(tensors, _)| tensors));
        for note in parts.flat_map(Checkpoint::notes).collect::<Vec<String>>() {
            if !warnings.contains(&note) {
                warnings.push(note);
            }
        }
        let (config, upscaler) = options.upscaler.as_deref().map(upscaler::open).transpose()?.unzip();
        configs.upscaler = config;
        let words = words::open(&path.join("words.txt"))?;
        let examples = words::examples(&path.join("examples.txt"), words.as_deref())?;
        let recognised = recognise::line(&configs, &sampling, form, &unet)
            + &recognise::additions(&options.lora, &adapters::added_words(&tokenizer.added));
        Ok(ModelSource {
            path,
            name,
            recognised,
            configs,
            tokenizer,
            second: text_2,
            sampling,
            words,
            examples,
            warnings,
            text_encoder,
            text_encoder_2,
            unet,
            vae,
            upscaler,
            adapters,
        })
    }

    /// The source's tensors, each part with the networks of the bundle that are made of it.
    pub(crate) fn parts(&self) -> Vec<(&Checkpoint, &[&'static str])> {
        let mut parts: Vec<(&Checkpoint, &[&'static str])> = vec![(&self.text_encoder, &["text_encoder"])];
        parts.extend(self.text_encoder_2.iter().map(|second| (second, &["text_encoder_2"][..])));
        parts.push((&self.unet, &["unet"]));
        parts.extend(self.vae.parts());
        parts.extend(self.upscaler.iter().map(|upscaler| (upscaler, &["upscaler"][..])));
        parts
    }

    /// The tensors of one of the bundle's networks.
    pub(crate) fn checkpoint(&self, network: &str) -> &Checkpoint {
        let part = self.parts().into_iter().find(|(_, networks)| networks.contains(&network));
        part.expect("each network that is built has a part of the source").0
    }

    /// SHA-256 over the weight files and what was merged into them, each once, hexadecimal.
    pub(crate) fn sha256(&self) -> Result<String> {
        let (mut hash, mut hashed) = (Sha256::default(), BTreeSet::new());
        let parts = self.parts();
        for file in parts.iter().flat_map(|(checkpoint, _)| checkpoint.files()).chain(&self.adapters) {
            if hashed.insert(&file.path) {
                file.hash(&mut hash)?;
            }
        }
        Ok(hash.finish())
    }
}

/// The tokenizer that the user gives, the model's `own`, or CLIP's. In the model's own, transformers pads with the end
/// token unless the files say otherwise.
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

/// Adds what the user gives beside the model: textual inversions and LoRAs; their files.
fn adapt(
    options: &SourceOptions,
    networks: &mut [NamedNetwork],
    configs: &mut Configs,
    tokenizer: &mut TokenizerFiles,
    warnings: &mut Vec<String>,
) -> Result<Vec<Arc<TensorFile>>> {
    adapters::refuse_unfused(networks)?;
    let vocabulary = tokenizer.ids()?;
    let folded = |text: &str| text.to_lowercase();
    let taken = |text: &str| {
        let mut added = tokenizer.added.iter().map(|token| folded(&token.text));
        vocabulary.contains_key(&folded(text)) || added.any(|token| token == folded(text))
    };
    let (added, mut files) = adapters::add_embeddings(options, networks, configs.text.vocabulary, &taken)?;
    for text in std::iter::once(&mut configs.text).chain(&mut configs.text_2) {
        text.vocabulary += added.len();
    }
    tokenizer.added.extend(added);
    files.extend(adapters::merge_loras(options, networks, warnings)?);
    Ok(files)
}

/// A name without what torch's compiler or its parallel trainer put before it.
fn unwrapped(name: &str) -> &str {
    let inner = name.strip_prefix("module.").unwrap_or(name);
    inner.strip_prefix("_orig_mod.").unwrap_or(inner)
}

/// A text encoder's tensors without the prefix that older transformers give them.
fn text_name(name: &str) -> Option<String> {
    let name = name.strip_prefix("text_model.").unwrap_or(name);
    (name != "embeddings.position_ids").then(|| name.to_owned())
}
