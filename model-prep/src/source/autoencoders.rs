//! A model's autoencoders: the one that it was trained with, a tiny one, or both; its own, or given with `--vae`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use super::Configs;
use super::keys::Keys;
use super::single_file::{vae_levels, vae_name};
use super::tiny_vae_config::TinyVaeConfig;
use super::vae_config::VaeConfig;
use crate::error::{Error, Result};
use crate::tensors::{Checkpoint, TensorFile};

/// The networks of a bundle that each class of autoencoder becomes.
const FULL: [&str; 2] = ["vae_decoder", "vae_encoder"];
const TINY: [&str; 2] = ["tiny_decoder", "tiny_encoder"];

/// The configurations of a model's autoencoders.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct VaeConfigs {
    /// The one that the model was trained with.
    pub(crate) full: Option<VaeConfig>,
    /// A tiny one.
    pub(crate) tiny: Option<TinyVaeConfig>,
}

/// Their tensors, each part with the networks of the bundle that are made of it.
#[derive(Default)]
pub(crate) struct Autoencoders(Vec<(Checkpoint, Vec<&'static str>)>);

impl VaeConfigs {
    /// Reads `config.json` of an autoencoder of either class.
    pub(crate) fn open(keys: Keys, warnings: &mut Vec<String>) -> Result<VaeConfigs> {
        match keys.is("_class_name", &json!("AutoencoderTiny")) {
            true => Ok(VaeConfigs { tiny: Some(TinyVaeConfig::open(keys, warnings)?), full: None }),
            false => Ok(VaeConfigs { full: Some(VaeConfig::open(keys, warnings)?), tiny: None }),
        }
    }

    /// Pixels per latent along an axis.
    pub(crate) fn factor(&self) -> usize {
        let tiny = || self.tiny.as_ref().map_or(1, |tiny| 1 << (tiny.levels() - 1));
        self.full.as_ref().map_or_else(tiny, VaeConfig::factor)
    }

    /// Channels of the latents.
    pub(crate) fn latent_channels(&self) -> usize {
        let tiny = || self.tiny.as_ref().map_or(0, |tiny| tiny.latent_channels);
        self.full.as_ref().map_or_else(tiny, |full| full.latent_channels)
    }

    /// The UNet's latents are these times the latents of the autoencoder that the model was trained with.
    pub(crate) fn latent_scale(&self) -> f64 {
        self.full.as_ref().map_or(1.0, |full| full.scaling_factor)
    }

    /// The same for the tiny one.
    pub(crate) fn tiny_latent_scale(&self) -> Option<f64> {
        self.tiny.as_ref().map(|tiny| tiny.scaling_factor)
    }

    /// As SDXL's, whose activations may be large.
    pub(super) fn with_large_activations(self) -> VaeConfigs {
        VaeConfigs { full: self.full.map(VaeConfig::with_large_activations), ..self }
    }

    /// Puts `other`, of the autoencoder at `path`, in the place of one of the same class or beside one of the other.
    fn put(&mut self, path: &Path, other: VaeConfigs) -> Result<()> {
        let (factor, wanted) = (other.factor(), self.factor());
        if *self != VaeConfigs::default() && factor != wanted {
            let message = format!("is an autoencoder of {factor} pixels per latent; that of the model has {wanted}");
            return Err(Error::file(path, message));
        }
        self.full = other.full.or(self.full.take());
        self.tiny = match (self.tiny.take(), other.tiny) {
            (Some(own), Some(other)) => Some(own.with(other)),
            (own, other) => other.or(own),
        };
        Ok(())
    }
}

impl Autoencoders {
    /// The tensors in the diffusers `folder` of an autoencoder with these configurations.
    pub(crate) fn open_folder(folder: &Path, configs: &VaeConfigs) -> Result<Autoencoders> {
        let tensors = Checkpoint::open_folder(folder, "diffusion_pytorch_model")?;
        match configs.tiny {
            Some(_) => Ok(Autoencoders::tiny(tensors)),
            None => Autoencoders::full(tensors),
        }
    }

    /// The one that a model was trained with, under any names that people's files have.
    pub(crate) fn full(mut tensors: Checkpoint) -> Result<Autoencoders> {
        tensors.rename(|name| Some(full_name(name)))?;
        Ok(Autoencoders(vec![(tensors, FULL.to_vec())]))
    }

    fn tiny(tensors: Checkpoint) -> Autoencoders {
        let halves = TINY.into_iter().zip(["decoder.", "encoder."]);
        let there = halves.filter(|(_, prefix)| tensors.names().any(|name| name.starts_with(prefix)));
        let networks = there.map(|(network, _)| network).collect();
        Autoencoders(vec![(tensors, networks)])
    }

    /// Puts the autoencoder at `path` in the place of one of the same class or beside one of the other: a diffusers
    /// folder, or the weights alone, whose configuration their shapes tell.
    pub(crate) fn put(&mut self, path: &Path, configs: &mut Configs, warnings: &mut Vec<String>) -> Result<()> {
        let (own, xl) = (configs.vae.full.clone(), configs.text_2.is_some());
        let scale = own.as_ref().map_or(VaeConfig::published_scale(xl), |own| own.scaling_factor);
        let model = ModelTraits { own: own.as_ref(), scale, xl };
        for (mut found, Autoencoders(parts)) in open(path, model, warnings)? {
            if xl {
                found = found.with_large_activations();
            }
            if let Some(other) = found.full.as_ref().filter(|full| full.scaling_factor != scale) {
                let (path, other) = (path.display(), other.scaling_factor);
                warnings.push(format!(
                    "{path}: its scaling_factor is {other} and the model's {scale}: it was made for another family"
                ));
            }
            if found.latent_channels() != configs.unet.latent_channels {
                let (channels, wanted) = (found.latent_channels(), configs.unet.latent_channels);
                let message = format!("is an autoencoder of {channels} latent channels; the UNet has {wanted}");
                return Err(Error::file(path, message));
            }
            configs.vae.put(path, found)?;
            for (_, networks) in &mut self.0 {
                networks.retain(|network| !parts.iter().any(|(_, others)| others.contains(network)));
            }
            self.0.extend(parts);
        }
        self.0.retain(|(_, networks)| !networks.is_empty());
        if configs.vae.tiny.as_ref().is_some_and(|tiny| tiny.decoder.is_none()) {
            let message =
                "holds the encoder of a tiny autoencoder without its decoder; give the folder that holds both";
            return Err(Error::file(path, message));
        }
        Ok(())
    }

    /// The tensors, each part with the networks of the bundle that are made of it.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (&Checkpoint, &[&'static str])> {
        self.0.iter().map(|(tensors, networks)| (tensors, &networks[..]))
    }
}

/// What of a model tells how to read an autoencoder that is given to it.
#[derive(Clone, Copy)]
struct ModelTraits<'a> {
    /// The autoencoder that it was trained with, if it has one.
    own: Option<&'a VaeConfig>,
    /// Its scaling factor.
    scale: f64,
    /// It is of the Stable Diffusion XL kind.
    xl: bool,
}

/// An autoencoder that stands alone, in one part or two halves. What weights alone do not tell is as in the `model`'s
/// own.
fn open(path: &Path, model: ModelTraits, warnings: &mut Vec<String>) -> Result<Vec<(VaeConfigs, Autoencoders)>> {
    for folder in [path.to_owned(), path.join("vae")] {
        let config = folder.join("config.json");
        if config.is_file() {
            let configs = VaeConfigs::open(Keys::open(&config)?, warnings)?;
            let tensors = Autoencoders::open_folder(&folder, &configs)?;
            return Ok(vec![(configs, tensors)]);
        }
    }
    let files = if path.is_dir() { halves(path, model.xl)? } else { vec![path.to_owned()] };
    files.iter().map(|file| open_file(file, model)).collect()
}

/// The files of a folder that hold the halves of a tiny autoencoder, as `taesd_decoder.safetensors`. TAESD's own
/// repository has them for every family, of which those for the model's are taken.
fn halves(folder: &Path, xl: bool) -> Result<Vec<PathBuf>> {
    let is_half = |path: &PathBuf| {
        let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let weights = path.extension().is_some_and(|ending| ending == "safetensors" || ending == "pth");
        weights && (name.ends_with("decoder") || name.ends_with("encoder"))
    };
    let entries = fs::read_dir(folder).map_err(Error::io(folder))?;
    let paths = entries.map(|entry| Ok(entry.map_err(Error::io(folder))?.path())).collect::<Result<Vec<_>>>()?;
    let mut found: Vec<PathBuf> = paths.into_iter().filter(is_half).collect();
    found.sort();
    // The same half in two containers is the same half.
    found.dedup_by(|second, first| second.file_stem() == first.file_stem());
    let names: BTreeSet<String> = found.iter().map(|path| half_name(path)).collect();
    let wanted = if xl { "taesdxl" } else { "taesd" };
    match names.len() {
        0 => Err(Error::file(folder, "holds neither config.json nor taesd_decoder.safetensors: not an autoencoder")),
        1 => Ok(found),
        _ if names.contains(wanted) => Ok(found.into_iter().filter(|path| half_name(path) == wanted).collect()),
        _ => {
            let names = names.into_iter().collect::<Vec<_>>().join(", ");
            Err(Error::file(folder, format!("holds several autoencoders ({names}); give a folder with one of them")))
        }
    }
}

/// What the file of a half is called beside `decoder` or `encoder`.
fn half_name(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    let name = ["decoder", "encoder"].into_iter().find_map(|half| stem.strip_suffix(half)).unwrap_or(&stem);
    name.trim_end_matches(['_', '-', '.']).to_owned()
}

/// The weights of an autoencoder, or of a half of one, in a file.
fn open_file(path: &Path, model: ModelTraits) -> Result<(VaeConfigs, Autoencoders)> {
    let file = TensorFile::open(path)?;
    let has = |name: &str| file.tensors.contains_key(name);
    let is_tiny = has("decoder.layers.0.weight") || has("encoder.layers.0.weight");
    // TAESD's own files hold a half each: the encoder's layers count from its first convolution, the decoder's from the
    // clamp before it.
    let (prefix, clamp) = match (has("0.weight"), has("1.weight")) {
        (true, _) => ("encoder", 0),
        (_, true) => ("decoder", 1),
        _ => ("", 0),
    };
    if !is_tiny && prefix.is_empty() {
        let names = |name: &str| name.strip_prefix("first_stage_model.").unwrap_or(name).to_owned();
        let levels = vae_levels(file.tensors.keys().map(String::as_str));
        let newer = |name: &str| {
            let name = names(name);
            (!name.starts_with("loss.") && !name.starts_with("model_ema")).then(|| vae_name(&name, levels))
        };
        let tensors = Autoencoders::full(Checkpoint::from_files(path, vec![Arc::new(file)], newer)?)?;
        let ModelTraits { own, scale, .. } = model;
        let config = tensors.0.first().map(|(tensors, _)| VaeConfig::of_tensors(path, tensors, own, scale));
        let config = config.transpose()?;
        return Ok((VaeConfigs { full: config, tiny: None }, tensors));
    }
    let renamed =
        |name: &str| match name.split_once('.').and_then(|(layer, rest)| Some((layer.parse::<usize>().ok()?, rest))) {
            Some((layer, rest)) => Some(format!("{prefix}.layers.{}.{rest}", layer.checked_sub(clamp)?)),
            None => Some(name.to_owned()),
        };
    let tensors = Checkpoint::from_files(path, vec![Arc::new(file)], renamed)?;
    let config = TinyVaeConfig::of_tensors(path, &tensors)?;
    Ok((VaeConfigs { tiny: Some(config), full: None }, Autoencoders::tiny(tensors)))
}

/// A full autoencoder's tensors as newer diffusers name them.
fn full_name(name: &str) -> String {
    if !name.contains("mid_block.attentions.0.") {
        return name.to_owned();
    }
    let renamed = [(".query.", ".to_q."), (".key.", ".to_k."), (".value.", ".to_v."), (".proj_attn.", ".to_out.0.")];
    renamed.iter().fold(name.to_owned(), |name, (old, new)| name.replace(old, new))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_names_are_understood() {
        let old = "decoder.mid_block.attentions.0.proj_attn.bias";
        assert_eq!(full_name(old), "decoder.mid_block.attentions.0.to_out.0.bias");
        let old = "encoder.mid_block.attentions.0.key.weight";
        assert_eq!(full_name(old), "encoder.mid_block.attentions.0.to_k.weight");
        assert_eq!(full_name("decoder.conv_in.weight"), "decoder.conv_in.weight");
    }
}
