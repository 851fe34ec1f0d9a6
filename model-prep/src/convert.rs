//! From a diffusers folder to a bundle.
//!
//! The bundle is written into a folder beside its place and moved there when it is whole (`place`): a reader finds the
//! old bundle, the new one, or for a moment no bundle, and never a part of one. The same source gives the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use diffused_engine::bundle::{Manifest, PictureSizes, SCHEMA, Text};
use diffused_engine::layer::Activation;
use diffused_engine::parameters::{MAX_CFG_SCALE, MAX_STEPS};
use sha2::{Digest, Sha256};

use crate::arch;
use crate::error::{Error, Result};
use crate::network::{Network, Weights};
use crate::place::{Partial, Place};
use crate::source::{Checkpoint, Source};
use crate::writer;

/// What is converted, and how.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How matrices are stored.
    pub weights: Weights,
    /// The model's name; `None`: the source folder's.
    pub name: Option<String>,
    /// Default number of steps; `None`: 20, or 4 of a latent consistency model.
    pub steps: Option<usize>,
    /// Default guidance scale; `None`: diffusers' default.
    pub cfg_scale: Option<f64>,
    /// Replace a bundle that is already there; nothing else is ever replaced.
    pub force: bool,
}

impl Options {
    /// The daemon must be able to paint with the defaults.
    fn check(&self) -> Result<()> {
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

/// Writes the bundle of `source` to `out`, and returns what the user should know of.
pub fn convert(
    source: &Path,
    out: &Path,
    options: &Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<String>> {
    options.check()?;
    let place = Place::new(out, source, options.force)?;
    let source = Source::open(source)?;
    let networks = arch::networks(&source.configs, options.weights);
    check_tensors(&source, &networks)?;
    let partial = Partial::create(place)?;
    write_networks(&source, &networks, &partial.path, progress)?;
    write(&partial.path.join("tokenizer/vocab.json"), &source.tokenizer.vocab)?;
    write(&partial.path.join("tokenizer/merges.txt"), &source.tokenizer.merges)?;
    let manifest = manifest(&source, options, checksums(&partial.path)?)?;
    let json = serde_json::to_string_pretty(&manifest)
        .map_err(|error| Error::file(&partial.path.join("bundle.json"), error.to_string()))?;
    write(&partial.path.join("bundle.json"), json.as_bytes())?;
    partial.finish()?;
    Ok(source.warnings)
}

/// Every tensor that is needed is there in the right shape, and every tensor that is there is needed.
pub(crate) fn check_tensors(source: &Source, networks: &[Network]) -> Result<()> {
    let check = |checkpoint: &Checkpoint, networks: &[Network]| {
        let mut needed = BTreeSet::new();
        for parameter in networks.iter().flat_map(|network| &network.parameters) {
            for (name, shape) in parameter.tensors() {
                checkpoint.check(&name, &shape)?;
                needed.insert(name);
            }
        }
        match checkpoint.names().find(|name| !needed.contains(*name)) {
            Some(name) => Err(checkpoint.error(name, "is not part of the network that config.json describes")),
            None => Ok(()),
        }
    };
    check(&source.text_encoder, &networks[..1])?;
    check(&source.unet, &networks[1..2])?;
    check(&source.vae, &networks[2..])
}

fn write_networks(
    source: &Source,
    networks: &[Network],
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
        let path = folder.join(format!("{}.weights", network.name));
        writer::write(&path, &network.parameters, source.checkpoint(network.name), &mut tell)?;
    }
    Ok(())
}

fn manifest(source: &Source, options: &Options, files: BTreeMap<String, String>) -> Result<Manifest> {
    let (configs, tokenizer) = (&source.configs, &source.tokenizer);
    let mut sampling = source.sampling.clone();
    sampling.steps = options.steps.unwrap_or(sampling.steps);
    sampling.cfg_scale = options.cfg_scale.unwrap_or(sampling.cfg_scale);
    let folder = source.path.canonicalize().map_err(Error::io(&source.path))?;
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
    // Stable Diffusion 2 took its text encoder from OpenCLIP, which has the exact GELU.
    let family = if configs.text.activation == Activation::Gelu { "sd2" } else { "sd1" };
    Ok(Manifest {
        schema: SCHEMA,
        name: options.name.clone().or(name).unwrap_or_default(),
        source_sha256: source.sha256()?,
        family: family.to_owned(),
        weights: options.weights.name().to_owned(),
        text: Text {
            tokens: tokenizer.tokens,
            bos: tokenizer.bos,
            eos: tokenizer.eos,
            pad: tokenizer.pad,
            channels: configs.text.channels,
            words: source.words.clone(),
        },
        picture: PictureSizes {
            default: configs.unet.sample_size * configs.vae.factor(),
            smallest: configs.vae.factor() << (configs.unet.blocks.len() - 1),
            factor: configs.vae.factor(),
            latent_channels: configs.unet.latent_channels,
            latent_scale: configs.vae.scaling_factor,
            guidance_embedding: configs.unet.guidance_channels,
        },
        sampling,
        examples: source.examples.clone(),
        files,
    })
}

/// SHA-256 of every file in the folder, by its path in it.
fn checksums(folder: &Path) -> Result<BTreeMap<String, String>> {
    let mut sums = BTreeMap::new();
    let mut folders = vec![(String::new(), folder.to_owned())];
    while let Some((prefix, folder)) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(Error::io(&folder))? {
            let path = entry.map_err(Error::io(&folder))?.path();
            let name = format!("{prefix}{}", path.file_name().unwrap_or_default().to_string_lossy());
            if path.is_dir() {
                folders.push((format!("{name}/"), path));
            } else {
                sums.insert(name, sha256(&path)?);
            }
        }
    }
    Ok(sums)
}

/// SHA-256 of a file, hexadecimal.
pub(crate) fn sha256(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let (mut hash, mut chunk) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut chunk).map_err(Error::io(path))? {
            0 => return Ok(crate::hex(&hash.finalize())),
            n => hash.update(&chunk[..n]),
        }
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).map_err(Error::io(path))
}
