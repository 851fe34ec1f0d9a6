//! Pauses where the processor gets hotter than `max_temperature`, before the board slows it down by itself: that would
//! make every program on the board slow, and keep it as hot as it can be.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::health::TemperatureSensor;

/// Painting goes on at so many degrees below the limit.
const HYSTERESIS: f64 = 5.0;
/// How often the temperature is looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// How soon a pause ends that is no longer wanted.
const NAP: Duration = Duration::from_millis(100);

/// When to pause.
#[derive(Debug, Clone)]
pub struct Cooling {
    /// Where the temperature is read.
    pub sensor: TemperatureSensor,
    /// Above this painting pauses, °C; `None`: it never does.
    pub limit: Option<f64>,
}

impl Cooling {
    /// The temperature at which a pause ends, °C.
    pub fn resumes_at(&self) -> Option<f64> {
        self.limit.map(|limit| limit - HYSTERESIS)
    }

    /// A temperature that cannot be read is none to wait for.
    fn is_above(&self, limit: Option<f64>) -> bool {
        limit.zip(self.sensor.read()).is_some_and(|(limit, degrees)| degrees > limit)
    }
}

/// Watches the temperature while a job is painted.
#[derive(Debug)]
pub struct Cooler {
    cooling: Cooling,
    looked: Option<Instant>,
}

impl Cooler {
    /// Looks at its first call.
    pub fn new(cooling: Cooling) -> Cooler {
        Cooler { cooling, looked: None }
    }

    /// Whether it is time to pause. Looks at the temperature at most once a second.
    pub fn is_too_hot(&mut self, now: Instant) -> bool {
        if self.cooling.limit.is_none() || self.looked.is_some_and(|at| now - at < INTERVAL) {
            return false;
        }
        self.looked = Some(now);
        self.cooling.is_above(self.cooling.limit)
    }

    /// Waits until it is cool enough or `stop` is set; calls `alive` all the time.
    pub fn wait(&mut self, stop: &AtomicBool, alive: impl Fn()) {
        let mut looked = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            alive();
            sleep(NAP);
            if looked.elapsed() >= INTERVAL {
                looked = Instant::now();
                if !self.cooling.is_above(self.cooling.resumes_at()) {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fs;
    use std::thread;

    use super::*;

    fn cooling(folder: &tempfile::TempDir, limit: Option<f64>) -> Cooling {
        Cooling { sensor: TemperatureSensor::find(Some(&folder.path().join("temp"))), limit }
    }

    #[test]
    fn heat_above_the_limit_is_noticed_once_a_second() {
        let folder = tempfile::tempdir().unwrap();
        let set = |degrees: u32| fs::write(folder.path().join("temp"), format!("{degrees}000\n")).unwrap();
        let (start, seconds) = (Instant::now(), Duration::from_secs_f64);
        let mut cooler = Cooler::new(cooling(&folder, Some(75.0)));
        assert!(!cooler.is_too_hot(start), "there is no such file");
        set(76);
        assert!(!cooler.is_too_hot(start + seconds(0.9)) && cooler.is_too_hot(start + seconds(1.0)));
        set(75);
        assert!(!cooler.is_too_hot(start + seconds(2.0)));
        set(100);
        assert!(!Cooler::new(cooling(&folder, None)).is_too_hot(start));
    }

    #[test]
    fn a_pause_lasts_until_it_is_well_below_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("temp");
        fs::write(&path, "74000").unwrap();
        let cooled = path.clone();
        thread::spawn(move || {
            sleep(Duration::from_millis(1500));
            fs::write(cooled, "70000").unwrap();
        });
        let (start, alive) = (Instant::now(), Cell::new(0));
        Cooler::new(cooling(&folder, Some(75.0))).wait(&AtomicBool::new(false), || alive.set(alive.get() + 1));
        assert!(start.elapsed() >= Duration::from_millis(1500) && alive.get() > 5, "{:?}", start.elapsed());
    }

    #[test]
    fn a_job_that_is_to_end_does_not_wait() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("temp"), "99000").unwrap();
        Cooler::new(cooling(&folder, Some(75.0))).wait(&AtomicBool::new(true), || panic!("it waits"));
    }
}
