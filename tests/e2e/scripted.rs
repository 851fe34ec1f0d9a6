//! Brokers that do what mosquitto cannot be made to do.

use std::thread;

use serde_json::json;

use diffused_tests::mqtt::wait_until;
use diffused_tests::scripted::Scripted;
use diffused_tests::wire::{CONNECT, PUBLISH, Packet, SUBSCRIBE, obey, puback, request, suback};

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

/// Where images are kept until they are sent, this one is kept: there is no other way to it.
pub(crate) fn an_image_that_is_refused_is_kept_where_none_are() {
    let broker = Scripted::start_configured("keep_pictures = 0\n", |packet, connection| {
        match packet.topic.contains("/image/") {
            true => puback(packet, 0x97),
            false => with_jobs(packet, connection),
        }
    });
    check_paths_instead_of_images(&broker);
    let result = broker.published("job/b/result").last().unwrap().json();
    let file = std::fs::read(result["images"][0]["path"].as_str().unwrap()).unwrap();
    assert_eq!(result["images"][0]["sha256"], diffused_tests::sha256(&file));
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

/// And never says otherwise, at no connection: the broker ends the first one.
pub(crate) fn a_service_that_may_not_subscribe_is_offline() {
    let broker = Scripted::start(|packet, connection| match packet.kind {
        SUBSCRIBE => suback(packet, 0x87),
        PUBLISH if connection == 0 && packet.topic.ends_with("/health") => vec![0xe0, 2, 0x8b, 0],
        _ => obey(packet),
    });
    wait_until("it has connected again", || broker.connections() > 1 && broker.published("health").len() > 1);
    assert!(broker.published("status").iter().all(|packet| packet.payload == b"offline"));
    let problems = broker.published("health").last().unwrap().json()["problems"].to_string();
    assert!(
        problems.contains("refuses the subscription to `diffused/test/txt2img` (0x87 not authorized)"),
        "{problems}"
    );
    assert_eq!(warnings(&broker, "refuses the subscription to `diffused/test/txt2img`"), 1);
}

/// How often the log warns or complains of `text`.
fn warnings(broker: &Scripted, text: &str) -> usize {
    let log = broker.program.log();
    log.lines().filter(|line| line.contains(text) && (line.contains(" WARN ") || line.contains("ERROR "))).count()
}

/// It answers pings all the while.
pub(crate) fn an_acknowledgement_that_never_comes_holds_up_nothing_for_ever() {
    let broker = Scripted::start(|packet, connection| match connection == 0 && packet.topic.ends_with("a/result") {
        true => vec![],
        false => with_jobs(packet, connection),
    });
    broker.wait_done("b");
    assert_eq!((broker.connections(), broker.published("job/a/result").len()), (2, 2));
    assert_eq!(warnings(&broker, "did not acknowledge a message within 15 s"), 1);
}

/// Flushing takes 3 s at most, the DISCONNECT 1 s.
pub(crate) fn a_broker_that_confirms_nothing_does_not_hold_up_the_end() {
    let mut broker = Scripted::start(|packet, _| if packet.kind == PUBLISH { vec![] } else { obey(packet) });
    broker.wait_published("status", |_| true);
    let begun = std::time::Instant::now();
    broker.program.signal("TERM");
    assert_eq!(broker.program.wait().code(), Some(0));
    assert!(begun.elapsed() < std::time::Duration::from_secs(6), "{:?}", begun.elapsed());
}

pub(crate) fn refused_connections_are_explained_once() {
    let cases = [
        (0x85, "(0x85 client identifier not valid)"),
        (0x86, "check mqtt.username and mqtt.password_file"),
        (0x87, "access rules"),
        (0x88, "we keep trying"),
        (0x89, "(0x89 server busy)"),
        (0x97, "raise that limit"),
        (0x9f, "(0x9f connection rate exceeded)"),
    ];
    let brokers = cases.map(|(code, text)| {
        let refuse = move |packet: &Packet, _| if packet.kind == CONNECT { vec![0x20, 3, 0, code, 0] } else { vec![] };
        (Scripted::start(refuse), text)
    });
    for (broker, text) in &brokers {
        wait_until("it has tried again", || broker.connections() > 2);
        assert_eq!(warnings(broker, "the broker refused us"), 1);
        assert_eq!(warnings(broker, text), 1, "{text}");
    }
}

/// In the words of that version.
pub(crate) fn return_codes_of_mqtt_3_are_named() {
    let cases = [(1, "does not speak MQTT 3.1.1"), (4, "(return code 4, bad user name or password)")];
    for (code, text) in cases {
        let refuse = move |_: &Packet, _| vec![0x20, 2, 0, code];
        let broker = Scripted::start_with("", "version = \"3.1.1\"\n", refuse);
        wait_until(text, || broker.program.log().contains(text));
    }
}

pub(crate) fn ended_connections_are_explained_once() {
    let cases =
        [(0x8e, "another client has our id"), (0x98, "(0x98 administrative action)"), (0x96, "raise that limit")];
    let brokers = cases.map(|(code, text)| {
        let end = move |packet: &Packet, _| match packet.kind {
            SUBSCRIBE => [suback(packet, 1), vec![0xe0, 2, code, 0]].concat(),
            _ => obey(packet),
        };
        (Scripted::start(end), text)
    });
    for (broker, text) in &brokers {
        wait_until("it has connected again", || broker.connections() > 2);
        assert_eq!(warnings(broker, text), 1, "{text}");
    }
}

/// Some MQTT 3.1.1 brokers hang up on a CONNECT of MQTT 5, others answer in their own form.
pub(crate) fn a_broker_of_mqtt_3_is_named() {
    for answer in [vec![], vec![0x20, 2, 0, 1]] {
        let broker = Scripted::start(move |_, _| answer.clone());
        wait_until("the cause is logged", || broker.program.log().contains("does the broker speak MQTT 5"));
        assert!(broker.program.log().contains("set `mqtt.version = \"3.1.1\"`"));
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
