//! The board itself: its processor, clock, heat and power.

use std::path::Path;
use std::time::{Duration, SystemTime};

use diffused_engine::cpu::{self, Level};

use super::finding::Finding;
use crate::health::{self, TemperatureSensor};

/// Degrees Celsius from which boards slow down, or soon will: a Raspberry Pi does from 80 on.
const HOT: f64 = 80.0;
/// How far a clock may be behind the program's file, which another machine's clock dated.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Which instructions and threads are used.
pub(super) fn processor(threads: usize, processors: usize) -> Finding {
    let found = format!("{}; {threads} threads on {processors} processors", cpu::describe());
    let detected = Level::detected();
    let wanted = std::env::var(cpu::VARIABLE).ok();
    if wanted.is_some_and(|wanted| Level::named(&wanted) != Some(detected)) {
        let advice = format!("unset {}: images take longer with it, and are the same without", cpu::VARIABLE);
        return Finding::warning("cpu", found, advice);
    }
    if threads > processors {
        return Finding::warning("cpu", found, "leave `threads` out: more than there are processors only wait");
    }
    if detected == Level::Scalar {
        let advice = "images take many times as long here; take a 64-bit system, or another processor";
        return Finding::warning("cpu", found, advice);
    }
    Finding::ok("cpu", found)
}

/// Whether the clock can be right: it is not before the time at which the program was `made`, and systemd says that it
/// was set. `needed`: certificates or muses depend on it.
pub(super) fn clock(root: &Path, now: SystemTime, made: SystemTime, needed: bool) -> Finding {
    let advice = "set it (timedatectl set-ntp true, with a network), or give the board a battery-backed clock";
    if now + DAY < made {
        let days = made.duration_since(now).unwrap_or_default().as_secs() / DAY.as_secs();
        let found = format!("the clock is {days} days before the time at which this program was made");
        return match needed {
            true => Finding::error("clock", found + "; certificates and muses depend on it", advice),
            false => Finding::warning("clock", found, advice),
        };
    }
    let timesync = root.join("run/systemd/timesync");
    match (timesync.exists(), timesync.join("synchronized").exists()) {
        (_, true) => Finding::ok("clock", "synchronised by systemd-timesyncd"),
        (true, false) => Finding::warning("clock", "not synchronised since the start of the system", advice),
        (false, false) => Finding::ok("clock", "it can be right; systemd-timesyncd, which would tell, does not run"),
    }
}

/// The processor's.
pub(super) fn temperature(sensor: &TemperatureSensor) -> Finding {
    match sensor.read() {
        None => Finding::ok("temperature", "this machine shows none"),
        Some(degrees) if degrees >= HOT => {
            let advice =
                "give it a heat sink or a fan, lower `threads`, or set `max_temperature`: a hot board slows down";
            Finding::warning("temperature", format!("{degrees:.0} °C"), advice)
        }
        Some(degrees) => Finding::ok("temperature", format!("{degrees:.0} °C")),
    }
}

/// Low voltage and throttling, now and since the start.
pub(super) fn power(root: &Path) -> Finding {
    let Some(bits) = health::firmware_word(root) else {
        return Finding::ok("power", "this machine does not tell of low voltage");
    };
    let seen = |bit: u32, name: &str| match (bits >> bit & 1, bits >> (bit + 16) & 1) {
        (1, _) => Some(format!("{name} now")),
        (0, 1) => Some(format!("{name} since the start")),
        _ => None,
    };
    let names = ["low voltage", "a capped frequency", "throttling", "the limit of temperature"];
    let found: Vec<String> = (0..).zip(names).filter_map(|(bit, name)| seen(bit, name)).collect();
    if found.is_empty() {
        return Finding::ok("power", "no low voltage and no throttling since the start");
    }
    let advice = match bits & 0x0001_0001 {
        0 => "give it a heat sink or a fan: it was slowed down",
        _ => "take the board's own power supply and a short, thick cable",
    };
    Finding::warning("power", format!("the firmware saw {}", found.join(", ")), advice)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::finding::Severity;
    use super::*;

    fn root_with(path: &str, text: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        root
    }

    #[track_caller]
    fn check(finding: &Finding, severity: Severity, part: &str) {
        let text = format!("{} {}", finding.found, finding.advice.as_deref().unwrap_or_default());
        assert!(finding.severity == severity && text.contains(part), "{finding:?}");
    }

    #[test]
    fn more_threads_than_processors_are_too_many() {
        if Level::detected() != Level::Scalar {
            check(&processor(2, 4), Severity::Ok, "2 threads on 4 processors");
        }
        check(&processor(5, 4), Severity::Warning, "leave `threads` out");
    }

    #[test]
    fn a_clock_may_be_wrong_or_not_set() {
        let made = SystemTime::UNIX_EPOCH + 20_000 * DAY;
        let set = root_with("run/systemd/timesync/synchronized", "");
        let unset = root_with("run/systemd/timesync/other", "");
        let none = tempfile::tempdir().unwrap();
        check(&clock(set.path(), made, made, true), Severity::Ok, "synchronised");
        check(&clock(unset.path(), made, made, true), Severity::Warning, "not synchronised");
        check(&clock(none.path(), made, made, true), Severity::Ok, "does not run");
        check(&clock(set.path(), made - 5 * DAY, made, true), Severity::Error, "5 days before");
        check(&clock(set.path(), made - 5 * DAY, made, false), Severity::Warning, "timedatectl");
    }

    #[test]
    fn a_hot_processor_is_a_warning() {
        let root = root_with("temp", "45277\n");
        let file = root.path().join("temp");
        let found = || temperature(&TemperatureSensor::find(Some(&file)));
        check(&found(), Severity::Ok, "45 °C");
        fs::write(&file, "81000\n").unwrap();
        check(&found(), Severity::Warning, "heat sink");
        let none = temperature(&TemperatureSensor::find(Some(&root.path().join("missing"))));
        check(&none, Severity::Ok, "shows none");
    }

    #[test]
    fn the_firmwares_bits_are_read() {
        let with = |text: &str| power(root_with("sys/devices/platform/soc/soc:firmware/get_throttled", text).path());
        check(&with("0\n"), Severity::Ok, "no low voltage");
        check(&with("50005\n"), Severity::Warning, "low voltage now, throttling now take the board's own power supply");
        check(&with("50000\n"), Severity::Warning, "low voltage since the start, throttling since the start");
        check(&with("20002\n"), Severity::Warning, "a capped frequency now give it a heat sink");
        check(&power(Path::new("/no/such/root")), Severity::Ok, "does not tell");
    }
}
