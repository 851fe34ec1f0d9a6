//! What of a request has no effect. Nothing of it is an error: the image is painted, and the client learns what was
//! left out.

use std::fmt;

use crate::sampler::SamplerKind;

/// The longest text of a client that a warning repeats, characters.
const MAX_SHOWN: usize = 200;

/// A part of a request that has no effect on the image. Its `Display` text is stable.
#[derive(Debug, Clone, PartialEq)]
pub enum Warning {
    /// A prompt has more tokens than the text encoder reads.
    Truncated {
        /// `prompt` or `negative_prompt`.
        field: &'static str,
        /// How many tokens of a prompt the model reads.
        tokens: usize,
        /// The prompt's end that was left out, in lower case.
        left_out: String,
    },
    /// A prompt names extra networks, which are no part of what is painted.
    ExtraNetworks {
        /// `prompt` or `negative_prompt`.
        field: &'static str,
        /// As the prompt has them: `<lora:name:1>`.
        tags: Vec<String>,
    },
    /// A prompt has words that the model was not trained with.
    UnknownWords {
        /// `prompt` or `negative_prompt`.
        field: &'static str,
        /// The words in lower case, each once.
        words: Vec<String>,
    },
    /// A key that says how an init image is used was given without one.
    WithoutInitImage {
        /// The request's key.
        field: &'static str,
    },
    /// Something was to be under the mask at the beginning, but the painting begins with noise alone.
    ContentUnused,
    /// A negative prompt was given, but the model runs without guidance.
    NegativePromptUnused {
        /// The guidance scale.
        cfg_scale: f64,
    },
    /// An interval for guidance was given, but there is none to leave out.
    GuidanceIntervalUnused {
        /// Whether `AND` joins prompts, each of which is measured from the negative one; else there is no guidance.
        joined: bool,
    },
    /// A key that the sampler does not know.
    UnusedBySampler {
        /// `scheduler` or `eta`.
        field: &'static str,
        /// The sampler that paints.
        sampler: SamplerKind,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Warning::Truncated { field, tokens, left_out } => {
                write!(f, "{field}: the model reads {tokens} tokens; left out: \"{}\"", shown(left_out))
            }
            Warning::ExtraNetworks { field, tags } => {
                let tags = shown(&tags.join(", "));
                write!(
                    f,
                    "{field}: {tags} has no effect: a LoRA is merged into the model by `model-prep convert --lora`"
                )
            }
            Warning::UnknownWords { field, words } => {
                write!(f, "{field}: the model does not know the words: {}", shown(&words.join(", ")))
            }
            Warning::WithoutInitImage { field } => write!(f, "{field} has no effect without an init image"),
            Warning::ContentUnused => {
                write!(
                    f,
                    "inpainting_fill has no effect at a denoising_strength of 1: all that is masked begins as noise"
                )
            }
            Warning::GuidanceIntervalUnused { joined: true } => {
                write!(f, "guidance_interval has no effect on prompts that AND joins: they need the negative prompt")
            }
            Warning::GuidanceIntervalUnused { joined: false } => {
                write!(f, "guidance_interval has no effect: this image is painted without guidance")
            }
            Warning::UnusedBySampler { field, sampler } => {
                write!(f, "{field} has no effect with the sampler {sampler}")
            }
            Warning::NegativePromptUnused { cfg_scale } if *cfg_scale > 1.0 => {
                write!(f, "negative_prompt has no effect: this model is guided without one")
            }
            Warning::NegativePromptUnused { cfg_scale } => {
                write!(f, "negative_prompt has no effect without guidance (cfg_scale {cfg_scale}; above 1 it has)")
            }
        }
    }
}

fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(MAX_SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}
