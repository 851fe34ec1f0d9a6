//! What a manifest's values may be. Whatever lies outside would stop the program, paint nothing that can be recognised,
//! or is not a model of the kind that the engine runs.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::RangeInclusive;

use super::manifest::{AddedToken, ManifestFields, PictureSizes, Text};
use super::{DECODERS, ENCODERS, OLDEST_SCHEMA, REQUIRED, SCHEMA};
use crate::hash::is_sha256;
use crate::sampler::{Sampler, SamplingConfig};

/// The longest side of an image, pixels.
pub const MAX_SIDE: usize = 2048;
/// The most sampling steps.
pub const MAX_STEPS: usize = 1000;
/// The highest guidance scale.
pub const MAX_CFG_SCALE: f64 = 50.0;

/// The most layers from a text encoder's end, its last included, at which embeddings are taken.
pub const MAX_CLIP_SKIP: usize = 12;

/// The longest name of a model and the longest example prompt, bytes.
const MAX_TEXT: usize = 1000;
/// The most example prompts.
const MAX_EXAMPLES: usize = 100;
/// The most words that a bundle lists.
const MAX_WORDS: usize = 100_000;
/// The most tokens beside the vocabulary's.
const MAX_ADDED: usize = 2000;
/// Tokens of a prompt: start, end and at least one between them.
const TOKENS: RangeInclusive<usize> = 3..=1024;
/// Channels of text, latents and embeddings.
const CHANNELS: RangeInclusive<usize> = 1..=1 << 16;
/// Pixels per latent along an axis.
const FACTOR: RangeInclusive<usize> = 1..=64;
/// The scale between the autoencoder's latents and the UNet's (Stable Diffusion: 0.18215).
const LATENT_SCALE: RangeInclusive<f64> = 0.001..=1000.0;
/// By how much an upscaler enlarges width and height.
const UPSCALES: RangeInclusive<usize> = 2..=8;
/// Training timesteps (Stable Diffusion: 1000).
const TRAIN_TIMESTEPS: RangeInclusive<usize> = 2..=100_000;
/// Variance of the noise that a training timestep adds.
const BETA: RangeInclusive<f64> = 1e-9..=0.999;

/// Everything about a manifest that its types do not say. The error has the key, its value and what is allowed.
pub(super) fn check(fields: &ManifestFields) -> Result<(), String> {
    let ManifestFields { schema, name, source_sha256, text, picture, sampling, upscaler, examples, files, .. } = fields;
    within("schema", *schema, OLDEST_SCHEMA..=SCHEMA)?;
    within("the length of name", name.len(), 0..=MAX_TEXT)?;
    if !is_sha256(source_sha256) {
        return Err(format!("source_sha256 is {source_sha256:?}; allowed are 64 hexadecimal digits"));
    }
    check_text(text)?;
    check_sizes(picture)?;
    check_sampling(sampling)?;
    if let Some(upscaler) = upscaler {
        within("the length of upscaler.name", upscaler.name.len(), 0..=MAX_TEXT)?;
        within("upscaler.scale", upscaler.scale, UPSCALES)?;
    }
    within("the number of examples", examples.len(), 0..=MAX_EXAMPLES)?;
    for example in examples {
        within("the length of an example", example.len(), 1..=MAX_TEXT)?;
    }
    for (file, sum) in files {
        if !stays_inside(file) {
            return Err(format!("files names {file:?}; allowed are paths inside the bundle, such as unet.onnx"));
        }
        if !is_sha256(sum) {
            return Err(format!("files: the checksum of {file} is {sum:?}; allowed are 64 hexadecimal digits"));
        }
    }
    let listed = fields.networks().any(|network| network == "upscaler");
    if upscaler.is_some() != listed {
        return Err(match listed {
            true => "files lists upscaler, but the key upscaler is missing".into(),
            false => "upscaler is there, but files does not list upscaler.onnx".into(),
        });
    }
    let (second, listed) = (text.second.is_some(), fields.networks().any(|network| network == "text_encoder_2"));
    if second != listed {
        return Err(match second {
            true => "text.second is there, but files does not list text_encoder_2.onnx".into(),
            false => "files lists text_encoder_2, but text.second is missing".into(),
        });
    }
    // A network is whole: where one of its files is listed, so is the other.
    let needed = super::files(REQUIRED.into_iter().chain(fields.networks()));
    if let Some(file) = needed.iter().find(|file| !files.contains_key(*file)) {
        return Err(format!("files does not list {file}, which this bundle needs; convert the model again"));
    }
    let has = |any_of: [&str; 2]| fields.networks().any(|network| any_of.contains(&network));
    if !has(DECODERS) {
        return Err(format!("files lists neither {}; convert the model again", DECODERS.join(" nor ")));
    }
    match picture.inpainting && !has(ENCODERS) {
        true => Err(format!("picture.inpainting is true, but files lists neither {}", ENCODERS.join(" nor "))),
        false => Ok(()),
    }
}

fn check_text(text: &Text) -> Result<(), String> {
    within("text.tokens", text.tokens, TOKENS)?;
    within("text.channels", text.channels, CHANNELS)?;
    check_added(&text.added)?;
    within("text.clip_skip", text.clip_skip.unwrap_or(1), 1..=MAX_CLIP_SKIP)?;
    if let Some(second) = &text.second {
        within("text.channels", text.channels, 2..=*CHANNELS.end())?;
        within("text.second.channels", second.channels, 1..=text.channels - 1)?;
        within("text.second.pooled", second.pooled, CHANNELS)?;
    }
    let Some(words) = &text.words else { return Ok(()) };
    within("the number of text.words", words.len(), 1..=MAX_WORDS)?;
    let lower = |word: &str| !word.is_empty() && word.chars().all(char::is_alphabetic) && word == word.to_lowercase();
    if let Some(word) = words.iter().find(|word| !lower(word)) {
        return Err(format!("text.words has {word:?}; allowed are letters in lower case"));
    }
    match words.is_sorted_by(|a, b| a < b) {
        true => Ok(()),
        false => Err("text.words is not sorted, or has a word twice".into()),
    }
}

fn check_added(added: &[AddedToken]) -> Result<(), String> {
    within("the number of text.added", added.len(), 0..=MAX_ADDED)?;
    let mut texts = BTreeSet::new();
    for AddedToken { text, ids, .. } in added {
        within("the length of a text of text.added", text.len(), 1..=MAX_TEXT)?;
        within(&format!("the number of ids of {text:?} in text.added"), ids.len(), 1..=*TOKENS.end())?;
        if !texts.insert(text) {
            return Err(format!("text.added has {text:?} twice"));
        }
    }
    Ok(())
}

fn check_sizes(sizes: &PictureSizes) -> Result<(), String> {
    let PictureSizes { default, smallest, factor, latent_channels, latent_scale, tiny_latent_scale, .. } = *sizes;
    within("picture.factor", factor, FACTOR)?;
    within("picture.smallest", smallest, factor..=MAX_SIDE)?;
    within("picture.default", default, smallest..=MAX_SIDE)?;
    for (key, side) in [("picture.smallest", smallest), ("picture.default", default)] {
        if !side.is_multiple_of(factor) {
            return Err(format!("{key} is {side}; allowed are multiples of picture.factor, {factor}"));
        }
    }
    within("picture.latent_channels", latent_channels, CHANNELS)?;
    within("picture.latent_scale", latent_scale, LATENT_SCALE)?;
    within("picture.tiny_latent_scale", tiny_latent_scale.unwrap_or(1.0), LATENT_SCALE)?;
    sizes.guidance_embedding.map_or(Ok(()), |width| within("picture.guidance_embedding", width, CHANNELS))
}

fn check_sampling(config: &SamplingConfig) -> Result<(), String> {
    within("sampling.train_timesteps", config.train_timesteps, TRAIN_TIMESTEPS)?;
    within("sampling.steps", config.steps, 1..=MAX_STEPS.min(config.train_timesteps))?;
    within("sampling.cfg_scale", config.cfg_scale, 0.0..=MAX_CFG_SCALE)?;
    within("sampling.beta_start", config.beta_start, BETA)?;
    within("sampling.beta_end", config.beta_end, config.beta_start..=*BETA.end())?;
    if let Some(offset) = config.steps_offset {
        within("sampling.steps_offset", offset, 0..=config.train_timesteps - 1)?;
    }
    if let Some(steps) = config.original_inference_steps {
        within("sampling.original_inference_steps", steps, 1..=config.train_timesteps)?;
    }
    config.options.check()?;
    // A request that leaves everything open must be possible.
    match Sampler::new(config.default, config, config.steps, None) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("sampling.default is {} and sampling.{error}", config.default)),
    }
}

fn within<T: PartialOrd + Display>(key: &str, value: T, allowed: RangeInclusive<T>) -> Result<(), String> {
    if allowed.contains(&value) {
        return Ok(());
    }
    let (least, most) = allowed.into_inner();
    Err(match least == most {
        true => format!("{key} is {value}; allowed is {least}"),
        false => format!("{key} is {value}; allowed is {least} to {most}"),
    })
}

/// Whether `file` is a path of plain names, so that it cannot lead out of the bundle.
fn stays_inside(file: &str) -> bool {
    file.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.contains(['\\', '\0']))
}
