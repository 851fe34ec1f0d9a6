//! A broker, the program and a client, each of which a test may start, stop and kill. Everything is waited for; what
//! does not come within a generous time fails the test with all that came instead.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, Publish, PublishProperties};
use rumqttc::v5::{Client, Event, MqttOptions};
use serde_json::Value;

/// Far longer than anything takes, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A broker on a port of its own. Killed when dropped.
pub(crate) struct Broker {
    child: Option<Child>,
    config: PathBuf,
    pub(crate) port: u16,
}

impl Broker {
    /// Chooses a port but does not listen yet; `more` goes into the broker's configuration.
    pub(crate) fn prepare(folder: &Path, more: &str) -> Broker {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = folder.join("mosquitto.conf");
        fs::write(&config, format!("listener {port} 127.0.0.1\nallow_anonymous true\n{more}\n")).unwrap();
        Broker { child: None, config, port }
    }

    pub(crate) fn start(&mut self) {
        let log = File::options().create(true).append(true).open(self.config.with_extension("log")).unwrap();
        let mut command = Command::new("mosquitto");
        // Debian keeps it where only root's PATH leads.
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/sbin:/usr/local/sbin")).arg("-c").arg(&self.config);
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn();
        self.child = Some(child.expect("mosquitto is needed for this test: apt install mosquitto"));
        wait_until("the broker listens", || TcpStream::connect(("127.0.0.1", self.port)).is_ok());
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The program under test. Killed when dropped.
pub(crate) struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    pub(crate) fn start(folder: &Path, config: &str) -> Program {
        let path = folder.join("config.toml");
        fs::write(&path, config).unwrap();
        let log = folder.join("diffused.log");
        let file = File::options().create(true).append(true).open(&log).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_diffused"));
        command.args(["run", "--config"]).arg(&path).env("DIFFUSED_LOG", "debug");
        let child = command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        Program { child, log }
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(status.unwrap().success());
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the program ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- the program's log\n{}", self.log());
        }
    }
}

/// A message that the client received.
#[derive(Clone)]
pub(crate) struct Message {
    /// Without `diffused/test/`, where it begins so.
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) properties: PublishProperties,
}

impl Message {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.payload).unwrap_or_else(|error| panic!("{self:?}: {error}"))
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match std::str::from_utf8(&self.payload) {
            Ok(text) => write!(f, "{} {text}", self.topic),
            Err(_) => write!(f, "{} ({} bytes)", self.topic, self.payload.len()),
        }
    }
}

/// A client that is subscribed to everything below `diffused/test` and to `answers/#`.
pub(crate) struct Peer {
    client: Client,
    messages: Receiver<Message>,
    seen: Vec<Message>,
}

impl Peer {
    pub(crate) fn connect(port: u16) -> Peer {
        let name = format!("peer-{:?}-{port}", thread::current().id());
        let mut options = MqttOptions::new(name, "127.0.0.1", port);
        options.set_max_packet_size(Some(64 << 20)).set_clean_start(false).set_session_expiry_interval(Some(600));
        let (client, mut connection) = Client::new(options, 1000);
        let (sender, messages) = channel();
        let subscriber = client.clone();
        thread::spawn(move || {
            for event in connection.iter() {
                match event {
                    Ok(Event::Incoming(Packet::ConnAck(_))) => {
                        let _ = subscriber.try_subscribe("diffused/test/#", QoS::AtLeastOnce);
                        let _ = subscriber.try_subscribe("answers/#", QoS::AtLeastOnce);
                    }
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        // Nobody listens any more when the test is over.
                        let Ok(()) = sender.send(message(publish)) else { return };
                    }
                    Ok(_) => {}
                    // The broker is away; the client has no wait of its own.
                    Err(_) => thread::sleep(Duration::from_millis(100)),
                }
            }
        });
        Peer { client, messages, seen: vec![] }
    }

    pub(crate) fn publish(&self, name: &str, payload: impl Into<Bytes>) {
        self.client.publish(format!("diffused/test/{name}"), QoS::AtLeastOnce, false, payload).unwrap();
    }

    pub(crate) fn publish_retained(&self, name: &str, payload: impl Into<Bytes>) {
        self.client.publish(format!("diffused/test/{name}"), QoS::AtLeastOnce, true, payload).unwrap();
    }

    pub(crate) fn publish_with(&self, name: &str, payload: impl Into<Bytes>, properties: PublishProperties) {
        let topic = format!("diffused/test/{name}");
        self.client.publish_with_properties(topic, QoS::AtLeastOnce, false, payload, properties).unwrap();
    }

    /// Waits for a message for which `wanted` holds and gives all that came up to it.
    pub(crate) fn wait_for(&mut self, what: &str, wanted: impl Fn(&Message) -> bool) -> Vec<Message> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.messages.recv_timeout(left) {
                Ok(message) => {
                    let found = wanted(&message);
                    self.seen.push(message);
                    if found {
                        return std::mem::take(&mut self.seen);
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("no {what}, but {:#?}", self.seen),
                Err(RecvTimeoutError::Disconnected) => panic!("the client's thread ended"),
            }
        }
    }

    /// Waits until the service says that it is there.
    pub(crate) fn wait_online(&mut self) {
        self.wait_for("online", |message| message.topic == "status" && message.payload == "online");
    }

    /// Waits until the job's state is `state` and gives all that came up to it.
    pub(crate) fn wait_state(&mut self, id: &str, state: &str) -> Vec<Message> {
        let topic = format!("job/{id}/state");
        self.wait_for(&format!("{state} of {id}"), |m| m.topic == topic && m.json()["state"] == state)
    }

    /// Publishes a text-to-image request and waits for its end.
    pub(crate) fn paint(&mut self, request: &Value) -> Vec<Message> {
        self.publish("txt2img", request.to_string());
        self.wait_state(request["id"].as_str().unwrap(), "done")
    }
}

fn message(publish: Publish) -> Message {
    let topic = String::from_utf8(publish.topic.to_vec()).unwrap();
    let topic = topic.strip_prefix("diffused/test/").map(str::to_owned).unwrap_or(topic);
    Message { topic, payload: publish.payload, properties: publish.properties.unwrap_or_default() }
}

/// A broker with the program and a client connected to it.
pub(crate) struct Bench {
    pub(crate) program: Program,
    pub(crate) peer: Peer,
    pub(crate) broker: Broker,
    pub(crate) folder: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn start() -> Bench {
        Bench::start_with("")
    }

    /// `broker` goes into the broker's configuration.
    pub(crate) fn start_with(broker: &str) -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let mut broker = Broker::prepare(folder.path(), broker);
        broker.start();
        let mut peer = Peer::connect(broker.port);
        let program = Program::start(folder.path(), &config(folder.path(), broker.port));
        peer.wait_online();
        Bench { program, peer, broker, folder }
    }
}

/// The program's configuration for a test.
pub(crate) fn config(folder: &Path, port: u16) -> String {
    let state = folder.join("state");
    format!("device = \"test\"\nstate_dir = {state:?}\n[mqtt]\nurl = \"mqtt://127.0.0.1:{port}\"\nkeep_alive = 5\n")
}

/// Polls, for what gives no sign of its own.
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "it never came that {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Runs the program to its end: exit status and what it wrote to stderr.
pub(crate) fn run(arguments: &[&str], folder: &Path) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_diffused"));
    let output = command.args(arguments).current_dir(folder).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// SHA-256, hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    diffused::pictures::hex(&<sha2::Sha256 as sha2::Digest>::digest(bytes))
}
