//! A painting can be cancelled at any moment, also in the middle of an operator that takes many seconds.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use diffused_engine::Options;
use diffused_engine::error::Error;
use diffused_engine::request::{Observer, PaintingProgress, Request, Stage, Start};
use image::RgbImage;

use common::{Studio, demo};

/// Sets its flag some time after it has seen a stage.
struct Canceller {
    stage: Stage,
    delay: Duration,
    flag: Arc<AtomicBool>,
    timer: Option<thread::JoinHandle<Instant>>,
}

impl Observer for Canceller {
    fn tick(&mut self, progress: PaintingProgress) {
        if progress.stage == self.stage && self.timer.is_none() {
            let (flag, delay) = (self.flag.clone(), self.delay);
            self.timer = Some(thread::spawn(move || {
                thread::sleep(delay);
                flag.store(true, Ordering::Relaxed);
                Instant::now()
            }));
        }
    }

    fn cancel_flag(&self) -> Arc<AtomicBool> {
        self.flag.clone()
    }
}

impl Studio {
    /// From the flag's setting to the end.
    fn cancel(&mut self, side: usize, from_image: bool, stage: Stage, delay: Duration) -> Duration {
        let request = Request { width: Some(side), height: Some(side), steps: Some(1), ..Request::default() };
        let request = Request { strength: from_image.then_some(1.0), ..request };
        let painting = self.resolver.resolve(&request, from_image.then_some((side as u32, side as u32))).unwrap();
        let start = match from_image {
            true => Start::InitImage(RgbImage::new(side as u32, side as u32)),
            false => Start::Noise,
        };
        let mut canceller = Canceller { stage, delay, flag: Arc::default(), timer: None };
        let result = self.engine.paint(&painting, start, &mut canceller);
        let set = canceller.timer.unwrap().join().unwrap();
        assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
        set.elapsed()
    }
}

#[test]
fn a_long_operator_is_left_in_the_middle() {
    let mut studio = Studio::open(demo(), Options { threads: Some(1), memory: Some(1 << 30), beside: 0 });
    for (stage, from_image, delay) in [(Stage::VaeEncoder, true, 300), (Stage::Unet, false, 3000)] {
        let taken = studio.cancel(2048, from_image, stage, Duration::from_millis(delay));
        println!("{stage:?}: {taken:?}");
        // Ten times what a busy machine takes, and less than the operator.
        assert!(taken < Duration::from_secs(5), "{stage:?}: {taken:?}");
    }
}
