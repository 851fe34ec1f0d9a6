//! From the engine's ticks to what people want to know: how far, how long yet, and where the time went. The engine has
//! no clock, so the clock's readings come in here.

use std::time::{Duration, Instant};

use diffused_engine::request::{PaintingProgress, Stage};

use crate::contract::messages::{JobProgress, Timings};

/// The stages in their order.
const STAGES: [Stage; 5] = [Stage::TextEncoder, Stage::VaeEncoder, Stage::Unet, Stage::VaeDecoder, Stage::Upscaler];

/// The share of a job after which its end can be guessed from its beginning.
const ENOUGH: f64 = 0.02;

/// Where a job's time went, as far as this run of the program has painted it.
#[derive(Debug, Clone, PartialEq)]
pub struct JobTimes {
    /// Seconds of each stage.
    pub timings: Timings,
    /// Seconds of a call of the UNet, if there was one.
    pub seconds_per_step: Option<f64>,
}

/// Keeps account of one job.
#[derive(Debug)]
pub struct Meter {
    started: Instant,
    last: Instant,
    spent: [Duration; STAGES.len()],
    /// Where the image is that is painted now, once it is known.
    latest: Option<PaintingProgress>,
    /// Calls of the UNet that were made, of all images together.
    calls: usize,
    image: u64,
    images: u64,
    /// How much of the job earlier runs of the program have done, 0 to 1, once it is known.
    before: Option<f64>,
    /// In pauses to cool down.
    paused: Duration,
}

impl Meter {
    /// For `images` images, of which the first `painted` were painted before; started `now`.
    pub fn new(images: u64, painted: u64, now: Instant) -> Meter {
        Meter {
            started: now,
            last: now,
            spent: [Duration::ZERO; STAGES.len()],
            latest: None,
            calls: 0,
            image: painted,
            images,
            before: None,
            paused: Duration::ZERO,
        }
    }

    /// The processor has cooled down until `now`: no stage's time.
    pub fn paused(&mut self, now: Instant) {
        self.paused += now - self.last;
        self.last = now;
    }

    /// The engine has come this far with the image.
    pub fn tick(&mut self, progress: PaintingProgress, now: Instant) -> JobProgress {
        let at = STAGES.iter().position(|known| *known == progress.stage).unwrap_or_default();
        self.spent[at] += now - self.last;
        self.last = now;
        self.calls += self.latest.map_or(0, |latest| progress.step.saturating_sub(latest.step));
        self.latest = Some(progress);
        let fraction = ((self.image as f64 + progress.done) / self.images as f64).min(1.0);
        let made = fraction - *self.before.get_or_insert(fraction);
        let elapsed = (now - self.started).as_secs_f64();
        JobProgress {
            progress: rounded(fraction),
            eta_relative: (made >= ENOUGH).then(|| rounded(elapsed * (1.0 - fraction) / made)),
            stage: progress.stage,
            step: progress.step,
            steps: progress.steps,
            image: self.image,
            images: self.images,
        }
    }

    /// The next image begins.
    pub fn next_image(&mut self, now: Instant) {
        self.image += 1;
        self.latest = None;
        self.last = now;
    }

    /// Where the time went, of all images together.
    pub fn times(&self, now: Instant) -> JobTimes {
        let seconds = |stage: usize| rounded(self.spent[stage].as_secs_f64());
        let timings = Timings {
            text_encoder: seconds(0),
            vae_encoder: seconds(1),
            unet: seconds(2),
            vae_decoder: seconds(3),
            upscaler: (!self.spent[4].is_zero()).then(|| seconds(4)),
            cooling: (!self.paused.is_zero()).then(|| rounded(self.paused.as_secs_f64())),
            total: rounded((now - self.started).as_secs_f64()),
            peak_rss: crate::health::memory().peak,
        };
        let seconds_per_step = (self.calls > 0).then(|| timings.unet / self.calls as f64);
        JobTimes { timings, seconds_per_step }
    }
}

/// To a thousandth: more is noise in a message.
fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a painting with ten steps.
    fn at(stage: Stage, done: f64, step: usize) -> PaintingProgress {
        PaintingProgress { stage, done, step, steps: 10 }
    }

    #[test]
    fn progress_grows_from_0_to_1_over_all_pictures() {
        let start = Instant::now();
        let mut meter = Meter::new(2, 0, start);
        let mut seen = vec![];
        for image in 0..2 {
            for (stage, done, step) in [
                (Stage::TextEncoder, 0.0, 0),
                (Stage::Unet, 0.1, 0),
                (Stage::Unet, 0.9, 10),
                (Stage::VaeDecoder, 1.0, 10),
            ] {
                seen.push(meter.tick(at(stage, done, step), start + Duration::from_secs(1)));
            }
            if image == 0 {
                meter.next_image(start);
            }
        }
        assert!(seen.is_sorted_by(|a, b| a.progress <= b.progress));
        assert_eq!(
            seen.iter().map(|seen| seen.progress).collect::<Vec<_>>(),
            [0.0, 0.05, 0.45, 0.5, 0.5, 0.55, 0.95, 1.0]
        );
        assert_eq!((seen[7].step, seen[7].steps, seen[7].image), (10, 10, 1));
        assert_eq!(meter.times(start).seconds_per_step, Some(0.0));
    }

    #[test]
    fn what_was_done_before_tells_nothing_of_what_is_left() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut meter = Meter::new(4, 2, start);
        let first = meter.tick(at(Stage::TextEncoder, 0.5, 5), after(0));
        assert!(first.progress == 0.625 && first.eta_relative.is_none(), "{first:?}");
        assert_eq!((first.step, first.steps, first.image), (5, 10, 2));
        // A quarter of an image in 100 s: more than a whole one is left.
        meter.tick(at(Stage::TextEncoder, 0.51, 5), after(1));
        let later = meter.tick(at(Stage::Unet, 0.75, 8), after(100));
        assert_eq!(later.eta_relative, Some(500.0), "{later:?}");
        assert_eq!(meter.times(after(101)).seconds_per_step, Some(99.0 / 3.0));
    }

    #[test]
    fn time_goes_to_the_stage_that_used_it() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut meter = Meter::new(1, 0, start);
        meter.tick(at(Stage::TextEncoder, 0.1, 0), after(1));
        meter.tick(at(Stage::VaeEncoder, 0.2, 0), after(3));
        meter.tick(at(Stage::Unet, 0.8, 5), after(10));
        let half = meter.tick(at(Stage::VaeDecoder, 0.9, 5), after(11));
        assert!(half.eta_relative.unwrap() > 0.0);
        meter.paused(after(15));
        let JobTimes { timings, seconds_per_step } = meter.times(after(15));
        assert_eq!((seconds_per_step, timings.cooling), (Some(7.0 / 5.0), Some(4.0)));
        let stages = (timings.text_encoder, timings.vae_encoder, timings.unet, timings.vae_decoder);
        assert_eq!((stages, timings.total), ((1.0, 2.0, 7.0, 1.0), 15.0));
    }
}
