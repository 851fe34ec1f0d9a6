//! The networks and the tokenizer, and what a request asks of their memory.

use crate::bundle::Manifest;
use crate::error::{Error, Result};
use crate::plan::Demand;
use crate::request::{Parameters, Stage};
use crate::source::Bundle;
use crate::text_encoder::TextEncoder;
use crate::tokenizer::Tokenizer;
use crate::unet::Unet;
use crate::vae::{VaeDecoder, VaeEncoder};

/// A bundle's parts, ready to run.
pub(crate) struct Models {
    pub(crate) manifest: Manifest,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) text_encoder: TextEncoder,
    pub(crate) unet: Unet,
    pub(crate) decoder: VaeDecoder,
    pub(crate) encoder: VaeEncoder,
}

impl Models {
    /// Opens every part; reads no weights yet.
    pub(crate) fn open(bundle: &Bundle) -> Result<Models> {
        Ok(Models {
            manifest: bundle.manifest.clone(),
            tokenizer: tokenizer(bundle)?,
            text_encoder: TextEncoder::open(bundle)?,
            unet: Unet::open(bundle)?,
            decoder: VaeDecoder::open(bundle)?,
            encoder: VaeEncoder::open(bundle)?,
        })
    }

    /// Whether both the negative prompt and the prompt are run, as one batch.
    pub(crate) fn guided(&self, asked: &Parameters) -> bool {
        asked.cfg_scale > 1.0 && self.manifest.picture.guidance_embedding.is_none()
    }

    /// What the stages need that `asked` runs through.
    pub(crate) fn demands(&mut self, asked: &Parameters) -> Result<Vec<(Stage, Demand)>> {
        let batch = if self.guided(asked) { 2 } else { 1 };
        let (text, sizes) = (&self.manifest.text, &self.manifest.picture);
        let latents =
            |batch| vec![batch, asked.height / sizes.factor, asked.width / sizes.factor, sizes.latent_channels];
        let mut demands = vec![(Stage::TextEncoder, self.text_encoder.demand(batch)?)];
        if asked.strength.is_some() {
            demands.push((Stage::VaeEncoder, self.encoder.demand(asked.width, asked.height)?));
        }
        let embeddings = vec![batch, text.tokens, text.channels];
        demands.push((Stage::Unet, self.unet.demand(latents(batch), embeddings)?));
        demands.push((Stage::VaeDecoder, self.decoder.demand(latents(1))?));
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

fn tokenizer(bundle: &Bundle) -> Result<Tokenizer> {
    let (vocab, merges) = (bundle.read("tokenizer/vocab.json")?, bundle.read("tokenizer/merges.txt")?);
    Tokenizer::new(&vocab, &merges)
        .map_err(|message| Error::ModelCorrupt { path: bundle.source.path("tokenizer"), message })
}
