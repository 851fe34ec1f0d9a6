//! Stable Diffusion on the CPU in little memory: synchronous, no network, no clock, no environment.
//!
//! `Resolver` turns a request into a `Painting`, `Engine` paints it; `pipeline` has the stages in their order.

#![warn(clippy::unwrap_used)]

pub mod bundle;
pub mod byte_size;
mod cancel;
mod checkpoint;
mod conditioning;
pub mod error;
mod graph;
pub mod hash;
mod held;
pub mod hires;
pub mod inpainting;
pub mod latents;
pub mod layer;
pub mod layer_kinds;
pub mod layer_onnx;
pub mod memory_plan;
mod models;
pub mod network;
pub mod noise;
mod ops;
pub mod parameters;
pub mod picture;
mod pipeline;
mod preview;
pub mod prompt;
pub mod quantized;
pub mod request;
mod resolver;
pub mod sampler;
mod strips;
pub mod text_encoder;
pub mod tokenizer;
pub mod unet;
mod unet_calls;
mod unicode;
pub mod upscaler;
pub mod vae;
mod warning;
pub mod weights;

use std::num::NonZero;

use image::RgbImage;

use bundle::Manifest;
pub use bundle::{Bundle, Source};
use checkpoint::Origin;
pub use checkpoint::StepCheckpoint;
use conditioning::Conditioning;
pub use diffused_kernels::{cpu, peak};
use error::{Error, Result};
#[doc(hidden)]
pub use graph::check_graph;
use layer_kinds::{LayerTrial, WorkByKind};
use memory_plan::{MemoryPlan, RunBudget, StageDemand};
use models::Models;
use pipeline::{Pipeline, Tracker};
use quantized::QuantizedValues;
use request::{Observer, Stage, Start};
pub use resolver::{Painting, Resolver};
use text_encoder::Embeddings;
pub use warning::Warning;

/// How the engine may use the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Worker threads; `None`: one for each CPU.
    pub threads: Option<usize>,
    /// The most memory that the process may hold, bytes; `None`: weights stay in memory once they were read.
    pub memory: Option<u64>,
    /// What the program holds of it for other work than painting, bytes.
    pub beside: u64,
}

impl Options {
    /// How many worker threads there are.
    pub fn threads(&self) -> usize {
        self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, NonZero::get))
    }

    /// What the process takes of its memory beside images and weights, bytes.
    pub fn process(&self) -> u64 {
        memory_plan::process(self.threads()) + self.beside
    }
}

/// The work of a painting's stage.
#[derive(Debug, Clone, Copy)]
pub struct StageWork {
    /// The stage.
    pub stage: Stage,
    /// How often its network runs.
    pub runs: usize,
    /// What a run computes at most.
    pub of_run: WorkByKind,
}

/// A model that is ready to paint.
pub struct Engine {
    bundle: Bundle,
    options: Options,
    workers: rayon::ThreadPool,
    models: Models,
}

impl Engine {
    /// Opens a bundle: reads and checks what is small, no weights yet.
    pub fn open(source: Source, options: Options) -> Result<Engine> {
        Engine::of(Bundle::open(source)?, options)
    }

    /// The same, and `counts` counts the values that are quantized.
    pub fn open_counting(source: Source, options: Options, counts: QuantizedValues) -> Result<Engine> {
        Engine::of(Bundle { quantized: Some(counts), ..Bundle::open(source)? }, options)
    }

    fn of(bundle: Bundle, options: Options) -> Result<Engine> {
        let workers = rayon::ThreadPoolBuilder::new()
            .num_threads(options.threads())
            .thread_name(|index| format!("engine-{index}"))
            .build()
            .map_err(|error| Error::Internal(format!("no worker threads: {error}")))?;
        let models = Models::open(&bundle)?;
        Ok(Engine { bundle, options, workers, models })
    }

    /// Frees the weights and schedules that are kept from one image to the next.
    pub fn forget(&mut self) {
        self.models.forget();
    }

    /// The bundle's manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.bundle.manifest
    }

    /// SHA-256 of `bundle.json`, hexadecimal; since that lists the checksums of all files, it names the model.
    pub fn model_sha256(&self) -> &str {
        &self.bundle.sha256
    }

    /// How `painting` divides the memory.
    ///
    /// # Errors
    ///
    /// `OutOfMemory` where the budget is too small.
    pub fn plan(&mut self, painting: &Painting) -> Result<MemoryPlan> {
        let demands = self.models.demands(painting)?;
        memory_plan::plan(&demands, self.options.memory, self.options.process())
    }

    /// The smallest budget in which `painting` can be painted, bytes.
    pub fn smallest_budget(&mut self, painting: &Painting) -> Result<u64> {
        Ok(memory_plan::smallest(&self.models.demands(painting)?, self.options.process()))
    }

    /// What the UNet attends to at its call of this number, counted from 0.
    pub fn embeddings(&mut self, painting: &Painting, call: usize) -> Result<Option<Embeddings>> {
        let encoder = &mut self.models.text_encoder;
        let encode = || Conditioning::encode(&painting.prompts, encoder, RunBudget::streamed(), &mut |_| {});
        Ok(self.workers.install(encode)?.at(call))
    }

    /// Multiply-adds of all products in `painting`, every call of the UNet included.
    pub fn work(&mut self, painting: &Painting) -> Result<u64> {
        Ok(self.models.demands(painting)?.iter().map(StageDemand::work).sum())
    }

    /// The same by the layers' kinds, for each stage in order.
    pub fn work_by_kind(&mut self, painting: &Painting) -> Result<Vec<StageWork>> {
        let of = |of: &StageDemand| StageWork { stage: of.stage, runs: of.macs.len(), of_run: of.demand.work };
        Ok(self.models.demands(painting)?.iter().map(of).collect())
    }

    /// Runs a layer once on the worker threads.
    pub fn run_layer(&self, trial: &mut LayerTrial) {
        self.workers.install(|| (trial.run)());
    }

    /// Paints `painting` from `start`, calling `observer` at each layer and step.
    ///
    /// # Errors
    ///
    /// `OutOfMemory`, `Cancelled`, `Checkpoint` where that is not one of this painting's, and `ModelCorrupt` or `Io`
    /// where weights cannot be read.
    pub fn paint(&mut self, painting: &Painting, start: Start, observer: &mut dyn Observer) -> Result<RgbImage> {
        let parameters = painting.parameters();
        let origin = Origin::new(self.model_sha256(), parameters);
        match &start {
            Start::Noise if parameters.strength.is_none() => {}
            Start::InitImage(_) if parameters.strength.is_some() && parameters.inpainting.is_none() => {}
            Start::Checkpoint(_) if parameters.inpainting.is_none() => {}
            Start::Masked { image, mask, .. } if parameters.inpainting.is_some() => {
                let painted = (parameters.width as u32, parameters.height as u32);
                if [image.dimensions(), mask.size()] != [painted; 2] {
                    return Err(Error::Internal("image and mask have another size than what is painted".into()));
                }
            }
            _ => {
                let message = "an init image and a mask belong to a request that was resolved with them";
                return Err(Error::Internal(message.into()));
            }
        }
        if let Some(checkpoint) = start.checkpoint() {
            let pass = checkpoint.pass();
            let sampler = painting.sampler(pass).filter(|_| painting.calls_before(pass) == checkpoint.earlier);
            checkpoint.check(origin, sampler, self.models.latents(painting.size(pass)))?;
            painting.check_start(checkpoint)?;
        }
        let plan = self.plan(painting)?;
        match plan.keeps_all {
            true => self.models.forget_others(&plan, painting.parameters().decoder),
            false => self.models.forget(),
        }
        observer.memory_freed();
        cancel::watch(&self.workers, &observer.cancel_flag());
        let tracker = Tracker::new(painting, plan.work(), observer);
        let mut pipeline = Pipeline { models: &mut self.models, painting, plan: &plan, origin, tracker };
        self.workers.install(|| pipeline.run(start))
    }
}
