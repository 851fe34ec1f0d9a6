//! Notifications to systemd. Everything here does nothing where no systemd listens.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tracing::warn;

/// Sends `states`; a failure is logged and does not stop the service.
fn notify(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!("systemd could not be notified: {error}");
    }
}

/// The model is open and the service runs, whether there is a broker or not.
pub(super) fn ready() {
    notify(&[NotifyState::Ready]);
}

/// One line for `systemctl status`.
pub(super) fn status(text: &str) {
    notify(&[NotifyState::Status(text)]);
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
