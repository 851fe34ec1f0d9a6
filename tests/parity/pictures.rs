//! Whole pictures, for every sampler: text to image and image to image, in f32 bundles.

use diffused_engine::request::{NoObserver, Request, Start};
use diffused_engine::sampler::SamplerKind;
use diffused_engine::{Engine, Options, Resolver};
use image::RgbImage;
use model_prep::Format;
use serde::Deserialize;

use crate::{Fresh, MODELS, goldens};

#[derive(Debug, Deserialize)]
struct Golden {
    model: String,
    sampler: SamplerKind,
    prompt: String,
    negative_prompt: String,
    seed: u64,
    steps: usize,
    cfg_scale: f64,
    width: usize,
    height: usize,
    init_image: Option<String>,
    strength: Option<f64>,
    file: String,
}

pub(crate) fn open(file: &str) -> RgbImage {
    image::open(goldens().join(file)).unwrap().into_rgb8()
}

impl Golden {
    fn request(&self) -> Request {
        Request {
            prompt: self.prompt.clone(),
            negative_prompt: self.negative_prompt.clone(),
            width: Some(self.width),
            height: Some(self.height),
            steps: Some(self.steps),
            cfg_scale: Some(self.cfg_scale),
            seed: self.seed,
            sampler: Some(self.sampler),
            strength: self.strength,
        }
    }
}

/// The part of the values that are at most one step of 255 from the reference's.
pub(crate) fn agreement(ours: &RgbImage, theirs: &RgbImage) -> f64 {
    assert_eq!(ours.dimensions(), theirs.dimensions());
    let near = ours.as_raw().iter().zip(theirs.as_raw()).filter(|(a, b)| a.abs_diff(**b) <= 1).count();
    near as f64 / theirs.as_raw().len() as f64
}

#[test]
fn pictures_agree() {
    let list = std::fs::read_to_string(goldens().join("pictures.json")).unwrap();
    let list: Vec<Golden> = serde_json::from_str(&list).unwrap();
    let mut wrong = Vec::new();
    for model in MODELS {
        let bundle = Fresh::new(model, Format::F32);
        let resolver = Resolver::open(bundle.source()).unwrap();
        let mut engine = Engine::open(bundle.source(), Options::default()).unwrap();
        for golden in list.iter().filter(|golden| golden.model == model) {
            let init_image = golden.init_image.as_deref().map(open);
            let init_size = init_image.as_ref().map(RgbImage::dimensions);
            let painting = resolver.resolve(&golden.request(), init_size).unwrap();
            let start = init_image.map_or(Start::Noise, Start::InitImage);
            let image = engine.paint(&painting, start, &mut NoObserver).unwrap();
            let agreement = agreement(&image, &open(&golden.file));
            println!("{}: {:.2} %", golden.file, 100.0 * agreement);
            if agreement < 0.999 {
                wrong.push(format!("{} ({:.2} %)", golden.file, 100.0 * agreement));
            }
        }
    }
    assert!(wrong.is_empty(), "less than 99.9 % agree: {wrong:?}");
    let covered = |kind: SamplerKind, from_image: bool| {
        list.iter().any(|golden| golden.sampler == kind && golden.init_image.is_some() == from_image)
    };
    assert!(SamplerKind::ALL.into_iter().all(|kind| covered(kind, false) && covered(kind, true)));
}
