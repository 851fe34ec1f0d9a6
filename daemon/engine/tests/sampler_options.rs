//! Every option that scheduler files publish, every noise schedule and every eta does what the reference does with it:
//! goldens of tests/goldens/make_sampler_options.py.

use diffused_engine::noise::Noise;
use diffused_engine::sampler::{
    History, NoiseDraws, NoiseSchedule, Sampler, SamplerChoice, SamplerKind, SamplingConfig,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

const GOLDENS: &str = include_str!("../../../tests/goldens/sampler_options.json");
const SIZE: usize = 4;

#[derive(Deserialize)]
struct Case {
    sampler: SamplerKind,
    steps: usize,
    /// What the manifest says beside the training's defaults.
    sampling: Map<String, Value>,
    strength: Option<f64>,
    scheduler: Option<NoiseSchedule>,
    eta: Option<f64>,
    /// Of the Brownian motion.
    seed: Option<u64>,
    timesteps: Vec<f64>,
    last: Vec<f32>,
}

fn cases() -> Vec<Case> {
    serde_json::from_str(GOLDENS).unwrap()
}

/// The same values as the script's.
fn wave(seed: usize) -> Vec<f32> {
    (0..SIZE).map(|i| (((i * 37 + seed * 101) % 256) as f32 - 128.0) / 128.0).collect()
}

fn config(case: &Case) -> SamplingConfig {
    let mut config = json!({
        "default": case.sampler, "steps": 20, "cfg_scale": 7.5, "prediction": "epsilon",
        "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "train_timesteps": 1000,
        "spacing": null, "steps_offset": null, "set_alpha_to_one": null, "skip_prk_steps": null,
        "rescale_betas_zero_snr": false, "original_inference_steps": null,
    });
    config.as_object_mut().unwrap().extend(case.sampling.clone());
    serde_json::from_value(config).unwrap()
}

/// The timesteps, and the latents after the last call.
fn trajectory(case: &Case) -> (Vec<f64>, Vec<f32>) {
    let choice = SamplerChoice { kind: case.sampler, schedule: case.scheduler, eta: case.eta };
    let sampler = Sampler::new(choice, &config(case), case.steps, case.strength).unwrap();
    let timesteps = sampler.timesteps().to_vec();
    let mut latents = match case.strength {
        None => sampler.noise_latents(&wave(1)),
        Some(_) => sampler.image_latents(&wave(2), &wave(1)),
    };
    let (mut history, mut draws) = (History::default(), 1000..);
    for call in 0..timesteps.len() {
        let input = sampler.model_input(call, &latents);
        let output = input.iter().zip(wave(10 + call)).map(|(x, wave)| 0.1 * x + 0.9 * wave).collect();
        let next = &mut || wave(draws.next().unwrap());
        let of_seed = &|seed| Noise::new(u64::from(seed)).randn(SIZE);
        let draws = &mut NoiseDraws { next, of_seed, seed: case.seed.unwrap_or(0) };
        latents = sampler.step(&mut history, output, &latents, draws);
    }
    (timesteps, latents)
}

/// Largest difference relative to the largest value.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    let largest = b.iter().fold(1e-6f32, |m, v| m.max(v.abs()));
    a.iter().zip(b).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / largest
}

#[test]
fn trajectories_equal_the_reference() {
    let mut wrong = vec![];
    for case in cases() {
        let Case { sampler, steps, sampling, strength, scheduler, eta, .. } = &case;
        let name = format!("{sampler} {steps} {} {strength:?} {scheduler:?} {eta:?}", json!(sampling));
        let (timesteps, last) = trajectory(&case);
        let off = timesteps.iter().zip(&case.timesteps).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        if timesteps.len() != case.timesteps.len() || off > 1e-2 {
            wrong.push(format!("{name}: timesteps {timesteps:?}, not {:?}", case.timesteps));
            continue;
        }
        // With zero terminal SNR the first sigma is 4096, where the reference's f32 latents lose three digits.
        let tolerance = if sampling.contains_key("rescale_betas_zero_snr") { 1e-4 } else { 1e-5 };
        let off = distance(&last, &case.last);
        if off.is_nan() || off >= tolerance {
            wrong.push(format!("{name}: {off:e} off\n  {last:?}\n  {:?}", case.last));
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// The bits themselves, so that a change of the arithmetic is seen that the reference's tolerance lets pass.
#[test]
fn trajectories_keep_their_bits() {
    let cases = cases();
    let mut hash = Sha256::new();
    for case in &cases {
        let (timesteps, last) = trajectory(case);
        timesteps.iter().for_each(|t| hash.update(t.to_le_bytes()));
        last.iter().for_each(|value| hash.update(value.to_le_bytes()));
    }
    let hash: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((cases.len(), hash.as_str()), (751, "7bd196d2c5c4db6b"));
}

#[test]
fn every_sampler_and_schedule_has_goldens() {
    let others: Vec<Value> = serde_json::from_str(include_str!("../../../tests/goldens/samplers.json")).unwrap();
    let cases = cases();
    for kind in SamplerKind::ALL {
        let there = cases.iter().any(|case| case.sampler == kind);
        assert!(there || others.iter().any(|case| case["sampler"] == kind.name()), "{kind} has no goldens");
    }
    for schedule in NoiseSchedule::ALL {
        assert!(cases.iter().any(|case| case.scheduler == Some(schedule)), "{schedule} has no goldens");
    }
}
