//! Stable Diffusion on the CPU in little memory: synchronous, no network, no clock, no environment.
//!
//! The pipeline on one page is `Job`: prompt → embeddings, (init image → latents,) noise → latents step by
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
pub mod picture;
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

use std::num::NonZero;
use std::ops::ControlFlow;

use image::RgbImage;

use bundle::Manifest;
pub use diffused_kernels::cpu;
pub use diffused_kernels::heap::Heap;
use error::{Error, Result};
use latents::Latents;
use models::Models;
use noise::Noise;
use plan::MemoryPlan;
use request::{Observer, Parameters, Picture, Request, Stage};
use sampler::Sampler;
pub use source::{Bundle, Source};
use text_encoder::Embeddings;

/// How the engine may use the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Worker threads; `None`: one for each CPU.
    pub threads: Option<usize>,
    /// The most memory that the process may hold, bytes; `None`: weights stay in memory once they were read.
    pub memory: Option<u64>,
}

impl Options {
    /// How many worker threads there are.
    pub fn threads(&self) -> usize {
        self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, NonZero::get))
    }

    /// What the process takes of its memory beside pictures and weights, bytes.
    pub fn process(&self) -> u64 {
        plan::process(self.threads())
    }
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
        diffused_kernels::heap::give_back_at_once();
        let bundle = Bundle::open(source)?;
        let workers = rayon::ThreadPoolBuilder::new()
            .num_threads(options.threads())
            .thread_name(|index| format!("engine-{index}"))
            .build()
            .map_err(|error| Error::Internal(format!("no worker threads: {error}")))?;
        let models = Models::open(&bundle)?;
        diffused_kernels::heap::trim();
        Ok(Engine { bundle, options, workers, models })
    }

    /// Gives back all that it holds.
    pub fn close(self) {
        drop(self);
        diffused_kernels::heap::trim();
    }

    /// Frees the weights that are kept from one picture to the next.
    pub fn forget(&mut self) {
        self.models.forget();
        diffused_kernels::heap::trim();
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
        let plan = plan::plan(&self.models.demands(parameters)?, self.options.memory, self.options.process());
        diffused_kernels::heap::trim();
        plan
    }

    /// The smallest budget in which `parameters` can be painted, bytes.
    pub fn smallest_budget(&mut self, parameters: &Parameters) -> Result<u64> {
        Ok(plan::smallest(&self.models.demands(parameters)?, self.options.process()))
    }

    /// Paints `request`, telling `observer` after each layer and step.
    pub fn generate(&mut self, request: &Request, observer: &mut dyn Observer) -> Result<Picture> {
        let parameters = self.resolve(request)?;
        let plan = self.plan(&parameters)?;
        if !plan.keeps_all {
            self.models.forget();
        }
        let mut job = Job {
            sampler: Sampler::new(
                parameters.sampler,
                &self.bundle.manifest.sampling,
                parameters.steps,
                parameters.strength,
            )?,
            noise: Noise::new(parameters.seed),
            models: &mut self.models,
            asked: &parameters,
            plan: &plan,
            observer,
        };
        let painted = self.workers.install(|| job.paint(request.init_image.as_ref()));
        diffused_kernels::heap::trim();
        Ok(Picture { image: painted?, parameters })
    }
}

/// One request on its way through the stages.
struct Job<'a> {
    models: &'a mut Models,
    asked: &'a Parameters,
    plan: &'a MemoryPlan,
    noise: Noise,
    sampler: Sampler,
    observer: &'a mut dyn Observer,
}

impl Job<'_> {
    /// The picture, from noise or from `init_image`.
    fn paint(&mut self, init_image: Option<&RgbImage>) -> Result<RgbImage> {
        let embeddings = self.embed()?;
        let latents = match init_image {
            Some(image) => self.start_from(image)?,
            None => self.start(),
        };
        let latents = self.denoise(latents, embeddings)?;
        let residency = self.plan.residency(Stage::VaeDecoder)?;
        let pixels = self.models.decoder.decode(&latents, residency, &mut layers(Stage::VaeDecoder, self.observer))?;
        picture::to_image(&pixels, self.asked.width, self.asked.height)
    }

    /// The prompt's embeddings; with guidance, the negative prompt's come first.
    fn embed(&mut self) -> Result<Embeddings> {
        let Parameters { prompt, negative_prompt, .. } = self.asked;
        let prompts = if self.models.guided(self.asked) { vec![negative_prompt, prompt] } else { vec![prompt] };
        let text = &self.models.manifest.text;
        let ids: Vec<_> = prompts.into_iter().map(|prompt| self.models.tokenizer.encode(prompt, text).ids).collect();
        let residency = self.plan.residency(Stage::TextEncoder)?;
        self.models.text_encoder.encode(&ids, residency, &mut layers(Stage::TextEncoder, self.observer))
    }

    /// The first latents of text to image.
    fn start(&mut self) -> Latents {
        let sizes = &self.models.manifest.picture;
        let (height, width) = (self.asked.height / sizes.factor, self.asked.width / sizes.factor);
        let noise = Latents::noise(&mut self.noise, (height, width, sizes.latent_channels));
        Latents { values: self.sampler.start(&noise.values), ..noise }
    }

    /// The first latents of image to image: the encoder's distribution is sampled before noise is added.
    fn start_from(&mut self, image: &RgbImage) -> Result<Latents> {
        let (width, height) = (self.asked.width, self.asked.height);
        let pixels = picture::to_pixels(&picture::scale(image.clone(), width, height));
        let residency = self.plan.residency(Stage::VaeEncoder)?;
        let mut tick = layers(Stage::VaeEncoder, self.observer);
        let moments = self.models.encoder.encode(pixels, (width, height), residency, &mut tick)?;
        let mut noise = || Latents::noise(&mut self.noise, moments.shape()).values;
        let latents = moments.sample(&noise());
        Ok(Latents { values: self.sampler.start_from(&latents.values, &noise()), ..latents })
    }

    /// Runs the UNet once for each of the sampler's timesteps.
    fn denoise(&mut self, mut latents: Latents, embeddings: Embeddings) -> Result<Latents> {
        let timesteps = self.sampler.timesteps().to_vec();
        let (calls, guidance) = (timesteps.len(), self.asked.cfg_scale);
        let residency = self.plan.residency(Stage::Unet)?;
        let Latents { height, width, channels, .. } = latents;
        let mut unet = self.models.unet.start(&latents, embeddings, guidance, calls, residency)?;
        for (index, timestep) in timesteps.into_iter().enumerate() {
            let input = Latents { values: self.sampler.model_input(index, &latents.values), ..latents };
            let mut tick = |_, _| self.observer.tick(Stage::Unet, index, calls);
            let output = unet.predict(&input, timestep, &mut tick)?;
            let mut noise = || Latents::noise(&mut self.noise, (height, width, channels)).values;
            self.sampler.step(index, output, &mut latents.values, &mut noise);
        }
        match self.observer.tick(Stage::Unet, calls, calls) {
            ControlFlow::Continue(()) => Ok(latents),
            ControlFlow::Break(()) => Err(Error::Cancelled),
        }
    }
}

/// Reports each layer of `stage`.
fn layers(stage: Stage, observer: &mut dyn Observer) -> impl FnMut(usize, usize) -> ControlFlow<()> {
    move |done, total| observer.tick(stage, done, total)
}
