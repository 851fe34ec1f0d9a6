//! Heat, and what comes of it: the processor's temperature, and whether the board slows it down.

use std::fs;
use std::path::{Path, PathBuf};

/// Where the processor's temperature is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemperatureSensor {
    /// Thousandths of °C, of each place where the processor has a sensor.
    files: Vec<PathBuf>,
}

impl TemperatureSensor {
    /// `file`, or else the thermal zones that are named after a processor or the chip around it, or else the first
    /// zone.
    pub fn find(file: Option<&Path>) -> TemperatureSensor {
        file.map_or_else(
            || TemperatureSensor::below(Path::new("/")),
            |file| TemperatureSensor { files: vec![file.to_owned()] },
        )
    }

    fn below(root: &Path) -> TemperatureSensor {
        let mut zones = entries(&root.join("sys/class/thermal"), "thermal_zone");
        zones.sort();
        let names = ["cpu", "soc", "pkg"];
        let is_processors = |zone: &PathBuf| {
            let kind = fs::read_to_string(zone.join("type")).unwrap_or_default().to_lowercase();
            names.iter().any(|name| kind.contains(name))
        };
        let processors: Vec<PathBuf> = zones.iter().filter(|zone| is_processors(zone)).cloned().collect();
        zones.truncate(1);
        let chosen = if processors.is_empty() { zones } else { processors };
        TemperatureSensor { files: chosen.into_iter().map(|zone| zone.join("temp")).collect() }
    }

    /// °C, where it is hottest.
    pub fn read(&self) -> Option<f64> {
        let degrees = |file: &PathBuf| fs::read_to_string(file).ok()?.trim().parse::<f64>().ok();
        self.files.iter().filter_map(degrees).reduce(f64::max).map(|thousandths| thousandths / 1000.0)
    }
}

/// Whether the board slows the processor down now: a Raspberry Pi's firmware for heat or low voltage, or the kernel for
/// heat. `None` where nothing could tell.
pub fn throttled() -> Option<bool> {
    throttled_below(Path::new("/"))
}

fn throttled_below(root: &Path) -> Option<bool> {
    firmware_throttles(root).into_iter().chain(kernel_throttles(root)).reduce(|one, other| one || other)
}

/// The low four bits of the firmware's word are what holds now.
fn firmware_throttles(root: &Path) -> Option<bool> {
    firmware_word(root).map(|bits| bits & 0xf != 0)
}

/// What the firmware of a Raspberry Pi tells of low voltage and throttling (`vcgencmd get_throttled`): in the low four bits
/// what holds now, in those from 16 on what has been since the start.
pub fn firmware_word(root: &Path) -> Option<u32> {
    // `soc`, on a Pi 5 `soc@107c000000`
    let chips = entries(&root.join("sys/devices/platform"), "soc");
    let mut words = chips.into_iter().flat_map(|chip| entries(&chip, "soc")).map(|part| part.join("get_throttled"));
    let text = words.find_map(|file| fs::read_to_string(file).ok())?;
    u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()
}

/// Whether the kernel holds a processor's frequency down, as its cooling devices say.
fn kernel_throttles(root: &Path) -> Option<bool> {
    let devices = entries(&root.join("sys/class/thermal"), "cooling_device");
    let read = |device: &Path, file: &str| fs::read_to_string(device.join(file)).unwrap_or_default();
    let cpus = devices.into_iter().filter(|device| read(device, "type").contains("cpufreq"));
    cpus.map(|device| read(&device, "cur_state").trim() != "0").reduce(|one, other| one || other)
}

/// What lies in `folder` under names that begin with `name`.
fn entries(folder: &Path, name: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(name)).map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join("sys").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_processors_hottest_zone_counts() {
        let root = board(&[
            ("class/thermal/thermal_zone0/type", "cpu-thermal\n"),
            ("class/thermal/thermal_zone0/temp", "54530\n"),
        ]);
        assert_eq!(TemperatureSensor::below(root.path()).read(), Some(54.53));
        let root = board(&[
            ("class/thermal/thermal_zone0/type", "gpu-thermal"),
            ("class/thermal/thermal_zone0/temp", "90000"),
            ("class/thermal/thermal_zone1/type", "CPU0-therm"),
            ("class/thermal/thermal_zone1/temp", "41000"),
            ("class/thermal/thermal_zone2/type", "soc0-thermal"),
            ("class/thermal/thermal_zone2/temp", "42000"),
        ]);
        assert_eq!(TemperatureSensor::below(root.path()).read(), Some(42.0));
        let root =
            board(&[("class/thermal/thermal_zone0/type", "acpitz"), ("class/thermal/thermal_zone0/temp", "30000")]);
        assert_eq!(TemperatureSensor::below(root.path()).read(), Some(30.0));
        assert_eq!(TemperatureSensor::below(board(&[]).path()).read(), None);
        let file = root.path().join("sys/class/thermal/thermal_zone0/temp");
        assert_eq!(TemperatureSensor::find(Some(&file)).read(), Some(30.0));
    }

    #[test]
    fn firmware_and_kernel_tell_of_throttling() {
        let throttled = |files: &[(&str, &str)]| throttled_below(board(files).path());
        assert_eq!(throttled(&[]), None);
        // Bit 16 and above are what has been, not what is.
        for (word, now) in [("0", false), ("50000", false), ("50005", true), ("0x4", true)] {
            for soc in ["soc/soc:firmware", "soc@107c000000/soc@107c000000:firmware"] {
                let file = format!("devices/platform/{soc}/get_throttled");
                assert_eq!(throttled(&[(&file, word)]), Some(now), "{file} {word}");
            }
        }
        let cooling = |state: &str| {
            throttled(&[
                ("class/thermal/cooling_device0/type", "pwm-fan"),
                ("class/thermal/cooling_device0/cur_state", "3"),
                ("class/thermal/cooling_device1/type", "cpufreq-cpu0"),
                ("class/thermal/cooling_device1/cur_state", state),
            ])
        };
        assert_eq!([cooling("0\n"), cooling("2\n")], [Some(false), Some(true)]);
    }
}
