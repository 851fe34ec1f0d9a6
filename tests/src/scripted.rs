//! Brokers that do what mosquitto cannot be made to do: each answers with the bytes that its test gives it.

use std::io::{BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;

use crate::mqtt::{Program, config, wait_until};
use crate::wire::{BASE, CONNECT, Packet};

/// A broker that lives as long as its test, and the program that is connected to it.
pub struct Scripted {
    /// What the program has sent.
    pub seen: Arc<Mutex<Vec<Packet>>>,
    /// The service.
    pub program: Program,
    /// Its configuration, log and state.
    pub folder: tempfile::TempDir,
}

impl Scripted {
    /// `answer` gives the bytes that follow a packet of a connection, which are counted from 0; after none to a
    /// CONNECT, and after a DISCONNECT, the broker hangs up.
    pub fn start(answer: impl FnMut(&Packet, usize) -> Vec<u8> + Send + 'static) -> Scripted {
        Scripted::start_configured("", answer)
    }

    /// `keys` go in front of the program's configuration.
    pub fn start_configured(keys: &str, answer: impl FnMut(&Packet, usize) -> Vec<u8> + Send + 'static) -> Scripted {
        Scripted::start_with(keys, "", answer)
    }

    /// `keys` go in front of the program's configuration, `mqtt` into its section `[mqtt]`.
    pub fn start_with(
        keys: &str,
        mqtt: &str,
        answer: impl FnMut(&Packet, usize) -> Vec<u8> + Send + 'static,
    ) -> Scripted {
        let seen = Arc::new(Mutex::new(vec![]));
        let port = serve(seen.clone(), answer);
        let folder = tempfile::tempdir().unwrap();
        let program = Program::start(folder.path(), &format!("{keys}{}{mqtt}", config(folder.path(), port)));
        Scripted { seen, program, folder }
    }

    /// What was published to `diffused/test/TOPIC`.
    pub fn published(&self, topic: &str) -> Vec<Packet> {
        let topic = format!("{BASE}{topic}");
        self.seen.lock().unwrap().iter().filter(|packet| packet.topic == topic).cloned().collect()
    }

    /// Waits for a message to `topic` for which `wanted` holds.
    pub fn wait_published(&self, topic: &str, wanted: impl Fn(&Packet) -> bool) {
        wait_until(&format!("{topic} is published"), || self.published(topic).iter().any(&wanted));
    }

    /// Waits until a job is done.
    pub fn wait_done(&self, id: &str) {
        self.wait_published(&format!("job/{id}/state"), |packet| packet.json()["state"] == "done");
    }

    /// How often the program has connected.
    pub fn connections(&self) -> usize {
        self.seen.lock().unwrap().iter().filter(|packet| packet.kind == CONNECT).count()
    }
}

/// Serves one connection after the other, in a thread, and notes what was `seen`; gives the port.
pub fn serve(seen: Arc<Mutex<Vec<Packet>>>, mut answer: impl FnMut(&Packet, usize) -> Vec<u8> + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            while let Some(packet) = Packet::read(&mut reader) {
                let bytes = answer(&packet, number);
                let goodbye = bytes.first() == Some(&0xe0) || (packet.kind == CONNECT && bytes.first() != Some(&0x20));
                seen.lock().unwrap().push(packet);
                if stream.write_all(&bytes).is_err() || goodbye {
                    break;
                }
            }
        }
    });
    port
}
