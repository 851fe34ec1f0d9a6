//! A payload is a JSON object or a prompt as plain text. What people's tools add is taken off: a byte order mark, and NULs at
//! the end.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::fields::Fields;
use crate::contract::fault::{Code, Fault};

/// A payload's two forms.
pub(super) enum Payload {
    /// A request.
    Object(Fields),
    /// The prompt itself, with a warning where it looks like something else.
    Prompt(String, Option<String>),
}

/// Without what people's tools add.
pub fn trimmed(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text).trim_end_matches('\0').trim()
}

/// Whether a payload that was read is a prompt and not an object.
pub fn is_plain_text(payload: &[u8]) -> bool {
    std::str::from_utf8(payload).is_ok_and(|text| !trimmed(text).starts_with('{'))
}

/// The object that a text is, which has no key twice.
pub fn object(text: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(trimmed(text)) {
        Ok(Json::Object(object)) => Ok(object),
        Ok(Json::Text(_) | Json::Other) => Err("expected a JSON object".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// An object is a request, any other text is the prompt itself.
pub(super) fn read(payload: &[u8]) -> Result<Payload, Fault> {
    let invalid = |message: String| Fault::new(Code::InvalidJson, message);
    let text = std::str::from_utf8(payload)
        .map_err(|_| invalid("the payload is neither a JSON object nor a prompt in UTF-8".into()))?;
    let text = trimmed(text);
    if text.is_empty() {
        return Err(Fault::param("prompt", "the payload is empty; send a prompt or a JSON object"));
    }
    if text.contains('\0') {
        return Err(invalid("the payload holds a NUL character".into()));
    }
    match serde_json::from_str(text) {
        Ok(Json::Object(object)) => Ok(Payload::Object(Fields::new(object))),
        Ok(Json::Text(prompt)) => Ok(Payload::Prompt(prompt, None)),
        Ok(Json::Other) => {
            Err(invalid("expected a JSON object such as {\"prompt\": \"a cat\"}, or a prompt as plain text".into()))
        }
        Err(error) if text.starts_with('{') => {
            Err(invalid(format!("the payload looks like JSON but does not parse: {error}")))
        }
        Err(_) => Ok(Payload::Prompt(text.to_owned(), broken_json(text))),
    }
}

fn broken_json(text: &str) -> Option<String> {
    let looks_so = text.starts_with("'{") || text.starts_with("[{") || text.contains("\"prompt\"");
    looks_so.then(|| "the payload looks like JSON but does not parse; its text was taken for the prompt".to_owned())
}

/// A JSON text, as far as its kind matters. An object that has a key twice is an error.
enum Json {
    Object(Map<String, Value>),
    Text(String),
    Other,
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut object = Map::new();
        while let Some((key, value)) = entries.next_entry::<String, Value>()? {
            if object.contains_key(&key) {
                let shown: String = key.chars().take(80).collect();
                return Err(A::Error::custom(format!("the key {shown:?} is there twice")));
            }
            object.insert(key, value);
        }
        Ok(Json::Object(object))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Json::Other)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_unit<E: Error>(self) -> Result<Json, E> {
        Ok(Json::Other)
    }
}
