//! The autoencoder: latents to pixels and back. Pixels here are f32 from -1 to 1, `[height][width][3]`.

use crate::bundle::Bundle;
use crate::bundle::{AutoencoderKind, PictureSizes};
use crate::error::Result;
use crate::graph::{InputShape, InputValues, Signature};
use crate::latents::Latents;
use crate::memory_plan::{Demand, RunBudget};
use crate::network::{Network, Tick};
use crate::picture::COLOURS;

/// A decoder.
pub struct VaeDecoder {
    network: Network,
    sizes: PictureSizes,
    latent_scale: f32,
}

impl VaeDecoder {
    /// Opens the bundle's decoder of this kind; reads no weights yet.
    pub fn open(bundle: &Bundle, kind: AutoencoderKind) -> Result<VaeDecoder> {
        let sizes = bundle.manifest.picture.clone();
        Ok(VaeDecoder { network: Network::open(bundle, kind.decoder(), 1)?, latent_scale: sizes.scale(kind), sizes })
    }

    /// The image of `latents`.
    pub fn decode(&mut self, latents: &Latents, budget: RunBudget, tick: &mut Tick) -> Result<Vec<f32>> {
        let scaled = latents.values.iter().map(|value| value / self.latent_scale).collect();
        let output = self.image(latents.height, latents.width);
        self.network.run(vec![InputValues::F32(latents.shape(1), scaled)], output, budget, tick)
    }

    /// Checks that the smallest latents give an image of the manifest's size.
    pub(crate) fn check(&self) -> Result<()> {
        let latents = self.sizes.smallest_latents();
        let output = self.image(latents[1], latents[2]);
        let signature = Signature { inputs: vec![InputShape::F32(latents.to_vec())], output };
        self.network.check(&signature, &keys(&self.sizes))
    }

    /// What decoding latents of this size needs.
    pub(crate) fn demand(&mut self, height: usize, width: usize) -> Result<Demand> {
        let latents = vec![1, height, width, self.sizes.latent_channels];
        let output = self.image(height, width);
        self.network.demand(&Signature { inputs: vec![InputShape::F32(latents)], output }, 1)
    }

    /// The shape of the image of latents of this size.
    fn image(&self, height: usize, width: usize) -> Vec<usize> {
        vec![1, height * self.sizes.factor, width * self.sizes.factor, COLOURS]
    }

    /// Frees weights and schedules.
    pub(crate) fn forget(&mut self) {
        self.network.forget();
    }
}

/// An encoder.
pub struct VaeEncoder {
    network: Network,
    sizes: PictureSizes,
    kind: AutoencoderKind,
}

/// The distribution that an encoder sees in an image, one normal for each value of the latents; a tiny encoder sees the
/// latents themselves.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    kind: AutoencoderKind,
    /// Means, then, but for a tiny encoder's, log variances, of each pixel.
    values: Vec<f32>,
    height: usize,
    width: usize,
    channels: usize,
    latent_scale: f32,
}

impl VaeEncoder {
    /// Opens the bundle's encoder of this kind; reads no weights yet.
    pub fn open(bundle: &Bundle, kind: AutoencoderKind) -> Result<VaeEncoder> {
        let sizes = bundle.manifest.picture.clone();
        Ok(VaeEncoder { network: Network::open(bundle, kind.encoder(), 1)?, sizes, kind })
    }

    /// The distribution of an image's latents.
    pub fn encode(
        &mut self,
        pixels: Vec<f32>,
        (width, height): (usize, usize),
        budget: RunBudget,
        tick: &mut Tick,
    ) -> Result<Moments> {
        let output = self.moments(width, height);
        let input = InputValues::F32(vec![1, height, width, COLOURS], pixels);
        let values = self.network.run(vec![input], output, budget, tick)?;
        let PictureSizes { factor, latent_channels: channels, .. } = self.sizes;
        let (kind, latent_scale) = (self.kind, self.sizes.scale(self.kind));
        Ok(Moments { kind, values, height: height / factor, width: width / factor, channels, latent_scale })
    }

    /// Checks that the smallest image gives latents of the manifest's size.
    pub(crate) fn check(&self) -> Result<()> {
        let side = self.sizes.smallest;
        let inputs = vec![InputShape::F32(vec![1, side, side, COLOURS])];
        let signature = Signature { inputs, output: self.moments(side, side) };
        self.network.check(&signature, &keys(&self.sizes))
    }

    /// What encoding an image of this size needs.
    pub(crate) fn demand(&mut self, width: usize, height: usize) -> Result<Demand> {
        let output = self.moments(width, height);
        let inputs = vec![InputShape::F32(vec![1, height, width, COLOURS])];
        self.network.demand(&Signature { inputs, output }, 1)
    }

    /// The shape of the distribution of an image of this size.
    fn moments(&self, width: usize, height: usize) -> Vec<usize> {
        let PictureSizes { factor, latent_channels, .. } = self.sizes;
        vec![1, height / factor, width / factor, latent_channels * numbers(self.kind)]
    }

    /// Frees weights and schedules.
    pub(crate) fn forget(&mut self) {
        self.network.forget();
    }

    /// How many of its matrices stay in memory.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        self.network.kept()
    }
}

/// Of how many numbers an encoder's distribution of one value is.
fn numbers(kind: AutoencoderKind) -> usize {
    match kind {
        AutoencoderKind::Full => 2,
        AutoencoderKind::Tiny => 1,
    }
}

/// What the autoencoder's shapes come from.
fn keys(sizes: &PictureSizes) -> String {
    format!("picture.factor {} and picture.latent_channels {}", sizes.factor, sizes.latent_channels)
}

impl Moments {
    /// Latents of the distribution (diffusers' `retrieve_latents`). `noise` gives a standard normal for each of their
    /// values; it is called once, and of a tiny encoder's not at all.
    pub fn sample(&self, noise: impl FnOnce() -> Vec<f32>) -> Latents {
        let Moments { height, width, channels, .. } = *self;
        let drawn = match self.kind {
            AutoencoderKind::Full => self.draw(&noise()),
            AutoencoderKind::Tiny => self.values.clone(),
        };
        let values = drawn.into_iter().map(|value| self.latent_scale * value).collect();
        Latents { height, width, channels, values }
    }

    /// diffusers' `DiagonalGaussianDistribution.sample`.
    fn draw(&self, noise: &[f32]) -> Vec<f32> {
        let pixels = self.values.chunks_exact(2 * self.channels).zip(noise.chunks_exact(self.channels));
        let values = pixels.flat_map(|(moments, noise)| {
            let (means, log_variances) = moments.split_at(self.channels);
            let draws = means.iter().zip(log_variances).zip(noise);
            draws.map(|((mean, log_variance), noise)| draw(*mean, *log_variance, *noise))
        });
        values.collect()
    }

    /// Whether latents are drawn with noise.
    pub(crate) fn is_drawn(&self) -> bool {
        self.kind == AutoencoderKind::Full
    }

    /// Rows, columns and channels of the latents.
    pub fn shape(&self) -> (usize, usize, usize) {
        (self.height, self.width, self.channels)
    }
}

fn draw(mean: f32, log_variance: f32, noise: f32) -> f32 {
    let deviation = libm::expf(0.5 * log_variance.clamp(-30.0, 20.0));
    mean + deviation * noise
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_have_the_means_and_deviations() {
        let values = vec![1.0, 2.0, 0.0, f32::MIN, 3.0, 4.0, 4f32.ln(), 0.0];
        let kind = AutoencoderKind::Full;
        let moments = Moments { kind, values, height: 1, width: 2, channels: 2, latent_scale: 0.5 };
        let latents = moments.sample(|| vec![1.0, 1.0, -1.0, 0.0]);
        let wanted = [1.0, 1.0, 0.5, 2.0];
        assert!(latents.values.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-6), "{:?}", latents.values);
    }

    #[test]
    fn a_tiny_encoders_latents_are_not_drawn() {
        let (kind, values) = (AutoencoderKind::Tiny, vec![1.0, -2.0]);
        let moments = Moments { kind, values, height: 1, width: 1, channels: 2, latent_scale: 0.5 };
        assert_eq!(moments.sample(|| unreachable!("nothing is drawn")).values, [0.5, -1.0]);
    }
}
