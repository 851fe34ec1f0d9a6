//! The networks, and how much memory painting takes in each.

use crate::bundle::Bundle;
use crate::bundle::Manifest;
use crate::error::Result;
use crate::memory_plan::Demand;
use crate::request::{Parameters, Stage};
use crate::text_encoder::TextEncoder;
use crate::unet::Unet;
use crate::vae::{VaeDecoder, VaeEncoder};

/// A bundle's parts, ready to run.
pub(crate) struct Models {
    pub(crate) manifest: Manifest,
    pub(crate) text_encoder: TextEncoder,
    pub(crate) unet: Unet,
    pub(crate) decoder: VaeDecoder,
    pub(crate) encoder: VaeEncoder,
}

impl Models {
    /// Opens every part; reads no weights yet.
    pub(crate) fn open(bundle: &Bundle) -> Result<Models> {
        let models = Models {
            manifest: bundle.manifest.clone(),
            text_encoder: TextEncoder::open(bundle)?,
            unet: Unet::open(bundle)?,
            decoder: VaeDecoder::open(bundle)?,
            encoder: VaeEncoder::open(bundle)?,
        };
        models.check()?;
        Ok(models)
    }

    /// Checks the graphs and their weights against the manifest's sizes, for the smallest image.
    fn check(&self) -> Result<()> {
        self.text_encoder.check()?;
        self.unet.check(&self.manifest.text, &self.manifest.picture)?;
        self.decoder.check()?;
        self.encoder.check()
    }

    /// Height, width and channels of the latents.
    pub(crate) fn latents(&self, parameters: &Parameters) -> (usize, usize, usize) {
        let sizes = &self.manifest.picture;
        (parameters.height / sizes.factor, parameters.width / sizes.factor, sizes.latent_channels)
    }

    /// What the stages need that `parameters` run through.
    pub(crate) fn demands(&mut self, parameters: &Parameters) -> Result<Vec<(Stage, Demand)>> {
        let batch = if parameters.is_guided(&self.manifest) { 2 } else { 1 };
        let text = &self.manifest.text;
        let (height, width, channels) = self.latents(parameters);
        let latents = vec![batch, height, width, channels];
        let mut demands = vec![(Stage::TextEncoder, self.text_encoder.demand(batch)?)];
        if parameters.strength.is_some() {
            demands.push((Stage::VaeEncoder, self.encoder.demand(parameters.width, parameters.height)?));
        }
        let embeddings = vec![batch, text.tokens, text.channels];
        demands.push((Stage::Unet, self.unet.demand(latents, embeddings)?));
        demands.push((Stage::VaeDecoder, self.decoder.demand(height, width)?));
        Ok(demands)
    }

    /// Frees all weights.
    pub(crate) fn forget(&mut self) {
        self.text_encoder.forget();
        self.encoder.forget();
        self.unet.forget();
        self.decoder.forget();
    }
}
