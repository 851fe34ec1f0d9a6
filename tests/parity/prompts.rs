//! Prompts with weights, chunks and changes: embeddings and pictures are those that the A1111 web interface's arithmetic
//! gives on the reference's networks, and compel's where both agree.

use diffused_engine::request::Request;
use diffused_engine::text_encoder::Embeddings;
use diffused_engine::{Engine, Options, Resolver};
use model_prep::Format;
use serde::Deserialize;

use crate::networks::{Goldens, check};
use crate::pictures::check_pictures;
use crate::{Fresh, goldens};

/// Every so manyth value is in the goldens.
const SOME: usize = 7;
const STEPS: usize = 5;

/// Embeddings of a prompt at a call of the UNet.
#[derive(Debug, Deserialize)]
struct PromptGolden {
    model: String,
    prompt: String,
    call: usize,
    clip_skip: usize,
    tokens: usize,
    key: String,
}

#[test]
fn embeddings_are_a1111s() {
    let list = std::fs::read_to_string(goldens().join("prompts.json")).unwrap();
    let cases: Vec<PromptGolden> = serde_json::from_str(&list).unwrap();
    let tensors = Goldens::open("prompts");
    for model in ["sd1", "sd2", "sdxl"] {
        let bundle = Fresh::new(model, Format::F32);
        let resolver = Resolver::open(bundle.source()).unwrap();
        let mut engine = Engine::open(bundle.source(), Options::default()).unwrap();
        for case in cases.iter().filter(|case| case.model == model) {
            let request = Request {
                prompt: case.prompt.clone(),
                steps: Some(STEPS),
                cfg_scale: Some(1.0),
                clip_skip: Some(case.clip_skip),
                ..Request::default()
            };
            let painting = resolver.resolve(&request, None).unwrap();
            let Embeddings { values, pooled, tokens, .. } = engine.embeddings(&painting, case.call).unwrap().unwrap();
            assert_eq!(tokens, case.tokens, "{}", case.key);
            let some: Vec<f32> = values.iter().copied().step_by(SOME).collect();
            check(&case.key, &some, &tensors.get(&case.key).values, 1e-4);
            if let Some(wanted) = tensors.find(&format!("{}.pooled", case.key)) {
                check(&format!("{}, pooled", case.key), &pooled, &wanted.values, 1e-4);
            }
        }
    }
}

#[test]
fn pictures_of_prompts_agree() {
    check_pictures("pictures-prompts.json", &["sd1", "sd2", "sdxl"], |model| Fresh::new(model, Format::F32));
}
