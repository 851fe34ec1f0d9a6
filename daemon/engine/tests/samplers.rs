//! Every sampler goes the way of diffusers' scheduler: goldens of tests/goldens/make_samplers.py.

use diffused_engine::error::Error;
use diffused_engine::sampler::{
    BetaSchedule, History, NoiseDraws, Prediction, Sampler, SamplerKind, SamplerOptions, SamplingConfig,
};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

const GOLDENS: &str = include_str!("../../../tests/goldens/samplers.json");
const SIZE: usize = 16;

#[derive(Deserialize)]
struct Case {
    sampler: SamplerKind,
    config: Value,
    steps: usize,
    strength: Option<f64>,
    timesteps: Vec<f64>,
    first: Vec<f32>,
    middle: Vec<f32>,
    last: Vec<f32>,
}

/// The same values as the script's.
fn wave(seed: usize) -> Vec<f32> {
    (0..SIZE).map(|i| (((i * 37 + seed * 101) % 256) as f32 - 128.0) / 128.0).collect()
}

fn config(case: &Case) -> SamplingConfig {
    let field = |name: &str| case.config.get(name).cloned();
    let parse = |name: &str| field(name).map(|value| serde_json::from_value(value).unwrap());
    SamplingConfig {
        default: case.sampler,
        steps: 20,
        cfg_scale: 7.5,
        prediction: serde_json::from_value::<Prediction>(field("prediction_type").unwrap()).unwrap(),
        beta_start: 0.00085,
        beta_end: 0.012,
        beta_schedule: field("beta_schedule")
            .map_or(BetaSchedule::ScaledLinear, |v| serde_json::from_value(v).unwrap()),
        train_timesteps: 1000,
        spacing: field("timestep_spacing").map(|value| serde_json::from_value(value).unwrap()),
        steps_offset: field("steps_offset").map(|value| serde_json::from_value(value).unwrap()),
        set_alpha_to_one: parse("set_alpha_to_one"),
        skip_prk_steps: parse("skip_prk_steps"),
        rescale_betas_zero_snr: parse("rescale_betas_zero_snr").unwrap_or(false),
        original_inference_steps: None,
        schedule: None,
        options: SamplerOptions::default(),
    }
}

/// Latents before the first and after every call.
fn trajectory(case: &Case) -> (Vec<f64>, Vec<Vec<f32>>) {
    let sampler = Sampler::new(case.sampler, &config(case), case.steps, case.strength).unwrap();
    let timesteps = sampler.timesteps().to_vec();
    let mut latents = match case.strength {
        None => sampler.noise_latents(&wave(1)),
        Some(_) => sampler.image_latents(&wave(2), &wave(1)),
    };
    let (mut history, mut draws) = (History::default(), 1000..);
    let mut all = vec![latents.clone()];
    for call in 0..timesteps.len() {
        let input = sampler.model_input(call, &latents);
        let output = input.iter().zip(wave(10 + call)).map(|(x, wave)| 0.1 * x + 0.9 * wave).collect();
        let next = &mut || wave(draws.next().unwrap());
        latents = sampler.step(&mut history, output, &latents, &mut NoiseDraws { next, of_seed: &|_| vec![], seed: 0 });
        all.push(latents.clone());
    }
    (timesteps, all)
}

/// Largest difference relative to the largest value.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    let largest = b.iter().fold(1e-6f32, |m, v| m.max(v.abs()));
    a.iter().zip(b).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / largest
}

#[test]
fn trajectories_equal_the_reference() {
    let cases: Vec<Case> = serde_json::from_str(GOLDENS).unwrap();
    assert!(cases.len() > 300);
    for case in cases {
        let name = format!("{} {} {} steps, strength {:?}", case.sampler, case.config, case.steps, case.strength);
        let (timesteps, all) = trajectory(&case);
        assert_eq!(timesteps.len(), case.timesteps.len(), "{name}");
        let off = timesteps.iter().zip(&case.timesteps).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(off < 1e-3, "{name}: timesteps {timesteps:?}, not {:?}", case.timesteps);
        // With zero terminal SNR the first sigma is 4096, where the reference's f32 latents lose three digits.
        let tolerance = if case.config.get("rescale_betas_zero_snr").is_some() { 1e-4 } else { 1e-5 };
        for (what, got, wanted) in [
            ("first", &all[0], &case.first),
            ("middle", &all[all.len() / 2], &case.middle),
            ("last", &all[all.len() - 1], &case.last),
        ] {
            let off = distance(got, wanted);
            assert!(off < tolerance, "{name}: {what} latents are {off:e} off\n{got:?}\n{wanted:?}");
        }
    }
}

/// The bits themselves, so that a change of the arithmetic is seen that the reference's tolerance lets pass.
#[test]
fn trajectories_keep_their_bits() {
    let cases: Vec<Case> = serde_json::from_str(GOLDENS).unwrap();
    let mut hash = Sha256::new();
    for case in &cases {
        let (timesteps, all) = trajectory(case);
        timesteps.iter().for_each(|t| hash.update(t.to_le_bytes()));
        all.iter().flatten().for_each(|value| hash.update(value.to_le_bytes()));
    }
    let hash: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((cases.len(), hash.as_str()), (351, "7da9e4687ca3a264"));
}

fn refused(kind: SamplerKind, steps: usize, strength: Option<f64>) -> Option<(&'static str, String)> {
    let cases: Vec<Case> = serde_json::from_str(GOLDENS).unwrap();
    match Sampler::new(kind, &config(&cases[0]), steps, strength) {
        Ok(_) => None,
        Err(Error::InvalidParam { field, message }) => Some((field, message)),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn steps_and_strengths_that_make_no_step_are_refused() {
    for (kind, steps, strength, field) in [
        (SamplerKind::Ddim, 0, None, "steps"),
        (SamplerKind::Ddim, 1001, None, "steps"),
        (SamplerKind::Lcm, 51, None, "steps"),
        (SamplerKind::Pndm, 3, None, "steps"),
        (SamplerKind::Euler, 4, Some(0.2), "denoising_strength"),
    ] {
        assert_eq!(refused(kind, steps, strength).unwrap().0, field, "{kind} {steps} {strength:?}");
    }
}

#[test]
fn the_strength_that_a_refusal_recommends_is_enough() {
    for steps in 1..=1000 {
        let (_, message) = refused(SamplerKind::Ddim, steps, Some(0.0)).unwrap();
        let least = message.rsplit_once("at least ").unwrap().1.strip_suffix(" is needed").unwrap();
        assert_eq!(refused(SamplerKind::Ddim, steps, least.parse().ok()), None, "{message}");
    }
}
