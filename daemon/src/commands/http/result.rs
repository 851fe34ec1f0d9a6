//! What a job became, as A1111's web API answers: the images in base64, the request, and `info`, JSON within a string.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use diffused_engine::request::Parameters;
use serde_json::{Value, json};

use super::answer::HttpFault;
use super::job::JobEnd;
use super::lists::short_hash;
use super::translate::WebAnswer;
use crate::contract::fault::{Code, Fault};
use crate::contract::info::DeviceInfo;
use crate::contract::messages::{JobResult, State};
use crate::painting::pictures::{infotext, text_of};

/// The answer to a request for pictures, or why there are none. One that was interrupted has the images that were done.
pub(super) fn of(end: JobEnd, request: &WebAnswer, info: Option<&DeviceInfo>) -> Result<Value, HttpFault> {
    let mut warnings = [&request.warnings[..], &end.warnings].concat();
    let (images, about) = match (end.state.state, &end.arrivals.result) {
        (State::Done, Some(result)) => {
            let images = arrived(&end, result, &mut warnings)?;
            (images.clone(), of_result(result, &images, info))
        }
        (State::Cancelled, _) => {
            warnings.push("the job was cancelled; these are the images that were done by then".to_owned());
            let text = |key: &str| request.echo[key].as_str().unwrap_or_default();
            let images: Vec<Bytes> = end.arrivals.images().cloned().collect();
            let about = json!({
                "prompt": text("prompt"),
                "negative_prompt": text("negative_prompt"),
                "seed": request.seeds.first(),
                "all_seeds": request.seeds,
                "infotexts": images.iter().map(|image| text_of(image).unwrap_or_default()).collect::<Vec<_>>(),
            });
            (images, about)
        }
        (State::Done, None) => return Err(lost("the job is done, but its result did not arrive")),
        _ => return Err(end.state.error.map_or_else(|| lost("the job has failed without a reason"), HttpFault::from)),
    };
    let mut about = about;
    (about["job_timestamp"], about["warnings"], about["id"]) =
        (json!(end.timestamp), json!(warnings), json!(end.state.id));
    let images = if request.sends_images { images } else { vec![] };
    let encoded: Vec<String> = images.iter().map(|image| STANDARD.encode(image)).collect();
    Ok(json!({"images": encoded, "parameters": request.echo, "info": about.to_string()}))
}

fn lost(message: &str) -> HttpFault {
    Fault::new(Code::Internal, message).into()
}

/// The images that came; of others a warning says where they are. None at all is an error.
fn arrived(end: &JobEnd, result: &JobResult, warnings: &mut Vec<String>) -> Result<Vec<Bytes>, HttpFault> {
    let mut images = vec![];
    for (number, image) in (0_u64..).zip(&result.images) {
        match (end.arrivals.get(number, image), &image.path) {
            (Some(bytes), _) => images.push(bytes.clone()),
            (None, Some(path)) => {
                warnings.push(format!("image {number} did not arrive; the device has it in {}", path.display()));
            }
            (None, None) => warnings.push(format!("image {number} did not arrive, and the device has not kept it")),
        }
    }
    match warnings.last() {
        Some(warning) if images.is_empty() => Err(lost(warning)),
        _ => Ok(images),
    }
}

/// What was painted, by the names of the web interface.
fn of_result(result: &JobResult, images: &[Bytes], info: Option<&DeviceInfo>) -> Value {
    let Parameters { prompt, negative_prompt, width, height, steps, cfg_scale, seed, sampler, strength, .. } =
        &result.parameters;
    let seeds: Vec<u64> = (0..).zip(&result.images).map(|(number, _)| seed.wrapping_add(number)).collect();
    let prompts: Vec<&String> = result.images.iter().map(|image| image.prompt.as_ref().unwrap_or(prompt)).collect();
    let texts: Vec<String> =
        images.iter().map(|image| text_of(image).unwrap_or_else(|| infotext(&result.parameters))).collect();
    let each = |value: Value| vec![value; result.images.len()];
    json!({
        "prompt": prompts.first(),
        "all_prompts": prompts,
        "negative_prompt": negative_prompt,
        "all_negative_prompts": each(json!(negative_prompt)),
        "seed": seed,
        "all_seeds": seeds,
        "subseed": seed,
        "all_subseeds": seeds,
        "subseed_strength": 0,
        "width": width,
        "height": height,
        "sampler_name": sampler.label(),
        "cfg_scale": cfg_scale,
        "steps": steps,
        "batch_size": 1,
        "restore_faces": false,
        "face_restoration_model": null,
        "sd_model_name": info.map(|info| &info.model.name),
        "sd_model_hash": info.map(short_hash),
        "sd_vae_name": null,
        "sd_vae_hash": null,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": strength,
        "extra_generation_params": {},
        "index_of_first_image": 0,
        "infotexts": texts,
        "styles": [],
        "clip_skip": result.parameters.clip_skip.unwrap_or(1),
        "is_using_inpainting_conditioning": false,
        "version": format!("diffused {}", env!("CARGO_PKG_VERSION")),
    })
}
