//! The machine's state, from files of the kernel; a value that a machine lacks is `None`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

pub use board::{TemperatureSensor, firmware_word, throttled};

mod board;

/// The process's memory, bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessMemory {
    /// Held now.
    pub resident: Option<u64>,
    /// The most since the start.
    pub peak: Option<u64>,
}

/// From `/proc/self/status`.
pub fn memory() -> ProcessMemory {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bytes = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
        Some(kilobytes << 10)
    };
    ProcessMemory { resident: bytes("VmRSS:"), peak: bytes("VmHWM:") }
}

/// What processes wait for, as the kernel's pressure stall information counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// `/proc/pressure/memory`
    Memory,
    /// `/proc/pressure/io`
    Io,
    /// `/proc/pressure/cpu`
    Cpu,
}

/// The share of the last 10 s in which some process waited for `resource`, percent.
pub fn pressure(resource: Resource) -> Option<f64> {
    pressure_below(Path::new("/"), resource)
}

fn pressure_below(root: &Path, resource: Resource) -> Option<f64> {
    let name = match resource {
        Resource::Memory => "memory",
        Resource::Io => "io",
        Resource::Cpu => "cpu",
    };
    let text = fs::read_to_string(root.join("proc/pressure").join(name)).ok()?;
    // The line `some` comes first.
    let average = text.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?;
    average.parse().ok()
}

/// What this process has had read from storage and written to it since it was started, bytes. What the page cache
/// answered, and what went to a file system in memory, does not count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StorageBytes {
    /// Read.
    pub read: u64,
    /// Written, in whole pages.
    pub written: u64,
}

/// From `/proc/self/io`, which some kernels lack.
pub fn storage() -> Option<StorageBytes> {
    storage_below(Path::new("/"))
}

fn storage_below(root: &Path) -> Option<StorageBytes> {
    let text = fs::read_to_string(root.join("proc/self/io")).ok()?;
    let bytes = |key: &str| text.lines().find_map(|line| line.strip_prefix(key))?.trim().parse().ok();
    Some(StorageBytes { read: bytes("read_bytes:")?, written: bytes("write_bytes:")? })
}

/// How fast the process has storage read.
#[derive(Debug)]
pub struct ReadMeter {
    root: PathBuf,
    last: (Instant, Option<StorageBytes>),
    rate: Option<f64>,
}

impl ReadMeter {
    /// Begins to measure.
    pub fn start(now: Instant) -> ReadMeter {
        ReadMeter::start_below(Path::new("/"), now)
    }

    fn start_below(root: &Path, now: Instant) -> ReadMeter {
        ReadMeter { root: root.to_owned(), last: (now, storage_below(root)), rate: None }
    }

    /// Ends an interval and begins the next.
    pub fn measure(&mut self, now: Instant) {
        let (before, storage) = (self.last, storage_below(&self.root));
        self.last = (now, storage);
        let seconds = now.saturating_duration_since(before.0).as_secs_f64();
        let bytes = storage.zip(before.1).map(|(now, before)| now.read.saturating_sub(before.read));
        self.rate = bytes.filter(|_| seconds > 0.0).map(|bytes| (bytes as f64 / seconds).round());
    }

    /// Bytes a second in the last interval; `None` before its end.
    pub fn rate(&self) -> Option<f64> {
        self.rate
    }
}

/// Bytes that may still be written in `folder`.
pub fn disk_free(folder: &Path) -> Option<u64> {
    let status = rustix::fs::statvfs(folder).ok()?;
    Some(status.f_bavail * status.f_frsize)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn this_process_holds_memory_and_has_a_disk() {
        let memory = memory();
        let (resident, peak) = (memory.resident.unwrap(), memory.peak.unwrap());
        assert!(resident > 0 && peak > 0);
        assert!(disk_free(Path::new("/")).unwrap() > 0);
        assert_eq!(disk_free(Path::new("/no/such/folder")), None);
    }

    #[test]
    fn pressure_is_that_of_some_process() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("proc/pressure");
        fs::create_dir_all(&folder).unwrap();
        let text = "some avg10=1.25 avg60=0.80 avg300=0.10 total=7\nfull avg10=0.75 avg60=0.10 avg300=0.00 total=3\n";
        fs::write(folder.join("memory"), text).unwrap();
        fs::write(folder.join("io"), text.replace("1.25", "40.00")).unwrap();
        let pressure = |resource| pressure_below(root.path(), resource);
        assert_eq!([Resource::Memory, Resource::Io, Resource::Cpu].map(pressure), [Some(1.25), Some(40.0), None]);
    }

    #[test]
    fn what_storage_had_to_do_is_counted() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("proc/self");
        fs::create_dir_all(&folder).unwrap();
        let write = |read: u64| {
            let text = format!("rchar: 9\nwchar: 9\nread_bytes: {read}\nwrite_bytes: 8192\ncancelled_write_bytes: 0\n");
            fs::write(folder.join("io"), text).unwrap();
        };
        assert_eq!(storage_below(root.path()), None);
        write(4096);
        assert_eq!(storage_below(root.path()), Some(StorageBytes { read: 4096, written: 8192 }));
        let start = Instant::now();
        let mut meter = ReadMeter::start_below(root.path(), start);
        assert_eq!(meter.rate(), None);
        write(4096 + (60 << 20));
        meter.measure(start + Duration::from_secs(60));
        assert_eq!(meter.rate(), Some((1 << 20) as f64));
        meter.measure(start + Duration::from_secs(120));
        assert_eq!(meter.rate(), Some(0.0));
    }
}
