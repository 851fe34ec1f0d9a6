//! A configuration file whose every key must be answered for: taken, ignored by name, refused by name, or told of.
//!
//! A key that nobody knows changes nothing in the reference, which drops it with a warning; so do we.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// The most layers of a kind; the graph is built before the weights are looked at, and must end.
pub(crate) const MAX_LAYERS: usize = 1000;

/// The most resolutions; each halves the one before.
const MAX_LEVELS: usize = 8;

/// The most characters of a value that a message shows.
const MAX_SHOWN: usize = 500;

/// The configurations of a model by their paths in a diffusers folder: a folder's files, or values that stand for them.
pub(crate) struct ConfigFiles {
    place: PathBuf,
    values: Option<BTreeMap<&'static str, Value>>,
}

impl ConfigFiles {
    /// The files of a diffusers folder.
    pub(crate) fn folder(folder: &Path) -> ConfigFiles {
        ConfigFiles { place: folder.to_owned(), values: None }
    }

    /// What stands for the files of a model at `place`, which has none.
    pub(crate) fn values(place: &Path, values: BTreeMap<&'static str, Value>) -> ConfigFiles {
        ConfigFiles { place: place.to_owned(), values: Some(values) }
    }

    /// Where `file` is, or the model that it is of.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        if self.values.is_some() { self.place.clone() } else { self.place.join(file) }
    }

    /// `file` is there.
    pub(crate) fn has(&self, file: &str) -> bool {
        match &self.values {
            Some(values) => values.contains_key(file),
            None => self.place.join(file).exists(),
        }
    }

    /// The keys of `file`.
    pub(crate) fn keys(&self, file: &str) -> Result<Keys> {
        let Some(values) = &self.values else { return Keys::open(&self.place.join(file)) };
        match values.get(file) {
            Some(value) => Ok(Keys::of(&self.place, value.clone())),
            None => Err(Error::file(&self.place, format!("nothing tells what {file} would say"))),
        }
    }
}

/// The keys of a JSON object that nobody has asked for yet.
pub(crate) struct Keys {
    path: PathBuf,
    map: Map<String, Value>,
}

impl Keys {
    /// Reads the file. Python's `Infinity` and `NaN`, which are not JSON, become strings.
    pub(crate) fn open(path: &Path) -> Result<Keys> {
        let mut text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        for number in ["-Infinity", "Infinity", "NaN"] {
            text = text.replace(&format!(": {number}"), &format!(": \"{number}\""));
        }
        let map = serde_json::from_str(&text).map_err(|error| Error::file(path, format!("no JSON object: {error}")))?;
        Ok(Keys { path: path.to_owned(), map })
    }

    /// The keys of `value`, which stands for a file that is not there.
    pub(crate) fn of(path: &Path, value: Value) -> Keys {
        let map = if let Value::Object(map) = value { map } else { Map::new() };
        Keys { path: path.to_owned(), map }
    }

    /// Whether nobody has asked yet for `key`, which is there.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// The file's path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The value of `key`, if it is there.
    pub(crate) fn take(&mut self, key: &str) -> Option<Value> {
        self.map.remove(key)
    }

    /// Whether `key` has this value.
    pub(crate) fn is(&self, key: &str, value: &Value) -> bool {
        self.map.get(key) == Some(value)
    }

    /// The value of `key`, if it is there and not null.
    pub(crate) fn some(&mut self, key: &str) -> Option<Value> {
        self.take(key).filter(|value| !value.is_null())
    }

    /// A count of at least one.
    pub(crate) fn count(&mut self, key: &str, default: usize) -> Result<usize> {
        let Some(value) = self.take(key) else { return Ok(default) };
        self.as_count(key, &value)
    }

    /// A count of layers: at least one, and not more than any model has.
    pub(crate) fn layers(&mut self, key: &str, default: usize) -> Result<usize> {
        let layers = self.count(key, default)?;
        match layers <= MAX_LAYERS {
            true => Ok(layers),
            false => Err(self.refuse(key, &layers.into(), &format!("1 to {MAX_LAYERS}"))),
        }
    }

    /// A count of at least one, or null.
    pub(crate) fn optional_count(&mut self, key: &str) -> Result<Option<usize>> {
        self.some(key).map(|value| self.as_count(key, &value)).transpose()
    }

    /// A list of counts.
    pub(crate) fn counts(&mut self, key: &str, default: &[usize]) -> Result<Vec<usize>> {
        match self.take(key) {
            None => Ok(default.to_vec()),
            Some(Value::Array(values)) if !values.is_empty() => {
                values.iter().map(|value| self.as_count(key, value)).collect()
            }
            Some(other) => Err(self.refuse(key, &other, "a list of positive integers")),
        }
    }

    /// The channels of each resolution, finest first.
    pub(crate) fn levels(&mut self, key: &str, default: &[usize]) -> Result<Vec<usize>> {
        let channels = self.counts(key, default)?;
        match channels.len() <= MAX_LEVELS {
            true => Ok(channels),
            false => Err(self.refuse(key, &channels.into(), &format!("a list of at most {MAX_LEVELS}"))),
        }
    }

    /// One count for each of `blocks` blocks: a list of them, or one for all.
    pub(crate) fn count_per_block(&mut self, key: &str, blocks: usize, default: usize) -> Result<Vec<usize>> {
        match self.take(key) {
            None => Ok(vec![default; blocks]),
            Some(Value::Array(values)) if values.len() == blocks => {
                values.iter().map(|value| self.as_count(key, value)).collect()
            }
            Some(value @ Value::Number(_)) => Ok(vec![self.as_count(key, &value)?; blocks]),
            Some(other) => {
                Err(self.refuse(key, &other, &format!("a positive integer or a list of {blocks}, one for each block")))
            }
        }
    }

    /// A number.
    pub(crate) fn number(&mut self, key: &str, default: f64) -> Result<f64> {
        match self.take(key) {
            None => Ok(default),
            Some(value) => value.as_f64().ok_or_else(|| self.refuse(key, &value, "a number")),
        }
    }

    /// A number as f32, which is what the graphs hold.
    #[expect(clippy::cast_possible_truncation, reason = "rounds to the nearest f32")]
    pub(crate) fn single(&mut self, key: &str, default: f64) -> Result<f32> {
        Ok(self.number(key, default)? as f32)
    }

    /// What a norm adds to the variance, as f32.
    pub(crate) fn epsilon(&mut self, key: &str, default: f64) -> Result<f32> {
        let value = self.single(key, default)?;
        match value > 0.0 && value < 1.0 {
            true => Ok(value),
            false => Err(self.refuse(key, &value.into(), "more than 0 and less than 1")),
        }
    }

    /// A boolean.
    pub(crate) fn flag(&mut self, key: &str, default: bool) -> Result<bool> {
        match self.take(key) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.refuse(key, &value, "true or false")),
        }
    }

    /// A boolean, or null.
    pub(crate) fn optional_flag(&mut self, key: &str) -> Result<Option<bool>> {
        let value = self.some(key);
        value.map(|value| value.as_bool().ok_or_else(|| self.refuse(key, &value, "true, false or null"))).transpose()
    }

    /// One of `choices`, each a JSON value and what it means; `None` where the key is absent.
    pub(crate) fn choice<T: Copy>(&mut self, key: &str, choices: &[(Value, T)]) -> Result<Option<T>> {
        let Some(value) = self.take(key) else { return Ok(None) };
        if let Some((_, meaning)) = choices.iter().find(|(choice, _)| same(choice, &value)) {
            return Ok(Some(*meaning));
        }
        let supported: Vec<String> = choices.iter().map(|(choice, _)| choice.to_string()).collect();
        Err(self.refuse(key, &value, &supported.join(", ")))
    }

    /// Refuses any value of `key` but these.
    pub(crate) fn only(&mut self, key: &str, allowed: &[Value]) -> Result<()> {
        let choices: Vec<(Value, ())> = allowed.iter().map(|value| (value.clone(), ())).collect();
        self.choice(key, &choices).map(drop)
    }

    /// Drops keys that do not change what is computed.
    pub(crate) fn ignore(&mut self, keys: &[&str]) {
        for key in keys {
            self.map.remove(*key);
        }
    }

    /// The keys that are left.
    pub(crate) fn left(&self) -> impl Iterator<Item = &str> {
        self.map.keys().map(String::as_str)
    }

    /// What to say of the keys that are left, which nobody knows.
    pub(crate) fn left_over(self) -> Option<String> {
        let left: Vec<&str> = self.left().collect();
        match left.is_empty() {
            true => None,
            false => Some(format!("{}: not taken over: {}", self.path.display(), left.join(", "))),
        }
    }

    /// The error for a value that is not supported.
    pub(crate) fn refuse(&self, key: &str, value: &Value, supported: &str) -> Error {
        Error::Config {
            path: self.path.clone(),
            key: key.into(),
            value: shortened(value.to_string()),
            supported: shortened(supported.into()),
        }
    }

    /// `value` of `key` as a count of at least one.
    pub(crate) fn as_count(&self, key: &str, value: &Value) -> Result<usize> {
        let count = value.as_u64().and_then(|count| usize::try_from(count).ok()).filter(|count| *count > 0);
        count.ok_or_else(|| self.refuse(key, value, "a positive integer"))
    }
}

/// Its beginning, of a text that is too long for a message.
fn shortened(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(MAX_SHOWN) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Equal, where 1 and 1.0 are.
pub(crate) fn same(a: &Value, b: &Value) -> bool {
    a == b || a.is_number() && a.as_f64() == b.as_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn keys(value: Value) -> Keys {
        let Value::Object(map) = value else { panic!("an object") };
        Keys { path: "unet/config.json".into(), map }
    }

    #[test]
    fn a_count_per_block_is_one_for_all_or_a_list() {
        assert_eq!(keys(json!({"n": 3})).count_per_block("n", 2, 1).unwrap(), [3, 3]);
        assert_eq!(keys(json!({"n": [3, 4]})).count_per_block("n", 2, 1).unwrap(), [3, 4]);
        assert_eq!(keys(json!({})).count_per_block("n", 2, 1).unwrap(), [1, 1]);
        for wrong in [json!([3]), json!([3, 0]), json!("3"), json!(1.5), json!(null)] {
            let error = keys(json!({"n": wrong})).count_per_block("n", 2, 1).unwrap_err().to_string();
            assert!(error.starts_with("unet/config.json: n is "), "{error}");
        }
    }

    #[test]
    fn a_long_value_is_shown_by_its_beginning() {
        let error = keys(json!({"n": vec![1; 100_000]})).count("n", 1).unwrap_err().to_string();
        assert!(error.len() < 2 * MAX_SHOWN && error.contains("n is [1,1,1,"), "{error}");
        assert!(error.ends_with("…; supported: a positive integer"), "{error}");
    }

    #[test]
    fn an_epsilon_is_one_that_norms_take() {
        assert_eq!(keys(json!({"eps": 1e-5})).epsilon("eps", 1e-6).unwrap(), 1e-5);
        // The last is 0 in single precision.
        for wrong in [json!(0), json!(-1), json!(1), json!(1e-60)] {
            let error = keys(json!({"eps": wrong})).epsilon("eps", 1e-6).unwrap_err().to_string();
            assert!(error.ends_with("supported: more than 0 and less than 1"), "{error}");
        }
    }

    #[test]
    fn what_nobody_took_is_told_by_name() {
        let mut keys = keys(json!({"a": 1, "_class_name": "X", "b": [true]}));
        assert_eq!(keys.count("a", 2).unwrap(), 1);
        keys.ignore(&["_class_name", "absent"]);
        assert_eq!(keys.left_over().unwrap(), "unet/config.json: not taken over: b");
    }

    #[test]
    fn other_values_than_the_allowed_are_refused_with_the_allowed() {
        let mut keys = keys(json!({"factor": 1.0, "act_fn": "mish"}));
        keys.only("factor", &[json!(1)]).unwrap();
        let error = keys.only("act_fn", &[json!("silu"), json!("swish")]).unwrap_err().to_string();
        assert_eq!(error, "unet/config.json: act_fn is \"mish\"; supported: \"silu\", \"swish\"");
    }
}
