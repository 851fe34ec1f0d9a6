//! Larger pictures over MQTT: a second pass and an upscaler, each within the least memory that the service plans for it.

use std::path::Path;

use diffused::budget;
use diffused::config::{Bounded, Config};
use diffused::jobs::request::{Job, RequestMode};
use diffused::painting::model::Model;
use model_prep::{Options, SourceOptions, convert};
use serde_json::{Value, json};

use diffused_tests::mqtt::{Delivery, Harness};
use diffused_tests::{demo_bundle, root};

const MIB: u64 = 1 << 20;

/// The least memory in which the service paints `request`, on one thread, MiB.
fn least(request: &Value, model: &Path) -> u64 {
    let config = Config { threads: Some(Bounded(1)), ..Config::default() };
    let options = budget::for_service(&config, None);
    let model = Model::new(Some(model), options).unwrap();
    let (job, _) = Job::parse(request.to_string().as_bytes(), RequestMode::Txt2Img, Path::new("")).unwrap();
    let painting = job.resolve(&model.resolver().unwrap(), options).unwrap().remove(0);
    let painting = painting.with_previews(job.preview == Some(true));
    model.open().unwrap().smallest_budget(&painting).unwrap() / MIB
}

/// Paints `request` in the least memory, and gives the image's size and the result. The model is a folder: of the one in
/// the program the pages that were read count as held, though the system may take them back.
fn paint_in_least(request: &Value, model: &Path) -> ((u32, u32), Value) {
    let (id, least) = (request["id"].as_str().unwrap(), least(request, model));
    let keys = format!("memory = \"{least}M\"\nthreads = 1\nmodel = {model:?}\n");
    let mut harness = Harness::start_configured("", &keys, "");
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
