//! A sampling step and a VAE decode of Stable Diffusion 1.5 at 512×512 with guidance, in little memory and in much.
//!
//! `cargo bench --bench step` makes a bundle of the true shapes with random weights under `target/` (or takes `--model BUNDLE`);
//! `--threads N`; `--budget MIB` instead of 200 and 2048; `--tract` adds what the same layers cost in f32 with tract's own
//! operators; `--smoke` paints the demo model, in seconds. `wall` wants a machine that does nothing else; `cpu` is the time of
//! all threads and hardly minds. `benches/onnxruntime.py` measures onnxruntime beside it. What a picture of other families
//! takes, each at its own number of steps (smallest budget, seconds, multiply-adds), `--bench memory -- families` prints.

mod layers;
#[path = "../memory/model.rs"]
#[allow(dead_code, reason = "the memory bench uses the rest")]
mod model;
#[path = "../kernels/tract.rs"]
mod tract;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use diffused as _;
use diffused_engine::request::{Observer, PaintingProgress, Request, Stage, Start};
use diffused_engine::{Engine, Options, Resolver, Source};

/// Steps of a picture; the first one also reads the weights and is not counted.
const STEPS: usize = 4;

fn main() -> Result<()> {
    diffused_heap::configure_malloc();
    let (mut smoke, mut tract, mut model, mut threads, mut budgets) = (false, false, None, None, vec![200, 2048]);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number =
            || words.next().and_then(|word| word.parse().ok()).with_context(|| format!("{word}: a number?"));
        match word.as_str() {
            "--smoke" => smoke = true,
            "--tract" => tract = true,
            "--threads" => threads = Some(number()?),
            "--budget" => budgets = vec![number()?],
            "--model" => model = Some(PathBuf::from(words.next().context("--model takes a bundle")?)),
            _ => {}
        }
    }
    let model = match model {
        Some(model) => model,
        None if smoke => model::demo(),
        None => model::sd15(Path::new(env!("CARGO_TARGET_TMPDIR")))?,
    };
    println!("{:>8} {:>10} {:>6} {:>10} {:>6}   seconds", "budget", "step wall", "cpu", "decode wall", "cpu");
    let mut ours = None;
    for budget in budgets {
        let options = Options { threads, memory: Some((budget as u64) << 20), beside: 0 };
        let [step, decode] = paint(&model, options)?;
        println!("{budget:>5}MiB {:>10.2} {:>6.2} {:>11.2} {:>6.2}", step.wall, step.cpu, decode.wall, decode.cpu);
        ours = Some([step.cpu, decode.cpu]);
    }
    if let (Some(ours), true) = (ours, tract || smoke) {
        let tract = if smoke { layers::smoke() } else { layers::sd15() };
        println!("tract f32 (products and attention alone): step cpu {:.2}, decode cpu {:.2}", tract[0], tract[1]);
        println!("times ours: step {:.1}, decode {:.1}", tract[0] / ours[0], tract[1] / ours[1]);
    }
    Ok(())
}

/// Seconds.
#[derive(Debug, Clone, Copy)]
struct Seconds {
    wall: f64,
    cpu: f64,
}

/// The best step and the decode of one picture.
fn paint(model: &Path, options: Options) -> Result<[Seconds; 2]> {
    let resolver = Resolver::open(Source::Folder(model.to_owned()))?;
    let mut engine = Engine::open(Source::Folder(model.to_owned()), options)?;
    let request = Request { prompt: "a red house".into(), steps: Some(STEPS), ..Request::default() };
    let painting = resolver.resolve(&request, None)?;
    let mut clock = Clock { started: Instant::now(), readings: vec![] };
    engine.paint(&painting, Start::Noise, &mut clock)?;
    let end = clock.read();
    let steps: Vec<Seconds> = clock.readings.iter().filter(|(stage, ..)| *stage == Stage::Unet).map(|r| r.2).collect();
    let spent = |from: &Seconds, to: &Seconds| Seconds { wall: to.wall - from.wall, cpu: to.cpu - from.cpu };
    let step = steps
        .windows(2)
        .skip(1)
        .map(|pair| spent(&pair[0], &pair[1]))
        .reduce(|a, b| Seconds { wall: a.wall.min(b.wall), cpu: a.cpu.min(b.cpu) });
    let decode = clock.readings.iter().find(|(stage, ..)| *stage == Stage::VaeDecoder).context("no decode")?.2;
    Ok([step.context("no steps")?, spent(&decode, &end)])
}

/// Reads the time when a stage or a step begins.
struct Clock {
    started: Instant,
    readings: Vec<(Stage, usize, Seconds)>,
}

impl Clock {
    fn read(&self) -> Seconds {
        Seconds { wall: self.started.elapsed().as_secs_f64(), cpu: cpu_time() }
    }
}

impl Observer for Clock {
    fn tick(&mut self, progress: PaintingProgress) {
        let PaintingProgress { stage, step, .. } = progress;
        if self.readings.last().is_none_or(|last| (last.0, last.1) != (stage, step)) {
            self.readings.push((stage, step, self.read()));
        }
    }

    fn memory_freed(&mut self) {
        diffused_heap::trim();
    }
}

/// Seconds that all threads of this process have run, in the system's name too; hundredths on Linux.
fn cpu_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let fields = after_name.split_whitespace().skip(11).take(2);
    fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Numbers without a pattern that matters.
fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919 + i / 3) % 1999) as f32 / 999.5 - 1.0).collect()
}
