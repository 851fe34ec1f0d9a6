//! What people add to a model: LoRA and its like, which change weights, and textual inversions, which add tokens.
//!
//! Nothing of a network is held whole: a file's keys are matched with the network's modules when it is opened, and the
//! change of a module's weight is computed row by row whenever rows of it are read (`Checkpoint::change`). The factors
//! of one module at a time are in memory.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::unwrap_used))]

mod embedding;
mod factors;
mod family;
mod key;
mod lora;
mod merge;
mod modules;
mod original_names;
mod parts;
mod scale;

use std::sync::Arc;

use diffused_engine::bundle::AddedToken;

use crate::error::Result;
use crate::options::SourceOptions;
use crate::tensors::{Checkpoint, TensorFile};

/// A network by its name in a bundle.
pub(crate) type NamedNetwork<'a> = (&'static str, &'a mut Checkpoint);

/// Merges the LoRA files of `options` into `networks`, one after the other; returns the files. What the user should
/// know of is added to `warnings`.
pub(crate) fn merge_loras(
    options: &SourceOptions,
    networks: &mut [NamedNetwork],
    warnings: &mut Vec<String>,
) -> Result<Vec<Arc<TensorFile>>> {
    let (mut merges, mut files) = (lora::Merges::new(), Vec::new());
    for option in &options.lora {
        let lora = lora::Lora::open(option)?;
        files.push(lora.file());
        lora.merge(networks, &mut merges, options.lenient, warnings)?;
    }
    for ((network, weight), merges) in merges {
        if let Some((_, checkpoint)) = networks.iter_mut().find(|(name, _)| *name == network) {
            merge::merge_weight(checkpoint, &weight, merges)?;
        }
    }
    Ok(files)
}

/// Adds the textual inversions of `options` to the token tables of `networks`, which have `rows` rows; the tokens that
/// they are, and the files. `taken` says which texts are tokens already.
pub(crate) fn add_embeddings(
    options: &SourceOptions,
    networks: &mut [NamedNetwork],
    mut rows: usize,
    taken: &dyn Fn(&str) -> bool,
) -> Result<(Vec<AddedToken>, Vec<Arc<TensorFile>>)> {
    let (mut added, mut files) = (Vec::<AddedToken>::new(), Vec::new());
    for option in &options.embedding {
        let embedding = embedding::Embedding::open(option)?;
        let folded = |text: &str| text.to_lowercase();
        let there = |text: &str| taken(text) || added.iter().any(|token| folded(&token.text) == folded(text));
        let tokens = embedding.add(networks, rows, &there)?;
        rows += tokens.len();
        added.extend(tokens);
        files.push(embedding.file());
    }
    Ok((added, files))
}

/// What prompts call the added tokens; of several that stand for one word only the first.
pub fn added_words(added: &[AddedToken]) -> Vec<&str> {
    let further =
        |token: &AddedToken| added.iter().any(|other| other.ids.iter().skip(1).any(|id| token.ids.first() == Some(id)));
    added.iter().filter(|token| !further(token)).map(|token| token.text.as_str()).collect()
}

/// Refuses networks that were saved with an adapter beside each weight: how it is scaled is not in the files.
pub(crate) fn refuse_unfused(networks: &[NamedNetwork]) -> Result<()> {
    for (_, checkpoint) in networks {
        if let Some(name) = checkpoint.names().find(|name| name.contains(".base_layer.")) {
            let message = "was saved with a LoRA that is not fused; give the model without it and the LoRA as --lora, or save it \
                           again after fuse_lora() and unload_lora_weights()";
            return Err(checkpoint.error(name, message));
        }
    }
    Ok(())
}

#[allow(clippy::cast_possible_truncation, reason = "rounded to the nearest f32")]
fn nearest(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_of_several_tokens_is_named_once() {
        let token = |text: &str, ids: &[u32]| AddedToken { text: text.into(), ids: ids.into(), exact: false };
        let added = [token("neg", &[7, 8]), token("neg_1", &[8]), token("<cat-toy>", &[9])];
        assert_eq!(added_words(&added), ["neg", "<cat-toy>"]);
    }
}
