//! How long to wait between two attempts to connect.

use std::time::Duration;

use crate::random;

/// The longest wait between two attempts to connect.
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// A connection that held for this long was a good one: after it, attempts start from the shortest wait again.
pub(super) const GOOD_CONNECTION: Duration = Duration::from_secs(30);

/// Waits between attempts to connect: 1 s, doubled up to a minute, less up to a half by chance so that the devices of
/// a house do not come back to their broker all at once.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    /// Connections in a row that were short.
    short: u32,
}

impl Backoff {
    /// Counts a connection that ended; whether it is the third in a row that was short, as where two clients of one id
    /// throw each other out. `ZERO`: there was no connection.
    pub(super) fn ended_early(&mut self, lasted: Duration) -> bool {
        match lasted {
            Duration::ZERO => return false,
            _ if lasted >= GOOD_CONNECTION => self.short = 0,
            _ => self.short += 1,
        }
        self.short == 3
    }

    pub(super) fn next(&mut self, lasted: Duration) -> Duration {
        if lasted >= GOOD_CONNECTION {
            self.failures = 0;
        }
        let longest = Duration::from_secs(1 << self.failures.min(6)).min(MAX_BACKOFF);
        self.failures += 1;
        longest.mul_f64(1.0 - random::fraction() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_minute_and_start_again_after_a_good_connection() {
        let mut backoff = Backoff::default();
        for longest in [1, 2, 4, 8, 16, 32, 60, 60] {
            let wait = backoff.next(Duration::ZERO).as_secs_f64();
            assert!(wait <= f64::from(longest) && wait >= f64::from(longest) / 2.0, "{wait} of {longest}");
        }
        assert!(backoff.next(GOOD_CONNECTION) <= Duration::from_secs(1));
    }

    #[test]
    fn three_short_connections_in_a_row_are_noticed_once() {
        let mut backoff = Backoff::default();
        let mut ended = |seconds: u64| backoff.ended_early(Duration::from_secs(seconds));
        assert_eq!([1, 2, 0, 60, 1, 1, 1, 1].map(&mut ended), [false, false, false, false, false, false, true, false]);
    }
}
