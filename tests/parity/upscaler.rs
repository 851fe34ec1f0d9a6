//! Upscalers: what they make of images, and where they stand in a painting.

use diffused_engine::hires::{HiresRequest, HiresUpscaler, SamplingPass};
use diffused_engine::inpainting::{Inpainting, Mask};
use diffused_engine::memory_plan::RunBudget;
use diffused_engine::picture::Fit;
use diffused_engine::request::{NoObserver, Observer, PaintingProgress, Request, Stage, Start};
use diffused_engine::upscaler::Upscaler;
use diffused_engine::{Engine, Options, Painting, Resolver, StepCheckpoint};
use image::RgbImage;
use model_prep::{Format, SourceOptions};
use safetensors::SafeTensors;

use crate::int8::{psnr, report};
use crate::{Fresh, goldens};

const X4: &str = "upscaler-x4.pth";
const X2: &str = "upscaler-x2.safetensors";

/// A bundle of the model sd1 and an upscaler.
fn with_upscaler(file: &str, weights: Format) -> Fresh {
    let upscaler = Some(goldens().join("models").join(file));
    Fresh::with(&goldens().join("models/sd1"), weights, SourceOptions { upscaler, ..SourceOptions::default() })
}

/// The images of the goldens, each with what becomes of it: as `kind` says.
fn cases(kind: &str) -> Vec<(RgbImage, RgbImage)> {
    let bytes = std::fs::read(goldens().join("upscaler.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let image = |name: &str| {
        let view = tensors.tensor(name).unwrap();
        let [height, width, 3] = *view.shape() else { panic!("{name}: {:?}", view.shape()) };
        RgbImage::from_raw(width as u32, height as u32, view.data().to_vec()).unwrap()
    };
    let names = tensors.names();
    let sizes = names.iter().filter_map(|name| name.strip_suffix(".in"));
    let cases: Vec<_> = sizes.map(|size| (image(&format!("{size}.in")), image(&format!("{size}.{kind}")))).collect();
    assert!(cases.len() > 2);
    cases
}

fn upscale(bundle: &Fresh, image: &RgbImage, factor: usize, strips: Option<usize>) -> RgbImage {
    let mut upscaler = Upscaler::open(&bundle.bundle()).unwrap().unwrap();
    let budget = RunBudget { strips, ..RunBudget::ample() };
    upscaler.upscale(image, factor, budget, &mut |_| {}).unwrap()
}

#[test]
fn enlarged_images_agree() {
    let (x4, x2) = (with_upscaler(X4, Format::F32), with_upscaler(X2, Format::F32));
    for (bundle, factor, kind) in [(&x4, 4, "x4"), (&x4, 2, "x4-2"), (&x2, 2, "x2")] {
        for (image, wanted) in cases(kind) {
            let found = upscale(bundle, &image, factor, Some(usize::MAX));
            assert_eq!(found.dimensions(), wanted.dimensions());
            let (found, wanted) = (found.as_raw(), wanted.as_raw());
            let near = found.iter().zip(wanted).filter(|(a, b)| a.abs_diff(**b) <= 1).count();
            assert!(near * 1000 >= found.len() * 999, "{kind}: {near} of {} values", found.len());
        }
    }
}

#[test]
fn enlarged_images_do_not_depend_on_the_strips() {
    for (file, factor) in [(X4, 4), (X4, 2), (X2, 2)] {
        let bundle = with_upscaler(file, Format::Int8);
        for (image, _) in cases("in") {
            let whole = upscale(&bundle, &image, factor, None);
            for strips in [usize::MAX, 1] {
                assert!(upscale(&bundle, &image, factor, Some(strips)) == whole, "{file}, {strips} bytes");
            }
        }
    }
}

#[test]
fn int8_is_near() {
    for (file, factor) in [(X4, 4), (X2, 2)] {
        let bundles = [Format::F32, Format::F16, Format::Int8].map(|weights| with_upscaler(file, weights));
        for (image, _) in cases("in") {
            let [exact, half, int8] = bundles.each_ref().map(|bundle| upscale(bundle, &image, factor, Some(1)));
            let (half, int8) = (psnr(&exact, &half), psnr(&exact, &int8));
            report(&format!("{file}: PSNR to f32 {half:.1} dB in f16, {int8:.1} dB in int8"));
            assert!(int8 >= 38.0 && half >= 55.0, "{file}: {half:.1} and {int8:.1} dB");
        }
    }
}

/// The picture without the upscaler, enlarged, in any budget that is enough.
#[test]
fn a_painting_ends_enlarged() {
    let bundle = with_upscaler(X4, Format::Int8);
    let resolver = Resolver::open(bundle.source()).unwrap();
    let paint = |upscale, memory| {
        let size = Some(48);
        let request =
            Request { prompt: "a".into(), steps: Some(2), width: size, height: size, upscale, ..Request::default() };
        let painting = resolver.resolve(&request, None).unwrap();
        let mut engine = Engine::open(bundle.source(), Options { memory, ..Options::default() }).unwrap();
        let stages: Vec<Stage> = engine.plan(&painting).unwrap().stages.iter().map(|plan| plan.stage).collect();
        assert_eq!(stages.contains(&Stage::Upscaler), upscale.is_some());
        let smallest = engine.smallest_budget(&painting).unwrap();
        (engine.paint(&painting, Start::Noise, &mut NoObserver).unwrap(), smallest, engine.work(&painting).unwrap())
    };
    let (plain, _, less) = paint(None, None);
    let (large, smallest, more) = paint(Some(4), None);
    assert_eq!((plain.dimensions(), large.dimensions()), ((48, 48), (192, 192)));
    assert!(large == upscale(&bundle, &plain, 4, None) && paint(Some(4), Some(smallest)).0 == large);
    // 3 convolutions of 12 channels between one from 3 and one to 48.
    assert_eq!(more - less, 48 * 48 * 9 * (3 * 12 + 3 * 12 * 12 + 12 * 48));
    assert_eq!(paint(Some(2), None).0.dimensions(), (96, 96));
}

/// What an engine with a budget makes of a painting, and the smallest budget for it.
fn paint(bundle: &Fresh, painting: &Painting, start: Start, memory: Option<u64>) -> (RgbImage, u64) {
    let mut engine = Engine::open(bundle.source(), Options { memory, ..Options::default() }).unwrap();
    let smallest = engine.smallest_budget(painting).unwrap();
    (engine.paint(painting, start, &mut NoObserver).unwrap(), smallest)
}

/// Keeps what a painting can go on from, and what was reported.
#[derive(Default)]
struct UpscalingRecorder {
    checkpoints: Vec<StepCheckpoint>,
    done: Vec<f64>,
}

impl Observer for UpscalingRecorder {
    fn tick(&mut self, progress: PaintingProgress) {
        self.done.push(progress.done);
    }

    fn step_done(&mut self, checkpoint: &StepCheckpoint) {
        self.checkpoints.push(checkpoint.clone());
    }
}

/// A painting goes on from each of its checkpoints, given to `start`, to `wanted`; progress grows to 1.
fn goes_on(bundle: &Fresh, painting: &Painting, start: impl Fn(Option<StepCheckpoint>) -> Start, wanted: &RgbImage) {
    let mut engine = Engine::open(bundle.source(), Options::default()).unwrap();
    let mut whole = UpscalingRecorder::default();
    engine.paint(painting, start(None), &mut whole).unwrap();
    for checkpoint in whole.checkpoints.clone() {
        let mut rest = UpscalingRecorder::default();
        assert!(engine.paint(painting, start(Some(checkpoint)), &mut rest).unwrap() == *wanted);
        for seen in [&whole, &rest] {
            assert!(seen.done.is_sorted() && (seen.done.last().unwrap() - 1.0).abs() < 1e-9, "{:?}", seen.done);
        }
    }
}

/// As A1111 has it: all that the network makes of the first pass's image, scaled to the second pass's size, which then is
/// image to image. An upscaler in the end is another run.
#[test]
fn a_second_pass_begins_with_an_enlarged_image() {
    let bundle = with_upscaler(X4, Format::Int8);
    let resolver = Resolver::open(bundle.source()).unwrap();
    let request = Request { prompt: "a".into(), seed: 3, steps: Some(2), ..Request::default() };
    let first = Request { width: Some(48), height: Some(32), ..request.clone() };
    let upscaler = Some(HiresUpscaler::Model);
    let hires = HiresRequest {
        scale: Some(1.5),
        steps: Some(3),
        denoising_strength: Some(0.5),
        upscaler,
        ..HiresRequest::default()
    };
    let resolve = |request: &Request, size| resolver.resolve(request, size).unwrap();
    let plain = paint(&bundle, &resolve(&first, None), Start::Noise, None).0;
    let enlarged = upscale(&bundle, &plain, 4, None);
    let scaled = Fit::Stretch.place(&enlarged, 72, 48, image::Rgb([0; 3]));
    let (width, height) = (Some(72), Some(48));
    let from_image = Request { steps: Some(6), strength: Some(0.5), width, height, ..request };
    let from_image = resolve(&from_image, Some(scaled.dimensions()));
    let wanted = paint(&bundle, &from_image, Start::InitImage(scaled), None).0;
    for factor in [None, Some(2)] {
        let painting = resolve(&Request { hires: Some(hires.clone()), upscale: factor, ..first.clone() }, None);
        let wanted = factor.map_or(wanted.clone(), |factor| upscale(&bundle, &wanted, factor, None));
        let (found, smallest) = paint(&bundle, &painting, Start::Noise, None);
        assert!(found == wanted && paint(&bundle, &painting, Start::Noise, Some(smallest)).0 == wanted, "{factor:?}");
        goes_on(&bundle, &painting, |from| from.map_or(Start::Noise, Start::Checkpoint), &wanted);
        let mut engine = Engine::open(bundle.source(), Options::default()).unwrap();
        let plan = engine.plan(&painting).unwrap();
        let runs: Vec<_> =
            plan.stages.iter().filter(|plan| plan.stage == Stage::Upscaler).map(|plan| plan.pass).collect();
        let all = [SamplingPass::First, SamplingPass::Hires];
        assert_eq!(runs, all[..1 + usize::from(factor.is_some())]);
    }
}

/// What the mask leaves is put back first, so that all of the image is enlarged alike.
#[test]
fn a_masked_image_is_enlarged_as_a_whole() {
    let bundle = with_upscaler(X4, Format::Int8);
    let resolver = Resolver::open(bundle.source()).unwrap();
    let image = RgbImage::from_fn(48, 32, |x, y| image::Rgb([x as u8 * 5, y as u8 * 7, 90]));
    let white = image::GrayImage::from_fn(48, 32, |x, _| image::Luma([if x < 24 { 255 } else { 0 }]));
    for keep_unmasked in [true, false] {
        let inpainting = Inpainting { blur_x: 2.0, keep_unmasked, ..Inpainting::default() };
        let mask = Mask::new(white.clone(), &inpainting);
        let start = |checkpoint| Start::Masked { image: image.clone(), mask: mask.clone(), checkpoint };
        let painting = |upscale| {
            let (inpainting, width, height) = (Some(inpainting), Some(48), Some(32));
            let request = Request {
                prompt: "a".into(),
                steps: Some(3),
                inpainting,
                upscale,
                width,
                height,
                ..Request::default()
            };
            resolver.resolve(&request, Some((48, 32))).unwrap()
        };
        let painted = paint(&bundle, &painting(None), start(None), None).0;
        let whole = if keep_unmasked { mask.clone().doubled().overlay(image.clone(), &painted) } else { painted };
        let wanted = upscale(&bundle, &whole, 4, None);
        let (found, smallest) = paint(&bundle, &painting(Some(4)), start(None), None);
        assert!(found == wanted && paint(&bundle, &painting(Some(4)), start(None), Some(smallest)).0 == wanted);
        goes_on(&bundle, &painting(Some(4)), start, &wanted);
    }
}
