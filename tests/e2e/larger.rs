//! Larger pictures over MQTT: a second pass and an upscaler, each within the least memory that the service plans for it.

use std::path::Path;

use model_prep::{Options, SourceOptions, convert};
use serde_json::{Value, json};

use diffused_tests::mqtt::{Delivery, Harness};
use diffused_tests::{demo_bundle, root};

const MIB: u64 = 1 << 20;

fn start(memory: &str, model: &Path) -> Harness {
    Harness::start_configured("", &format!("memory = \"{memory}\"\nthreads = 1\nmodel = {model:?}\n"), "")
}

/// Paints `request` in the least memory that a refusal names, and gives the image's size and the result. The model is a
/// folder: of the one in the program the pages that were read count as held, though the system may take them back.
fn paint_in_least(request: &Value, model: &Path) -> ((u32, u32), Value) {
    let mut harness = start("20M", model);
    harness.peer.publish("txt2img", request.to_string());
    let id = request["id"].as_str().unwrap();
    let failed = harness.peer.wait_state(id, "failed").pop().unwrap().json();
    assert_eq!(failed["error"]["code"], "out_of_memory", "{failed}");
    let message = failed["error"]["message"].as_str().unwrap();
    let least: u64 = message.split("at least ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    let mut harness = start(&format!("{least}M"), model);
    let messages = harness.peer.paint(request);
    let find = |name: &str| -> &Delivery {
        let topic = format!("job/{id}/{name}");
        messages.iter().find(|message| message.topic == topic).unwrap_or_else(|| panic!("no {topic}"))
    };
    let result = find("result").json();
    let held = result["timings"]["peak_rss"].as_u64().unwrap();
    println!("{id}: {:.1} MiB held of {least}", held as f64 / MIB as f64);
    assert!(held <= least * MIB, "{id}: {held} bytes held of {least} MiB");
    let image = image::load_from_memory(&find("image/0").payload).unwrap();
    ((image.width(), image.height()), result)
}

pub(crate) fn a_second_pass_keeps_to_its_plan() {
    for upscaler in ["Latent", "Lanczos"] {
        let hires = json!({
            "scale": 2, "steps": 2, "upscaler": upscaler, "prompt": "a red house in snow", "sampler_name": "Euler a",
        });
        let request = json!({"prompt": "a red house", "steps": 2, "hires": hires, "id": upscaler, "preview": true});
        let (size, result) = paint_in_least(&request, &demo_bundle());
        let parameters = &result["parameters"];
        assert_eq!((size, &parameters["width"]), ((256, 256), &json!(128)));
        let hires = &parameters["hires"];
        assert_eq!((&hires["width"], &hires["upscaler"]), (&json!(256), &json!(upscaler)));
        assert_eq!(
            (&hires["prompt"], &hires["sampler_name"]),
            (&json!("a red house in snow"), &json!("euler_ancestral"))
        );
    }
}

pub(crate) fn an_upscaler_keeps_to_its_plan() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("bundle");
    let upscaler = Some(root().join("tests/goldens/models/upscaler-x4.pth"));
    let source = SourceOptions { upscaler, ..SourceOptions::default() };
    let options = Options { source, ..Options::default() };
    convert(&root().join("model-prep/demo/model"), &bundle, &options, &mut |_| ()).unwrap();
    let upscaled = json!({"prompt": "a red house", "steps": 2, "upscale": 4, "id": "upscale"});
    let (size, result) = paint_in_least(&upscaled, &bundle);
    assert_eq!((size, &result["parameters"]["upscaler"]), ((512, 512), &json!("upscaler-x4")));
    let hires = json!({
        "prompt": "a red house", "steps": 2, "enable_hr": true, "hr_scale": 1.5, "hr_second_pass_steps": 2,
        "hr_upscaler": "Model", "id": "model",
    });
    let (size, result) = paint_in_least(&hires, &bundle);
    assert_eq!((size, &result["parameters"]["hires"]["upscaler"]), ((192, 192), &json!("Model")));
}
