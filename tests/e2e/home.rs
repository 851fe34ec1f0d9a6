//! Home Assistant's end of MQTT: what it is told, when, and that the broker forgets it afterwards; and what its entities do
//! their work with: settings for prompts that come as plain text. A real Home Assistant is in tests/home.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use diffused_tests::mqtt::{Delivery, Harness, Peer, wait_until};

const DISCOVERY: &str = "homeassistant/device/diffused_test/config";
const ON: &str = "[home_assistant]\ndiscovery = true\n";

/// The last payloads on the topics that begin with `topic`, once `wanted` holds for the last one.
fn last(peer: &mut Peer, topic: &str, wanted: impl Fn(&Delivery) -> bool) -> Delivery {
    let mut found = None;
    wait_until(&format!("what is wanted on {topic}"), || {
        found = peer.wait_briefly().into_iter().rfind(|message| message.topic == topic && wanted(message));
        found.is_some()
    });
    found.unwrap()
}

/// What the broker keeps on `topic`, if anything.
fn kept(port: u16, topic: &str) -> Option<Delivery> {
    let mut late = Peer::connect(port);
    late.listen(topic);
    late.listen("late");
    // What is kept comes before what is published afterwards.
    late.publish_elsewhere("late", "x");
    let mut messages = vec![];
    wait_until("messages come", || {
        messages.extend(late.wait_briefly());
        messages.iter().any(|message| message.topic == "late")
    });
    let name = topic.trim_start_matches("diffused/test/");
    messages.into_iter().find(|message| message.retained && message.topic == name)
}

pub(crate) fn home_assistant_is_told_of_the_device_and_the_broker_forgets_it_afterwards() {
    let mut harness = Harness::start_configured("", "", ON);
    let port = harness.broker.port;
    harness.peer.listen("homeassistant/#");
    let told = last(&mut harness.peer, DISCOVERY, |_| true).json();
    assert!(told["cmps"].as_object().unwrap().len() > 20 && told["dev"]["name"] == "test" && told["o"].is_object());
    let idle = json!({"state": "idle", "waiting": 0, "paused": false});
    let keeps = |wanted: &Value| kept(port, "diffused/test/activity").is_some_and(|message| message.json() == *wanted);
    wait_until("the broker keeps the activity", || keeps(&idle));
    // Whenever Home Assistant starts, and not for whatever else is published there.
    harness.peer.publish_elsewhere("homeassistant/status", "offline");
    harness.peer.publish_elsewhere("homeassistant/status", "online");
    let mut since = vec![];
    wait_until("it is told again, with the device's health", || {
        since.extend(harness.peer.wait_briefly());
        let has = |topic: &str| since.iter().any(|message| message.topic == topic && !message.retained);
        has(DISCOVERY) && has("health")
    });
    harness.peer.publish("request/pause", "");
    last(&mut harness.peer, "activity", |message| message.json()["state"] == "paused");

    let path = harness.folder.path().join("config.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace(ON, "")).unwrap();
    harness.peer.publish("request/reload", "");
    last(&mut harness.peer, DISCOVERY, |message| message.payload.is_empty());
    wait_until("the broker forgets the activity", || kept(port, "diffused/test/activity").is_none());
    assert!(kept(port, DISCOVERY).is_none());
    // Nobody listens to Home Assistant any more, and nothing more is told.
    harness.peer.publish_elsewhere("homeassistant/status", "online");
    harness.peer.publish("request/resume", "");
    std::thread::sleep(Duration::from_millis(1500));
    let since = harness.peer.wait_briefly();
    let is_told = |message: &&Delivery| ["activity", DISCOVERY].contains(&message.topic.as_str());
    assert!(since.iter().filter(is_told).all(|message| message.payload.is_empty()), "{since:?}");

    // Switched on again, and then under another prefix, with a restart between.
    fs::write(&path, &text).unwrap();
    harness.peer.publish("request/reload", "");
    last(&mut harness.peer, DISCOVERY, |message| !message.payload.is_empty());
    harness.program.signal("TERM");
    harness.program.wait();
    fs::write(&path, format!("{text}prefix = \"ha\"\n")).unwrap();
    harness.restart();
    last(&mut harness.peer, DISCOVERY, |message| message.payload.is_empty());
    wait_until("the description is elsewhere", || kept(port, "ha/device/diffused_test/config").is_some());
    wait_until("the broker keeps the activity again", || keeps(&idle));
    assert!(kept(port, DISCOVERY).is_none());
}

pub(crate) fn the_health_comes_again_once_the_entities_of_a_description_are_there() {
    let mut harness = Harness::start_configured("", "", ON);
    harness.peer.listen("homeassistant/#");
    last(&mut harness.peer, DISCOVERY, |_| true);
    // What comes at once finds nobody in a Home Assistant that has just learned of the device.
    let (began, mut before) = (Instant::now(), Instant::now());
    wait_until("its health comes a little later", || {
        let has_come = harness.peer.wait_briefly().iter().any(|message| message.topic == "health");
        has_come && std::mem::replace(&mut before, Instant::now()).elapsed() > Duration::from_secs(2)
    });
    let waited = began.elapsed();
    assert!(waited < Duration::from_secs(30), "{waited:?}");
}

pub(crate) fn activity_follows_a_job() {
    let mut harness = Harness::start_configured("", "", ON);
    harness.peer.publish("txt2img", json!({"prompt": "a", "steps": 1000, "id": "a"}).to_string());
    harness.peer.publish("txt2img", json!({"prompt": "a", "id": "b"}).to_string());
    let busy = last(&mut harness.peer, "activity", |message| message.json()["eta_relative"].is_number()).json();
    assert_eq!((&busy["state"], &busy["job"], &busy["waiting"]), (&json!("painting"), &json!("a"), &json!(1)));
    assert!(busy["progress"].as_f64() > Some(0.0), "{busy}");
    harness.peer.publish("cancel", "{\"running\": true}");
    let idle = last(&mut harness.peer, "activity", |message| message.json()["state"] == "idle").json();
    assert_eq!(idle, json!({"state": "idle", "waiting": 0, "paused": false}));
}

fn parameters(messages: &[Delivery]) -> Value {
    let result = messages.iter().find(|message| message.topic.ends_with("/result")).expect("a result").json();
    result["parameters"].clone()
}

pub(crate) fn settings_act_on_plain_prompts_alone_and_outlive_the_process() {
    let mut harness = Harness::start();
    let mut set = |request: Value| {
        harness.peer.publish("request/settings", request.to_string());
        harness.peer.wait_for("an answer", |message| message.topic == "response/settings")
    };
    let answer = set(json!({"steps": 3.0, "sampler_name": "Euler a", "negative_prompt": "a cat"}));
    let wanted = json!({"steps": 3, "sampler_name": "euler_ancestral", "negative_prompt": "a cat"});
    assert_eq!(answer.last().unwrap().json()["data"]["settings"], wanted);
    for (request, what) in [
        (json!({"steps": 0}), "steps"),
        (json!({"sampler_name": "magic"}), "sampler_name"),
        (json!({"width": 64}), "`width` is unknown"),
        (json!([1]), "an object"),
    ] {
        let answer = set(request).pop().unwrap().json();
        assert!(answer["error"].as_str().unwrap().contains(what), "{answer}");
    }
    let answer = set(json!({"cfg_scale": 2, "negative_prompt": null})).pop().unwrap().json();
    assert_eq!(answer["data"]["settings"], json!({"steps": 3, "cfg_scale": 2.0, "sampler_name": "euler_ancestral"}));
    harness.program.kill();
    harness.restart();
    let done = |message: &Delivery| message.topic.ends_with("/state") && message.json()["state"] == "done";
    harness.peer.publish("txt2img", "a red house");
    let plain = harness.peer.wait_for("the end", done);
    let info = plain.iter().rfind(|message| message.topic == "info").unwrap().json();
    assert_eq!(info["settings"], answer["data"]["settings"]);
    let plain = parameters(&plain);
    let found = (&plain["steps"], &plain["cfg_scale"], &plain["sampler_name"], &plain["negative_prompt"]);
    assert_eq!(found, (&json!(3), &json!(2.0), &json!("euler_ancestral"), &json!("")));
    let object = parameters(&harness.peer.paint(&json!({"prompt": "a red house", "steps": 2, "id": "object"})));
    assert_eq!((&object["cfg_scale"], &object["sampler_name"]), (&json!(5.0), &json!("ddim")));
}

pub(crate) fn a_job_that_was_moved_keeps_its_place_over_a_restart() {
    let mut harness = Harness::start();
    harness.peer.publish("request/pause", "");
    for id in ["a", "b", "c"] {
        harness.peer.publish("txt2img", json!({"prompt": "a", "steps": 1, "id": id}).to_string());
        harness.peer.wait_state(id, "queued");
    }
    let ask = |peer: &mut Peer, payload: Value| {
        peer.publish("request/move", payload.to_string());
        peer.wait_for("an answer", |message| message.topic == "response/move")
    };
    // The answer goes before what waits to be sent.
    let mut moved = ask(&mut harness.peer, json!({"id": "c"}));
    assert_eq!(moved.last().unwrap().json()["data"]["waiting"], json!(["c", "a", "b"]));
    moved.extend(harness.peer.wait_state("b", "queued"));
    let positions = moved.iter().filter(|message| message.topic.ends_with("/state")).map(Delivery::json);
    let positions: Vec<Value> = positions.map(|state| json!([state["id"], state["position"]])).collect();
    assert_eq!(positions, [json!(["c", 0]), json!(["a", 1]), json!(["b", 2])]);
    for wrong in [json!({}), json!({"id": "x"}), json!({"id": "a", "to": -1}), json!({"id": "a", "to": "up"})] {
        assert_eq!(ask(&mut harness.peer, wrong).pop().unwrap().json()["status"], "error");
    }
    harness.peer.publish("txt2img", json!({"prompt": "a", "steps": 1, "id": "d", "priority": 1}).to_string());
    harness.peer.wait_state("d", "queued");
    harness.program.kill();
    harness.restart();
    harness.peer.publish("request/pause", "{\"paused\": false}");
    let messages = harness.peer.wait_state("b", "done");
    let done = messages.iter().filter(|message| message.topic.ends_with("/state")).map(Delivery::json);
    let done: Vec<Value> = done.filter(|state| state["state"] == "done").map(|state| state["id"].clone()).collect();
    assert_eq!(done, ["d", "c", "a", "b"]);
}
