//! Previews: what an image looks like is published while it is painted, and changes nothing of it.

use std::time::Instant;

use base64::Engine as _;
use image::{ImageFormat, Rgb, RgbImage};
use serde_json::{Value, json};

use diffused_tests::mqtt::{Delivery, Harness};

/// The previews of a job, each looked at: an image whose sides are as given.
fn previews<'a>(messages: &'a [Delivery], id: &str, size: (u32, u32)) -> Vec<&'a Delivery> {
    let topic = format!("job/{id}/preview");
    let previews: Vec<&Delivery> = messages.iter().filter(|message| message.topic == topic).collect();
    for preview in &previews {
        assert_eq!((preview.qos, preview.retained), (0, false), "{preview:?}");
        let image = image::load_from_memory_with_format(&preview.payload, ImageFormat::Jpeg).unwrap();
        assert_eq!((image.width(), image.height()), size, "{preview:?}");
    }
    previews
}

fn result(messages: &[Delivery], id: &str) -> Value {
    messages.iter().find(|message| message.topic == format!("job/{id}/result")).unwrap().json()
}

pub(crate) fn what_an_image_looks_like_is_published_while_it_is_painted() {
    let mut harness = Harness::start();
    let request =
        |id: &str| json!({"prompt": "a red house", "seed": 7, "steps": 40, "width": 192, "height": 96, "id": id});
    let mut with = request("with");
    with["preview"] = json!(true);
    let start = Instant::now();
    let messages = harness.peer.paint(&with);
    let seconds = start.elapsed().as_secs() as usize;
    let seen = previews(&messages, "with", (256, 128));
    assert!((1..=seconds + 1).contains(&seen.len()), "{} in {seconds} s", seen.len());
    // Nothing comes after its end, and nothing where it was not asked for.
    let without = harness.peer.paint(&request("without"));
    assert!(without.iter().all(|message| !message.topic.ends_with("/preview")), "{without:?}");
    assert_eq!(result(&messages, "with")["images"][0]["sha256"], result(&without, "without")["images"][0]["sha256"]);
    assert_eq!(result(&messages, "with")["parameters"], result(&without, "without")["parameters"]);
}

pub(crate) fn whatever_is_painted_has_previews() {
    let mut harness = Harness::start();
    let twice = json!({"prompt": "a red house", "steps": 3, "n_iter": 2, "id": "twice", "preview": true});
    assert!(!previews(&harness.peer.paint(&twice), "twice", (256, 256)).is_empty());
    let hires = json!({
        "prompt": "a red house", "steps": 3, "width": 64, "height": 32, "hires": 2, "id": "hires", "preview": true,
    });
    assert!(!previews(&harness.peer.paint(&hires), "hires", (256, 128)).is_empty());
    let encoded = |pixel: fn(u32) -> u8| {
        let mut file = std::io::Cursor::new(vec![]);
        RgbImage::from_fn(96, 64, |x, _| Rgb([pixel(x); 3])).write_to(&mut file, ImageFormat::Png).unwrap();
        base64::engine::general_purpose::STANDARD.encode(file.into_inner())
    };
    let masked = json!({
        "prompt": "a red house", "init_images": [encoded(|x| x as u8)], "mask": encoded(|x| if x < 48 { 255 } else { 0 }),
        "steps": 4, "id": "masked", "preview": true,
    });
    harness.peer.publish("img2img", masked.to_string());
    let messages = harness.peer.wait_state("masked", "done");
    assert!(!previews(&messages, "masked", (256, 170)).is_empty());
    // A picture of one step has nothing before it.
    let step = json!({"prompt": "a red house", "steps": 1, "sampler_name": "euler", "id": "step", "preview": true});
    assert!(previews(&harness.peer.paint(&step), "step", (256, 256)).is_empty());
}

pub(crate) fn the_configuration_has_previews_for_every_request() {
    let mut harness = Harness::start_configured("", "preview = true\n", "");
    let request = |id: &str| json!({"prompt": "a red house", "steps": 3, "id": id});
    assert!(!previews(&harness.peer.paint(&request("a")), "a", (256, 256)).is_empty());
    let mut silent = request("b");
    silent["preview"] = json!(false);
    assert!(previews(&harness.peer.paint(&silent), "b", (256, 256)).is_empty());
}
