//! `diffused bench`: how fast this board is: its kernels, its card, and what a picture takes. What it prints is made to be
//! sent in.
//!
//! A step of Stable Diffusion takes minutes on a small board, so that one layer of each kind is timed, and a step reckoned
//! from how much of each kind it has. One step of the model itself, as large as a minute allows, shows how far that is
//! right.

use std::path::Path;
use std::time::Instant;

use diffused_engine::layer_kinds::{WORK_KINDS, WorkKind};
use diffused_engine::request::{Request, Stage, Start};
use diffused_engine::{Engine, Options, Resolver, cpu};

use crate::budget;
use crate::commands::cli::{BenchArgs, print_line};
use crate::config::Config;
use crate::failure::Failure;
use crate::health::TemperatureSensor;
use crate::painting::model::Model;
use clock::{PaintClock, layer_rate, peak_rate};
use report::{BenchReport, Board, Heat, LayerRate, PaintedImage, PaintingTime};

mod clock;
mod report;
mod shapes;

/// Seconds that an image may be expected to take for it to be painted.
const LONGEST: f64 = 60.0;
/// Steps of an image that is painted.
const STEPS: usize = 2;

/// Measures, and prints a table or JSON.
pub fn run(arguments: &BenchArgs) -> Result<(), Failure> {
    crate::logging::start("error");
    let begin = Instant::now();
    let config = Config::load(arguments.file.config.as_deref());
    let config = config.map_err(|error| Failure::Usage(format!("{error:#}")))?;
    let folder = arguments.model.as_deref().or(config.model.as_deref());
    let threads = arguments.threads.map(usize::from).or(config.threads.map(|threads| threads.0 as usize));
    let options = Options { threads, memory: budget::or_free(config.memory), beside: 0 };
    let model = Model::new(folder, options)?;
    let (resolver, mut engine) = (model.resolver()?, model.open()?);
    let sensor = TemperatureSensor::find(config.temperature_file.as_deref());
    let before = Heat::now(&sensor);
    let peak = peak_rate();
    let layers = layer_rates(&engine);
    let reading = folder.and_then(read_rate);
    let rates = report::rates(&layers);
    let mut pictures: Vec<PaintingTime> = shapes::all().iter().map(|shape| shape.time(&rates)).collect();
    let own = Measurement { resolver: &resolver, engine: &mut engine, rates, reading };
    let own = own.all()?;
    pictures.push(own.expected);
    let report = BenchReport {
        version: env!("CARGO_PKG_VERSION"),
        board: Board::of(Path::new("/"), cpu::describe(), options.threads()),
        before,
        after: Heat::now(&sensor),
        peak_gops: peak,
        layers,
        reading_mb_per_second: reading.map(|rate| report::rounded(rate / 1e6)),
        expected: pictures,
        painted: own.painted,
        seconds: report::rounded(begin.elapsed().as_secs_f64()),
    };
    match arguments.json {
        true => print_line(serde_json::to_string(&report).unwrap_or_default()),
        false => print_line(&report),
    }
    Ok(())
}

/// One layer of each kind.
fn layer_rates(engine: &Engine) -> Vec<LayerRate> {
    WorkKind::ALL.into_iter().map(|kind| layer_rate(engine, kind)).collect()
}

/// Bytes a second of the weights in `folder`.
fn read_rate(folder: &Path) -> Option<f64> {
    super::doctor::read_rate(&folder.join("unet.weights")).ok()
}

/// What is known and measured of the model.
struct Measurement<'a> {
    resolver: &'a Resolver,
    engine: &'a mut Engine,
    /// Multiply-adds a second of each kind of layers.
    rates: [f64; WORK_KINDS],
    /// Bytes a second of its weights.
    reading: Option<f64>,
}

/// An image as it is reckoned, and one that was painted beside what was reckoned for it.
struct OwnTimes {
    expected: PaintingTime,
    painted: Option<PaintedImage>,
}

impl Measurement<'_> {
    fn all(mut self) -> Result<OwnTimes, Failure> {
        let sizes = &self.resolver.manifest().picture;
        let (default, smallest) = (sizes.default, sizes.smallest);
        let expected = self.expected(&request(default, None))?;
        for side in [default, smallest] {
            let request = request(side, Some(STEPS));
            let reckoned = self.expected(&request)?;
            if reckoned.total_seconds <= LONGEST {
                let painted = PaintedImage { measured: self.paint(&request)?, reckoned };
                return Ok(OwnTimes { expected, painted: Some(painted) });
            }
        }
        Ok(OwnTimes { expected, painted: None })
    }

    /// What an image would take.
    fn expected(&mut self, request: &Request) -> Result<PaintingTime, Failure> {
        let painting = self.resolver.resolve(request, None)?;
        let parameters = painting.parameters();
        let streamed = self.engine.plan(&painting)?.stages.into_iter().find(|plan| plan.stage == Stage::Unet);
        let streamed = streamed.map_or(0, |plan| plan.streamed);
        // Weights are read while others are computed with.
        let read = self.reading.map_or(0.0, |rate| streamed as f64 / rate);
        let work = self.engine.work_by_kind(&painting)?;
        let seconds = |stage: Stage| {
            let of_stage = work.iter().filter(|work| work.stage == stage);
            of_stage.map(|work| work.runs as f64 * work.of_run.seconds(&self.rates)).sum::<f64>()
        };
        let step = (seconds(Stage::Unet) / painting.calls() as f64).max(read);
        let decode = seconds(Stage::VaeDecoder);
        let total = seconds(Stage::TextEncoder) + step * painting.calls() as f64 + decode;
        let name = self.resolver.manifest().name.clone();
        Ok(PaintingTime::new(name, parameters.size(), painting.calls(), [step, decode, total]))
    }

    /// What an image takes.
    fn paint(&mut self, request: &Request) -> Result<PaintingTime, Failure> {
        let painting = self.resolver.resolve(request, None)?;
        let mut clock = PaintClock::start();
        self.engine.paint(&painting, Start::Noise, &mut clock)?;
        let (step, timings) = clock.times();
        let name = self.resolver.manifest().name.clone();
        let seconds = [step, timings.vae_decoder, timings.total];
        Ok(PaintingTime::new(name, painting.parameters().size(), painting.calls(), seconds))
    }
}

fn request(side: usize, steps: Option<usize>) -> Request {
    let side = Some(side);
    Request { prompt: "a red house".into(), width: side, height: side, steps, ..Request::default() }
}
