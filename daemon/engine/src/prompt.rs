//! Prompts as people write them: from a text to the tokens of each step, with their weights.
//!
//! The syntax `a1111` is the A1111 web interface's, in its order: tags of extra networks are taken out, parts between
//! `AND` are prompts of their own, brackets that change with the steps are settled (`editing`), brackets that weigh are
//! read (`attention`), and what is left is cut into chunks (`chunks`). `plain` takes a text as it is and reads its first
//! chunk, as diffusers does.

mod attention;
mod chunks;
mod editing;
mod extra_networks;
mod joining;
mod words;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::bundle::{SecondText, Text};
use crate::error::{Error, Result};
use crate::tokenizer::{EncodedPrompt, Tokenizer};
use crate::warning::Warning;
use attention::{WeightedPart, weigh};
use chunks::WeightedTokens;
use editing::{EditedPrompt, edit};
use extra_networks::take_tags;

/// The most prompts that `AND` joins: each is an entry of the UNet's batch.
const MOST_JOINED: usize = 16;

/// If chunks of two prompts were repeated up to their least common multiple, no more than this times the longer one's.
const MOST_REPEATS: usize = 4;

/// How prompts are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptSyntax {
    /// As the A1111 web interface does: weights, chunks, prompts that change with the steps.
    #[default]
    A1111,
    /// Every character is text; what is longer than the text encoder reads is left out.
    Plain,
}

impl PromptSyntax {
    /// Both, the default first.
    pub const ALL: [PromptSyntax; 2] = [PromptSyntax::A1111, PromptSyntax::Plain];

    /// As requests and the command line write it.
    pub fn name(self) -> &'static str {
        match self {
            PromptSyntax::A1111 => "a1111",
            PromptSyntax::Plain => "plain",
        }
    }
}

impl fmt::Display for PromptSyntax {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for PromptSyntax {
    type Err = String;

    fn from_str(name: &str) -> Result<PromptSyntax, String> {
        let found = PromptSyntax::ALL.into_iter().find(|syntax| syntax.name().eq_ignore_ascii_case(name));
        found.ok_or_else(|| format!("`{name}` is unknown; known are a1111 and plain"))
    }
}

/// The token ids of a chunk, `Text::tokens` for each text encoder.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PromptTokens {
    /// For the first text encoder.
    pub first: Vec<u32>,
    /// For the second, which fills up in another way; empty where there is one text encoder.
    pub second: Vec<u32>,
    /// It stands for no prompt at all: its embeddings are zeros.
    pub absent: bool,
}

/// A part of a text that the text encoder reads at once.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PromptChunk {
    pub(crate) tokens: PromptTokens,
    /// What each token weighs, for each text encoder.
    pub(crate) weights: [Vec<f32>; 2],
}

/// A prompt that was read: its texts, of which one is painted at each step.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ReadPrompt {
    /// The chunks of each text; all texts have as many.
    pub(crate) texts: Vec<Vec<PromptChunk>>,
    /// Up to which call of the UNet, counted from 0 and included, which text is painted; the last one holds on.
    pub(crate) turns: Vec<(usize, usize)>,
    /// How many chunks each text has once its last vector is repeated.
    pub(crate) stretched: usize,
}

impl ReadPrompt {
    /// How many chunks each text has.
    pub(crate) fn chunks(&self) -> usize {
        self.texts.first().map_or(0, Vec::len)
    }

    /// The text at a call of the UNet.
    pub(crate) fn text_at(&self, call: usize) -> usize {
        let turn = self.turns.iter().find(|(end, _)| call <= *end).or(self.turns.last());
        turn.map_or(0, |(_, text)| *text)
    }

    /// Whether the text at this call stays.
    pub(crate) fn is_settled(&self, call: usize) -> bool {
        self.turns.iter().rev().skip(1).all(|(end, _)| call > *end)
    }
}

/// All that a painting's UNet attends to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Prompts {
    /// With guidance the negative prompt comes first.
    pub(crate) rows: Vec<ReadPrompt>,
    /// Chunks that each row has once its own are repeated. Attention to keys that are there several times, each as
    /// often, is attention to them once; so prompts of different lengths go into one batch.
    pub(crate) chunks: usize,
    /// How much each prompt that `AND` joined to others is guided to, relative to the guidance scale.
    pub(crate) weights: Vec<f64>,
    /// How many of the text encoder's last layers are left out.
    pub(crate) left_out: usize,
    /// Chunks of the prompt itself, without what it is repeated or filled up by to be as long as the negative one.
    pub(crate) alone: usize,
}

impl Prompts {
    /// Of a negative prompt, if there is one, and the prompts that `AND` joins, of which the shorter ones are filled up by
    /// their last vector.
    fn new(negative: Option<ReadPrompt>, joined: Vec<(ReadPrompt, f64)>, empty: &PromptChunk) -> Prompts {
        let (mut rows, weights): (Vec<ReadPrompt>, Vec<f64>) = joined.into_iter().unzip();
        let most = rows.iter().map(ReadPrompt::chunks).max().unwrap_or(1);
        rows.iter_mut().for_each(|row| row.stretched = most);
        if let Some(negative) = negative {
            rows.insert(0, negative);
        }
        let longest = rows.iter().map(|row| row.stretched).max().unwrap_or(1);
        let mut chunks = rows.iter().map(|row| row.stretched).fold(1, least_common_multiple);
        if chunks > MOST_REPEATS * longest {
            for row in &mut rows {
                row.stretched = longest;
                for text in &mut row.texts {
                    let absent = text.first().is_some_and(|chunk| chunk.tokens.absent);
                    let tokens = PromptTokens { absent, ..empty.tokens.clone() };
                    text.resize(longest, PromptChunk { tokens, ..empty.clone() });
                }
            }
            chunks = longest;
        }
        Prompts { rows, chunks, weights, left_out: 0, alone: most }
    }

    /// Whether they are the negative prompt and one prompt, which can be seen alone: several that are joined are measured
    /// from the negative one.
    pub(crate) fn is_a_pair(&self) -> bool {
        self.rows.len() == 2 && self.weights.len() == 1
    }
}

fn least_common_multiple(a: usize, b: usize) -> usize {
    let (mut divisor, mut rest) = (a, b);
    while rest > 0 {
        (divisor, rest) = (rest, divisor % rest);
    }
    a / divisor.max(1) * b
}

/// Reads a model's prompts.
pub(crate) struct PromptReader<'a> {
    pub(crate) tokenizer: &'a Tokenizer,
    pub(crate) sizes: &'a Text,
    pub(crate) syntax: PromptSyntax,
    /// Sampling steps, times the calls of the UNet that each makes.
    pub(crate) steps: usize,
}

impl PromptReader<'_> {
    /// Whether `prompt` is several that `AND` joins.
    pub(crate) fn is_joined(&self, prompt: &str) -> bool {
        self.syntax == PromptSyntax::A1111 && joining::split(prompt).len() > 1
    }

    /// Reads the prompts; the negative one only where it counts.
    ///
    /// # Errors
    ///
    /// `InvalidParam` where `AND` joins too many prompts, or one changes so often that its texts are too long together.
    pub(crate) fn read(&self, prompt: &str, negative: Option<&str>, warnings: &mut Vec<Warning>) -> Result<Prompts> {
        let mut one = |field, text: &str| match self.syntax {
            PromptSyntax::A1111 => self.a1111(field, text, warnings),
            PromptSyntax::Plain => Ok(self.plain(field, text, warnings)),
        };
        let negative = negative.map(|text| one("negative_prompt", text)).transpose()?;
        let joined = match self.syntax {
            PromptSyntax::A1111 => joining::split(prompt),
            PromptSyntax::Plain => vec![(prompt, 1.0)],
        };
        if joined.len() > MOST_JOINED {
            let message = format!("AND joins {} prompts; {MOST_JOINED} are allowed", joined.len());
            return Err(Error::InvalidParam { field: "prompt", message });
        }
        let joined = joined.into_iter().map(|(text, weight)| Ok((one("prompt", text)?, weight)));
        Ok(Prompts::new(negative, joined.collect::<Result<_>>()?, &self.empty()))
    }

    fn a1111(&self, field: &'static str, prompt: &str, warnings: &mut Vec<Warning>) -> Result<ReadPrompt> {
        let (prompt, tags) = take_tags(prompt);
        if !tags.is_empty() {
            warnings.push(Warning::ExtraNetworks { field, tags });
        }
        let EditedPrompt { texts, turns } = edit(&prompt, self.steps, field)?;
        let parts: Vec<Vec<WeightedPart>> = texts.iter().map(|text| weigh(text)).collect();
        self.check_words(field, &parts.iter().map(|parts| plain_text(parts)).collect::<Vec<_>>().join(" "), warnings);
        let absent = self.is_absent(field, texts.iter().all(|text| text.trim().is_empty()));
        let of = |parts: &Vec<WeightedPart>, sizes: &Text| chunks::fill(parts, self.tokenizer, sizes);
        let first: Vec<_> = parts.iter().map(|parts| of(parts, self.sizes)).collect();
        let second = self.second().map(|sizes| parts.iter().map(|parts| of(parts, &sizes)).collect::<Vec<_>>());
        let count = first.iter().chain(second.iter().flatten()).map(Vec::len).max().unwrap_or(1);
        let empty = self.empty();
        let texts = first.into_iter().enumerate().map(|(text, chunks)| {
            let second = second.as_ref().map_or(&[][..], |second| &second[text]);
            let chunk = |at: usize| {
                let mut chunk = empty.clone();
                chunk.tokens.absent = absent;
                if let Some(WeightedTokens { ids, weights }) = chunks.get(at).cloned() {
                    (chunk.tokens.first, chunk.weights[0]) = (ids, weights);
                }
                if let Some(WeightedTokens { ids, weights }) = second.get(at).cloned() {
                    (chunk.tokens.second, chunk.weights[1]) = (ids, weights);
                }
                chunk
            };
            (0..count).map(chunk).collect()
        });
        Ok(ReadPrompt { texts: texts.collect(), turns, stretched: count })
    }

    fn plain(&self, field: &'static str, prompt: &str, warnings: &mut Vec<Warning>) -> ReadPrompt {
        let EncodedPrompt { ids: first, left_out } = self.tokenizer.encode(prompt, self.sizes);
        let tokens = self.sizes.tokens.saturating_sub(2);
        warnings.extend(left_out.map(|left_out| Warning::Truncated { field, tokens, left_out }));
        self.check_words(field, prompt, warnings);
        let second = self.second().map(|sizes| self.tokenizer.encode(prompt, &sizes).ids).unwrap_or_default();
        let weights = [first.len(), second.len()].map(|len| vec![1.0; len]);
        let absent = self.is_absent(field, prompt.trim().is_empty());
        let chunk = PromptChunk { tokens: PromptTokens { first, second, absent }, weights };
        ReadPrompt { texts: vec![vec![chunk]], turns: vec![(self.steps, 0)], stretched: 1 }
    }

    /// The second text encoder's sizes.
    fn second(&self) -> Option<Text> {
        self.sizes.second.map(|SecondText { pad, .. }| Text { pad, ..self.sizes.clone() })
    }

    /// Whether an `empty` prompt stands for none at all.
    fn is_absent(&self, field: &str, empty: bool) -> bool {
        empty && field == "negative_prompt" && self.sizes.second.is_some_and(|second| second.zeros_without_prompt)
    }

    /// A chunk without words.
    fn empty(&self) -> PromptChunk {
        let first = WeightedTokens::empty(self.sizes);
        let second = self.second().map(|sizes| WeightedTokens::empty(&sizes));
        let (ids, weights) = second.map(|second| (second.ids, second.weights)).unwrap_or_default();
        let tokens = PromptTokens { first: first.ids, second: ids, absent: false };
        PromptChunk { tokens, weights: [first.weights, weights] }
    }

    fn check_words(&self, field: &'static str, text: &str, warnings: &mut Vec<Warning>) {
        let words = self.sizes.unknown_words(text);
        if !words.is_empty() {
            warnings.push(Warning::UnknownWords { field, words });
        }
    }
}

/// The words of `parts` alone.
fn plain_text(parts: &[WeightedPart]) -> String {
    let words = parts.iter().map(|part| match part {
        WeightedPart::Words(words, _) => words,
        WeightedPart::Break => " ",
    });
    words.collect()
}

#[cfg(test)]
mod tests;
