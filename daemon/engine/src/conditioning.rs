//! What the UNet attends to at each of its calls: the embeddings of the prompts' texts, weighted as they say.

use std::collections::HashMap;

use crate::bundle::Text;
use crate::error::Result;
use crate::memory_plan::RunBudget;
use crate::network::Tick;
use crate::prompt::{PromptChunk, PromptTokens, Prompts, ReadPrompt};
use crate::text_encoder::{Embeddings, TextEncoder};

/// How many chunks the text encoder reads together for `prompts`.
pub(crate) fn together(prompts: &Prompts) -> usize {
    prompts.rows.len().min(2)
}

/// How often the text encoder runs for `prompts`.
pub(crate) fn runs(prompts: &Prompts) -> usize {
    distinct(prompts).1.len().div_ceil(together(prompts))
}

/// The chunks of all texts, each once, and the place of each.
fn distinct(prompts: &Prompts) -> (HashMap<&PromptTokens, usize>, Vec<PromptTokens>) {
    let (mut places, mut distinct) = (HashMap::new(), Vec::new());
    for chunk in prompts.rows.iter().flat_map(|row| &row.texts).flatten() {
        places.entry(&chunk.tokens).or_insert_with(|| {
            distinct.push(chunk.tokens.clone());
            distinct.len() - 1
        });
    }
    (places, distinct)
}

/// Copies of the embeddings in use beside the texts' own and those in the graph: what each call copies its inputs from.
const COPIES: usize = 1;

/// Bytes of embeddings that a painting with `prompts` holds.
pub(crate) fn held(prompts: &Prompts, sizes: &Text) -> u64 {
    let texts: usize = prompts.rows.iter().map(|row| row.texts.len() * row.chunks()).sum();
    let (rows, chunk) = (prompts.rows.len(), sizes.tokens * sizes.channels * size_of::<f32>());
    ((texts + COPIES * rows * prompts.chunks) * chunk) as u64
}

/// The embeddings of a painting's texts, until the last of them is in use.
#[derive(Debug)]
pub(crate) struct Conditioning<'a> {
    prompts: &'a Prompts,
    /// Of each prompt.
    rows: Vec<Vec<TextEmbeddings>>,
    tokens: usize,
    channels: usize,
    /// The texts in use.
    current: Vec<usize>,
    /// Whether they are used again after the last text's first use.
    kept: bool,
}

/// A text's embeddings, chunk after chunk.
#[derive(Debug, Clone)]
struct TextEmbeddings {
    values: Vec<f32>,
    pooled: Vec<f32>,
}

impl<'a> Conditioning<'a> {
    /// Encodes each distinct chunk once.
    pub(crate) fn encode(
        prompts: &'a Prompts,
        encoder: &mut TextEncoder,
        budget: RunBudget,
        tick: &mut Tick,
    ) -> Result<Conditioning<'a>> {
        let (places, distinct) = distinct(prompts);
        encoder.leave_out(prompts.left_out)?;
        let encoded = encoder.encode_all(&distinct, together(prompts), budget, tick)?;
        let widths = encoder.widths();
        let rows = prompts.rows.iter().map(|row| weighted(row, &encoded, &places, widths));
        let (tokens, channels) = (encoded.tokens, encoded.channels);
        Ok(Conditioning { rows: rows.collect(), prompts, tokens, channels, current: vec![], kept: false })
    }

    /// The same for a UNet that is started more than once.
    pub(crate) fn kept(self) -> Conditioning<'a> {
        Conditioning { kept: true, ..self }
    }

    /// The embeddings with which the UNet is started before a call.
    pub(crate) fn start(&mut self, call: usize) -> Option<Embeddings> {
        self.current.clear();
        self.at(call)
    }

    /// The embeddings for a call of the UNet, in one batch; `None` where they are those of the call before.
    pub(crate) fn at(&mut self, call: usize) -> Option<Embeddings> {
        let rows = &self.prompts.rows;
        let texts: Vec<usize> = rows.iter().map(|row| row.text_at(call)).collect();
        if texts == self.current {
            return None;
        }
        let batch = rows.len();
        let tokens = self.prompts.chunks * self.tokens;
        let mut values = Vec::with_capacity(batch * tokens * self.channels);
        let mut pooled = Vec::new();
        for ((prompt, row), text) in rows.iter().zip(&self.rows).zip(&texts) {
            let text = &row[*text];
            let last = &text.values[text.values.len() - self.channels..];
            for _ in 0..self.prompts.chunks / prompt.stretched {
                values.extend_from_slice(&text.values);
                let missing = (prompt.stretched - prompt.chunks()) * self.tokens;
                (0..missing).for_each(|_| values.extend_from_slice(last));
            }
            pooled.extend_from_slice(&text.pooled);
        }
        self.current = texts;
        if !self.kept && rows.iter().all(|row| row.is_settled(call)) {
            self.rows = vec![];
        }
        Some(Embeddings { batch, tokens, channels: self.channels, values, pooled })
    }
}

/// A prompt's texts with their weights applied.
fn weighted(
    row: &ReadPrompt,
    encoded: &Embeddings,
    places: &HashMap<&PromptTokens, usize>,
    widths: [usize; 2],
) -> Vec<TextEmbeddings> {
    let size = encoded.tokens * encoded.channels;
    let place = |chunk: &PromptChunk| places.get(&chunk.tokens).copied().unwrap_or_default();
    let mut texts: Vec<TextEmbeddings> = Vec::new();
    for text in &row.texts {
        let values = text.iter().flat_map(|chunk| &encoded.values[place(chunk) * size..][..size]);
        let width = encoded.pooled.len() / encoded.batch;
        let pooled = text.first().map_or(&[][..], |chunk| &encoded.pooled[place(chunk) * width..][..width]);
        texts.push(TextEmbeddings { values: values.copied().collect(), pooled: pooled.to_vec() });
    }
    for chunk in 0..row.chunks() {
        let tokens = chunk * encoded.tokens..(chunk + 1) * encoded.tokens;
        for (encoder, width) in widths.into_iter().enumerate() {
            let start: usize = widths[..encoder].iter().sum();
            let weights: Vec<&[f32]> = row.texts.iter().map(|text| &*text[chunk].weights[encoder]).collect();
            let mut rows: Vec<Vec<&mut [f32]>> = texts
                .iter_mut()
                .map(|text| {
                    let rows = text.values.chunks_exact_mut(encoded.channels).skip(tokens.start).take(tokens.len());
                    rows.map(|row| &mut row[start..start + width]).collect()
                })
                .collect();
            emphasize(&mut rows, &weights, &row.turns);
        }
    }
    texts
}

/// A1111's emphasis "Original": each token's vector times its weight, then all of them times what gives them the mean
/// that they had, over all `turns` of a prompt. `texts` has the rows of each text's chunk, `weights` one for each row.
fn emphasize(texts: &mut [Vec<&mut [f32]>], weights: &[&[f32]], turns: &[(usize, usize)]) {
    if weights.iter().all(|weights| weights.iter().all(|weight| *weight == 1.0)) {
        return;
    }
    let mean = |texts: &[Vec<&mut [f32]>]| -> f64 {
        let sum = |text: &Vec<&mut [f32]>| text.iter().flat_map(|row| row.iter()).map(|value| f64::from(*value)).sum();
        let sums: Vec<f64> = texts.iter().map(sum).collect();
        turns.iter().map(|(_, text)| sums[*text]).sum()
    };
    let before = mean(texts);
    for (rows, weights) in texts.iter_mut().zip(weights) {
        for (row, weight) in rows.iter_mut().zip(*weights) {
            row.iter_mut().for_each(|value| *value *= weight);
        }
    }
    let factor = (before / mean(texts)) as f32;
    if factor.is_finite() {
        texts.iter_mut().flatten().for_each(|row| row.iter_mut().for_each(|value| *value *= factor));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emphasis_keeps_the_mean_over_all_turns() {
        let mut texts = [[1.0, 2.0, 3.0, 2.0], [4.0, 0.0, 2.0, 2.0]];
        let weights: [&[f32]; 2] = [&[1.0, 2.0], &[1.0, 1.0]];
        let [a, b] = &mut texts;
        let mut rows: Vec<Vec<&mut [f32]>> = [a, b].map(|text| text.chunks_exact_mut(2).collect()).into();
        emphasize(&mut rows, &weights, &[(1, 0), (2, 1), (3, 0)]);
        // (8 + 8 + 8) / (13 + 8 + 13)
        let factor = (24.0 / 34.0) as f32;
        assert_eq!(texts[0], [factor, 2.0 * factor, 6.0 * factor, 4.0 * factor]);
        assert_eq!(texts[1], [4.0 * factor, 0.0, 2.0 * factor, 2.0 * factor]);
    }

    #[test]
    fn embeddings_of_all_texts_and_of_a_call_are_counted() {
        let (second, words, added, clip_skip) = (None, None, vec![], None);
        let sizes = Text { tokens: 77, bos: 0, eos: 1, pad: 1, channels: 768, second, words, added, clip_skip };
        let tokens = PromptTokens { first: vec![0; 77], second: vec![], absent: false };
        let chunk = PromptChunk { tokens, weights: [vec![1.0; 77], vec![]] };
        let row = |texts: usize, chunks: usize| ReadPrompt {
            texts: vec![vec![chunk.clone(); chunks]; texts],
            turns: vec![(20, 0)],
            stretched: chunks,
        };
        let held = |rows: Vec<ReadPrompt>, chunks| {
            held(&Prompts { rows, chunks, weights: vec![1.0], left_out: 0, alone: 1 }, &sizes) / (77 * 768 * 4)
        };
        assert_eq!(held(vec![row(1, 1), row(1, 1)], 1), 2 + 2);
        // Three chunks of one prompt, and both prompts in a call, of which each has three chunks.
        assert_eq!(held(vec![row(1, 1), row(1, 3)], 3), 4 + 2 * 3);
        assert_eq!(held(vec![row(4, 1)], 1), 4 + 1);
    }

    #[test]
    fn without_weights_nothing_is_touched_and_a_mean_of_zero_is_left() {
        let mut text = [1e-30, 3.0];
        emphasize(&mut [vec![&mut text[..]]], &[&[1.0]], &[(5, 0)]);
        assert_eq!(text, [1e-30, 3.0]);
        let mut text = [1.0, -1.0];
        emphasize(&mut [vec![&mut text[..]]], &[&[0.0]], &[(5, 0)]);
        assert_eq!(text, [0.0, -0.0]);
    }
}
