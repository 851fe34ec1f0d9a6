//! Brokers that do what mosquitto cannot be made to do: each answers with the bytes that its test gives it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use diffused_tests::mqtt::{Program, config, wait_until};

/// An MQTT 5 CONNACK of success, without properties.
const CONNACK: &[u8] = &[0x20, 3, 0, 0, 0];
const TAKEN: u8 = 0;

/// A packet of the service.
#[derive(Debug, Clone, Default)]
struct Packet {
    kind: u8,
    /// Of a PUBLISH or SUBSCRIBE.
    id: [u8; 2],
    /// Of a PUBLISH.
    topic: String,
    payload: Vec<u8>,
    retain: bool,
}

impl Packet {
    fn read(stream: &mut TcpStream) -> Option<Packet> {
        let mut first = [0];
        stream.read_exact(&mut first).ok()?;
        let mut length = 0;
        for shift in [0, 7, 14, 21] {
            let mut byte = [0];
            stream.read_exact(&mut byte).ok()?;
            length |= usize::from(byte[0] & 127) << shift;
            if byte[0] < 128 {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).ok()?;
        let packet = Packet { kind: first[0] >> 4, retain: first[0] & 0xf1 == 0x31, ..Packet::default() };
        Some(match packet.kind {
            3 => Packet::publish(packet, first[0] & 6 != 0, &body),
            8 => Packet { id: [body[0], body[1]], ..packet },
            _ => packet,
        })
    }

    fn publish(packet: Packet, has_id: bool, body: &[u8]) -> Packet {
        let (topic, mut rest) = body[2..].split_at(usize::from(u16::from_be_bytes([body[0], body[1]])));
        let mut id = [0; 2];
        if has_id {
            id.copy_from_slice(&rest[..2]);
            rest = &rest[2..];
        }
        // The properties of these tests are shorter than 128 bytes.
        let payload = rest[1 + usize::from(rest[0])..].to_vec();
        Packet { id, topic: String::from_utf8(topic.to_vec()).unwrap(), payload, ..packet }
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.payload).unwrap()
    }
}

/// A PUBACK; without an id, as QoS 0 has none, nothing.
fn puback(packet: &Packet, code: u8) -> Vec<u8> {
    if packet.id == [0; 2] { vec![] } else { vec![0x40, 3, packet.id[0], packet.id[1], code] }
}

fn suback(packet: &Packet, code: u8) -> Vec<u8> {
    [&[0x90, 7, packet.id[0], packet.id[1], 0][..], &[code; 4]].concat()
}

/// A PUBLISH of QoS 0 to the service.
fn request(value: &Value) -> Vec<u8> {
    let (topic, payload) = ("diffused/test/txt2img", value.to_string());
    let body = [&[0, topic.len() as u8], topic.as_bytes(), &[0], payload.as_bytes()].concat();
    assert!(body.len() < 128);
    [&[0x30, body.len() as u8], body.as_slice()].concat()
}

/// What an obedient broker answers.
fn obey(packet: &Packet) -> Vec<u8> {
    match packet.kind {
        1 => CONNACK.to_vec(),
        3 => puback(packet, TAKEN),
        8 => suback(packet, 1),
        12 => vec![0xd0, 0],
        _ => vec![],
    }
}

/// A broker that lives as long as its test.
struct Scripted {
    seen: Arc<Mutex<Vec<Packet>>>,
    program: Program,
    _folder: tempfile::TempDir,
}

impl Scripted {
    /// `answer` gives the bytes that follow a packet; after none to a CONNECT, and after a DISCONNECT, the broker hangs up.
    fn start(answer: impl Fn(&Packet, usize) -> Vec<u8> + Send + 'static) -> Scripted {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(vec![]));
        let packets = seen.clone();
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let mut stream = stream.unwrap();
                while let Some(packet) = Packet::read(&mut stream) {
                    packets.lock().unwrap().push(packet.clone());
                    let bytes = answer(&packet, number);
                    let goodbye = bytes.first() == Some(&0xe0) || (packet.kind == 1 && bytes.first() != Some(&0x20));
                    if stream.write_all(&bytes).is_err() || goodbye {
                        break;
                    }
                }
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let program = Program::start(folder.path(), &config(folder.path(), port));
        Scripted { seen, program, _folder: folder }
    }

    fn published(&self, topic: &str) -> Vec<Packet> {
        let topic = format!("diffused/test/{topic}");
        self.seen.lock().unwrap().iter().filter(|packet| packet.topic == topic).cloned().collect()
    }

    fn wait_published(&self, topic: &str, wanted: impl Fn(&Packet) -> bool) {
        wait_until(&format!("{topic} is published"), || self.published(topic).iter().any(&wanted));
    }

    fn wait_done(&self, id: &str) {
        self.wait_published(&format!("job/{id}/state"), |packet| packet.json()["state"] == "done");
    }

    fn connections(&self) -> usize {
        self.seen.lock().unwrap().iter().filter(|packet| packet.kind == 1).count()
    }
}

/// Gives the service two jobs over its first connection.
fn with_jobs(packet: &Packet, connection: usize) -> Vec<u8> {
    let jobs = ["a", "b"].map(|id| request(&json!({"prompt": "a", "steps": 1, "seed": 7, "id": id, "width": 64})));
    let jobs = if packet.kind == 8 && connection == 0 { jobs.concat() } else { vec![] };
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
    let broker = Scripted::start(|packet, _| if packet.kind == 8 { suback(packet, 0x87) } else { obey(packet) });
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
        1 => vec![0x20, 6, 0, 0, 3, 0x13, 0, 0],
        _ => with_jobs(packet, connection),
    });
    broker.wait_done("b");
    thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(broker.connections(), 1);
}

/// Retain Available 0 in the CONNACK.
pub(crate) fn a_broker_that_keeps_nothing_is_sent_nothing_to_keep() {
    let broker = Scripted::start(|packet, connection| match packet.kind {
        1 => vec![0x20, 5, 0, 0, 2, 0x25, 0],
        _ => with_jobs(packet, connection),
    });
    broker.wait_done("b");
    assert!(broker.program.log().contains("keeps no retained messages"));
    assert!(broker.seen.lock().unwrap().iter().all(|packet| !packet.retain));
}
