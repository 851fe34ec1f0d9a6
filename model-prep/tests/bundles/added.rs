//! Tokens that a folder adds to CLIP's vocabulary are in the bundle, with their rows.

use std::fs;

use diffused_engine::Source;
use diffused_engine::bundle::{AddedToken, Manifest, WeightsFile};
use model_prep::{Options, convert};
use serde_json::json;

use crate::changed::SourceCopy;

const TOKENS: &str = "embeddings.token_embedding.weight";

/// A copy of the demo model with two rows more in its token table.
fn with_two_rows() -> (SourceCopy, u32) {
    let source = SourceCopy::new();
    let mut rows = 0;
    source.change("text_encoder/model.safetensors", |tensors| {
        let table = tensors.iter_mut().find(|(name, _)| name.ends_with(TOKENS)).unwrap().1;
        rows = table.shape[0];
        let row = table.bytes.len() / rows;
        table.bytes.extend_from_within(..2 * row);
        table.shape[0] += 2;
    });
    source.set("text_encoder/config.json", "vocab_size", json!(rows + 2));
    (source, rows as u32)
}

/// What the bundle of `source` lists, and what was told.
fn added(source: &SourceCopy) -> (Vec<AddedToken>, Vec<String>) {
    let warnings = convert(&source.path(), &source.bundle(), &Options::default(), &mut |_| ()).unwrap().warnings;
    let manifest = Manifest::parse(&fs::read(source.bundle().join("bundle.json")).unwrap()).unwrap();
    (manifest.text.added.clone(), warnings)
}

#[test]
fn tokens_of_a_textual_inversion_that_was_saved_with_its_pipeline_are_taken_over() {
    let (source, rows) = with_two_rows();
    let tokens = json!({"<cat-toy>": rows, "<cat-toy>_1": rows + 1, "<|endoftext|>": 652});
    source.write("tokenizer/added_tokens.json", tokens.to_string().as_bytes());
    let (added, warnings) = added(&source);
    let token = |text: &str, ids| AddedToken { text: text.into(), ids, exact: false };
    assert_eq!(added, [token("<cat-toy>", vec![rows, rows + 1]), token("<cat-toy>_1", vec![rows + 1])]);
    assert_eq!(warnings, Vec::<String>::new());
    let weights = WeightsFile::open(&Source::Folder(source.bundle()), "text_encoder").unwrap();
    let table = weights.entry("embeddings.token_embedding").unwrap().shape();
    assert_eq!(table.units(), rows as usize + 2);
}

#[test]
fn rows_that_no_token_names_are_told_of() {
    let (source, _) = with_two_rows();
    let (added, warnings) = added(&source);
    assert_eq!(added, []);
    assert_eq!(warnings, ["the text encoder has 2 tokens that the tokenizer lacks: no prompt can name them"]);
}
