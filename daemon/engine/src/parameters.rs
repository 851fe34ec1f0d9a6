//! What a request asks for, made complete and checked before anything is computed.

use crate::bundle::{AutoencoderKind, Manifest, Text};
pub use crate::bundle::{MAX_CFG_SCALE, MAX_CLIP_SKIP, MAX_SIDE, MAX_STEPS};
use crate::error::{Error, Result};
use crate::hires::{self, Hires, HiresRequest, HiresUpscaler};
use crate::inpainting::Inpainting;
use crate::prompt::PromptSyntax;
use crate::request::{Parameters, Request};
use crate::sampler::{NoiseSchedule, SamplerChoice};
pub use crate::unet_calls::MAX_CACHE_INTERVAL;
use crate::unet_calls::{self, Savings};

mod size;

/// How much of an init image is repainted where the request is silent (as in A1111's web API).
const DEFAULT_STRENGTH: f64 = 0.75;

/// The largest deviation of a mask's blur, pixels: A1111's.
const MAX_MASK_BLUR: f64 = 64.0;
/// The most pixels around a mask's box that are painted with it: the widest image has no more.
const MAX_MASK_PADDING: f64 = 8192.0;

/// What a request is painted with that leaves it open; `None`: the model's own.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Defaults {
    pub(crate) decoder: Option<AutoencoderKind>,
    pub(crate) prompt_syntax: PromptSyntax,
    /// How many times as wide and high an image becomes.
    pub(crate) upscale: Option<usize>,
    /// What of the UNet's work is left out.
    pub(crate) savings: Savings,
}

/// Fills in the `defaults`, else the model's, and checks every range. `init_size` is the init image's width and height,
/// pixels.
pub(crate) fn resolve(
    request: &Request,
    defaults: Defaults,
    init_size: Option<(u32, u32)>,
    manifest: &Manifest,
) -> Result<Parameters> {
    if init_size.is_some() && !has_encoder(manifest) {
        let message = "this model has a decoder alone, no encoder; it cannot start from an image";
        return Err(invalid("init_images", message.into()));
    }
    if request.inpainting.is_some() && init_size.is_none() {
        return Err(invalid("mask", "a mask belongs to an init image, and there is none".into()));
    }
    if let Some(Inpainting { blur_x, blur_y, padding, .. }) = request.inpainting {
        within("mask_blur", blur_x, MAX_MASK_BLUR)?;
        within("mask_blur", blur_y, MAX_MASK_BLUR)?;
        within("inpaint_full_res_padding", padding.into(), MAX_MASK_PADDING)?;
    }
    // Of a masked part of an image the image's size says nothing: it is painted as large as the model paints.
    let region_only = request.inpainting.is_some_and(|inpainting| inpainting.region_only);
    let shape = init_size.filter(|_| !region_only);
    let (width, height) = size::resolve(request.width, request.height, shape, &manifest.picture)?;
    let steps = request.steps.unwrap_or(manifest.sampling.steps);
    let most_steps = MAX_STEPS.min(manifest.sampling.train_timesteps);
    if steps == 0 || steps > most_steps {
        return Err(invalid("steps", format!("{steps} is out of range; allowed are 1 to {most_steps}")));
    }
    let cfg_scale = request.cfg_scale.unwrap_or(manifest.sampling.cfg_scale);
    within("cfg_scale", cfg_scale, MAX_CFG_SCALE)?;
    let strength = request.strength.unwrap_or(DEFAULT_STRENGTH);
    within("denoising_strength", strength, 1.0)?;
    let upscale = upscale(request.upscale.or(defaults.upscale), manifest)?;
    let hires = |hires: &HiresRequest| hires.resolve((width, height), steps, strength, &manifest.picture);
    let hires = request.hires.as_ref().map(hires).transpose()?;
    hires.as_ref().map_or(Ok(()), |hires| check_hires(hires, init_size.is_some(), manifest))?;
    let is_used = upscale.is_some() || hires.as_ref().is_some_and(|hires| hires.upscaler == HiresUpscaler::Model);
    let upscaler = manifest.upscaler.as_ref().filter(|_| is_used);
    if let Some(eta) = request.eta {
        within("eta", eta, 1.0)?;
    }
    let hires = hires.map(|hires| Hires { schedule: hires.schedule.map(|of| for_model(of, manifest)), ..hires });
    let guidance_interval = request.guidance_interval.or(defaults.savings.guidance_interval);
    let cache_interval = request.cache_interval.or(defaults.savings.cache_interval);
    let choice = sampler_choice(request, manifest);
    let unused: Vec<&str> = choice.unused_keys().collect();
    Ok(Parameters {
        prompt: request.prompt.clone(),
        negative_prompt: request.negative_prompt.clone(),
        width,
        height,
        steps,
        cfg_scale,
        seed: request.seed,
        sampler: choice.kind,
        schedule: choice.schedule.filter(|_| !unused.contains(&"scheduler")),
        eta: choice.eta.filter(|_| !unused.contains(&"eta")),
        strength: init_size.is_some().then_some(strength),
        decoder: decoder(request.decoder.or(defaults.decoder), manifest)?,
        prompt_syntax: request.prompt_syntax.unwrap_or(defaults.prompt_syntax),
        clip_skip: clip_skip(request.clip_skip, &manifest.text)?,
        guidance_interval: unet_calls::guidance_interval(guidance_interval)?,
        cache_interval: unet_calls::cache_interval(cache_interval)?,
        prompt_template: request.prompt_template.clone(),
        negative_prompt_template: request.negative_prompt_template.clone(),
        fit: init_size.and(request.fit).unwrap_or_default(),
        background: init_size.and(request.background).unwrap_or_default(),
        inpainting: request.inpainting,
        upscale,
        upscaler: upscaler.map(|upscaler| upscaler.name.clone()),
        hires,
    })
}

/// A layer that the bundle's text encoder has.
fn clip_skip(wanted: Option<usize>, text: &Text) -> Result<Option<usize>> {
    let Some(skip) = wanted else { return Ok(None) };
    let least = text.clip_skip.unwrap_or(1);
    if skip < least && least > 1 + usize::from(text.second.is_some()) {
        let message = format!(
            "this model was converted with --clip-skip {least}, without the layers after that; convert it without the \
             option, and say in requests which layer is wanted"
        );
        return Err(invalid("clip_skip", message));
    }
    match (1..=MAX_CLIP_SKIP).contains(&skip) {
        true => Ok(wanted),
        false => Err(invalid("clip_skip", format!("{skip} is out of range; allowed are 1 to {MAX_CLIP_SKIP}"))),
    }
}

/// Whether the model can make a second pass.
fn check_hires(hires: &Hires, from_image: bool, manifest: &Manifest) -> Result<()> {
    if from_image {
        return Err(hires::invalid(
            "hires",
            "a second pass belongs to text to image; give `width` and `height` instead".into(),
        ));
    }
    if manifest.picture.inpainting {
        return Err(hires::invalid("hires", "an inpainting model makes no second pass".into()));
    }
    if hires.upscaler == HiresUpscaler::Model && manifest.upscaler.is_none() {
        return Err(hires::invalid("hires.upscaler", format!("{}: {NO_UPSCALER}", hires.upscaler)));
    }
    if hires.upscaler.scales_pixels() && !has_encoder(manifest) {
        let message = format!("{} needs an encoder, which this model has not; Latent does not", hires.upscaler);
        return Err(hires::invalid("hires.upscaler", message));
    }
    Ok(())
}

fn has_encoder(manifest: &Manifest) -> bool {
    AutoencoderKind::ALL.iter().any(|kind| manifest.has(kind.encoder()))
}

/// The sampler that is asked for, else the model's; the model's noise schedule belongs to its own sampler.
pub(crate) fn sampler_choice(request: &Request, manifest: &Manifest) -> SamplerChoice {
    let sampling = &manifest.sampling;
    let kind = request.sampler.unwrap_or(sampling.default);
    let schedule = match request.schedule {
        Some(schedule) => Some(for_model(schedule, manifest)),
        None if kind == sampling.default => sampling.schedule,
        None => None,
    };
    SamplerChoice { kind, schedule, eta: request.eta }
}

/// The schedule of this name for the model's family.
fn for_model(schedule: NoiseSchedule, manifest: &Manifest) -> NoiseSchedule {
    match schedule {
        NoiseSchedule::AlignYourSteps if manifest.text.second.is_some() => NoiseSchedule::AlignYourStepsXl,
        schedule => schedule,
    }
}

/// The autoencoder that is asked for, else the model's first.
pub(crate) fn decoder(wanted: Option<AutoencoderKind>, manifest: &Manifest) -> Result<AutoencoderKind> {
    let there: Vec<AutoencoderKind> = manifest.decoders().collect();
    let default = there.first().copied().unwrap_or_default();
    let kind = wanted.unwrap_or(default);
    match there.contains(&kind) {
        true => Ok(kind),
        false => Err(invalid("decoder", format!("this model has no {kind} decoder; it has {default} alone"))),
    }
}

const NO_UPSCALER: &str = "this model has no upscaler; model-prep adds one with --upscaler";

/// How many times as large an image becomes; `None` where it stays as it is.
pub(crate) fn upscale(wanted: Option<usize>, manifest: &Manifest) -> Result<Option<usize>> {
    let Some(wanted) = wanted.filter(|factor| *factor != 1) else { return Ok(None) };
    let Some(upscaler) = &manifest.upscaler else {
        return Err(invalid("upscale", NO_UPSCALER.into()));
    };
    if upscaler.factors().any(|factor| factor == wanted) {
        return Ok(Some(wanted));
    }
    let allowed: Vec<String> = upscaler.factors().map(|factor| factor.to_string()).collect();
    Err(invalid(
        "upscale",
        format!("{wanted} is not what this model's upscaler makes; allowed are {}", allowed.join(", ")),
    ))
}

fn within(field: &'static str, value: f64, most: f64) -> Result<()> {
    if (0.0..=most).contains(&value) {
        return Ok(());
    }
    Err(invalid(field, format!("{value} is out of range; allowed is 0 to {most}")))
}

fn invalid(field: &'static str, message: String) -> Error {
    Error::InvalidParam { field, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::sample;
    use crate::picture::{Colour, Fit};
    use crate::sampler::SamplerKind;

    fn refused(request: Request) -> (&'static str, String) {
        match resolve(&request, Defaults::default(), None, &sample()) {
            Err(Error::InvalidParam { field, message }) => (field, message),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn silence_means_the_models_defaults() {
        let found =
            resolve(&Request { prompt: "a house".into(), ..Request::default() }, Defaults::default(), None, &sample())
                .unwrap();
        assert_eq!((found.width, found.height, found.steps, found.cfg_scale), (512, 512, 20, 7.5));
        assert_eq!((found.sampler, found.strength), (SamplerKind::Pndm, None));
    }

    #[test]
    fn keys_of_an_init_image_hold_where_there_is_one() {
        let background = Colour([1, 2, 3]);
        let request = Request { fit: Some(Fit::Cover), background: Some(background), ..Request::default() };
        let with = resolve(&request, Defaults::default(), Some((600, 400)), &sample()).unwrap();
        assert_eq!((with.width, with.height, with.strength), (600, 400, Some(0.75)));
        assert_eq!((with.fit, with.background), (Fit::Cover, background));
        let without = resolve(&request, Defaults::default(), None, &sample()).unwrap();
        assert_eq!((without.fit, without.background), (Fit::Stretch, Colour::WHITE));
    }

    #[test]
    fn a_masks_region_is_painted_in_the_models_own_size() {
        let inpainting = Some(Inpainting { region_only: true, ..Inpainting::default() });
        let request = Request { inpainting, ..Request::default() };
        let found = resolve(&request, Defaults::default(), Some((700, 63)), &sample()).unwrap();
        assert_eq!((found.width, found.height), (512, 512));
    }

    /// Stable Diffusion 1.5's manifest without the networks `without`, but with a tiny decoder.
    fn with_tiny(without: &[&str]) -> Manifest {
        let mut json: serde_json::Value = serde_json::from_slice(&sample().to_json()).unwrap();
        let files = json["files"].as_object_mut().unwrap();
        files.retain(|file, _| !without.iter().any(|network| file.starts_with(network)));
        for file in ["tiny_decoder.onnx", "tiny_decoder.weights"] {
            files.insert(file.into(), "0".repeat(64).into());
        }
        Manifest::parse(json.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn the_tiny_decoder_is_for_who_asks_and_for_who_has_no_other() {
        let decoder = |decoder, manifest| {
            let request = Request { decoder, ..Request::default() };
            resolve(&request, Defaults::default(), None, manifest).map(|parameters| parameters.decoder)
        };
        let (both, alone) = (with_tiny(&[]), with_tiny(&["vae_decoder", "vae_encoder"]));
        assert_eq!(decoder(None, &both).unwrap(), AutoencoderKind::Full);
        assert_eq!(decoder(Some(AutoencoderKind::Tiny), &both).unwrap(), AutoencoderKind::Tiny);
        assert_eq!(decoder(None, &alone).unwrap(), AutoencoderKind::Tiny);
        assert!(decoder(Some(AutoencoderKind::Full), &alone).is_err());
        let tiny_first = Defaults { decoder: Some(AutoencoderKind::Tiny), ..Defaults::default() };
        let configured = |request: &Request| resolve(request, tiny_first, None, &both).unwrap().decoder;
        assert_eq!(configured(&Request::default()), AutoencoderKind::Tiny);
        let full = Request { decoder: Some(AutoencoderKind::Full), ..Request::default() };
        assert_eq!(configured(&full), AutoencoderKind::Full);
        let error = resolve(&Request::default(), Defaults::default(), Some((64, 64)), &alone).unwrap_err();
        assert!(error.to_string().contains("init_images"), "{error}");
    }

    #[test]
    fn each_refusal_names_the_clients_key_and_the_way_out() {
        let sides = [(0, "is 64"), (56, "is 64"), (100, "are 96 and 104"), (2047, "are 2040 and 2048")];
        for (bad, nearest) in sides.into_iter().chain([(2056, "is 2048"), (usize::MAX, "is 2048")]) {
            let (field, message) = refused(Request { width: Some(bad), ..Request::default() });
            assert_eq!(field, "width");
            assert!(message.ends_with(&format!("the nearest {nearest}")), "{message}");
        }
        assert_eq!(refused(Request { height: Some(1), ..Request::default() }).0, "height");
        assert_eq!(refused(Request { steps: Some(0), ..Request::default() }).0, "steps");
        assert_eq!(refused(Request { steps: Some(1001), ..Request::default() }).0, "steps");
        assert_eq!(refused(Request { cfg_scale: Some(f64::NAN), ..Request::default() }).0, "cfg_scale");
        assert_eq!(refused(Request { cfg_scale: Some(-1.0), ..Request::default() }).0, "cfg_scale");
        assert_eq!(refused(Request { strength: Some(1.5), ..Request::default() }).0, "denoising_strength");
        let masked = Request { inpainting: Some(Inpainting::default()), ..Request::default() };
        assert_eq!(refused(masked.clone()).0, "mask");
        for (inpainting, wrong) in [
            (Inpainting { blur_x: 65.0, ..Inpainting::default() }, "mask_blur"),
            (Inpainting { blur_y: f64::NAN, ..Inpainting::default() }, "mask_blur"),
            (Inpainting { padding: 8193, ..Inpainting::default() }, "inpaint_full_res_padding"),
        ] {
            let request = Request { inpainting: Some(inpainting), ..masked.clone() };
            let found = resolve(&request, Defaults::default(), Some((64, 64)), &sample());
            assert!(matches!(found, Err(Error::InvalidParam { field, .. }) if field == wrong), "{found:?}");
        }
        let tiny = Request { decoder: Some(AutoencoderKind::Tiny), ..Request::default() };
        assert_eq!(refused(tiny), ("decoder", "this model has no tiny decoder; it has full alone".into()));
    }
    /// Stable Diffusion 1.5's manifest with an upscaler.
    fn with_upscaler(scale: usize) -> Manifest {
        let mut json: serde_json::Value = serde_json::from_slice(&sample().to_json()).unwrap();
        json["upscaler"] = serde_json::json!({"name": "general", "scale": scale});
        for file in ["upscaler.onnx", "upscaler.weights"] {
            json["files"][file] = "0".repeat(64).into();
        }
        Manifest::parse(json.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn an_image_becomes_as_large_as_the_upscaler_can_make_it() {
        let (model, other) = (with_upscaler(4), with_upscaler(2));
        let upscale = |upscale, default, manifest: &Manifest| {
            let (request, defaults) =
                (Request { upscale, ..Request::default() }, Defaults { upscale: default, ..Defaults::default() });
            resolve(&request, defaults, None, manifest).map(|parameters| parameters.upscale)
        };
        for (request, default, wanted) in
            [(None, None, None), (Some(1), Some(4), None), (Some(2), None, Some(2)), (None, Some(4), Some(4))]
        {
            assert_eq!(upscale(request, default, &model).unwrap(), wanted);
        }
        let message = upscale(Some(3), None, &model).unwrap_err().to_string();
        assert_eq!(message, "upscale: 3 is not what this model's upscaler makes; allowed are 1, 2, 4");
        assert!(upscale(Some(4), None, &other).is_err() && upscale(Some(0), None, &other).is_err());
        let message = upscale(Some(2), None, &sample()).unwrap_err().to_string();
        assert!(message.contains("no upscaler"), "{message}");
        assert_eq!(upscale(Some(1), None, &sample()).unwrap(), None);
    }

    #[test]
    fn what_a_mask_leaves_is_put_back_before_all_is_enlarged_or_keeps_its_size() {
        let model = with_upscaler(4);
        for (upscale, region_only, keep_unmasked, before) in
            [(2, false, true, true), (1, false, true, false), (2, true, true, false), (2, false, false, false)]
        {
            let inpainting = Some(Inpainting { region_only, keep_unmasked, ..Inpainting::default() });
            let request = Request { upscale: Some(upscale), inpainting, ..Request::default() };
            let found = resolve(&request, Defaults::default(), Some((64, 64)), &model).unwrap();
            assert_eq!(found.is_put_back_before_upscaling(), before);
        }
    }

    #[test]
    fn a_second_pass_may_begin_with_the_models_upscaler_if_there_is_one() {
        let hires = HiresRequest { upscaler: Some(HiresUpscaler::Model), ..HiresRequest::default() };
        let request = Request { hires: Some(hires), ..Request::default() };
        let found = resolve(&request, Defaults::default(), None, &with_upscaler(4)).unwrap();
        assert_eq!((found.upscale, found.upscaler.as_deref()), (None, Some("general")));
        let (field, message) = refused(request);
        assert!(field == "hires.upscaler" && message.starts_with("Model: this model has no upscaler"), "{message}");
    }
}
