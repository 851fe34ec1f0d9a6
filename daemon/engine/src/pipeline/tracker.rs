//! How far a painting is, for its observer: by multiply-adds, which take nearly all of the time.

use crate::error::Result;
use crate::network::Tick;
use crate::request::{Observer, PaintingProgress, Stage};
use crate::resolver::Painting;

/// Adds up what the networks of a painting have done.
pub(crate) struct Tracker<'a> {
    pub(crate) observer: &'a mut dyn Observer,
    /// Multiply-adds of the whole painting.
    work: u64,
    /// Of the runs that have ended.
    done: u64,
    step: usize,
    steps: usize,
}

impl<'a> Tracker<'a> {
    /// At the beginning of `painting`, which takes `work` multiply-adds.
    pub(crate) fn new(painting: &Painting, work: u64, observer: &'a mut dyn Observer) -> Tracker<'a> {
        Tracker { observer, work, done: 0, step: 0, steps: painting.calls() }
    }

    /// `calls` of the UNet were made before, and `macs` multiply-adds.
    pub(crate) fn skip(&mut self, calls: usize, macs: u64) {
        (self.step, self.done) = (calls, macs);
    }

    /// Follows a run of `macs` multiply-adds: of the UNet it is a step.
    pub(crate) fn run<T>(&mut self, stage: Stage, macs: u64, run: impl FnOnce(&mut Tick) -> Result<T>) -> Result<T> {
        let result = run(&mut |part| self.report(stage, part * macs as f64))?;
        self.done += macs;
        self.step += usize::from(stage == Stage::Unet);
        self.report(stage, 0.0);
        Ok(result)
    }

    /// Follows a run that is no part of the work by which progress is measured.
    pub(crate) fn run_aside<T>(&mut self, stage: Stage, run: impl FnOnce(&mut Tick) -> Result<T>) -> Result<T> {
        run(&mut |_| self.report(stage, 0.0))
    }

    /// The run that is on its way has made `macs` multiply-adds.
    fn report(&mut self, stage: Stage, macs: f64) {
        let done = ((self.done as f64 + macs) / self.work.max(1) as f64).min(1.0);
        self.observer.tick(PaintingProgress { stage, done, step: self.step, steps: self.steps });
    }
}
