//! Models with LoRA files of every kind merged into them, and with textual inversions, paint what the reference paints
//! with the same files.

use std::os::unix::fs::symlink;

use diffused_engine::request::{NoObserver, Request, Start};
use diffused_engine::sampler::SamplerKind;
use diffused_engine::{Engine, Options, Resolver};
use model_prep::{Format, SourceOptions};
use serde::Deserialize;
use tempfile::TempDir;

use crate::pictures::{agreement, open};
use crate::{Fresh, goldens};

#[derive(Deserialize)]
struct AdapterCase {
    /// The picture's name in `adapters/`.
    name: String,
    /// What `--lora` is given, without the folder.
    loras: Vec<String>,
    /// The same of `--embedding`.
    embeddings: Vec<String>,
    prompt: String,
    negative_prompt: String,
    seed: u64,
    steps: usize,
    cfg_scale: f64,
    side: usize,
}

impl AdapterCase {
    fn source(&self) -> SourceOptions {
        let path = |file: &String| format!("{}/{file}", goldens().join("adapters").display());
        SourceOptions {
            lora: self.loras.iter().map(|file| path(file).parse().unwrap()).collect(),
            embedding: self.embeddings.iter().map(|file| path(file).parse().unwrap()).collect(),
            ..SourceOptions::default()
        }
    }

    /// The model, as a bundle.
    fn bundle(&self) -> Fresh {
        match &*self.name {
            "saved" => Fresh::with(saved().path(), Format::F32, self.source()),
            name => {
                let model = if name.starts_with("xl") { "sdxl" } else { "sd1" };
                Fresh::with(&goldens().join("models").join(model), Format::F32, self.source())
            }
        }
    }

    fn request(&self) -> Request {
        Request {
            prompt: self.prompt.clone(),
            negative_prompt: self.negative_prompt.clone(),
            seed: self.seed,
            steps: Some(self.steps),
            cfg_scale: Some(self.cfg_scale),
            width: Some(self.side),
            height: Some(self.side),
            sampler: Some(SamplerKind::Ddim),
            ..Request::default()
        }
    }
}

/// A pipeline as diffusers saves it after it has loaded a textual inversion: the model `lcm` with the parts that
/// differ.
fn saved() -> TempDir {
    let (folder, model, parts) =
        (tempfile::tempdir().unwrap(), goldens().join("models/lcm"), goldens().join("adapters/saved"));
    for part in ["model_index.json", "scheduler", "unet", "vae"] {
        symlink(model.join(part), folder.path().join(part)).unwrap();
    }
    for part in ["text_encoder", "tokenizer"] {
        symlink(parts.join(part), folder.path().join(part)).unwrap();
    }
    folder
}

#[test]
fn pictures_with_loras_and_textual_inversions_agree() {
    let list = std::fs::read_to_string(goldens().join("adapters.json")).unwrap();
    let mut wrong = Vec::new();
    for case in serde_json::from_str::<Vec<AdapterCase>>(&list).unwrap() {
        let bundle = case.bundle();
        let resolver = Resolver::open(bundle.source()).unwrap();
        let mut engine = Engine::open(bundle.source(), Options::default()).unwrap();
        let painting = resolver.resolve(&case.request(), None).unwrap();
        let image = engine.paint(&painting, Start::Noise, &mut NoObserver).unwrap();
        let agreement = agreement(&image, &open(&format!("adapters/{}.png", case.name)));
        println!("{}, {:?}: {:.2} %", case.name, case.loras, 100.0 * agreement);
        if agreement < 0.999 {
            wrong.push(format!("{} ({:.2} %)", case.name, 100.0 * agreement));
        }
    }
    assert!(wrong.is_empty(), "less than 99.9 % agree: {wrong:?}");
}

/// Weights of 10³⁰ are finite, what comes of them is not: that is no sampler's fault.
#[test]
fn a_lora_that_is_much_too_strong_is_told() {
    let lora = format!("{}/adapters/kohya.safetensors:1e30", goldens().display());
    let source = SourceOptions { lora: vec![lora.parse().unwrap()], ..SourceOptions::default() };
    let bundle = Fresh::with(&goldens().join("models/sd1"), Format::F32, source);
    let resolver = Resolver::open(bundle.source()).unwrap();
    let mut engine = Engine::open(bundle.source(), Options::default()).unwrap();
    let request = Request { prompt: "a red car".into(), steps: Some(2), ..Request::default() };
    let painting = resolver.resolve(&request, None).unwrap();
    let error = engine.paint(&painting, Start::Noise, &mut NoObserver).unwrap_err().to_string();
    assert!(error.contains("the UNet's output is not finite in step 1 of 3: the model's weights are too"), "{error}");
}
