//! A painting on its way through the stages: prompt → embeddings, (init image → latents,) noise → latents step by step,
//! latents → pixels (→ more pixels). Everything is done in the order in which diffusers' `StableDiffusionPipeline` and
//! `StableDiffusionImg2ImgPipeline` do it, noise draws included, so that a seed gives the image that it gives there.

mod enlarge;
mod inpaint;
mod previews;
mod tracker;

use image::RgbImage;

use crate::StepCheckpoint;
use crate::checkpoint::Origin;
use crate::conditioning::Conditioning;
use crate::error::{Error, Result};
use crate::hires::SamplingPass;
use crate::inpainting::{KeptLatents, MaskedImage};
use crate::latents::Latents;
use crate::memory_plan::{MemoryPlan, StagePlan};
use crate::models::Models;
use crate::network::Tick;
use crate::noise::Noise;
use crate::picture::{self, COLOURS};
use crate::request::{Parameters, Stage, Start};
use crate::resolver::Painting;
use crate::sampler::NoiseDraws;
use crate::unet::PlannedCalls;
use crate::vae::Moments;
use previews::PreviewMaker;
pub(crate) use tracker::Tracker;

/// A painting on its way through the stages.
pub(crate) struct Pipeline<'a> {
    pub(crate) models: &'a mut Models,
    pub(crate) painting: &'a Painting,
    pub(crate) plan: &'a MemoryPlan,
    pub(crate) origin: Origin,
    pub(crate) tracker: Tracker<'a>,
}

impl<'a> Pipeline<'a> {
    /// The image.
    pub(crate) fn run(&mut self, start: Start) -> Result<RgbImage> {
        self.skip(&start);
        let unmasked = self.unmasked(&start);
        self.find_colours()?;
        let conditionings = self.embed()?;
        self.stage_ended();
        let beginning = self.begin(start)?;
        self.stage_ended();
        let latents = self.sample(beginning, conditionings)?;
        self.stage_ended();
        let image = self.decode(self.painting.last_pass(), &latents)?;
        match self.painting.parameters().upscale {
            Some(factor) => {
                self.stage_ended();
                let image = match unmasked {
                    Some((whole, mask)) => mask.doubled().overlay(whole, &image),
                    None => image,
                };
                self.upscale(self.painting.last_pass(), &image, factor)
            }
            None => Ok(image),
        }
    }

    /// The latents after all steps.
    fn sample(&mut self, beginning: Beginning, conditionings: PassConditionings) -> Result<Latents> {
        let PassConditionings { mut first, hires: other } = conditionings;
        let painting = self.painting;
        let Some(hires) = &painting.parameters().hires else {
            return self.denoise(SamplingPass::First, beginning, &mut first);
        };
        if other.is_none() {
            first = first.kept();
        }
        let mut state = beginning.state;
        if state.pass().is_first() {
            let latents = self.denoise(SamplingPass::First, Beginning::of(state), &mut first)?;
            self.stage_ended();
            state = self.enlarge(latents, hires)?;
            self.stage_ended();
        }
        let mut conditioning = other.unwrap_or(first);
        self.denoise(SamplingPass::Hires, Beginning::of(state), &mut conditioning)
    }

    /// The image of a pass's latents.
    fn decode(&mut self, pass: SamplingPass, latents: &Latents) -> Result<RgbImage> {
        let plan = self.plan.stage(pass, Stage::VaeDecoder)?;
        let decoder = self.models.decoders.get(self.painting.parameters().decoder)?;
        let decode = |tick: &mut Tick| decoder.decode(latents, plan.budget.clone(), tick);
        let pixels = self.tracker.run(plan.stage, plan.macs_of(1), decode)?;
        let (width, height) = self.painting.size(pass);
        picture::to_image(&pixels, width, height)
    }

    /// `image`, as many times as wide and high.
    fn upscale(&mut self, pass: SamplingPass, image: &RgbImage, factor: usize) -> Result<RgbImage> {
        let plan = self.plan.stage(pass, Stage::Upscaler)?;
        let upscaler = self.models.upscaler()?;
        let upscale = |tick: &mut Tick| upscaler.upscale(image, factor, plan.budget.clone(), tick);
        self.tracker.run(plan.stage, plan.macs_of(1), upscale)
    }

    /// What is in a checkpoint was done before.
    fn skip(&mut self, start: &Start) {
        let Some(checkpoint) = start.checkpoint() else { return };
        let parameters = self.painting.parameters();
        // Images that are encoded again.
        let again = usize::from(self.models.manifest.picture.inpainting || parameters.inpainting.is_some());
        let (calls, pass) = (checkpoint.calls(), checkpoint.pass());
        let made = |plan: &StagePlan| match plan.stage {
            Stage::TextEncoder => 0,
            Stage::VaeEncoder if plan.pass.is_first() => plan.macs.len().saturating_sub(again),
            Stage::VaeEncoder if plan.pass == pass => plan.macs.len(),
            Stage::Unet if plan.pass == pass => calls - self.painting.calls_before(pass),
            _ if plan.stage != Stage::VaeEncoder && plan.pass.is_first() && !pass.is_first() => plan.macs.len(),
            Stage::VaeEncoder | Stage::Unet | Stage::VaeDecoder | Stage::Upscaler => 0,
        };
        let macs = self.plan.stages.iter().map(|plan| plan.macs_of(made(plan))).sum();
        self.tracker.skip(calls, macs);
    }

    /// A stage frees its activations, and, where they do not stay from one image to the next, its weights and schedules.
    fn stage_ended(&mut self) {
        if !self.plan.keeps_all {
            self.models.forget();
            diffused_kernels::release_scratch();
            self.tracker.observer.memory_freed();
        }
    }

    /// The prompts' embeddings.
    fn embed(&mut self) -> Result<PassConditionings<'a>> {
        let first = self.embed_for(SamplingPass::First)?;
        let hires = self.painting.has_other_prompts().then(|| self.embed_for(SamplingPass::Hires)).transpose()?;
        Ok(PassConditionings { first, hires })
    }

    fn embed_for(&mut self, pass: SamplingPass) -> Result<Conditioning<'a>> {
        let plan = self.plan.stage(pass, Stage::TextEncoder)?;
        let (encoder, prompts) = (&mut self.models.text_encoder, self.painting.prompts(pass));
        let encode = |tick: &mut Tick| Conditioning::encode(prompts, encoder, plan.budget.clone(), tick);
        self.tracker.run(plan.stage, plan.macs_of(plan.macs.len()), encode)
    }

    /// The latents that the first call of the UNet sees, and what all see.
    fn begin(&mut self, start: Start) -> Result<Beginning> {
        if let Start::Masked { image, mask, checkpoint } = start {
            return self.masked_beginning(image, &mask, checkpoint);
        }
        let masked = self.masked_image()?;
        let state = match start {
            Start::Checkpoint(checkpoint) => checkpoint,
            Start::InitImage(image) if !self.starts_from_noise() => self.image_state(image)?,
            _ => self.noise_state(),
        };
        Ok(Beginning { state, masked, kept: None })
    }

    /// The beginning of text to image.
    fn noise_state(&self) -> StepCheckpoint {
        let parameters = self.painting.parameters();
        let mut noise = Noise::new(parameters.seed);
        let latents = self.draw(&mut noise);
        if self.models.manifest.picture.inpainting {
            self.skip_masked_image(&mut noise);
        }
        let values = self.painting.sampler.noise_latents(&latents.values);
        StepCheckpoint::new(self.origin, Latents { values, ..latents }, noise)
    }

    /// The beginning of image to image: the encoder's distribution is sampled before noise is added.
    fn image_state(&mut self, image: RgbImage) -> Result<StepCheckpoint> {
        let Parameters { width, height, seed, fit, background, .. } = *self.painting.parameters();
        let image = match image.dimensions() == (width as u32, height as u32) {
            true => image,
            false => fit.place(&image, width, height, background.into()),
        };
        let pixels = picture::to_pixels(&image);
        drop(image);
        let moments = self.encode(SamplingPass::First, pixels)?;
        let mut noise = Noise::new(seed);
        let latents = moments.sample(|| self.draw(&mut noise).values);
        let values = self.painting.sampler.image_latents(&latents.values, &self.draw(&mut noise).values);
        if self.models.manifest.picture.inpainting {
            self.skip_masked_image(&mut noise);
        }
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
        let moments = self.encode(SamplingPass::First, vec![0.0; width * height * COLOURS])?;
        let mut noise = Noise::new(seed);
        let before = if self.starts_from_noise() { 1 } else { 1 + usize::from(moments.is_drawn()) };
        (0..before).for_each(|_| drop(self.draw(&mut noise)));
        Ok(Some(MaskedImage::everything(moments.sample(|| self.draw(&mut noise).values))))
    }

    /// Passes over what is drawn for a masked image's latents.
    fn skip_masked_image(&self, noise: &mut Noise) {
        if self.models.draws(self.painting.parameters().decoder) {
            drop(self.draw(noise));
        }
    }

    /// Whether the latents are noise alone at the beginning. Of inpainting they are also where the strength is 1.
    fn starts_from_noise(&self) -> bool {
        let Parameters { strength, inpainting, .. } = *self.painting.parameters();
        let inpaints = self.models.manifest.picture.inpainting || inpainting.is_some();
        strength.is_none_or(|strength| inpaints && strength >= 1.0)
    }

    /// Noise of the first pass's latents' size.
    fn draw(&self, noise: &mut Noise) -> Latents {
        Latents::noise(noise, self.models.latents(self.painting.size(SamplingPass::First)))
    }

    /// The distribution of an image's latents; pixels are from -1 to 1.
    fn encode(&mut self, pass: SamplingPass, pixels: Vec<f32>) -> Result<Moments> {
        let plan = self.plan.stage(pass, Stage::VaeEncoder)?;
        let encoder = self.models.encoder(self.painting.parameters().decoder)?;
        let size = self.painting.size(pass);
        self.tracker
            .run(plan.stage, plan.macs_of(1), |tick: &mut Tick| encoder.encode(pixels, size, plan.budget.clone(), tick))
    }

    /// Runs the UNet once for each of the pass's timesteps that are left.
    fn denoise(
        &mut self,
        pass: SamplingPass,
        beginning: Beginning,
        conditioning: &mut Conditioning,
    ) -> Result<Latents> {
        let Beginning { mut state, masked, kept } = beginning;
        let no_pass = || Error::Internal(format!("{pass:?} is not a pass of this painting"));
        let sampler = self.painting.sampler(pass).ok_or_else(no_pass)?;
        let (calls, guidance) = (sampler.timesteps().len(), self.painting.parameters().cfg_scale(pass));
        if state.history.made == calls {
            return Ok(state.latents);
        }
        let plan = self.plan.stage(pass, Stage::Unet)?;
        let Latents { height, width, channels, .. } = state.latents;
        let (seed, shape) = (self.painting.parameters().seed, (height, width, channels));
        let of_seed = |seed| Latents::noise(&mut Noise::new(u64::from(seed)), shape).values;
        let (latents, made) = (&state.latents, state.history.made);
        let before = self.painting.calls_before(pass);
        // Prompts of their own begin anew.
        let turn = if self.painting.has_other_prompts() { 0 } else { before };
        let Some(embeddings) = conditioning.start(turn + made) else {
            return Err(Error::Internal("nothing to attend to".into()));
        };
        let budget = plan.budget.clone();
        let (prompts, kinds) = (self.painting.prompts(pass), self.painting.unet_calls(pass));
        let to_come = sampler.timesteps()[made..].iter().copied().zip(kinds[made..].iter().copied());
        let alone = prompts.alone * self.models.manifest.text.tokens;
        let planned = PlannedCalls { calls: to_come.collect(), alone };
        let mut unet = self.models.unet.start_calls(latents, embeddings, masked, guidance, planned, budget)?;
        unet.weigh(&prompts.weights);
        let mut previews = PreviewMaker {
            decoders: &mut self.models.decoders,
            colours: self.models.colours.as_ref().map(|(_, colours)| colours),
            factor: self.models.manifest.picture.factor,
        };
        for index in made..calls {
            if let Some(embeddings) = conditioning.at(turn + index) {
                unet.attend(embeddings);
            }
            let input = Latents { values: sampler.model_input(index, &state.latents.values), ..state.latents };
            let predict = |tick: &mut Tick| unet.predict(input, tick);
            let output = self.tracker.run(plan.stage, plan.macs[index], predict)?;
            check_finite(&output, || {
                format!("the UNet's output is not finite in step {} of {calls}: {UNUSABLE}", index + 1)
            })?;
            let is_shown = self.painting.has_previews() && before + index + 1 < self.painting.calls();
            if is_shown && self.tracker.observer.wants_preview() {
                if plan.preview.is_some() {
                    unet.make_room();
                }
                let values = sampler.predicted(index, &state.latents.values, &output);
                previews.show(&Latents { values, ..state.latents }, plan.preview.as_ref(), &mut self.tracker)?;
            }
            let mut next = || Latents::noise(&mut state.noise, shape).values;
            let draws = &mut NoiseDraws { next: &mut next, of_seed: &of_seed, seed };
            state.latents.values = sampler.step(&mut state.history, output, &state.latents.values, draws);
            check_finite(&state.latents.values, || {
                format!("the latents are not finite after step {} of {calls}: {UNFIT_SAMPLER}", index + 1)
            })?;
            if let Some(kept) = &kept {
                kept.restore(&mut state.latents, sampler, index + 1);
            }
            // What a call leaves for those after it is in no checkpoint.
            if kinds.get(index + 1).is_none_or(|next| !next.is_shallow()) {
                self.tracker.observer.step_done(&state);
            }
        }
        Ok(state.latents)
    }
}

/// What the passes attend to.
struct PassConditionings<'a> {
    first: Conditioning<'a>,
    /// Where the second pass's is another one.
    hires: Option<Conditioning<'a>>,
}

/// What the UNet's calls start from.
pub(crate) struct Beginning {
    state: StepCheckpoint,
    /// What an inpainting model sees beside the latents.
    masked: Option<MaskedImage>,
    /// What of an init image stays, where a mask says so to an ordinary model.
    kept: Option<KeptLatents>,
}

impl Beginning {
    /// Nothing but latents.
    fn of(state: StepCheckpoint) -> Beginning {
        Beginning { state, masked: None, kept: None }
    }
}

const UNUSABLE: &str = "the model's weights are too large for it, or a LoRA that was merged into them was too strong";
const UNFIT_SAMPLER: &str = "this sampler does not work with the model's noise schedule and this number of steps";

/// A value that is not finite would become black pixels.
fn check_finite(values: &[f32], message: impl FnOnce() -> String) -> Result<()> {
    if values.iter().all(|value| value.is_finite()) { Ok(()) } else { Err(Error::Internal(message())) }
}
