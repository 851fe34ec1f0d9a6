//! Models of two text encoders.

use std::fs;
use std::path::{Path, PathBuf};

use diffused_engine::bundle::{Family, SecondText};
use diffused_engine::{Bundle, Source};
use model_prep::{Options, SourceOptions, convert};
use serde_json::json;

use crate::changed::SourceCopy;

/// A tiny model of the SDXL kind, with its text encoders' end token by transformers' old mistake.
fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/models/sdxl")
}

fn error(source: &SourceCopy) -> String {
    convert(&source.path(), &source.bundle(), &Options::default(), &mut |_| ()).unwrap_err().to_string()
}

/// What its bundle says of the second text encoder; nothing is warned of.
fn second(source: &SourceCopy, options: SourceOptions) -> SecondText {
    let options = Options { source: options, ..Options::default() };
    let conversion = convert(&source.path(), &source.bundle(), &options, &mut |_| ()).unwrap();
    assert_eq!(conversion.warnings, Vec::<String>::new());
    let manifest = Bundle::open(Source::Folder(source.bundle())).unwrap().manifest;
    assert!(manifest.family == Family::Sdxl && manifest.has("text_encoder_2") && manifest.text.channels == 24);
    manifest.text.second.unwrap()
}

#[test]
fn the_bundle_knows_both_text_encoders() {
    let found = second(&SourceCopy::of(&golden()), SourceOptions::default());
    let wanted = SecondText { pad: 0, channels: 16, pooled: 12, pooled_at_largest: true, zeros_without_prompt: true };
    assert_eq!(found, wanted);
}

#[test]
fn with_a_tokenizer_that_the_user_gives_the_second_pads_with_token_0() {
    let tokenizer = Some(golden().join("tokenizer"));
    let found = second(&SourceCopy::of(&golden()), SourceOptions { tokenizer, ..SourceOptions::default() });
    assert_eq!(found.pad, 0);
}

#[test]
fn tokenizers_that_differ_in_more_than_padding_are_refused() {
    let source = SourceCopy::of(&golden());
    let merges = fs::read_to_string(golden().join("tokenizer_2/merges.txt")).unwrap();
    let fewer: Vec<&str> = merges.lines().take(merges.lines().count() - 1).collect();
    source.write("tokenizer_2/merges.txt", fewer.join("\n").as_bytes());
    let message = error(&source);
    assert!(message.contains("tokenizer_2: makes other tokens of a prompt than tokenizer does"), "{message}");
}

#[test]
fn sizes_that_do_not_fit_each_other_are_refused_by_name() {
    let source = SourceCopy::of(&golden());
    source.set("unet/config.json", "cross_attention_dim", json!(8));
    let message = error(&source);
    assert!(
        message.contains("cross_attention_dim is 8; supported: 24, as the sum of both text encoders'"),
        "{message}"
    );
    let source = SourceCopy::of(&golden());
    source.set("text_encoder_2/config.json", "projection_dim", json!(10));
    let message = error(&source);
    assert!(message.contains("addition_embed_type is \"text_time\"; supported: a pooled embedding of 10"), "{message}");
}

#[test]
fn a_refiner_is_refused() {
    let source = SourceCopy::of(&golden());
    source.set("model_index.json", "requires_aesthetics_score", json!(true));
    let message = error(&source);
    assert!(message.contains("requires_aesthetics_score is true; supported: null, false"), "{message}");
}
