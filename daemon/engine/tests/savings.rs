//! Guidance in an interval and deep features that are kept: what they leave out, and that what is painted depends on them
//! alone, wherever a painting goes on from.

mod common;

use diffused_engine::error::Error;
use diffused_engine::hash::xxh3;
use diffused_engine::hires::HiresRequest;
use diffused_engine::request::{NoObserver, Observer, PaintingProgress, Request, Start};
use diffused_engine::sampler::SamplerKind;
use diffused_engine::{Options, Painting, StepCheckpoint};
use image::RgbImage;

use common::{Studio, demo};

/// Keeps what the engine reports.
#[derive(Default)]
struct CheckpointRecorder {
    done: f64,
    checkpoints: Vec<StepCheckpoint>,
}

impl Observer for CheckpointRecorder {
    fn tick(&mut self, progress: PaintingProgress) {
        assert!(progress.done >= self.done, "{progress:?}");
        self.done = progress.done;
    }

    fn step_done(&mut self, checkpoint: &StepCheckpoint) {
        self.checkpoints.push(checkpoint.clone());
    }
}

fn open(memory: Option<u64>) -> Studio {
    Studio::open(demo(), Options { threads: Some(2), memory, beside: 0 })
}

fn request(steps: usize) -> Request {
    Request {
        prompt: "a red house".into(),
        negative_prompt: "a tree".into(),
        width: Some(64),
        height: Some(64),
        steps: Some(steps),
        sampler: Some(SamplerKind::Dpmpp2m),
        seed: 7,
        ..Request::default()
    }
}

impl Studio {
    fn resolve(&self, request: &Request) -> Painting {
        self.resolver.resolve(request, None).unwrap()
    }

    fn paint(&mut self, painting: &Painting, start: Start) -> (RgbImage, CheckpointRecorder) {
        let mut recorder = CheckpointRecorder::default();
        let image = self.engine.paint(painting, start, &mut recorder).unwrap();
        assert!((recorder.done - 1.0).abs() < 1e-9, "{}", recorder.done);
        (image, recorder)
    }

    fn image(&mut self, request: &Request) -> RgbImage {
        let painting = self.resolve(request);
        self.paint(&painting, Start::Noise).0
    }
}

/// A negative prompt of two chunks: beside it, the prompt is repeated.
#[test]
fn a_step_outside_the_interval_is_one_without_guidance() {
    let mut studio = open(None);
    for negative_prompt in ["a tree".to_owned(), "a tree, ".repeat(30)] {
        let one = Request { negative_prompt, ..request(1) };
        let never = studio.image(&Request { guidance_interval: Some([0.5, 1.0]), ..one.clone() });
        assert!(never == studio.image(&Request { cfg_scale: Some(1.0), ..one.clone() }));
        assert!(never != studio.image(&one));
    }
    let always = Request { guidance_interval: Some([0.0, 1.0]), cache_interval: Some(1), ..request(2) };
    assert!(studio.image(&always) == studio.image(&request(2)));
    assert_eq!(studio.resolve(&always).parameters(), studio.resolve(&request(2)).parameters());
}

#[test]
fn less_is_computed_and_the_image_is_nearly_the_same() {
    let mut studio = open(None);
    let plain = studio.resolve(&request(12));
    let (exact, work) = (studio.paint(&plain, Start::Noise).0, studio.engine.work(&plain).unwrap() as f64);
    for (guidance_interval, cache_interval, most, least) in
        [(Some([0.0, 0.5]), None, 0.8, 15.0), (None, Some(2), 0.8, 15.0), (Some([0.0, 0.7]), Some(3), 0.65, 12.0)]
    {
        let painting = studio.resolve(&Request { guidance_interval, cache_interval, ..request(12) });
        let part = studio.engine.work(&painting).unwrap() as f64 / work;
        let decibels = psnr(&studio.paint(&painting, Start::Noise).0, &exact);
        println!("{guidance_interval:?}, {cache_interval:?}: {part:.3} of the multiply-adds, {decibels:.1} dB");
        assert!(part < most && decibels > least && decibels < 60.0, "{part} of the work, {decibels} dB");
    }
}

/// Peak signal-to-noise ratio, dB.
fn psnr(a: &RgbImage, b: &RgbImage) -> f64 {
    let squares = a.iter().zip(b.iter()).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
    10.0 * (255.0 * 255.0 * a.len() as f64 / squares.sum::<f64>()).log10()
}

#[test]
fn it_goes_on_to_the_same_bytes_from_each_checkpoint_and_in_each_budget() {
    let hires = HiresRequest { scale: Some(1.5), steps: Some(4), ..HiresRequest::default() };
    let both = Request { guidance_interval: Some([0.3, 0.8]), cache_interval: Some(3), ..request(7) };
    let mut studio = open(None);
    for request in [
        both.clone(),
        Request { sampler: Some(SamplerKind::Heun), ..both.clone() },
        Request { sampler: Some(SamplerKind::EulerAncestral), hires: Some(hires), ..both.clone() },
        Request { prompt: "a [red:blue:0.5] house AND a boat".into(), ..both.clone() },
    ] {
        let painting = studio.resolve(&request);
        let (image, whole) = studio.paint(&painting, Start::Noise);
        let kept: Vec<usize> = whole.checkpoints.iter().map(StepCheckpoint::calls).collect();
        assert!(kept.len() >= 3 && kept.len() < painting.calls(), "{kept:?} of {} calls", painting.calls());
        for checkpoint in whole.checkpoints {
            let calls = checkpoint.calls();
            assert!(studio.paint(&painting, Start::Checkpoint(checkpoint)).0 == image, "after {calls} calls");
        }
        let smallest = studio.engine.smallest_budget(&painting).unwrap();
        let mut narrow = open(Some(smallest));
        assert!(narrow.paint(&painting, Start::Noise).0 == image, "within {} MiB", smallest >> 20);
    }
}

/// The bytes of a checkpoint of this format, made as after another call.
#[test]
fn a_checkpoint_from_before_a_shallow_call_is_refused() {
    const MADE: usize = 8;
    let mut studio = open(None);
    let painting =
        studio.resolve(&Request { cache_interval: Some(3), sampler: Some(SamplerKind::Euler), ..request(7) });
    let (_, whole) = studio.paint(&painting, Start::Noise);
    let bytes = whole.checkpoints[0].to_bytes();
    let mut bytes = bytes[..bytes.len() - 8].to_vec();
    bytes[4 * MADE..4 * MADE + 4].copy_from_slice(&1_u32.to_le_bytes());
    bytes.extend(xxh3(&bytes).to_le_bytes());
    let checkpoint = StepCheckpoint::from_bytes(&bytes).unwrap();
    let outcome = studio.engine.paint(&painting, Start::Checkpoint(checkpoint), &mut NoObserver);
    assert!(matches!(&outcome, Err(Error::Checkpoint(message)) if message.contains("left")), "{outcome:?}");
}

#[test]
fn what_cannot_be_obeyed_is_told() {
    let studio = open(None);
    let interval = Request { guidance_interval: Some([0.2, 0.9]), ..request(4) };
    for (prompt, cfg_scale, told) in [
        ("a red house", 5.0, None),
        ("a red house", 1.0, Some("without guidance")),
        ("a red house AND a boat", 5.0, Some("AND joins")),
    ] {
        let request = Request { prompt: prompt.into(), cfg_scale: Some(cfg_scale), ..interval.clone() };
        let painting = studio.resolve(&Request { negative_prompt: String::new(), ..request });
        let warnings: Vec<String> = painting.warnings().iter().map(ToString::to_string).collect();
        assert_eq!(warnings.len(), usize::from(told.is_some()), "{warnings:?}");
        assert!(told.is_none_or(|told| warnings[0].starts_with("guidance_interval") && warnings[0].contains(told)));
        assert_eq!(painting.parameters().guidance_interval, told.is_none().then_some([0.2, 0.9]));
    }
    for wrong in [
        Request { guidance_interval: Some([0.9, 0.2]), ..request(4) },
        Request { cache_interval: Some(21), ..request(4) },
    ] {
        assert!(studio.resolver.resolve(&wrong, None).is_err());
    }
}

#[test]
fn defaults_hold_for_requests_that_do_not_say() {
    let studio = open(None);
    let resolver = studio.resolver.clone().with_intervals(Some([0.2, 0.9]), Some(2)).unwrap();
    let intervals = |request: &Request| {
        let painting = resolver.resolve(request, None).unwrap();
        assert!(painting.warnings().is_empty());
        (painting.parameters().guidance_interval, painting.parameters().cache_interval)
    };
    assert_eq!(intervals(&request(4)), (Some([0.2, 0.9]), Some(2)));
    let off = Request { guidance_interval: Some([0.0, 1.0]), cache_interval: Some(1), ..request(4) };
    assert_eq!(intervals(&off), (None, None));
    let unguided = Request { cfg_scale: Some(1.0), negative_prompt: String::new(), ..request(4) };
    assert_eq!(intervals(&unguided), (None, Some(2)));
    assert!(studio.resolver.clone().with_intervals(Some([0.5, 0.2]), None).is_err());
}
