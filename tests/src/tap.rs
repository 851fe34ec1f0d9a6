//! Stands between the service and its broker and sees what each has acknowledged to the other: what a client sees is less,
//! since a broker that crashes loses what it has taken.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::sha256;
use crate::wire::{PUBACK, PUBLISH, Packet};

/// A port between the service and its broker.
pub struct Tap {
    /// On 127.0.0.1: where the service connects to.
    pub port: u16,
    ledger: Arc<Mutex<Ledger>>,
}

/// What was said over all connections.
#[derive(Debug, Default)]
pub struct Ledger {
    /// What is not acknowledged yet: by connection, direction and packet id.
    on_way: HashMap<(usize, bool, [u8; 2]), Packet>,
    /// Ids of the requests that the service has acknowledged.
    pub accepted: BTreeSet<String>,
    /// Of each job the messages of its end that the broker has acknowledged, each counted once however often it was sent.
    pub endings: BTreeMap<String, BTreeSet<String>>,
    /// Of each image's topic the SHA-256 of what the broker has acknowledged.
    pub images: BTreeMap<String, BTreeSet<String>>,
    /// Every message of either side.
    pub passed: Vec<Passed>,
    /// Connections of the service.
    pub connections: usize,
    /// What the service has sent against the contract.
    pub broken: Vec<String>,
}

/// A message that came by.
#[derive(Debug)]
pub struct Passed {
    /// When.
    pub at: Instant,
    /// Whether the service sent it.
    pub to_broker: bool,
    /// Its topic, without `wire::BASE`.
    pub topic: String,
    /// Bytes of its payload.
    pub bytes: usize,
}

impl Tap {
    /// Forwards connections to the broker on `port`; where it does not listen, they are closed.
    pub fn start(port: u16) -> Tap {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tap = Tap { port: listener.local_addr().unwrap().port(), ledger: Arc::default() };
        let ledger = tap.ledger.clone();
        thread::spawn(move || {
            for (number, service) in listener.incoming().map(Result::unwrap).enumerate() {
                let Ok(broker) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                [&service, &broker].iter().for_each(|stream| stream.set_nodelay(true).unwrap());
                ledger.lock().unwrap_or_else(PoisonError::into_inner).connections += 1;
                forward(number, true, &service, &broker, &ledger);
                forward(number, false, &broker, &service, &ledger);
            }
        });
        tap
    }

    /// What has passed so far.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // A test that failed while it looked poisons the lock.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn forward(number: usize, to_broker: bool, from: &TcpStream, to: &TcpStream, ledger: &Arc<Mutex<Ledger>>) {
    let (from, mut to, ledger) = (from.try_clone().unwrap(), to.try_clone().unwrap(), ledger.clone());
    thread::spawn(move || {
        let mut reader = BufReader::new(from.try_clone().unwrap());
        while let Some(packet) = Packet::read(&mut reader) {
            ledger.lock().unwrap_or_else(PoisonError::into_inner).note(number, to_broker, &packet);
            if to.write_all(&packet.bytes).is_err() {
                break;
            }
        }
        for end in [from, to] {
            let _ = end.shutdown(Shutdown::Both);
        }
    });
}

impl Ledger {
    fn note(&mut self, connection: usize, to_broker: bool, packet: &Packet) {
        if packet.kind == PUBLISH {
            if let Some(problem) = packet.breaks_contract().filter(|_| to_broker) {
                self.broken.push(problem);
            }
            let topic = packet.name().to_owned();
            self.passed.push(Passed { at: Instant::now(), to_broker, topic, bytes: packet.payload.len() });
            if packet.id != [0; 2] {
                let packet = Packet { bytes: vec![], ..packet.clone() };
                self.on_way.insert((connection, to_broker, packet.id), packet);
            }
        }
        if packet.kind == PUBACK {
            let acknowledged = self.on_way.remove(&(connection, !to_broker, packet.id));
            if let Some(message) = acknowledged.filter(|_| packet.code < 0x80) {
                self.taken(&message, to_broker);
            }
        }
    }

    fn taken(&mut self, message: &Packet, by_service: bool) {
        let (topic, payload) = (message.name(), String::from_utf8_lossy(&message.payload));
        let value = message.json();
        match topic.split('/').collect::<Vec<_>>()[..] {
            ["txt2img"] if by_service => self.accepted.extend(value["id"].as_str().map(str::to_owned)),
            ["job", id, "state"] if is_end(value["state"].as_str()) => {
                self.endings.entry(id.to_owned()).or_default().insert(payload.into_owned());
            }
            ["job", _, "image", _] => {
                self.images.entry(topic.to_owned()).or_default().insert(sha256(&message.payload));
            }
            _ => {}
        }
    }

    /// Accepted jobs without an end.
    pub fn open(&self) -> Vec<&str> {
        self.accepted.iter().filter(|id| !self.endings.contains_key(*id)).map(String::as_str).collect()
    }

    /// Jobs with more than one end, with these.
    pub fn ended_twice(&self) -> Vec<&BTreeSet<String>> {
        self.endings.values().filter(|endings| endings.len() > 1).collect()
    }

    /// Takes out the jobs whose end contains `text`, which are of no further interest; gives their number.
    pub fn take_out(&mut self, text: &str) -> usize {
        let ended = |texts: &BTreeSet<String>| texts.iter().all(|end| end.contains(text));
        let out: Vec<String> = self.endings.extract_if(.., |_, texts| ended(texts)).map(|(id, _)| id).collect();
        self.accepted.retain(|id| !out.contains(id));
        out.len()
    }

    /// How many jobs ended as `state`.
    pub fn ended_as(&self, state: &str) -> usize {
        let is =
            |text: &String| serde_json::from_str(text).is_ok_and(|value: serde_json::Value| value["state"] == state);
        self.endings.values().filter(|endings| endings.iter().any(is)).count()
    }

    /// The time from the last message to the service on `question` to the service's first on `answer` after it.
    pub fn answered_in(&self, question: &str, answer: &str) -> Option<Duration> {
        let asked = self.passed.iter().rfind(|message| !message.to_broker && message.topic == question)?.at;
        let is_answer = |m: &&Passed| m.to_broker && m.topic == answer && m.at >= asked;
        self.passed.iter().find(is_answer).map(|message| message.at - asked)
    }

    /// Of each job, how many messages the service has sent.
    pub fn messages_by_job(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for message in self.passed.iter().filter(|message| message.to_broker) {
            if let Some(id) = message.topic.strip_prefix("job/").and_then(|rest| rest.split('/').next()) {
                *counts.entry(id).or_default() += 1;
            }
        }
        counts
    }
}

/// Whether a job in this state has ended.
pub fn is_end(state: Option<&str>) -> bool {
    state.is_some_and(|state| ["done", "failed", "cancelled", "rejected"].contains(&state))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(ledger: &mut Ledger, to_broker: bool, topic: &str, payload: &str, code: u8) {
        let packet =
            Packet { kind: PUBLISH, id: [0, 1], topic: topic.into(), payload: payload.into(), ..Packet::default() };
        ledger.note(0, to_broker, &packet);
        ledger.note(0, !to_broker, &Packet { kind: PUBACK, id: [0, 1], code, ..Packet::default() });
    }

    #[test]
    fn only_what_was_acknowledged_counts_and_repetitions_count_once() {
        let mut ledger = Ledger::default();
        publish(&mut ledger, false, "diffused/test/txt2img", "{\"id\": \"a\"}", 0);
        publish(&mut ledger, true, "diffused/test/job/a/state", "{\"state\": \"done\"}", 0x97);
        assert_eq!(ledger.open(), ["a"]);
        for _ in 0..2 {
            publish(&mut ledger, true, "diffused/test/job/a/state", "{\"state\": \"done\"}", 0);
        }
        assert_eq!((ledger.open().len(), ledger.ended_twice().len(), ledger.ended_as("done")), (0, 0, 1));
        publish(&mut ledger, true, "diffused/test/job/a/state", "{\"state\": \"failed\"}", 0);
        assert_eq!((ledger.ended_twice().len(), ledger.messages_by_job()["a"]), (1, 4));
    }
}
