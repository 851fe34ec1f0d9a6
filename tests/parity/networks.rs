//! Each network by itself, in f32 bundles.

use diffused_engine::bundle::AutoencoderKind;
use diffused_engine::latents::Latents;
use diffused_engine::memory_plan::RunBudget;
use diffused_engine::prompt::PromptTokens;
use diffused_engine::text_encoder::{Embeddings, TextEncoder};
use diffused_engine::unet::Unet;
use diffused_engine::vae::{VaeDecoder, VaeEncoder};
use model_prep::Format;
use safetensors::SafeTensors;

use crate::{Fresh, MODELS, goldens};

/// The guidance scale of the goldens of models that have it for an input.
pub(crate) const GUIDANCE: f64 = 7.5;

/// Tensors of torch: channels first.
pub(crate) struct Goldens {
    bytes: Vec<u8>,
}

/// `values` of `[channels][height][width]`, or of two dimensions.
pub(crate) struct GoldenTensor {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

impl Goldens {
    pub(crate) fn open(model: &str) -> Goldens {
        Goldens { bytes: std::fs::read(goldens().join(format!("{model}.safetensors"))).unwrap() }
    }

    /// The names before `.in` and `.out` that begin with `network`.
    pub(crate) fn cases(&self, network: &str) -> Vec<String> {
        let tensors = SafeTensors::deserialize(&self.bytes).unwrap();
        let inputs = tensors.names().into_iter().filter_map(|name| name.strip_suffix(".in"));
        let mut cases: Vec<String> = inputs.filter(|name| name.starts_with(network)).map(str::to_owned).collect();
        cases.sort();
        assert!(cases.len() > 1, "there are goldens of {network}");
        cases
    }

    pub(crate) fn get(&self, name: &str) -> GoldenTensor {
        self.find(name).unwrap()
    }

    /// A tensor that not every model has.
    pub(crate) fn find(&self, name: &str) -> Option<GoldenTensor> {
        let tensors = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = tensors.tensor(name).ok()?;
        let values = view.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let shape = view.shape().iter().copied().skip(usize::from(view.shape().len() == 4)).collect();
        Some(GoldenTensor { shape, values })
    }

    /// Token ids, a prompt each.
    fn ids(&self, name: &str) -> Vec<Vec<u32>> {
        let ids = self.find(name).map_or(Vec::new(), |ids| ids.values);
        ids.chunks(77).map(|ids| ids.iter().map(|id| *id as u32).collect()).collect()
    }

    /// The embeddings of the first prompt.
    pub(crate) fn embeddings(&self) -> Embeddings {
        let GoldenTensor { shape, mut values } = self.get("text.out");
        values.truncate(shape[1] * shape[2]);
        let pooled = self.find("text.pooled").map_or(Vec::new(), |GoldenTensor { shape, mut values }| {
            values.truncate(shape[1]);
            values
        });
        Embeddings { batch: 1, tokens: shape[1], channels: shape[2], values, pooled }
    }
}

impl GoldenTensor {
    /// Pixel by pixel.
    pub(crate) fn latents(&self) -> Latents {
        Latents::from_planes(&self.values, self.shape[1], self.shape[2], self.shape[0])
    }
}

/// The largest difference, as a part of the largest value.
fn error(ours: &[f32], theirs: &[f32]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    let largest = theirs.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    let differences = ours.iter().zip(theirs).map(|(a, b)| f64::from((a - b).abs()));
    differences.fold(0.0, f64::max) / f64::from(largest)
}

pub(crate) fn check(what: &str, ours: &[f32], theirs: &[f32], tolerance: f64) {
    let error = error(ours, theirs);
    println!("{what}: {error:.1e}");
    assert!(error <= tolerance, "{what} is {error:.1e} from the reference, more than {tolerance:.0e}");
}

pub(crate) fn go_on(_: f64) {}

#[test]
fn text_encoders_agree() {
    for model in MODELS {
        let goldens = Goldens::open(model);
        let mut second = goldens.ids("text.ids_2").into_iter();
        let mut tokens = |first| PromptTokens { first, second: second.next().unwrap_or_default(), absent: false };
        let prompts: Vec<PromptTokens> = goldens.ids("text.ids").into_iter().map(&mut tokens).collect();
        let fresh = Fresh::new(model, Format::F32);
        let mut encoder = TextEncoder::open(&fresh.bundle()).unwrap();
        let embeddings = encoder.encode(&prompts, RunBudget::ample(), &mut go_on).unwrap();
        check(&format!("{model} text"), &embeddings.values, &goldens.get("text.out").values, 1e-4);
        if let Some(pooled) = goldens.find("text.pooled") {
            check(&format!("{model} pooled"), &embeddings.pooled, &pooled.values, 1e-4);
        }
    }
}

#[test]
fn unets_agree() {
    for model in MODELS {
        let goldens = Goldens::open(model);
        let fresh = Fresh::new(model, Format::F32);
        let mut unet = Unet::open(&fresh.bundle()).unwrap();
        for case in goldens.cases("unet") {
            let input = goldens.get(&format!("{case}.in")).latents();
            let timestep = case.split('.').nth(1).unwrap().parse().unwrap();
            let mut steps =
                unet.start(&input, goldens.embeddings(), None, GUIDANCE, &[timestep], RunBudget::ample()).unwrap();
            let output = steps.predict(input, &mut go_on).unwrap();
            check(&format!("{model} {case}"), &output, &goldens.get(&format!("{case}.out")).latents().values, 1e-3);
        }
    }
}

#[test]
fn decoders_agree() {
    for model in MODELS {
        let goldens = Goldens::open(model);
        let fresh = Fresh::new(model, Format::F32);
        let bundle = fresh.bundle();
        let scale = bundle.manifest.picture.latent_scale as f32;
        let mut decoder = VaeDecoder::open(&bundle, AutoencoderKind::Full).unwrap();
        for case in goldens.cases("decode") {
            let mut latents = goldens.get(&format!("{case}.in")).latents();
            latents.values.iter_mut().for_each(|value| *value *= scale);
            let pixels = decoder.decode(&latents, RunBudget::ample(), &mut go_on).unwrap();
            check(&format!("{model} {case}"), &pixels, &goldens.get(&format!("{case}.out")).latents().values, 1e-3);
        }
    }
}

#[test]
fn encoders_agree() {
    for model in MODELS {
        let goldens = Goldens::open(model);
        let fresh = Fresh::new(model, Format::F32);
        let bundle = fresh.bundle();
        let scale = bundle.manifest.picture.latent_scale as f32;
        let mut encoder = VaeEncoder::open(&bundle, AutoencoderKind::Full).unwrap();
        for case in goldens.cases("encode") {
            let Latents { height, width, values, .. } = goldens.get(&format!("{case}.in")).latents();
            let moments = encoder.encode(values, (width, height), RunBudget::ample(), &mut go_on).unwrap();
            let (rows, columns, channels) = moments.shape();
            let wanted = goldens.get(&format!("{case}.out"));
            let (means, log_variances) = wanted.values.split_at(rows * columns * channels);
            for draw in [0.0f32, 1.0] {
                let wanted = means.iter().zip(log_variances);
                let wanted: Vec<f32> =
                    wanted.map(|(mean, log)| scale * (mean + draw * (0.5 * log.clamp(-30.0, 20.0)).exp())).collect();
                let wanted = Latents::from_planes(&wanted, rows, columns, channels).values;
                let ours = moments.sample(|| vec![draw; wanted.len()]).values;
                check(&format!("{model} {case}, noise {draw}"), &ours, &wanted, 1e-3);
            }
        }
    }
}
