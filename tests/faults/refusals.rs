//! Brokers that refuse: images, everything, subscriptions, the connection. What they do not take ends; nothing loops.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use serde_json::json;

use diffused_tests::mqtt::wait_until;
use diffused_tests::scripted::Scripted;
use diffused_tests::tap::is_end;
use diffused_tests::wire::{CONNECT, PUBLISH, Packet, SUBSCRIBE, obey, puback, request, suback};

use crate::rig::{Dice, size};

pub(crate) fn image_refused_0x95(_: &mut Dice) -> String {
    // The client library breaks the connection at a code that it does not know.
    image_refused(0x95, 9)
}

pub(crate) fn image_refused_0x87(_: &mut Dice) -> String {
    image_refused(0x87, 1)
}

pub(crate) fn image_refused_0x97(_: &mut Dice) -> String {
    image_refused(0x97, 1)
}

/// Room for all jobs, and for their images and smaller copies of these.
const KEYS: &str = "queue_length = 100\nkeep_pictures = 1000\n";

fn jobs() -> usize {
    size(4, 100)
}

/// All jobs over the first connection.
fn with_jobs(packet: &Packet, connection: usize) -> Vec<u8> {
    let job = |n: usize| request(&json!({"prompt": "a", "steps": 1, "seed": n, "id": format!("r{n}"), "width": 64}), 0);
    let jobs = if packet.kind == SUBSCRIBE && connection == 0 { (0..jobs()).map(job).collect() } else { vec![] };
    [obey(packet), jobs.concat()].concat()
}

/// Messages of ends that the broker was sent, by job.
fn ends(broker: &Scripted) -> BTreeMap<String, usize> {
    let mut ends = BTreeMap::new();
    for packet in broker.seen.lock().unwrap().iter() {
        if packet.topic.ends_with("/state") && is_end(packet.json()["state"].as_str()) {
            *ends.entry(packet.topic.clone()).or_default() += 1;
        }
    }
    ends
}

fn check_one_end_each(broker: &Scripted) {
    wait_until("all jobs have ended", || ends(broker).len() == jobs());
    let connections = broker.connections();
    thread::sleep(Duration::from_secs(3));
    let ends = ends(broker);
    assert!(ends.values().all(|count| *count == 1), "more than one end: {ends:?}");
    let seen = broker.seen.lock().unwrap();
    let broken: Vec<_> = seen.iter().filter(|p| p.kind == PUBLISH).filter_map(Packet::breaks_contract).collect();
    assert!(broken.is_empty(), "against the contract: {broken:#?}");
    drop(seen);
    assert_eq!(broker.connections(), connections, "it connects again although all has ended");
}

/// Every job is done, with the image's path in its result, over at most `most` connections.
fn image_refused(code: u8, most: usize) -> String {
    let broker = Scripted::start_configured(KEYS, move |packet, connection| match packet.topic.contains("/image/") {
        true => puback(packet, code),
        false => with_jobs(packet, connection),
    });
    check_one_end_each(&broker);
    for n in 0..jobs() {
        let result = broker.published(&format!("job/r{n}/result")).last().expect("a result").json();
        assert!(result["images"][0]["topic"].is_null(), "{result}");
        assert!(std::fs::exists(result["images"][0]["path"].as_str().unwrap()).unwrap(), "{result}");
    }
    let (connections, seen) = (broker.connections(), broker.seen.lock().unwrap().len());
    assert!(connections <= most, "{connections} connections");
    format!("{} jobs, each done with its image's path; {connections} connections, {seen} packets", jobs())
}

/// Each message is sent once, and none again.
pub(crate) fn all_refused(_: &mut Dice) -> String {
    let broker = Scripted::start_configured(KEYS, |packet, connection| {
        if packet.topic.is_empty() { with_jobs(packet, connection) } else { puback(packet, 0x97) }
    });
    check_one_end_each(&broker);
    let refused =
        broker.seen.lock().unwrap().iter().filter(|packet| packet.id != [0; 2] && packet.kind != SUBSCRIBE).count();
    assert_eq!(broker.connections(), 1);
    let told = broker.program.log().matches("the broker refused a message").count();
    assert_eq!(told, 1, "told {told} times");
    format!("{} jobs, {refused} messages refused, each sent once over 1 connection, told once", jobs())
}

pub(crate) fn subscription_refused(_: &mut Dice) -> String {
    let seconds = size(8, 120);
    let broker =
        Scripted::start(|packet, _| if packet.kind == SUBSCRIBE { suback(packet, 0x87) } else { obey(packet) });
    broker.wait_published("status", |packet| packet.payload == b"offline");
    thread::sleep(Duration::from_secs(seconds as u64));
    let statuses: Vec<_> = broker.published("status").into_iter().map(|packet| packet.payload).collect();
    assert_eq!(statuses.last().map(Vec::as_slice), Some(&b"offline"[..]), "{statuses:?}");
    assert_eq!((broker.connections(), statuses.len() <= 2), (1, true), "{statuses:?}");
    format!("`offline`, 1 connection in {seconds} s")
}

/// It waits longer and longer, says what the broker said, and serves once it may.
pub(crate) fn connection_refused(_: &mut Dice) -> String {
    let refusals = size(3, 6);
    let mut tried = vec![];
    for (code, name) in
        [(0x85, "client identifier not valid"), (0x86, "bad user name or password"), (0x87, "not authorized")]
    {
        let mut broker = Scripted::start(move |packet, connection| match packet.kind {
            CONNECT if connection < refusals => vec![0x20, 3, 0, code, 0],
            SUBSCRIBE => {
                [obey(packet), request(&json!({"prompt": "a", "steps": 1, "id": "a", "width": 64}), 0)].concat()
            }
            _ => obey(packet),
        });
        thread::sleep(Duration::from_secs(2));
        let early = broker.connections();
        assert!(early <= 4 && broker.program.is_running(), "{early} attempts in 2 s");
        broker.wait_done("a");
        assert_eq!(broker.connections(), refusals + 1);
        let log = broker.program.log();
        let told = log.lines().filter(|line| !line.contains("DEBUG") && line.contains(name)).count();
        assert_eq!(told, 1, "told {told} times: {log}");
        tried.push(format!("{code:#x}: {early} attempts in 2 s"));
    }
    format!("{}; told once; {refusals} refusals, then served", tried.join(", "))
}
