//! Prompts to embeddings: CLIP's text transformer.

use crate::bundle::Bundle;
use crate::bundle::Text;
use crate::error::Result;
use crate::graph::{InputShape, InputValues, Signature};
use crate::memory_plan::{Demand, RunBudget};
use crate::network::{Network, Tick};

/// Vectors that the UNet attends to: `[batch][tokens][channels]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    /// Prompts.
    pub batch: usize,
    /// Tokens of a prompt.
    pub tokens: usize,
    /// Width of a vector.
    pub channels: usize,
    /// The values.
    pub values: Vec<f32>,
}

/// The text encoder.
pub struct TextEncoder {
    network: Network,
    sizes: Text,
}

impl TextEncoder {
    /// Opens the bundle's `text_encoder`; reads no weights yet.
    pub fn open(bundle: &Bundle) -> Result<TextEncoder> {
        Ok(TextEncoder { network: Network::open(bundle, "text_encoder", 1)?, sizes: bundle.manifest.text.clone() })
    }

    /// Encodes prompts of `Text::tokens` ids each, together.
    pub fn encode(&mut self, prompts: &[Vec<u32>], budget: RunBudget, tick: &mut Tick) -> Result<Embeddings> {
        let Text { tokens, channels, .. } = self.sizes;
        let ids = prompts.iter().flatten().map(|&id| i64::from(id)).collect();
        let (input, output) = (vec![prompts.len(), tokens], vec![prompts.len(), tokens, channels]);
        let values = self.network.run(vec![InputValues::I64(input, ids)], output, budget, tick)?;
        Ok(Embeddings { batch: prompts.len(), tokens, channels, values })
    }

    /// Checks that a prompt gives embeddings of the manifest's size.
    pub(crate) fn check(&self) -> Result<()> {
        let Text { tokens, channels, .. } = self.sizes;
        let signature = Signature { inputs: vec![InputShape::I64(vec![1, tokens])], output: vec![1, tokens, channels] };
        self.network.check(&signature, &format!("text.tokens {tokens} and text.channels {channels}"))
    }

    /// What encoding `prompts` prompts needs.
    pub(crate) fn demand(&mut self, prompts: usize) -> Result<Demand> {
        let Text { tokens, channels, .. } = self.sizes;
        let inputs = vec![InputShape::I64(vec![prompts, tokens])];
        self.network.demand(&Signature { inputs, output: vec![prompts, tokens, channels] })
    }

    /// Frees the weights.
    pub(crate) fn forget(&mut self) {
        self.network.forget();
    }
}
