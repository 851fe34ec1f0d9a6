//! MQTT 3.1.1.

use std::fs;

use serde_json::json;

use diffused_tests::mqtt::{Harness, wait_until};

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
