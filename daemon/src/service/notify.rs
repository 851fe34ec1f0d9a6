//! Notifications to systemd. Everything here does nothing where no systemd listens.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tracing::warn;

/// Sends `states`; a failure is logged and does not stop the service.
fn notify(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!("systemd could not be notified: {error}");
    }
}

/// What systemd is told while a service starts: that the model is being opened, so that it waits, then `status` and,
/// once the broker was tried, that it is ready.
#[derive(Debug, Default)]
pub(super) struct Readiness {
    is_ready: bool,
}

impl Readiness {
    /// The broker was tried, with this outcome. A board without a network is ready too.
    pub(super) fn tried(&mut self, status: &str) {
        if self.is_ready {
            return notify(&[NotifyState::Status(status)]);
        }
        self.is_ready = true;
        notify(&[NotifyState::Ready, NotifyState::Status(status)]);
    }
}

/// How long systemd waits for the next word from a start, and how often it has one.
const EXTENSION: Duration = Duration::from_secs(60);
const EXTENSION_INTERVAL: Duration = Duration::from_secs(10);
/// A model that takes longer than this will never be open.
const LONGEST_LOADING: Duration = Duration::from_secs(1800);

/// Asks systemd for time until it is dropped, half an hour at most.
pub(crate) struct Loading {
    _done: mpsc::Sender<()>,
}

impl Loading {
    /// From now on.
    pub(crate) fn begin() -> Loading {
        status("opening the model");
        let (done, dropped) = mpsc::channel();
        let end = Instant::now() + LONGEST_LOADING;
        let ask = move || loop {
            notify(&[NotifyState::ExtendTimeoutUsec(EXTENSION.as_micros() as u32)]);
            let waited = dropped.recv_timeout(EXTENSION_INTERVAL);
            if waited != Err(RecvTimeoutError::Timeout) || Instant::now() > end {
                return;
            }
        };
        // Without the thread systemd waits for as long as the unit says.
        let _ = thread::Builder::new().name("loading".into()).spawn(ask);
        Loading { _done: done }
    }
}

/// One line for `systemctl status`.
pub(crate) fn status(text: &str) {
    notify(&[NotifyState::Status(text)]);
}

/// The configuration is read again. Ends with `reloaded`.
pub(super) fn reloading() {
    let now = NotifyState::monotonic_usec_now();
    notify(&[Some(NotifyState::Reloading), now.ok()].into_iter().flatten().collect::<Vec<_>>());
}

/// It was read.
pub(super) fn reloaded() {
    notify(&[NotifyState::Ready]);
}

/// We are on our way out.
pub(super) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// The pings that systemd waits for, if it does.
#[derive(Debug)]
pub(super) struct Watchdog {
    timeout: Option<Duration>,
    last: Instant,
}

impl Watchdog {
    /// As systemd's environment has it.
    pub(super) fn from_environment() -> Watchdog {
        Watchdog { timeout: sd_notify::watchdog_enabled(), last: Instant::now() }
    }

    /// Pings three times within systemd's timeout, as long as the last activity of each part is no older than it.
    pub(super) fn ping(&mut self, activity: &[Instant], now: Instant) {
        let Some(timeout) = self.timeout else { return };
        let alive = activity.iter().all(|at| now.saturating_duration_since(*at) < timeout);
        if alive && now - self.last >= timeout / 3 {
            self.last = now;
            notify(&[NotifyState::Watchdog]);
        }
    }
}
