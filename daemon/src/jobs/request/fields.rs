//! A JSON object whose keys are taken out one by one, each with an error that names it; what is left over at the
//! end was not understood.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::contract::fault::Fault;

/// The keys that were not taken yet.
#[derive(Debug)]
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    pub(super) fn new(object: Map<String, Value>) -> Fields {
        Fields(object)
    }

    /// As if the text had come as `{"prompt": …}`.
    pub(super) fn of_prompt(prompt: String) -> Fields {
        Fields(Map::from_iter([("prompt".to_owned(), Value::String(prompt))]))
    }

    /// The value of `key`; `null` counts as missing.
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.0.remove(key).filter(|value| !value.is_null())
    }

    /// Leaves what was not understood of an object for the warnings.
    pub(super) fn put_back(&mut self, key: &str, rest: Fields) {
        self.0.extend(rest.0.into_iter().map(|(inner, value)| (format!("{key}.{inner}"), value)));
    }

    pub(super) fn text(&mut self, key: &str) -> Result<Option<String>, Fault> {
        match self.take(key) {
            None => Ok(None),
            // Tools in C send the end of their strings too.
            Some(Value::String(text)) => match text.trim_end_matches('\0') {
                text if text.contains('\0') => Err(Fault::param(key, "holds a NUL character")),
                text => Ok(Some(text.to_owned())),
            },
            Some(other) => Err(Fault::param(key, format!("expected text, got {}", shown(&other)))),
        }
    }

    pub(super) fn number(&mut self, key: &str) -> Result<Option<f64>, Fault> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let number = value.as_f64().filter(|number| number.is_finite());
        number.map(Some).ok_or_else(|| Fault::param(key, format!("expected a number, got {}", shown(&value))))
    }

    /// True or false, or 1 or 0.
    pub(super) fn flag(&mut self, key: &str) -> Result<Option<bool>, Fault> {
        let Some(value) = self.take(key) else { return Ok(None) };
        match (&value, whole(&value)) {
            (Value::Bool(flag), _) => Ok(Some(*flag)),
            (_, Some(number @ (0 | 1))) => Ok(Some(number == 1)),
            _ => Err(Fault::param(key, format!("expected true or false, got {}", shown(&value)))),
        }
    }

    /// A whole number within `range`; 20.0 is one too.
    pub(super) fn whole(&mut self, key: &str, range: RangeInclusive<i64>) -> Result<Option<i64>, Fault> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let Some(number) = whole(&value) else {
            return Err(Fault::param(key, format!("expected a whole number, got {}", shown(&value))));
        };
        if !range.contains(&number) {
            let (least, most) = range.into_inner();
            return Err(Fault::param(key, format!("{number} is out of range; allowed are {least} to {most}")));
        }
        Ok(Some(number))
    }

    /// A whole number from 0; the model's own range is checked later.
    pub(super) fn size(&mut self, key: &str) -> Result<Option<usize>, Fault> {
        Ok(self.whole(key, 0..=i64::from(i32::MAX))?.and_then(|number| usize::try_from(number).ok()))
    }

    /// A warning for each key that was not taken.
    pub(super) fn leftovers(&mut self) -> Vec<String> {
        let warning =
            |key: &String| format!("`{}` is unknown and was left out", key.chars().take(80).collect::<String>());
        self.0.iter().filter(|(_, value)| !value.is_null()).map(|(key, _)| warning(key)).take(20).collect()
    }
}

/// A whole number; 20.0 is one too.
#[expect(clippy::cast_possible_truncation, reason = "the float is a whole number below 1e15")]
pub fn whole(value: &Value) -> Option<i64> {
    let from_float = || value.as_f64().filter(|n| n.fract() == 0.0 && n.abs() < 1e15).map(|n| n as i64);
    value.as_i64().or_else(from_float)
}

/// A value as errors show it: short.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
        Value::String(text) if text.chars().count() > 40 => "a long text".into(),
        other => other.to_string(),
    }
}
