//! The mask of an init image and the keys that say how it is used, under the web API's names.

use diffused_engine::inpainting::{Inpainting, MaskedContent};
use serde_json::Value;

use super::fields::{self, Fields};
use super::{RequestMode, images};
use crate::contract::fault::Fault;

/// Pixels around the mask's box that are painted with it, where a request does not say.
pub const PADDING: u32 = 32;

/// The mask, out of its base64.
pub(super) fn mask(fields: &mut Fields, mode: RequestMode) -> Result<Option<Vec<u8>>, Fault> {
    match (mode, fields.text("mask")?) {
        (_, None) => Ok(None),
        (RequestMode::Img2Img, Some(text)) => images::decoded("mask", &text).map(Some),
        (RequestMode::Txt2Img, Some(_)) => {
            Err(Fault::param("mask", "belongs to img2img, beside an init image; publish it there"))
        }
    }
}

/// How what is masked is repainted, if there is a mask, and what of it has no effect.
pub(super) fn inpainting(fields: &mut Fields, with_mask: bool) -> Result<(Option<Inpainting>, Option<String>), Fault> {
    let blur = fields.number("mask_blur")?;
    let (blur_x, blur_y) = (fields.number("mask_blur_x")?, fields.number("mask_blur_y")?);
    let content = content(fields.take("inpainting_fill"))?;
    let invert = fields.flag("inpainting_mask_invert")?;
    let region_only = fields.flag("inpaint_full_res")?;
    let padding = fields.whole("inpaint_full_res_padding", 0..=8192)?.and_then(|padding| u32::try_from(padding).ok());
    let keep_unmasked = fields.flag("keep_unmasked")?;
    let given = [
        ("mask_blur", blur.is_some()),
        ("mask_blur_x", blur_x.is_some()),
        ("mask_blur_y", blur_y.is_some()),
        ("inpainting_fill", content.is_some()),
        ("inpainting_mask_invert", invert.is_some()),
        ("inpaint_full_res", region_only.is_some()),
        ("inpaint_full_res_padding", padding.is_some()),
        ("keep_unmasked", keep_unmasked.is_some()),
    ];
    if !with_mask {
        let given = given.into_iter().filter(|(_, given)| *given).map(|(key, _)| key).collect::<Vec<_>>();
        let warning = (!given.is_empty()).then(|| format!("no effect without a mask: {}", given.join(", ")));
        return Ok((None, warning));
    }
    let default = Inpainting::default();
    let region_only = region_only.unwrap_or(default.region_only);
    let useless = !region_only && padding.is_some_and(|padding| padding > 0);
    let inpainting = Inpainting {
        blur_x: blur_x.or(blur).unwrap_or(default.blur_x),
        blur_y: blur_y.or(blur).unwrap_or(default.blur_y),
        content: content.unwrap_or(default.content),
        invert: invert.unwrap_or(default.invert),
        region_only,
        padding: if region_only { padding.unwrap_or(PADDING) } else { 0 },
        keep_unmasked: keep_unmasked.unwrap_or(default.keep_unmasked),
    };
    let warning = useless.then(|| "inpaint_full_res_padding has no effect without inpaint_full_res".to_owned());
    Ok((Some(inpainting), warning))
}

/// By number or by name.
fn content(value: Option<Value>) -> Result<Option<MaskedContent>, Fault> {
    let wrong = |message: String| Fault::param("inpainting_fill", message);
    let text = match value {
        None => return Ok(None),
        Some(Value::String(name)) => name.chars().take(80).collect(),
        Some(value) => match fields::whole(&value) {
            Some(number) => number.to_string(),
            None => return Err(wrong(format!("expected 0 to 3 or a name, got {}", fields::shown(&value)))),
        },
    };
    text.parse().map(Some).map_err(wrong)
}
