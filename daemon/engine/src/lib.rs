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
pub mod network;
pub mod noise;
mod ops;
pub mod parameters;
pub mod request;
pub mod sampler;
mod source;
mod strips;
pub mod text_encoder;
pub mod unet;
pub mod vae;
pub mod weights;

use std::ops::ControlFlow;

use bundle::Manifest;
use error::{Error, Result};
use request::{Observer, Parameters, Picture, Request, Stage};
pub use source::{Bundle, Source};
use text_encoder::{Embeddings, TextEncoder};
use unet::Unet;
use vae::{VaeDecoder, VaeEncoder};
use weights::Residency;

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
        let models = Models::open(&bundle, &options)?;
        Ok(Engine { bundle, workers, models })
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

    /// Paints `request`, telling `observer` after each layer and step.
    pub fn generate(&mut self, request: &Request, observer: &mut dyn Observer) -> Result<Picture> {
        let parameters = self.resolve(request)?;
        let Engine { bundle, workers, models } = self;
        workers.install(|| models.paint(&bundle.manifest, request, parameters, observer))
    }
}

/// The networks and the tokenizer.
struct Models {
    text_encoder: TextEncoder,
    unet: Unet,
    decoder: VaeDecoder,
    encoder: VaeEncoder,
}

impl Models {
    fn open(bundle: &Bundle, options: &Options) -> Result<Models> {
        let residency = match options.memory {
            None => Residency::ample(),
            Some(_) => Residency::streamed(),
        };
        Ok(Models {
            text_encoder: TextEncoder::open(bundle, residency.clone())?,
            unet: Unet::open(bundle, residency.clone())?,
            decoder: VaeDecoder::open(bundle, residency.clone())?,
            encoder: VaeEncoder::open(bundle, residency.clone())?,
        })
    }

    fn paint(&mut self, _: &Manifest, _: &Request, _: Parameters, _: &mut dyn Observer) -> Result<Picture> {
        Err(Error::Internal("not yet".into()))
    }
}

/// Reports each layer of `stage`.
fn layers(stage: Stage, observer: &mut dyn Observer) -> impl FnMut(usize, usize) -> ControlFlow<()> {
    move |done, total| observer.tick(stage, done, total)
}
