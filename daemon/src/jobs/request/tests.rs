//! Payloads as clients send them, good and bad.

use std::io::Cursor;
use std::time::Duration;

use base64::Engine as _;
use diffused_engine::inpainting::{Inpainting, MaskedContent};
use diffused_engine::picture::{Colour, Fit};
use image::{ImageFormat, RgbImage};
use serde_json::json;

use super::*;
use crate::contract::fault::Code;
use crate::display::panels::KnownPanels;
use crate::jobs::wildcards::Wildcards;
use crate::painting::model::Model;

fn parse(kind: RequestMode, value: Value) -> Result<Job, Rejection> {
    parse_bytes(value.to_string().as_bytes(), kind)
}

fn parse_bytes(payload: &[u8], kind: RequestMode) -> Result<Job, Rejection> {
    let (job, files) = Job::parse(payload, kind, Path::new("init_images"))?;
    let paths: Vec<&Path> = files.iter().map(|(image, _)| image.path()).collect();
    assert_eq!(paths, job.init_image.iter().chain(&job.mask).map(InitImage::path).collect::<Vec<_>>());
    Ok(job)
}

fn txt2img(value: Value) -> Job {
    parse(RequestMode::Txt2Img, value).unwrap()
}

/// The demo model's.
fn resolver() -> Resolver {
    Model::new(None, Options::default()).unwrap().resolver().unwrap()
}

fn check_refused(kind: RequestMode, payload: &[u8], code: Code, field: Option<&str>) {
    let fault = parse_bytes(payload, kind).unwrap_err().fault;
    assert_eq!((fault.code, fault.field.as_deref()), (code, field), "{fault}");
}

#[test]
fn the_keys_of_the_web_api_are_understood() {
    let job = txt2img(json!({
        "prompt": "a house", "negative_prompt": "blurry", "steps": 12, "cfg_scale": 7.5, "seed": 42, "width": 128,
        "height": 64.0, "sampler_name": "Euler a", "n_iter": 3, "denoising_strength": 0.5, "id": "job-1",
        "format": "jpeg", "priority": 5, "not_after": 1.5,
    }));
    let request = &job.request;
    assert_eq!((request.prompt.as_str(), request.negative_prompt.as_str()), ("a house", "blurry"));
    assert_eq!((request.width, request.height, request.steps), (Some(128), Some(64), Some(12)));
    assert_eq!((request.cfg_scale, request.strength, request.seed), (Some(7.5), Some(0.5), 42));
    assert_eq!(request.sampler, Some(diffused_engine::sampler::SamplerKind::EulerAncestral));
    assert_eq!((job.id.as_str(), job.count, job.format, job.priority), ("job-1", 3, FileFormat::Jpeg, 5));
    assert_eq!(job.not_after, Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1500)));
    assert!(job.warnings.is_empty());
}

#[test]
fn text_is_the_prompt_itself() {
    for (payload, prompt) in [("a red house", "a red house"), ("\"a cat\"", "a cat"), (" [cat:dog] ", "[cat:dog]")] {
        let job = parse_bytes(payload.as_bytes(), RequestMode::Txt2Img).unwrap();
        assert_eq!(job.request.prompt, prompt);
    }
}

#[test]
fn other_json_and_other_bytes_are_refused() {
    for payload in ["42", "[1, 2]", "true", "null", "{\"prompt\": \"a\"", "{'prompt': 'a'}"] {
        check_refused(RequestMode::Txt2Img, payload.as_bytes(), Code::InvalidJson, None);
    }
    check_refused(RequestMode::Txt2Img, b"\xff\xfe", Code::InvalidJson, None);
    check_refused(RequestMode::Txt2Img, b"", Code::InvalidParam, Some("prompt"));
    check_refused(RequestMode::Txt2Img, b"{}", Code::InvalidParam, Some("prompt"));
}

#[test]
fn each_complaint_names_its_key() {
    let cases = [
        ("prompt", json!(["a"])),
        ("steps", json!("twenty")),
        ("steps", json!(1.5)),
        ("steps", json!(-1)),
        ("width", json!({})),
        ("height", json!(true)),
        ("cfg_scale", json!("7")),
        ("seed", json!(-2)),
        ("seed", json!(1.5)),
        ("sampler_name", json!("fastest")),
        ("n_iter", json!(0)),
        ("n_iter", json!(1000)),
        ("denoising_strength", json!([0.5])),
        ("id", json!("a/b")),
        ("id", json!("")),
        ("transaction", json!({})),
        ("format", json!("gif")),
        ("priority", json!(1e9)),
        ("not_after", json!(-1)),
        ("fit", json!("zoom")),
        ("fit", json!(1)),
        ("resize_mode", json!(3)),
        ("background", json!("orange")),
        ("background", json!([255, 0, 0])),
        ("mask", json!("aGVsbG8=")),
        ("init_images", json!(["aGVsbG8="])),
    ];
    for (field, value) in cases {
        let mut request = json!({"prompt": "a"});
        request[field] = value;
        check_refused(RequestMode::Txt2Img, request.to_string().as_bytes(), Code::InvalidParam, Some(field));
    }
    let long = json!({"prompt": "x".repeat(MAX_PROMPT + 1)});
    check_refused(RequestMode::Txt2Img, long.to_string().as_bytes(), Code::TooLarge, Some("prompt"));
}

#[test]
fn an_init_image_is_one_base64_text() {
    let with = |images: Value| json!({"prompt": "a", "init_images": images});
    let mut file = Cursor::new(vec![]);
    RgbImage::new(70, 20).write_to(&mut file, ImageFormat::Png).unwrap();
    // So many bytes that there is padding; what follows the image is not read.
    let bytes: Vec<u8> = file.get_ref().iter().copied().chain([0; 4]).take(file.get_ref().len() / 3 * 3 + 4).collect();
    let text = base64::engine::general_purpose::STANDARD.encode(bytes);
    assert!(text.ends_with('='));
    let wrapped =
        text.as_bytes().chunks(20).map(|line| std::str::from_utf8(line).unwrap()).collect::<Vec<_>>().join("\r\n");
    let unpadded = text.trim_end_matches('=').to_owned();
    for text in [format!("data:image/png;base64,{text}"), wrapped, unpadded, text] {
        let job = parse(RequestMode::Img2Img, with(json!([text]))).unwrap();
        assert_eq!(job.init_image.as_ref().map(InitImage::size), Some((70, 20)));
        let paintings = job.resolve(&resolver(), Options::default()).unwrap();
        let parameters = paintings[0].parameters();
        assert_eq!((parameters.width, parameters.height, parameters.strength), (112, 32, Some(0.75)));
        let fault = job.resolve(&resolver(), Options { memory: Some(1 << 20), ..Options::default() }).unwrap_err();
        assert_eq!((fault.code, fault.field.as_deref()), (Code::OutOfMemory, Some("init_images")));
    }
    for images in
        [json!([]), json!(["a", "b"]), json!("aGVsbG8="), json!(["%%%"]), json!(["aGVsbG8="]), json!([7]), json!(null)]
    {
        let payload = with(images).to_string();
        check_refused(RequestMode::Img2Img, payload.as_bytes(), Code::InvalidParam, Some("init_images"));
    }
}

#[test]
fn an_init_images_fit_has_two_names() {
    let fit = |value: Value| {
        let mut request = json!({"prompt": "a", "background": "#FF8000"});
        value.as_object().unwrap().iter().for_each(|(key, value)| request[key] = value.clone());
        parse(RequestMode::Txt2Img, request).map(|job| (job.request.fit, job.request.background))
    };
    let background = Some(Colour([255, 128, 0]));
    assert_eq!(fit(json!({})).unwrap(), (None, background));
    assert_eq!(fit(json!({"fit": "Cover"})).unwrap(), (Some(Fit::Cover), background));
    for (number, name) in [Fit::Stretch, Fit::Cover, Fit::Contain].into_iter().enumerate() {
        assert_eq!(fit(json!({"resize_mode": number})).unwrap().0, Some(name));
    }
    assert_eq!(fit(json!({"resize_mode": 1, "fit": "cover"})).unwrap().0, Some(Fit::Cover));
    let rejection = fit(json!({"resize_mode": 1, "fit": "contain"})).unwrap_err();
    assert_eq!(rejection.fault.field.as_deref(), Some("resize_mode"));
}

#[test]
fn unknown_keys_warn() {
    let job = txt2img(json!({"prompt": "a", "stepps": 3, "eta": null}));
    assert_eq!(job.warnings, ["`stepps` is unknown and was left out"]);
}

#[test]
fn previews_are_as_asked_or_as_the_device_has_them() {
    for (value, preview) in [(json!(null), None), (json!(true), Some(true)), (json!(0), Some(false))] {
        assert_eq!(txt2img(json!({"prompt": "a", "preview": value})).preview, preview);
    }
    let rejection = parse(RequestMode::Txt2Img, json!({"prompt": "a", "preview": "yes"})).unwrap_err();
    assert_eq!(rejection.fault.field.as_deref(), Some("preview"));
}

#[test]
fn an_image_for_a_display_is_painted_in_its_shape() {
    let manifest = resolver().manifest().clone();
    let size = |value: Value| {
        let mut job = txt2img(value);
        let output = job.output.clone().unwrap().resolve(&KnownPanels::default()).unwrap();
        job.paint_for(output.as_ref(), &manifest);
        (job.request.width, job.request.height)
    };
    let panel = json!("waveshare-10.3");
    assert_eq!(size(json!({"prompt": "a", "output": panel})), (Some(144), Some(112)));
    let upright = json!({"panel": "waveshare-10.3", "rotate": 90});
    assert_eq!(size(json!({"prompt": "a", "output": upright})), (Some(112), Some(144)));
    assert_eq!(size(json!({"prompt": "a", "output": panel, "width": 64})), (Some(64), None));
    for output in [json!("none"), json!({"palette": "grey-4"})] {
        assert_eq!(size(json!({"prompt": "a", "output": output})), (None, None));
    }
    for output in [json!(1), json!({"width": -1}), json!({"palette": "grey-4", "x": 1})] {
        let payload = json!({"prompt": "a", "output": output}).to_string();
        check_refused(RequestMode::Txt2Img, payload.as_bytes(), Code::InvalidParam, Some("output"));
    }
}

#[test]
fn a_job_is_named_by_id_then_transaction_then_at_random() {
    assert_eq!(txt2img(json!({"prompt": "a", "id": 7, "transaction": "t"})).id, "7");
    let named = txt2img(json!({"prompt": "a", "transaction": "t1"}));
    assert_eq!((named.id.as_str(), named.transaction), ("t1", Some(json!("t1"))));
    assert!(is_safe_level(&txt2img(json!({"prompt": "a", "transaction": "not/safe"})).id));
    assert_ne!(txt2img(json!({"prompt": "a"})).id, txt2img(json!({"prompt": "a"})).id);
    let rejection = parse(RequestMode::Txt2Img, json!({"prompt": 1, "id": "x", "transaction": 9})).unwrap_err();
    assert_eq!((rejection.id.as_deref(), rejection.transaction), (Some("x"), Some(json!(9))));
}

#[test]
fn seeds() {
    assert_eq!(txt2img(json!({"prompt": "a", "seed": u64::MAX})).request.seed, u64::MAX);
    let random = |seed: Value| txt2img(json!({"prompt": "a", "seed": seed})).request.seed;
    assert_ne!(random(json!(-1)), random(json!(-1)));
    assert!(random(json!(null)) <= u64::from(u32::MAX));
}

#[test]
fn what_only_the_sampler_knows_is_refused_when_the_request_arrives() {
    let cases = [
        ("steps", json!({"sampler_name": "pndm", "steps": 3})),
        ("steps", json!({"sampler_name": "lcm", "steps": 60})),
        ("denoising_strength", json!({"denoising_strength": 0.01, "steps": 20})),
    ];
    for (field, keys) in cases {
        let mut request = json!({"prompt": "a"});
        keys.as_object().unwrap().iter().for_each(|(key, value)| request[key] = value.clone());
        let request = txt2img(request).request;
        let init_size = request.strength.map(|_| (64, 64));
        let fault = Fault::from(resolver().resolve(&request, init_size).unwrap_err());
        assert_eq!((fault.code, fault.field.as_deref()), (Code::InvalidParam, Some(field)), "{fault}");
    }
}

#[test]
fn the_strength_that_a_refusal_recommends_is_taken() {
    let resolver = resolver();
    let resolve = |steps: usize, strength: f64| {
        let request = json!({"prompt": "a", "sampler_name": "ddim", "steps": steps, "denoising_strength": strength});
        resolver.resolve(&txt2img(request).request, Some((64, 64))).map_err(|error| error.to_string())
    };
    for steps in 1..=999 {
        let refusal = resolve(steps, 0.0).unwrap_err();
        let (_, least) = refusal.strip_suffix(" is needed").unwrap().rsplit_once(' ').unwrap();
        resolve(steps, least.parse().unwrap()).unwrap();
    }
}

#[test]
fn what_has_no_effect_is_a_warning() {
    let warnings = |value: Value| {
        let paintings = txt2img(value).resolve(&resolver(), Options::default()).unwrap();
        paintings[0].warnings().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let long = format!("{} Red at night", ["house"; 75].join(" "));
    assert!(warnings(json!({"prompt": "a red house", "negative_prompt": "a tree"})).is_empty());
    assert_eq!(
        warnings(json!({"prompt": "a red Mushroom, a mushroom in a castle", "negative_prompt": "blurry"})),
        [
            "negative_prompt: the model does not know the words: blurry",
            "prompt: the model does not know the words: mushroom, castle"
        ]
    );
    assert_eq!(
        warnings(json!({"prompt": long, "negative_prompt": long, "prompt_syntax": "plain"})),
        ["negative_prompt", "prompt"]
            .map(|field| format!("{field}: the model reads 75 tokens; left out: \"red at night\""))
    );
    assert!(warnings(json!({"prompt": long, "negative_prompt": long})).is_empty());
    assert_eq!(
        warnings(json!({"prompt": "a (red:1.2) <lora:x:1>house"})),
        ["prompt: <lora:x:1> has no effect: a LoRA is merged into the model by `model-prep convert --lora`"]
    );
    assert_eq!(
        warnings(json!({"prompt": "a house", "denoising_strength": 0.5, "resize_mode": 1, "background": "black"})),
        ["denoising_strength", "fit", "background"].map(|key| format!("{key} has no effect without an init image"))
    );
    assert_eq!(
        warnings(json!({"prompt": "a house", "negative_prompt": long, "cfg_scale": 1})),
        ["negative_prompt has no effect without guidance (cfg_scale 1; above 1 it has)"]
    );
}

#[test]
fn a_mask_comes_with_an_init_image_and_its_keys_have_defaults() {
    let image = || {
        let mut file = Cursor::new(vec![]);
        RgbImage::new(70, 20).write_to(&mut file, ImageFormat::Png).unwrap();
        base64::engine::general_purpose::STANDARD.encode(file.into_inner())
    };
    let with = |more: Value| {
        let mut request = json!({"prompt": "a", "init_images": [image()], "mask": image()});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        parse(RequestMode::Img2Img, request).unwrap()
    };
    let plain = with(json!({}));
    assert_eq!((plain.request.inpainting, plain.mask.is_some()), (Some(Inpainting::default()), true));
    let all = json!({
        "mask_blur": 4, "mask_blur_y": 2.5, "inpainting_fill": 2, "inpaint_full_res": true,
        "inpainting_mask_invert": 1, "keep_unmasked": false,
    });
    let inpainting = Inpainting {
        blur_x: 4.0,
        blur_y: 2.5,
        content: MaskedContent::LatentNoise,
        invert: true,
        region_only: true,
        padding: PADDING,
        keep_unmasked: false,
    };
    let job = with(all.clone());
    assert_eq!((job.request.inpainting, job.warnings.len()), (Some(inpainting), 0));
    let useless = with(json!({"inpaint_full_res_padding": 8}));
    assert_eq!(useless.warnings, ["inpaint_full_res_padding has no effect without inpaint_full_res"]);
    let mut without = all;
    (without["prompt"], without["init_images"]) = (json!("a"), json!([image()]));
    let job = parse(RequestMode::Img2Img, without).unwrap();
    assert_eq!(job.request.inpainting, None);
    let keys = "mask_blur, mask_blur_y, inpainting_fill, inpainting_mask_invert, inpaint_full_res, keep_unmasked";
    assert_eq!(job.warnings, [format!("no effect without a mask: {keys}")]);
    let full = json!({"prompt": "a", "init_images": [image()], "mask": image(), "inpainting_fill": 0,
                      "denoising_strength": 1});
    let paintings = parse(RequestMode::Img2Img, full).unwrap().resolve(&resolver(), Options::default()).unwrap();
    assert!(paintings[0].warnings()[0].to_string().starts_with("inpainting_fill has no effect at"));
    for (mode, request) in [
        (RequestMode::Txt2Img, json!({"prompt": "a", "mask": image()})),
        (RequestMode::Img2Img, json!({"prompt": "a", "init_images": [image()], "mask": "aGVsbG8="})),
        (RequestMode::Img2Img, json!({"prompt": "a", "init_images": [image()], "mask": "%"})),
        (RequestMode::Img2Img, json!({"prompt": "a", "init_images": [image()], "mask": 7})),
    ] {
        check_refused(mode, request.to_string().as_bytes(), Code::InvalidParam, Some("mask"));
    }
}

#[test]
fn each_image_draws_its_own_prompt_once() {
    let draw = |value: Value| {
        let mut job = txt2img(value);
        job.draw(&Wildcards::default(), &resolver()).map(|()| job)
    };
    let request = json!({"prompt": "a {red|blue|green} house", "seed": 1, "n_iter": 16});
    let job = draw(request.clone()).unwrap();
    let paintings = job.resolve(&resolver(), Options::default()).unwrap();
    let prompts: Vec<_> = paintings.iter().map(|painting| painting.parameters().prompt.clone()).collect();
    assert!(
        ["red", "blue", "green"].iter().all(|colour| prompts.contains(&format!("a {colour} house"))),
        "{prompts:?}"
    );
    let last = paintings[15].parameters();
    assert_eq!((last.seed, last.prompt_template.as_deref()), (16, Some("a {red|blue|green} house")));
    assert_eq!(last.negative_prompt_template, None);
    // What was drawn is kept with the job.
    let kept: Job = serde_json::from_str(&serde_json::to_string(&job).unwrap()).unwrap();
    assert_eq!(kept.drawn, draw(request).unwrap().drawn);
    let plain = draw(json!({"prompt": "a {red|blue} house", "prompt_syntax": "plain"})).unwrap();
    assert!(plain.drawn.is_empty() && draw(json!({"prompt": "a {house}"})).unwrap().drawn.is_empty());
    let fault = draw(json!({"prompt": "__colours__"})).unwrap_err();
    assert_eq!((fault.code, fault.field.as_deref()), (Code::InvalidParam, Some("prompt")));
}

#[test]
fn clip_skip_has_two_names() {
    let job = txt2img(json!({"prompt": "a", "override_settings": {"CLIP_stop_at_last_layers": 2, "eta": 1}}));
    assert_eq!(job.request.clip_skip, Some(2));
    assert_eq!(job.warnings, ["`override_settings.eta` is unknown and was left out"]);
    assert_eq!(txt2img(json!({"prompt": "a", "clip_skip": 3})).request.clip_skip, Some(3));
}

fn text(payload: &[u8]) -> Job {
    parse_bytes(payload, RequestMode::Txt2Img).unwrap()
}

#[test]
fn what_tools_add_around_a_payload_is_taken_off() {
    let job = text(b"\xef\xbb\xbf{\"prompt\": \"a red house\\u0000\", \"id\": \"bom\"}\0\0");
    assert_eq!((job.request.prompt.as_str(), job.id.as_str()), ("a red house", "bom"));
    assert_eq!(text(b"a red house\0").request.prompt, "a red house");
    check_refused(RequestMode::Txt2Img, b"a red\0house", Code::InvalidJson, None);
    check_refused(RequestMode::Txt2Img, br#"{"prompt": "a\u0000b"}"#, Code::InvalidParam, Some("prompt"));
}

#[test]
fn a_key_that_is_there_twice_is_refused_and_null_is_a_key_left_out() {
    for payload in [
        r#"{"prompt": "a", "steps": 1, "steps": 2}"#,
        r#"{"prompt": "a", "hires": {"scale": 2, "scale": 3}}"#,
        r#"{"prompt": "a", "unknown": [[{"b": null, "b": null}]]}"#,
    ] {
        check_refused(RequestMode::Txt2Img, payload.as_bytes(), Code::InvalidJson, None);
    }
    let job = txt2img(json!({"prompt": "a", "id": null, "steps": null, "seed": null, "unknown": null}));
    assert!(job.request.steps.is_none() && job.warnings.is_empty());
}

#[test]
fn a_seed_may_be_a_whole_float() {
    assert_eq!(txt2img(json!({"prompt": "a", "seed": 7.0})).request.seed, 7);
    assert_eq!(txt2img(json!({"prompt": "a", "seed": u64::MAX})).request.seed, u64::MAX);
    assert!(txt2img(json!({"prompt": "a", "seed": -1.0})).request.seed <= u64::from(u32::MAX));
    for seed in [json!(7.5), json!(-2), json!(-2.0), json!("7")] {
        let payload = json!({"prompt": "a", "seed": seed}).to_string();
        check_refused(RequestMode::Txt2Img, payload.as_bytes(), Code::InvalidParam, Some("seed"));
    }
}

#[test]
fn a_prompt_that_looks_like_broken_json_has_a_warning() {
    for payload in ["'{\"prompt\":\"a\"}'", "[{\"prompt\":\"a\"}", "\"prompt\": \"a cat\", \"steps\": 1"] {
        assert!(text(payload.as_bytes()).warnings[0].contains("looks like JSON"), "{payload}");
    }
    assert!(text(b"a cat [cat:dog]").warnings.is_empty());
    let deep = format!("{}{}", "[".repeat(4000), "]".repeat(4000));
    check_refused(RequestMode::Txt2Img, deep.as_bytes(), Code::InvalidJson, None);
}

#[test]
fn errors_are_short_and_on_one_line() {
    let message = |value: Value| parse(RequestMode::Txt2Img, value).unwrap_err().fault.to_string();
    let not_after = message(json!({"prompt": "a", "not_after": 1e300}));
    assert!(not_after.len() < 100, "{not_after}");
    assert!(!message(json!({"prompt": "a", "id": "a\nb"})).contains('\n'));
}

#[test]
fn a_payload_that_is_not_read_keeps_its_names() {
    let names = |payload: &str| {
        let rejection = Rejection::of_names(payload.as_bytes(), Fault::too_large("request", ""));
        (rejection.id, rejection.transaction)
    };
    assert_eq!(names(r#"{"prompt": "a", "id": "a", "transaction": 7}"#), (Some("a".into()), Some(json!(7))));
    assert_eq!(names(r#"{"prompt": "a", "id": "a/b"}"#), (None, None));
    assert_eq!(names("a cat"), (None, None));
    assert_eq!(names(&json!({"transaction": "x".repeat(2000)}).to_string()), (None, None));
}

#[test]
fn a_large_transaction_is_refused_under_the_requests_id_and_not_returned() {
    let request = json!({"prompt": "a", "id": "x", "transaction": "t".repeat(2000)});
    let rejection = parse(RequestMode::Txt2Img, request).unwrap_err();
    assert_eq!((rejection.id.as_deref(), rejection.transaction), (Some("x"), None));
    assert_eq!((rejection.fault.code, rejection.fault.field.as_deref()), (Code::TooLarge, Some("transaction")));
}
