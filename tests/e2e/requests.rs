//! Bad requests: each gets an error that names code and field, and the next good one is served.

use std::io::Cursor;

use base64::Engine as _;
use image::{GrayImage, ImageFormat};
use serde_json::{Value, json};

use diffused_tests::mqtt::{Delivery, Harness, wait_until};

fn rejected(message: &Delivery) -> bool {
    message.topic.ends_with("/state") && message.json()["state"] == "rejected"
}

fn check_rejected(harness: &mut Harness, topic: &str, payload: &[u8], code: &str, field: Option<&str>) {
    harness.peer.publish(topic, payload.to_vec());
    let error = harness.peer.wait_for("rejection", rejected).last().unwrap().json()["error"].clone();
    let shown = String::from_utf8_lossy(&payload[..payload.len().min(80)]).into_owned();
    assert_eq!((error["code"].as_str(), error["field"].as_str()), (Some(code), field), "{shown}: {error}");
    assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{shown}: {error}");
}

fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// A picture that is small as a file and huge in memory.
fn bomb() -> Vec<u8> {
    let mut file = Cursor::new(vec![]);
    GrayImage::new(20_000, 20_000).write_to(&mut file, ImageFormat::Png).unwrap();
    file.into_inner()
}

pub(crate) fn bad_requests_are_refused_and_good_ones_served() {
    let mut harness = Harness::start();
    for payload in ["[1, 2]", "42", "{\"prompt\": \"a\"", "{prompt: a}"] {
        check_rejected(&mut harness, "txt2img", payload.as_bytes(), "invalid_json", None);
    }
    check_rejected(&mut harness, "txt2img", b"\xff\xfe\x00", "invalid_json", None);
    check_rejected(&mut harness, "txt2img", b"", "invalid_param", Some("prompt"));
    let fields = [
        ("prompt", json!(7)),
        ("width", json!(0)),
        ("width", json!(7)),
        ("width", json!(100)),
        ("width", json!(100_000)),
        ("height", json!(0)),
        ("height", json!(7)),
        ("height", json!(100_000)),
        ("height", json!("tall")),
        ("steps", json!(0)),
        ("steps", json!(-5)),
        ("steps", json!(1e300)),
        ("cfg_scale", json!("much")),
        ("cfg_scale", json!(-1)),
        ("sampler_name", json!("magic")),
        ("seed", json!("lucky")),
        ("n_iter", json!(0)),
        ("id", json!("a/../b")),
        ("mask", json!("x")),
        ("init_images", json!(["x"])),
    ];
    for (field, value) in fields {
        let mut request = json!({"prompt": "a"});
        request[field] = value;
        check_rejected(&mut harness, "txt2img", request.to_string().as_bytes(), "invalid_param", Some(field));
    }
    let messages = harness.peer.paint(&json!({"prompt": "a red house", "steps": 1, "id": "good"}));
    assert!(messages.iter().any(|message| message.topic == "job/good/image/0"));
}

pub(crate) fn what_only_the_sampler_knows_is_refused_before_the_jobs_that_wait() {
    let mut harness = Harness::start();
    harness.peer.publish("request/pause", "");
    harness.peer.publish("txt2img", json!({"prompt": "a", "id": "first"}).to_string());
    harness.peer.wait_state("first", "queued");
    for sampler in [json!({"sampler_name": "pndm", "steps": 3}), json!({"sampler_name": "lcm", "steps": 60})] {
        let mut request = json!({"prompt": "a"});
        sampler.as_object().unwrap().iter().for_each(|(key, value)| request[key] = value.clone());
        check_rejected(&mut harness, "txt2img", request.to_string().as_bytes(), "invalid_param", Some("steps"));
    }
    let mut file = Cursor::new(vec![]);
    GrayImage::new(64, 64).write_to(&mut file, ImageFormat::Png).unwrap();
    let images = json!([base64(file.get_ref())]);
    let faint = json!({"prompt": "a", "init_images": images, "denoising_strength": 0.01, "steps": 20}).to_string();
    check_rejected(&mut harness, "img2img", faint.as_bytes(), "invalid_param", Some("denoising_strength"));
}

pub(crate) fn what_has_no_effect_is_a_warning_in_the_result() {
    let mut harness = Harness::start();
    let prompt = format!("{} red at night", ["house"; 75].join(" "));
    let request = json!({
        "prompt": prompt, "prompt_syntax": "plain", "negative_prompt": "a tree", "cfg_scale": 1, "steps": 1, "id": "w",
        "etta": 1,
    });
    let messages = harness.peer.paint(&request);
    let result = messages.iter().find(|message| message.topic == "job/w/result").unwrap().json();
    let warnings: Vec<String> = serde_json::from_value(result["warnings"].clone()).unwrap();
    for part in ["`etta` is unknown", "negative_prompt has no effect", "left out: \"red at night\""] {
        assert_eq!(warnings.iter().filter(|warning| warning.contains(part)).count(), 1, "{part}: {warnings:?}");
    }
    assert_eq!(warnings.len(), 3, "{warnings:?}");
}

pub(crate) fn broken_and_huge_init_images_are_refused() {
    let mut harness = Harness::start();
    let broken = [b"\x89PNG\r\n\x1a\n garbage".to_vec(), b"GIF89a".to_vec(), vec![], bomb()];
    let texts = broken.iter().map(|bytes| json!([base64(bytes)]));
    for images in texts.chain([json!(["%%"]), json!([]), json!([1]), json!("x"), Value::Null]) {
        let request = json!({"prompt": "a", "init_images": images}).to_string();
        harness.peer.publish("img2img", request);
        let error = harness.peer.wait_for("rejection", rejected).last().unwrap().json()["error"].clone();
        let code = error["code"].as_str().unwrap_or_default();
        assert!(["invalid_param", "too_large"].contains(&code), "{error}");
        assert_eq!(error["field"], "init_images", "{error}");
    }
    harness.peer.publish("img2img", "just a prompt");
    harness.peer.wait_for("rejection", rejected);
    harness.peer.paint(&json!({"prompt": "a red house", "steps": 1, "id": "good"}));
}

pub(crate) fn a_retained_request_is_refused() {
    let mut harness = Harness::start();
    harness.peer.publish_retained("txt2img", json!({"prompt": "a", "id": "kept"}).to_string());
    let messages = harness.peer.wait_state("kept", "rejected");
    assert_eq!(messages.last().unwrap().json()["error"]["field"], "retain");
    harness.peer.publish_retained("txt2img", "");
    harness.peer.paint(&json!({"prompt": "a", "steps": 1, "id": "good"}));
}

pub(crate) fn late_requests_expire() {
    let mut harness = Harness::start();
    harness.peer.publish("txt2img", json!({"prompt": "a", "id": "old", "not_after": 1000}).to_string());
    let messages = harness.peer.wait_state("old", "rejected");
    assert_eq!(messages.last().unwrap().json()["error"]["code"], "expired");
}

pub(crate) fn commands_are_answered() {
    let mut harness = Harness::start();
    let mut ask = |name: &str, payload: &str| -> Value {
        harness.peer.publish(name, payload.to_owned());
        let topic = format!("response/{}", name.trim_start_matches("request/"));
        harness.peer.wait_for(&topic, |message| message.topic == topic).pop().unwrap().json()
    };
    let listed = ask("request/list", "{\"transaction\": 5}");
    assert_eq!(listed["data"], json!({"running": null, "waiting": [], "paused": false}));
    assert_eq!((&listed["status"], &listed["transaction"]), (&json!("ok"), &json!(5)));
    assert_eq!(ask("request/pause", "\u{feff}{}\0")["data"]["paused"], true);
    assert_eq!(ask("request/resume", "")["data"]["paused"], false);
    assert_eq!(ask("request/reload", "")["data"]["changed"], false);
    for (name, payload) in [("request/dance", ""), ("cancel", "{}"), ("cancel", "{"), ("cancel", "{\"id\": \"none\"}")]
    {
        let answer = ask(name, payload);
        assert_eq!(answer["status"], "error", "{name} {payload}");
        assert!(answer["error"].as_str().is_some_and(|error| !error.is_empty()));
    }
    assert_eq!(ask("cancel", "{\"id\": null, \"all\": true}")["data"], json!({"cancelled": []}));
    harness.peer.publish("request/a b", "");
    wait_until("the log has it", || harness.program.log().contains("a command's name cannot be part of a topic"));
}

pub(crate) fn a_self_test_paints_the_same_bytes_each_time() {
    let mut harness = Harness::start();
    let mut test = || {
        harness.peer.publish("request/self_test", "");
        let answers = harness.peer.wait_for("an answer", |message| message.topic == "response/self_test");
        let job = answers.last().unwrap().json()["data"]["job"].as_str().unwrap().to_owned();
        let mut messages = answers;
        messages.extend(harness.peer.wait_state(&job, "done"));
        let result = messages.iter().find(|message| message.topic == format!("job/{job}/result")).unwrap().json();
        result["images"][0]["sha256"].clone()
    };
    let first = test();
    assert!(first.is_string() && test() == first);
}

pub(crate) fn waiting_and_running_jobs_are_cancelled() {
    let mut harness = Harness::start();
    let long = |id: &str| json!({"prompt": "a", "steps": 900, "id": id}).to_string();
    harness.peer.publish("txt2img", long("a"));
    harness.peer.publish("txt2img", long("b"));
    harness.peer.publish("txt2img", long("c"));
    harness.peer.wait_for("progress", |message| message.topic == "job/a/progress");
    harness.peer.publish("cancel", "{\"id\": \"b\"}");
    let messages = harness.peer.wait_state("b", "cancelled");
    assert_eq!(messages.last().unwrap().json()["error"]["code"], "cancelled");
    harness.peer.publish("cancel", "{\"id\": \"a\"}");
    harness.peer.wait_state("a", "cancelled");
    harness.peer.wait_state("c", "running");
    harness.peer.publish("cancel", "{\"all\": true}");
    harness.peer.wait_state("c", "cancelled");
    harness.peer.paint(&json!({"prompt": "a", "steps": 1, "id": "good"}));
}

pub(crate) fn a_full_queue_says_so() {
    let mut harness = Harness::start();
    harness.peer.publish("request/pause", "");
    for n in 0..33 {
        harness.peer.publish("txt2img", json!({"prompt": "a", "id": format!("n{n}")}).to_string());
    }
    let refused = harness.peer.wait_for("rejection", rejected).pop().unwrap();
    assert_eq!((refused.topic.as_str(), &refused.json()["error"]["code"]), ("job/n32/state", &json!("queue_full")));
}

pub(crate) fn a_request_over_the_limit_is_answered() {
    let mut harness = Harness::start_configured("", "", "max_packet = \"64K\"\n");
    let request = json!({"prompt": "x".repeat(80_000), "id": "large", "transaction": "t"});
    harness.peer.publish("txt2img", request.to_string());
    let messages = harness.peer.wait_state("large", "rejected");
    let rejected = messages.last().unwrap().json();
    assert_eq!((&rejected["error"]["code"], &rejected["transaction"]), (&json!("too_large"), &json!("t")));
    harness.peer.paint(&json!({"prompt": "a", "steps": 1, "id": "next"}));
}
