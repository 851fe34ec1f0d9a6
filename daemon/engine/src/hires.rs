//! A second pass at a larger size ("hires fix"): a model that paints well only near the size that it was trained with
//! composes the image there; its latents are scaled up, noise is added, and some steps at the larger size add detail.
//! Names, defaults and numbers are those of A1111's web interface.

mod resize;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::bundle::{MAX_CFG_SCALE, MAX_SIDE, PictureSizes};
use crate::error::{Error, Result};
use crate::sampler::{NoiseSchedule, SamplerChoice, SamplerKind};
pub(crate) use resize::resize;

/// How many times the size where a request names none.
const DEFAULT_SCALE: f64 = 2.0;
/// The largest scale.
const MAX_SCALE: f64 = 4.0;

/// Steps at one size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SamplingPass {
    /// At the size that was asked for; the only one of most paintings.
    #[default]
    First,
    /// At the larger size.
    Hires,
}

impl SamplingPass {
    /// Whether it is the first one.
    pub fn is_first(&self) -> bool {
        *self == SamplingPass::First
    }
}

/// A second pass as a request asks for it. `None` means the default, or what the first pass has.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HiresRequest {
    /// How many times the width and the height, 1 to 4; 2 if nothing says the size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<f64>,
    /// Width in pixels, instead of `scale`. Without a height, that follows from the image's shape; with one, what is too
    /// much of the image is cut off on both sides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<usize>,
    /// Height in pixels, as `width`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<usize>,
    /// Steps that are made in the second pass; as many as in the first if it is 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// How much of the image is repainted, above 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denoising_strength: Option<f64>,
    /// What makes the image larger.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upscaler: Option<HiresUpscaler>,
    /// What to paint in the second pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// What to avoid in the second pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub negative_prompt: Option<String>,
    /// The second pass's sampler.
    #[serde(rename = "sampler_name", skip_serializing_if = "Option::is_none")]
    pub sampler: Option<SamplerKind>,
    /// That sampler's noise schedule.
    #[serde(rename = "scheduler", skip_serializing_if = "Option::is_none")]
    pub schedule: Option<NoiseSchedule>,
    /// The second pass's guidance scale; 1 or less paints without guidance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cfg_scale: Option<f64>,
}

/// A second pass, complete and checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hires {
    /// Of the image, pixels.
    pub width: usize,
    /// Of the image, pixels.
    pub height: usize,
    /// Steps that are made in the second pass.
    pub steps: usize,
    /// How much of the image is repainted, above 0 to 1.
    pub denoising_strength: f64,
    /// What makes the image larger.
    pub upscaler: HiresUpscaler,
    /// What is painted in the second pass, where that is something else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// What is avoided in the second pass, where that is something else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative_prompt: Option<String>,
    /// The second pass's sampler, where it is another one.
    #[serde(rename = "sampler_name", default, skip_serializing_if = "Option::is_none")]
    pub sampler: Option<SamplerKind>,
    /// Its noise schedule, where it is another one.
    #[serde(rename = "scheduler", default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<NoiseSchedule>,
    /// The second pass's guidance scale, where it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cfg_scale: Option<f64>,
}

/// What makes the first pass's image larger.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HiresUpscaler {
    /// The latents, between two neighbours along each axis.
    #[default]
    #[serde(rename = "Latent")]
    Latent,
    /// The same, for latents that become larger.
    #[serde(rename = "Latent (antialiased)")]
    LatentAntialiased,
    /// The latents, between four neighbours along each axis.
    #[serde(rename = "Latent (bicubic)")]
    LatentBicubic,
    /// The same with a softer kernel.
    #[serde(rename = "Latent (bicubic antialiased)")]
    LatentBicubicAntialiased,
    /// The latents, by repeating them.
    #[serde(rename = "Latent (nearest)")]
    LatentNearest,
    /// The same, by the pixels' middles.
    #[serde(rename = "Latent (nearest-exact)")]
    LatentNearestExact,
    /// The pixels, with Lanczos' kernel: they are decoded, scaled and encoded again.
    #[serde(rename = "Lanczos")]
    Lanczos,
    /// The pixels, by the model's upscaler, then with Lanczos' kernel from its size to the second pass's.
    #[serde(rename = "Model")]
    Model,
}

impl HiresUpscaler {
    /// Every upscaler, with its name.
    pub const NAMES: [(HiresUpscaler, &'static str); 8] = [
        (HiresUpscaler::Latent, "Latent"),
        (HiresUpscaler::LatentAntialiased, "Latent (antialiased)"),
        (HiresUpscaler::LatentBicubic, "Latent (bicubic)"),
        (HiresUpscaler::LatentBicubicAntialiased, "Latent (bicubic antialiased)"),
        (HiresUpscaler::LatentNearest, "Latent (nearest)"),
        (HiresUpscaler::LatentNearestExact, "Latent (nearest-exact)"),
        (HiresUpscaler::Lanczos, "Lanczos"),
        (HiresUpscaler::Model, "Model"),
    ];

    /// Whether pixels are scaled instead of latents.
    pub(crate) fn scales_pixels(self) -> bool {
        matches!(self, HiresUpscaler::Lanczos | HiresUpscaler::Model)
    }
}

impl fmt::Display for HiresUpscaler {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let name = HiresUpscaler::NAMES.iter().find(|(kind, _)| kind == self).map_or("", |(_, name)| name);
        f.write_str(name)
    }
}

impl FromStr for HiresUpscaler {
    type Err = String;

    /// In any case. `None` is what the web interface calls Lanczos' kernel where no upscaler is chosen.
    fn from_str(text: &str) -> std::result::Result<HiresUpscaler, String> {
        if text.eq_ignore_ascii_case("none") {
            return Ok(HiresUpscaler::Lanczos);
        }
        let found = HiresUpscaler::NAMES.iter().find(|(_, name)| name.eq_ignore_ascii_case(text));
        found.map(|(kind, _)| *kind).ok_or_else(|| {
            let names = HiresUpscaler::NAMES.map(|(_, name)| name).join(", ");
            format!("the upscaler `{text}` is unknown; there are {names}")
        })
    }
}

impl HiresRequest {
    /// Completes and checks it for an image of `size` (width and height in pixels) and so many steps.
    pub(crate) fn resolve(
        &self,
        size: (usize, usize),
        steps: usize,
        default_strength: f64,
        sizes: &PictureSizes,
    ) -> Result<Hires> {
        let (width, height) = self.size(size, sizes.factor)?;
        if width < size.0 || height < size.1 {
            let (base_width, base_height) = size;
            let message = format!("{width} x {height} is smaller than the image, {base_width} x {base_height}");
            return Err(invalid(self.size_key(), message));
        }
        if width > MAX_SIDE || height > MAX_SIDE {
            let message = format!("{width} x {height} is too large; {MAX_SIDE} is the longest side");
            return Err(invalid(self.size_key(), message));
        }
        let denoising_strength = self.denoising_strength.unwrap_or(default_strength);
        if !(denoising_strength > 0.0 && denoising_strength <= 1.0) {
            let message = format!("{denoising_strength} is out of range; allowed is above 0 to 1");
            return Err(invalid("hires.denoising_strength", message));
        }
        let steps = self.steps.filter(|steps| *steps > 0).unwrap_or(steps);
        if let Some(scale) = self.cfg_scale.filter(|scale| !(0.0..=MAX_CFG_SCALE).contains(scale)) {
            let message = format!("{scale} is out of range; allowed is 0 to {MAX_CFG_SCALE}");
            return Err(invalid("hires.cfg_scale", message));
        }
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        Ok(Hires {
            width,
            height,
            steps,
            denoising_strength,
            upscaler: self.upscaler.unwrap_or_default(),
            prompt: given(&self.prompt),
            negative_prompt: given(&self.negative_prompt),
            sampler: self.sampler,
            schedule: self.schedule,
            cfg_scale: self.cfg_scale,
        })
    }

    /// The key that decides the size.
    fn size_key(&self) -> &'static str {
        match (named(self.width), named(self.height)) {
            (Some(_), _) => "hires.width",
            (None, Some(_)) => "hires.height",
            (None, None) => "hires.scale",
        }
    }

    /// Width and height in pixels.
    fn size(&self, (width, height): (usize, usize), factor: usize) -> Result<(usize, usize)> {
        let down = |side: usize| side / factor * factor;
        for (key, side) in [("hires.width", named(self.width)), ("hires.height", named(self.height))] {
            if let Some(side) = side.filter(|side| !side.is_multiple_of(factor) || *side > MAX_SIDE) {
                return Err(invalid(key, format!("{side} is not allowed; multiples of {factor} up to {MAX_SIDE} are")));
            }
        }
        match (named(self.width), named(self.height)) {
            (Some(wide), Some(high)) => Ok((wide, high)),
            (Some(wide), None) => Ok((wide, down(wide * height / width))),
            (None, Some(high)) => Ok((down(high * width / height), high)),
            (None, None) => {
                let scale = self.scale.unwrap_or(DEFAULT_SCALE);
                if !(1.0..=MAX_SCALE).contains(&scale) {
                    let message = format!("{scale} is out of range; allowed is 1 to {MAX_SCALE}");
                    return Err(invalid("hires.scale", message));
                }
                let scaled = |side: usize| down((side as f64 * scale) as usize);
                Ok((scaled(width), scaled(height)))
            }
        }
    }
}

impl Hires {
    /// The smallest size that has the shape of `base` and covers this one; sizes are width and height, in any unit.
    pub(crate) fn covering((width, height): (usize, usize), base: (usize, usize)) -> (usize, usize) {
        if base.0 * height < width * base.1 {
            (width, (width * base.1 / base.0).max(height))
        } else {
            ((height * base.0 / base.1).max(width), height)
        }
    }

    /// The second pass's sampler, where the first one's is `first`.
    pub(crate) fn sampler_choice(&self, first: SamplerChoice) -> SamplerChoice {
        SamplerChoice { kind: self.sampler.unwrap_or(first.kind), schedule: self.schedule.or(first.schedule), ..first }
    }

    /// Steps of the whole schedule, of which the second pass makes the last `steps`.
    pub(crate) fn schedule_steps(&self) -> usize {
        // As the web interface has it.
        (self.steps as f64 / self.denoising_strength.min(0.999)) as usize
    }
}

/// A side that is given: 0 counts as none.
fn named(side: Option<usize>) -> Option<usize> {
    side.filter(|side| *side > 0)
}

/// An error in what is asked of the second pass, by the key that is at fault.
pub(crate) fn invalid(field: &'static str, message: String) -> Error {
    Error::InvalidParam { field, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::sample;

    fn resolve(request: HiresRequest) -> Result<Hires> {
        request.resolve((512, 384), 20, 0.75, &sample().picture)
    }

    fn size(scale: Option<f64>, width: Option<usize>, height: Option<usize>) -> (usize, usize) {
        let hires = resolve(HiresRequest { scale, width, height, ..HiresRequest::default() }).unwrap();
        (hires.width, hires.height)
    }

    #[test]
    fn the_size_follows_from_a_scale_or_from_sides() {
        assert_eq!(size(None, None, None), (1024, 768));
        assert_eq!(size(Some(1.3), None, None), (664, 496));
        assert_eq!(size(Some(3.0), Some(1000), Some(0)), (1000, 744));
        assert_eq!(size(None, None, Some(600)), (800, 600));
        assert_eq!(size(None, Some(1024), Some(1024)), (1024, 1024));
        assert_eq!(Hires::covering((128, 128), (64, 48)), (170, 128));
        assert_eq!(Hires::covering((128, 72), (64, 48)), (128, 96));
        assert_eq!(Hires::covering((128, 96), (64, 48)), (128, 96));
    }

    #[test]
    fn the_rest_comes_from_the_first_pass_or_is_the_web_interfaces_default() {
        let hires = resolve(HiresRequest { steps: Some(0), ..HiresRequest::default() }).unwrap();
        assert_eq!((hires.steps, hires.denoising_strength, hires.upscaler), (20, 0.75, HiresUpscaler::Latent));
        assert_eq!(hires.schedule_steps(), 26);
        let whole = Hires { steps: 7, denoising_strength: 1.0, ..hires.clone() };
        assert_eq!(whole.schedule_steps(), 7);
    }

    #[test]
    fn what_cannot_be_painted_is_refused_with_what_is_allowed() {
        let default = HiresRequest::default;
        for (request, expected) in [
            (HiresRequest { scale: Some(0.5), ..default() }, "hires.scale: 0.5 is out of range; allowed is 1 to 4"),
            (HiresRequest { scale: Some(f64::NAN), ..default() }, "hires.scale: NaN"),
            (HiresRequest { scale: Some(4.0), ..default() }, "2048 x 1536"),
            (HiresRequest { width: Some(2000), ..default() }, ""),
            (HiresRequest { width: Some(1001), ..default() }, "hires.width: 1001 is not allowed; multiples of 8"),
            (
                HiresRequest { width: Some(400), ..default() },
                "hires.width: 400 x 296 is smaller than the image, 512 x 384",
            ),
            (HiresRequest { height: Some(2048), ..default() }, "hires.height: 2728 x 2048 is too large"),
            (
                HiresRequest { cfg_scale: Some(51.0), ..default() },
                "hires.cfg_scale: 51 is out of range; allowed is 0 to 50",
            ),
            (HiresRequest { denoising_strength: Some(0.0), ..default() }, "hires.denoising_strength: 0 is out"),
            (HiresRequest { denoising_strength: Some(1.1), ..default() }, "hires.denoising_strength: 1.1 is out"),
        ] {
            match resolve(request) {
                Ok(hires) => assert!(expected.is_empty() || expected == format!("{} x {}", hires.width, hires.height)),
                Err(error) => assert!(!expected.is_empty() && error.to_string().contains(expected), "{error}"),
            }
        }
    }

    #[test]
    fn upscalers_have_the_web_interfaces_names() {
        for (kind, name) in HiresUpscaler::NAMES {
            assert_eq!((name.parse(), name.to_lowercase().parse()), (Ok(kind), Ok(kind)));
            assert_eq!((kind.to_string(), serde_json::to_value(kind).unwrap()), (name.to_owned(), name.into()));
        }
        assert_eq!("None".parse(), Ok(HiresUpscaler::Lanczos));
        let error = "R-ESRGAN 4x+".parse::<HiresUpscaler>().unwrap_err();
        assert!(error.contains("Latent (nearest-exact), Lanczos, Model"), "{error}");
    }
}
