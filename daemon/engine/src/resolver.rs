//! From a request to what is painted, once: the model's defaults, the ranges, the tokens and the sampler's timesteps
//! are settled here, without a network and in milliseconds. A service can keep the resolver while the engine is closed,
//! so that a mistake is reported when a request arrives and not when its turn comes.

use crate::bundle::{AutoencoderKind, Bundle, Manifest, Source};
use crate::checkpoint::StepCheckpoint;
use crate::error::{Error, Result};
use crate::graph;
use crate::hires::{self, Hires, SamplingPass};
use crate::inpainting::MaskedContent;
use crate::parameters::{self, Defaults};
use crate::prompt::{PromptReader, PromptSyntax, Prompts};
use crate::request::{Parameters, Request};
use crate::sampler::{Sampler, SamplerChoice};
use crate::tokenizer::Tokenizer;
use crate::unet_calls::{self, Savings, UnetCall};
use crate::warning::Warning;

/// A request that was resolved: complete, checked and ready to paint. Only [`Resolver::resolve`] makes one.
#[derive(Debug, Clone)]
pub struct Painting {
    parameters: Parameters,
    /// Of the first pass.
    pub(crate) prompts: Prompts,
    /// Of the second pass, where they are others.
    hires_prompts: Option<Prompts>,
    /// Of the first pass.
    pub(crate) sampler: Sampler,
    /// Of the second pass.
    hires_sampler: Option<Sampler>,
    /// What each call of the UNet computes, in the first pass and in the second.
    unet_calls: [Vec<UnetCall>; 2],
    warnings: Vec<Warning>,
    has_previews: bool,
}

impl Painting {
    /// What is painted.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// What of the request has no effect, each once.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// How often the UNet is called, in both passes.
    pub fn calls(&self) -> usize {
        [SamplingPass::First, SamplingPass::Hires].into_iter().map(|pass| self.calls_of(pass)).sum()
    }

    /// How often the UNet is called in a pass.
    pub(crate) fn calls_of(&self, pass: SamplingPass) -> usize {
        self.sampler(pass).map_or(0, |sampler| sampler.timesteps().len())
    }

    /// What each call of the UNet computes in a pass.
    pub(crate) fn unet_calls(&self, pass: SamplingPass) -> &[UnetCall] {
        &self.unet_calls[usize::from(!pass.is_first())]
    }

    /// Whether a call can follow this checkpoint that needs nothing but its latents.
    ///
    /// # Errors
    ///
    /// `Checkpoint` where that is not so.
    pub(crate) fn check_start(&self, checkpoint: &StepCheckpoint) -> Result<()> {
        let pass = checkpoint.pass();
        let next = self.unet_calls(pass).get(checkpoint.calls() - self.calls_before(pass));
        match next.is_some_and(|call| call.is_shallow()) {
            true => Err(Error::Checkpoint("the call after it needs what another one left".into())),
            false => Ok(()),
        }
    }

    /// How often the UNet is called before a pass.
    pub(crate) fn calls_before(&self, pass: SamplingPass) -> usize {
        if pass.is_first() { 0 } else { self.calls_of(SamplingPass::First) }
    }

    /// What a pass attends to.
    pub(crate) fn prompts(&self, pass: SamplingPass) -> &Prompts {
        self.hires_prompts.as_ref().filter(|_| !pass.is_first()).unwrap_or(&self.prompts)
    }

    /// Whether the second pass attends to something else than the first.
    pub(crate) fn has_other_prompts(&self) -> bool {
        self.hires_prompts.is_some()
    }

    /// The sampler of a pass, if there is such a pass.
    pub(crate) fn sampler(&self, pass: SamplingPass) -> Option<&Sampler> {
        match pass {
            SamplingPass::First => Some(&self.sampler),
            SamplingPass::Hires => self.hires_sampler.as_ref(),
        }
    }

    /// The pass whose latents become the image.
    pub(crate) fn last_pass(&self) -> SamplingPass {
        if self.hires_sampler.is_some() { SamplingPass::Hires } else { SamplingPass::First }
    }

    /// Width and height in pixels of what a pass paints.
    pub(crate) fn size(&self, pass: SamplingPass) -> (usize, usize) {
        match pass {
            SamplingPass::First => (self.parameters.width, self.parameters.height),
            SamplingPass::Hires => self.parameters.size(),
        }
    }

    /// The same with another seed's noise. Copies texts and tables of a few tens of KiB.
    pub fn with_seed(&self, seed: u64) -> Painting {
        let mut painting = self.clone();
        painting.parameters.seed = seed;
        painting
    }

    /// The same, and, if `has_previews`, with what its observer shows while it is painted. What is painted does not change.
    #[must_use]
    pub fn with_previews(self, has_previews: bool) -> Painting {
        Painting { has_previews, ..self }
    }

    /// Whether previews of it are made.
    pub(crate) fn has_previews(&self) -> bool {
        self.has_previews
    }
}

/// Resolves requests for one model. It holds the manifest and the tokenizer, about 3 MiB with
/// Stable Diffusion's vocabulary.
#[derive(Debug, Clone)]
pub struct Resolver {
    manifest: Manifest,
    model_sha256: String,
    tokenizer: Tokenizer,
    /// How many layers before the one of the embeddings every text encoder has.
    earlier_layers: Option<usize>,
    defaults: Defaults,
}

/// The keys of an init image that a request without one has.
fn without_init_image(request: &Request, init_size: Option<(u32, u32)>) -> Vec<Warning> {
    let Request { strength, fit, background, .. } = request;
    let keys =
        [("denoising_strength", strength.is_some()), ("fit", fit.is_some()), ("background", background.is_some())];
    let unused = keys.into_iter().filter(|(_, is_given)| *is_given && init_size.is_none());
    unused.map(|(field, _)| Warning::WithoutInitImage { field }).collect()
}

impl Resolver {
    /// Opens a bundle's manifest and its tokenizer, and counts the text encoders' layers.
    ///
    /// # Errors
    ///
    /// `ModelCorrupt` or `Io`, with the file that is at fault.
    pub fn open(source: Source) -> Result<Resolver> {
        let bundle = Bundle::open(source)?;
        let (vocab, merges) = (bundle.read("tokenizer/vocab.json")?, bundle.read("tokenizer/merges.txt")?);
        let tokenizer = Tokenizer::new(&vocab, &merges, &bundle.manifest.text.added)
            .map_err(|message| Error::ModelCorrupt { path: bundle.source.path("tokenizer"), message })?;
        let encoders = ["text_encoder", "text_encoder_2"].into_iter().filter(|name| bundle.manifest.has(name));
        let layers = encoders.map(|name| Ok(graph::blocks_before_embeddings(&bundle.read(&format!("{name}.onnx"))?)));
        let earlier_layers = layers.collect::<Result<Vec<_>>>()?.into_iter().flatten().min();
        Ok(Resolver {
            earlier_layers,
            manifest: bundle.manifest,
            model_sha256: bundle.sha256,
            tokenizer,
            defaults: Defaults::default(),
        })
    }

    /// With `defaults` for what requests leave out.
    ///
    /// # Errors
    ///
    /// `InvalidParam` where the model does not have it.
    pub fn with_decoder(self, decoder: Option<AutoencoderKind>) -> Result<Resolver> {
        parameters::decoder(decoder, &self.manifest)?;
        Ok(Resolver { defaults: Defaults { decoder, ..self.defaults }, ..self })
    }

    /// With `prompt_syntax` for the requests that name none.
    pub fn with_prompt_syntax(self, prompt_syntax: PromptSyntax) -> Resolver {
        Resolver { defaults: Defaults { prompt_syntax, ..self.defaults }, ..self }
    }

    /// With `upscale` for the requests that do not say; `None`: the image stays as it is.
    ///
    /// # Errors
    ///
    /// `InvalidParam` where the model has no upscaler, or one to another size.
    pub fn with_upscale(self, upscale: Option<usize>) -> Result<Resolver> {
        parameters::upscale(upscale, &self.manifest)?;
        Ok(Resolver { defaults: Defaults { upscale, ..self.defaults }, ..self })
    }

    /// With these for the requests that do not say: from where to where there is guidance, and for how many calls of the UNet
    /// its deep features are computed once.
    ///
    /// # Errors
    ///
    /// `InvalidParam` where one of them is out of range.
    pub fn with_intervals(self, guidance: Option<[f64; 2]>, cache: Option<usize>) -> Result<Resolver> {
        let guidance_interval = unet_calls::guidance_interval(guidance)?;
        let savings = Savings { guidance_interval, cache_interval: unet_calls::cache_interval(cache)? };
        Ok(Resolver { defaults: Defaults { savings, ..self.defaults }, ..self })
    }

    /// How the prompts of `request` are read.
    pub fn prompt_syntax(&self, request: &Request) -> PromptSyntax {
        request.prompt_syntax.unwrap_or(self.defaults.prompt_syntax)
    }

    /// The bundle's manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// SHA-256 of `bundle.json`, hexadecimal; since that lists the checksums of all files, it identifies the model.
    pub fn model_sha256(&self) -> &str {
        &self.model_sha256
    }

    /// Settles `request`. `init_size` is the width and height in pixels of the image that image to image starts from.
    ///
    /// # Errors
    ///
    /// `InvalidParam` with the request's key, for whatever the model or the sampler does not take.
    pub fn resolve(&self, request: &Request, init_size: Option<(u32, u32)>) -> Result<Painting> {
        let mut parameters = parameters::resolve(request, self.defaults, init_size, &self.manifest)?;
        let Parameters { steps, strength, .. } = parameters;
        let sampler = Sampler::new(parameters.sampler_choice(), &self.manifest.sampling, steps, strength)?;
        let mut warnings = without_init_image(request, init_size);
        let content = parameters.inpainting.map_or(MaskedContent::Original, |inpainting| inpainting.content);
        if content != MaskedContent::Original && strength.is_some_and(|strength| strength >= 1.0) {
            warnings.push(Warning::ContentUnused);
        }
        let unused = parameters::sampler_choice(request, &self.manifest).unused_keys();
        warnings.extend(unused.map(|field| Warning::UnusedBySampler { field, sampler: parameters.sampler }));
        let Parameters { prompt, negative_prompt, hires, .. } = &parameters;
        let (calls, steps) = (sampler.timesteps().len(), (steps, strength));
        let prompts = self.read(&parameters, [prompt, negative_prompt], steps, calls, &mut warnings)?;
        let (mut hires_sampler, mut hires_prompts) = (None, None);
        if let Some(hires) = hires {
            let choice = hires.sampler_choice(parameters.sampler_choice());
            if hires.schedule.is_some() && choice.unused_keys().any(|key| key == "scheduler") {
                warnings.push(Warning::UnusedBySampler { field: "hires.scheduler", sampler: choice.kind });
            }
            let sampler = self.hires_sampler(hires, choice)?;
            if hires.prompt.is_some() || hires.negative_prompt.is_some() {
                let prompt = hires.prompt.as_ref().unwrap_or(prompt);
                let negative_prompt = hires.negative_prompt.as_ref().unwrap_or(negative_prompt);
                let (texts, calls) = ([prompt, negative_prompt], sampler.timesteps().len());
                hires_prompts = Some(self.read(&parameters, texts, (hires.steps, None), calls, &mut warnings)?);
            }
            hires_sampler = Some(sampler);
        }
        if [Some(&prompts), hires_prompts.as_ref()].into_iter().flatten().any(|prompts| !prompts.is_a_pair()) {
            let unused = Warning::GuidanceIntervalUnused { joined: prompts.rows.len() > 1 };
            warnings.extend(request.guidance_interval.and(parameters.guidance_interval).map(|_| unused));
            parameters.guidance_interval = None;
        }
        let savings = parameters.savings();
        let first = savings.calls(&sampler, &prompts, 0);
        // A second pass with the first one's prompts goes on where these are.
        let turn = if hires_prompts.is_some() { 0 } else { first.len() };
        let second = |sampler| savings.calls(sampler, hires_prompts.as_ref().unwrap_or(&prompts), turn);
        let unet_calls = [first, hires_sampler.as_ref().map(second).unwrap_or_default()];
        let has_previews = false;
        Ok(Painting { parameters, prompts, hires_prompts, sampler, hires_sampler, unet_calls, warnings, has_previews })
    }

    /// Makes just the second pass's steps, the last of its schedule.
    fn hires_sampler(&self, hires: &Hires, choice: SamplerChoice) -> Result<Sampler> {
        let all = hires.schedule_steps();
        // Half a step more, so that no rounding makes it one less.
        let part = (hires.steps as f64 + 0.5) / all as f64;
        Sampler::new(choice, &self.manifest.sampling, all, Some(part.min(1.0))).map_err(|error| match error {
            Error::InvalidParam { message, .. } => {
                let Hires { steps, denoising_strength, .. } = hires;
                hires::invalid(
                    "hires.steps",
                    format!("{steps} steps of strength {denoising_strength} end a schedule of {all}: {message}"),
                )
            }
            other => other,
        })
    }

    /// What the UNet attends to in a pass of so many `steps`, of which the strength takes a part, and `calls`: the prompt and
    /// the negative prompt.
    fn read(
        &self,
        parameters: &Parameters,
        [prompt, negative_prompt]: [&String; 2],
        (steps, strength): (usize, Option<f64>),
        calls: usize,
        warnings: &mut Vec<Warning>,
    ) -> Result<Prompts> {
        let (tokenizer, sizes) = (&self.tokenizer, &self.manifest.text);
        let steps_of_calls = steps * calls_per_step(calls, steps, strength);
        let reader = PromptReader { tokenizer, sizes, syntax: parameters.prompt_syntax, steps: steps_of_calls };
        // What several prompts add is measured from the negative one.
        let guided = parameters.is_guided(&self.manifest) || reader.is_joined(prompt);
        if !guided && !negative_prompt.trim().is_empty() {
            warnings.push(Warning::NegativePromptUnused { cfg_scale: parameters.cfg_scale });
        }
        let prompts = reader.read(prompt, Some(negative_prompt.as_str()).filter(|_| guided), warnings)?;
        Ok(Prompts { left_out: self.left_out(parameters.clip_skip)?, ..prompts })
    }

    /// How many of the layers that the bundle's text encoders have are left out at the end.
    fn left_out(&self, clip_skip: Option<usize>) -> Result<usize> {
        let sizes = &self.manifest.text;
        let of = |skip: Option<usize>| (skip.unwrap_or(1) - 1).max(usize::from(sizes.second.is_some()));
        let (left_out, of_bundle) = (of(clip_skip.or(sizes.clip_skip)), of(sizes.clip_skip));
        let most = self.earlier_layers.map_or(left_out, |layers| of_bundle + layers);
        if left_out > most {
            let message =
                format!("{} is out of range; this model's text encoder allows 1 to {}", left_out + 1, most + 1);
            return Err(Error::InvalidParam { field: "clip_skip", message });
        }
        Ok(left_out - of_bundle)
    }
}

/// How often a sampler calls the UNet in a step: `calls` for `steps` steps, of which image to image takes a part. The
/// first or last step may take one more or less.
fn calls_per_step(calls: usize, steps: usize, strength: Option<f64>) -> usize {
    let taken = strength.map_or(steps, |strength| (steps as f64 * strength) as usize).max(1);
    calls.div_ceil(taken + 1).max(1)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The demo model's text encoder has four layers.
    #[test]
    fn a_layer_that_the_text_encoder_does_not_have_is_refused() {
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/demo");
        let resolver = Resolver::open(Source::Folder(demo)).unwrap();
        let resolve = |skip| resolver.resolve(&Request { clip_skip: Some(skip), ..Request::default() }, None);
        for skip in 1..=4 {
            assert_eq!(resolve(skip).unwrap().prompts.left_out, skip - 1);
        }
        let Err(Error::InvalidParam { field, message }) = resolve(5) else { panic!("a fifth layer") };
        assert_eq!(
            (field, message.as_str()),
            ("clip_skip", "5 is out of range; this model's text encoder allows 1 to 4")
        );
    }
}
