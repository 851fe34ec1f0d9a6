//! What a display shows of an image: published, kept, described in the result, repeated with the rest.

use serde_json::{Value, json};

use diffused_tests::mqtt::{Delivery, Harness};
use diffused_tests::sha256;

fn request(id: &str, output: &Value) -> Value {
    json!({"prompt": "a red house", "steps": 1, "seed": 7, "id": id, "output": output})
}

fn find<'a>(messages: &'a [Delivery], topic: &str) -> Option<&'a Delivery> {
    messages.iter().find(|message| message.topic == topic)
}

fn result(messages: &[Delivery], id: &str) -> Value {
    find(messages, &format!("job/{id}/result")).unwrap_or_else(|| panic!("{id} has no result")).json()
}

pub(crate) fn what_a_display_shows_is_published_and_kept() {
    let mut harness = Harness::start_configured("", "", "retain_image = true\n");
    let packed = json!({"panel": "waveshare-7.5-v2", "format": "packed"});
    let messages = harness.peer.paint(&request("a", &packed));
    let result = result(&messages, "a");
    assert_eq!((&result["parameters"]["width"], &result["parameters"]["height"]), (&json!(168), &json!(96)));
    let output = &result["images"][0]["output"];
    let sent = find(&messages, "job/a/output/0").unwrap();
    assert_eq!((sent.payload.len(), sent.qos as u8), (800 * 480 / 8, 1));
    assert_eq!(sent.properties.content_type.as_deref(), Some("application/octet-stream"));
    assert_eq!((&output["width"], &output["height"], &output["bytes"]), (&json!(800), &json!(480), &json!(48_000)));
    assert_eq!(output["sha256"], sha256(&sent.payload));
    let kept = std::fs::read(output["path"].as_str().unwrap()).unwrap();
    assert!(kept == sent.payload && output["path"].as_str().unwrap().ends_with("a-0-output.bin"), "{output}");
    assert!(find(&messages, "output").is_some_and(|latest| latest.payload == sent.payload));
    // A request that comes again is answered with all of it.
    let again = harness.peer.paint(&request("a", &packed));
    assert_eq!(find(&again, "job/a/output/0").unwrap().payload, sent.payload);
    let png = json!({"panel": "inky-impression-7.3", "rotate": 90});
    let messages = harness.peer.paint(&request("b", &png));
    let sent = find(&messages, "job/b/output/0").unwrap();
    let shown = image::load_from_memory(&sent.payload).unwrap();
    assert_eq!((shown.width(), shown.height()), (800, 480));
    // The broker keeps the latest for a frame that wakes up later.
    let mut late = diffused_tests::mqtt::Peer::connect(harness.broker.port);
    let latest = late.wait_for("the latest output", |message| message.topic == "output").pop().unwrap();
    assert!(latest.retained && latest.payload == sent.payload);
}

pub(crate) fn the_configuration_has_a_display_for_every_request() {
    let keys = "output = {panel = \"hall\", format = \"packed\"}\n";
    let panel = "[panels.hall]\nwidth = 64\nheight = 32\npalette = \"grey-4\"\npacking = \"2bpp\"\n";
    let mut harness = Harness::start_configured("", keys, panel);
    let messages = harness.peer.paint(&json!({"prompt": "a red house", "steps": 1, "id": "a", "n_iter": 2}));
    for number in 0..2 {
        let sent = find(&messages, &format!("job/a/output/{number}")).unwrap();
        assert_eq!(sent.payload.len(), 64 * 32 / 4);
        assert_eq!(result(&messages, "a")["images"][number]["output"]["sha256"], sha256(&sent.payload));
    }
    let messages = harness.peer.paint(&request("b", &json!("none")));
    assert!(find(&messages, "job/b/output/0").is_none());
    assert_eq!(result(&messages, "b")["images"][0].get("output"), None);
    harness.peer.publish("txt2img", request("c", &json!("hal")).to_string());
    let state = harness.peer.wait_state("c", "rejected").pop().unwrap().json();
    let (field, message) = (&state["error"]["field"], state["error"]["message"].to_string());
    assert!(field == "output" && message.contains("`hal` is unknown; known are hall, "), "{state}");
}

pub(crate) fn an_output_that_the_broker_does_not_take_has_a_path() {
    // The first limit is announced, the second is not.
    for (broker, why) in [("max_packet_size 20000", "the broker takes"), ("message_size_limit 20000", "refused it")] {
        let mut harness = Harness::start_with(broker);
        let messages = harness.peer.paint(&request("a", &json!({"panel": "waveshare-7.5-v2", "format": "packed"})));
        let result = result(&messages, "a");
        let output = &result["images"][0]["output"];
        assert!(find(&messages, "job/a/output/0").is_none() && output["topic"].is_null(), "{result}");
        let warning = result["warnings"].to_string();
        assert!(warning.contains("output 0 has 48000 bytes") && warning.contains(why), "{warning}");
        assert!(warning.contains("not published, see its path"), "{warning}");
        assert_eq!(output["sha256"], sha256(&std::fs::read(output["path"].as_str().unwrap()).unwrap()));
    }
}
