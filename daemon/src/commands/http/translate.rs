//! From a request of A1111's web API to one of the contract. Clients of that API send all of its keys, mostly with what
//! asks for nothing; what a device does not have and is asked for gives a warning, as with MQTT. The device itself checks
//! the values of what it knows.

use serde_json::{Map, Value, json};

use super::answer::HttpFault;
use super::options::{self, WebOptions};
use super::series;
use crate::contract::fault::{Code, Fault};
use crate::contract::info::DeviceInfo;
use crate::jobs::request::{self, RequestMode};

/// The keys that are read: the contract's, but for the names of jobs, which are made here, and those of the web API that
/// become others.
const KNOWN: [&str; 54] = [
    "prompt",
    "negative_prompt",
    "steps",
    "cfg_scale",
    "seed",
    "width",
    "height",
    "sampler_name",
    "scheduler",
    "eta",
    "n_iter",
    "init_images",
    "denoising_strength",
    "mask",
    "mask_blur",
    "mask_blur_x",
    "mask_blur_y",
    "inpainting_fill",
    "inpainting_mask_invert",
    "inpaint_full_res",
    "inpaint_full_res_padding",
    "keep_unmasked",
    "decoder",
    "fit",
    "resize_mode",
    "background",
    "prompt_syntax",
    "upscale",
    "clip_skip",
    "guidance_interval",
    "cache_interval",
    "output",
    "preview",
    "hires",
    "enable_hr",
    "hr_scale",
    "hr_resize_x",
    "hr_resize_y",
    "hr_second_pass_steps",
    "hr_upscaler",
    "hr_prompt",
    "hr_negative_prompt",
    "hr_sampler_name",
    "hr_scheduler",
    "hr_cfg",
    "format",
    "priority",
    "not_after",
    "override_settings",
    "batch_size",
    "sampler_index",
    "send_images",
    "save_images",
    "script_name",
];

/// What speaks of files, of the web interface, or of what happens anyway.
const SILENT: [&str; 10] = [
    "do_not_save_samples",
    "do_not_save_grid",
    "include_init_images",
    "override_settings_restore_afterwards",
    "force_task_id",
    "script_args",
    "mask_round",
    // Without its strength it has no effect.
    "subseed",
    "disable_extra_networks",
    "comments",
];

/// Numbers that ask for nothing, beside 0 and −1.
const NEUTRAL: [(&str, f64); 3] = [("s_noise", 1.0), ("image_cfg_scale", 1.5), ("initial_noise_multiplier", 1.0)];

/// The most warnings, and characters of a key in one.
const WARNINGS: usize = 20;
const KEY: usize = 80;

/// A request for the device.
#[derive(Debug, PartialEq)]
pub(super) struct WebRequest {
    /// Where it is published.
    pub(super) topic: &'static str,
    /// What is published.
    pub(super) keys: Map<String, Value>,
    /// What the answer has of it.
    pub(super) about: WebAnswer,
}

/// What the answer has of a request, and how.
#[derive(Debug, PartialEq)]
pub(super) struct WebAnswer {
    /// What was left out.
    pub(super) warnings: Vec<String>,
    /// Whether the answer has the images.
    pub(super) sends_images: bool,
    /// The request as it came, without its images and what is not for others.
    pub(super) echo: Value,
    /// The seeds of its images, one for each; none where the seed is wrong, which the device says.
    pub(super) seeds: Vec<u64>,
}

/// A body that is a JSON object.
pub(super) fn object(body: &[u8]) -> Result<Map<String, Value>, HttpFault> {
    let invalid = |message: String| HttpFault::from(Fault::new(Code::InvalidJson, message));
    let text = std::str::from_utf8(body).map_err(|_| invalid("the body is not UTF-8".to_owned()))?;
    request::object(text).map_err(|error| invalid(format!("the body is no JSON object: {error}")))
}

/// Reads a request for a picture.
pub(super) fn translate(
    body: &[u8],
    mode: RequestMode,
    options: &WebOptions,
    info: Option<&DeviceInfo>,
) -> Result<WebRequest, HttpFault> {
    let mut keys = object(body)?;
    let (mut passed, mut warnings) = (Map::new(), vec![]);
    for (key, value) in std::mem::take(&mut keys) {
        if KNOWN.contains(&key.as_str()) {
            passed.insert(key, value);
        } else if key == "alwayson_scripts" && !asks_for_nothing(&value) {
            let names = value.as_object().map(|scripts| scripts.keys().cloned().collect::<Vec<_>>().join(", "));
            let names: String = names.unwrap_or_default().chars().take(KEY).collect();
            return Err(HttpFault::param(&key, format!("there are no scripts here: {names}")));
        } else if !SILENT.contains(&key.as_str()) && !asks_for_nothing(&value) && !is_neutral(&key, &value) {
            warnings.push(left_out(&key));
        }
    }
    let echo = echo(&passed);
    let sends_images = flag(&mut passed, "send_images")?.unwrap_or(true);
    if flag(&mut passed, "save_images")? == Some(true) {
        warnings.push("save_images has no effect: the device keeps images as its `keep_pictures` says".to_owned());
    }
    match passed.remove("script_name") {
        Some(value) if !asks_for_nothing(&value) => {
            return Err(HttpFault::param("script_name", "there are no scripts here"));
        }
        _ => {}
    }
    let options = settings(&mut passed, options, info, &mut warnings)?;
    let index = passed.remove("sampler_index");
    // Names that are empty are those of web pages whose lists have nothing chosen.
    passed.retain(|key, value| !value.is_null() && (value != "" || key == "prompt"));
    if let Some(index) = index.filter(|index| !asks_for_nothing(index)) {
        passed.entry("sampler_name").or_insert(index);
    }
    passed.entry("prompt").or_insert(json!(""));
    let seeds = series::settle(&mut passed)?;
    leave_out_what_is_off(&mut passed, mode);
    add(&mut passed, &options);
    warnings.truncate(WARNINGS);
    let topic = match mode {
        RequestMode::Txt2Img => "txt2img",
        RequestMode::Img2Img => "img2img",
    };
    Ok(WebRequest { topic, keys: passed, about: WebAnswer { warnings, sends_images, echo, seeds } })
}

/// Whether a value is what web pages send where nothing was chosen.
pub(super) fn asks_for_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64().is_some_and(|number| number == 0.0 || number == -1.0),
        Value::String(text) => {
            let silent = ["", "none", "automatic", "use same checkpoint", "use same choices"];
            silent.contains(&text.to_lowercase().as_str())
        }
        Value::Array(items) => items.iter().all(asks_for_nothing),
        Value::Object(keys) => keys.is_empty(),
    }
}

fn is_neutral(key: &str, value: &Value) -> bool {
    NEUTRAL.iter().any(|(neutral, number)| *neutral == key && value.as_f64() == Some(*number))
}

fn left_out(key: &str) -> String {
    format!("`{}` is not known here and was left out", key.chars().take(KEY).collect::<String>())
}

/// What of the request goes back with the answer: what may be large or nobody's business does not.
fn echo(keys: &Map<String, Value>) -> Value {
    let images = ["init_images", "mask"];
    keys.iter().filter(|(key, _)| !images.contains(&key.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect()
}

fn flag(keys: &mut Map<String, Value>, key: &str) -> Result<Option<bool>, HttpFault> {
    match keys.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(flag)),
        Some(_) => Err(HttpFault::param(key, "expected true or false")),
    }
}

/// The options with what the request overrides of them.
fn settings(
    keys: &mut Map<String, Value>,
    options: &WebOptions,
    info: Option<&DeviceInfo>,
    warnings: &mut Vec<String>,
) -> Result<WebOptions, HttpFault> {
    let settings = match keys.remove("override_settings") {
        None | Some(Value::Null) => return Ok(options.clone()),
        Some(Value::Object(settings)) => settings,
        Some(_) => return Err(HttpFault::param("override_settings", "expected an object")),
    };
    let (options, left) = options::with(options, settings, "override_settings.", info)?;
    let left = left.iter().filter(|(_, value)| !asks_for_nothing(value));
    warnings.extend(left.map(|(key, _)| left_out(&format!("override_settings.{key}"))));
    Ok(options)
}

/// Keys that other keys switch on: clients send them all the same, and they would give errors or warnings.
fn leave_out_what_is_off(keys: &mut Map<String, Value>, mode: RequestMode) {
    if keys.get("enable_hr") != Some(&Value::Bool(true)) {
        keys.retain(|key, _| key != "enable_hr" && !key.starts_with("hr_"));
    }
    if !keys.contains_key("mask") {
        keys.retain(|key, _| !key.starts_with("mask_") && !key.starts_with("inpaint") && key != "keep_unmasked");
    }
    let is_second_pass = keys.contains_key("enable_hr") || keys.contains_key("hires");
    if mode == RequestMode::Txt2Img && !is_second_pass {
        keys.remove("denoising_strength");
    }
}

/// What the options say and the request does not.
fn add(keys: &mut Map<String, Value>, options: &WebOptions) {
    if let Some(layers) = options.clip_skip {
        keys.entry("clip_skip").or_insert(json!(layers));
    }
    if let Some(format) = options.format {
        keys.entry("format").or_insert(json!(format));
    }
    keys.entry("preview").or_insert(json!(options.previews));
}

#[cfg(test)]
mod tests {
    use schemars::schema_for;

    use super::*;
    use crate::contract::request::PaintRequest;

    const OPTIONS: WebOptions = WebOptions { format: None, clip_skip: None, previews: false };

    /// What is published but for the seed, and the warnings.
    fn read(mode: RequestMode, request: Value) -> Result<(Value, Vec<String>), HttpFault> {
        let mut request = translate(request.to_string().as_bytes(), mode, &OPTIONS, None)?;
        assert_eq!(request.keys.remove("seed").and_then(|seed| seed.as_u64()), request.about.seeds.first().copied());
        Ok((Value::Object(request.keys), request.about.warnings))
    }

    fn check(mode: RequestMode, request: Value, expected: Value) {
        let mut all = json!({"prompt": "a", "preview": false});
        all.as_object_mut().unwrap().extend(expected.as_object().unwrap().clone());
        assert_eq!(read(mode, request).unwrap(), (all, vec![]));
    }

    /// The fields that errors name, and their status.
    fn refused(request: Value) -> (u16, String) {
        let fault = read(RequestMode::Img2Img, request).unwrap_err();
        let status = fault.status.as_u16();
        (status, fault.field.unwrap_or_default())
    }

    #[test]
    fn every_key_of_the_contract_may_come_by_http() {
        let schema = schema_for!(PaintRequest).to_value();
        let keys = schema["properties"].as_object().unwrap().keys();
        let missing: Vec<_> = keys
            .filter(|key| !["id", "transaction"].contains(&key.as_str()) && !KNOWN.contains(&key.as_str()))
            .collect();
        assert!(missing.is_empty(), "KNOWN lacks {missing:?}");
    }

    #[test]
    fn what_asks_for_nothing_is_left_out_silently() {
        let request = json!({
            "prompt": "a", "styles": [], "restore_faces": false, "tiling": null, "subseed": 7, "subseed_strength": 0.0,
            "seed_resize_from_h": -1, "s_noise": 1.0, "s_churn": 0, "firstphase_width": 0, "refiner_checkpoint": "None",
            "alwayson_scripts": {}, "script_name": null, "script_args": [1, 2], "override_settings": {"sd_vae": "Automatic"},
            "enable_hr": false, "hr_upscaler": "R-ESRGAN 4x+", "hr_scale": "x", "denoising_strength": 0.7, "mask": null,
            "mask_blur": 4, "inpainting_fill": 9, "inpaint_full_res": true, "sampler_name": "", "scheduler": null,
            "send_images": true, "save_images": false, "do_not_save_grid": true, "image_cfg_scale": 1.5,
        });
        check(RequestMode::Txt2Img, request, json!({}));
    }

    #[test]
    fn what_a_device_lacks_is_a_warning_and_not_passed_on() {
        let (keys, warnings) = read(
            RequestMode::Txt2Img,
            json!({"prompt": "a", "tiling": true, "auth": "user:secret", "id": "x", "save_images": true,
                   "override_settings": {"eta_noise_seed_delta": 31337}}),
        )
        .unwrap();
        assert_eq!(keys, json!({"prompt": "a", "preview": false}));
        let left = ["auth", "id", "tiling"].map(|key| format!("`{key}` is not known here and was left out"));
        assert_eq!(warnings[..3], left);
        assert!(warnings[3].starts_with("save_images has no effect"));
        assert_eq!(warnings[4], "`override_settings.eta_noise_seed_delta` is not known here and was left out");
        let many: Map<String, Value> = (0..100).map(|n| ("k".repeat(200) + &n.to_string(), json!(1))).collect();
        let (_, warnings) = read(RequestMode::Txt2Img, Value::Object(many)).unwrap();
        assert!(warnings.len() == WARNINGS && warnings.iter().all(|text| text.len() < 130));
    }

    #[test]
    fn names_of_the_web_api_become_the_contracts() {
        let batch =
            json!({"prompt": "a", "batch_size": 2, "n_iter": 3.0, "sampler_index": "Euler a", "sampler_name": null});
        check(RequestMode::Txt2Img, batch, json!({"n_iter": 6, "sampler_name": "Euler a"}));
        check(
            RequestMode::Txt2Img,
            json!({"prompt": "a", "override_settings": {"CLIP_stop_at_last_layers": 2, "samples_format": "jpg"}}),
            json!({"clip_skip": 2, "format": "jpeg"}),
        );
        let masked = json!({"mask": "eA==", "mask_blur": 4, "denoising_strength": 0.5, "init_images": ["eA=="]});
        let mut request = masked.clone();
        request["prompt"] = json!("a");
        check(RequestMode::Img2Img, request, masked);
        let second =
            json!({"prompt": "a", "enable_hr": true, "hr_scale": 2, "denoising_strength": 0.5, "hr_prompt": ""});
        let expected = json!({"enable_hr": true, "hr_scale": 2, "denoising_strength": 0.5});
        check(RequestMode::Txt2Img, second, expected);
        let (keys, _) = read(RequestMode::Txt2Img, json!({})).unwrap();
        assert_eq!(keys["prompt"], "");
    }

    #[test]
    fn options_hold_where_a_request_says_nothing() {
        let options = WebOptions { format: Some("jpeg".parse().unwrap()), clip_skip: Some(2), previews: true };
        let request = |body: &[u8]| Value::Object(translate(body, RequestMode::Txt2Img, &options, None).unwrap().keys);
        assert_eq!(
            request(b"{\"prompt\": \"a\", \"seed\": 7}"),
            json!({"prompt": "a", "seed": 7, "format": "jpeg", "clip_skip": 2, "preview": true})
        );
        let own = json!({"prompt": "a", "seed": 7, "format": "png", "clip_skip": 1, "preview": false});
        assert_eq!(request(own.to_string().as_bytes()), own);
    }

    #[test]
    fn images_are_not_sent_back() {
        let body = br#"{"prompt": "a", "init_images": ["eA=="], "mask": "eA==", "auth": "u:p", "send_images": false}"#;
        let request = translate(body, RequestMode::Img2Img, &OPTIONS, None).unwrap();
        assert_eq!(request.about.echo, json!({"prompt": "a", "send_images": false}));
        assert!(!request.about.sends_images);
    }

    #[test]
    fn errors_name_their_key() {
        for (request, field) in [
            (json!({"script_name": "X/Y/Z plot"}), "script_name"),
            (json!({"alwayson_scripts": {"ControlNet": {"args": []}}}), "alwayson_scripts"),
            (json!({"send_images": "yes"}), "send_images"),
            (json!({"override_settings": 7}), "override_settings"),
            (json!({"override_settings": {"samples_format": "webp"}}), "override_settings.samples_format"),
            (
                json!({"override_settings": {"CLIP_stop_at_last_layers": 0}}),
                "override_settings.CLIP_stop_at_last_layers",
            ),
        ] {
            assert_eq!(refused(request), (422, field.to_owned()));
        }
        let deep = [&b"{\"prompt\":"[..], &b"[".repeat(1000)].concat();
        let twice = b"{\"a\": 1, \"a\": 2}";
        for body in [&b""[..], b"[]", b"{", b"\"a\"", b"\xff", b"{\"a\":1}x", &deep, twice] {
            assert_eq!(object(body).unwrap_err().status.as_u16(), 400, "{body:?}");
        }
        assert!(object(b"\xef\xbb\xbf{\"a\": 1}\0").is_ok());
    }
}
