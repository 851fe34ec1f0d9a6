//! The tokenizer against transformers' (`goldens/make_tokenizer.py`), and against whatever text a client may send.

use diffused_engine::bundle::{AddedToken, Text};
use diffused_engine::tokenizer::Tokenizer;
use proptest::prelude::*;
use serde::Deserialize;

const DEMO: [&str; 3] = [
    include_str!("goldens/tokenizer/demo_vocab.json"),
    include_str!("goldens/tokenizer/demo_merges.txt"),
    include_str!("goldens/tokenizer/demo_cases.json"),
];
const CLIP: [&str; 3] = [
    include_str!("goldens/tokenizer/clip_vocab.json"),
    include_str!("goldens/tokenizer/clip_merges.txt"),
    include_str!("goldens/tokenizer/clip_cases.json"),
];

const ADDED: &str = include_str!("goldens/tokenizer/added_cases.json");

/// A prompt and its ids, padded to 77.
#[derive(Deserialize)]
struct Case {
    pad: u32,
    prompt: String,
    ids: Vec<u32>,
    truncated: bool,
}

/// Added tokens, and prompts that hold them.
#[derive(Deserialize)]
struct AddedCases {
    tokens: Vec<AddedToken>,
    cases: Vec<Case>,
}

fn open(files: [&str; 3]) -> Tokenizer {
    Tokenizer::new(files[0].as_bytes(), files[1].as_bytes(), &[]).unwrap()
}

fn sizes(bos: u32, eos: u32, pad: u32) -> Text {
    Text { tokens: 77, bos, eos, pad, channels: 768, second: None, words: None, added: Vec::new(), clip_skip: None }
}

fn check(files: [&str; 3], bos: u32, eos: u32) {
    check_cases(&open(files), &serde_json::from_str::<Vec<Case>>(files[2]).unwrap(), bos, eos);
}

fn check_cases(tokenizer: &Tokenizer, cases: &[Case], bos: u32, eos: u32) {
    for case in cases {
        let encoded = tokenizer.encode(&case.prompt, &sizes(bos, eos, case.pad));
        assert_eq!(encoded.ids, case.ids, "{:?}", case.prompt);
        assert_eq!(encoded.left_out.is_some(), case.truncated, "{:?}", case.prompt);
    }
}

#[test]
fn the_demo_models_ids_are_transformers() {
    let vocab: std::collections::HashMap<String, u32> = serde_json::from_str(DEMO[0]).unwrap();
    check(DEMO, vocab["<|startoftext|>"], vocab["<|endoftext|>"]);
}

#[test]
fn clips_ids_are_transformers() {
    check(CLIP, 49406, 49407);
}

#[test]
fn added_tokens_are_found_as_transformers_finds_them() {
    let AddedCases { tokens, cases } = serde_json::from_str(ADDED).unwrap();
    let tokenizer = Tokenizer::new(CLIP[0].as_bytes(), CLIP[1].as_bytes(), &tokens).unwrap();
    check_cases(&tokenizer, &cases, 49406, 49407);
}

#[test]
fn all_ids_of_an_added_token_have_room_or_it_is_left_out() {
    let added = [AddedToken { text: "Toy".into(), ids: vec![600, 601, 602], exact: false }];
    let tokenizer = Tokenizer::new(DEMO[0].as_bytes(), DEMO[1].as_bytes(), &added).unwrap();
    let encode = |text: &str| tokenizer.encode(text, &Text { tokens: 6, ..sizes(0, 1, 1) });
    assert_eq!(encode("toys").ids[1..4], [600, 601, 602]);
    assert_eq!(encode("a toy").left_out, None);
    assert_eq!(encode("a red TOY, please").left_out.as_deref(), Some("toy, please"));
    assert_eq!(encode("a red TOY").ids[3..], [600, 601, 1]);
}

#[test]
fn a_very_long_word_is_no_burden() {
    let encoded = open(CLIP).encode(&"ha".repeat(100_000), &sizes(49406, 49407, 49407));
    assert!(encoded.left_out.is_some());
}

#[test]
fn what_is_left_out_begins_with_the_first_word_that_does_not_fit() {
    let sizes = Text { tokens: 5, ..sizes(0, 1, 1) };
    let tokenizer = open(DEMO);
    let left_out = |text: &str| tokenizer.encode(text, &sizes).left_out;
    assert_eq!(left_out("a red house  "), None);
    assert_eq!(left_out("a red House at Night, please").as_deref(), Some("at night, please"));
    assert_eq!(left_out("a red hippopotamusses at night").as_deref(), Some("hippopotamusses at night"));
    assert_eq!(left_out("a red house<|endoftext|> At night").as_deref(), Some("<|endoftext|> At night"));
    assert_eq!(left_out("a red <|endoftext|>house At night").as_deref(), Some("house at night"));
    assert_eq!(tokenizer.encode("a red house", &sizes).ids, tokenizer.encode("a red house at night", &sizes).ids);
}

proptest! {
    #[test]
    fn any_text_has_as_many_ids_as_asked(text in any::<String>(), tokens in 0usize..100, pad in 0u32..600) {
        let encoded = open(DEMO).encode(&text, &Text { tokens, ..sizes(0, 1, pad) });
        prop_assert_eq!(encoded.ids.len(), tokens);
    }
}
