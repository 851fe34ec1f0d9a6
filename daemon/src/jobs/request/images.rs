//! Images inside a request, as base64, and how they are used.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use diffused_engine::picture::{Colour, Fit};
use serde_json::Value;

use crate::contract::fault::Fault;
use crate::jobs::request::RequestMode;
use crate::jobs::request::fields::Fields;

/// The one init image, out of its base64.
pub(super) fn init_image(fields: &mut Fields, mode: RequestMode) -> Result<Option<Vec<u8>>, Fault> {
    const FIELD: &str = "init_images";
    let images = match (mode, fields.take(FIELD)) {
        (RequestMode::Txt2Img, None) => return Ok(None),
        (RequestMode::Txt2Img, Some(_)) => return Err(Fault::param(FIELD, "belongs to img2img; publish it there")),
        (RequestMode::Img2Img, images) => images,
    };
    let Some(Value::Array(images)) = images else {
        return Err(Fault::param(FIELD, "expected a list with one image in base64"));
    };
    let [Value::String(text)] = images.as_slice() else {
        return Err(Fault::param(FIELD, format!("expected one image in base64, got {} entries", images.len())));
    };
    decoded(FIELD, text).map(Some)
}

/// The bytes of an image that `field` has in base64, perhaps as a data URL.
pub(super) fn decoded(field: &str, text: &str) -> Result<Vec<u8>, Fault> {
    let text = text.split_once("base64,").map_or(text, |(_, data)| data);
    // Some tools wrap the lines.
    let unwrapped: String = text.split_ascii_whitespace().collect();
    let decoded = BASE64.decode(unwrapped);
    decoded.map_err(|error| Fault::param(field, format!("the image's base64 is broken: {error}")))
}

/// How the init image fits, by our name or by the web API's number.
pub(super) fn fit(fields: &mut Fields) -> Result<Option<Fit>, Fault> {
    let wrong = |message: String| Fault::param("fit", message);
    let named = fields.text("fit")?.map(|name| shortened(&name).parse::<Fit>().map_err(wrong)).transpose()?;
    let numbered = match fields.whole("resize_mode", 0..=2)? {
        None => None,
        Some(0) => Some(Fit::Stretch),
        Some(1) => Some(Fit::Cover),
        Some(_) => Some(Fit::Contain),
    };
    if named.is_some() && numbered.is_some() && named != numbered {
        return Err(Fault::param("resize_mode", "asks for another fit than `fit`; give one of them"));
    }
    Ok(named.or(numbered))
}

/// What lies under the init image.
pub(super) fn background(fields: &mut Fields) -> Result<Option<Colour>, Fault> {
    let wrong = |message: String| Fault::param("background", message);
    fields.text("background")?.map(|text| text.parse().map_err(wrong)).transpose()
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Some tools leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
