//! The machine's state, from files of the kernel; a value that a machine lacks is `None`.

use std::fs;
use std::path::Path;

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

/// From `/proc/pressure/memory`.
pub fn memory_pressure() -> Option<f64> {
    let text = fs::read_to_string("/proc/pressure/memory").ok()?;
    let average = text.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?;
    average.parse().ok()
}

/// Of the first thermal zone.
pub fn temperature() -> Option<f64> {
    let text = fs::read_to_string("/sys/class/thermal/thermal_zone0/temp").ok()?;
    text.trim().parse::<f64>().ok().map(|thousandths| thousandths / 1000.0)
}

/// The low four bits of the firmware's word are what holds now.
pub fn throttled() -> Option<bool> {
    let text = fs::read_to_string("/sys/devices/platform/soc/soc:firmware/get_throttled").ok()?;
    let bits = u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()?;
    Some(bits & 0xf != 0)
}

/// Bytes that may still be written in `folder`.
pub fn disk_free(folder: &Path) -> Option<u64> {
    let status = rustix::fs::statvfs(folder).ok()?;
    Some(status.f_bavail * status.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_holds_memory_and_has_a_disk() {
        let memory = memory();
        let (resident, peak) = (memory.resident.unwrap(), memory.peak.unwrap());
        assert!(resident > 0 && peak > 0);
        assert!(disk_free(Path::new("/")).unwrap() > 0);
        assert_eq!(disk_free(Path::new("/no/such/folder")), None);
    }
}
