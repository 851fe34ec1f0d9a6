//! What the device paints by itself.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use diffused_tests::mqtt::{Delivery, Harness};

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
