//! Bad requests: each gets an error that names code and field, and the next good one is served.

use std::io::Cursor;

use base64::Engine as _;
use image::{GrayImage, ImageFormat};
use serde_json::{Value, json};

use crate::bench::{Bench, Message};

fn rejected(message: &Message) -> bool {
    message.topic.ends_with("/state") && message.json()["state"] == "rejected"
}

fn check_rejected(bench: &mut Bench, topic: &str, payload: &[u8], code: &str, field: Option<&str>) {
    bench.peer.publish(topic, payload.to_vec());
    let error = bench.peer.wait_for("rejection", rejected).last().unwrap().json()["error"].clone();
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

#[test]
fn bad_requests_are_refused_and_good_ones_served() {
    let mut bench = Bench::start();
    for payload in ["[1, 2]", "42", "{\"prompt\": \"a\"", "{prompt: a}"] {
        check_rejected(&mut bench, "txt2img", payload.as_bytes(), "invalid_json", None);
    }
    check_rejected(&mut bench, "txt2img", b"\xff\xfe\x00", "invalid_json", None);
    check_rejected(&mut bench, "txt2img", b"", "invalid_param", Some("prompt"));
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
        check_rejected(&mut bench, "txt2img", request.to_string().as_bytes(), "invalid_param", Some(field));
    }
    let messages = bench.peer.paint(&json!({"prompt": "a red house", "steps": 1, "id": "good"}));
    assert!(messages.iter().any(|message| message.topic == "job/good/image/0"));
}

#[test]
fn broken_and_huge_init_images_are_refused() {
    let mut bench = Bench::start();
    let broken = [b"\x89PNG\r\n\x1a\n garbage".to_vec(), b"GIF89a".to_vec(), vec![], bomb()];
    let texts = broken.iter().map(|bytes| json!([base64(bytes)]));
    for images in texts.chain([json!(["%%"]), json!([]), json!([1]), json!("x"), Value::Null]) {
        let request = json!({"prompt": "a", "init_images": images}).to_string();
        bench.peer.publish("img2img", request);
        let error = bench.peer.wait_for("rejection", rejected).last().unwrap().json()["error"].clone();
        let code = error["code"].as_str().unwrap_or_default();
        assert!(["invalid_param", "too_large"].contains(&code), "{error}");
        assert_eq!(error["field"], "init_images", "{error}");
    }
    bench.peer.publish("img2img", "just a prompt");
    bench.peer.wait_for("rejection", rejected);
    bench.peer.paint(&json!({"prompt": "a red house", "steps": 1, "id": "good"}));
}

#[test]
fn a_retained_request_is_refused() {
    let mut bench = Bench::start();
    bench.peer.publish_retained("txt2img", json!({"prompt": "a", "id": "kept"}).to_string());
    let messages = bench.peer.wait_state("kept", "rejected");
    assert_eq!(messages.last().unwrap().json()["error"]["field"], "retain");
    bench.peer.publish_retained("txt2img", "");
    bench.peer.paint(&json!({"prompt": "a", "steps": 1, "id": "good"}));
}

#[test]
fn late_requests_expire() {
    let mut bench = Bench::start();
    bench.peer.publish("txt2img", json!({"prompt": "a", "id": "old", "not_after": 1000}).to_string());
    let messages = bench.peer.wait_state("old", "rejected");
    assert_eq!(messages.last().unwrap().json()["error"]["code"], "expired");
}

#[test]
fn commands_are_answered() {
    let mut bench = Bench::start();
    let mut ask = |name: &str, payload: &str| -> Value {
        bench.peer.publish(name, payload.to_owned());
        let topic = format!("response/{}", name.trim_start_matches("request/"));
        bench.peer.wait_for(&topic, |message| message.topic == topic).pop().unwrap().json()
    };
    let listed = ask("request/list", "{\"transaction\": 5}");
    assert_eq!(listed["data"], json!({"running": null, "waiting": [], "paused": false}));
    assert_eq!((&listed["status"], &listed["transaction"]), (&json!("ok"), &json!(5)));
    assert_eq!(ask("request/pause", "")["data"]["paused"], true);
    assert_eq!(ask("request/resume", "")["data"]["paused"], false);
    assert_eq!(ask("request/reload", "")["data"]["changed"], false);
    for (name, payload) in [("request/dance", ""), ("cancel", "{}"), ("cancel", "{"), ("cancel", "{\"id\": \"none\"}")]
    {
        let answer = ask(name, payload);
        assert_eq!(answer["status"], "error", "{name} {payload}");
        assert!(answer["error"].as_str().is_some_and(|error| !error.is_empty()));
    }
}

#[test]
fn waiting_and_running_jobs_are_cancelled() {
    let mut bench = Bench::start();
    let long = |id: &str| json!({"prompt": "a", "steps": 900, "id": id}).to_string();
    bench.peer.publish("txt2img", long("a"));
    bench.peer.publish("txt2img", long("b"));
    bench.peer.publish("txt2img", long("c"));
    bench.peer.wait_for("progress", |message| message.topic == "job/a/progress");
    bench.peer.publish("txt2img", long("a"));
    let refused = bench.peer.wait_for("rejection", rejected).pop().unwrap();
    assert_eq!(refused.json()["error"]["field"], "id");
    assert_ne!(refused.topic, "job/a/state");

    bench.peer.publish("cancel", "{\"id\": \"b\"}");
    let messages = bench.peer.wait_state("b", "cancelled");
    assert_eq!(messages.last().unwrap().json()["error"]["code"], "cancelled");
    bench.peer.publish("cancel", "{\"id\": \"a\"}");
    bench.peer.wait_state("a", "cancelled");
    bench.peer.wait_state("c", "running");
    bench.peer.publish("cancel", "{\"all\": true}");
    bench.peer.wait_state("c", "cancelled");
    bench.peer.paint(&json!({"prompt": "a", "steps": 1, "id": "good"}));
}

#[test]
fn a_full_queue_says_so() {
    let mut bench = Bench::start();
    bench.peer.publish("request/pause", "");
    for n in 0..33 {
        bench.peer.publish("txt2img", json!({"prompt": "a", "id": format!("n{n}")}).to_string());
    }
    let refused = bench.peer.wait_for("rejection", rejected).pop().unwrap();
    assert_eq!((refused.topic.as_str(), &refused.json()["error"]["code"]), ("job/n32/state", &json!("queue_full")));
}
