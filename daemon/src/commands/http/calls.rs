//! The paths of A1111's web API: what each does, by which method.

use bytes::Bytes;
use hyper::{Method, StatusCode, Uri};
use serde_json::{Value, json};

use super::answer::{Answer, HttpFault, good};
use super::hub::Hub;
use super::translate::{WebRequest, object, translate};
use super::{infotext, lists, options, result};
use crate::contract::commands::ResponseData;
use crate::contract::info::DeviceInfo;
use crate::jobs::request::RequestMode;

/// What a client asks for.
pub(super) enum Call {
    Paint(RequestMode),
    Progress {
        with_image: bool,
    },
    Interrupt,
    Options,
    SetOptions,
    /// Something of what the device says that it is.
    Of(fn(&DeviceInfo) -> Value),
    /// What is the same with every device.
    Fixed(Value),
    Memory,
    PngInfo,
}

/// What of A1111's API has no counterpart.
const LACKING: [&str; 13] = [
    "extra-single-image",
    "extra-batch-images",
    "interrogate",
    "unload-checkpoint",
    "reload-checkpoint",
    "create/embedding",
    "create/hypernetwork",
    "train/embedding",
    "train/hypernetwork",
    "server-kill",
    "server-restart",
    "server-stop",
    "sd-modules",
];

/// What `method` on a path means.
pub(super) fn find(method: &Method, uri: &Uri) -> Result<Call, HttpFault> {
    let path = uri.path();
    let Some(name) = path.strip_prefix("/sdapi/v1/") else {
        return match path {
            "/internal/ping" => allowed(method, Some(Call::Fixed(json!({}))), None),
            _ => Err(unknown()),
        };
    };
    let (get, post) = match name {
        "txt2img" => (None, Some(Call::Paint(RequestMode::Txt2Img))),
        "img2img" => (None, Some(Call::Paint(RequestMode::Img2Img))),
        "progress" => (Some(Call::Progress { with_image: !skips_image(uri) }), None),
        "interrupt" | "skip" => (None, Some(Call::Interrupt)),
        "options" => (Some(Call::Options), Some(Call::SetOptions)),
        "samplers" => (Some(Call::Of(lists::samplers)), None),
        "schedulers" => (Some(Call::Of(lists::schedulers)), None),
        "upscalers" => (Some(Call::Of(lists::upscalers)), None),
        "latent-upscale-modes" => (Some(Call::Fixed(lists::latent_upscale_modes())), None),
        "sd-models" => (Some(Call::Of(lists::models)), None),
        "cmd-flags" => (Some(Call::Fixed(json!({"api": true, "nowebui": true}))), None),
        "memory" => (Some(Call::Memory), None),
        "png-info" => (None, Some(Call::PngInfo)),
        "embeddings" => (Some(Call::Fixed(json!({"loaded": {}, "skipped": {}}))), None),
        "scripts" => (Some(Call::Fixed(json!({"txt2img": [], "img2img": []}))), None),
        // What a model has of these was put into its bundle when it was converted.
        "sd-vae" | "loras" | "hypernetworks" | "face-restorers" | "realesrgan-models" | "prompt-styles"
        | "script-info" | "extensions" => (Some(Call::Fixed(json!([]))), None),
        // The device says by itself when it has another model.
        "refresh-checkpoints" | "refresh-vae" | "refresh-loras" | "refresh-embeddings" => {
            (None, Some(Call::Fixed(Value::Null)))
        }
        lacking if LACKING.contains(&lacking) => {
            let message = "devices that paint for diffused have nothing of this kind";
            return Err(HttpFault::new(StatusCode::NOT_IMPLEMENTED, "not_implemented", message));
        }
        _ => return Err(unknown()),
    };
    allowed(method, get, post)
}

fn allowed(method: &Method, get: Option<Call>, post: Option<Call>) -> Result<Call, HttpFault> {
    let methods = match (&get, &post) {
        (Some(_), Some(_)) => "GET, POST",
        (None, _) => "POST",
        (_, None) => "GET",
    };
    let call = match *method {
        Method::GET => get,
        Method::POST => post,
        _ => None,
    };
    call.ok_or_else(|| HttpFault::method(methods))
}

fn unknown() -> HttpFault {
    HttpFault::new(StatusCode::NOT_FOUND, "not_found", "Not Found: docs/http.md lists the paths that are served")
}

/// Whether a client that asks for the progress can do without the image.
fn skips_image(uri: &Uri) -> bool {
    let mut pairs = uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    pairs.any(|(key, value)| key == "skip_current_image" && ["true", "1"].contains(&value.to_lowercase().as_str()))
}

impl Call {
    /// Does it.
    pub(super) async fn answer(self, hub: &Hub, body: Bytes) -> Result<Answer, HttpFault> {
        let value = match self {
            Call::Paint(mode) => {
                let info = hub.info().ok();
                let WebRequest { topic, keys, about } = translate(&body, mode, &hub.options(), info.as_ref())?;
                // From here on it is held once.
                drop(body);
                let end = hub.paint(topic, keys).await?;
                result::of(end, &about, info.as_ref())?
            }
            Call::Progress { with_image } => hub.progress(with_image),
            Call::Interrupt => hub.interrupt().map(|()| json!({}))?,
            Call::Options => options::shown(&hub.options(), &hub.info()?),
            Call::SetOptions => {
                hub.set_options(options::changed(&hub.options(), object(&body)?, &hub.info()?)?);
                Value::Null
            }
            Call::Of(list) => list(&hub.info()?),
            Call::Fixed(value) => value,
            Call::Memory => match hub.ask("health").await? {
                ResponseData::Health(health) => lists::memory(&health),
                _ => return Err(HttpFault::unavailable("the device does not say how it is")),
            },
            Call::PngInfo => infotext::of_image(&object(&body)?)?,
        };
        Ok(good(&value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(method: &Method, path: &'static str) -> u16 {
        find(method, &Uri::from_static(path)).map_or_else(|fault| fault.status.as_u16(), |_| 200)
    }

    #[test]
    fn each_path_has_its_methods() {
        for path in ["/sdapi/v1/samplers", "/sdapi/v1/options", "/internal/ping", "/sdapi/v1/progress?x=1"] {
            assert_eq!((status(&Method::GET, path), status(&Method::PUT, path)), (200, 405), "{path}");
        }
        for path in ["/sdapi/v1/txt2img", "/sdapi/v1/img2img", "/sdapi/v1/interrupt", "/sdapi/v1/png-info"] {
            assert_eq!((status(&Method::GET, path), status(&Method::POST, path)), (405, 200), "{path}");
        }
        assert_eq!(status(&Method::POST, "/sdapi/v1/interrogate"), 501);
        for path in ["/", "/sdapi/v1", "/sdapi/v1/", "/sdapi/v1/../options", "/sdapi/v2/options", "/internal/"] {
            assert_eq!(status(&Method::GET, path), 404, "{path}");
        }
    }

    #[test]
    fn the_image_of_the_progress_may_be_left_out() {
        let skips = |path| skips_image(&Uri::from_static(path));
        assert!(skips("/p?skip_current_image=true") && skips("/p?a=b&skip_current_image=True"));
        assert!(!skips("/p") && !skips("/p?skip_current_image=false") && !skips("/p?skip_current_image"));
    }
}
