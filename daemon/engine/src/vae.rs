//! The autoencoder: latents to pixels and back. Pixels here are f32 from -1 to 1, `[height][width][3]`.

use crate::bundle::PictureSizes;
use crate::error::Result;
use crate::graph::Value;
use crate::latents::Latents;
use crate::network::{Network, Tick};
use crate::source::Bundle;
use crate::weights::Residency;

/// Colour channels of a picture.
const COLOURS: usize = 3;

/// The decoder.
pub struct VaeDecoder {
    network: Network,
    latent_scale: f64,
}

impl VaeDecoder {
    /// Opens the bundle's `vae_decoder`; reads no weights yet.
    pub fn open(bundle: &Bundle, residency: Residency) -> Result<VaeDecoder> {
        let network = Network::open(bundle, "vae_decoder", 1, residency)?;
        Ok(VaeDecoder { network, latent_scale: bundle.manifest.picture.latent_scale })
    }

    /// The picture of `latents`.
    pub fn decode(&mut self, latents: &Latents, tick: &mut Tick) -> Result<Vec<f32>> {
        let scale = self.latent_scale as f32;
        let scaled = latents.values.iter().map(|value| value / scale).collect();
        self.network.run(vec![Value::F32(latents.shape(1), scaled)], tick)
    }

    /// Frees the weights.
    pub fn forget(&mut self) {
        self.network.forget();
    }
}

/// The encoder.
pub struct VaeEncoder {
    network: Network,
    latent_scale: f64,
    factor: usize,
    channels: usize,
}

impl VaeEncoder {
    /// Opens the bundle's `vae_encoder`; reads no weights yet.
    pub fn open(bundle: &Bundle, residency: Residency) -> Result<VaeEncoder> {
        let network = Network::open(bundle, "vae_encoder", 1, residency)?;
        let PictureSizes { latent_scale, factor, latent_channels: channels, .. } = bundle.manifest.picture;
        Ok(VaeEncoder { network, latent_scale, factor, channels })
    }

    /// Latents of a picture: a sample of the encoder's distribution, drawn with `noise`, which has the latents' shape.
    pub fn encode(
        &mut self,
        pixels: Vec<f32>,
        (width, height): (usize, usize),
        noise: impl FnOnce(usize, usize) -> Latents,
        tick: &mut Tick,
    ) -> Result<Latents> {
        let moments = self.network.run(vec![Value::F32(vec![1, height, width, COLOURS], pixels)], tick)?;
        let mut latents = noise(width / self.factor, height / self.factor);
        let pixels = latents.values.chunks_exact_mut(self.channels).zip(moments.chunks_exact(2 * self.channels));
        for (noise, moments) in pixels {
            let (means, log_variances) = moments.split_at(self.channels);
            for ((value, mean), log_variance) in noise.iter_mut().zip(means).zip(log_variances) {
                *value = sample(*mean, *log_variance, *value) * self.latent_scale as f32;
            }
        }
        Ok(latents)
    }

    /// Frees the weights.
    pub fn forget(&mut self) {
        self.network.forget();
    }
}

/// A sample of the normal distribution with this mean and log variance (diffusers' DiagonalGaussianDistribution).
fn sample(mean: f32, log_variance: f32, noise: f32) -> f32 {
    let deviation = libm::expf(0.5 * log_variance.clamp(-30.0, 20.0));
    mean + deviation * noise
}
