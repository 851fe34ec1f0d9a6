//! Stable Diffusion on the CPU in little memory: synchronous, no network, no clock, no environment.
//!
//! The pipeline on one page is `Engine::paint`: prompt → embeddings, (init image → latents,) noise → latents step by
//! step, latents → pixels. Everything is done in the order in which diffusers' `StableDiffusionPipeline` and
//! `StableDiffusionImg2ImgPipeline` do it, noise draws included, so that a seed gives the picture that it gives there.

pub mod bundle;
pub mod error;
mod graph;
pub mod latents;
pub mod layer;
pub mod layer_onnx;
mod models;
pub mod network;
pub mod noise;
mod ops;
pub mod parameters;
pub mod plan;
pub mod request;
pub mod sampler;
mod source;
mod strips;
pub mod text_encoder;
pub mod tokenizer;
pub mod unet;
pub mod vae;
pub mod weights;

use std::ops::ControlFlow;

use bundle::Manifest;
use error::{Error, Result};
use models::Models;
use plan::MemoryPlan;
use request::{Observer, Parameters, Picture, Request, Stage};
pub use source::{Bundle, Source};

/// How the engine may use the machine.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Worker threads; `None`: one for each CPU.
    pub threads: Option<usize>,
    /// The most memory that the process may hold, bytes; `None`: weights stay in memory once they were read.
    pub memory: Option<u64>,
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
        let bundle = Bundle::open(source)?;
        let workers = rayon::ThreadPoolBuilder::new()
            .num_threads(options.threads.unwrap_or(0))
            .thread_name(|index| format!("engine-{index}"))
            .build()
            .map_err(|error| Error::Internal(format!("no worker threads: {error}")))?;
        let models = Models::open(&bundle)?;
        Ok(Engine { bundle, options, workers, models })
    }

    /// What the bundle says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.bundle.manifest
    }

    /// SHA-256 of `bundle.json`, hexadecimal; since that lists the checksums of all files, it names the model.
    pub fn model_sha256(&self) -> &str {
        &self.bundle.sha256
    }

    /// Fills in what `request` leaves open and checks the rest; paints nothing.
    pub fn resolve(&self, request: &Request) -> Result<Parameters> {
        parameters::resolve(request, &self.bundle.manifest)
    }

    /// How painting `parameters` divides the memory; `OutOfMemory` where the budget is too small.
    pub fn plan(&mut self, parameters: &Parameters) -> Result<MemoryPlan> {
        self.models.plan(parameters, self.options.memory)
    }

    /// Paints `request`, telling `observer` after each layer and step.
    pub fn generate(&mut self, request: &Request, observer: &mut dyn Observer) -> Result<Picture> {
        let parameters = self.resolve(request)?;
        let plan = self.plan(&parameters)?;
        let models = &mut self.models;
        let painted = self.workers.install(|| models.paint(request, parameters, &plan, observer));
        if !plan.keeps_all {
            models.forget();
        }
        painted
    }
}

impl Models {
    fn paint(&mut self, _: &Request, _: Parameters, _: &MemoryPlan, _: &mut dyn Observer) -> Result<Picture> {
        Err(Error::Internal("not yet".into()))
    }
}

/// Reports each layer of `stage`.
fn layers(stage: Stage, observer: &mut dyn Observer) -> impl FnMut(usize, usize) -> ControlFlow<()> {
    move |done, total| observer.tick(stage, done, total)
}
