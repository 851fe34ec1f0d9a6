//! From the engine's ticks to what people want to know: how far, how long yet, and where the time went. The engine has
//! no clock, so the clock's readings come in here.

use std::time::{Duration, Instant};

use diffused_engine::bundle::AutoencoderKind;
use diffused_engine::request::{Parameters, Stage};

use crate::contract::messages::{JobProgress, Timings};

/// The stages in their order, with the names that results use.
const STAGES: [(Stage, &str); 4] = [
    (Stage::TextEncoder, "text_encoder"),
    (Stage::VaeEncoder, "vae_encoder"),
    (Stage::Unet, "unet"),
    (Stage::VaeDecoder, "vae_decoder"),
];

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
    /// Cost of each stage of one image, in any unit.
    costs: [f64; 4],
    /// How much of each stage is done, 0 to 1.
    done: [f64; 4],
    spent: [Duration; 4],
    steps: (usize, usize),
    /// Calls of the UNet that were made, of all images together.
    calls: usize,
    image: u64,
    images: u64,
    /// How much of the job earlier runs of the program have done, 0 to 1.
    before: f64,
}

impl Meter {
    /// For `images` images of `parameters`, started `now`. Stages are weighed by their multiplications in Stable
    /// Diffusion 1.5, billions at 512×512: only their ratios count.
    pub fn new(parameters: &Parameters, images: u64, now: Instant) -> Meter {
        let passes = if parameters.cfg_scale > 1.0 { 2.0 } else { 1.0 };
        let strength = parameters.strength.unwrap_or(1.0);
        let steps = (parameters.steps as f64 * strength).max(1.0).floor();
        let (encoder, decoder) = match parameters.decoder {
            AutoencoderKind::Full => (558.0, 1257.0),
            AutoencoderKind::Tiny => (71.0, 71.0),
        };
        let encoder = if parameters.strength.is_some() { encoder } else { 0.0 };
        Meter {
            started: now,
            last: now,
            costs: [7.0 * passes, encoder, 402.0 * passes * steps, decoder],
            done: [0.0; 4],
            spent: [Duration::ZERO; 4],
            steps: (0, steps as usize),
            calls: 0,
            image: 0,
            images,
            before: 0.0,
        }
    }

    /// The engine has done `done` of `total` parts of `stage`.
    pub fn tick(&mut self, stage: Stage, done: usize, total: usize, now: Instant) -> JobProgress {
        let at = STAGES.iter().position(|(known, _)| *known == stage).unwrap_or_default();
        self.spent[at] += now - self.last;
        self.last = now;
        self.done[..at].fill(1.0);
        self.done[at] = done as f64 / total.max(1) as f64;
        if stage == Stage::Unet {
            self.calls += done.saturating_sub(self.steps.0);
            self.steps = (done, total);
        }
        self.progress(stage, now)
    }

    /// The first `images` were painted before.
    pub fn skip_images(&mut self, images: u64) {
        self.image = images;
        self.before = self.fraction();
    }

    /// Of the first image that is painted now, `calls` of `total` calls of the UNet were made before.
    pub fn skip_calls(&mut self, calls: usize, total: usize) {
        self.done[2] = calls as f64 / total.max(1) as f64;
        self.steps = (calls, total);
        self.before = self.fraction();
    }

    /// The next image begins.
    pub fn next_image(&mut self, now: Instant) {
        self.image += 1;
        self.done = [0.0; 4];
        self.steps.0 = 0;
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
            total: rounded((now - self.started).as_secs_f64()),
            peak_rss: crate::health::memory().peak,
        };
        let seconds_per_step = (self.calls > 0).then(|| timings.unet / self.calls as f64);
        JobTimes { timings, seconds_per_step }
    }

    /// How much of the job is done, 0 to 1.
    fn fraction(&self) -> f64 {
        let whole: f64 = self.costs.iter().sum();
        let part: f64 = self.costs.iter().zip(self.done).map(|(cost, done)| cost * done).sum();
        ((self.image as f64 + part / whole) / self.images as f64).min(1.0)
    }

    fn progress(&self, stage: Stage, now: Instant) -> JobProgress {
        let fraction = self.fraction();
        let (elapsed, made) = ((now - self.started).as_secs_f64(), fraction - self.before);
        let eta = (made >= ENOUGH).then(|| rounded(elapsed * (1.0 - fraction) / made));
        JobProgress {
            progress: rounded(fraction),
            eta_relative: eta,
            stage,
            step: self.steps.0,
            steps: self.steps.1,
            image: self.image,
            images: self.images,
        }
    }
}

/// To a thousandth: more is noise in a message.
fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use diffused_engine::sampler::SamplerKind;

    use super::*;

    fn parameters(strength: Option<f64>) -> Parameters {
        Parameters {
            prompt: String::new(),
            negative_prompt: String::new(),
            width: 64,
            height: 64,
            steps: 10,
            cfg_scale: 7.5,
            seed: 0,
            sampler: SamplerKind::Ddim,
            strength,
            decoder: AutoencoderKind::Full,
        }
    }

    #[test]
    fn progress_grows_from_0_to_1_over_all_pictures() {
        let start = Instant::now();
        let mut meter = Meter::new(&parameters(None), 2, start);
        let mut seen = vec![];
        for image in 0..2 {
            for (stage, total) in [(Stage::TextEncoder, 12), (Stage::Unet, 10), (Stage::VaeDecoder, 7)] {
                for done in 0..=total {
                    seen.push(meter.tick(stage, done, total, start + Duration::from_secs(1)));
                }
            }
            if image == 0 {
                meter.next_image(start);
            }
        }
        assert!(seen.is_sorted_by(|a, b| a.progress <= b.progress));
        assert_eq!((seen[0].progress, seen.last().unwrap().progress), (0.0, 1.0));
        assert_eq!((seen.last().unwrap().step, seen.last().unwrap().steps), (10, 10));
    }

    #[test]
    fn what_was_done_before_tells_nothing_of_what_is_left() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut meter = Meter::new(&parameters(None), 4, start);
        meter.skip_images(2);
        meter.skip_calls(5, 10);
        let first = meter.tick(Stage::TextEncoder, 0, 1, at(0));
        assert!(first.progress > 0.5 && first.eta_relative.is_none(), "{first:?}");
        assert_eq!((first.step, first.steps, first.image), (5, 10, 2));
        // A quarter of an image in 100 s: more than a whole one is left.
        meter.tick(Stage::TextEncoder, 1, 1, at(1));
        let later = meter.tick(Stage::Unet, 8, 10, at(100));
        assert!(later.progress > first.progress && later.eta_relative.unwrap() > 400.0, "{later:?}");
        assert_eq!(meter.times(at(101)).seconds_per_step, Some(99.0 / 3.0));
    }

    #[test]
    fn time_goes_to_the_stage_that_used_it() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut meter = Meter::new(&parameters(Some(0.5)), 1, start);
        assert_eq!(meter.steps.1, 5);
        meter.tick(Stage::TextEncoder, 1, 1, at(1));
        meter.tick(Stage::VaeEncoder, 1, 1, at(3));
        meter.tick(Stage::Unet, 5, 5, at(10));
        let half = meter.tick(Stage::VaeDecoder, 1, 2, at(11));
        assert!(half.eta_relative.unwrap() > 0.0);
        let JobTimes { timings, seconds_per_step } = meter.times(at(12));
        assert_eq!(seconds_per_step, Some(7.0 / 5.0));
        let stages = (timings.text_encoder, timings.vae_encoder, timings.unet, timings.vae_decoder);
        assert_eq!((stages, timings.total), ((1.0, 2.0, 7.0, 1.0), 12.0));
    }
}
