//! A schedule on which a sampler divides by zero gives an error that names the step, and not a black image.

mod common;

use diffused_engine::error::Error;
use diffused_engine::request::{NoObserver, Request, Start};
use diffused_engine::sampler::SamplerKind;
use diffused_engine::{Engine, Options, Resolver};
use serde_json::json;

use common::bundle;

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
        engine.paint(&resolver.resolve(&request, None).unwrap(), Start::Noise, &mut NoObserver)
    };
    let Err(Error::Internal(message)) = paint(SamplerKind::Ddim) else { panic!("alpha is 0 at the first timestep") };
    assert!(message.starts_with("the latents are not finite after step 1 of 2"), "{message}");
    assert!(paint(SamplerKind::Euler).is_ok());
}
