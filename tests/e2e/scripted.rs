//! Brokers that do what mosquitto cannot be made to do.

use std::thread;

use serde_json::json;

use diffused_tests::mqtt::wait_until;
use diffused_tests::scripted::Scripted;
use diffused_tests::wire::{CONNECT, Packet, SUBSCRIBE, obey, puback, request, suback};

/// Gives the service two jobs over its first connection.
fn with_jobs(packet: &Packet, connection: usize) -> Vec<u8> {
    let jobs = ["a", "b"].map(|id| request(&json!({"prompt": "a", "steps": 1, "seed": 7, "id": id, "width": 64}), 0));
    let jobs = if packet.kind == SUBSCRIBE && connection == 0 { jobs.concat() } else { vec![] };
    [obey(packet), jobs].concat()
}

fn check_paths_instead_of_images(broker: &Scripted) {
    broker.wait_done("a");
    broker.wait_done("b");
    for id in ["a", "b"] {
        let result = broker.published(&format!("job/{id}/result")).last().unwrap().json();
        assert!(result["images"][0]["topic"].is_null(), "{result}");
        assert!(result["warnings"].to_string().contains("see its path"), "{result}");
    }
}

/// AWS's broker does so above its limit.
pub(crate) fn a_broker_that_hangs_up_on_images_gets_all_else() {
    let broker = Scripted::start(|packet, connection| match packet.topic.contains("/image/") {
        true => vec![0xe0, 2, 0x95, 0],
        false => with_jobs(packet, connection),
    });
    check_paths_instead_of_images(&broker);
}

/// A code that the client library does not know.
pub(crate) fn a_broker_whose_refusals_are_unknown_gets_all_else() {
    let broker = Scripted::start(|packet, connection| match packet.topic.contains("/image/") {
        true => puback(packet, 0x9e),
        false => with_jobs(packet, connection),
    });
    check_paths_instead_of_images(&broker);
}

/// 0x97, quota exceeded.
pub(crate) fn a_broker_that_is_full_gets_all_else_over_one_connection() {
    let broker = Scripted::start(|packet, connection| match packet.topic.contains("/image/") {
        true => puback(packet, 0x97),
        false => with_jobs(packet, connection),
    });
    check_paths_instead_of_images(&broker);
    assert_eq!(broker.connections(), 1);
    assert_eq!(broker.program.log().matches("the broker refused a message").count(), 1);
}

pub(crate) fn a_service_that_may_not_subscribe_is_offline() {
    let broker =
        Scripted::start(|packet, _| if packet.kind == SUBSCRIBE { suback(packet, 0x87) } else { obey(packet) });
    broker.wait_published("status", |packet| packet.payload == b"offline");
    assert_eq!(broker.published("status").last().unwrap().payload, b"offline");
}

/// Some MQTT 3.1.1 brokers hang up on a CONNECT of MQTT 5, others answer in their own form.
pub(crate) fn a_broker_of_mqtt_3_is_named() {
    for answer in [vec![], vec![0x20, 2, 0, 1]] {
        let broker = Scripted::start(move |_, _| answer.clone());
        wait_until("the cause is logged", || broker.program.log().contains("does the broker speak MQTT 5"));
    }
}

pub(crate) fn a_broker_that_wants_no_pings_is_served() {
    let broker = Scripted::start(|packet, connection| match packet.kind {
        CONNECT => vec![0x20, 6, 0, 0, 3, 0x13, 0, 0],
        _ => with_jobs(packet, connection),
    });
    broker.wait_done("b");
    thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(broker.connections(), 1);
}

/// Retain Available 0 in the CONNACK.
pub(crate) fn a_broker_that_keeps_nothing_is_sent_nothing_to_keep() {
    let broker = Scripted::start(|packet, connection| match packet.kind {
        CONNECT => vec![0x20, 5, 0, 0, 2, 0x25, 0],
        _ => with_jobs(packet, connection),
    });
    broker.wait_done("b");
    assert!(broker.program.log().contains("keeps no retained messages"));
    assert!(broker.seen.lock().unwrap().iter().all(|packet| !packet.retain));
}
