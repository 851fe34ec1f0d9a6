//! SDXL's second text encoder: what the bundle says of it, and its padding, in which alone its tokenizer differs from
//! the first one's.

use std::path::Path;

use diffused_engine::bundle::{Family, SecondText};

use super::tokenizer::{TokenizerFiles, TokenizerUse};
use super::{Configs, TextConfig};
use crate::error::{Error, Result};
use crate::options::SourceOptions;

/// The padding where no tokenizer says it: OpenCLIP, of which this text encoder is, fills up with token 0.
const PAD: &str = "!";

/// What the bundle says of the second text encoder; `None` where there is one text encoder. `own` is the folder of its
/// tokenizer, which counts unless the user gave one.
pub(super) fn open(
    configs: &Configs,
    first: &TokenizerFiles,
    own: Option<&Path>,
    options: &SourceOptions,
    zeros_without_prompt: bool,
) -> Result<Option<SecondText>> {
    let Some(text @ TextConfig { channels, pooled_at_largest, .. }) = &configs.text_2 else { return Ok(None) };
    let pad = match own.filter(|_| options.tokenizer.is_none()) {
        Some(own) => own_pad(text, first, own)?,
        None => first.id(PAD).unwrap_or(first.eos),
    };
    let (channels, pooled_at_largest, pooled) = (*channels, *pooled_at_largest, text.projection.unwrap_or_default());
    Ok(Some(SecondText { pad, channels, pooled, pooled_at_largest, zeros_without_prompt }))
}

fn own_pad(text: &TextConfig, first: &TokenizerFiles, own: &Path) -> Result<u32> {
    let usage = TokenizerUse::of(Family::Sd1, text.vocabulary, text.positions);
    let second = TokenizerFiles::open(own, usage)?;
    match second.splits_as(first) {
        true => Ok(second.pad),
        false => Err(Error::file(
            own,
            "makes other tokens of a prompt than tokenizer does; supported: the same, but for padding",
        )),
    }
}
