//! The noise schedule that a model was trained with, and the timesteps that a sampler visits of it.

use super::{BetaSchedule, SamplingConfig, Spacing};

/// Cumulative products of the alphas, one for each training timestep, as torch computes them: betas in f32, products in f64.
pub(super) fn alphas_cumprod(config: &SamplingConfig) -> Vec<f64> {
    cumulative(config, &betas(config, evenly))
}

fn cumulative(config: &SamplingConfig, betas: &[f32]) -> Vec<f64> {
    let mut alphas: Vec<f64> = betas.iter().map(|beta| f64::from(1.0 - beta)).collect();
    if config.rescale_betas_zero_snr {
        rescale_zero_terminal_snr(&mut alphas);
    }
    let mut product = 1.0;
    alphas
        .iter()
        .map(|alpha| {
            product *= alpha;
            f64::from(product as f32)
        })
        .collect()
}

/// `line` gives a number of values evenly from one to another.
fn betas(config: &SamplingConfig, line: fn(f64, f64, usize) -> Vec<f32>) -> Vec<f32> {
    let count = config.train_timesteps;
    match config.beta_schedule {
        BetaSchedule::Linear => line(config.beta_start, config.beta_end, count),
        BetaSchedule::ScaledLinear => {
            line(config.beta_start.sqrt(), config.beta_end.sqrt(), count).iter().map(|root| root * root).collect()
        }
        BetaSchedule::SquaredcosCapV2 => (0..count).map(|i| squared_cosine_beta(i, count) as f32).collect(),
    }
}

/// Each the nearest f32.
fn evenly(from: f64, to: f64, count: usize) -> Vec<f32> {
    let step = (to - from) / (count.max(2) - 1) as f64;
    (0..count).map(|i| (from + step * i as f64) as f32).collect()
}

/// As `torch.linspace` in f32: from both ends, each value with one rounding after the step's.
fn evenly_in_f32(from: f64, to: f64, count: usize) -> Vec<f32> {
    let (from, to) = (from as f32, to as f32);
    let last = count.max(2) - 1;
    let step = f64::from((to - from) / last as f32);
    let value = |i: usize| match i < count / 2 {
        true => (f64::from(from) + step * i as f64) as f32,
        false => (f64::from(to) - step * (last - i) as f64) as f32,
    };
    (0..count).map(value).collect()
}

/// Nichol & Dhariwal 2021, equation 17, capped as there.
fn squared_cosine_beta(i: usize, count: usize) -> f64 {
    let alpha_bar = |t: f64| {
        let cosine = libm::cos((t + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2);
        cosine * cosine
    };
    let at = |i: usize| alpha_bar(i as f64 / count as f64);
    (1.0 - at(i + 1) / at(i)).min(0.999)
}

/// Lin et al. 2023, algorithm 1: the last timestep is pure noise.
fn rescale_zero_terminal_snr(alphas: &mut [f64]) {
    let mut product = 1.0;
    let roots: Vec<f64> = alphas
        .iter()
        .map(|alpha| {
            product *= alpha;
            f64::from(product as f32).sqrt()
        })
        .collect();
    let (Some(first), Some(last)) = (roots.first().copied(), roots.last().copied()) else { return };
    let bars: Vec<f64> =
        roots.iter().map(|root| (root - last) * first / (first - last)).map(|root| root * root).collect();
    for (i, alpha) in alphas.iter_mut().enumerate() {
        let ratio = if i == 0 { bars[0] } else { bars[i] / bars[i - 1] };
        // Betas pass through f32 in the reference implementation.
        *alpha = f64::from(1.0 - (1.0 - ratio) as f32);
    }
}

/// `count` timesteps, first one first: whole numbers, but for `Spacing::Linspace`, whose samplers round them.
pub(super) fn timesteps(config: &SamplingConfig, spacing: Spacing, count: usize) -> Vec<f64> {
    timesteps_to(config, spacing, count, config.train_timesteps)
}

/// The same of the first `end` training timesteps alone. Trailing ones keep the distance that they have among all, so
/// that there may be fewer.
pub(super) fn timesteps_to(config: &SamplingConfig, spacing: Spacing, count: usize, end: usize) -> Vec<f64> {
    let descending = (0..count).rev();
    match spacing {
        Spacing::Linspace => {
            let step = (end - 1) as f64 / (count.max(2) - 1) as f64;
            let point = |i: usize| if i > 0 && i + 1 == count { (end - 1) as f64 } else { i as f64 * step };
            descending.map(point).collect()
        }
        Spacing::Leading => {
            let offset = config.steps_offset.unwrap_or(0);
            descending.map(|i| (i * (end / count) + offset) as f64).collect()
        }
        Spacing::Trailing => {
            let ratio = config.train_timesteps as f64 / count as f64;
            let places = (0..count).map(|i| end as f64 - i as f64 * ratio).take_while(|place| *place > 0.0);
            places.map(|place| libm::rint(place) - 1.0).collect()
        }
    }
}

/// Noise's deviation relative to the image's, for each training timestep.
pub(super) fn training_sigmas(config: &SamplingConfig) -> Vec<f64> {
    let mut alphas_cumprod = alphas_cumprod(config);
    if let (true, Some(last)) = (config.rescale_betas_zero_snr, alphas_cumprod.last_mut()) {
        // As the reference: the last sigma would be infinite.
        *last = 2f64.powi(-24);
    }
    alphas_cumprod.iter().map(|alpha| ((1.0 - alpha) / alpha).sqrt()).collect()
}

/// The same with each operation rounded to f32, as torch rounds.
pub(super) fn training_sigmas_f32(config: &SamplingConfig) -> Vec<f64> {
    let sigma = |alpha: f32| ((1.0 - alpha) / alpha).sqrt();
    let alphas = cumulative(config, &betas(config, evenly_in_f32));
    alphas.into_iter().map(|alpha| f64::from(sigma(alpha as f32))).collect()
}

/// The sigmas at `timesteps`.
pub(super) fn sigmas(config: &SamplingConfig, timesteps: &[f64]) -> Vec<f64> {
    let all = training_sigmas(config);
    timesteps.iter().map(|t| interpolate(&all, *t)).collect()
}

/// The value at a fractional timestep.
pub(super) fn interpolate(values: &[f64], t: f64) -> f64 {
    let low = (t.max(0.0) as usize).min(values.len() - 1);
    let high = (low + 1).min(values.len() - 1);
    values[low] + (t - low as f64) * (values[high] - values[low])
}

/// Where `sigma` lies among the training timesteps, by its logarithm. The reference has theirs in f32, which tells where
/// a whole timestep is cut off.
pub(super) fn timestep(sigmas: &[f64], sigma: f64) -> f64 {
    let log = libm::log(sigma.max(1e-10));
    let logs = |sigma: f64| f64::from(libm::log(sigma) as f32);
    let low = sigmas.partition_point(|other| logs(*other) <= log).saturating_sub(1).min(sigmas.len() - 2);
    let (from, to) = (logs(sigmas[low]), logs(sigmas[low + 1]));
    let part = (from - log) / (from - to);
    low as f64 + part.clamp(0.0, 1.0)
}
