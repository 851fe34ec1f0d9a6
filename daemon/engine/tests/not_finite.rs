//! A schedule on which a sampler divides by zero gives an error that names the step, and not a black image.

mod common;

use diffused_engine::Options;
use diffused_engine::error::Error;
use diffused_engine::request::{NoObserver, Request, Start};
use diffused_engine::sampler::SamplerKind;
use image::RgbImage;
use serde_json::json;

use common::{Studio, bundle};

/// A picture of the demo model with other keys in its `sampling`.
fn paint(sampling: &serde_json::Value, sampler: SamplerKind, steps: usize) -> Result<RgbImage, Error> {
    let folder = tempfile::tempdir().unwrap();
    let mut studio = Studio::open(bundle(folder.path(), sampling), Options::default());
    let side = Some(64);
    let request = Request {
        prompt: "a red house".into(),
        width: side,
        height: side,
        steps: Some(steps),
        seed: 7,
        sampler: Some(sampler),
        ..Request::default()
    };
    studio.engine.paint(&studio.resolver.resolve(&request, None).unwrap(), Start::Noise, &mut NoObserver)
}

fn message(result: Result<RgbImage, Error>) -> String {
    let Err(Error::Internal(message)) = result else { panic!("it was painted: {}", result.is_ok()) };
    message
}

#[test]
fn latents_that_are_not_finite_are_an_error() {
    let zero_snr = json!({"rescale_betas_zero_snr": true, "spacing": "trailing", "prediction": "epsilon"});
    for kind in [SamplerKind::Ddim, SamplerKind::Lcm] {
        let message = message(paint(&zero_snr, kind, 2));
        assert!(message.starts_with("the latents are not finite after step 1 of 2"), "{kind}: {message}");
    }
    assert!(paint(&zero_snr, SamplerKind::Euler, 2).is_ok());
    // The first two of these timesteps have the same sigma.
    let leading = json!({"spacing": "leading", "steps_offset": 1});
    let message = message(paint(&leading, SamplerKind::Dpmpp2m, 999));
    assert!(message.starts_with("the latents are not finite after step 2 of 999"), "{message}");
}

/// PNDM's scheduler has no such key in the reference, so the model is sampled on its betas as they are.
#[test]
fn pndm_ignores_zero_terminal_snr() {
    let sampling = |rescaled: bool| json!({"rescale_betas_zero_snr": rescaled, "spacing": "trailing", "prediction": "v_prediction"});
    let pictures = [true, false].map(|rescaled| paint(&sampling(rescaled), SamplerKind::Pndm, 10).unwrap());
    assert!(pictures[0] == pictures[1], "the key changes the picture");
    let (darkest, brightest) = (pictures[0].iter().min(), pictures[0].iter().max());
    assert!(brightest > darkest, "every pixel is {darkest:?}");
}
