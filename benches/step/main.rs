//! A sampling step and a VAE decode of Stable Diffusion 1.5 at 512×512 with guidance, in little memory and in much; what share of
//! the int8 peak a step reaches, by kind of layer; and onnxruntime beside it.
//!
//! `cargo bench --bench step` makes a bundle of the true shapes with random weights under `target/` (or takes `--model BUNDLE`);
//! `--threads N`; `--budget MIB` instead of 200 and 2048; `--trace FILE` paints once more and writes what each layer and each
//! thread does, for chrome://tracing or ui.perfetto.dev; `--python PROGRAM`, a Python that has what `benches/onnx_runtime.py`
//! wants (python3 is tried); `--smoke` paints the demo model, in seconds. `wall` wants a machine that does nothing else; `cpu` is the time of all threads and hardly minds.
//! What a picture of other families takes, each at its own number of steps (smallest budget, seconds, multiply-adds),
//! `--bench memory -- families` prints.

#[path = "../cpu.rs"]
mod cpu;
mod kinds;
#[path = "../memory/model.rs"]
#[allow(dead_code, reason = "the memory bench uses the rest")]
mod model;
mod onnx_runtime;
mod threads;
mod trace;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use diffused as _;
use diffused_engine::request::{Observer, PaintingProgress, Request, Stage, Start};
use diffused_engine::{Engine, Options, Painting, Resolver, Source};
use diffused_kernels::Level;

use self::cpu::cpu_time;
use self::kinds::{KindTable, NodeRecorder, WithPeak, core_peak};
use self::onnx_runtime::OnnxRuntime;
use self::trace::PictureTrace;

/// Steps of a picture; the first one also reads the weights and is not counted.
const STEPS: usize = 4;
/// How often both take turns where onnxruntime is there.
const ROUNDS: usize = 3;
/// What is aimed at: the parts of onnxruntime's time for a step and for a decode, and a step's part of the int8 peak.
const AIMS: ([f64; 2], f64) = ([0.25, 0.30], 0.75);

/// The command line.
struct StepOptions {
    smoke: bool,
    model: Option<PathBuf>,
    threads: Option<usize>,
    budgets: Vec<usize>,
    python: String,
    trace: Option<PathBuf>,
}

impl StepOptions {
    fn parse() -> Result<StepOptions> {
        let budgets = vec![200, 2048];
        let mut options =
            StepOptions { smoke: false, model: None, threads: None, budgets, python: "python3".into(), trace: None };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} takes a value"));
            match word.as_str() {
                "--smoke" => options.smoke = true,
                "--threads" => options.threads = Some(value()?.parse().context("--threads")?),
                "--budget" => options.budgets = vec![value()?.parse().context("--budget")?],
                "--model" => options.model = Some(value()?.into()),
                "--python" => options.python = value()?,
                "--trace" => options.trace = Some(value()?.into()),
                _ => {}
            }
        }
        Ok(options)
    }

    fn engine(&self, budget: usize) -> Options {
        Options { threads: self.threads, memory: Some((budget as u64) << 20), beside: 0 }
    }

    /// Where one is wanted; else, as a smoke test, to a file that is thrown away.
    fn write_trace(&self, model: &Path) -> Result<()> {
        let thrown_away = tempfile::NamedTempFile::new()?;
        let file = match &self.trace {
            Some(file) => file,
            None if self.smoke => thrown_away.path(),
            None => return Ok(()),
        };
        let budget = *self.budgets.last().context("no budget")?;
        let (mut engine, painting) = open(model, self.engine(budget))?;
        let trace = PictureTrace::paint(&mut engine, &painting)?;
        trace.write(file)?;
        println!("\nWhere {} threads wait, in {budget} MiB:", self.engine(budget).threads());
        trace.print_waits();
        if self.smoke { trace::check(file) } else { Ok(()) }
    }

    /// onnxruntime, or why it is not there.
    fn onnx_runtime(&self) -> Option<OnnxRuntime> {
        if self.smoke {
            return None;
        }
        let threads = self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        OnnxRuntime::start(&self.python, threads).map_err(|error| println!("without onnxruntime: {error:#}")).ok()
    }
}

fn main() -> Result<()> {
    diffused_heap::configure_malloc();
    NodeRecorder::install();
    let options = StepOptions::parse()?;
    let model = model::chosen(options.model.as_deref(), options.smoke)?;
    let peak = core_peak(Level::current(), options.smoke);
    let mut onnx_runtime = options.onnx_runtime();
    let mut best: Vec<Option<MeasuredPicture>> = options.budgets.iter().map(|_| None).collect();
    let mut theirs = [Seconds::MOST; 2];
    for _ in 0..if onnx_runtime.is_some() { ROUNDS } else { 1 } {
        for (best, budget) in best.iter_mut().zip(&options.budgets) {
            let painted = paint(&model, options.engine(*budget))?;
            *best = Some(match best.take() {
                Some(best) => best.or_better(painted),
                None => painted,
            });
        }
        if let Some(onnx_runtime) = &mut onnx_runtime {
            let round = onnx_runtime.round()?;
            theirs = [0, 1].map(|i| theirs[i].least(round[i]));
        }
    }
    println!("{:>8} {:>10} {:>6} {:>10} {:>6}   seconds", "budget", "step wall", "cpu", "decode wall", "cpu");
    let line = |name: &str, [step, decode]: [Seconds; 2]| {
        println!("{name:>8} {:>10.2} {:>6.2} {:>11.2} {:>6.2}", step.wall, step.cpu, decode.wall, decode.cpu);
    };
    for (best, budget) in best.iter().flatten().zip(&options.budgets) {
        line(&format!("{budget}MiB"), best.seconds);
    }
    if onnx_runtime.is_some() {
        line("onnxrt", theirs);
    }
    let ours = best.pop().flatten().context("no budget")?;
    if let Some(peak) = peak {
        println!("\npeak of a core at {}: {:.0} GOP/s int8", Level::current(), 2e-9 * peak);
        println!("{}", WithPeak(&ours.kinds, peak));
    }
    if options.smoke {
        ours.kinds.check()?;
    }
    aims(&ours, onnx_runtime.map(|_| theirs), peak);
    options.write_trace(&model)
}

/// What was aimed at and what was reached.
fn aims(ours: &MeasuredPicture, theirs: Option<[Seconds; 2]>, peak: Option<f64>) {
    let line = |what: &str, reached: Option<f64>, aim: &str| match reached {
        Some(reached) => println!("{what:<44} {:>5.1} %, aim {aim}", 100.0 * reached),
        None => println!("{what:<44} not measured, aim {aim}"),
    };
    for (i, (name, aim)) in ["a step", "a decode"].into_iter().zip(AIMS.0).enumerate() {
        let part = theirs.map(|theirs| ours.seconds[i].cpu / theirs[i].cpu);
        line(&format!("{name}'s part of onnxruntime's processor time"), part, &format!("at most {:.0}", 100.0 * aim));
    }
    let reached = peak.map(|peak| ours.kinds.share_of_peak(peak));
    line("a step's part of the int8 peak", reached, &format!("at least {:.0}", 100.0 * AIMS.1));
}

/// Seconds on the clock, and of all threads.
#[derive(Debug, Clone, Copy, Default)]
struct Seconds {
    wall: f64,
    cpu: f64,
}

impl Seconds {
    const MOST: Seconds = Seconds { wall: f64::INFINITY, cpu: f64::INFINITY };

    /// The lesser of each.
    fn least(self, other: Seconds) -> Seconds {
        Seconds { wall: self.wall.min(other.wall), cpu: self.cpu.min(other.cpu) }
    }
}

/// Seconds since the program's start.
fn now() -> Seconds {
    static START: OnceLock<Instant> = OnceLock::new();
    Seconds { wall: START.get_or_init(Instant::now).elapsed().as_secs_f64(), cpu: cpu_time() }
}

/// What was measured while a picture was painted.
struct MeasuredPicture {
    /// Of the best step and of the decode.
    seconds: [Seconds; 2],
    /// Of all steps but the first.
    kinds: KindTable,
}

impl MeasuredPicture {
    /// The best of both pictures.
    fn or_better(self, other: MeasuredPicture) -> MeasuredPicture {
        let seconds = [0, 1].map(|i| self.seconds[i].least(other.seconds[i]));
        MeasuredPicture { seconds, kinds: self.kinds.or_better(other.kinds) }
    }
}

/// The model, and the picture that is painted.
fn open(model: &Path, options: Options) -> Result<(Engine, Painting)> {
    let resolver = Resolver::open(Source::Folder(model.to_owned()))?;
    let engine = Engine::open(Source::Folder(model.to_owned()), options)?;
    let request = Request { prompt: "a red house".into(), steps: Some(STEPS), ..Request::default() };
    Ok((engine, resolver.resolve(&request, None)?))
}

/// Paints one picture.
fn paint(model: &Path, options: Options) -> Result<MeasuredPicture> {
    let (mut engine, painting) = open(model, options)?;
    let mut clock = Clock(vec![]);
    kinds::begin();
    engine.paint(&painting, Start::Noise, &mut clock)?;
    let end = now();
    let steps: Vec<Seconds> = clock.0.iter().filter(|(stage, ..)| *stage == Stage::Unet).map(|r| r.2).collect();
    let spent = |from: &Seconds, to: &Seconds| Seconds { wall: to.wall - from.wall, cpu: to.cpu - from.cpu };
    let counted = steps.get(1..).context("no steps")?;
    ensure!(counted.len() > 1, "{} steps", steps.len());
    let step = counted.windows(2).map(|pair| spent(&pair[0], &pair[1])).fold(Seconds::MOST, Seconds::least);
    let decode = clock.0.iter().find(|(stage, ..)| *stage == Stage::VaeDecoder).context("no decode")?.2;
    Ok(MeasuredPicture { seconds: [step, spent(&decode, &end)], kinds: KindTable::of_steps(counted) })
}

/// The time when each stage and each step begins.
struct Clock(Vec<(Stage, usize, Seconds)>);

impl Observer for Clock {
    fn tick(&mut self, progress: PaintingProgress) {
        let PaintingProgress { stage, step, .. } = progress;
        if self.0.last().is_none_or(|last| (last.0, last.1) != (stage, step)) {
            self.0.push((stage, step, now()));
        }
    }

    fn memory_freed(&mut self) {
        diffused_heap::trim();
    }
}
