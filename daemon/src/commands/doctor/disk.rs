//! The disk: whether the service can keep its state, how much room is left, and how long it takes to be sure of a write.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::finding::{Finding, amount};
use crate::config::Config;
use crate::files;
use crate::health;

/// Bytes below which little room is left, and below which nothing can be kept.
const LITTLE: u64 = 200 << 20;
const NOTHING: u64 = 1 << 20;
/// A write that takes longer to reach the disk makes requests wait.
const SLOW: Duration = Duration::from_millis(100);
/// Writes of which the median is taken.
const WRITES: usize = 7;

/// All of it.
pub(super) fn findings(config: &Config) -> Vec<Finding> {
    let folder = match config.try_state_dir() {
        Ok(folder) => folder,
        Err(error) => {
            let advice = "give it to the service: sudo chown diffused:diffused FOLDER; or set `state_dir`";
            return vec![Finding::error("state_dir", format!("{error:#}"), advice)];
        }
    };
    // It may be made by the service's first start.
    let there = folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let user = if is_root() { service_user(Path::new("/")) } else { None };
    vec![owner(&folder, user), space(health::disk_free(there)), latency(write_latency(there))]
}

/// Root may write anywhere, which says nothing of the service's user, whose id is `user`.
fn owner(folder: &Path, user: Option<u32>) -> Finding {
    let owner = folder.metadata().ok().map(|metadata| metadata.uid());
    let found = format!("{} can be written to", folder.display());
    match (owner, user) {
        (Some(owner), Some(user)) if owner != user => {
            let advice = format!("give it to the service: sudo chown -R diffused:diffused {}", folder.display());
            Finding::error("state_dir", found + " by root, but it does not belong to the service's user", advice)
        }
        _ => Finding::ok("state_dir", found),
    }
}

/// The id of the user that the package's unit runs as, if there is one.
fn service_user(root: &Path) -> Option<u32> {
    let text = fs::read_to_string(root.join("etc/passwd")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("diffused:"))?;
    line.split(':').nth(1)?.parse().ok()
}

/// By who owns what the kernel tells of this process.
fn is_root() -> bool {
    Path::new("/proc/self").metadata().is_ok_and(|metadata| metadata.uid() == 0)
}

fn space(free: Option<u64>) -> Finding {
    let name = "disk_space";
    let Some(free) = free else { return Finding::ok(name, "how much is free cannot be read") };
    let found = format!("{} are free", amount(free));
    match free {
        0..NOTHING => Finding::error(name, found, "make room: while the disk is full every request is rejected"),
        NOTHING..LITTLE => Finding::warning(name, found, "make room, or lower `keep_pictures`"),
        _ => Finding::ok(name, found),
    }
}

/// The median time until a small new file is on the disk; `None` where none can be written, as on a full disk.
fn write_latency(folder: &Path) -> Option<Duration> {
    let write = |_| {
        let begin = Instant::now();
        files::try_write(folder, &[0; 4096]).map(|()| begin.elapsed())
    };
    let mut times = (0..WRITES).map(write).collect::<Result<Vec<_>, _>>().ok()?;
    times.sort_unstable();
    times.get(WRITES / 2).copied()
}

fn latency(time: Option<Duration>) -> Finding {
    let name = "fsync";
    let Some(time) = time else { return Finding::error(name, "nothing can be written", "make room on the disk") };
    let found = format!("a small file is on the disk after {:.1} ms", time.as_secs_f64() * 1e3);
    if time > SLOW {
        let advice = "take a better card or an SSD, or look what else writes to it: each request waits for this";
        return Finding::warning(name, found, advice);
    }
    Finding::ok(name, found)
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;

    #[test]
    fn little_room_is_a_warning_and_none_an_error() {
        assert_eq!(space(Some(300 << 20)).severity, Severity::Ok);
        assert_eq!(space(Some(199 << 20)).severity, Severity::Warning);
        assert_eq!(space(Some(1 << 19)).severity, Severity::Error);
        assert_eq!(space(None).severity, Severity::Ok);
    }

    #[test]
    fn slow_writes_are_a_warning() {
        assert_eq!(latency(Some(Duration::from_millis(20))).severity, Severity::Ok);
        let slow = latency(Some(Duration::from_millis(350)));
        assert!(slow.severity == Severity::Warning && slow.found.contains("350.0 ms"), "{slow:?}");
        assert_eq!(latency(None).severity, Severity::Error);
        let folder = tempfile::tempdir().unwrap();
        assert!(write_latency(folder.path()).is_some());
        assert_eq!(write_latency(&folder.path().join("missing")), None);
    }

    #[test]
    fn a_folder_that_cannot_be_written_to_is_an_error() {
        let with = |path: &str| {
            let config = Config::parse(&format!("state_dir = {path:?}"), Path::new("c.toml")).unwrap();
            findings(&config)
        };
        let found = with("/proc/x");
        assert!(found[0].severity == Severity::Error && found[0].found.contains("/proc/x"), "{found:?}");
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("state");
        assert_eq!(with(missing.to_str().unwrap()).len(), 3);
        assert!(!missing.exists());
    }

    #[test]
    fn the_folder_belongs_to_the_services_user() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().metadata().unwrap().uid();
        assert_eq!(owner(folder.path(), Some(own)).severity, Severity::Ok);
        assert_eq!(owner(folder.path(), None).severity, Severity::Ok);
        assert_eq!(owner(&folder.path().join("missing"), Some(own + 1)).severity, Severity::Ok);
        let found = owner(folder.path(), Some(own + 1));
        assert!(found.severity == Severity::Error && found.advice.unwrap().contains("chown"), "{}", found.found);
    }

    #[test]
    fn the_services_user_is_found() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(service_user(root.path()), None);
        fs::create_dir(root.path().join("etc")).unwrap();
        let text = "root:x:0:0:root:/root:/bin/sh\ndiffused:x:997:996::/var/lib/diffused:/usr/sbin/nologin\n";
        fs::write(root.path().join("etc/passwd"), text).unwrap();
        assert_eq!(service_user(root.path()), Some(997));
    }
}
