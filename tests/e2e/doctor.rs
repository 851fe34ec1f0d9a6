//! What `diffused doctor` finds of a broker, each fault by a broker that has just that.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use diffused_tests::mqtt::{Broker, Harness, config};
use diffused_tests::run;
use diffused_tests::scripted::serve;
use diffused_tests::wire::{CONNECT, PUBLISH, Packet, SUBSCRIBE, TAKEN, obey, puback};

/// The findings of the broker that are not well, name and text, and the exit status.
fn faults(folder: &Path, mqtt: &str, port: u16) -> (Option<i32>, Vec<(String, String)>) {
    let (status, lines) = doctor(folder, mqtt, port);
    let names = ["configuration", "broker", "subscriptions", "publishing", "packet_size", "session", "device_name"];
    let of_broker = |line: &&Value| names.iter().any(|name| line["name"] == *name) && line["level"] != "ok";
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (status, lines.iter().filter(of_broker).map(|line| (text(&line["name"]), text(&line["found"]))).collect())
}

/// Exit status, and all findings.
fn doctor(folder: &Path, mqtt: &str, port: u16) -> (Option<i32>, Vec<Value>) {
    fs::write(folder.join("doctor.toml"), format!("{}{mqtt}", config(folder, port))).unwrap();
    let (status, output, error) = run(&["doctor", "--quick", "--json", "--config", "doctor.toml"], folder);
    let lines = output.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}: {error}")));
    (status, lines.collect())
}

/// The only fault is `name`, and says `part`; it is an error, not a warning, where `status` is 1.
#[track_caller]
fn check_fault(found: (Option<i32>, Vec<(String, String)>), status: i32, name: &str, part: &str) {
    let [(found_name, text)] = &found.1[..] else { panic!("{found:?}") };
    assert!(found.0 == Some(status) && found_name == name && text.contains(part), "{found:?}");
}

pub(crate) fn a_good_broker_is_well_and_its_service_is_not_disturbed() {
    let mut harness = Harness::start_with("max_packet_size 90000\nmax_inflight_messages 7");
    let (status, lines) = doctor(harness.folder.path(), "", harness.broker.port);
    let text = format!("{lines:?}");
    assert_eq!(status, Some(0), "{text}");
    for part in ["MQTT 5, 7 messages under way", "packets up to 90000 bytes", "comes back to us", "for a week"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(text.contains("`test` is online, and a service runs here"), "{text}");
    assert_eq!(faults(harness.folder.path(), "", harness.broker.port).1, []);
    assert_eq!(faults(harness.folder.path(), "version = \"3.1.1\"", harness.broker.port), (Some(0), vec![]));
    harness.peer.paint(&json!({"prompt": "a red house", "steps": 1, "id": "a"}));
    let log = harness.program.log();
    assert!(!log.contains("no connection") && !log.contains("WARN"), "the service is not disturbed: {log}");
}

pub(crate) fn a_device_of_the_same_name_is_told() {
    let harness = Harness::start();
    let other = tempfile::tempdir().unwrap();
    let found = faults(other.path(), "", harness.broker.port);
    check_fault(found, 0, "device_name", "a device named `test` is online, but no service works on this state_dir");
}

pub(crate) fn limits_of_messages_are_told_or_found_out() {
    for (limit, part) in [
        ("max_packet_size 20000", "packets up to 20000 bytes; an image may have 48 KiB"),
        ("message_size_limit 20000", "no limit is announced, but a message of 48 KiB"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut broker = Broker::prepare(folder.path(), limit);
        broker.start();
        check_fault(faults(folder.path(), "", broker.port), 0, "packet_size", part);
    }
}

pub(crate) fn rules_that_keep_us_from_writing_or_reading_are_found() {
    for (rules, part) in [
        ("topic read #\n", "refuses a message on `diffused/test/doctor` (0x87 not authorized)"),
        ("topic write #\n", "`diffused/test/doctor` was taken but did not come back"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("rules");
        fs::write(&file, rules).unwrap();
        let mut broker = Broker::prepare(folder.path(), &format!("acl_file {}", file.display()));
        broker.start();
        check_fault(faults(folder.path(), "", broker.port), 1, "publishing", part);
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules");
    fs::write(&file, "topic readwrite diffused/test/#\n").unwrap();
    let mut broker = Broker::prepare(folder.path(), &format!("acl_file {}", file.display()));
    broker.start();
    assert_eq!(faults(folder.path(), "", broker.port), (Some(0), vec![]), "the rule that is advised is enough");
}

pub(crate) fn what_a_broker_lacks_is_told() {
    for (keys, part) in [("retain_available false", "takes no retained messages"), ("max_qos 0", "takes no QoS 1")] {
        let folder = tempfile::tempdir().unwrap();
        let mut broker = Broker::prepare(folder.path(), keys);
        broker.start();
        check_fault(faults(folder.path(), "", broker.port), 0, "broker", part);
    }
}

/// It sends what is published back to who published it.
pub(crate) fn refused_subscriptions_and_short_sessions_are_told() {
    const SHORT: [u8; 5] = [0x11, 0, 0, 0, 60];
    let seen = Arc::default();
    let port = serve(Arc::clone(&seen), |packet: &Packet, connection| match packet.kind {
        CONNECT => [&[0x20, 8, u8::from(connection == 2), 0, 5][..], &SHORT].concat(),
        SUBSCRIBE => [&[0x90, 9, packet.id[0], packet.id[1], 0][..], &[0x87, 1, 1, 1, 1, 1]].concat(),
        PUBLISH => [puback(packet, TAKEN), packet.bytes.clone()].concat(),
        _ => obey(packet),
    });
    let folder = tempfile::tempdir().unwrap();
    let (status, found) = faults(folder.path(), "", port);
    let [(first, refused), (second, short)] = &found[..] else { panic!("{found:?}") };
    assert_eq!((status, first.as_str(), second.as_str()), (Some(1), "subscriptions", "session"));
    assert!(refused.contains("refuses the subscription to `diffused/test/txt2img` (0x87 not authorized)"), "{refused}");
    assert!(short.contains("for 60 s while we are away, not a week"), "{short}");
    assert!(seen.lock().unwrap().iter().all(|packet| packet.kind != PUBLISH || packet.name() == "doctor"));
}

/// In the service's words.
pub(crate) fn why_a_broker_cannot_be_used_is_told() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("passwords"), "").unwrap();
    let passwords = format!("password_file {}", folder.path().join("passwords").display());
    let mut broker = Broker::prepare(folder.path(), &passwords);
    let written = fs::read_to_string(folder.path().join("mosquitto.conf")).unwrap();
    let closed = written.replace("allow_anonymous true", "allow_anonymous false");
    fs::write(folder.path().join("mosquitto.conf"), closed).unwrap();
    broker.start();
    let found = faults(folder.path(), "", broker.port);
    check_fault(found, 1, "broker", "the broker cannot be used: the broker refused us (0x87");
    let login = "username = \"a\"\npassword_file = \"/no/such\"";
    let found = faults(folder.path(), login, broker.port);
    check_fault(found, 1, "configuration", "mqtt.password_file: /no/such: No such file");
    let old = serve(Arc::default(), |packet: &Packet, _| match packet.kind {
        CONNECT => vec![0x20, 2, 0, 1],
        _ => vec![],
    });
    check_fault(faults(folder.path(), "", old), 1, "broker", "set `mqtt.version = \"3.1.1\"`");
}
