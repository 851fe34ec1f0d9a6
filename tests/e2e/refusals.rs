//! Brokers that do not take what the service sends.

use serde_json::{Value, json};

use diffused_tests::mqtt::{Delivery, Harness, wait_until};
use diffused_tests::sha256;

fn result(messages: &[Delivery], id: &str) -> Value {
    let topic = format!("job/{id}/result");
    messages.iter().find(|m| m.topic == topic).unwrap_or_else(|| panic!("no {topic} in {messages:#?}")).json()
}

fn request(id: &str, size: u32) -> Value {
    json!({"prompt": "a red house", "steps": 1, "seed": 7, "id": id, "width": size, "height": size})
}

/// mosquitto does not announce this limit, and answers what is larger with a PUBACK of code 0x95.
pub(crate) fn an_image_over_a_limit_that_was_not_announced_comes_as_a_smaller_one_or_as_its_path() {
    let mut harness = Harness::start_with("message_size_limit 5000");
    for request in [request("large", 256), request("small", 32), request("next", 256)] {
        harness.peer.publish("txt2img", request.to_string());
    }
    let messages = harness.peer.wait_state("next", "done");
    for id in ["large", "small", "next"] {
        let result = result(&messages, id);
        let listed = &result["images"][0];
        let topic = format!("job/{id}/image/0");
        match messages.iter().find(|m| m.topic == topic) {
            Some(image) => assert_eq!(listed["sha256"], sha256(&image.payload), "{result}"),
            None => {
                assert_eq!((id == "small", &listed["topic"]), (false, &Value::Null), "{result}");
                assert!(result["warnings"].to_string().contains("not published, see its path"), "{result}");
                assert_eq!(listed["sha256"], sha256(&std::fs::read(listed["path"].as_str().unwrap()).unwrap()));
            }
        }
        image::open(listed["path"].as_str().unwrap()).unwrap();
        let ends = messages.iter().filter(|m| m.topic == format!("job/{id}/state") && m.json()["state"] == "done");
        assert_eq!(ends.count(), 1, "{id}");
    }
    let log = harness.program.log();
    assert!(log.contains("raise the broker's limit on messages"), "{log}");
}

/// Its smaller copy is what the result describes, also after a kill, and what a repeated request is answered with.
pub(crate) fn a_smaller_copy_outlives_a_kill_and_is_repeated() {
    let mut harness = Harness::start_with("message_size_limit 2500");
    let request = json!({"prompt": "a", "steps": 300, "seed": 7, "n_iter": 3, "id": "a", "width": 64, "height": 64});
    harness.peer.publish("txt2img", request.to_string());
    let is_copy = |m: &Delivery| m.topic == "job/a/image/0";
    let mut messages = harness.peer.wait_for("a smaller copy", is_copy);
    let path = harness.folder.path().join("state/journal");
    let noted = || std::fs::read(&path).is_ok_and(|text| text.windows(11).any(|text| text == b"\"corrected\""));
    wait_until("it is in the journal", noted);
    harness.program.kill();
    harness.restart();
    messages.extend(harness.peer.wait_state("a", "done"));
    let connections = |harness: &Harness| harness.program.log().matches("no connection to the broker").count();
    let before = connections(&harness);
    harness.peer.publish("txt2img", request.to_string());
    let again = harness.peer.wait_state("a", "done");
    assert_eq!(connections(&harness), before, "what is known to be refused is not sent again");
    for messages in [messages, again] {
        let result = result(&messages, "a");
        for index in 0..3 {
            let topic = format!("job/a/image/{index}");
            let image = messages.iter().rfind(|m| m.topic == topic).unwrap_or_else(|| panic!("no {topic}"));
            let listed = &result["images"][index];
            assert_eq!(
                (&listed["sha256"], &listed["content_type"]),
                (&json!(sha256(&image.payload)), &json!("image/jpeg"))
            );
        }
    }
}

pub(crate) fn where_even_the_result_is_too_large_the_ending_says_so() {
    let mut harness = Harness::start_with("max_packet_size 300");
    let messages = harness.peer.paint(&json!({"prompt": "a", "steps": 1, "id": "a"}));
    let done = messages.last().unwrap().json();
    assert!(done["warnings"].to_string().contains("which the broker does not take"), "{done}");
    assert!(messages.iter().all(|message| message.topic != "job/a/result"));
}

pub(crate) fn brokers_without_retain_or_qos_1_are_served() {
    let mut harness = Harness::start_with("retain_available false");
    harness.peer.paint(&request("a", 32));
    // The client of these tests publishes with QoS 1: here it listens only.
    let harness = Harness::start_with("max_qos 0");
    assert!(harness.program.log().contains("QoS 0 alone"));
}
