//! Runs the networks of a bundle on given inputs: the half of `full_size.py` that is ours.
//!
//! `full_size BUNDLE INPUTS OUTPUTS`, both safetensors; what they hold is said in `run`.

use std::env;
use std::error::Error;
use std::fs;
use std::path::PathBuf;

use diffused_engine::bundle::AutoencoderKind;
use diffused_engine::latents::Latents;
use diffused_engine::memory_plan::RunBudget;
use diffused_engine::prompt::PromptTokens;
use diffused_engine::text_encoder::{Embeddings, TextEncoder};
use diffused_engine::unet::Unet;
use diffused_engine::vae::{VaeDecoder, VaeEncoder};
use diffused_engine::{Bundle, Source};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

/// A network's name and what it gave.
type Output = (&'static str, Vec<f32>);

/// A tensor in f32, as torch has it: channels first.
struct PlainTensor {
    shape: Vec<usize>,
    values: Vec<f32>,
}

impl PlainTensor {
    fn read(tensors: &SafeTensors, name: &str) -> Result<PlainTensor, Box<dyn Error>> {
        let view = tensors.tensor(name)?;
        let values = view.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        Ok(PlainTensor { shape: view.shape().to_vec(), values })
    }

    /// Of `[1][channels][height][width]`.
    fn latents(&self) -> Latents {
        Latents::from_planes(&self.values, self.shape[2], self.shape[3], self.shape[1])
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [bundle, inputs, outputs] = &arguments[..] else { return Err("full_size BUNDLE INPUTS OUTPUTS".into()) };
    let bytes = fs::read(inputs)?;
    let computed = run(&Bundle::open(Source::Folder(bundle.clone()))?, &SafeTensors::deserialize(&bytes)?)?;
    let bytes = computed.map(|(name, values)| (name, values.iter().flat_map(|value| value.to_le_bytes()).collect()));
    let views = bytes.iter().map(|(name, bytes): &(_, Vec<u8>)| {
        TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes).map(|view| (*name, view))
    });
    fs::write(outputs, safetensors::serialize(views.collect::<Result<Vec<_>, _>>()?, None)?)?;
    Ok(())
}

/// From `text.in` (token ids of one prompt), `unet.in` (latents), `unet.timestep`, `unet.text` (embeddings),
/// `decode.in` (latents, times the model's scaling factor) and `encode.in` (pixels from -1 to 1) to what the networks
/// give, channels last; of the encoder, the means times the scaling factor.
fn run(bundle: &Bundle, inputs: &SafeTensors) -> Result<[Output; 4], Box<dyn Error>> {
    let mut go_on = |_: f64| {};
    let streamed = RunBudget::streamed;
    let ids = |name| PlainTensor::read(inputs, name).map(|ids| ids.values.iter().map(|id| *id as u32).collect());
    let second = if bundle.manifest.text.second.is_some() { ids("text.in_2")? } else { Vec::new() };
    let prompt = PromptTokens { first: ids("text.in")?, second, absent: false };
    let Embeddings { values: text, pooled, .. } =
        TextEncoder::open(bundle)?.encode(&[prompt], streamed(), &mut go_on)?;

    let latents = PlainTensor::read(inputs, "unet.in")?.latents();
    let timestep = PlainTensor::read(inputs, "unet.timestep")?.values[0];
    let PlainTensor { shape, values } = PlainTensor::read(inputs, "unet.text")?;
    let embeddings = Embeddings { batch: 1, tokens: shape[1], channels: shape[2], values, pooled };
    let mut unet = Unet::open(bundle)?;
    let noise =
        unet.start(&latents, embeddings, None, 1.0, &[timestep.into()], streamed())?.predict(latents, &mut go_on)?;

    let latents = PlainTensor::read(inputs, "decode.in")?.latents();
    let pixels = VaeDecoder::open(bundle, AutoencoderKind::Full)?.decode(&latents, streamed(), &mut go_on)?;

    let Latents { height, width, values, .. } = PlainTensor::read(inputs, "encode.in")?.latents();
    let moments =
        VaeEncoder::open(bundle, AutoencoderKind::Full)?.encode(values, (width, height), streamed(), &mut go_on)?;
    let (rows, columns, channels) = moments.shape();
    let means = moments.sample(|| vec![0.0; rows * columns * channels]).values;
    Ok([("text.out", text), ("unet.out", noise), ("decode.out", pixels), ("encode.out", means)])
}
