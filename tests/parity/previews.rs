//! Previews by the tiny decoder.

use diffused_engine::bundle::AutoencoderKind;
use diffused_engine::hires::{HiresRequest, HiresUpscaler};
use diffused_engine::latents::Latents;
use diffused_engine::memory_plan::RunBudget;
use diffused_engine::request::{NoObserver, Observer, PaintingProgress, Request, Start};
use diffused_engine::sampler::SamplerKind;
use diffused_engine::vae::VaeDecoder;
use diffused_engine::{Engine, Options, Resolver, StepCheckpoint};
use image::RgbImage;
use model_prep::Format;

use crate::Fresh;
use crate::networks::go_on;
use crate::small::with_tiny;

/// Keeps previews and the state after each call.
#[derive(Default)]
struct TinyRecorder {
    seen: Vec<RgbImage>,
    checkpoints: Vec<Vec<u8>>,
}

impl Observer for TinyRecorder {
    fn tick(&mut self, _: PaintingProgress) {}

    fn step_done(&mut self, checkpoint: &StepCheckpoint) {
        self.checkpoints.push(checkpoint.to_bytes());
    }

    fn wants_preview(&mut self) -> bool {
        true
    }

    fn preview(&mut self, image: RgbImage) {
        self.seen.push(image);
    }
}

/// Pixels for a latent along each axis, and the latents' channels.
const FACTOR: usize = 2;
const CHANNELS: usize = 4;
const CALLS: usize = 3;

/// A painting of two passes, the first in this size.
fn request(side: usize) -> Request {
    let upscaler = Some(HiresUpscaler::Latent);
    let hires = HiresRequest { scale: Some(1.25), steps: Some(2), upscaler, ..HiresRequest::default() };
    Request {
        prompt: "a red car".into(),
        seed: 3,
        steps: Some(CALLS),
        sampler: Some(SamplerKind::Euler),
        cfg_scale: Some(5.0),
        width: Some(side),
        height: Some(side),
        hires: Some(hires),
        ..Request::default()
    }
}

/// The latents of a checkpoint: without a history they are its last values but for a checksum.
fn latents(bytes: &[u8], side: usize) -> Latents {
    let bytes = &bytes[..bytes.len() - 8];
    let values = bytes[bytes.len() - 4 * side * side * CHANNELS..].as_chunks().0;
    let values = values.iter().map(|value| f32::from_le_bytes(*value)).collect();
    Latents { height: side, width: side, channels: CHANNELS, values }
}

/// The mean of each square of `by` × `by` latents.
fn means(latents: &Latents, by: usize) -> Latents {
    let side = latents.width / by;
    let mean = |at: usize| {
        let (row, column, channel) = (at / CHANNELS / side, at / CHANNELS % side, at % CHANNELS);
        let value = |y, x| latents.values[((row * by + y) * latents.width + column * by + x) * CHANNELS + channel];
        (0..by * by).map(|at| value(at / by, at % by)).sum::<f32>() / (by * by) as f32
    };
    let values = (0..side * side * CHANNELS).map(mean).collect();
    Latents { height: side, width: side, channels: CHANNELS, values }
}

fn engine(bundle: &Fresh, memory: Option<u64>) -> Engine {
    Engine::open(bundle.source(), Options { threads: Some(2), memory, ..Options::default() }).unwrap()
}

/// After the last call of a pass, what the UNet predicts is what the sampler has come to.
#[test]
fn the_tiny_decoder_shows_what_is_predicted() {
    let bundle = with_tiny("taesd", Format::F32);
    let resolver = Resolver::open(bundle.source()).unwrap();
    let mut decoder = VaeDecoder::open(&bundle.bundle(), AutoencoderKind::Tiny).unwrap();
    for side in [128, 64] {
        let plain = resolver.resolve(&request(side), None).unwrap();
        let painting = plain.clone().with_previews(true);
        let mut ample = engine(&bundle, None);
        let image = ample.paint(&plain, Start::Noise, &mut NoObserver).unwrap();
        let mut recorder = TinyRecorder::default();
        assert!(ample.paint(&painting, Start::Noise, &mut recorder).unwrap() == image);
        assert_eq!(recorder.seen.len(), painting.calls() - 1);
        let ours = &recorder.seen[CALLS - 1];
        let latents = latents(&recorder.checkpoints[CALLS - 1], side / FACTOR);
        let reduced = means(&latents, latents.width / 32);
        let pixels = decoder.decode(&reduced, RunBudget::ample(), &mut go_on).unwrap();
        assert_eq!((ours.dimensions(), pixels.len()), ((64, 64), ours.as_raw().len()));
        let wanted = pixels.iter().map(|value| (value / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0);
        let worst = ours.as_raw().iter().zip(wanted).map(|(a, b)| (f32::from(*a) - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1.0, "{side}: {worst}");
        assert!(ours.as_raw().iter().any(|value| *value != ours.as_raw()[0]), "something is seen");

        let smallest = ample.smallest_budget(&painting).unwrap();
        let mut tight = engine(&bundle, Some(smallest));
        let mut recorder_of_tight = TinyRecorder::default();
        assert!(tight.paint(&painting, Start::Noise, &mut recorder_of_tight).unwrap() == image);
        assert!(recorder_of_tight.seen == recorder.seen);
    }
}
