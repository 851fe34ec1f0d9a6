//! Good requests: every message of the contract, in its order, and the same bytes for the same seed.

use std::collections::BTreeSet;
use std::io::Cursor;

use base64::Engine as _;
use image::{ImageFormat, Rgb, RgbImage};
use rumqttc::v5::mqttbytes::v5::PublishProperties;
use serde_json::{Value, json};

use diffused_tests::contract::delivery;
use diffused_tests::mqtt::{Delivery, Harness, Peer};
use diffused_tests::sha256;

fn names(messages: &[Delivery], id: &str) -> Vec<String> {
    let mut names: Vec<String> = vec![];
    for message in messages {
        let Some(name) = message.topic.strip_prefix(&format!("job/{id}/")) else { continue };
        let name = if name == "state" { message.json()["state"].as_str().unwrap().to_owned() } else { name.to_owned() };
        // Progress comes once a second, as often as the machine is slow.
        if names.last() != Some(&name) {
            names.push(name);
        }
    }
    names
}

fn find<'a>(messages: &'a [Delivery], topic: &str) -> &'a Delivery {
    messages.iter().find(|m| m.topic == topic).unwrap_or_else(|| panic!("no {topic} in {messages:#?}"))
}

fn encoded(picture: &RgbImage) -> String {
    let mut file = Cursor::new(vec![]);
    picture.write_to(&mut file, ImageFormat::Png).unwrap();
    base64::engine::general_purpose::STANDARD.encode(file.into_inner())
}

/// A small init image in base64.
pub(crate) fn small_image() -> String {
    encoded(&RgbImage::from_pixel(64, 64, Rgb([9, 8, 7])))
}

pub(crate) fn a_prompt_becomes_a_picture() {
    let mut harness = Harness::start();
    let request =
        json!({"prompt": "a red house", "seed": 7, "steps": 3, "id": "a", "transaction": "t", "colour": "red"});
    let messages = harness.peer.paint(&request);
    assert_eq!(names(&messages, "a"), ["queued", "running", "progress", "image/0", "result", "done"]);

    let queued = find(&messages, "job/a/state").json();
    assert_eq!((&queued["position"], &queued["transaction"]), (&json!(0), &json!("t")));
    assert!(queued["warnings"][0].as_str().unwrap().contains("colour"));
    let progress = find(&messages, "job/a/progress").json();
    assert!((0.0..=1.0).contains(&progress["progress"].as_f64().unwrap()) && progress["steps"] == 3);

    let image = find(&messages, "job/a/image/0");
    assert_eq!(image.properties.content_type.as_deref(), Some("image/png"));
    let picture = image::load_from_memory_with_format(&image.payload, ImageFormat::Png).unwrap();
    assert_eq!(find(&messages, "image").payload, image.payload);

    let result = find(&messages, "job/a/result").json();
    let listed = &result["images"][0];
    assert_eq!(listed["sha256"], sha256(&image.payload));
    assert_eq!(
        (&listed["topic"], &listed["bytes"]),
        (&json!("diffused/test/job/a/image/0"), &json!(image.payload.len()))
    );
    assert_eq!(std::fs::read(listed["path"].as_str().unwrap()).unwrap(), image.payload);
    let parameters = &result["parameters"];
    assert_eq!((&parameters["seed"], &parameters["steps"]), (&json!(7), &json!(3)));
    assert_eq!(parameters["width"], picture.width());
    assert!(result["timings"]["unet"].as_f64().is_some() && result["timings"]["peak_rss"].as_u64() > Some(1 << 20));
    assert_eq!((&result["status"], &result["id"], &result["transaction"]), (&json!("done"), &json!("a"), &json!("t")));
    assert_eq!(result["model_sha256"].as_str().map(str::len), Some(64));
}

pub(crate) fn a_seed_gives_the_same_bytes_again_and_pictures_count_up() {
    let mut harness = Harness::start();
    let mut paint = |id: &str, seed: u64, count: u64| -> Vec<String> {
        let request = json!({"prompt": "a cat", "seed": seed, "steps": 2, "id": id, "n_iter": count});
        let messages = harness.peer.paint(&request);
        let result = find(&messages, &format!("job/{id}/result")).json();
        result["images"].as_array().unwrap().iter().map(|image| image["sha256"].as_str().unwrap().to_owned()).collect()
    };
    let one = paint("one", 7, 1);
    let again = paint("again", 7, 1);
    let next = paint("next", 8, 1);
    let both = paint("both", 7, 2);
    assert_eq!(one, again);
    assert_ne!(one, next);
    assert_eq!(both, [one[0].clone(), next[0].clone()]);
}

pub(crate) fn plain_text_is_a_prompt_and_its_seed_is_told() {
    let mut harness = Harness::start();
    harness.peer.publish("txt2img", "a blue boat");
    let done = |message: &Delivery| message.topic.ends_with("/state") && message.json()["state"] == "done";
    let messages = harness.peer.wait_for("done", done);
    let result = messages.iter().find(|message| message.topic.ends_with("/result")).unwrap().json();
    assert_eq!(result["parameters"]["prompt"], "a blue boat");
    assert!(result["parameters"]["seed"].is_u64());
}

pub(crate) fn a_picture_becomes_another() {
    let mut harness = Harness::start();
    let start = RgbImage::from_fn(130, 70, |x, y| Rgb([x as u8, y as u8, 128]));
    let request = json!({
        "prompt": "a red house", "init_images": [encoded(&start)], "denoising_strength": 0.5, "steps": 4, "seed": 1,
        "id": "i", "format": "jpeg", "width": 128, "height": 64,
    });
    harness.peer.publish("img2img", request.to_string());
    let messages = harness.peer.wait_state("i", "done");
    assert_eq!(names(&messages, "i"), ["queued", "running", "progress", "image/0", "result", "done"]);
    let image = find(&messages, "job/i/image/0");
    assert_eq!(image.properties.content_type.as_deref(), Some("image/jpeg"));
    let picture = image::load_from_memory_with_format(&image.payload, ImageFormat::Jpeg).unwrap();
    assert_eq!((picture.width(), picture.height()), (128, 64));
    let result = find(&messages, "job/i/result").json();
    assert_eq!(result["parameters"]["denoising_strength"], 0.5);
}

pub(crate) fn a_masked_part_is_repainted_and_the_rest_stays() {
    let mut harness = Harness::start();
    let start = RgbImage::from_fn(96, 64, |x, y| Rgb([x as u8 * 2, y as u8 * 3, 128]));
    let masked = |x: u32| (32..72).contains(&x);
    let mask = RgbImage::from_fn(96, 64, |x, _| Rgb([if masked(x) { 255 } else { 0 }; 3]));
    let mut paint = |id: &str, more: Value| {
        let mut request = json!({
            "prompt": "a red house", "init_images": [encoded(&start)], "mask": encoded(&mask), "denoising_strength": 0.9,
            "steps": 4, "seed": 1, "id": id,
        });
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        harness.peer.publish("img2img", request.to_string());
        let messages = harness.peer.wait_state(id, "done");
        let image =
            image::load_from_memory(&find(&messages, &format!("job/{id}/image/0")).payload).unwrap().into_rgb8();
        (image, find(&messages, &format!("job/{id}/result")).json())
    };
    let (image, result) = paint("m", json!({}));
    assert_eq!(result["parameters"]["inpainting"]["keep_unmasked"], true);
    let same = |image: &RgbImage, x: u32, y: u32| image.get_pixel(x, y) == start.get_pixel(x, y);
    let all = || (0..96).flat_map(|x| (0..64).map(move |y| (x, y)));
    assert!(all().filter(|(x, _)| !masked(*x)).all(|(x, y)| same(&image, x, y)));
    assert!(all().filter(|(x, y)| masked(*x) && !same(&image, *x, *y)).count() > 40 * 64 / 2);
    let (inverted, _) = paint("i", json!({"inpainting_mask_invert": 1}));
    assert!(all().filter(|(x, _)| masked(*x)).all(|(x, y)| same(&inverted, x, y)));
    let (decoded, _) = paint("d", json!({"keep_unmasked": false, "seed": 1}));
    assert!(
        decoded != image
            && all().filter(|(x, _)| masked(*x)).all(|(x, y)| decoded.get_pixel(x, y) == image.get_pixel(x, y))
    );
    let (part, result) = paint("p", json!({"inpaint_full_res": true, "width": 128, "height": 128}));
    assert_eq!((part.dimensions(), result["parameters"]["width"].as_u64()), ((96, 64), Some(128)));
    assert!(all().filter(|(x, _)| !masked(*x)).all(|(x, y)| same(&part, x, y)));
    let black = RgbImage::new(96, 64);
    let request =
        json!({"prompt": "a", "init_images": [encoded(&start)], "mask": encoded(&black), "id": "b", "steps": 2});
    harness.peer.publish("img2img", request.to_string());
    let failed = harness.peer.wait_state("b", "failed").pop().unwrap().json();
    assert_eq!((&failed["error"]["code"], &failed["error"]["field"]), (&json!("invalid_param"), &json!("mask")));
}

pub(crate) fn answers_go_to_the_response_topic_too() {
    let mut harness = Harness::start_configured("", "", "response_topics = [\"answers/\"]\n");
    let ask = |topic: &str| PublishProperties {
        response_topic: Some(topic.into()),
        correlation_data: Some("c-1".into()),
        user_properties: vec![("room".into(), "kitchen".into()), ("room".into(), "hall".into())],
        ..PublishProperties::default()
    };
    let request = |id: &str| json!({"prompt": "a", "steps": 1, "id": id}).to_string();
    for (id, topic, seen) in [("r", "answers/mine", "answers/mine"), ("s", "diffused/test/reply/mine", "reply/mine")] {
        harness.peer.publish_with("txt2img", request(id), ask(topic));
        let messages = harness.peer.wait_state(id, "done");
        let answers: Vec<&Delivery> = messages.iter().filter(|message| message.topic == seen).collect();
        assert!(answers.iter().all(|answer| answer.properties.correlation_data.as_deref() == Some(b"c-1")));
        let rooms =
            |answer: &Delivery| answer.properties.user_properties.iter().map(|(_, room)| room.clone()).collect();
        assert!(answers.iter().map(|answer| rooms(answer)).all(|rooms: Vec<String>| rooms == ["kitchen", "hall"]));
        let states: Vec<Value> = answers.iter().map(|answer| answer.json()["state"].clone()).collect();
        assert_eq!(states, [json!("queued"), json!("running"), Value::Null, json!("done")]);
    }
    for (id, topic) in [("t", "diffused/test/txt2img"), ("u", "elsewhere")] {
        harness.peer.publish_with("txt2img", request(id), ask(topic));
        let messages = harness.peer.wait_state(id, "done");
        let warnings = find(&messages, &format!("job/{id}/result")).json()["warnings"].to_string();
        assert!(warnings.contains("response topic"), "{warnings}");
    }
}

pub(crate) fn a_broker_of_small_messages_gets_a_jpeg() {
    let mut harness = Harness::start_with("max_packet_size 9000");
    let request = json!({"prompt": "a red house", "steps": 2, "seed": 7, "id": "big", "width": 256, "height": 256});
    let messages = harness.peer.paint(&request);
    let result = find(&messages, "job/big/result").json();
    assert!(result["warnings"][0].as_str().unwrap().contains("the broker takes"), "{result}");
    let listed = &result["images"][0];
    if listed["topic"].is_null() {
        assert_eq!(names(&messages, "big"), ["queued", "running", "progress", "result", "done"]);
    } else {
        assert_eq!(listed["content_type"], "image/jpeg");
        assert_eq!(listed["sha256"], sha256(&find(&messages, "job/big/image/0").payload));
    }
    image::open(listed["path"].as_str().unwrap()).unwrap();
}

pub(crate) fn messages_travel_as_the_document_says() {
    let mut harness = Harness::start();
    harness.peer.publish("request/health", "");
    let mut messages = harness.peer.wait_for("response", |message| message.topic == "response/health");
    messages.extend(harness.peer.paint(&json!({"prompt": "a", "steps": 2, "id": "a", "preview": true})));
    let mut topics = vec![];
    for message in &messages {
        let Some((qos, _, content_type)) = delivery(&format!("diffused/test/{}", message.topic)) else { continue };
        let sent = message.properties.content_type.as_deref();
        assert_eq!((u64::from(message.qos), sent), (qos, Some(content_type)), "{message:?}");
        topics.push(message.topic.as_str());
    }
    let job = ["state", "progress", "preview", "image/0", "result"].map(|name| format!("job/a/{name}"));
    for topic in ["response/health", "image"].into_iter().chain(job.iter().map(String::as_str)) {
        assert!(topics.contains(&topic), "{topic}: {topics:?}");
    }
    let mut late = Peer::connect(harness.broker.port);
    // What is kept comes before the answer.
    late.listen("diffused/test/#");
    late.publish("request/list", "");
    let kept = late.wait_for("response", |message| message.topic == "response/list");
    let kept: Vec<&Delivery> = kept.iter().filter(|message| message.retained).collect();
    assert!(kept.iter().all(|m| delivery(&format!("diffused/test/{}", m.topic)).is_some_and(|(_, keeps, _)| keeps)));
    let topics: BTreeSet<&str> = kept.iter().map(|message| message.topic.as_str()).collect();
    assert_eq!(topics, BTreeSet::from(["info", "status"]));
}
