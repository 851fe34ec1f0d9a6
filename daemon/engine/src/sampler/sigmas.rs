//! The sigmas that a sampler visits, noise's deviations relative to the image's, and the timesteps that belong to them.

use super::beta_distribution::quantile;
use super::noise_schedule::SigmaCurve;
use super::options::FinalSigma;
use super::{SamplingConfig, Spacing, schedule};

/// How a sampler goes through the noise schedule.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route<'a> {
    /// With its spacing.
    pub(super) config: &'a SamplingConfig,
    /// Sigmas that lie otherwise than those of evenly spaced timesteps.
    pub(super) curve: Option<SigmaCurve>,
    /// The number of steps.
    pub(super) steps: usize,
}

/// One sigma and its timestep before each step.
#[derive(Debug)]
pub(super) struct Sigmas {
    pub(super) timesteps: Vec<f64>,
    pub(super) sigmas: Vec<f64>,
}

impl Sigmas {
    /// For samplers whose latents are the image plus sigma times noise: a curve lies between the sigmas of the first and
    /// the last spaced timestep, or within `bounds`, the smallest and the largest, where they say otherwise.
    pub(super) fn between_spaced(route: &Route, bounds: (Option<f64>, Option<f64>)) -> Sigmas {
        let timesteps = spaced(route).into_iter().map(|t| f64::from(t as f32)).collect();
        Sigmas::between(route, timesteps, &schedule::training_sigmas(route.config), bounds)
    }

    /// The same to the last bit of the reference's f32, which has the training sigmas in f32 and the timesteps in f64.
    pub(super) fn between_spaced_exactly(route: &Route) -> Sigmas {
        Sigmas::between(route, spaced(route), &schedule::training_sigmas_f32(route.config), (None, None))
    }

    /// The sigmas at `timesteps` among those of training, or a curve between them.
    fn between(
        route: &Route,
        timesteps: Vec<f64>,
        training: &[f64],
        (low, high): (Option<f64>, Option<f64>),
    ) -> Sigmas {
        let sigmas: Vec<f64> = timesteps.iter().map(|t| schedule::interpolate(training, *t)).collect();
        let Some(curve) = route.curve else { return Sigmas { timesteps, sigmas } };
        let (first, last) = (sigmas[0], sigmas[sigmas.len() - 1]);
        Sigmas::on(route.config, spread(curve, high.unwrap_or(first), low.unwrap_or(last), route.steps))
    }

    /// For solvers in the logarithm of sigma (DPM-Solver, DEIS, UniPC): spaced timesteps divide the way to the timestep
    /// `end` into one part more, and its end is left out; a curve lies between all training sigmas. Timesteps are whole:
    /// rounded on Karras' curve, unless `exact`, and cut off otherwise.
    pub(super) fn of_solver(route: &Route, end: usize, exact: bool) -> Sigmas {
        let Route { config, curve, steps } = *route;
        if let Some(curve) = curve {
            let all = schedule::training_sigmas(config);
            let Sigmas { timesteps, sigmas } = Sigmas::on(config, spread(curve, all[all.len() - 1], all[0], steps));
            let whole = |t: f64| if curve.is_rounded() && !exact { libm::rint(t) } else { libm::trunc(t) };
            return Sigmas { timesteps: timesteps.into_iter().map(whole).collect(), sigmas };
        }
        let timesteps = match config.spacing.unwrap_or(Spacing::Linspace) {
            Spacing::Trailing => schedule::timesteps_to(config, Spacing::Trailing, steps, end),
            spacing => {
                let mut timesteps = schedule::timesteps_to(config, spacing, steps + 1, end);
                timesteps.pop();
                timesteps
            }
        };
        let timesteps: Vec<f64> = timesteps.into_iter().map(libm::rint).collect();
        Sigmas { sigmas: schedule::sigmas(config, &timesteps), timesteps }
    }

    /// These sigmas with the timesteps where the training sigmas are equal to them.
    fn on(config: &SamplingConfig, sigmas: Vec<f64>) -> Sigmas {
        let all = schedule::training_sigmas(config);
        Sigmas { timesteps: sigmas.iter().map(|sigma| schedule::timestep(&all, *sigma)).collect(), sigmas }
    }

    /// The sigmas in f32, as the reference holds them, with `last` after the last step.
    pub(super) fn up_to(&self, last: f64) -> Vec<f64> {
        self.sigmas.iter().chain([&last]).map(|sigma| f64::from(*sigma as f32)).collect()
    }
}

/// The timesteps before each step, evenly from the last to the first unless the model says otherwise.
fn spaced(route: &Route) -> Vec<f64> {
    schedule::timesteps(route.config, route.config.spacing.unwrap_or(Spacing::Linspace), route.steps)
}

/// The sigma after the last step: 0, or that of the first training timestep.
pub(super) fn last_sigma(config: &SamplingConfig, last: FinalSigma) -> f64 {
    match last {
        FinalSigma::Zero => 0.0,
        FinalSigma::SigmaMin => schedule::training_sigmas(config)[0],
    }
}

/// `steps` sigmas from `high` to `low`.
pub(super) fn spread(curve: SigmaCurve, high: f64, low: f64, steps: usize) -> Vec<f64> {
    let ramp = |i: usize| i as f64 / (steps.max(2) - 1) as f64;
    let along = |sigma: &dyn Fn(f64) -> f64| (0..steps).map(|i| sigma(ramp(i))).collect();
    match curve {
        SigmaCurve::Karras => {
            // Karras et al. 2022, equation 5.
            const RHO: f64 = 7.0;
            let root = |sigma: f64| libm::pow(sigma, 1.0 / RHO);
            let (low, high) = (root(low), root(high));
            along(&|ramp| libm::pow(high + ramp * (low - high), RHO))
        }
        SigmaCurve::Exponential | SigmaCurve::Lu => {
            let (low, high) = (libm::log(low), libm::log(high));
            along(&|ramp| libm::exp(high + ramp * (low - high)))
        }
        SigmaCurve::Beta => {
            // Lee et al. 2024, <https://arxiv.org/abs/2407.12173>.
            const SHAPE: f64 = 0.6;
            along(&|ramp| low + quantile(1.0 - ramp, SHAPE, SHAPE) * (high - low))
        }
        SigmaCurve::AlignYourSteps(table) => align_your_steps(table, steps),
    }
}

/// The sigmas that Sabour et al. 2024 (<https://arxiv.org/abs/2404.14507>) found for ten steps; other numbers of steps
/// interpolate their logarithms. The last of `table` is where the last step ends if noise is to be left.
fn align_your_steps(table: &[f64], steps: usize) -> Vec<f64> {
    let at = |i: usize| {
        let place = i as f64 * (table.len() - 1) as f64 / steps as f64;
        let low = (place as usize).min(table.len() - 2);
        let (from, to) = (libm::log(table[low]), libm::log(table[low + 1]));
        let part = place - low as f64;
        if part == 0.0 { table[low] } else { libm::exp(from + part * (to - from)) }
    };
    (0..steps).map(at).collect()
}
