//! Images inside a request, as base64.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
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
    let text = text.split_once("base64,").map_or(text.as_str(), |(_, data)| data);
    // Some tools wrap the lines.
    let unwrapped: String = text.split_ascii_whitespace().collect();
    let decoded = BASE64.decode(unwrapped);
    decoded.map(Some).map_err(|error| Fault::param(FIELD, format!("the image's base64 is broken: {error}")))
}

/// Some tools leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
