//! AutoencoderTiny (TAESD): its configuration, from `config.json` or, where there is none, from the tensors of a file.

use std::path::Path;

use serde_json::{Value, json};

use super::keys::Keys;
use crate::error::{Error, Result};
use crate::tensors::Checkpoint;

/// The tiny autoencoder's configuration.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TinyVaeConfig {
    /// Channels of the latents.
    pub(crate) latent_channels: usize,
    /// The decoder, if there is one.
    pub(crate) decoder: Option<TinyHalf>,
    /// The encoder, if there is one.
    pub(crate) encoder: Option<TinyHalf>,
    /// The UNet's latents are the encoder's times this.
    pub(crate) scaling_factor: f64,
}

/// What is between pixels and latents, in either direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TinyHalf {
    /// Channels of all convolutions.
    pub(crate) channels: usize,
    /// Residual blocks of each resolution, in the order in which they run.
    pub(crate) blocks: Vec<usize>,
}

/// Keys that change nothing of what is computed. `latent_magnitude` and `latent_shift` are for latents stored in bytes.
const INERT: [&str; 9] = [
    "_class_name",
    "_diffusers_version",
    "_name_or_path",
    "_commit_hash",
    "force_upcast",
    "latent_magnitude",
    "latent_shift",
    "block_out_channels",
    "shift_factor",
];

impl TinyVaeConfig {
    /// Reads the configuration; what cannot be built is refused by name, what is not known goes into `warnings`.
    pub(crate) fn open(mut keys: Keys, warnings: &mut Vec<String>) -> Result<TinyVaeConfig> {
        keys.only("_class_name", &[json!("AutoencoderTiny")])?;
        keys.ignore(&INERT);
        keys.only("act_fn", &[json!("relu")])?;
        keys.only("upsample_fn", &[json!("nearest"), Value::Null])?;
        keys.only("upsampling_scaling_factor", &[json!(2)])?;
        keys.only("in_channels", &[json!(3)])?;
        keys.only("out_channels", &[json!(3)])?;
        let decoder = half(&mut keys, "decoder", &[3, 3, 3, 1])?;
        let encoder = half(&mut keys, "encoder", &[1, 3, 3, 3])?;
        if decoder.blocks.len() != encoder.blocks.len() {
            let expected = format!("as many as num_decoder_blocks, {}", decoder.blocks.len());
            return Err(keys.refuse("num_encoder_blocks", &json!(encoder.blocks), &expected));
        }
        let latent_channels = keys.count("latent_channels", 4)?;
        let scaling_factor = keys.number("scaling_factor", 1.0)?;
        warnings.extend(keys.left_over());
        Ok(TinyVaeConfig { latent_channels, decoder: Some(decoder), encoder: Some(encoder), scaling_factor })
    }

    /// The configuration that a file's tensors, under diffusers' names, tell.
    pub(crate) fn of_tensors(file: &Path, tensors: &Checkpoint) -> Result<TinyVaeConfig> {
        let (decoder, encoder) = (half_of(tensors, "decoder"), half_of(tensors, "encoder"));
        let first = decoder.as_ref().map(|half| half.latent_channels);
        let Some(latent_channels) = first.or(encoder.as_ref().map(|half| half.latent_channels)) else {
            return Err(Error::file(file, "has tensors of a tiny autoencoder (TAESD), but not all of them"));
        };
        let [decoder, encoder] = [decoder, encoder].map(|found| found.map(|found| found.half));
        Ok(TinyVaeConfig { latent_channels, decoder, encoder, scaling_factor: 1.0 })
    }

    /// Resolutions of images between pixels and latents, both included.
    pub(crate) fn levels(&self) -> usize {
        self.decoder.as_ref().or(self.encoder.as_ref()).map_or(1, |half| half.blocks.len())
    }

    /// With `other`'s halves where it has them.
    pub(crate) fn with(self, other: TinyVaeConfig) -> TinyVaeConfig {
        TinyVaeConfig { decoder: other.decoder.or(self.decoder), encoder: other.encoder.or(self.encoder), ..other }
    }
}

fn half(keys: &mut Keys, name: &str, default: &[usize]) -> Result<TinyHalf> {
    let blocks = keys.levels(&format!("num_{name}_blocks"), default)?;
    let key = format!("{name}_block_out_channels");
    let channels = keys.counts(&key, &vec![64; blocks.len()])?;
    let width = channels.first().copied().unwrap_or(64);
    match channels == vec![width; blocks.len()] {
        true => Ok(TinyHalf { channels: width, blocks }),
        false => Err(keys.refuse(&key, &json!(channels), &format!("{width} for each of num_{name}_blocks"))),
    }
}

/// A half as its tensors tell it.
struct FoundHalf {
    half: TinyHalf,
    latent_channels: usize,
}

/// The half `name` of `tensors`, if it is there: the blocks between its convolutions, by the layers' numbers.
fn half_of(tensors: &Checkpoint, name: &str) -> Option<FoundHalf> {
    let number = |tensor: &str, part: &str| {
        let layer = tensor.strip_prefix(name)?.strip_prefix(".layers.")?.strip_suffix(part)?;
        layer.parse::<usize>().ok()
    };
    let layers = |part: &str| tensors.names().filter_map(|tensor| number(tensor, part)).collect::<Vec<usize>>();
    let (mut convolutions, blocks) = (layers(".weight"), layers(".conv.0.weight"));
    convolutions.sort_unstable();
    let shape = |layer: &usize| tensors.shape(&format!("{name}.layers.{layer}.weight"))?.first_chunk::<2>().copied();
    let ([outputs, inputs], [last_outputs, _]) = (shape(convolutions.first()?)?, shape(convolutions.last()?)?);
    let between = |pair: &[usize]| match *pair {
        [first, second] => blocks.iter().filter(|block| (first..second).contains(*block)).count(),
        _ => 0,
    };
    let half = TinyHalf { channels: outputs, blocks: convolutions.windows(2).map(between).collect() };
    Some(FoundHalf { half, latent_channels: if name == "decoder" { inputs } else { last_outputs } })
}
