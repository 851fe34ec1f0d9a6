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

/// The object that a text is; it and all that it holds have no key twice.
pub fn object(text: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(trimmed(text)) {
        Ok(Unambiguous(Value::Object(object))) => Ok(object),
        Ok(_) => Err("expected a JSON object".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// An object is a request, any other text is the prompt itself.
pub(super) fn read(payload: &[u8]) -> Result<Payload, Fault> {
    let invalid = |message: String| Fault::new(Code::InvalidJson, message);
    let other = || invalid("expected a JSON object such as {\"prompt\": \"a cat\"}, or a prompt as plain text".into());
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
        Ok(Unambiguous(Value::Object(object))) => Ok(Payload::Object(Fields::new(object))),
        Ok(Unambiguous(Value::String(prompt))) => Ok(Payload::Prompt(prompt, None)),
        Ok(_) => Err(other()),
        Err(error) if text.starts_with('{') => {
            Err(invalid(format!("the payload looks like JSON but does not parse: {error}")))
        }
        // What is nested too deeply to be read is JSON all the same.
        Err(_) if serde_json::from_str::<IgnoredAny>(text).is_ok() => Err(other()),
        Err(_) => Ok(Payload::Prompt(text.to_owned(), broken_json(text))),
    }
}

fn broken_json(text: &str) -> Option<String> {
    let looks_so = text.starts_with("'{") || text.starts_with("[{") || text.contains("\"prompt\"");
    looks_so.then(|| "the payload looks like JSON but does not parse; its text was taken for the prompt".to_owned())
}

/// A JSON value of which no object, however deep, has a key twice.
struct Unambiguous(Value);

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Unambiguous, D::Error> {
        deserializer.deserialize_any(UnambiguousVisitor).map(Unambiguous)
    }
}

struct UnambiguousVisitor;

impl<'de> Visitor<'de> for UnambiguousVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((key, Unambiguous(value))) = entries.next_entry::<String, Unambiguous>()? {
            if object.contains_key(&key) {
                let shown: String = key.chars().take(80).collect();
                return Err(A::Error::custom(format!("the key {shown:?} is there twice")));
            }
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(Unambiguous(item)) = items.next_element()? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Value, E> {
        Ok(flag.into())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}
