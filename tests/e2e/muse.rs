//! What the device paints by itself.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use diffused_tests::mqtt::{Delivery, Harness, Peer};

/// A muse that paints the prompts of `file` in turn.
fn start(file: &Path) -> Harness {
    let when = "[[muse]]\nname = \"wall\"\nevery = \"2s\"\norder = \"in turn\"\n";
    let what = format!("prompts_file = {file:?}\nsteps = 1\nwidth = 64\nheight = 64\n");
    Harness::start_configured("", "", &format!("{when}{what}"))
}

fn is_result(message: &Delivery) -> bool {
    message.topic.starts_with("job/muse-wall-") && message.topic.ends_with("/result")
}

/// The parameters of the muse's next picture.
fn next(harness: &mut Harness) -> Value {
    let messages = harness.peer.wait_for("a picture of the muse", is_result);
    messages.last().unwrap().json()["parameters"].clone()
}

fn problems(harness: &mut Harness) -> Value {
    harness.peer.publish("request/health", "");
    let messages = harness.peer.wait_for("health", |message| message.topic == "response/health");
    messages.last().unwrap().json()["data"]["problems"].clone()
}

pub(crate) fn a_muse_paints_by_itself_and_knows_its_turn_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("prompts.txt");
    let mut harness = start(&file);
    let missing = problems(&mut harness);
    assert!(missing[0].as_str().unwrap().starts_with("muse `wall`: prompts_file: /"), "{missing}");
    fs::write(&file, "# two\na red house\na black cat\n").unwrap();
    let first = next(&mut harness);
    let expected = [json!("a red house"), json!(1), json!(64), json!(64)];
    assert_eq!(["prompt", "steps", "width", "height"].map(|key| first[key].clone()), expected);
    assert_eq!(problems(&mut harness), json!([]));
    harness.program.kill();
    harness.restart();
    harness.peer.wait_online();
    let prompts: Vec<Value> = (0..3).map(|_| next(&mut harness)["prompt"].clone()).collect();
    // The second one may have been painted before the end, unheard.
    let turns = ["a black cat", "a red house", "a black cat", "a red house"];
    assert!(turns.windows(3).any(|turns| json!(turns) == json!(prompts)), "{prompts:?}");
}

/// Wildcards are drawn for clients and for muses; what a muse's display shows goes out with its picture.
pub(crate) fn wildcards_are_drawn_from_the_seed() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("thing.txt"), "# things\nhouse\ncat\n").unwrap();
    let template = "a {red|blue|green} __thing__ at {dawn|noon|dusk|night}";
    let muse = format!("[[muse]]\nevery = \"2s\"\nprompts = [{template:?}]\nsteps = 1\nwidth = 64\nheight = 64\n");
    let output = "output = {width = 16, height = 8, palette = \"grey-4\"}\n";
    let mut harness =
        Harness::start_configured("", &format!("wildcards = {:?}\n", folder.path()), &format!("{muse}{output}"));
    let drawn = |parameters: &Value| {
        let prompt = parameters["prompt"].as_str().unwrap().to_owned();
        let words: Vec<&str> = prompt.split(' ').collect();
        assert!(["red", "blue", "green"].contains(&words[1]) && ["house", "cat"].contains(&words[2]), "{prompt}");
        assert_eq!((words.len(), &parameters["prompt_template"]), (5, &json!(template)), "{prompt}");
        prompt
    };
    let shown = harness.peer.wait_for("what the muse's display shows", |message| {
        message.topic.starts_with("job/muse-1-") && message.topic.ends_with("/output/0")
    });
    let shown = image::load_from_memory(&shown.last().unwrap().payload).unwrap();
    assert_eq!((shown.width(), shown.height()), (16, 8));
    let mut painted = |id: &str, seed: u64| {
        let size = json!({"width": 64, "height": 64, "steps": 1});
        let mut request = json!({"prompt": template, "id": id, "seed": seed, "output": "none"});
        request.as_object_mut().unwrap().extend(size.as_object().unwrap().clone());
        harness.peer.publish("txt2img", request.to_string());
        let topic = format!("job/{id}/result");
        let messages = harness.peer.wait_for(&topic, |message| message.topic == topic);
        drawn(&messages.last().unwrap().json()["parameters"])
    };
    assert_eq!(painted("first", 7), painted("again", 7));
    let others: BTreeSet<String> = (8..13).map(|seed| painted(&format!("seed-{seed}"), seed)).collect();
    assert!(others.len() > 1, "{others:?}");
    let info = Peer::connect(harness.broker.port).wait_for("info", |message| message.topic == "info");
    assert_eq!(info.last().unwrap().json()["muses"], json!(["1"]));
}
