//! MQTT 3.1.1, and what `diffused doctor` finds of a broker.

use std::fs;

use serde_json::json;

use diffused_tests::mqtt::{Broker, Harness, config, wait_until};
use diffused_tests::run;
use diffused_tests::scripted::Scripted;
use diffused_tests::wire::{CONNECT, Packet};

pub(crate) fn the_whole_way_over_mqtt_3() {
    let mut harness = Harness::start_configured("", "", "version = \"3.1.1\"\n");
    let log = || fs::read_to_string(harness.folder.path().join("mosquitto.log")).unwrap();
    wait_until("the broker has seen MQTT 3.1.1", || log().contains("(p2, c0, k5)"));
    let messages = harness.peer.paint(&json!({"prompt": "a red house", "steps": 1, "id": "a"}));
    assert!(messages.iter().any(|message| message.topic == "job/a/image/0"));
    harness.peer.publish("request/list", "");
    harness.peer.wait_for("an answer", |message| message.topic == "response/list");
    harness.broker.kill();
    harness.broker.start();
    harness.peer.wait_online();
    harness.peer.paint(&json!({"prompt": "a red house", "steps": 1, "id": "b"}));
    harness.peer.publish_retained("txt2img", json!({"prompt": "a", "id": "kept"}).to_string());
    let lasting = json!({"prompt": "a", "steps": 900, "id": "long"}).to_string();
    harness.peer.publish("txt2img", lasting);
    harness.peer.wait_state("long", "running");
    harness.program.signal("TERM");
    harness.peer.wait_for("offline", |message| message.topic == "status" && message.payload == "offline");
    assert_eq!(harness.program.wait().code(), Some(0));
}

/// Over MQTT 3.1.1 the limit cannot be announced, and the broker would send such a message again for ever.
pub(crate) fn a_message_that_is_too_large_for_mqtt_3_is_thrown_away_once() {
    let mut harness = Harness::start_configured("", "", "version = \"3.1.1\"\nmax_packet = \"64K\"\n");
    harness.peer.publish("txt2img", json!({"prompt": "x".repeat(200_000), "id": "huge"}).to_string());
    wait_until("it is explained", || harness.program.log().contains("more than mqtt.max_packet allows"));
    harness.peer.wait_online();
    harness.peer.paint(&json!({"prompt": "a", "steps": 1, "id": "next"}));
    let log = harness.program.log();
    assert_eq!(log.matches("more than mqtt.max_packet allows").count(), 1, "{log}");
}

fn doctor(folder: &std::path::Path, mqtt: &str, port: u16) -> (Option<i32>, String) {
    fs::write(folder.join("doctor.toml"), format!("{}{mqtt}", config(folder, port))).unwrap();
    let (status, output, error) = run(&["doctor", "--config", "doctor.toml"], folder);
    (status, output + &error)
}

pub(crate) fn the_doctor_finds_what_a_broker_takes() {
    let harness = Harness::start_with("max_packet_size 90000\nmax_inflight_messages 7");
    let (status, text) = doctor(harness.folder.path(), "", harness.broker.port);
    assert_eq!(status, Some(0), "{text}");
    for part in ["MQTT 5, packets up to 90000 bytes", "QoS 1", "7 messages under way", "subscriptions are granted"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(text.contains("a device named `test` is online"), "{text}");
    let (status, text) = doctor(harness.folder.path(), "version = \"3.1.1\"", harness.broker.port);
    assert!(status == Some(0) && text.contains("MQTT 3.1.1"), "{text}");
    assert!(!harness.program.log().contains("no connection"), "the service is not disturbed");
}

/// In the service's words.
pub(crate) fn the_doctor_says_why_a_broker_cannot_be_used() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("passwords"), "").unwrap();
    fs::write(folder.path().join("rules"), "topic write #\n").unwrap();
    let rules = folder.path().join("rules");
    let mut deaf = Broker::prepare(folder.path(), &format!("acl_file {}", rules.display()));
    deaf.start();
    let (status, text) = doctor(folder.path(), "", deaf.port);
    // mosquitto grants a subscription that its rules forbid, unless its plugin says otherwise.
    assert!(status == Some(0) || text.contains("refuses the subscription"), "{text}");
    let closed = tempfile::tempdir().unwrap();
    fs::write(closed.path().join("passwords"), "").unwrap();
    let passwords = format!("password_file {}", closed.path().join("passwords").display());
    let mut closed_broker = Broker::prepare(closed.path(), &passwords);
    let text = fs::read_to_string(closed.path().join("mosquitto.conf")).unwrap();
    fs::write(closed.path().join("mosquitto.conf"), text.replace("allow_anonymous true", "allow_anonymous false"))
        .unwrap();
    closed_broker.start();
    let (status, text) = doctor(closed.path(), "", closed_broker.port);
    assert!(status == Some(1) && text.contains("the broker cannot be used: the broker refused us (0x87"), "{text}");
    let old = Scripted::start(|packet: &Packet, _| if packet.kind == CONNECT { vec![0x20, 2, 0, 1] } else { vec![] });
    let configured = fs::read_to_string(old.folder.path().join("config.toml")).unwrap();
    let port = configured.split("127.0.0.1:").nth(1).and_then(|rest| rest.split('"').next()).unwrap().parse().unwrap();
    let (status, text) = doctor(folder.path(), "", port);
    assert!(status == Some(1) && text.contains("set `mqtt.version = \"3.1.1\"`"), "{status:?}: {text}");
}
