//! The autoencoder: latents to pixels and back. Pixels here are f32 from -1 to 1, `[height][width][3]`.

use crate::bundle::Bundle;
use crate::bundle::PictureSizes;
use crate::error::Result;
use crate::graph::{InputShape, InputValues, Signature};
use crate::latents::Latents;
use crate::memory_plan::{Demand, RunBudget};
use crate::network::{Network, Tick};

/// Colour channels of an image.
const COLOURS: usize = 3;

/// The decoder.
pub struct VaeDecoder {
    network: Network,
    sizes: PictureSizes,
}

impl VaeDecoder {
    /// Opens the bundle's `vae_decoder`; reads no weights yet.
    pub fn open(bundle: &Bundle) -> Result<VaeDecoder> {
        Ok(VaeDecoder { network: Network::open(bundle, "vae_decoder", 1)?, sizes: bundle.manifest.picture.clone() })
    }

    /// The image of `latents`.
    pub fn decode(&mut self, latents: &Latents, budget: RunBudget, tick: &mut Tick) -> Result<Vec<f32>> {
        let scale = self.sizes.latent_scale as f32;
        let scaled = latents.values.iter().map(|value| value / scale).collect();
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
        self.network.demand(&Signature { inputs: vec![InputShape::F32(latents)], output })
    }

    /// The shape of the image of latents of this size.
    fn image(&self, height: usize, width: usize) -> Vec<usize> {
        vec![1, height * self.sizes.factor, width * self.sizes.factor, COLOURS]
    }

    /// Frees the weights.
    pub(crate) fn forget(&mut self) {
        self.network.forget();
    }
}

/// The encoder.
pub struct VaeEncoder {
    network: Network,
    sizes: PictureSizes,
}

/// The distribution that the encoder sees in an image, one normal for each value of the latents.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    /// Means, then log variances, of each pixel.
    values: Vec<f32>,
    height: usize,
    width: usize,
    channels: usize,
    latent_scale: f32,
}

impl VaeEncoder {
    /// Opens the bundle's `vae_encoder`; reads no weights yet.
    pub fn open(bundle: &Bundle) -> Result<VaeEncoder> {
        Ok(VaeEncoder { network: Network::open(bundle, "vae_encoder", 1)?, sizes: bundle.manifest.picture.clone() })
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
        let PictureSizes { factor, latent_channels: channels, latent_scale, .. } = self.sizes;
        let latent_scale = latent_scale as f32;
        Ok(Moments { values, height: height / factor, width: width / factor, channels, latent_scale })
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
        self.network.demand(&Signature { inputs, output })
    }

    /// The shape of the distribution of an image of this size: means and log variances.
    fn moments(&self, width: usize, height: usize) -> Vec<usize> {
        let PictureSizes { factor, latent_channels, .. } = self.sizes;
        vec![1, height / factor, width / factor, 2 * latent_channels]
    }

    /// Frees the weights.
    pub(crate) fn forget(&mut self) {
        self.network.forget();
    }
}

/// What the autoencoder's shapes come from.
fn keys(sizes: &PictureSizes) -> String {
    format!("picture.factor {} and picture.latent_channels {}", sizes.factor, sizes.latent_channels)
}

impl Moments {
    /// Latents drawn with `noise`, a standard normal for each of their values (diffusers' `DiagonalGaussianDistribution`).
    pub fn sample(&self, noise: &[f32]) -> Latents {
        let pixels = self.values.chunks_exact(2 * self.channels).zip(noise.chunks_exact(self.channels));
        let values = pixels.flat_map(|(moments, noise)| {
            let (means, log_variances) = moments.split_at(self.channels);
            let draws = means.iter().zip(log_variances).zip(noise);
            draws.map(|((mean, log_variance), noise)| self.latent_scale * draw(*mean, *log_variance, *noise))
        });
        let Moments { height, width, channels, .. } = *self;
        Latents { height, width, channels, values: values.collect() }
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
        let moments = Moments { values, height: 1, width: 2, channels: 2, latent_scale: 0.5 };
        let latents = moments.sample(&[1.0, 1.0, -1.0, 0.0]);
        let wanted = [1.0, 1.0, 0.5, 2.0];
        assert!(latents.values.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-6), "{:?}", latents.values);
    }
}
