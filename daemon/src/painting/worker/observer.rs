//! What the worker does between the engine's layers and steps: it tells how far the job is and that it is alive, keeps
//! checkpoints, and pauses where the processor is too hot.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use diffused_engine::StepCheckpoint;
use diffused_engine::request::{Observer, PaintingProgress};
use image::RgbImage;
use tracing::warn;

use super::{Painter, Report, lock};
use crate::painting::checkpoint::CheckpointKeeper;
use crate::painting::cooling::Cooler;
use crate::painting::preview::{self, PreviewClock};
use crate::painting::progress::Meter;

/// The contract's "at most one a second".
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// Follows the engine through one job.
pub(super) struct JobObserver<'a> {
    pub(super) meter: Meter,
    pub(super) checkpoints: CheckpointKeeper<'a>,
    pub(super) cooler: Cooler,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) reported: Option<Instant>,
    pub(super) previews: PreviewClock,
    pub(super) painter: &'a Painter,
}

impl JobObserver<'_> {
    /// Pauses, which is no standstill that the watchdog should end.
    fn cool_down(&mut self) {
        self.painter.report(Report::Cooling(true));
        self.cooler.wait(&self.stop, || *lock(&self.painter.last_activity) = Some(Instant::now()));
        self.meter.paused(Instant::now());
        self.painter.report(Report::Cooling(false));
    }
}

impl Observer for JobObserver<'_> {
    fn tick(&mut self, progress: PaintingProgress) {
        let now = Instant::now();
        let progress = self.meter.tick(progress, now);
        *lock(&self.painter.last_activity) = Some(now);
        if self.reported.is_none_or(|at| now - at >= PROGRESS_INTERVAL) {
            self.reported = Some(now);
            self.painter.report(Report::Progress(progress));
        }
        if self.cooler.is_too_hot(now) {
            self.cool_down();
        }
    }

    fn step_done(&mut self, checkpoint: &StepCheckpoint) {
        if self.checkpoints.step_done(checkpoint, Instant::now()) {
            self.painter.report(Report::Checkpointed);
        }
    }

    fn wants_preview(&mut self) -> bool {
        self.previews.is_due(Instant::now())
    }

    fn preview(&mut self, image: RgbImage) {
        match preview::jpeg(&image) {
            Ok(file) => self.painter.report(Report::Preview(file)),
            Err(error) => warn!("a preview could not be made: {error}"),
        }
    }

    fn cancel_flag(&self) -> Arc<AtomicBool> {
        self.stop.clone()
    }

    fn memory_freed(&mut self) {
        diffused_heap::trim();
    }
}
