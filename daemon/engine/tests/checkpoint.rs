//! A painting that was interrupted after any call of the UNet goes on to the same bytes, and only from its own checkpoint.

mod common;

use diffused_engine::error::Error;
use diffused_engine::hash::xxh3;
use diffused_engine::request::{NoObserver, Observer, PaintingProgress, Request, Stage, Start};
use diffused_engine::sampler::SamplerKind;
use diffused_engine::{Options, Painting, Source, StepCheckpoint};
use image::{Rgb, RgbImage};
use serde_json::json;

use at::*;
use common::{Studio, bundle, demo};

const SIDE: usize = 32;
/// Where a checkpoint has some of its numbers.
mod at {
    pub(super) const FORMAT: usize = 1;
    pub(super) const PROGRAM: usize = 2;
    pub(super) const MODEL: usize = 4;
    pub(super) const MADE: usize = 8;
    pub(super) const HEIGHT: usize = 9;
    /// How many outputs there are; then whether there is a sample, and a sum.
    pub(super) const OUTPUTS: usize = 12;
    /// The noise generator's.
    pub(super) const POSITION: usize = 639;
    pub(super) const HAS_SPARE: usize = 640;
    /// Then come the outputs.
    pub(super) const LATENTS: usize = 643;
}

/// Keeps what the engine reports.
#[derive(Default)]
struct Recorder {
    encoded: bool,
    checkpoints: Vec<Vec<u8>>,
}

impl Observer for Recorder {
    fn tick(&mut self, progress: PaintingProgress) {
        self.encoded |= progress.stage == Stage::VaeEncoder;
    }

    fn step_done(&mut self, checkpoint: &StepCheckpoint) {
        self.checkpoints.push(checkpoint.to_bytes());
    }
}

fn open(source: Source) -> Studio {
    Studio::open(source, Options { threads: Some(2), ..Options::default() })
}

impl Studio {
    /// Six steps; with a strength, from an image.
    fn painting(&self, sampler: SamplerKind, strength: Option<f64>) -> Painting {
        let request = Request {
            prompt: "a red house".into(),
            width: Some(SIDE),
            height: Some(SIDE),
            steps: Some(6),
            seed: 7,
            sampler: Some(sampler),
            strength,
            ..Request::default()
        };
        self.resolver.resolve(&request, strength.map(|_| (SIDE as u32, SIDE as u32))).unwrap()
    }

    fn paint(&mut self, painting: &Painting, start: Start) -> (RgbImage, Recorder) {
        let mut recorder = Recorder::default();
        let image = self.engine.paint(painting, start, &mut recorder).unwrap();
        (image, recorder)
    }

    /// The checkpoint after four of six steps of a method that has a history.
    fn example(&mut self) -> (Painting, Vec<u8>) {
        let painting = self.painting(SamplerKind::Dpmpp2m, None);
        let checkpoint = self.paint(&painting, Start::Noise).1.checkpoints.swap_remove(3);
        (painting, checkpoint)
    }

    /// Why `bytes` are refused, where they are read or where they are painted from.
    fn refused(&mut self, painting: &Painting, bytes: &[u8]) -> String {
        let image = StepCheckpoint::from_bytes(bytes)
            .and_then(|checkpoint| self.engine.paint(painting, Start::Checkpoint(checkpoint), &mut NoObserver));
        match image {
            Err(Error::Checkpoint(message)) => message,
            other => panic!("{other:?}"),
        }
    }
}

fn init_image() -> Start {
    Start::InitImage(RgbImage::from_fn(SIDE as u32, SIDE as u32, |x, y| Rgb([x as u8 * 8, y as u8 * 8, 99])))
}

/// `bytes` with other numbers at some places, and the checksum that belongs to them.
fn edited(bytes: &[u8], edits: &[(usize, u32)]) -> Vec<u8> {
    let mut bytes = bytes[..bytes.len() - 8].to_vec();
    edits.iter().for_each(|(at, number)| bytes[4 * at..4 * at + 4].copy_from_slice(&number.to_le_bytes()));
    bytes.extend(xxh3(&bytes).to_le_bytes());
    bytes
}

#[test]
fn every_sampler_goes_on_after_every_call() {
    for skip_prk_steps in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let mut studio = open(bundle(folder.path(), &json!({ "skip_prk_steps": skip_prk_steps })));
        for sampler in SamplerKind::ALL {
            for strength in [None, Some(0.7)] {
                let painting = studio.painting(sampler, strength);
                let start = if strength.is_some() { init_image() } else { Start::Noise };
                let (image, whole) = studio.paint(&painting, start);
                assert_eq!((whole.checkpoints.len(), whole.encoded), (painting.calls(), strength.is_some()));
                for (index, bytes) in whole.checkpoints.iter().enumerate() {
                    let checkpoint = StepCheckpoint::from_bytes(bytes).unwrap();
                    assert_eq!((checkpoint.calls(), checkpoint.to_bytes()), (index + 1, bytes.clone()));
                    let (resumed, rest) = studio.paint(&painting, Start::Checkpoint(checkpoint));
                    assert!(resumed == image, "{sampler}, {strength:?}, after call {}", index + 1);
                    assert!(rest.checkpoints == whole.checkpoints[index + 1..] && !rest.encoded);
                }
            }
        }
    }
}

#[test]
fn what_was_cut_off_or_changed_is_refused() {
    let (painting, bytes) = open(demo()).example();
    assert_eq!(bytes.len(), 4 * (LATENTS + 2 * 64 + 2), "{painting:?}");
    for len in 0..bytes.len() {
        assert!(matches!(StepCheckpoint::from_bytes(&bytes[..len]), Err(Error::Checkpoint(_))), "{len} bytes");
    }
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert!(matches!(StepCheckpoint::from_bytes(&changed), Err(Error::Checkpoint(_))), "byte {at}");
    }
}

#[test]
fn numbers_that_no_painting_has_are_refused() {
    let mut studio = open(demo());
    let (painting, bytes) = studio.example();
    let nan = f32::NAN.to_bits();
    for edits in [
        [(HEIGHT, 8), (HEIGHT + 1, 2)].as_slice(),
        &[(HEIGHT, 0)],
        &[(HEIGHT, u32::MAX), (HEIGHT + 1, u32::MAX)],
        &[(HEIGHT, 2)],
        &[(OUTPUTS, 0)],
        &[(OUTPUTS, u32::MAX)],
        &[(OUTPUTS, 0), (OUTPUTS + 1, 1)],
        &[(OUTPUTS + 2, 2)],
        &[(MADE, 0)],
        &[(MADE, 7)],
        &[(MADE, u32::MAX)],
        &[(POSITION, 625)],
        &[(HAS_SPARE, 2)],
        &[(HAS_SPARE, 1), (HAS_SPARE + 2, 0x7ff0_0000)],
        &[(LATENTS, nan)],
        &[(LATENTS + 64, f32::INFINITY.to_bits())],
    ] {
        let message = studio.refused(&painting, &edited(&bytes, edits));
        assert!(message.starts_with("its numbers do not fit") || message == "it is of another painting", "{message}");
    }
    for (at, expected) in [(0, "something else"), (FORMAT, "its format is 77, this program reads 1 and 2")] {
        let message = studio.refused(&painting, &edited(&bytes, &[(at, 77)]));
        assert!(message.contains(expected), "{message}");
    }
    assert_eq!(studio.refused(&painting, &edited(&bytes, &[(PROGRAM, 7)])), "another version of the program made it");
    assert_eq!(studio.refused(&painting, &edited(&bytes, &[(MODEL, 7)])), "it is of another model");
}

#[test]
fn a_checkpoint_of_another_painting_or_model_is_refused() {
    let mut studio = open(demo());
    let (painting, bytes) = studio.example();
    for other in [
        painting.with_seed(8),
        studio.painting(SamplerKind::Dpmpp2mKarras, None),
        studio.painting(SamplerKind::Dpmpp2m, Some(1.0)),
    ] {
        assert_eq!(studio.refused(&other, &bytes), "it is of another painting");
    }
    let folder = tempfile::tempdir().unwrap();
    let mut other = open(bundle(folder.path(), &json!({ "cfg_scale": 4.0 })));
    assert_eq!(other.refused(&painting, &bytes), "it is of another model");
}
