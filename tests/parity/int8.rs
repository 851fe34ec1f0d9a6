//! What int8 weights and activations cost, against f32.

use std::io::{Write, stderr};

use diffused_engine::bundle::AutoencoderKind;
use diffused_engine::memory_plan::RunBudget;
use diffused_engine::request::{NoObserver, Request, Start};
use diffused_engine::unet::Unet;
use diffused_engine::vae::VaeDecoder;
use diffused_engine::{Engine, Options, Resolver};
use image::RgbImage;
use model_prep::Format;

use crate::networks::{GUIDANCE, Goldens};
use crate::small::with_tiny;
use crate::{Fresh, MODELS};

/// Prints past the test's capture: the figures are shown even when they are good.
pub(crate) fn report(line: &str) {
    let _ = writeln!(stderr(), "{line}");
}

/// Signal to noise in decibels: the power of `exact` over that of the difference.
fn decibels(exact: &[f32], other: &[f32]) -> f64 {
    let power = |values: &mut dyn Iterator<Item = f32>| values.map(|value| f64::from(value).powi(2)).sum::<f64>();
    let noise = power(&mut exact.iter().zip(other).map(|(a, b)| a - b));
    10.0 * (power(&mut exact.iter().copied()) / noise).log10()
}

/// Peak signal to noise ratio of pictures of 8 bits, in decibels.
pub(crate) fn psnr(exact: &RgbImage, other: &RgbImage) -> f64 {
    let squares = exact.as_raw().iter().zip(other.as_raw()).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2));
    10.0 * (255f64.powi(2) * exact.as_raw().len() as f64 / squares.sum::<f64>()).log10()
}

#[test]
fn a_pass_of_the_demo_unet_is_near() {
    let goldens = Goldens::open("demo");
    let [exact, int8] = [Format::F32, Format::Int8].map(|weights| {
        let fresh = Fresh::new("demo", weights);
        let mut unet = Unet::open(&fresh.bundle()).unwrap();
        let mut predict = |case: &String| {
            let input = goldens.get(&format!("{case}.in")).latents();
            let timestep = case.split('.').nth(1).unwrap().parse().unwrap();
            let mut steps =
                unet.start(&input, goldens.embeddings(), None, GUIDANCE, &[timestep], RunBudget::ample()).unwrap();
            steps.predict(input, &mut |_| {}).unwrap()
        };
        goldens.cases("unet").iter().map(&mut predict).collect::<Vec<_>>()
    });
    let worst = exact.iter().zip(&int8).map(|(exact, int8)| decibels(exact, int8)).fold(f64::INFINITY, f64::min);
    report(&format!("int8 UNet pass: {worst:.1} dB signal to noise at worst, of {} passes", exact.len()));
    assert!(worst >= 42.0, "{worst:.1} dB");
}

/// Pictures of the demo model, of the first `count` prompts.
pub(crate) fn paint(bundle: &Fresh, count: usize) -> Vec<RgbImage> {
    let prompts: Vec<&str> = include_str!("../scenes/prompts.txt").lines().take(count).collect();
    let resolver = Resolver::open(bundle.source()).unwrap();
    let mut engine = Engine::open(bundle.source(), Options::default()).unwrap();
    let mut paint = |(prompt, seed): (&&str, u64)| {
        let request = Request { prompt: prompt.to_string(), seed, cfg_scale: Some(5.0), ..Request::default() };
        engine.paint(&resolver.resolve(&request, None).unwrap(), Start::Noise, &mut NoObserver).unwrap()
    };
    prompts.iter().zip(1..).map(&mut paint).collect()
}

/// The median of an even number of values.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let upper = values.len() / 2;
    (values[upper - 1] + values[upper]) / 2.0
}

#[test]
fn pictures_of_the_demo_model_are_near() {
    let [exact, int8] = [Format::F32, Format::Int8].map(|weights| paint(&Fresh::new("demo", weights), 20));
    let ratios: Vec<f64> = exact.iter().zip(&int8).map(|(exact, int8)| psnr(exact, int8)).collect();
    let (worst, best) = ratios.iter().fold((f64::INFINITY, 0f64), |(a, b), ratio| (a.min(*ratio), b.max(*ratio)));
    let median = median(ratios);
    report(&format!("int8 pictures: PSNR {median:.1} dB in the median of 20 prompts, from {worst:.1} to {best:.1}"));
    assert!(median >= 44.0, "{median:.1} dB");
}

/// The autoencoder of this model makes values beyond what f16 holds, as SDXL's own does.
#[test]
fn activations_beyond_half_precision_stay_right() {
    let goldens = Goldens::open("sdxl");
    for (weights, least) in [(Format::F16, 55.0), (Format::Int8, 25.0)] {
        let fresh = Fresh::new("sdxl", weights);
        let bundle = fresh.bundle();
        let scale = bundle.manifest.picture.latent_scale as f32;
        let mut decoder = VaeDecoder::open(&bundle, AutoencoderKind::Full).unwrap();
        for case in goldens.cases("decode") {
            let mut latents = goldens.get(&format!("{case}.in")).latents();
            latents.values.iter_mut().for_each(|value| *value *= scale);
            let pixels = decoder.decode(&latents, RunBudget::ample(), &mut |_| {}).unwrap();
            let near = decibels(&goldens.get(&format!("{case}.out")).latents().values, &pixels);
            report(&format!("sdxl {case} with weights in {}: {near:.1} dB signal to noise", weights.name()));
            assert!(near >= least, "{near:.1} dB");
        }
    }
}

#[test]
fn pictures_of_tiny_models_are_near() {
    const TINY_DECODER: &str = "sd1 with a tiny decoder";
    let tiny = MODELS.into_iter().filter(|model| *model != "demo");
    for model in tiny.chain(["sdxs", "turbo", "inpaint", TINY_DECODER]) {
        let [exact, int8] = [Format::F32, Format::Int8].map(|weights| {
            let bundle = if model == TINY_DECODER { with_tiny("taesd", weights) } else { Fresh::new(model, weights) };
            let decoder = (model == TINY_DECODER).then_some(AutoencoderKind::Tiny);
            let resolver = Resolver::open(bundle.source()).unwrap();
            let mut engine = Engine::open(bundle.source(), Options::default()).unwrap();
            let mut paint = |seed: u64| {
                // Models of a single step have that by default.
                let steps = if ["sdxs", "turbo"].contains(&model) { None } else { Some(4) };
                let request = Request { prompt: "a red house".into(), seed, steps, decoder, ..Request::default() };
                engine.paint(&resolver.resolve(&request, None).unwrap(), Start::Noise, &mut NoObserver).unwrap()
            };
            (1..=9).map(&mut paint).collect::<Vec<_>>()
        });
        let mut ratios: Vec<f64> = exact.iter().zip(&int8).map(|(exact, int8)| psnr(exact, int8)).collect();
        ratios.sort_by(f64::total_cmp);
        report(&format!(
            "int8 pictures of {model}: PSNR {:.1} dB in the median of 9 seeds, from {:.1} to {:.1}",
            ratios[4], ratios[0], ratios[8]
        ));
        assert!(ratios[4] >= 28.0, "{model}: {ratios:?}");
    }
}
