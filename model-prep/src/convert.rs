//! From a diffusers folder to a bundle.
//!
//! The bundle is written into a folder beside its place and moved there when it is whole (`place`): a reader finds the
//! old bundle, the new one, or for a moment no bundle, and never a part of one. The same source gives the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use diffused_engine::bundle::{self, Manifest, ManifestFields, NewTensor, PictureSizes, SCHEMA, Text, write_weights};
use diffused_engine::parameters::{MAX_CFG_SCALE, MAX_STEPS};
use diffused_kernels::pack::Format;

use crate::arch;
use crate::error::{Error, Result};
use crate::files::sha256;
use crate::network::BuiltNetwork;
use crate::options::SourceOptions;
use crate::parameter::Parameter;
use crate::place::{OutputPlace, Partial};
use crate::smooth;
use crate::source::ModelSource;

/// What is converted, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// How matrices are stored; in int8 bundles, those that are small or delicate are in f16.
    pub weights: Format,
    /// The model's name; `None`: the source folder's.
    pub name: Option<String>,
    /// Default number of steps; `None`: 20, or 4 of a latent consistency model.
    pub steps: Option<usize>,
    /// Default guidance scale; `None`: diffusers' default.
    pub cfg_scale: Option<f64>,
    /// Replace a bundle that is already there; nothing else is ever replaced.
    pub force: bool,
    /// What the source is.
    pub source: SourceOptions,
}

impl Default for Options {
    fn default() -> Options {
        let source = SourceOptions::default();
        Options { weights: Format::Int8, name: None, steps: None, cfg_scale: None, force: false, source }
    }
}

impl Options {
    /// The daemon must be able to paint with the defaults.
    pub(crate) fn check(&self) -> Result<()> {
        let refuse = |option, value, allowed| Err(Error::Default { option, value, allowed });
        match (self.steps, self.cfg_scale) {
            (Some(steps), _) if !(1..=MAX_STEPS).contains(&steps) => {
                refuse("steps", steps.to_string(), format!("1 to {MAX_STEPS}"))
            }
            (_, Some(scale)) if !(0.0..=MAX_CFG_SCALE).contains(&scale) => {
                refuse("cfg_scale", scale.to_string(), format!("0 to {MAX_CFG_SCALE}"))
            }
            _ => Ok(()),
        }
    }
}

/// How far a conversion is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The network that is being written.
    pub network: &'static str,
    /// Bytes written.
    pub done: u64,
    /// Bytes of all weights.
    pub total: u64,
}

/// A bundle that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversion {
    /// What the source is, in one line.
    pub recognised: String,
    /// What the user should know of: what was not taken over, guessed or left out.
    pub warnings: Vec<String>,
}

/// Writes the bundle of `source` to `out`.
pub fn convert(source: &Path, out: &Path, options: &Options, progress: &mut dyn FnMut(Progress)) -> Result<Conversion> {
    options.check()?;
    let place = OutputPlace::new(out, source, options.force)?;
    let mut source = ModelSource::open(source, &options.source)?;
    let mut networks = arch::networks(&source.configs, options.weights);
    source.warnings.extend(check_tensors(&source, &networks)?);
    let files = bundle::files(networks.iter().map(|network| network.name));
    let mut fields = manifest_fields(&source, options, UNKNOWN_SHA256.to_owned());
    // What no bundle can have is refused before the weights are written.
    fields.files = files.iter().map(|file| (file.clone(), UNKNOWN_SHA256.to_owned())).collect();
    manifest(&source, fields.clone())?;
    for network in &mut networks {
        smooth::by_weights(network, source.checkpoint(network.name))?;
    }
    let partial = Partial::create(place)?;
    write_networks(&source, &networks, &partial.path, progress)?;
    write(&partial.path.join("tokenizer/vocab.json"), &source.tokenizer.vocab)?;
    write(&partial.path.join("tokenizer/merges.txt"), &source.tokenizer.merges)?;
    fields.source_sha256 = source.sha256()?;
    fields.files = checksums(&partial.path, files)?;
    write(&partial.path.join("bundle.json"), &manifest(&source, fields)?.to_json())?;
    partial.finish()?;
    Ok(Conversion { recognised: source.recognised, warnings: source.warnings })
}

/// Checks the manifest.
pub(crate) fn manifest(source: &ModelSource, fields: ManifestFields) -> Result<Manifest> {
    Manifest::new(fields).map_err(|message| Error::file(&source.path, format!("cannot be a bundle: {message}")))
}

/// Every tensor that is needed is there in the right shape. Tells of those that are there and not needed.
pub(crate) fn check_tensors(source: &ModelSource, networks: &[BuiltNetwork]) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    for (checkpoint, names) in source.parts() {
        let mut needed = BTreeSet::new();
        let networks = networks.iter().filter(|network| names.contains(&network.name));
        for parameter in networks.flat_map(|network| &network.parameters) {
            for (name, shape) in parameter.tensors() {
                checkpoint.check(&name, &shape)?;
                needed.insert(name);
            }
        }
        let surplus: Vec<&str> = checkpoint.names().filter(|name| !needed.contains(*name)).collect();
        if let [first, ..] = surplus[..] {
            warnings.push(checkpoint.error(first, surplus_message(&surplus)).to_string());
        }
    }
    Ok(warnings)
}

/// What is said of tensors that are left out, after the first one's name.
fn surplus_message(surplus: &[&str]) -> String {
    let reason = "not part of the network that is converted";
    match surplus {
        [_] => format!("left out: it is {reason}"),
        [_, second] => format!("left out, and {second}: they are {reason}"),
        [_, .., last] => format!("left out, and {} more up to {last}: they are {reason}", surplus.len() - 1),
        [] => String::new(),
    }
}

fn write_networks(
    source: &ModelSource,
    networks: &[BuiltNetwork],
    folder: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<()> {
    let total = networks.iter().flat_map(|network| &network.parameters).map(|parameter| parameter.bytes()).sum();
    let mut done = 0;
    for network in networks {
        write(&folder.join(format!("{}.onnx", network.name)), &network.to_onnx())?;
        let mut tell = |bytes| {
            done += bytes;
            progress(Progress { network: network.name, done, total });
        };
        let (path, checkpoint) = (folder.join(format!("{}.weights", network.name)), source.checkpoint(network.name));
        let tensors: Vec<NewTensor> = network.parameters.iter().map(Parameter::tensor).collect();
        let mut encode = |tensor: usize, unit, out: &mut [u8]| network.parameters[tensor].encode(checkpoint, unit, out);
        write_weights(&path, &tensors, &mut encode, &mut tell)?;
    }
    Ok(())
}

/// Stands for a checksum that is not known yet.
pub(crate) const UNKNOWN_SHA256: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The manifest, but for the checksums of the files.
pub(crate) fn manifest_fields(source: &ModelSource, options: &Options, source_sha256: String) -> ManifestFields {
    let (configs, tokenizer) = (&source.configs, &source.tokenizer);
    let mut sampling = source.sampling.clone();
    sampling.steps = options.steps.unwrap_or(sampling.steps);
    sampling.cfg_scale = options.cfg_scale.unwrap_or(sampling.cfg_scale);
    let factor = configs.vae.factor();
    let smallest = factor << (configs.unet.blocks.len() - 1);
    ManifestFields {
        schema: SCHEMA,
        name: options.name.clone().unwrap_or_else(|| source.name.clone()),
        source_sha256,
        family: configs.family(),
        weights: options.weights,
        text: Text {
            tokens: tokenizer.tokens,
            bos: tokenizer.bos,
            eos: tokenizer.eos,
            pad: tokenizer.pad,
            channels: configs.text_channels(),
            second: source.second,
            words: source.words.clone(),
            added: source.tokenizer.added.clone(),
        },
        picture: PictureSizes {
            default: configs.unet.sample_size.saturating_mul(factor).max(smallest),
            smallest,
            factor,
            latent_channels: configs.unet.latent_channels,
            latent_scale: configs.vae.latent_scale(),
            tiny_latent_scale: configs.vae.tiny_latent_scale(),
            inpainting: configs.unet.inpainting,
            guidance_embedding: configs.unet.guidance_channels,
        },
        sampling,
        examples: source.examples.clone(),
        files: BTreeMap::new(),
    }
}

/// SHA-256 of `files` of the bundle in `folder`, by their paths in it.
pub(crate) fn checksums(folder: &Path, files: Vec<String>) -> Result<BTreeMap<String, String>> {
    let checksum = |file: String| sha256(&folder.join(&file)).map(|sum| (file, sum));
    files.into_iter().map(checksum).collect()
}

/// Writes a small file of a bundle.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).map_err(Error::io(path))
}
