//! Starts of the service that fail one after the other come ever later, up to 5 minutes, so that one that cannot run
//! does not wear out the card with its log. From version 254 on systemd has `RestartSteps=` for this; boards have older
//! ones.
//!
//! The count lies in the unit's `RuntimeDirectory=`, in memory; the unit keeps that from one automatic restart to the
//! next and has it removed when the service is stopped.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The longest wait.
const LONGEST: Duration = Duration::from_secs(300);
/// The shortest; each is twice the one before.
const SHORTEST: Duration = Duration::from_secs(10);
/// A service that has run for this long has not failed.
pub const PROVEN: Duration = Duration::from_secs(60);

/// Where starts are counted; nowhere, outside systemd's unit.
#[derive(Debug, Clone)]
pub struct Starts {
    file: Option<PathBuf>,
}

/// What is known of the starts before this one.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct FailedStarts {
    /// Starts in a row whose end nobody has explained, this one included: crashes.
    unproven: u32,
    /// Starts in a row that failed with `reason`.
    failed: u32,
    reason: String,
}

impl Starts {
    /// As systemd's environment has it.
    pub fn from_environment() -> Starts {
        let folder = std::env::var_os("RUNTIME_DIRECTORY").map(PathBuf::from);
        Starts { file: folder.map(|folder| folder.join("starts")) }
    }

    /// Counts a start. Gives how many before it ended without an explanation, and the wait before this one is worth
    /// trying.
    pub fn begin(&self) -> (u32, Duration) {
        self.change(|starts| {
            starts.unproven += 1;
            (starts.unproven - 1, wait(starts.unproven))
        })
    }

    /// Counts a start that failed for `reason`. Gives how many did so in a row, and the wait before the next is worth
    /// trying.
    pub fn fail(&self, reason: &str) -> (u32, Duration) {
        self.change(|starts| {
            let again = starts.reason == reason;
            *starts = FailedStarts {
                unproven: 0,
                failed: if again { starts.failed + 1 } else { 1 },
                reason: reason.to_owned(),
            };
            (starts.failed, wait(starts.failed))
        })
    }

    /// The same, and waits where that is due, which the log says.
    pub fn fail_slowly(&self, reason: &str) {
        let (failed, wait) = self.fail(reason);
        if !wait.is_zero() {
            eprintln!("diffused: {failed} starts in a row have failed so: the next is tried in {} s", wait.as_secs());
            sleep(wait);
        }
    }

    /// The service runs, or has ended as it should.
    pub fn prove(&self) {
        // Where that fails, the next failure waits for nothing.
        let _ = self.file.as_ref().map(|file| fs::write(file, ""));
    }

    fn change(&self, change: impl FnOnce(&mut FailedStarts) -> (u32, Duration)) -> (u32, Duration) {
        let Some(file) = &self.file else { return (0, Duration::ZERO) };
        let mut starts = read(file);
        let outcome = change(&mut starts);
        // Without a count nothing waits.
        let written = serde_json::to_vec(&starts).map(|text| fs::write(file, text));
        if matches!(written, Ok(Ok(()))) { outcome } else { (0, Duration::ZERO) }
    }
}

fn read(file: &Path) -> FailedStarts {
    fs::read(file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// After the `count`th failure in a row: none after the first.
fn wait(count: u32) -> Duration {
    match count {
        ..2 => Duration::ZERO,
        _ => LONGEST.min(SHORTEST * 2_u32.pow((count - 2).min(10))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_while_starts_fail_alike() {
        let folder = tempfile::tempdir().unwrap();
        let starts = Starts { file: Some(folder.path().join("starts")) };
        let waits: Vec<u64> = (0..9).map(|_| starts.fail("no model").1.as_secs()).collect();
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300, 300]);
        assert_eq!(starts.fail("no broker"), (1, Duration::ZERO), "whoever mended something sees at once what is left");
        assert_eq!(starts.fail("no broker"), (2, SHORTEST));
        starts.prove();
        assert_eq!(starts.fail("no broker"), (1, Duration::ZERO));
    }

    #[test]
    fn a_service_that_dies_young_is_started_ever_later() {
        let folder = tempfile::tempdir().unwrap();
        let starts = Starts { file: Some(folder.path().join("starts")) };
        assert_eq!([(); 3].map(|()| starts.begin()), [(0, Duration::ZERO), (1, SHORTEST), (2, 2 * SHORTEST)]);
        starts.prove();
        assert_eq!(starts.begin(), (0, Duration::ZERO));
        starts.fail("explained");
        assert_eq!(starts.begin(), (0, Duration::ZERO));
    }

    #[test]
    fn outside_the_unit_nothing_waits() {
        let starts = Starts { file: None };
        assert_eq!([(); 2].map(|()| starts.fail("x")), [(0, Duration::ZERO); 2]);
        let unwritable = Starts { file: Some("/no/such/folder/starts".into()) };
        assert_eq!([(); 2].map(|()| unwritable.begin()), [(0, Duration::ZERO); 2]);
    }
}
