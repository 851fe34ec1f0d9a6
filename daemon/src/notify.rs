//! What systemd hears of us. Everything here does nothing where no systemd listens.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tracing::warn;

/// Tells `states`; a failure is no reason to stop.
fn tell(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!("systemd could not be told: {error}");
    }
}

/// The model is open and the service runs, whether there is a broker or not.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// One line for `systemctl status`.
pub fn status(text: &str) {
    tell(&[NotifyState::Status(text)]);
}

/// We are on our way out.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// The pings that systemd waits for, if it does.
#[derive(Debug)]
pub struct Watchdog {
    patience: Option<Duration>,
    last: Instant,
}

impl Watchdog {
    /// As systemd's environment has it.
    pub fn from_environment() -> Watchdog {
        Watchdog { patience: sd_notify::watchdog_enabled(), last: Instant::now() }
    }

    /// Pings thrice within systemd's patience, as long as the last signs of life are no older than that patience.
    pub fn ping(&mut self, signs: &[Instant], now: Instant) {
        let Some(patience) = self.patience else { return };
        let alive = signs.iter().all(|sign| now.saturating_duration_since(*sign) < patience);
        if alive && now - self.last >= patience / 3 {
            self.last = now;
            tell(&[NotifyState::Watchdog]);
        }
    }
}
