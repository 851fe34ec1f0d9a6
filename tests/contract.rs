//! The contract's document against the code: the request that docs/asyncapi.json describes is the one that the daemon
//! reads, key by key and value by value, and its examples are messages of their kind.

use std::collections::BTreeSet;
use std::io::Cursor;

use base64::Engine as _;
use diffused::jobs::request::{Job, RequestMode};
use diffused::painting::model::Model;
use diffused_engine::{Options, Resolver};
use diffused_tests::contract::{check, description, validate};
use image::{ImageFormat, RgbImage};
use serde_json::{Value, json};

/// Takes requests as the daemon with the demo model does.
struct Reader {
    resolver: Resolver,
    folder: tempfile::TempDir,
}

impl Reader {
    fn new() -> Reader {
        let resolver = Model::new(None, Options::default()).unwrap().resolver().unwrap();
        Reader { resolver, folder: tempfile::tempdir().unwrap() }
    }

    fn read(&self, mode: RequestMode, request: &Value) -> Result<Job, String> {
        let job = Job::parse(request.to_string().as_bytes(), mode, self.folder.path());
        let (job, _) = job.map_err(|rejection| rejection.fault.to_string())?;
        job.resolve(&self.resolver, Options::default()).map_err(|fault| fault.to_string())?;
        Ok(job)
    }

    /// Schema and daemon take `request`, or both refuse it.
    fn check(&self, mode: RequestMode, request: &Value, good: bool) {
        let schema = if mode == RequestMode::Txt2Img { "Txt2ImgRequest" } else { "Img2ImgRequest" };
        let read = self.read(mode, request).map(|_| ());
        let valid = validate(schema, request);
        assert_eq!((read.is_ok(), valid.is_ok()), (good, good), "{request}: daemon {read:?}, schema {valid:?}");
    }

    /// The same with one key beside a prompt.
    fn check_key(&self, key: &str, value: &Value, good: bool) {
        let mut request = json!({"prompt": "a"});
        request[key] = value.clone();
        self.check(RequestMode::Txt2Img, &request, good);
    }
}

fn picture() -> String {
    let mut file = Cursor::new(vec![]);
    RgbImage::new(64, 64).write_to(&mut file, ImageFormat::Png).unwrap();
    base64::engine::general_purpose::STANDARD.encode(file.get_ref())
}

#[test]
fn the_schema_takes_the_requests_that_the_daemon_takes() {
    let reader = Reader::new();
    let long = "x".repeat(20_000);
    let good = [
        ("prompt", vec![json!("a red house"), json!(""), json!(long)]),
        ("negative_prompt", vec![json!("blurry"), json!(null)]),
        ("steps", vec![json!(1), json!(42.0), json!(1000), json!(null)]),
        ("cfg_scale", vec![json!(0), json!(7.5), json!(50)]),
        ("seed", vec![json!(-1), json!(-1.0), json!(0), json!(7.0), json!(u64::MAX)]),
        ("width", vec![json!(32), json!(128), json!(64.0), json!(2048), json!(null)]),
        ("height", vec![json!(32), json!(128), json!(64.0), json!(2048)]),
        ("n_iter", vec![json!(1), json!(16), json!(2.0)]),
        ("denoising_strength", vec![json!(0.1), json!(1)]),
        ("id", vec![json!("a-1_2.x"), json!(7), json!(null), json!("a".repeat(64))]),
        ("transaction", vec![json!("t/1"), json!(9), json!(null)]),
        ("format", vec![json!("png"), json!("jpeg"), json!("JPG")]),
        ("scheduler", vec![json!("automatic"), json!("Karras"), json!(null)]),
        ("eta", vec![json!(0), json!(0.5), json!(1), json!(null)]),
        ("decoder", vec![json!("full"), json!("Full"), json!(null)]),
        ("fit", vec![json!("stretch"), json!("Cover"), json!(null)]),
        ("resize_mode", vec![json!(0), json!(2.0)]),
        ("background", vec![json!("#ff8000"), json!("#FF8000"), json!("White")]),
        ("override_settings", vec![json!({"CLIP_stop_at_last_layers": 2, "eta": 1}), json!({}), json!(null)]),
        ("clip_skip", vec![json!(1), json!(4), json!(2.0)]),
        ("guidance_interval", vec![json!([0.2, 0.9]), json!([0, 1.0]), json!(null)]),
        ("cache_interval", vec![json!(1), json!(20), json!(2.0), json!(null)]),
        ("prompt_syntax", vec![json!("a1111"), json!("Plain"), json!(null)]),
        ("upscale", vec![json!(1), json!(1.0), json!(null)]),
        ("priority", vec![json!(-100), json!(0.0), json!(100)]),
        ("not_after", vec![json!(0), json!(1.8e9)]),
        ("mask", vec![json!(null)]),
        ("init_images", vec![json!(null)]),
        (
            "output",
            vec![
                json!("inky-impression-7.3"),
                json!("none"),
                json!({"panel": "waveshare-7.5-v2", "rotate": 90, "fit": "contain", "dither": "blue-noise"}),
                json!({"palette": [[0, 0, 0], [255, 255, 255]], "format": "packed", "width": 250.0, "height": 122}),
                json!({"format": "rgb565-le"}),
                json!(null),
            ],
        ),
        ("preview", vec![json!(true), json!(false), json!(1), json!(null)]),
        (
            "hires",
            vec![
                json!({"prompt": "b", "negative_prompt": "", "cfg_scale": 0, "upscaler": "Lanczos"}),
                json!({"sampler_name": "Euler a", "scheduler": "Karras"}),
                json!({"sampler_name": "Use same sampler", "scheduler": "automatic"}),
            ],
        ),
        ("stepps", vec![json!(3)]),
    ];
    for (key, value) in good.iter().flat_map(|(key, values)| values.iter().map(move |value| (key, value))) {
        reader.check_key(key, value, true);
    }
    for name in diffused_engine::sampler::NoiseSchedule::ALL.iter().flat_map(|each| [each.name(), each.label()]) {
        reader.check_key("scheduler", &json!(name), true);
    }
    for name in diffused_engine::sampler::SamplerKind::ALL.iter().flat_map(|kind| [kind.name(), kind.label()]) {
        reader.check_key("sampler_name", &json!(name), true);
    }
}

#[test]
fn the_schema_refuses_the_requests_that_the_daemon_refuses() {
    let reader = Reader::new();
    let long = "x".repeat(20_001);
    let bad = [
        ("prompt", vec![json!(7), json!(null), json!(["a"]), json!(long)]),
        ("negative_prompt", vec![json!(7), json!(long)]),
        ("steps", vec![json!("twenty"), json!(1.5), json!(-1), json!(0), json!(1001), json!(1e300)]),
        ("cfg_scale", vec![json!("7"), json!(-1), json!(50.5)]),
        ("scheduler", vec![json!("turbo"), json!(7)]),
        ("eta", vec![json!("1"), json!(-0.5), json!(1.5)]),
        ("seed", vec![json!(-2), json!(1.5), json!("lucky"), json!(1e30)]),
        ("width", vec![json!({}), json!(0), json!(7), json!(100), json!(100_000), json!(63.5)]),
        ("height", vec![json!(true), json!(0), json!(7), json!(100), json!("tall")]),
        ("sampler_name", vec![json!("magic"), json!(1)]),
        ("n_iter", vec![json!(0), json!(17), json!(1.5)]),
        ("denoising_strength", vec![json!([0.5]), json!(1.5), json!(-0.1)]),
        ("id", vec![json!("a/b"), json!(""), json!(".hidden"), json!({}), json!("a".repeat(65)), json!(true)]),
        ("transaction", vec![json!({}), json!([])]),
        ("format", vec![json!("gif"), json!(1)]),
        ("decoder", vec![json!("small"), json!(1)]),
        ("fit", vec![json!("zoom"), json!(1)]),
        ("resize_mode", vec![json!(3), json!("cover")]),
        ("background", vec![json!("orange"), json!("#fff"), json!([255, 128, 0])]),
        ("override_settings", vec![json!([2]), json!({"CLIP_stop_at_last_layers": 0})]),
        ("clip_skip", vec![json!(0), json!(13), json!("2")]),
        ("guidance_interval", vec![json!([0.2]), json!([0, 0.5, 1]), json!([-0.1, 1]), json!([0, 1.5]), json!(0.5)]),
        ("guidance_interval", vec![json!(["0", "1"]), json!("0,1")]),
        ("cache_interval", vec![json!(0), json!(21), json!(1.5), json!("2")]),
        ("prompt_syntax", vec![json!("compel"), json!(1)]),
        ("upscale", vec![json!(0), json!(9), json!(1.5), json!("twice"), json!(-2)]),
        ("priority", vec![json!(1e9), json!(101), json!(-101)]),
        ("not_after", vec![json!(-1), json!("noon"), json!(1e300)]),
        (
            "output",
            vec![
                json!(7),
                json!(["inky-impression-7.3"]),
                json!({"rotate": 45}),
                json!({"palette": "grey-4", "width": 0.5, "height": 1}),
                json!({"colour": "red"}),
                json!({"dither": "bayer"}),
                json!({"palette": [[0, 0]]}),
            ],
        ),
        ("preview", vec![json!("yes"), json!(2), json!([])]),
        (
            "hires",
            vec![
                json!({"prompt": 7}),
                json!({"prompt": long}),
                json!({"sampler_name": "magic"}),
                json!({"scheduler": "turbo"}),
                json!({"cfg_scale": 51}),
                json!("twice"),
            ],
        ),
        ("mask", vec![json!("aGVsbG8=")]),
        ("init_images", vec![json!(["aGVsbG8="])]),
    ];
    for (key, value) in bad.iter().flat_map(|(key, values)| values.iter().map(move |value| (key, value))) {
        reader.check_key(key, value, false);
    }
    reader.check(RequestMode::Txt2Img, &json!({}), false);
}

#[test]
fn an_init_image_is_described_as_it_is_read() {
    let reader = Reader::new();
    let with = |images: Value| json!({"prompt": "a", "init_images": images});
    reader.check(RequestMode::Img2Img, &with(json!([picture()])), true);
    reader.check(RequestMode::Img2Img, &with(json!([format!("data:image/png;base64,{}", picture())])), true);
    for images in [json!([]), json!(["a", "b"]), json!("aGVsbG8="), json!([7]), json!(null)] {
        reader.check(RequestMode::Img2Img, &with(images), false);
    }
    reader.check(RequestMode::Img2Img, &json!({"prompt": "a"}), false);
}

#[test]
fn a_mask_is_described_as_it_is_read() {
    let reader = Reader::new();
    let with = |key: &str, value: Value| {
        let mut request = json!({"prompt": "a", "init_images": [picture()], "mask": picture()});
        request[key] = value;
        request
    };
    let good = [
        ("mask", vec![json!(format!("data:image/png;base64,{}", picture())), json!(null)]),
        ("mask_blur", vec![json!(0), json!(4.5), json!(64), json!(null)]),
        ("mask_blur_x", vec![json!(4)]),
        ("mask_blur_y", vec![json!(4)]),
        (
            "inpainting_fill",
            vec![json!(0), json!(3), json!("original"), json!("latent noise"), json!("latent_nothing")],
        ),
        ("inpainting_mask_invert", vec![json!(true), json!(0), json!(1)]),
        ("inpaint_full_res", vec![json!(true), json!(false)]),
        ("inpaint_full_res_padding", vec![json!(0), json!(32)]),
        ("keep_unmasked", vec![json!(false)]),
    ];
    for (key, value) in good.iter().flat_map(|(key, values)| values.iter().map(move |value| (key, value))) {
        reader.check(RequestMode::Img2Img, &with(key, value.clone()), true);
    }
    let bad = [
        ("mask", vec![json!(7), json!([picture()])]),
        ("mask_blur", vec![json!(65), json!(-1), json!("4")]),
        ("mask_blur_x", vec![json!(65)]),
        ("mask_blur_y", vec![json!(-0.5)]),
        ("inpainting_fill", vec![json!(4), json!(0.5), json!("nothing"), json!(true)]),
        ("inpainting_mask_invert", vec![json!(2), json!("yes")]),
        ("inpaint_full_res", vec![json!("true")]),
        ("inpaint_full_res_padding", vec![json!(-1), json!(8193), json!(1.5)]),
        ("keep_unmasked", vec![json!(7)]),
    ];
    for (key, value) in bad.iter().flat_map(|(key, values)| values.iter().map(move |value| (key, value))) {
        reader.check(RequestMode::Img2Img, &with(key, value.clone()), false);
    }
}

/// What the daemon does not know is a warning, so the keys of the schema give none.
#[test]
fn every_key_of_the_schema_is_read() {
    let reader = Reader::new();
    let properties = description()["components"]["schemas"]["Txt2ImgRequest"]["properties"].as_object().unwrap();
    let mut examples = json!({
        "prompt": "a", "negative_prompt": "b", "steps": 2, "cfg_scale": 2, "seed": 1, "width": 64, "height": 64,
        "sampler_name": "ddim", "n_iter": 2, "denoising_strength": 0.5, "id": "a", "transaction": "t", "format": "png",
        "decoder": "full", "scheduler": "uniform", "eta": 0.5, "prompt_syntax": "plain", "clip_skip": 1, "override_settings": {}, "priority": 1,
        "guidance_interval": [0.2, 0.9], "cache_interval": 2,
        "not_after": 1, "output": "none", "preview": 1, "mask": null, "init_images": null,
        "fit": "cover", "resize_mode": 1, "background": "black", "upscale": 1, "mask_blur": null, "mask_blur_x": null,
        "mask_blur_y": null, "inpainting_fill": null, "inpainting_mask_invert": null, "inpaint_full_res": null,
        "inpaint_full_res_padding": null, "keep_unmasked": null,
    });
    let second_pass = json!({
        "hires": null, "enable_hr": true, "hr_scale": 1.5, "hr_resize_x": 0, "hr_resize_y": 0, "hr_second_pass_steps": 0,
        "hr_upscaler": "Latent", "hr_prompt": "b", "hr_negative_prompt": "", "hr_sampler_name": "Euler a",
        "hr_scheduler": "Use same scheduler", "hr_cfg": 1,
    });
    examples.as_object_mut().unwrap().extend(second_pass.as_object().unwrap().clone());
    let keys = |value: &Value| -> BTreeSet<String> { value.as_object().unwrap().keys().cloned().collect() };
    assert_eq!(keys(&examples), properties.keys().cloned().collect());
    let job = reader.read(RequestMode::Txt2Img, &examples).unwrap();
    assert_eq!(job.warnings, [""; 0]);
}

#[test]
fn the_examples_are_messages_of_their_kind() {
    let messages = description()["components"]["messages"].as_object().unwrap();
    let mut count = 0;
    for (name, message) in messages {
        for example in message["examples"].as_array().into_iter().flatten() {
            validate(name, &example["payload"]).unwrap();
            count += 1;
        }
    }
    assert!(count > 15, "{count} examples");
}

#[test]
fn messages_are_measured_by_their_topic() {
    let good = [
        ("diffused/frame/status", "online"),
        ("diffused/frame/job/a/state", r#"{"id": "a", "state": "done"}"#),
        ("diffused/frame/job/a/image/0", "\u{0}"),
        ("diffused/frame/job/a/preview", "\u{1}"),
        ("diffused/frame/response/list", r#"{"status": "error", "data": {}, "error": "no"}"#),
        ("diffused/frame/txt2img", "anything, since tests send wrong requests"),
        ("answers/mine", r#"{"id": "a", "state": "running"}"#),
    ];
    for (topic, payload) in good {
        let payload = match payload {
            "\u{0}" => &b"\x89PNG\r\n\x1a\n"[..],
            "\u{1}" => &b"\xff\xd8\xff"[..],
            text => text.as_bytes(),
        };
        check(topic, payload).unwrap();
    }
    let bad = [
        ("diffused/frame/status", "Online"),
        ("diffused/frame/job/a/state", r#"{"id": "a", "state": "gone"}"#),
        ("diffused/frame/job/a/state", r#"{"id": "a", "state": "done", "colour": "red"}"#),
        ("diffused/frame/job/a/state", r#"{"state": "done"}"#),
        ("diffused/frame/job/a/progress", r#"{"progress": 1.5}"#),
        ("diffused/frame/job/a/image/0", "GIF89a"),
        ("diffused/frame/job/a/preview", "GIF89a"),
        ("diffused/frame/job/a/pictures", "{}"),
        ("diffused/frame/response/list", r#"{"status": "ok", "data": {"jobs": []}}"#),
        ("answers/mine", "{}"),
    ];
    for (topic, payload) in bad {
        assert!(check(topic, payload.as_bytes()).is_err(), "{topic} {payload}");
    }
}
