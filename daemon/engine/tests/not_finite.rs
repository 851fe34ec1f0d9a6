//! A schedule on which a sampler divides by zero gives an error that names the step, and not a black image.

use std::fs;
use std::path::Path;

use diffused_engine::error::Error;
use diffused_engine::request::{NoObserver, Request};
use diffused_engine::sampler::SamplerKind;
use diffused_engine::{Engine, Options, Resolver, Source};
use serde_json::{Value, json};

/// The demo model's bundle with other keys in its `sampling`.
fn bundle(folder: &Path, sampling: &Value) -> Source {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/demo");
    fs::create_dir(folder.join("tokenizer")).unwrap();
    for part in ["", "tokenizer"] {
        for entry in fs::read_dir(demo.join(part)).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
            fs::copy(entry.path(), folder.join(part).join(entry.file_name())).unwrap();
        }
    }
    let manifest = fs::read(folder.join("bundle.json")).unwrap();
    let mut manifest: Value = serde_json::from_slice(&manifest).unwrap();
    for (key, value) in sampling.as_object().unwrap() {
        manifest["sampling"][key] = value.clone();
    }
    fs::write(folder.join("bundle.json"), manifest.to_string()).unwrap();
    Source::Folder(folder.to_owned())
}

#[test]
fn latents_that_are_not_finite_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let zero_snr = json!({"rescale_betas_zero_snr": true, "spacing": "trailing", "prediction": "epsilon"});
    let source = bundle(folder.path(), &zero_snr);
    let resolver = Resolver::open(source.clone()).unwrap();
    let mut engine = Engine::open(source, Options::default()).unwrap();
    let sizes = (Some(64), Some(64));
    let mut paint = |sampler| {
        let request =
            Request { width: sizes.0, height: sizes.1, steps: Some(2), sampler: Some(sampler), ..Request::default() };
        engine.paint(&resolver.resolve(&request, None).unwrap(), None, &mut NoObserver)
    };
    let Err(Error::Internal(message)) = paint(SamplerKind::Ddim) else { panic!("alpha is 0 at the first timestep") };
    assert!(message.starts_with("the latents are not finite after step 1 of 2"), "{message}");
    assert!(paint(SamplerKind::Euler).is_ok());
}
