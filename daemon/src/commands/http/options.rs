//! `/sdapi/v1/options`: of A1111's settings those that can be obeyed. They hold for the requests that come by HTTP, until
//! the process ends.

use serde_json::{Map, Value, json};

use super::answer::HttpFault;
use super::lists::short_hash;
use super::translate::asks_for_nothing;
use crate::contract::info::DeviceInfo;
use crate::contract::request::FileFormat;
use crate::jobs::request::whole;

const CHECKPOINT: &str = "sd_model_checkpoint";
const FORMAT: &str = "samples_format";
const CLIP_SKIP: &str = "CLIP_stop_at_last_layers";
const PREVIEWS: &str = "live_previews_enable";

/// What requests that do not say so themselves are painted with.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct WebOptions {
    /// The image files' format; the device's own if not set.
    pub(super) format: Option<FileFormat>,
    /// The model's own if not set.
    pub(super) clip_skip: Option<i64>,
    /// Whether the progress has an image.
    pub(super) previews: bool,
}

impl Default for WebOptions {
    fn default() -> WebOptions {
        WebOptions { format: None, clip_skip: None, previews: true }
    }
}

/// The settings, by A1111's names.
pub(super) fn shown(options: &WebOptions, info: &DeviceInfo) -> Value {
    json!({
        CHECKPOINT: info.model.name,
        "sd_checkpoint_hash": info.model.sha256,
        FORMAT: options.format.unwrap_or(FileFormat::Png).extension(),
        CLIP_SKIP: options.clip_skip,
        PREVIEWS: options.previews,
    })
}

/// `options` with these settings instead, if all of them can be obeyed.
pub(super) fn changed(
    options: &WebOptions,
    settings: Map<String, Value>,
    info: &DeviceInfo,
) -> Result<WebOptions, HttpFault> {
    let (mut options, left) = with(options, settings, "", Some(info))?;
    let mut unknown = left.iter().filter(|(key, _)| !["sd_checkpoint_hash", PREVIEWS].contains(&key.as_str()));
    if let Some((key, _)) = unknown.find(|(_, value)| !asks_for_nothing(value)) {
        let key: String = key.chars().take(80).collect();
        let known = [CHECKPOINT, FORMAT, CLIP_SKIP, PREVIEWS].join(", ");
        return Err(HttpFault::param(&key, format!("is no setting of this device; it has {known}")));
    }
    match left.get(PREVIEWS) {
        None | Some(Value::Null) => {}
        Some(Value::Bool(previews)) => options.previews = *previews,
        Some(_) => return Err(HttpFault::param(PREVIEWS, "expected true or false")),
    }
    Ok(options)
}

/// `options` with those of the settings that requests may override, too, and what is left of them. Errors name their keys
/// below `within`.
pub(super) fn with(
    options: &WebOptions,
    mut settings: Map<String, Value>,
    within: &str,
    info: Option<&DeviceInfo>,
) -> Result<(WebOptions, Map<String, Value>), HttpFault> {
    let mut options = options.clone();
    let wrong = |key: &str, message: String| HttpFault::param(&format!("{within}{key}"), message);
    match settings.remove(CHECKPOINT) {
        Some(Value::String(name)) => check_model(&name, info).map_err(|message| wrong(CHECKPOINT, message))?,
        None | Some(Value::Null) => {}
        Some(_) => return Err(wrong(CHECKPOINT, "expected a model's name".to_owned())),
    }
    match settings.remove(FORMAT) {
        Some(Value::String(name)) => {
            options.format = Some(name.parse().map_err(|message| wrong(FORMAT, message))?);
        }
        None | Some(Value::Null) => {}
        Some(_) => return Err(wrong(FORMAT, "expected png or jpg".to_owned())),
    }
    match settings.remove(CLIP_SKIP) {
        None => {}
        Some(Value::Null) => options.clip_skip = None,
        Some(value) => {
            let layers = whole(&value).filter(|layers| (1..=12).contains(layers));
            let expected = || wrong(CLIP_SKIP, "expected a whole number from 1 to 12".to_owned());
            options.clip_skip = Some(layers.ok_or_else(expected)?);
        }
    }
    Ok((options, settings))
}

/// Whether a checkpoint is the device's one, by its name or its checksum.
fn check_model(name: &str, info: Option<&DeviceInfo>) -> Result<(), String> {
    // What the device has is not known yet: there is no other to choose anyway.
    let Some(info) = info else { return Ok(()) };
    let known = [info.model.name.as_str(), info.model.sha256.as_str(), short_hash(info), ""];
    if known.contains(&name) {
        return Ok(());
    }
    let shown: String = name.chars().take(80).collect();
    Err(format!("`{shown}` is not on this device; it paints with `{}` alone", info.model.name))
}
