//! A model in one file, as model sites give it: all networks' tensors under the original program's names, and nothing
//! else. The tensors get diffusers' names; configurations follow from their shapes and from what the family has.

mod configs;
mod kind;
mod layout;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use configs::{Parts, SingleFamily, Training};
pub(crate) use layout::{UnetLayout, vae_levels, vae_name};

use super::autoencoders::Autoencoders;
use super::keys::ConfigFiles;
use super::{ModelTensors, text_name};
use crate::error::{Error, Result};
use crate::options::SourceOptions;
use crate::tensors::{Checkpoint, TensorFile};
use diffused_engine::sampler::Prediction;

/// Where the networks' names begin.
const UNET: &str = "model.diffusion_model.";
const VAE: &str = "first_stage_model.";
const CLIP: &str = "cond_stage_model.transformer.";
const OPEN_CLIP: &str = "cond_stage_model.model.";
const XL_CLIP: &str = "conditioner.embedders.0.transformer.";
const XL_OPEN_CLIP: &str = "conditioner.embedders.1.model.";
/// Stable Diffusion XL's second text encoder as stable-diffusion.cpp writes it, with transformers' names; the first is
/// at `CLIP` there.
const CPP_OPEN_CLIP: &str = "cond_stage_model.1.transformer.";

/// The last of the 24 layers of Stable Diffusion 2's text encoder, which is not used, where it has transformers' names.
const UNUSED_LAYER: &str = "encoder.layers.23.";

/// A model in one file.
pub(super) struct SingleFile {
    /// The configurations that it lacks.
    pub(super) files: ConfigFiles,
    /// What it is stored as, for people.
    pub(super) form: &'static str,
    /// Where its tokenizer is, if the user gave a folder of configurations.
    pub(super) tokenizer: Option<PathBuf>,
    /// Its tensors.
    pub(super) weights: ModelTensors,
}

/// Opens the single file `path`.
pub(super) fn open(path: &Path, options: &SourceOptions, warnings: &mut Vec<String>) -> Result<SingleFile> {
    let file = Arc::new(TensorFile::open(path)?);
    let names: BTreeSet<&str> = file.tensors.keys().map(String::as_str).collect();
    let family = kind::family(path, &file)?;
    let layout = UnetLayout::of(&without(&names, UNET));
    let part = |prefix: &str, name: &dyn Fn(&str) -> Option<String>| {
        Checkpoint::from_files(path, vec![file.clone()], |whole| name(whole.strip_prefix(prefix)?))
    };
    let unet = part(UNET, &|name| Some(layout.name(name)))?;
    let levels = vae_levels(without(&names, VAE).into_iter());
    let vae = part(VAE, &|name| (!name.starts_with("loss.")).then(|| vae_name(name, levels)))?;
    let clip = |prefix| part(prefix, &text_name);
    let (text_encoder, text_2) = match family {
        SingleFamily::Sd1 => (clip(CLIP)?, None),
        SingleFamily::Sd2 if without(&names, OPEN_CLIP).is_empty() => {
            (part(CLIP, &|name| text_name(name).filter(|name| !name.starts_with(UNUSED_LAYER)))?, None)
        }
        SingleFamily::Sd2 => (open_clip(path, &file, OPEN_CLIP, true)?, None),
        SingleFamily::Xl if without(&names, XL_CLIP).is_empty() => {
            let mut second = clip(CPP_OPEN_CLIP)?;
            transpose_projection(&mut second, &file, &format!("{CPP_OPEN_CLIP}text_model."))?;
            (clip(CLIP)?, Some(second))
        }
        SingleFamily::Xl => (clip(XL_CLIP)?, Some(open_clip(path, &file, XL_OPEN_CLIP, false)?)),
    };
    let replaced = options.vae.is_some() && vae.names().next().is_none();
    for (part, network) in [(&unet, "UNet"), (&text_encoder, "text encoder"), (&vae, "autoencoder")] {
        if part.names().next().is_none() && !(replaced && network == "autoencoder") {
            return Err(Error::file(path, kind::lacks(network)));
        }
    }
    let velocity = velocity(family, &file, options, warnings)?;
    let training = Training { velocity, zero_snr: file.tensors.contains_key("ztsnr") };
    let parts =
        Parts { text: &text_encoder, text_2: text_2.as_ref(), unet: &unet, vae: Some(&vae).filter(|_| !replaced) };
    let (files, tokenizer) = match &options.config {
        Some(folder) => (ConfigFiles::folder(folder), Some(folder.join("tokenizer"))),
        None => {
            warnings.extend(configs::guess(family, &parts).map(|guess| format!("{}: {guess}", path.display())));
            (ConfigFiles::values(path, configs::files(family, &layout, &parts, training)), None)
        }
    };
    // Pruned files keep the average's counters.
    let counters = ["decay", "num_updates"];
    let form = match without(&names, "model_ema.").iter().any(|name| !counters.contains(name)) {
        true => "single file without its moving average (EMA)",
        false => "single file",
    };
    let vae = if replaced { Autoencoders::default() } else { Autoencoders::full(vae)? };
    Ok(SingleFile { files, form, tokenizer, weights: ModelTensors { text_encoder, text_encoder_2: text_2, unet, vae } })
}

/// The rest of the names that begin with `prefix`.
fn without<'a>(names: &BTreeSet<&'a str>, prefix: &str) -> BTreeSet<&'a str> {
    names.iter().filter_map(|name| name.strip_prefix(prefix)).collect()
}

/// OpenCLIP's text encoder. `penultimate`: the last layer is not used and left out, as in Stable Diffusion 2.
fn open_clip(path: &Path, file: &Arc<TensorFile>, prefix: &str, penultimate: bool) -> Result<Checkpoint> {
    let block =
        |name: &str| name.strip_prefix(prefix)?.strip_prefix("transformer.resblocks.")?.split('.').next()?.parse().ok();
    let last: Option<usize> = file.tensors.keys().filter_map(|name| block(name)).max();
    let unused = |name: &str| {
        let unused = ["logit_scale", "attn_mask"].contains(&name) || name.starts_with("visual.");
        unused
            || penultimate
                && (name == "text_projection"
                    || last.is_some_and(|last| name.starts_with(&format!("transformer.resblocks.{last}."))))
    };
    let mut text = Checkpoint::from_files(path, vec![file.clone()], |name| {
        let name = name.strip_prefix(prefix)?;
        (!unused(name)).then(|| layout::open_clip_name(name))
    })?;
    // Queries, keys and values are one matrix there.
    let fused: Vec<String> = text.names().filter(|name| name.contains(".in_proj.")).map(str::to_owned).collect();
    for name in fused {
        let rows = text.shape(&name).and_then(|shape| shape.first().copied()).unwrap_or(0) / 3;
        for (i, single) in ["q_proj", "k_proj", "v_proj"].iter().enumerate() {
            text.slice_rows(&name, i * rows..(i + 1) * rows, &name.replace("in_proj", single))?;
        }
        text.remove(&name);
    }
    transpose_projection(&mut text, file, prefix)?;
    Ok(text)
}

/// Turns OpenCLIP's projection around, which is multiplied from the right; it is small.
fn transpose_projection(text: &mut Checkpoint, file: &TensorFile, prefix: &str) -> Result<()> {
    if let Some(&[inputs, outputs]) = text.shape("text_projection") {
        let values = file.read_all(&format!("{prefix}text_projection"))?;
        let column = |output: usize| values.iter().skip(output).step_by(outputs.max(1)).copied();
        text.insert("text_projection.weight", &[outputs, inputs], (0..outputs).flat_map(column).collect());
        text.remove("text_projection");
    }
    Ok(())
}

/// Whether the UNet predicts v, which only newer files say. Of Stable Diffusion 2 both kinds have the same tensors; the
/// rule is ComfyUI's.
fn velocity(
    family: SingleFamily,
    file: &TensorFile,
    options: &SourceOptions,
    warnings: &mut Vec<String>,
) -> Result<bool> {
    const TELLS: &str = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias";
    const LEAST: f64 = 0.09;
    if let Some(prediction) = options.prediction {
        return Ok(prediction == Prediction::VPrediction);
    }
    if file.tensors.contains_key("v_pred") {
        return Ok(true);
    }
    if family != SingleFamily::Sd2 || options.config.is_some() {
        return Ok(false);
    }
    let plain =
        file.tensors.get(&format!("{UNET}input_blocks.0.0.weight")).and_then(|entry| entry.shape.get(1)) == Some(&4);
    let values = if plain && file.tensors.contains_key(TELLS) { file.read_all(TELLS)? } else { Vec::new() };
    let velocity = deviation(&values) > LEAST;
    let guess = if velocity { "v" } else { "epsilon" };
    warnings.push(format!("{}: guessed: it predicts {guess}; --prediction overrides it", file.path.display()));
    Ok(velocity)
}

/// The standard deviation; 0 of none.
fn deviation(values: &[f32]) -> f64 {
    let n = values.len().max(2) as f64;
    let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / n;
    (values.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt()
}
