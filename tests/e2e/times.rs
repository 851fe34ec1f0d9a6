//! Bad times: the broker comes late or dies, the program is stopped or killed.

use std::time::{Duration, Instant};

use serde_json::json;

use diffused_tests::mqtt::{Broker, Harness, Peer, Program, config, wait_until};
use diffused_tests::{copy_demo_bundle, edit};

pub(crate) fn a_broker_that_comes_late_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let mut broker = Broker::prepare(folder.path(), "");
    let program = Program::start(folder.path(), &config(folder.path(), broker.port));
    wait_until("the program has tried in vain", || program.log().contains("no connection to the broker"));
    broker.start();
    let mut peer = Peer::connect(broker.port);
    peer.wait_online();
    peer.paint(&json!({"prompt": "a", "steps": 1, "id": "a"}));
}

pub(crate) fn a_result_survives_a_broker_that_forgets_everything() {
    let mut harness = Harness::start();
    harness.peer.publish("txt2img", json!({"prompt": "a", "steps": 200, "seed": 7, "id": "a"}).to_string());
    harness.peer.wait_for("progress", |message| message.topic == "job/a/progress");
    harness.broker.kill();
    wait_until("the job is done meanwhile", || harness.program.log().contains("done id=\"a\""));
    // Its messages come once the test's own client is subscribed again.
    harness.program.signal("STOP");
    harness.broker.start();
    harness.peer.wait_subscribed();
    harness.program.signal("CONT");
    let messages = harness.peer.wait_state("a", "done");
    let has = |topic: &str| messages.iter().any(|message| message.topic == topic);
    assert!(has("job/a/image/0") && has("job/a/result"), "{messages:#?}");
    harness.peer.paint(&json!({"prompt": "a", "steps": 1, "id": "next"}));
}

/// One thread takes longer for a single operator of the largest size than the service would wait for the job.
pub(crate) fn a_job_in_a_long_operator_is_put_aside_at_once() {
    let mut harness = Harness::start_configured("", "threads = 1\n", "");
    let request = json!({"prompt": "a", "steps": 9, "id": "a", "width": 2048, "height": 2048});
    harness.peer.publish("txt2img", request.to_string());
    harness.peer.wait_state("a", "running");
    std::thread::sleep(Duration::from_secs(2));
    harness.program.signal("TERM");
    let stopped = Instant::now();
    let messages = harness.peer.wait_for("offline", |m| m.topic == "status" && m.payload == "offline");
    assert_eq!(harness.program.wait().code(), Some(0));
    assert!(stopped.elapsed() < Duration::from_secs(4), "{:?}", stopped.elapsed());
    assert!(messages.iter().all(|message| message.topic != "job/a/state"), "{messages:#?}");
    harness.restart();
    harness.peer.wait_state("a", "running");
}

pub(crate) fn the_broker_speaks_for_a_killed_service() {
    let mut harness = Harness::start();
    harness.program.kill();
    harness.peer.wait_for("offline", |message| message.topic == "status" && message.payload == "offline");
}

pub(crate) fn a_request_published_while_the_service_is_away_is_served() {
    let mut harness = Harness::start();
    harness.program.signal("TERM");
    harness.program.wait();
    harness.peer.publish("txt2img", json!({"prompt": "a", "steps": 1, "id": "a"}).to_string());
    harness.program = Program::start(harness.folder.path(), &config(harness.folder.path(), harness.broker.port));
    harness.peer.wait_state("a", "done");
}

pub(crate) fn a_reload_with_a_broken_file_changes_nothing() {
    let mut harness = Harness::start();
    std::fs::write(harness.folder.path().join("config.toml"), "devise = 1").unwrap();
    harness.program.signal("HUP");
    wait_until("the mistake is told", || harness.program.log().contains("unknown field `devise`"));
    harness.peer.paint(&json!({"prompt": "a", "steps": 1, "id": "a"}));
}

pub(crate) fn state_and_info_greet_a_new_client() {
    let harness = Harness::start();
    let mut late = Peer::connect(harness.broker.port);
    let info = late.wait_for("info", |message| message.topic == "info").pop().unwrap().json();
    assert_eq!(info["schema"], 1);
    assert_eq!(info["sizes"], json!({"default": 128, "smallest": 32, "multiple": 8}));
    assert!(info["samplers"].as_array().unwrap().contains(&json!("dpmpp_2m_karras")));
    assert!(info["model"]["sha256"].is_string() && info["limits"]["queue"] == 32);
}

pub(crate) fn a_model_that_is_damaged_while_the_service_runs_fails_its_jobs_alone() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    copy_demo_bundle(&model);
    let mut broker = Broker::prepare(folder.path(), "");
    broker.start();
    let mut peer = Peer::connect(broker.port);
    let text = format!("model = {model:?}\nmemory = \"48M\"\n{}", config(folder.path(), broker.port));
    let _program = Program::start(folder.path(), &text);
    peer.wait_online();
    let request = |id: &str| json!({"prompt": "a", "steps": 1, "id": id}).to_string();
    let whole = std::fs::read(model.join("unet.weights")).unwrap();
    edit(&model.join("unet.weights"));
    peer.publish("txt2img", request("damaged"));
    let error = peer.wait_state("damaged", "failed").pop().unwrap().json()["error"].clone();
    assert_eq!(error["code"], "model_corrupt");
    assert!(error["message"].as_str().unwrap().contains("unet.weights: tensor"), "{error}");
    std::fs::write(model.join("unet.weights"), whole).unwrap();
    peer.publish("txt2img", request("healed"));
    peer.wait_state("healed", "done");
}
