//! The program as a child process, watched while it paints.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use diffused_engine::bundle::AutoencoderKind;
use diffused_tests::program;
use serde_json::Value;

/// The program's resident memory is looked at so often.
const LOOK: Duration = Duration::from_millis(10);

pub(crate) const MIB: f64 = (1 << 20) as f64;

/// What is painted, and in how much memory.
#[derive(Clone)]
pub(crate) struct ChildJob {
    pub(crate) model: PathBuf,
    /// Bytes.
    pub(crate) budget: u64,
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) steps: usize,
    pub(crate) decoder: Option<AutoencoderKind>,
    pub(crate) init_image: Option<PathBuf>,
}

/// The moment at which a step, or the stage after the last one, began.
pub(crate) struct StageStart {
    /// Seconds since the program's start.
    pub(crate) at: f64,
    /// Bytes that the program has read from files until then, and those of them that came from a disk.
    pub(crate) read: u64,
    pub(crate) from_disk: u64,
}

/// What was seen of a run.
#[derive(Default)]
pub(crate) struct Run {
    /// Resident bytes at so many seconds.
    pub(crate) memory: Vec<(f64, u64)>,
    /// When each stage began.
    pub(crate) stages: Vec<(f64, String)>,
    pub(crate) steps: Vec<StageStart>,
    /// `VmHWM`, bytes.
    pub(crate) peak: u64,
    pub(crate) sha256: String,
    pub(crate) timings: Value,
}

impl ChildJob {
    /// The plan that the program makes for it.
    pub(crate) fn plan(&self) -> Result<Value> {
        let mut command = Command::new(program());
        command.arg("plan").arg("--json").args(self.size());
        command.args(self.init_image.iter().map(|_| "--image-to-image"));
        let output = command.output()?;
        if !output.status.success() {
            bail!("diffused plan: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// The same in the smallest budget that the program accepts for it.
    pub(crate) fn in_smallest(&self) -> Result<ChildJob> {
        let ample = ChildJob { budget: 1 << 50, ..self.clone() };
        let budget = ample.plan()?["smallest"].as_u64().context("a plan without a smallest budget")?;
        Ok(ChildJob { budget, ..self.clone() })
    }

    /// Paints, with `wrapper` before the program's own command.
    pub(crate) fn run(&self, wrapper: &[String], folder: &Path) -> Result<Run> {
        let program = program().display().to_string();
        let words: Vec<String> = wrapper.iter().cloned().chain([program]).collect();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(["generate", "a house", "--seed", "1", "--json"]).args(self.size());
        command.arg("--steps").arg(self.steps.to_string()).arg("--output").arg(folder.join("picture.png"));
        if let Some(image) = &self.init_image {
            // At the highest strength all steps of the request are taken.
            command.arg("--init-image").arg(image).args(["--strength", "1"]);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let output = child.stdout.take().context("no output")?;
        let (pid, start, ended) = (child.id(), Instant::now(), AtomicBool::new(false));
        let mut run = Run::default();
        run.memory = thread::scope(|scope| {
            let looking = scope.spawn(|| look(pid, start, &ended));
            let read = run.follow(pid, start, BufReader::new(output));
            ended.store(true, Ordering::Relaxed);
            read.map(|()| looking.join().unwrap_or_default())
        })?;
        if !child.wait()?.success() {
            let mut message = String::new();
            child.stderr.take().context("no errors")?.read_to_string(&mut message)?;
            bail!("{}", message.trim());
        }
        Ok(run)
    }

    fn size(&self) -> Vec<String> {
        let pairs = [
            ("--model", self.model.display().to_string()),
            ("--memory", self.budget.to_string()),
            ("--width", self.width.to_string()),
            ("--height", self.height.to_string()),
        ];
        let decoder = self.decoder.map(|decoder| ("--decoder", decoder.to_string()));
        pairs.into_iter().chain(decoder).flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
    }
}

impl Run {
    /// Reads what the program prints.
    fn follow(&mut self, pid: u32, start: Instant, output: impl BufRead) -> Result<()> {
        let mut last = (String::new(), 0);
        for line in output.lines() {
            let line: Value = serde_json::from_str(&line?)?;
            let at = start.elapsed().as_secs_f64();
            if line["event"] == "done" {
                self.timings = line["timings"].clone();
                self.peak = line["timings"]["peak_rss"].as_u64().context("no peak")?;
                self.sha256 = line["sha256"].as_str().unwrap_or_default().to_owned();
            }
            let Some(stage) = line["stage"].as_str() else { continue };
            let now = (stage.to_owned(), line["step"].as_u64().unwrap_or(0));
            if now.0 != last.0 {
                self.stages.push((at, stage.to_owned()));
            }
            if stage == "unet" && now != last {
                let (read, from_disk) = (io(pid, "rchar:"), io(pid, "read_bytes:"));
                self.steps.push(StageStart { at, read, from_disk });
            }
            last = now;
        }
        Ok(())
    }

    /// Seconds of the fastest step.
    pub(crate) fn step_seconds(&self) -> f64 {
        self.steps.windows(2).map(|pair| pair[1].at - pair[0].at).fold(f64::INFINITY, f64::min)
    }

    /// Seconds until the first step began.
    pub(crate) fn load_seconds(&self) -> f64 {
        self.steps.first().map_or(f64::NAN, |mark| mark.at)
    }

    /// Bytes that a step read after the first one, on average.
    pub(crate) fn read_per_step(&self) -> f64 {
        let [_, first, .., last] = &self.steps[..] else { return f64::NAN };
        (last.read - first.read) as f64 / (self.steps.len() - 2) as f64
    }
}

/// Resident memory until `ended`.
fn look(pid: u32, start: Instant, ended: &AtomicBool) -> Vec<(f64, u64)> {
    let mut seen = Vec::new();
    while !ended.load(Ordering::Relaxed) {
        seen.push((start.elapsed().as_secs_f64(), status(pid, "VmRSS:")));
        thread::sleep(LOOK);
    }
    seen
}

/// Bytes that `/proc/PID/status` gives for `key`; 0 once the process has gone.
pub(crate) fn status(pid: u32, key: &str) -> u64 {
    number(&format!("/proc/{pid}/status"), key) << 10
}

fn io(pid: u32, key: &str) -> u64 {
    number(&format!("/proc/{pid}/io"), key)
}

fn number(file: &str, key: &str) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
