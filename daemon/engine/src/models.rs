//! The networks, and how much memory painting takes in each.

use crate::bundle::{AutoencoderKind, Bundle, Manifest};
use crate::conditioning;
use crate::error::{Error, Result};
use crate::held::HeldValues;
use crate::hires::{Hires, HiresUpscaler, SamplingPass};
use crate::inpainting::{Inpainting, KeptLatents};
use crate::memory_plan::{Demand, MemoryPlan, StageDemand};
use crate::picture::Fit;
use crate::preview::{self, LatentColours};
use crate::request::{Parameters, Stage};
use crate::resolver::Painting;
use crate::sampler::History;
use crate::text_encoder::TextEncoder;
use crate::unet::Unet;
use crate::upscaler::Upscaler;
use crate::vae::{VaeDecoder, VaeEncoder};

/// Bytes of graph files that the process's own memory covers, and what each byte beyond them takes at most once it is parsed
/// and scheduled. Enough for SDXL, whose graphs are twice as large as Stable Diffusion 2's.
const COVERED_GRAPHS: u64 = 288 << 10;
const PARSED: u64 = 8;

/// A bundle's parts, ready to run.
pub(crate) struct Models {
    pub(crate) manifest: Manifest,
    pub(crate) text_encoder: TextEncoder,
    pub(crate) unet: Unet,
    pub(crate) decoders: Decoders,
    encoders: Vec<(AutoencoderKind, VaeEncoder)>,
    upscaler: Option<Upscaler>,
    /// Of previews, once there was one, for this autoencoder.
    pub(crate) colours: Option<(AutoencoderKind, LatentColours)>,
    /// Bytes that the bundle itself takes: large graphs beyond what the process's own memory covers, and, of a bundle that
    /// is part of the program, its pages.
    bundle: u64,
}

/// The bundle's decoders.
pub(crate) struct Decoders(Vec<(AutoencoderKind, VaeDecoder)>);

impl Decoders {
    /// That of this autoencoder.
    pub(crate) fn get(&mut self, kind: AutoencoderKind) -> Result<&mut VaeDecoder> {
        let found = self.0.iter_mut().find(|(of, _)| *of == kind);
        found.map(|(_, decoder)| decoder).ok_or_else(|| Error::Internal(format!("the model has no {kind} decoder")))
    }
}

impl Models {
    /// Opens every part; reads no weights yet.
    pub(crate) fn open(bundle: &Bundle) -> Result<Models> {
        let manifest = &bundle.manifest;
        let decoders = manifest.decoders().map(|kind| Ok((kind, VaeDecoder::open(bundle, kind)?)));
        let decoders = decoders.collect::<Result<_>>()?;
        let encoders = AutoencoderKind::ALL.into_iter().filter(|kind| manifest.has(kind.encoder()));
        let encoders = encoders.map(|kind| Ok((kind, VaeEncoder::open(bundle, kind)?)));
        let models = Models {
            manifest: bundle.manifest.clone(),
            text_encoder: TextEncoder::open(bundle)?,
            unet: Unet::open(bundle)?,
            decoders: Decoders(decoders),
            encoders: encoders.collect::<Result<_>>()?,
            upscaler: Upscaler::open(bundle)?,
            colours: None,
            bundle: graphs(bundle)? + bundle.source.embedded_bytes(),
        };
        models.check()?;
        Ok(models)
    }

    /// Checks the graphs and their weights against the manifest's sizes, for the smallest image.
    fn check(&self) -> Result<()> {
        self.text_encoder.check()?;
        self.unet.check(&self.manifest.text, &self.manifest.picture)?;
        self.decoders.0.iter().try_for_each(|(_, decoder)| decoder.check())?;
        self.encoders.iter().try_for_each(|(_, encoder)| encoder.check())?;
        self.upscaler.iter().try_for_each(Upscaler::check)
    }

    /// Whether the latents of that encoder are drawn with noise.
    pub(crate) fn draws(&self, kind: AutoencoderKind) -> bool {
        self.encoder_for(kind) == Some(AutoencoderKind::Full)
    }

    /// The encoder of this autoencoder, or of the other if it has none.
    pub(crate) fn encoder(&mut self, kind: AutoencoderKind) -> Result<&mut VaeEncoder> {
        let kind = self.encoder_for(kind);
        let found = self.encoders.iter_mut().find(|(of, _)| Some(*of) == kind);
        found.map(|(_, encoder)| encoder).ok_or_else(|| Error::Internal("the model has no encoder".into()))
    }

    /// Whose encoder encodes for this autoencoder.
    fn encoder_for(&self, kind: AutoencoderKind) -> Option<AutoencoderKind> {
        self.encoders.iter().map(|(of, _)| *of).min_by_key(|of| *of != kind)
    }

    /// The upscaler.
    pub(crate) fn upscaler(&mut self) -> Result<&mut Upscaler> {
        self.upscaler.as_mut().ok_or_else(|| Error::Internal("the model has no upscaler".into()))
    }

    /// Height, width and channels of the latents of an image of this width and height in pixels.
    pub(crate) fn latents(&self, (width, height): (usize, usize)) -> (usize, usize, usize) {
        let sizes = &self.manifest.picture;
        (height / sizes.factor, width / sizes.factor, sizes.latent_channels)
    }

    /// How many images are encoded: the init image, but where an inpainting model begins with noise alone, and for such
    /// a model the masked image.
    pub(crate) fn encodings(&self, parameters: &Parameters) -> usize {
        let inpaints = self.manifest.picture.inpainting;
        let from_image = parameters.strength.is_some_and(|strength| !inpaints || strength < 1.0);
        usize::from(inpaints) + usize::from(from_image)
    }

    /// What the stages need that `painting` goes through, in their order.
    pub(crate) fn demands(&mut self, painting: &Painting) -> Result<Vec<StageDemand>> {
        let parameters = painting.parameters();
        let first = |stage, runs, demand| StageDemand::new(SamplingPass::First, stage, runs, demand);
        let prompts = &painting.prompts;
        self.text_encoder.leave_out(prompts.left_out)?;
        let mut demands = vec![self.text_encoder_demand(painting, SamplingPass::First)?];
        if painting.has_other_prompts() {
            demands.push(self.text_encoder_demand(painting, SamplingPass::Hires)?);
        }
        let pixels = parameters.width * parameters.height;
        let encodings = self.encodings(parameters);
        if encodings > 0 {
            let mut demand = self.encoder(parameters.decoder)?.demand(parameters.width, parameters.height)?;
            if let Some(inpainting) = parameters.inpainting {
                demand.beside += Inpainting::held(pixels);
                demand.activations = demand.activations.max(inpainting.filling(pixels));
            }
            demands.push(first(Stage::VaeEncoder, encodings, demand));
        }
        let mut unet = self.unet_demand(painting, SamplingPass::First)?;
        let (height, width, channels) = self.latents(painting.size(SamplingPass::First));
        unet.demand.beside += parameters.inpainting.map_or(0, |_| KeptLatents::memory(height * width, channels));
        demands.push(unet);
        if let Some(hires) = &parameters.hires {
            if hires.upscaler.scales_pixels() {
                demands.push(self.decoder_demand(painting, SamplingPass::First)?);
                let mut image = painting.size(SamplingPass::First);
                if hires.upscaler == HiresUpscaler::Model {
                    let scale = self.upscaler()?.scale();
                    demands.push(first(Stage::Upscaler, 1, self.upscaler()?.demand(image.0, image.1, scale)?));
                    image = (scale * image.0, scale * image.1);
                }
                demands.push(self.enlarged_demand(painting, hires, image)?);
            }
            demands.push(self.unet_demand(painting, SamplingPass::Hires)?);
        }
        let mut embeddings = conditioning::held(prompts, &self.manifest.text);
        if painting.has_other_prompts() {
            embeddings += conditioning::held(painting.prompts(SamplingPass::Hires), &self.manifest.text);
        }
        demands.iter_mut().for_each(|of| of.demand.beside += embeddings);
        demands.push(self.decoder_demand(painting, painting.last_pass())?);
        if let Some(factor) = parameters.upscale {
            let (width, height) = parameters.size();
            let demand = self.upscaler()?.demand(width, height, factor)?;
            demands.push(StageDemand::new(painting.last_pass(), Stage::Upscaler, 1, demand));
        }
        let put_back = parameters.is_put_back_before_upscaling();
        let unmasked = if put_back { Inpainting::held(pixels) } else { 0 };
        for of in &mut demands {
            of.demand.beside += self.bundle + unmasked + self.held(painting, of.pass).bytes(of.stage);
        }
        Ok(demands)
    }

    /// What a pass holds beside its networks.
    fn held(&self, painting: &Painting, pass: SamplingPass) -> HeldValues {
        let (height, width, channels) = self.latents(painting.size(pass));
        let history = painting.sampler(pass).map_or(0, History::most_tensors);
        HeldValues { latents: height * width * channels, batch: painting.prompts(pass).rows.len(), history }
    }

    fn text_encoder_demand(&mut self, painting: &Painting, pass: SamplingPass) -> Result<StageDemand> {
        let prompts = painting.prompts(pass);
        let demand = self.text_encoder.demand(conditioning::together(prompts))?;
        Ok(StageDemand::new(pass, Stage::TextEncoder, conditioning::runs(prompts), demand))
    }

    fn unet_demand(&mut self, painting: &Painting, pass: SamplingPass) -> Result<StageDemand> {
        let prompts = painting.prompts(pass);
        let batch = prompts.rows.len();
        let tokens = self.manifest.text.tokens;
        let embeddings = [batch, prompts.chunks * tokens, self.manifest.text.channels];
        let (height, width, channels) = self.latents(painting.size(pass));
        let (latents, calls) = ([batch, height, width, channels], painting.unet_calls(pass));
        let (mut demand, macs) = self.unet.demand(&latents, embeddings, prompts.alone * tokens, calls)?;
        let mut preview = None;
        if painting.has_previews() {
            let size = match self.tiny_preview((height, width), demand.work.total())? {
                Some((tiny, size)) => {
                    preview = Some(demand.make_room_for(&tiny));
                    size
                }
                None => (height, width),
            };
            demand.beside += preview::memory(size);
        }
        Ok(StageDemand { pass, stage: Stage::Unet, demand, macs, preview })
    }

    /// What a preview of latents of this height and width needs by the tiny decoder, and the height and width of its image,
    /// where that decoder is there and takes little of a step of `macs` multiply-adds.
    fn tiny_preview(&mut self, latents: (usize, usize), macs: u64) -> Result<Option<(Demand, (usize, usize))>> {
        let Ok(tiny) = self.decoders.get(AutoencoderKind::Tiny) else { return Ok(None) };
        let (height, width) = preview::reduced_size(latents);
        let demand = tiny.demand(height, width)?;
        let factor = self.manifest.picture.factor;
        Ok(preview::takes_little(demand.work.total(), macs).then_some((demand, (factor * height, factor * width))))
    }

    fn decoder_demand(&mut self, painting: &Painting, pass: SamplingPass) -> Result<StageDemand> {
        let (height, width, _) = self.latents(painting.size(pass));
        let demand = self.decoders.get(painting.parameters().decoder)?.demand(height, width)?;
        Ok(StageDemand::new(pass, Stage::VaeDecoder, 1, demand))
    }

    /// Of encoding the first pass's image, which has this width and height, after its pixels were scaled, which takes memory,
    /// too.
    fn enlarged_demand(
        &mut self,
        painting: &Painting,
        hires: &Hires,
        (width, height): (usize, usize),
    ) -> Result<StageDemand> {
        let mut demand = self.encoder(painting.parameters().decoder)?.demand(hires.width, hires.height)?;
        let (wide, high) = Hires::covering((hires.width, hires.height), (width, height));
        // What is cut out of the scaled image is an image, too.
        let [width, height, wide, high] = [width, height, wide, high].map(|side| side as u64);
        let scaling = 3 * width * height + Fit::held((width, height), (wide, high)) + 3 * wide * high;
        demand.activations = demand.activations.max(scaling);
        Ok(StageDemand::new(SamplingPass::Hires, Stage::VaeEncoder, 1, demand))
    }

    /// Frees all weights and schedules.
    pub(crate) fn forget(&mut self) {
        self.text_encoder.forget();
        self.unet.forget();
        self.decoders.0.iter_mut().for_each(|(_, decoder)| decoder.forget());
        self.encoders.iter_mut().for_each(|(_, encoder)| encoder.forget());
        self.upscaler.iter_mut().for_each(Upscaler::forget);
    }

    /// The same of what no stage of `plan` uses, which counts what its own stages keep; `kind` is its autoencoder.
    pub(crate) fn forget_others(&mut self, plan: &MemoryPlan, kind: AutoencoderKind) {
        let uses = |stage| plan.stages.iter().any(|planned| planned.stage == stage);
        let encoder = self.encoder_for(kind).filter(|_| uses(Stage::VaeEncoder));
        let decoder = Some(kind).filter(|_| uses(Stage::VaeDecoder));
        let others = self.encoders.iter_mut().filter(|(of, _)| Some(*of) != encoder);
        others.for_each(|(_, encoder)| encoder.forget());
        let others = self.decoders.0.iter_mut().filter(|(of, _)| Some(*of) != decoder);
        others.for_each(|(_, decoder)| decoder.forget());
        if !uses(Stage::Upscaler) {
            self.upscaler.iter_mut().for_each(Upscaler::forget);
        }
    }
}

/// The memory of parsed graphs beyond what the process's own covers.
fn graphs(bundle: &Bundle) -> Result<u64> {
    let mut bytes = 0;
    for network in bundle.manifest.networks() {
        bytes += bundle.source.open(&format!("{network}.onnx"))?.len()?;
    }
    Ok(bytes.saturating_sub(COVERED_GRAPHS) * PARSED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_plan::{self, RunBudget};

    #[test]
    fn what_no_stage_of_a_plan_uses_is_forgotten() {
        let mut models = Models::open(&Bundle::demo()).unwrap();
        let full = AutoencoderKind::Full;
        let plan = |stage, demand| {
            memory_plan::plan(&[StageDemand::new(SamplingPass::First, stage, 1, demand)], None, 0).unwrap()
        };
        let encoder = models.encoder(full).unwrap();
        let with_encoder = plan(Stage::VaeEncoder, encoder.demand(64, 64).unwrap());
        encoder.encode(vec![0.0; 64 * 64 * 3], (64, 64), RunBudget::ample(), &mut |_| ()).unwrap();
        let without = plan(Stage::VaeDecoder, models.decoders.get(full).unwrap().demand(8, 8).unwrap());
        for (plan, stays) in [(&with_encoder, true), (&without, false)] {
            models.forget_others(plan, full);
            assert_eq!(models.encoder(full).unwrap().kept() > 0, stays);
        }
    }
}
