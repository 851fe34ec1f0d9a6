//! Times of layers and of a painting.

use std::hint::black_box;
use std::time::{Duration, Instant};

use diffused_engine::layer_kinds::{LayerTrial, WorkKind};
use diffused_engine::request::{Observer, PaintingProgress};
use diffused_engine::{Engine, cpu, peak};

use super::report::{LayerRate, rounded};
use crate::contract::messages::Timings;
use crate::painting::progress::Meter;

/// For how long something is repeated, of which the fastest run counts.
const SPAN: Duration = Duration::from_millis(700);

/// Seconds of the fastest of some runs.
fn fastest(mut run: impl FnMut()) -> f64 {
    run();
    let (begin, mut best) = (Instant::now(), f64::INFINITY);
    while best.is_infinite() || begin.elapsed() < SPAN {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed().as_secs_f64().max(1e-9));
    }
    best
}

/// How fast the engine's threads compute a layer of this kind.
pub(super) fn layer_rate(engine: &Engine, kind: WorkKind) -> LayerRate {
    let mut trial = LayerTrial::of(kind);
    let seconds = fastest(|| engine.run_layer(&mut trial));
    LayerRate { kind, shape: trial.shape, gops: rounded(2e-9 * trial.macs as f64 / seconds) }
}

/// GOP/s of one core in a loop of int8 multiply-adds that stays in registers; `None` where there are no such instructions.
pub(super) fn peak_rate() -> Option<f64> {
    const ROUNDS: usize = 1 << 18;
    let level = cpu::Level::current();
    if level == cpu::Level::Scalar {
        return None;
    }
    let mut macs = 0;
    let seconds = fastest(|| macs = black_box(peak::int8(level, ROUNDS)));
    Some(rounded(2e-9 * macs as f64 / seconds))
}

/// Follows a painting.
pub(super) struct PaintClock(Meter);

impl PaintClock {
    pub(super) fn start() -> PaintClock {
        PaintClock(Meter::new(1, 0, Instant::now()))
    }

    /// Seconds of a step, and of each stage.
    pub(super) fn times(&self) -> (f64, Timings) {
        let times = self.0.times(Instant::now());
        (times.seconds_per_step.unwrap_or_default(), times.timings)
    }
}

impl Observer for PaintClock {
    fn tick(&mut self, progress: PaintingProgress) {
        self.0.tick(progress, Instant::now());
    }

    fn memory_freed(&mut self) {
        diffused_heap::trim();
    }
}
