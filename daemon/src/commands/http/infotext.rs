//! `/sdapi/v1/png-info`: the parameters that an image file carries, as text and key by key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::answer::HttpFault;
use crate::painting::pictures::text_of;

/// What an image says of itself.
pub(super) fn of_image(request: &Map<String, Value>) -> Result<Value, HttpFault> {
    let Some(Value::String(text)) = request.get("image") else {
        return Err(HttpFault::param("image", "expected an image in base64"));
    };
    let text = text.split_once("base64,").map_or(text.as_str(), |(_, data)| data);
    let broken = |error| HttpFault::param("image", format!("the image's base64 is broken: {error}"));
    let bytes = STANDARD.decode(text.trim()).map_err(broken)?;
    let is_image = image::guess_format(&bytes).is_ok();
    if !is_image {
        return Err(HttpFault::param("image", "is no image file"));
    }
    let info = text_of(&bytes);
    let items = info.as_ref().map_or(json!({}), |text| json!({"parameters": text}));
    let text = info.unwrap_or_default();
    Ok(json!({"info": text, "items": items, "parameters": parse(&text)}))
}

/// The values of a text by their names. Its last line has those that are neither prompt.
fn parse(text: &str) -> Map<String, Value> {
    let mut parameters = Map::new();
    let (prompts, values) = match text.rsplit_once('\n') {
        Some((prompts, last)) if last.starts_with("Steps: ") => (prompts, last),
        _ => (text, ""),
    };
    let (prompt, negative) = prompts.split_once("\nNegative prompt: ").unwrap_or((prompts, ""));
    if !text.is_empty() {
        parameters.insert("Prompt".to_owned(), json!(prompt));
        parameters.insert("Negative prompt".to_owned(), json!(negative));
    }
    let mut rest = values;
    while let Some((name, after)) = rest.split_once(": ") {
        let (value, after) = value(after);
        parameters.insert(name.to_owned(), json!(value));
        rest = after;
    }
    let size = parameters.get("Size").and_then(Value::as_str).and_then(|size| size.split_once('x'));
    if let Some((width, height)) = size.map(|(width, height)| (json!(width), json!(height))) {
        parameters.insert("Size-1".to_owned(), width);
        parameters.insert("Size-2".to_owned(), height);
    }
    parameters
}

/// The value that a text begins with, which is quoted as in JSON where it has commas, and what follows.
fn value(text: &str) -> (String, &str) {
    if text.starts_with('"') {
        let mut values = serde_json::Deserializer::from_str(text).into_iter::<String>();
        if let Some(Ok(value)) = values.next() {
            let after = &text[values.byte_offset()..];
            return (value, after.trim_start_matches(", "));
        }
    }
    let (value, after) = text.split_once(", ").unwrap_or((text, ""));
    (value.to_owned(), after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_by_their_names() {
        let text = "a house,\nat night\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, Size: 64x32, Hires prompt: \
                    \"a, \\\"b\\\": c\", Version: diffused 1";
        let parameters = Value::Object(parse(text));
        let expected = json!({
            "Prompt": "a house,\nat night", "Negative prompt": "blurry", "Steps": "20", "Sampler": "Euler a",
            "Size": "64x32", "Size-1": "64", "Size-2": "32", "Hires prompt": "a, \"b\": c", "Version": "diffused 1",
        });
        assert_eq!(parameters, expected);
        assert_eq!(
            Value::Object(parse("a cat\nSteps: 5")),
            json!({"Prompt": "a cat", "Negative prompt": "", "Steps": "5"})
        );
        assert_eq!(
            Value::Object(parse("only a prompt: with this")),
            json!({"Prompt": "only a prompt: with this", "Negative prompt": ""})
        );
        assert!(parse("").is_empty());
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let read = |image: Value| of_image(&Map::from_iter([("image".to_owned(), image)]));
        for image in [json!(7), json!("?"), json!(STANDARD.encode("text")), Value::Null] {
            assert_eq!(read(image).unwrap_err().status.as_u16(), 422);
        }
        let house = STANDARD.encode(include_bytes!("../../../assets/house.png"));
        let shown = read(json!(format!("data:image/png;base64,{house}"))).unwrap();
        assert!(shown["info"].is_string() && shown["items"].is_object(), "{shown}");
    }
}
