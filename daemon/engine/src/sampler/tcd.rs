//! Trajectory consistency sampling (Zheng et al. 2024, <https://arxiv.org/abs/2402.19159>, algorithm 4), as diffusers'
//! `TCDScheduler`: a jump to less noise than the next timestep's, by `eta` (the paper's γ), and new noise up to that.

use super::History;
use super::Prediction;
use super::lcm;
use super::method::{Alphas, Method, Mix, NoiseDraws};
use super::sigmas::Route;

#[derive(Debug)]
pub(super) struct Tcd {
    prediction: Prediction,
    alphas: Alphas,
    timesteps: Vec<f64>,
    eta: f64,
}

impl Tcd {
    /// `eta` from 0, without noise, to 1, as consistency models do.
    pub(super) fn new(route: &Route, eta: f64) -> Tcd {
        let Route { config, steps, .. } = *route;
        Tcd {
            prediction: config.prediction,
            alphas: Alphas::new(config, config.set_alpha_to_one.unwrap_or(true)),
            timesteps: lcm::timesteps(config, steps),
            eta,
        }
    }
}

impl Method for Tcd {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn noised(&self, call: usize) -> Mix {
        Mix::of_alpha(self.alphas.at(self.timesteps[call]))
    }

    fn step(
        &self,
        call: usize,
        _: &mut History,
        output: Vec<f32>,
        latents: &[f32],
        draws: &mut NoiseDraws,
    ) -> Vec<f32> {
        let next = self.timesteps.get(call + 1).copied();
        // In f32, as the reference multiplies.
        let low = f64::from(((1.0 - self.eta) as f32 * next.unwrap_or(0.0) as f32).floor());
        let (alpha, alpha_low) = (self.alphas.at(self.timesteps[call]), self.alphas.at(low));
        let (image, eps) = (self.prediction.image(alpha), self.prediction.noise(alpha));
        let Mix(signal, deviation) = Mix::of_alpha(alpha_low);
        let jump = Mix(signal * image.0 + deviation * eps.0, signal * image.1 + deviation * eps.1);
        let jumped = jump.of(latents, &output);
        match next {
            Some(next) if self.eta > 0.0 => {
                Mix::of_alpha(self.alphas.at(next) / alpha_low).of(&jumped, &draws.normals())
            }
            _ => jumped,
        }
    }
}
