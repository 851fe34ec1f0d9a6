//! Stable Diffusion on the CPU in little memory: synchronous, no network, no clock, no environment.
//!
//! `Resolver` turns a request into a `Painting`, `Engine` paints it. The pipeline on one page is `Pipeline`: prompt →
//! embeddings, (init image → latents,) noise → latents step by step, latents → pixels. Everything is done in the order
//! in which diffusers' `StableDiffusionPipeline` and `StableDiffusionImg2ImgPipeline` do it, noise draws included, so
//! that a seed gives the image that it gives there.

#![warn(clippy::unwrap_used)]

pub mod bundle;
pub mod byte_size;
mod cancel;
mod checkpoint;
pub mod error;
mod graph;
pub mod hash;
pub mod inpainting;
pub mod latents;
pub mod layer;
pub mod layer_onnx;
pub mod memory_plan;
mod models;
pub mod network;
pub mod noise;
mod ops;
pub mod parameters;
pub mod picture;
pub mod quantized;
pub mod request;
mod resolver;
pub mod sampler;
mod strips;
pub mod text_encoder;
pub mod tokenizer;
pub mod unet;
pub mod vae;
mod warning;
pub mod weights;

use std::num::NonZero;

use image::RgbImage;

use bundle::Manifest;
pub use bundle::{Bundle, Source};
use checkpoint::Origin;
pub use checkpoint::StepCheckpoint;
pub use diffused_kernels::cpu;
use error::{Error, Result};
#[doc(hidden)]
pub use graph::check_graph;
use inpainting::MaskedImage;
use latents::Latents;
use memory_plan::MemoryPlan;
use models::Models;
use noise::Noise;
use quantized::QuantizedValues;
use request::{Observer, Parameters, Stage, Start};
pub use resolver::{Painting, Resolver};
use text_encoder::Embeddings;
use vae::{COLOURS, Moments};
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

    /// Frees the weights that are kept from one image to the next.
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
        let demands = self.models.demands(painting.parameters())?;
        memory_plan::plan(&demands, self.options.memory, self.options.process())
    }

    /// The smallest budget in which `painting` can be painted, bytes.
    pub fn smallest_budget(&mut self, painting: &Painting) -> Result<u64> {
        Ok(memory_plan::smallest(&self.models.demands(painting.parameters())?, self.options.process()))
    }

    /// Multiply-adds of all products in `painting`, every call of the UNet included.
    pub fn work(&mut self, painting: &Painting) -> Result<u64> {
        let demands = self.models.demands(painting.parameters())?;
        let runs = |stage: Stage| if stage == Stage::Unet { painting.calls() as u64 } else { 1 };
        Ok(demands.iter().map(|(stage, demand)| runs(*stage) * demand.macs).sum())
    }

    /// Paints `painting` from `start`, calling `observer` after each layer and step.
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
            Start::InitImage(_) if parameters.strength.is_some() => {}
            Start::Checkpoint(checkpoint) => {
                checkpoint.check(origin, &painting.sampler, self.models.latents(parameters))?;
            }
            Start::Noise | Start::InitImage(_) => {
                let message = "an init image belongs to a request that was resolved with its size";
                return Err(Error::Internal(message.into()));
            }
        }
        let plan = self.plan(painting)?;
        if !plan.keeps_all {
            self.models.forget();
        }
        observer.memory_freed();
        cancel::watch(&self.workers, &observer.cancel_flag());
        let mut pipeline = Pipeline { models: &mut self.models, painting, plan: &plan, origin, observer };
        self.workers.install(|| pipeline.run(start))
    }
}

/// A painting on its way through the stages.
struct Pipeline<'a> {
    models: &'a mut Models,
    painting: &'a Painting,
    plan: &'a MemoryPlan,
    origin: Origin,
    observer: &'a mut dyn Observer,
}

impl Pipeline<'_> {
    /// The image.
    fn run(&mut self, start: Start) -> Result<RgbImage> {
        let embeddings = self.embed()?;
        self.stage_ended();
        let masked = self.masked_image()?;
        let state = match start {
            Start::Checkpoint(checkpoint) => checkpoint,
            Start::InitImage(image) if !self.starts_from_noise() => self.image_state(image)?,
            Start::Noise | Start::InitImage(_) => self.noise_state(),
        };
        self.stage_ended();
        let latents = self.denoise(state, embeddings, masked)?;
        self.stage_ended();
        let budget = self.plan.budget(Stage::VaeDecoder)?;
        let Parameters { width, height, decoder, .. } = *self.painting.parameters();
        let decoder = self.models.decoder(decoder)?;
        let pixels = decoder.decode(&latents, budget, &mut layers(Stage::VaeDecoder, self.observer))?;
        picture::to_image(&pixels, width, height)
    }

    /// A stage frees its activations, and, where they do not stay from one image to the next, its weights.
    fn stage_ended(&mut self) {
        if !self.plan.keeps_all {
            self.observer.memory_freed();
        }
    }

    /// The prompts' embeddings.
    fn embed(&mut self) -> Result<Embeddings> {
        let budget = self.plan.budget(Stage::TextEncoder)?;
        let mut tick = layers(Stage::TextEncoder, self.observer);
        self.models.text_encoder.encode(&self.painting.prompts, budget, &mut tick)
    }

    /// The beginning of text to image.
    fn noise_state(&self) -> StepCheckpoint {
        let parameters = self.painting.parameters();
        let mut noise = Noise::new(parameters.seed);
        let latents = self.draw(&mut noise);
        self.skip_masked_image(&mut noise);
        let values = self.painting.sampler.noise_latents(&latents.values);
        StepCheckpoint::new(self.origin, Latents { values, ..latents }, noise)
    }

    /// The beginning of image to image: the encoder's distribution is sampled before noise is added.
    fn image_state(&mut self, image: RgbImage) -> Result<StepCheckpoint> {
        let Parameters { width, height, seed, .. } = *self.painting.parameters();
        let moments = self.encode(picture::to_pixels(&picture::scale(image, width, height)))?;
        let mut noise = Noise::new(seed);
        let latents = moments.sample(|| self.draw(&mut noise).values);
        let values = self.painting.sampler.image_latents(&latents.values, &self.draw(&mut noise).values);
        self.skip_masked_image(&mut noise);
        Ok(StepCheckpoint::new(self.origin, Latents { values, ..latents }, noise))
    }

    /// What an inpainting model sees beside the latents: without a mask everything is repainted, and the masked image
    /// is grey. Its distribution is sampled last, as `StableDiffusionInpaintPipeline` does, and again where a painting
    /// goes on from a checkpoint.
    fn masked_image(&mut self) -> Result<Option<MaskedImage>> {
        let Parameters { width, height, seed, .. } = *self.painting.parameters();
        if !self.models.manifest.picture.inpainting {
            return Ok(None);
        }
        let moments = self.encode(vec![0.0; width * height * COLOURS])?;
        let mut noise = Noise::new(seed);
        let before = if self.starts_from_noise() { 1 } else { 1 + usize::from(moments.is_drawn()) };
        (0..before).for_each(|_| drop(self.draw(&mut noise)));
        Ok(Some(MaskedImage::everything(moments.sample(|| self.draw(&mut noise).values))))
    }

    /// Passes over what `masked_image` draws.
    fn skip_masked_image(&self, noise: &mut Noise) {
        if self.models.manifest.picture.inpainting && self.models.draws(self.painting.parameters().decoder) {
            drop(self.draw(noise));
        }
    }

    /// Whether the latents are noise alone at the beginning. Of an inpainting model they are also where an init image
    /// is to be repainted altogether.
    fn starts_from_noise(&self) -> bool {
        let Parameters { strength, .. } = *self.painting.parameters();
        strength.is_none_or(|strength| self.models.manifest.picture.inpainting && strength >= 1.0)
    }

    /// Noise of the latents' size.
    fn draw(&self, noise: &mut Noise) -> Latents {
        Latents::noise(noise, self.models.latents(self.painting.parameters()))
    }

    /// The distribution of an image's latents; pixels are from -1 to 1.
    fn encode(&mut self, pixels: Vec<f32>) -> Result<Moments> {
        let Parameters { width, height, decoder, .. } = *self.painting.parameters();
        let budget = self.plan.budget(Stage::VaeEncoder)?;
        let mut tick = layers(Stage::VaeEncoder, self.observer);
        self.models.encoder(decoder)?.encode(pixels, (width, height), budget, &mut tick)
    }

    /// Runs the UNet once for each of the sampler's timesteps that are left.
    fn denoise(
        &mut self,
        mut state: StepCheckpoint,
        embeddings: Embeddings,
        masked: Option<MaskedImage>,
    ) -> Result<Latents> {
        let sampler = &self.painting.sampler;
        let (calls, guidance) = (sampler.timesteps().len(), self.painting.parameters().cfg_scale);
        let budget = self.plan.budget(Stage::Unet)?;
        let Latents { height, width, channels, .. } = state.latents;
        let (latents, left) = (&state.latents, calls - state.calls());
        let mut unet = self.models.unet.start(latents, embeddings, masked, guidance, left, budget)?;
        for index in state.calls()..calls {
            let input = Latents { values: sampler.model_input(index, &state.latents.values), ..state.latents };
            let mut tick = |_, _| self.observer.tick(Stage::Unet, index, calls);
            let output = unet.predict(&input, sampler.timesteps()[index], &mut tick)?;
            let mut draw = || Latents::noise(&mut state.noise, (height, width, channels)).values;
            state.latents.values = sampler.step(&mut state.history, output, &state.latents.values, &mut draw);
            check_finite(&state.latents, index + 1, calls)?;
            self.observer.step_done(&state);
        }
        self.observer.tick(Stage::Unet, calls, calls);
        Ok(state.latents)
    }
}

/// A value that is not finite would become black pixels.
fn check_finite(latents: &Latents, step: usize, steps: usize) -> Result<()> {
    if latents.values.iter().all(|value| value.is_finite()) {
        return Ok(());
    }
    let cause = "this sampler does not work with the model's noise schedule and this number of steps";
    Err(Error::Internal(format!("the latents are not finite after step {step} of {steps}: {cause}")))
}

/// Reports each layer of `stage`.
fn layers(stage: Stage, observer: &mut dyn Observer) -> impl FnMut(usize, usize) {
    move |done, total| observer.tick(stage, done, total)
}
