//! Previews: what they show, and that they change nothing.

mod common;

use diffused_engine::error::Error;
use diffused_engine::hires::{HiresRequest, HiresUpscaler};
use diffused_engine::request::{NoObserver, Observer, PaintingProgress, Request, Start};
use diffused_engine::sampler::SamplerKind;
use diffused_engine::{Options, StepCheckpoint};
use image::{Rgb, RgbImage};

use common::{Studio, demo};

/// Keeps each `every`-th preview.
struct PreviewRecorder {
    every: usize,
    asked: usize,
    seen: Vec<RgbImage>,
    checkpoints: Vec<StepCheckpoint>,
}

impl PreviewRecorder {
    fn new(every: usize) -> PreviewRecorder {
        PreviewRecorder { every, asked: 0, seen: vec![], checkpoints: vec![] }
    }
}

impl Observer for PreviewRecorder {
    fn tick(&mut self, _: PaintingProgress) {}

    fn step_done(&mut self, checkpoint: &StepCheckpoint) {
        self.checkpoints.push(checkpoint.clone());
    }

    fn wants_preview(&mut self) -> bool {
        self.asked += 1;
        self.asked.is_multiple_of(self.every)
    }

    fn preview(&mut self, image: RgbImage) {
        self.seen.push(image);
    }
}

fn studio(memory: Option<u64>) -> Studio {
    Studio::open(demo(), Options { threads: Some(2), memory, ..Options::default() })
}

fn request(prompt: &str, sampler: SamplerKind, steps: usize) -> Request {
    let sampler = Some(sampler);
    Request { prompt: prompt.into(), seed: 7, sampler, steps: Some(steps), cfg_scale: Some(3.0), ..Request::default() }
}

/// The mean colour of each square that a pixel of the preview stands for.
fn thumbnail(image: &RgbImage, (width, height): (u32, u32)) -> RgbImage {
    let (wide, high) = (image.width() / width, image.height() / height);
    RgbImage::from_fn(width, height, |x, y| {
        let square = image::imageops::crop_imm(image, x * wide, y * high, wide, high);
        let sums = square.to_image().pixels().fold([0; 3], |sums: [u32; 3], pixel| {
            std::array::from_fn(|colour| sums[colour] + u32::from(pixel.0[colour]))
        });
        Rgb(sums.map(|sum| (sum / (wide * high)) as u8))
    })
}

/// Peak signal-to-noise ratio, dB.
fn psnr(a: &RgbImage, b: &RgbImage) -> f64 {
    let squares = a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2));
    let mean = squares.sum::<f64>() / a.as_raw().len() as f64;
    10.0 * (255.0 * 255.0 / mean).log10()
}

#[test]
fn previews_come_to_look_like_the_picture() {
    let mut studio = studio(None);
    for (prompt, sampler) in [
        ("a red house on the left on a meadow", SamplerKind::Ddim),
        ("a large yellow star on a blue background", SamplerKind::EulerAncestral),
        ("a black cat at sunset", SamplerKind::Dpm2),
        ("a blue boat on the sea at night with a moon", SamplerKind::DpmppSde),
        ("a green tree in snow", SamplerKind::Unipc),
        ("a pink flower on a beach", SamplerKind::Pndm),
    ] {
        let painting = studio.resolver.resolve(&request(prompt, sampler, 10), None).unwrap().with_previews(true);
        let mut recorder = PreviewRecorder::new(1);
        let image = studio.engine.paint(&painting, Start::Noise, &mut recorder).unwrap();
        assert_eq!(recorder.seen.len(), painting.calls() - 1);
        let small = thumbnail(&image, recorder.seen[0].dimensions());
        let near: Vec<f64> = recorder.seen.iter().map(|preview| psnr(preview, &small)).collect();
        println!("{sampler}: {near:.1?} dB");
        let (first, last) = (near[0], *near.last().unwrap());
        assert!(last > 19.0 && last > first + 3.0, "{sampler}: {near:.1?} dB");
    }
}

#[test]
fn previews_change_neither_the_picture_nor_its_checkpoints() {
    let mut studio = studio(None);
    for upscaler in [None, Some(HiresUpscaler::Latent), Some(HiresUpscaler::Lanczos)] {
        let hires = upscaler.map(|_| HiresRequest { upscaler, steps: Some(2), ..HiresRequest::default() });
        let request =
            Request { hires, width: Some(64), height: Some(32), ..request("a red house", SamplerKind::Heun, 3) };
        let plain = studio.resolver.resolve(&request, None).unwrap();
        let mut without = PreviewRecorder::new(1);
        let image = studio.engine.paint(&plain, Start::Noise, &mut without).unwrap();
        assert_eq!((without.seen.len(), without.asked), (0, 0));
        let painting = plain.clone().with_previews(true);
        for every in [1, 2, 100] {
            let mut with = PreviewRecorder::new(every);
            assert!(studio.engine.paint(&painting, Start::Noise, &mut with).unwrap() == image);
            assert!(with.checkpoints == without.checkpoints);
            let asked = plain.calls() - 1;
            assert_eq!((with.asked, with.seen.len()), (asked, asked / every));
        }
        let sizes: Vec<(u32, u32)> = {
            let mut all = PreviewRecorder::new(1);
            studio.engine.paint(&painting, Start::Noise, &mut all).unwrap();
            all.seen.iter().map(RgbImage::dimensions).collect()
        };
        let end = if upscaler.is_some() { (16, 8) } else { (8, 4) };
        assert_eq!((sizes[0], *sizes.last().unwrap()), ((8, 4), end));
        // A painting that goes on has previews of what is left.
        let checkpoint = without.checkpoints[1].clone();
        let mut rest = PreviewRecorder::new(1);
        assert!(studio.engine.paint(&painting, Start::Checkpoint(checkpoint), &mut rest).unwrap() == image);
        assert_eq!(rest.seen.len(), plain.calls() - 3);
    }
}

#[test]
fn previews_are_planned_and_fit_the_smallest_budget() {
    let mut ample = studio(None);
    let plain = ample.resolver.resolve(&request("a red house", SamplerKind::Ddim, 3), None).unwrap();
    let painting = plain.clone().with_previews(true);
    let image = ample.engine.paint(&plain, Start::Noise, &mut NoObserver).unwrap();
    let smallest = ample.engine.smallest_budget(&painting).unwrap();
    let more = smallest - ample.engine.smallest_budget(&plain).unwrap();
    assert!(more <= 2 << 20, "{more} bytes");
    let mut tight = studio(Some(smallest));
    assert!(tight.engine.plan(&painting).unwrap().peak() <= smallest);
    let mut recorder = PreviewRecorder::new(1);
    assert!(tight.engine.paint(&painting, Start::Noise, &mut recorder).unwrap() == image);
    assert_eq!(recorder.seen.len(), 2);
    if more > 0 {
        let refused = studio(Some(smallest - 1)).engine.paint(&painting, Start::Noise, &mut NoObserver);
        assert!(matches!(refused, Err(Error::OutOfMemory(_))));
    }
}
