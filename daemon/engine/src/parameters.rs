//! What a request asks for, made complete and checked before anything is computed.

pub use crate::bundle::{MAX_CFG_SCALE, MAX_SIDE, MAX_STEPS};
use crate::bundle::{Manifest, PictureSizes};
use crate::error::{Error, Result};
use crate::request::{Parameters, Request};

/// How much of an init image is repainted where the request is silent (as in A1111's web API).
const DEFAULT_STRENGTH: f64 = 0.75;

/// Fills in the model's defaults and checks every range. `init_size` is the init image's width and height, pixels.
pub(crate) fn resolve(request: &Request, init_size: Option<(u32, u32)>, manifest: &Manifest) -> Result<Parameters> {
    let sizes = &manifest.picture;
    let own = |side: fn((u32, u32)) -> u32| {
        let rounded = |size| ((side(size) as usize).min(MAX_SIDE) / sizes.factor * sizes.factor).max(sizes.smallest);
        init_size.map_or(sizes.default, rounded)
    };
    let steps = request.steps.unwrap_or(manifest.sampling.steps);
    let most_steps = MAX_STEPS.min(manifest.sampling.train_timesteps);
    if steps == 0 || steps > most_steps {
        return Err(invalid("steps", format!("{steps} is out of range; allowed are 1 to {most_steps}")));
    }
    let cfg_scale = request.cfg_scale.unwrap_or(manifest.sampling.cfg_scale);
    within("cfg_scale", cfg_scale, MAX_CFG_SCALE)?;
    let strength = request.strength.unwrap_or(DEFAULT_STRENGTH);
    within("denoising_strength", strength, 1.0)?;
    Ok(Parameters {
        prompt: request.prompt.clone(),
        negative_prompt: request.negative_prompt.clone(),
        width: side("width", request.width.unwrap_or_else(|| own(|size| size.0)), sizes)?,
        height: side("height", request.height.unwrap_or_else(|| own(|size| size.1)), sizes)?,
        steps,
        cfg_scale,
        seed: request.seed,
        sampler: request.sampler.unwrap_or(manifest.sampling.default),
        strength: init_size.is_some().then_some(strength),
    })
}

/// A width or height that the model can paint, or the ones next to it.
fn side(field: &'static str, value: usize, sizes: &PictureSizes) -> Result<usize> {
    let (unit, least) = (sizes.factor, sizes.smallest);
    let most = MAX_SIDE / unit * unit;
    if (least..=most).contains(&value) && value.is_multiple_of(unit) {
        return Ok(value);
    }
    let nearest = match value {
        value if value < least => format!("the nearest is {least}"),
        value if value > most => format!("the nearest is {most}"),
        value => format!("the nearest are {} and {}", value / unit * unit, value.next_multiple_of(unit)),
    };
    let message =
        format!("{value} is not allowed; this model takes multiples of {unit} from {least} to {most}, {nearest}");
    Err(invalid(field, message))
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
    use crate::sampler::SamplerKind;

    fn refused(request: Request) -> (&'static str, String) {
        match resolve(&request, None, &sample()) {
            Err(Error::InvalidParam { field, message }) => (field, message),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn silence_means_the_models_defaults() {
        let found = resolve(&Request { prompt: "a house".into(), ..Request::default() }, None, &sample()).unwrap();
        assert_eq!((found.width, found.height, found.steps, found.cfg_scale), (512, 512, 20, 7.5));
        assert_eq!((found.sampler, found.strength), (SamplerKind::Pndm, None));
    }

    #[test]
    fn an_init_image_gives_its_size_rounded_down() {
        let found = resolve(&Request::default(), Some((700, 63)), &sample()).unwrap();
        assert_eq!((found.width, found.height, found.strength), (696, 64, Some(0.75)));
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
    }
}
