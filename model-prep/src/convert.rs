//! From a diffusers folder to a bundle.
//!
//! The bundle is written into a folder beside its place and moved there when it is whole (`place`): a reader finds the
//! old bundle, the new one, or for a moment no bundle, and never a part of one. The same source gives the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use diffused_engine::bundle::{
    self, Manifest, ManifestFields, NewTensor, PictureSizes, SCHEMA, Text, UpscalerFields, write_weights,
};
use diffused_engine::parameters::{MAX_CFG_SCALE, MAX_STEPS};
use diffused_kernels::pack::Format;

use crate::arch;
use crate::error::{Error, Result};
use crate::files::sha256;
use crate::network::BuiltNetwork;
use crate::options::SourceOptions;
use crate::parameter::Parameter;
use crate::place::{OutputPlace, Partial};
use crate::smooth::{self, WeighedLink};
use crate::source::{ModelSource, UpscalerConfig};

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
    /// Of int8 bundles: even channels out by what they are in pictures, which are painted for it, and not by the
    /// weights alone.
    pub calibrate: bool,
    /// What the source is.
    pub source: SourceOptions,
}

impl Default for Options {
    fn default() -> Options {
        let source = SourceOptions::default();
        Options {
            weights: Format::Int8,
            name: None,
            steps: None,
            cfg_scale: None,
            force: false,
            calibrate: false,
            source,
        }
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
    let smooth = |network: &mut BuiltNetwork| smooth::by_weights(network, source.checkpoint(network.name));
    let links: Vec<_> = networks.iter_mut().map(smooth).collect::<Result<_>>()?;
    let partial = Partial::create(place)?;
    write_networks(&source, &networks, &partial.path, progress)?;
    write(&partial.path.join("tokenizer/vocab.json"), &source.tokenizer.vocab)?;
    write(&partial.path.join("tokenizer/merges.txt"), &source.tokenizer.merges)?;
    fields.source_sha256 = source.sha256()?;
    complete(&source, &partial.path, &files, &mut fields)?;
    if options.calibrate && options.weights == Format::Int8 {
        let networks = networks.into_iter().zip(links).collect();
        let warning = calibrate(&source, networks, &partial, progress)?;
        source.warnings.extend(warning);
        complete(&source, &partial.path, &files, &mut fields)?;
    }
    partial.finish()?;
    Ok(Conversion { recognised: source.recognised, warnings: source.warnings })
}

/// Writes the manifest beside the bundle's files.
fn complete(source: &ModelSource, folder: &Path, files: &[String], fields: &mut ManifestFields) -> Result<()> {
    fields.files = checksums(folder, files)?;
    write(&folder.join("bundle.json"), &manifest(source, fields.clone())?.to_json())
}

/// Paints with the bundle in `partial`, and writes those networks anew whose channels stand out otherwise than their
/// weights let expect. Returns a warning where the model cannot paint.
fn calibrate(
    source: &ModelSource,
    mut networks: Vec<(BuiltNetwork, Vec<WeighedLink>)>,
    partial: &Partial,
    progress: &mut dyn FnMut(Progress),
) -> Result<Option<String>> {
    let total = networks.iter().map(|(network, _)| network.bytes()).sum();
    progress(Progress { network: "calibration", done: total, total });
    let counted = match smooth::count(&partial.path) {
        Ok(counted) => counted,
        Err(error) => {
            return Ok(Some(format!("channels were evened out by the weights alone, as painting failed: {error}")));
        }
    };
    networks.retain_mut(|(network, links)| smooth::by_activations(network, links, &counted));
    let changed: Vec<BuiltNetwork> = networks.into_iter().map(|(network, _)| network).collect();
    for network in &changed {
        partial.remove(&format!("{}.weights", network.name))?;
    }
    write_networks(source, &changed, &partial.path, progress)?;
    Ok(None)
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
    let total = networks.iter().map(BuiltNetwork::bytes).sum();
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
            clip_skip: configs.clip_skip(),
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
        upscaler: configs
            .upscaler
            .as_ref()
            .map(|UpscalerConfig { name, scale, .. }| UpscalerFields { name: name.clone(), scale: *scale }),
        examples: source.examples.clone(),
        files: BTreeMap::new(),
    }
}

/// SHA-256 of `files` of the bundle in `folder`, by their paths in it.
pub(crate) fn checksums(folder: &Path, files: &[String]) -> Result<BTreeMap<String, String>> {
    files.iter().map(|file| Ok((file.clone(), sha256(&folder.join(file))?))).collect()
}

/// Writes a small file of a bundle.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).map_err(Error::io(path))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use diffused_engine::layer::Layer;
    use diffused_engine::request::{NoObserver, Request, Start};
    use diffused_engine::{Engine, Resolver, Source};

    use super::*;
    use crate::parameter::ParameterShape;

    fn paint(bundle: &Path) -> Vec<u8> {
        let source = Source::Folder(bundle.to_owned());
        let request = Request { prompt: "a red circle".into(), steps: Some(2), ..Request::default() };
        let painting = Resolver::open(source.clone()).unwrap().resolve(&request, None).unwrap();
        let mut engine = Engine::open(source, diffused_engine::Options::default()).unwrap();
        engine.paint(&painting, Start::Noise, &mut NoObserver).unwrap().into_raw()
    }

    /// The demo model as a bundle in `folder`, and beside it one whose networks are changed.
    fn with_changed(folder: &Path, weights: Format, change: impl FnOnce(&mut [BuiltNetwork])) -> [PathBuf; 2] {
        let (model, bundle) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/model"), folder.join("bundle"));
        let options = Options { weights, ..Options::default() };
        convert(&model, &bundle, &options, &mut |_| ()).unwrap();
        let source = ModelSource::open(&model, &options.source).unwrap();
        let mut networks = arch::networks(&source.configs, options.weights);
        change(&mut networks);
        let changed = folder.join("changed");
        fs::create_dir_all(changed.join("tokenizer")).unwrap();
        for file in ["bundle.json", "tokenizer/vocab.json", "tokenizer/merges.txt"] {
            fs::copy(bundle.join(file), changed.join(file)).unwrap();
        }
        write_networks(&source, &networks, &changed, &mut |_| ()).unwrap();
        change_manifest(&changed, |manifest| {
            for (file, checksum) in manifest["files"].as_object_mut().unwrap() {
                *checksum = sha256(&changed.join(file)).unwrap().into();
            }
        });
        [bundle, changed]
    }

    /// Whichever channels are scaled, an f32 bundle paints the same to the bit.
    #[test]
    fn scaled_channels_cancel_out_exactly() {
        let folder = tempfile::tempdir().unwrap();
        let [plain, scaled] = with_changed(folder.path(), Format::F32, |networks| {
            let links: Vec<usize> = networks.iter_mut().map(smooth::scale_all).collect();
            assert!(links.iter().sum::<usize>() > 50, "{links:?}");
        });
        assert!(paint(&scaled) == paint(&plain));
    }

    /// Bundles in which no convolution is in phases run, as they were made before, and paint the same.
    #[test]
    fn nine_taps_paint_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let [in_phases, nine_taps] = with_changed(folder.path(), Format::F32, |networks| {
            let mut changed = 0;
            for parameter in networks.iter_mut().flat_map(|network| &mut network.parameters) {
                if let ParameterShape::Matrix { phases, .. } = &mut parameter.shape {
                    changed += usize::from(std::mem::take(phases));
                }
            }
            assert_eq!(changed, 3);
        });
        set_schema(&nine_taps, 2);
        let [in_phases, nine_taps] = [paint(&in_phases), paint(&nine_taps)];
        assert_eq!(in_phases.len(), nine_taps.len());
        let differences = in_phases.iter().zip(&nine_taps).map(|(a, b)| a.abs_diff(*b));
        assert!(differences.max().unwrap() <= 1);
    }

    /// All attention but the text encoder's is in int8, that to a text in its own way; bundles in which it is in f32 run, as they were
    /// made before, and paint nearly the same.
    #[test]
    fn cross_attention_is_in_int8() {
        let folder = tempfile::tempdir().unwrap();
        let [int8, f32] = with_changed(folder.path(), Format::Int8, |networks| {
            let mut changed = 0;
            for network in networks {
                let name = network.name;
                for (node, layer) in network.layers_mut() {
                    let Layer::Attention { int8, cross, .. } = layer else { continue };
                    assert_eq!((*int8, *cross), (name != "text_encoder", node.ends_with("attn2")), "{name}: {node}");
                    changed += usize::from(*cross);
                    *int8 &= !*cross;
                    *cross = false;
                }
            }
            assert!(changed > 3, "{changed} attentions to a text");
        });
        set_schema(&f32, 3);
        let [int8, f32] = [paint(&int8), paint(&f32)];
        let squares: f64 = int8.iter().zip(&f32).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2)).sum();
        let psnr = 10.0 * (255f64.powi(2) * int8.len() as f64 / squares).log10();
        assert!((35.0..200.0).contains(&psnr), "{psnr} dB");
    }

    #[test]
    fn other_weights_have_no_attention_in_int8() {
        let source =
            ModelSource::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/model"), &Default::default()).unwrap();
        for mut network in arch::networks(&source.configs, Format::F16) {
            for (node, layer) in network.layers_mut() {
                let plain =
                    !matches!(layer, Layer::Attention { int8: true, .. } | Layer::Attention { cross: true, .. });
                assert!(plain, "{node}");
            }
        }
    }

    /// The bundle says that it has another version of the format.
    fn set_schema(bundle: &Path, schema: u32) {
        change_manifest(bundle, |manifest| {
            assert_eq!(manifest["schema"], SCHEMA);
            manifest["schema"] = schema.into();
        });
    }

    fn change_manifest(bundle: &Path, change: impl FnOnce(&mut serde_json::Value)) {
        let path = bundle.join("bundle.json");
        let mut manifest = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut manifest);
        fs::write(&path, manifest.to_string()).unwrap();
    }
}
