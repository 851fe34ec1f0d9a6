//! Models of the true shapes with random weights: memory and speed on a board can be measured before anything is
//! downloaded.
//!
//! Which tensors there are and in which shapes comes from the same builders that convert, so a synthetic folder is
//! complete by construction. Weights are scaled by their fan-in, so that activations neither vanish nor overflow.

mod archs;
mod random;
mod tokenizer;
mod xl;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use diffused_kernels::pack::Format;
use half::f16;
use serde_json::{Value, json};

pub use archs::Arch;
use random::Random;

use crate::arch;
use crate::error::{Error, Result};
use crate::network::BuiltNetwork;
use crate::parameter::{Parameter, ParameterShape};
use crate::source::{ConfigFiles, Configs, VaeConfigs};

/// How a synthetic model's values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// Half precision.
    F16,
    /// Single precision.
    F32,
}

impl Dtype {
    fn name(self) -> &'static str {
        match self {
            Dtype::F16 => "F16",
            Dtype::F32 => "F32",
        }
    }

    fn bytes(self) -> u64 {
        match self {
            Dtype::F16 => 2,
            Dtype::F32 => 4,
        }
    }
}

/// How the values of a tensor are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Draw {
    mean: f32,
    deviation: f32,
}

/// A tensor to be written.
#[derive(Debug, Clone, PartialEq)]
struct RandomTensor {
    shape: Vec<usize>,
    draw: Draw,
}

impl RandomTensor {
    fn values(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A weight file: its path in the folder, the networks that it holds, and what the tensors' names begin with.
type WeightFile = (&'static str, &'static [&'static str], &'static str);

/// The weight files of a model.
const FILES: [WeightFile; 4] = [
    ("text_encoder/model.safetensors", &["text_encoder"], "text_model."),
    ("text_encoder_2/model.safetensors", &["text_encoder_2"], "text_model."),
    ("unet/diffusion_pytorch_model.safetensors", &["unet"], ""),
    ("vae/diffusion_pytorch_model.safetensors", &AUTOENCODERS, ""),
];
/// That of an upscaler alone.
const UPSCALER_FILE: [WeightFile; 1] = [("upscaler.safetensors", &["upscaler"], "")];
/// That of an autoencoder alone.
const AUTOENCODER_FILE: [WeightFile; 1] = [("diffusion_pytorch_model.safetensors", &AUTOENCODERS, "")];
/// The networks that an autoencoder of either class holds.
const AUTOENCODERS: [&str; 4] = ["vae_decoder", "vae_encoder", "tiny_decoder", "tiny_encoder"];

/// Writes a diffusers folder of `arch` to `out`, which must not exist; `progress` is called with the bytes done and in
/// all.
pub fn synth(arch: Arch, seed: u64, dtype: Dtype, out: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
    if out.exists() {
        return Err(Error::file(out, "is already there; choose another place"));
    }
    fs::create_dir_all(out).map_err(Error::io(out))?;
    for (file, json) in arch.files() {
        write(&out.join(file), format!("{json:#}").as_bytes())?;
    }
    if !arch.is_alone() {
        let (vocab, merges) = tokenizer::files();
        for folder in if arch.is_xl() { &["tokenizer", "tokenizer_2"][..] } else { &["tokenizer"] } {
            write(&out.join(folder).join("vocab.json"), vocab.as_bytes())?;
            write(&out.join(folder).join("merges.txt"), merges.as_bytes())?;
        }
    }
    let (networks, files) = (networks(arch, out)?, weight_files(arch));
    let mut files: Vec<_> = files.map(|(file, names, prefix)| (file, tensors(&networks, names, prefix))).collect();
    files.iter_mut().for_each(|(_, tensors)| shape_convolutions(tensors, arch.linear_projections()));
    let values = |tensors: &BTreeMap<String, RandomTensor>| tensors.values().map(RandomTensor::values).sum::<usize>();
    let total = files.iter().map(|(_, tensors)| values(tensors) as u64).sum::<u64>() * dtype.bytes();
    let mut done = 0;
    for (file, tensors) in &files {
        write_safetensors(&out.join(file), tensors, dtype, seed, &mut |bytes| {
            done += bytes;
            progress(done, total);
        })?;
    }
    Ok(())
}

/// The weight files of a model of this kind.
fn weight_files(arch: Arch) -> impl Iterator<Item = &'static WeightFile> {
    let files = match (arch.is_autoencoder(), arch.upscaler()) {
        (true, _) => &AUTOENCODER_FILE[..],
        (_, Some(_)) => &UPSCALER_FILE,
        _ => &FILES,
    };
    files.iter().filter(move |(_, names, _)| arch.is_xl() || !names.contains(&"text_encoder_2"))
}

/// The networks that the configurations in `folder` describe, whole: also the end of SDXL's first text encoder, of
/// which a bundle has nothing.
fn networks(arch: Arch, folder: &Path) -> Result<Vec<BuiltNetwork>> {
    if let Some(config) = arch.upscaler() {
        return Ok(vec![arch::upscaler(&config, Format::F32)]);
    }
    match arch.is_autoencoder() {
        true => Ok(arch::autoencoders(
            &VaeConfigs::open(ConfigFiles::folder(folder).keys("config.json")?, &mut Vec::new())?,
            Format::F32,
        )),
        false => {
            let mut configs = Configs::open(&ConfigFiles::folder(folder), &mut Vec::new())?;
            configs.text = configs.text.alone();
            Ok(arch::networks(&configs, Format::F32))
        }
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(Error::io(folder))?;
    }
    fs::write(path, bytes).map_err(Error::io(path))
}

/// The tensors that those of `networks` are made of that `names` holds.
fn tensors(networks: &[BuiltNetwork], names: &[&str], prefix: &str) -> BTreeMap<String, RandomTensor> {
    let networks = networks.iter().filter(|network| names.contains(&network.name));
    let parameters = networks.flat_map(|network| &network.parameters);
    let tensors = parameters.flat_map(|parameter| {
        let weight = parameter.tensors().into_iter().zip(draws(parameter));
        weight.map(|((name, shape), draw)| {
            let prefix = if name.starts_with("text_projection.") { "" } else { prefix };
            (format!("{prefix}{name}"), RandomTensor { shape, draw })
        })
    });
    tensors.collect()
}

/// Gives 1×1 convolutions the shape that torch has for them; the builders treat them as linear layers.
/// Transformers of the UNet begin and end in either.
fn shape_convolutions(tensors: &mut BTreeMap<String, RandomTensor>, linear_projections: bool) {
    let convolution = |name: &str| {
        let projection = name.ends_with(".proj_in.weight") || name.ends_with(".proj_out.weight");
        name.ends_with("conv_shortcut.weight")
            || name.ends_with("quant_conv.weight")
            || projection && !linear_projections
    };
    for (_, tensor) in tensors.iter_mut().filter(|(name, _)| convolution(name)) {
        tensor.shape.extend([1, 1]);
    }
}

/// How the tensors of a weight are drawn. What a residual block or transformer adds to its input is kept small.
fn draws(parameter: &Parameter) -> [Draw; 2] {
    let draw = |mean, deviation| Draw { mean, deviation };
    match parameter.shape {
        ParameterShape::Matrix { k, kernel, .. } => {
            let adds = ["conv2", "to_out.0", "out_proj", "proj_out", "ff.net.2", "mlp.fc2"];
            let gain = if adds.iter().any(|end| parameter.name.ends_with(end)) { 0.3 } else { 1.0 };
            [draw(0.0, gain / ((k * kernel * kernel) as f32).sqrt()), draw(0.0, 0.01)]
        }
        ParameterShape::Norm { .. } => [draw(1.0, 0.05), draw(0.0, 0.05)],
        ParameterShape::Slopes { .. } => [draw(0.25, 0.05), draw(0.0, 0.0)],
        ParameterShape::Table { .. } => [draw(0.0, 0.02), draw(0.0, 0.02)],
    }
}

fn write_safetensors(
    path: &Path,
    tensors: &BTreeMap<String, RandomTensor>,
    dtype: Dtype,
    seed: u64,
    progress: &mut dyn FnMut(u64),
) -> Result<()> {
    let file = File::create_new(path).map_err(Error::io(path))?;
    let mut file = BufWriter::with_capacity(1 << 20, file);
    let header = header(tensors, dtype);
    file.write_all(&(header.len() as u64).to_le_bytes()).map_err(Error::io(path))?;
    file.write_all(header.as_bytes()).map_err(Error::io(path))?;
    for (name, tensor) in tensors {
        let mut random = Random::new(seed, name);
        match dtype {
            Dtype::F16 => {
                let table = random.table(tensor.draw).map(|value| f16::from_f32(value).to_le_bytes());
                random.pick(&table, tensor.values(), |bytes| file.write_all(bytes)).map_err(Error::io(path))?;
            }
            Dtype::F32 => {
                let table = random.table(tensor.draw).map(f32::to_le_bytes);
                random.pick(&table, tensor.values(), |bytes| file.write_all(bytes)).map_err(Error::io(path))?;
            }
        }
        progress(tensor.values() as u64 * dtype.bytes());
    }
    file.flush().map_err(Error::io(path))
}

/// A safetensors header: every tensor's type, shape and place, padded so that the data is aligned.
fn header(tensors: &BTreeMap<String, RandomTensor>, dtype: Dtype) -> String {
    let mut header = serde_json::Map::from_iter([("__metadata__".to_owned(), json!({"format": "pt"}))]);
    let mut start = 0;
    for (name, tensor) in tensors {
        let end = start + tensor.values() as u64 * dtype.bytes();
        let info = json!({"dtype": dtype.name(), "shape": tensor.shape, "data_offsets": [start, end]});
        header.insert(name.clone(), info);
        start = end;
    }
    let mut header = Value::Object(header).to_string();
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    header
}

#[cfg(test)]
mod tests {
    use diffused_engine::bundle::NETWORKS;

    use super::*;

    /// As `state_dict` of diffusers' classes has them.
    #[test]
    fn convolutions_of_one_pixel_keep_their_axes() {
        for (arch, projection) in [(Arch::Sd15, &[320, 320, 1, 1][..]), (Arch::Sd21, &[320, 320][..])] {
            let folder = tempfile::tempdir().unwrap();
            for (file, json) in arch.files() {
                write(&folder.path().join(file), json.to_string().as_bytes()).unwrap();
            }
            let networks = arch::networks(
                &Configs::open(&ConfigFiles::folder(folder.path()), &mut Vec::new()).unwrap(),
                Format::F32,
            );
            let mut tensors = tensors(&networks, &NETWORKS, "");
            shape_convolutions(&mut tensors, arch.linear_projections());
            let shape = |name: &str| &tensors[name].shape[..];
            assert_eq!(shape("down_blocks.0.attentions.0.proj_in.weight"), projection);
            assert_eq!(shape("up_blocks.3.attentions.2.proj_out.weight"), projection);
            assert_eq!(shape("down_blocks.1.resnets.0.conv_shortcut.weight"), [640, 320, 1, 1]);
            assert_eq!(shape("post_quant_conv.weight"), [4, 4, 1, 1]);
            assert_eq!(shape("quant_conv.weight"), [8, 8, 1, 1]);
            assert_eq!(shape("encoder.mid_block.attentions.0.to_q.weight"), [512, 512]);
        }
    }

    /// Trainable values of each network, as the models' papers and repositories state them.
    #[test]
    fn the_shapes_are_the_true_ones() {
        const VAE: usize = 83_653_863;
        /// TAESD's decoder and encoder.
        const TINY: usize = 1_222_531 + 1_222_532;
        for (arch, values) in [
            (Arch::Sd15, &[123_060_480, 859_520_964, VAE][..]),
            (Arch::Sd21, &[340_387_840, 865_910_724, VAE]),
            (Arch::SdTurbo, &[340_387_840, 865_910_724, VAE]),
            (Arch::BkSdmTiny, &[123_060_480, 323_384_964, VAE]),
            (Arch::Sdxl, &[123_060_480, 694_659_840, 2_567_463_684, VAE]),
            (Arch::SdxlTurbo, &[123_060_480, 694_659_840, 2_567_463_684, VAE]),
            (Arch::Ssd1b, &[123_060_480, 694_659_840, 1_331_334_404, VAE]),
            (Arch::Taesd, &[TINY]),
            (Arch::Taesdxl, &[TINY]),
            // 34 convolutions and 33 PReLUs; 18 and 17.
            (Arch::RealesrGeneral, &[1_213_296]),
            (Arch::RealesrAnime, &[621_424]),
        ] {
            let folder = tempfile::tempdir().unwrap();
            for (file, json) in arch.files() {
                write(&folder.path().join(file), json.to_string().as_bytes()).unwrap();
            }
            let networks = networks(arch, folder.path()).unwrap();
            let sum = |(_, names, _): &WeightFile| {
                tensors(&networks, names, "").values().map(RandomTensor::values).sum::<usize>()
            };
            assert_eq!(weight_files(arch).map(sum).collect::<Vec<usize>>(), values, "{arch:?}");
        }
    }
}
