//! Prompts to embeddings: CLIP's text transformer, or the two of SDXL, whose embeddings lie side by side.

use crate::bundle::{Bundle, SecondText, Text};
use crate::error::Result;
use crate::graph::{InputShape, InputValues, Signature};
use crate::memory_plan::{Demand, RunBudget};
use crate::network::{Network, Tick};
use crate::prompt::PromptTokens;

/// Of the work of two text encoders, the first does this part.
const FIRST_PART: f64 = 1.0 / 6.0;

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
    /// Each prompt as one vector, `[batch][SecondText::pooled]`; empty where there is one text encoder.
    pub pooled: Vec<f32>,
}

/// The text encoder or encoders.
pub struct TextEncoder {
    network: Network,
    second: Option<(Network, SecondText)>,
    sizes: Text,
}

impl TextEncoder {
    /// Opens the bundle's `text_encoder` and, if there is one, `text_encoder_2`; reads no weights yet.
    pub fn open(bundle: &Bundle) -> Result<TextEncoder> {
        let sizes = bundle.manifest.text.clone();
        let second = sizes.second.map(|second| Ok((Network::open(bundle, "text_encoder_2", 1)?, second)));
        let second = second.transpose()?;
        Ok(TextEncoder { network: Network::open(bundle, "text_encoder", 1)?, second, sizes })
    }

    /// Encodes prompts together.
    pub fn encode(&mut self, prompts: &[PromptTokens], budget: RunBudget, tick: &mut Tick) -> Result<Embeddings> {
        let Text { tokens, channels, .. } = self.sizes;
        let batch = prompts.len();
        let [first, second] = self.signatures(batch);
        let first_part = if self.second.is_some() { FIRST_PART } else { 1.0 };
        let ids = inputs(batch, tokens, prompts.iter().map(|prompt| &prompt.first));
        let mut values = self.network.run(ids, first.output, budget.clone(), &mut |part| tick(first_part * part))?;
        let mut pooled = Vec::new();
        if let Some((network, sizes)) = &mut self.second {
            let ids = inputs(batch, tokens, prompts.iter().map(|prompt| &prompt.second));
            let mut tick = |part| tick(first_part + (1.0 - first_part) * part);
            let rows = network.run(ids, second.output, budget, &mut tick)?;
            let ends = prompts.iter().map(|prompt| pooled_token(&prompt.second, sizes, self.sizes.eos));
            (values, pooled) = side_by_side(&values, &rows, tokens, sizes, ends);
        }
        for (i, _) in prompts.iter().enumerate().filter(|(_, prompt)| prompt.absent) {
            values[i * tokens * channels..][..tokens * channels].fill(0.0);
            let width = pooled.len() / batch;
            pooled[i * width..][..width].fill(0.0);
        }
        Ok(Embeddings { batch, tokens, channels, values, pooled })
    }

    /// Encodes any number of prompts, of which `together` at most at a time.
    pub(crate) fn encode_all(
        &mut self,
        prompts: &[PromptTokens],
        together: usize,
        budget: RunBudget,
        tick: &mut Tick,
    ) -> Result<Embeddings> {
        let Text { tokens, channels, .. } = self.sizes;
        let mut all = Embeddings { batch: prompts.len(), tokens, channels, values: vec![], pooled: vec![] };
        let runs = prompts.len().div_ceil(together);
        for (run, some) in prompts.chunks(together).enumerate() {
            let mut tick = |part| tick((run as f64 + part) / runs as f64);
            let Embeddings { values, pooled, .. } = self.encode(some, budget.clone(), &mut tick)?;
            all.values.extend(values);
            all.pooled.extend(pooled);
        }
        Ok(all)
    }

    /// From now on, embeddings are those of an earlier layer: of so many that the bundle has, the last ones are left out.
    ///
    /// # Errors
    ///
    /// `InvalidParam` where it has no more layers than that.
    pub(crate) fn leave_out(&mut self, layers: usize) -> Result<()> {
        let second = self.second.iter_mut().map(|(network, _)| network);
        std::iter::once(&mut self.network).chain(second).try_for_each(|network| network.leave_out(layers))
    }

    /// Channels of an embedding that each text encoder makes.
    pub(crate) fn widths(&self) -> [usize; 2] {
        let own = self.sizes.second.map_or(0, |second| second.channels);
        [self.sizes.channels - own, own]
    }

    /// Of the text encoders, for so many prompts. The second's output has a token's embedding and its projection.
    fn signatures(&self, prompts: usize) -> [Signature; 2] {
        let Text { tokens, channels, .. } = self.sizes;
        let SecondText { channels: own, pooled, .. } = self.sizes.second.unwrap_or_default();
        let signature = |channels| Signature {
            inputs: vec![InputShape::I64(vec![prompts, tokens])],
            output: vec![prompts, tokens, channels],
        };
        [signature(channels - own), signature(own + pooled)]
    }

    /// Checks that a prompt gives embeddings of the manifest's sizes.
    pub(crate) fn check(&self) -> Result<()> {
        let Text { tokens, channels, .. } = self.sizes;
        let [first, second] = self.signatures(1);
        let keys = format!("text.tokens {tokens} and text.channels {channels}");
        let Some((network, SecondText { channels: own, pooled, .. })) = &self.second else {
            return self.network.check(&first, &keys);
        };
        let keys = format!("{keys}, text.second.channels {own} and text.second.pooled {pooled}");
        self.network.check(&first, &keys)?;
        network.check(&second, &keys)
    }

    /// What encoding `prompts` prompts needs.
    pub(crate) fn demand(&mut self, prompts: usize) -> Result<Demand> {
        let [first, second] = self.signatures(prompts);
        let demand = self.network.demand(&first, 1)?;
        match &mut self.second {
            None => Ok(demand),
            Some((network, _)) => Ok(demand.then(network.demand(&second, 1)?)),
        }
    }

    /// Frees weights and schedules.
    pub(crate) fn forget(&mut self) {
        self.network.forget();
        self.second.iter_mut().for_each(|(network, _)| network.forget());
    }
}

/// The only input: token ids.
fn inputs<'a>(batch: usize, tokens: usize, ids: impl Iterator<Item = &'a Vec<u32>>) -> Vec<InputValues> {
    vec![InputValues::I64(vec![batch, tokens], ids.flatten().map(|&id| i64::from(id)).collect())]
}

/// The place of the token whose projection stands for the whole prompt: the end's, which is the first of its id.
fn pooled_token(ids: &[u32], sizes: &SecondText, end: u32) -> usize {
    let end = if sizes.pooled_at_largest { ids.iter().copied().max().unwrap_or(end) } else { end };
    ids.iter().position(|id| *id == end).unwrap_or(0)
}

/// Embeddings of the first text encoder beside those in `rows`, and each prompt's projection at its token of `ends`.
/// A row holds a token's embedding and its projection.
fn side_by_side(
    first: &[f32],
    rows: &[f32],
    tokens: usize,
    sizes: &SecondText,
    ends: impl Iterator<Item = usize>,
) -> (Vec<f32>, Vec<f32>) {
    let width = sizes.channels + sizes.pooled;
    let count = rows.len() / width;
    let first = first.chunks_exact(first.len() / count);
    let values = first.zip(rows.chunks_exact(width)).flat_map(|(a, b)| a.iter().chain(&b[..sizes.channels]));
    let pooled = rows.chunks_exact(tokens * width).zip(ends).flat_map(|(prompt, end)| {
        let row = &prompt[end * width..][..width];
        &row[sizes.channels..]
    });
    (values.copied().collect(), pooled.copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embeddings_lie_side_by_side_and_the_ends_projection_is_taken() {
        let sizes = SecondText { channels: 1, pooled: 2, ..SecondText::default() };
        let first = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
        let rows = [10.0, 0.1, 0.2, 20.0, 0.3, 0.4, 30.0, 0.5, 0.6, 40.0, 0.7, 0.8];
        let (values, pooled) = side_by_side(&first, &rows, 2, &sizes, [1, 0].into_iter());
        assert_eq!(values, [1.0, 2.0, 10.0, 3.0, 4.0, 20.0, 5.0, 6.0, 30.0, 7.0, 8.0, 40.0]);
        assert_eq!(pooled, [0.3, 0.4, 0.5, 0.6]);
    }

    #[test]
    fn the_prompt_ends_at_its_first_end_token_or_at_its_largest() {
        let (ends, largest) = (SecondText::default(), SecondText { pooled_at_largest: true, ..SecondText::default() });
        assert_eq!(pooled_token(&[7, 1, 9, 2, 8, 8, 0], &ends, 8), 4);
        assert_eq!(pooled_token(&[7, 1, 9, 2, 8, 8, 0], &largest, 8), 2);
        assert_eq!(pooled_token(&[7, 1, 2, 8, 8, 0], &largest, 8), 3);
    }
}
