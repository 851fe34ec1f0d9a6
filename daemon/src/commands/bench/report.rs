//! What was measured, for people and for programs.

use std::fmt;
use std::fs;
use std::path::Path;

use diffused_engine::layer_kinds::{WORK_KINDS, WorkKind};
use serde::Serialize;

use crate::health::{self, TemperatureSensor};

/// All of it.
#[derive(Debug, Serialize)]
pub(super) struct BenchReport {
    pub(super) version: &'static str,
    pub(super) board: Board,
    pub(super) before: Heat,
    pub(super) after: Heat,
    /// Of one core, GOP/s in int8: two for each multiply-add.
    pub(super) peak_gops: Option<f64>,
    pub(super) layers: Vec<LayerRate>,
    /// How fast the model's weights come from the disk.
    pub(super) reading_mb_per_second: Option<f64>,
    /// Images as they are reckoned from the layers.
    pub(super) expected: Vec<PaintingTime>,
    /// One that was painted.
    pub(super) painted: Option<PaintedImage>,
    /// That all of this took.
    pub(super) seconds: f64,
}

/// What an image took, and what was reckoned for it.
#[derive(Debug, Serialize)]
pub(super) struct PaintedImage {
    pub(super) measured: PaintingTime,
    pub(super) reckoned: PaintingTime,
}

/// The machine.
#[derive(Debug, Serialize)]
pub(super) struct Board {
    /// As the device tree names it.
    pub(super) name: Option<String>,
    /// Architecture and level.
    pub(super) cpu: String,
    pub(super) threads: usize,
    pub(super) processors: usize,
    /// Of the machine, MiB.
    pub(super) memory_mib: Option<u64>,
    /// The kernel's release.
    pub(super) kernel: Option<String>,
}

/// How hot the processor is, and whether it is slowed down.
#[derive(Debug, Serialize)]
pub(super) struct Heat {
    pub(super) celsius: Option<f64>,
    pub(super) throttled: Option<bool>,
}

/// How fast a layer is on all threads.
#[derive(Debug, Serialize)]
pub(super) struct LayerRate {
    pub(super) kind: WorkKind,
    pub(super) shape: &'static str,
    pub(super) gops: f64,
}

/// What an image takes.
#[derive(Debug, Clone, Serialize)]
pub(super) struct PaintingTime {
    pub(super) model: String,
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) steps: usize,
    pub(super) step_seconds: f64,
    pub(super) decode_seconds: f64,
    pub(super) total_seconds: f64,
}

impl PaintingTime {
    /// Of an image of `size` (width and height); `seconds` are those of a step, of decoding, and of all.
    pub(super) fn new(model: String, size: (usize, usize), steps: usize, seconds: [f64; 3]) -> PaintingTime {
        let [step_seconds, decode_seconds, total_seconds] = seconds.map(rounded);
        PaintingTime { model, width: size.0, height: size.1, steps, step_seconds, decode_seconds, total_seconds }
    }
}

impl Board {
    /// The one whose files are below `root`.
    pub(super) fn of(root: &Path, cpu: String, threads: usize) -> Board {
        let text = |path: &str| fs::read_to_string(root.join(path)).ok();
        let trimmed = |text: String| text.trim_matches(['\0', '\n', ' ']).to_owned();
        let memory = text("proc/meminfo").and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        });
        Board {
            name: text("proc/device-tree/model").map(trimmed),
            cpu,
            threads,
            processors: std::thread::available_parallelism().map_or(1, |cores| cores.get()),
            memory_mib: memory.map(|kib| kib / 1024),
            kernel: text("proc/sys/kernel/osrelease").map(trimmed),
        }
    }
}

impl Heat {
    pub(super) fn now(sensor: &TemperatureSensor) -> Heat {
        Heat { celsius: sensor.read(), throttled: health::throttled() }
    }
}

/// To a thousandth.
pub(super) fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

/// Multiply-adds a second of each kind.
pub(super) fn rates(layers: &[LayerRate]) -> [f64; WORK_KINDS] {
    WorkKind::ALL.map(|kind| layers.iter().find(|layer| layer.kind == kind).map_or(f64::NAN, |layer| layer.gops * 5e8))
}

impl fmt::Display for Heat {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.celsius {
            Some(degrees) => write!(f, "{degrees:.0} °C")?,
            None => write!(f, "no sensor")?,
        }
        match self.throttled {
            Some(true) => write!(f, ", slowed down"),
            Some(false) => write!(f, ", not slowed down"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for PaintingTime {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let PaintingTime { model, width, height, steps, step_seconds, decode_seconds, total_seconds } = self;
        let name = format!("{model}, {width} x {height}");
        write!(f, "{name:<34}{steps:>6}{step_seconds:>11.3} s{decode_seconds:>11.3} s{total_seconds:>11.2} s")
    }
}

impl fmt::Display for BenchReport {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Board { name, cpu, threads, processors, memory_mib, kernel } = &self.board;
        let name = name.as_deref().unwrap_or("a machine without a name");
        writeln!(f, "diffused {} on {name}", self.version)?;
        writeln!(f, "{cpu}; {threads} threads on {processors} processors")?;
        if let (Some(memory), Some(kernel)) = (memory_mib, kernel) {
            writeln!(f, "{memory} MiB of memory; Linux {kernel}")?;
        }
        writeln!(f, "heat: before {}; after {}", self.before, self.after)?;
        match self.reading_mb_per_second {
            Some(rate) => writeln!(f, "weights are read at {rate:.0} MB/s")?,
            None => writeln!(f, "no weights are read from a disk: the model is part of the program")?,
        }
        writeln!(f, "\nGOP/s, two for each multiply-add, on all threads")?;
        for LayerRate { kind, shape, gops } in &self.layers {
            writeln!(f, "  {:<18}{shape:<42}{gops:>8.1}", kind.label())?;
        }
        if let Some(peak) = self.peak_gops {
            writeln!(f, "  {:<18}{:<42}{peak:>8.1}", "peak of one core", "int8, in registers")?;
        }
        writeln!(f, "\n{:<34}{:>6}{:>13}{:>13}{:>13}", "reckoned from these", "steps", "a step", "decoding", "in all")?;
        self.expected.iter().try_for_each(|time| writeln!(f, "{time}"))?;
        if let Some(PaintedImage { measured, reckoned }) = &self.painted {
            writeln!(f, "\n{:<34}{:>6}{:>13}{:>13}{:>13}", "painted", "steps", "a step", "decoding", "in all")?;
            writeln!(f, "{measured}")?;
            writeln!(f, "{reckoned}  (reckoned)")?;
        }
        write!(f, "\nThis took {:.0} s. With --json it is one line that can be sent in.", self.seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_board_tells_of_itself() {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("proc/device-tree/model", "Raspberry Pi Zero 2 W Rev 1.0\0"),
            ("proc/meminfo", "MemTotal:         437124 kB\nMemFree: 1 kB\n"),
            ("proc/sys/kernel/osrelease", "6.6.31+rpt-rpi-v8\n"),
        ] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let board = Board::of(root.path(), "aarch64: neon (detected)".into(), 4);
        assert_eq!(board.name.as_deref(), Some("Raspberry Pi Zero 2 W Rev 1.0"));
        assert_eq!((board.memory_mib, board.kernel.as_deref()), (Some(426), Some("6.6.31+rpt-rpi-v8")));
        let unknown = Board::of(Path::new("/no/such/root"), String::new(), 1);
        assert_eq!((unknown.name, unknown.memory_mib), (None, None));
    }

    #[test]
    fn a_report_is_a_table() {
        let layer = |kind, gops| LayerRate { kind, shape: "3 × 3", gops };
        let layers: Vec<LayerRate> =
            WorkKind::ALL.into_iter().zip([8.0, 4.0, 2.0, 1.0, 0.5]).map(|(k, g)| layer(k, g)).collect();
        assert_eq!(rates(&layers), [4e9, 2e9, 1e9, 5e8, 2.5e8]);
        let time = |seconds| PaintingTime::new("demo".into(), (128, 96), 2, [seconds, 0.5, 2.0 * seconds + 0.5]);
        let heat = |celsius| Heat { celsius: Some(celsius), throttled: Some(false) };
        let report = BenchReport {
            version: "0.1.0",
            board: Board::of(Path::new("/no/such/root"), "aarch64: neon (detected)".into(), 4),
            before: heat(40.0),
            after: heat(62.0),
            peak_gops: Some(7.2),
            layers,
            reading_mb_per_second: Some(22.4),
            expected: vec![time(3.0)],
            painted: Some(PaintedImage { measured: time(4.0), reckoned: time(3.0) }),
            seconds: 31.0,
        };
        let text = report.to_string();
        for part in [
            "heat: before 40 °C, not slowed down; after 62 °C",
            "weights are read at 22 MB/s",
            "convolution       3 × 3",
            "demo, 128 x 96",
            "3.000 s",
            "8.50 s",
            "(reckoned)",
            "This took 31 s",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }

    #[test]
    fn heat_is_told_as_far_as_it_is_known() {
        let shown = |celsius, throttled| Heat { celsius, throttled }.to_string();
        assert_eq!(shown(Some(61.2), Some(true)), "61 °C, slowed down");
        assert_eq!(shown(None, None), "no sensor");
        assert_eq!(shown(Some(40.0), Some(false)), "40 °C, not slowed down");
    }
}
