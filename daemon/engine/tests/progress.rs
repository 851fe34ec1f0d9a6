//! What an observer learns of how far a painting is.

mod common;

use std::collections::BTreeSet;

use diffused_engine::request::{Observer, PaintingProgress, Request, Stage, Start};
use diffused_engine::{Options, StepCheckpoint};
use image::RgbImage;

use common::{Studio, demo};

#[derive(Default)]
struct ProgressRecorder {
    seen: Vec<PaintingProgress>,
    checkpoint: Option<StepCheckpoint>,
}

impl Observer for ProgressRecorder {
    fn tick(&mut self, progress: PaintingProgress) {
        self.seen.push(progress);
    }

    fn step_done(&mut self, checkpoint: &StepCheckpoint) {
        self.checkpoint.get_or_insert_with(|| checkpoint.clone());
    }
}

/// What is seen of a painting of so many steps; `memory` is the budget.
fn paint(steps: usize, strength: Option<f64>, memory: Option<u64>) -> (Studio, ProgressRecorder) {
    let mut studio = Studio::open(demo(), Options { threads: Some(2), memory, ..Options::default() });
    let request = Request { steps: Some(steps), strength, ..Request::default() };
    let request = Request { width: Some(64), height: Some(64), ..request };
    let painting = studio.resolver.resolve(&request, strength.map(|_| (64, 64))).unwrap();
    let start = strength.map_or(Start::Noise, |_| Start::InitImage(RgbImage::new(64, 64)));
    let mut recorder = ProgressRecorder::default();
    studio.engine.paint(&painting, start, &mut recorder).unwrap();
    let mut resumed = ProgressRecorder::default();
    let checkpoint = recorder.checkpoint.clone().unwrap();
    studio.engine.paint(&painting, Start::Checkpoint(checkpoint), &mut resumed).unwrap();
    for ProgressRecorder { seen, .. } in [&recorder, &resumed] {
        assert!(seen.is_sorted_by(|a, b| a.done <= b.done && a.step <= b.step), "{seen:?}");
        let last = seen.last().unwrap();
        assert!((last.done - 1.0).abs() < 1e-9, "{last:?}");
        assert!(seen.iter().all(|progress| progress.steps == painting.calls()));
    }
    let (first, whole) = (resumed.seen[0], recorder.seen.iter().find(|progress| progress.step == 1).unwrap());
    assert_eq!(first.step, 1);
    assert!(first.done > 0.0 && first.done < whole.done, "the prompt is read again: {first:?}, {whole:?}");
    (studio, recorder)
}

#[test]
fn the_only_step_moves_from_layer_to_layer() {
    let seen = paint(1, None, None).1.seen;
    let steps: Vec<_> = seen.iter().filter(|progress| progress.stage == Stage::Unet && progress.step == 0).collect();
    let thousandths: BTreeSet<u64> = steps.iter().map(|progress| (progress.done * 1000.0) as u64).collect();
    assert!(thousandths.len() >= 50, "{thousandths:?}");
    // No layer takes more than a tenth of the work.
    assert!(steps.windows(2).all(|pair| pair[1].done - pair[0].done < 0.1), "{steps:?}");
}

#[test]
fn steps_are_alike_and_the_decoder_in_strips_moves_too() {
    let (_, ProgressRecorder { seen, .. }) = paint(4, Some(0.9), Some(64 << 20));
    let begun: Vec<f64> =
        (0..=3).map(|step| seen.iter().find(|p| p.step == step && p.stage == Stage::Unet).unwrap().done).collect();
    let parts: Vec<f64> = begun.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(parts.iter().all(|part| (part - parts[1]).abs() < 1e-9), "{parts:?}");
    for stage in [Stage::VaeEncoder, Stage::VaeDecoder] {
        let seen: BTreeSet<u64> = seen.iter().filter(|p| p.stage == stage).map(|p| (p.done * 1000.0) as u64).collect();
        assert!(seen.len() >= 10, "{stage:?}: {seen:?}");
    }
}
