//! What is saved by work that is left out (`guidance_interval`, `cache_interval`), and what it costs: the table of
//! docs/performance.md.
//!
//! Multiply-adds and processor time are those of Stable Diffusion 1.5 (made under `target/` with random weights, or
//! `--model BUNDLE`): of a picture of 512×512 in 20 steps, and of painting one of 256×256 in 12. How near the pictures are to
//! the exact ones, and whether they show what their prompts say, is the demo model's. `--rounds N` takes the least of so many
//! times; `--smoke` takes the demo model for all, and three of its prompts.

#[path = "../../tests/scenes/caption.rs"]
#[allow(dead_code, reason = "the test of the scenes uses the rest")]
mod caption;
#[path = "../cpu.rs"]
mod cpu;
#[path = "../../tests/scenes/measure.rs"]
mod measure;
#[path = "../memory/model.rs"]
#[allow(dead_code, reason = "the memory bench uses the rest")]
mod model;
#[path = "../../tests/scenes/painted.rs"]
mod painted;
#[path = "../../tests/scenes/shapes.rs"]
mod shapes;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use diffused_engine::request::{NoObserver, Request, Start};
use diffused_engine::{Engine, Options, Painting, Resolver, Source};
use image::RgbImage;

use caption::Scene;
use cpu::cpu_time;
use measure::measure;
use painted::{LessWork, paint};

/// What is left out, row by row; nothing first.
const ROWS: [LessWork; 6] = [
    less(None, None),
    less(Some([0.2, 0.9]), None),
    less(None, Some(2)),
    less(None, Some(3)),
    less(None, Some(5)),
    less(Some([0.0, 0.8]), Some(2)),
];

/// Bytes in which all weights stay in memory.
const MEMORY: u64 = 2 << 30;

const fn less(guidance_interval: Option<[f64; 2]>, cache_interval: Option<usize>) -> LessWork {
    LessWork { guidance_interval, cache_interval }
}

/// The command line.
struct LessWorkOptions {
    smoke: bool,
    rounds: usize,
    model: Option<PathBuf>,
}

impl LessWorkOptions {
    fn parse() -> Result<LessWorkOptions> {
        let mut options = LessWorkOptions { smoke: false, rounds: 1, model: None };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} takes a value"));
            match word.as_str() {
                "--smoke" => options.smoke = true,
                "--rounds" => options.rounds = value()?.parse().context("--rounds")?,
                "--model" => options.model = Some(value()?.into()),
                _ => {}
            }
        }
        Ok(options)
    }
}

/// What a picture costs.
struct TimedModel {
    resolver: Resolver,
    engine: Engine,
    smoke: bool,
}

impl TimedModel {
    fn open(model: &Path, smoke: bool) -> Result<TimedModel> {
        let source = || Source::Folder(model.to_owned());
        let options = Options { threads: None, memory: Some(MEMORY), beside: 0 };
        Ok(TimedModel { resolver: Resolver::open(source())?, engine: Engine::open(source(), options)?, smoke })
    }

    fn resolve(
        &self,
        side: usize,
        steps: usize,
        LessWork { guidance_interval, cache_interval }: LessWork,
    ) -> Result<Painting> {
        let side = Some(if self.smoke { 64 } else { side });
        let request = Request {
            prompt: "a red house".into(),
            width: side,
            height: side,
            steps: Some(steps),
            guidance_interval,
            cache_interval,
            ..Request::default()
        };
        Ok(self.resolver.resolve(&request, None)?)
    }

    /// Multiply-adds of a picture.
    fn work(&mut self, less: LessWork) -> Result<f64> {
        let painting = self.resolve(512, 20, less)?;
        Ok(self.engine.work(&painting)? as f64)
    }

    /// Processor time of painting, seconds.
    fn time(&mut self, less: LessWork) -> Result<f64> {
        let painting = self.resolve(256, 12, less)?;
        let before = cpu_time();
        self.engine.paint(&painting, Start::Noise, &mut NoObserver)?;
        Ok(cpu_time() - before)
    }
}

fn main() -> Result<()> {
    let options = LessWorkOptions::parse()?;
    let mut model = TimedModel::open(&model::chosen(options.model.as_deref(), options.smoke)?, options.smoke)?;
    let works = ROWS.map(|less| model.work(less)).into_iter().collect::<Result<Vec<f64>>>()?;
    // The first picture also reads the weights.
    model.time(ROWS[0])?;
    let mut times = [f64::INFINITY; ROWS.len()];
    for _ in 0..options.rounds {
        for (time, less) in times.iter_mut().zip(ROWS) {
            *time = time.min(model.time(less)?);
        }
    }
    println!("| | Multiply-adds | Processor time | PSNR | Prompts obeyed |\n|---|---|---|---|---|");
    let count = if options.smoke { 3 } else { usize::MAX };
    let mut exact = vec![];
    for ((less, work), time) in ROWS.into_iter().zip(&works).zip(times) {
        let pictures = paint(less, count);
        let obeyed = pictures.iter().filter(|(prompt, image)| measure(image) == Scene::from_caption(prompt)).count();
        let near = median(pictures.iter().zip(&exact).map(|((_, image), (_, exact))| psnr(image, exact)).collect());
        let (work, time) = (work / works[0], time / times[0]);
        let shown = near.map_or(String::new(), |near| format!("{near:.1} dB"));
        println!("| {} | {work:.2} | {time:.2} | {shown} | {obeyed} of {} |", name(less), pictures.len());
        ensure!(exact.is_empty() || (work < 1.0 && near.is_some_and(f64::is_finite)), "{less:?} leaves out nothing");
        if exact.is_empty() {
            exact = pictures;
        }
    }
    Ok(())
}

/// A row's name, as in requests.
fn name(LessWork { guidance_interval, cache_interval }: LessWork) -> String {
    let guidance = guidance_interval.map(|[from, to]| format!("`guidance_interval` {from},{to}"));
    let cache = cache_interval.map(|calls| format!("`cache_interval` {calls}"));
    let named: Vec<String> = guidance.into_iter().chain(cache).collect();
    if named.is_empty() { "nothing left out".to_owned() } else { named.join(" and ") }
}

/// Peak signal to noise ratio, decibels.
fn psnr(image: &RgbImage, exact: &RgbImage) -> f64 {
    let squares = image.as_raw().iter().zip(exact.as_raw()).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2));
    10.0 * (255f64.powi(2) * exact.as_raw().len() as f64 / squares.sum::<f64>()).log10()
}

/// The middle one, or of an even number the mean of both; `None` of none.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (lower, upper) = (values.len().checked_sub(1)? / 2, values.len() / 2);
    Some((values[lower] + values[upper]) / 2.0)
}
