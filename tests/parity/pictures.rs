//! Whole pictures, for every sampler: text to image and image to image, in f32 bundles.

use diffused_engine::bundle::AutoencoderKind;
use diffused_engine::hires::HiresRequest;
use diffused_engine::request::{NoObserver, Request, Start};
use diffused_engine::sampler::{NoiseSchedule, SamplerKind};
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
    decoder: Option<AutoencoderKind>,
    hires: Option<HiresRequest>,
    scheduler: Option<NoiseSchedule>,
    eta: Option<f64>,
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
            decoder: self.decoder,
            hires: self.hires.clone(),
            schedule: self.scheduler,
            eta: self.eta,
            ..Request::default()
        }
    }
}

/// The part of the values that are at most one step of 255 from the reference's.
pub(crate) fn agreement(ours: &RgbImage, theirs: &RgbImage) -> f64 {
    assert_eq!(ours.dimensions(), theirs.dimensions());
    let near = ours.as_raw().iter().zip(theirs.as_raw()).filter(|(a, b)| a.abs_diff(**b) <= 1).count();
    near as f64 / theirs.as_raw().len() as f64
}

/// Paints the pictures of the list `file` by these models, each with the bundle that `fresh` makes, and holds them
/// against the reference's. Returns what was painted: the sampler, and whether it started from an image.
pub(crate) fn check_pictures(file: &str, models: &[&str], fresh: impl Fn(&str) -> Fresh) -> Vec<(SamplerKind, bool)> {
    let list = std::fs::read_to_string(goldens().join(file)).unwrap();
    let list: Vec<Golden> = serde_json::from_str(&list).unwrap();
    let (mut wrong, mut painted) = (Vec::new(), Vec::new());
    for model in models {
        let bundle = fresh(model);
        let resolver = Resolver::open(bundle.source()).unwrap();
        let mut engine = Engine::open(bundle.source(), Options::default()).unwrap();
        for golden in list.iter().filter(|golden| golden.model == *model) {
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
            painted.push((golden.sampler, golden.init_image.is_some()));
        }
    }
    assert!(wrong.is_empty(), "less than 99.9 % agree: {wrong:?}");
    assert_eq!(painted.len(), list.len(), "every picture of {file} is of one of these models");
    painted
}

#[test]
fn pictures_agree() {
    let fresh = |model: &str| Fresh::new(model, Format::F32);
    let mut painted = check_pictures("pictures.json", &MODELS, fresh);
    painted.extend(check_pictures("pictures-samplers.json", &["sd1"], fresh));
    let covered = |kind: SamplerKind, from_image: bool| painted.contains(&(kind, from_image));
    assert!(SamplerKind::ALL.into_iter().all(|kind| covered(kind, false) && covered(kind, true)));
}

#[test]
fn second_passes_agree() {
    check_pictures("pictures-hires-two-calls.json", &["sd1"], |model| Fresh::new(model, Format::F32));
    check_pictures("pictures-hires.json", &["sd1", "sd2", "lcm", "sdxl", "demo"], |model| {
        Fresh::new(model, Format::F32)
    });
}

/// LatentConsistencyModelPipeline and SDXL's leave `clip_sample` on.
#[test]
fn pictures_of_clipping_pipelines_agree() {
    check_pictures("pictures-clipped.json", &["lcm-clipped", "sdxl-clipped"], |model| Fresh::new(model, Format::F32));
}
