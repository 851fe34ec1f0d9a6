//! Devices that share work.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::json;

use diffused_tests::mqtt::{Broker, Delivery, Peer, Program, config, wait_until};

/// A device `name` of the group below `diffused/test`.
fn device(folder: &std::path::Path, name: &str, port: u16) -> Program {
    let own = folder.join(name);
    std::fs::create_dir(&own).unwrap();
    let text = config(&own, port).replace("device = \"test\"", &format!("device = \"{name}\""));
    Program::start(&own, &format!("{text}base = \"diffused/test\"\n[fleet]\ngroup = \"house\"\n"))
}

/// Each prompt goes to a device that has nothing else to do. Where none has, the broker has nobody to give it to, and it is
/// published again, as clients do that get a PUBACK of code 0x10.
pub(crate) fn shared_prompts_are_painted_once_each_and_by_all_devices() {
    let folder = tempfile::tempdir().unwrap();
    let mut broker = Broker::prepare(folder.path(), "");
    broker.start();
    let mut peer = Peer::connect(broker.port);
    let _devices = ["one", "two"].map(|name| device(folder.path(), name, broker.port));
    let mut seen = vec![];
    wait_until("both are online", || {
        seen.extend(peer.wait_briefly());
        seen.iter().filter(|m| m.topic.ends_with("/status") && m.payload == "online").count() == 2
    });
    for number in 0..6 {
        let id = format!("job-{number}");
        let request = json!({"prompt": "a", "steps": 60, "id": id}).to_string();
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < Duration::from_secs(60), "no device takes {id}");
            peer.publish("any/txt2img", request.clone());
            let taken = |seen: &[Delivery]| seen.iter().any(|m| m.topic.ends_with(&format!("/job/{id}/state")));
            let deadline = Instant::now() + Duration::from_secs(1);
            while Instant::now() < deadline && !taken(&seen) {
                seen.extend(peer.wait_briefly());
            }
            if taken(&seen) {
                break;
            }
        }
    }
    let ended =
        |seen: &[Delivery]| seen.iter().filter(|m| m.topic.ends_with("/state") && m.json()["state"] == "done").count();
    wait_until("all are painted", || {
        seen.extend(peer.wait_briefly());
        ended(&seen) >= 6
    });
    std::thread::sleep(Duration::from_secs(1));
    seen.extend(peer.wait_briefly());
    let mut by_device: HashMap<String, Vec<String>> = HashMap::new();
    for message in seen.iter().filter(|m| m.topic.ends_with("/state") && m.json()["state"] == "done") {
        let (name, _) = message.topic.split_once('/').unwrap();
        by_device.entry(name.to_owned()).or_default().push(message.json()["id"].as_str().unwrap().to_owned());
    }
    let mut ids: Vec<&String> = by_device.values().flatten().collect();
    ids.sort();
    assert_eq!(ids, ["job-0", "job-1", "job-2", "job-3", "job-4", "job-5"], "{by_device:?}");
    assert_eq!(by_device.len(), 2, "{by_device:?}");
}
