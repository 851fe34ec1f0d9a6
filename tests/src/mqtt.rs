//! A broker, the program and a client, each of which a test may start, stop and kill. Everything is waited for; what
//! does not come within a generous time fails the test with all that came instead.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, Publish, PublishProperties};
use rumqttc::v5::{Client, Event, MqttOptions};
use serde_json::Value;

use crate::{contract, program};

/// Far longer than anything takes, even on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// What the topics of the program under test begin with.
const ROOT: &str = "diffused/test/";

/// The broker's command. Debian keeps it where only root's PATH leads.
fn mosquitto() -> Command {
    let mut command = Command::new("mosquitto");
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/usr/local/sbin"));
    command
}

/// Whether this machine has `mosquitto`, the broker.
pub fn has_broker() -> bool {
    mosquitto().arg("-h").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// A broker on a port of its own. Killed when dropped.
pub struct Broker {
    child: Option<Child>,
    config: PathBuf,
    /// On 127.0.0.1.
    pub port: u16,
}

impl Broker {
    /// Chooses a port but does not listen yet; `more` goes into the broker's configuration.
    pub fn prepare(folder: &Path, more: &str) -> Broker {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = folder.join("mosquitto.conf");
        fs::write(&config, format!("listener {port} 127.0.0.1\nallow_anonymous true\n{more}\n")).unwrap();
        Broker { child: None, config, port }
    }

    /// Starts it and waits until it listens.
    pub fn start(&mut self) {
        let log = File::options().create(true).append(true).open(self.config.with_extension("log")).unwrap();
        let mut command = mosquitto();
        command.arg("-c").arg(&self.config);
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn();
        self.child = Some(child.expect("mosquitto is needed for this test: apt install mosquitto"));
        wait_until("the broker listens", || TcpStream::connect(("127.0.0.1", self.port)).is_ok());
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Ends it as an administrator would.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            signal("TERM", child.id());
            child.wait().unwrap();
        }
    }

    /// Sends a signal: `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        signal(name, self.child.as_ref().expect("a broker that runs").id());
    }
}

fn signal(name: &str, process: u32) {
    let status = Command::new("kill").args([&format!("-{name}"), &process.to_string()]).status();
    assert!(status.unwrap().success(), "kill -{name}");
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The program under test. Killed when dropped.
pub struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts the service; its configuration and its log lie in `folder`.
    pub fn start(folder: &Path, config: &str) -> Program {
        Program::start_with(folder, config, &[])
    }

    /// The same with more variables in its environment.
    pub fn start_with(folder: &Path, config: &str, environment: &[(&str, PathBuf)]) -> Program {
        let path = folder.join("config.toml");
        fs::write(&path, config).unwrap();
        let log = folder.join("diffused.log");
        let file = File::options().create(true).append(true).open(&log).unwrap();
        let mut command = Command::new(program());
        command.args(["run", "--config"]).arg(&path).env("DIFFUSED_LOG", "info,diffused=debug");
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        let child = command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        Program { child, log }
    }

    /// Sends a signal: `TERM`, `HUP`.
    pub fn signal(&self, name: &str) {
        signal(name, self.child.id());
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// The most memory that it had at once, and what it has now, MiB.
    pub fn memory(&self) -> (u64, u64) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let value = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("a program that runs");
            line.split_whitespace().next().unwrap().parse::<u64>().unwrap() >> 10
        };
        (value("VmHWM:"), value("VmRSS:"))
    }

    /// The bytes that it has written to storage.
    pub fn written(&self) -> u64 {
        let io = fs::read_to_string(format!("/proc/{}/io", self.child.id())).unwrap();
        let bytes = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        bytes.expect("a program that runs").parse().unwrap()
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the program ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// All that it has logged, over all its starts in this folder.
    pub fn log(&self) -> String {
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
pub struct Delivery {
    /// Without `diffused/test/`, where it begins so.
    pub topic: String,
    /// As it came.
    pub payload: Bytes,
    /// Those of MQTT 5.
    pub properties: PublishProperties,
    /// Whether it came below `diffused/test/`.
    pub is_ours: bool,
    /// The QoS with which it came: that of its publication, up to 1.
    pub qos: u8,
    /// Whether the broker had kept it.
    pub retained: bool,
}

impl Delivery {
    /// Measures it by the contract's document.
    fn check(&self) {
        let topic = if self.is_ours { format!("{ROOT}{}", self.topic) } else { self.topic.clone() };
        contract::check(&topic, &self.payload)
            .unwrap_or_else(|error| panic!("{self:?}\nis against the contract: {error}"));
    }

    /// The payload as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.payload).unwrap_or_else(|error| panic!("{self:?}: {error}"))
    }
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match std::str::from_utf8(&self.payload) {
            Ok(text) => write!(f, "{} {text}", self.topic),
            Err(_) => write!(f, "{} ({} bytes)", self.topic, self.payload.len()),
        }
    }
}

/// A client that is subscribed to everything below `diffused/test` and to `answers/#`.
pub struct Peer {
    client: Client,
    messages: Receiver<Delivery>,
    seen: Vec<Delivery>,
}

impl Peer {
    /// Connects, again whenever the broker has been away.
    pub fn connect(port: u16) -> Peer {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // Of two clients of one name a broker closes the connection of one.
        let name = format!("peer-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let mut options = MqttOptions::new(name, "127.0.0.1", port);
        options.set_max_packet_size(Some(64 << 20)).set_clean_start(false).set_session_expiry_interval(Some(600));
        let (client, mut connection) = Client::new(options, 1000);
        let (sender, messages) = channel();
        let subscriber = client.clone();
        thread::spawn(move || {
            for event in connection.iter() {
                match event {
                    Ok(Event::Incoming(Packet::ConnAck(_))) => {
                        let _ = subscriber.try_subscribe(format!("{ROOT}#"), QoS::AtLeastOnce);
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

    /// Publishes to `diffused/test/NAME`.
    pub fn publish(&self, name: &str, payload: impl Into<Bytes>) {
        self.client.publish(format!("{ROOT}{name}"), QoS::AtLeastOnce, false, payload).unwrap();
    }

    /// Publishes to a topic that is not below `diffused/test/`.
    pub fn publish_elsewhere(&self, topic: &str, payload: impl Into<Bytes>) {
        self.client.publish(topic, QoS::AtLeastOnce, false, payload).unwrap();
    }

    /// Listens to `filter` too, until the connection breaks.
    pub fn listen(&self, filter: &str) {
        self.client.subscribe(filter, QoS::AtLeastOnce).unwrap();
    }

    /// The same as a retained message.
    pub fn publish_retained(&self, name: &str, payload: impl Into<Bytes>) {
        self.client.publish(format!("{ROOT}{name}"), QoS::AtLeastOnce, true, payload).unwrap();
    }

    /// The same with properties.
    pub fn publish_with(&self, name: &str, payload: impl Into<Bytes>, properties: PublishProperties) {
        let topic = format!("{ROOT}{name}");
        self.client.publish_with_properties(topic, QoS::AtLeastOnce, false, payload, properties).unwrap();
    }

    /// Waits for a message for which `wanted` holds and gives all that came up to it.
    pub fn wait_for(&mut self, what: &str, wanted: impl Fn(&Delivery) -> bool) -> Vec<Delivery> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.messages.recv_timeout(left) {
                Ok(message) => {
                    message.check();
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

    /// Waits until messages reach this client, as after a broker without persistence was started again.
    pub fn wait_subscribed(&mut self) {
        wait_until("the client is subscribed", || {
            self.publish("probe", "x");
            thread::sleep(Duration::from_millis(50));
            self.messages.try_iter().any(|message| message.topic == "probe")
        });
    }

    /// Gives what comes within a moment.
    pub fn wait_briefly(&mut self) -> Vec<Delivery> {
        let mut messages = std::mem::take(&mut self.seen);
        messages.extend(self.messages.recv_timeout(Duration::from_millis(50)));
        messages.extend(self.messages.try_iter());
        messages
    }

    /// Waits until the service says that it is there.
    pub fn wait_online(&mut self) {
        self.wait_for("online", |message| message.topic == "status" && message.payload == "online");
    }

    /// Waits until the job's state is `state` and gives all that came up to it.
    pub fn wait_state(&mut self, id: &str, state: &str) -> Vec<Delivery> {
        let topic = format!("job/{id}/state");
        self.wait_for(&format!("{state} of {id}"), |m| m.topic == topic && m.json()["state"] == state)
    }

    /// Publishes a text-to-image request and waits for its end.
    pub fn paint(&mut self, request: &Value) -> Vec<Delivery> {
        self.publish("txt2img", request.to_string());
        self.wait_state(request["id"].as_str().unwrap(), "done")
    }
}

fn message(publish: Publish) -> Delivery {
    let topic = String::from_utf8(publish.topic.to_vec()).unwrap();
    let (is_ours, topic) = match topic.strip_prefix(ROOT) {
        Some(topic) => (true, topic.to_owned()),
        None => (false, topic),
    };
    let properties = publish.properties.unwrap_or_default();
    let (qos, retained) = (publish.qos as u8, publish.retain);
    Delivery { topic, payload: publish.payload, properties, is_ours, qos, retained }
}

/// A broker with the program and a client connected to it.
pub struct Harness {
    /// The service.
    pub program: Program,
    /// The client.
    pub peer: Peer,
    /// The broker of both.
    pub broker: Broker,
    /// Configurations, logs and the service's state.
    pub folder: tempfile::TempDir,
}

impl Harness {
    /// Starts all three and waits until the service is online.
    pub fn start() -> Harness {
        Harness::start_with("")
    }

    /// `broker` goes into the broker's configuration.
    pub fn start_with(broker: &str) -> Harness {
        Harness::start_configured(broker, "", "")
    }

    /// `keys` go in front of the program's configuration, `mqtt` into its section `[mqtt]`.
    pub fn start_configured(broker: &str, keys: &str, mqtt: &str) -> Harness {
        let folder = tempfile::tempdir().unwrap();
        let mut broker = Broker::prepare(folder.path(), broker);
        broker.start();
        let mut peer = Peer::connect(broker.port);
        let program = Program::start(folder.path(), &format!("{keys}{}{mqtt}", config(folder.path(), broker.port)));
        peer.wait_online();
        Harness { program, peer, broker, folder }
    }

    /// Starts the program again, with the configuration and the state that it had.
    pub fn restart(&mut self) {
        let folder = self.folder.path();
        let config = fs::read_to_string(folder.join("config.toml")).unwrap();
        self.program = Program::start(folder, &config);
    }
}

/// The program's configuration for a test.
pub fn config(folder: &Path, port: u16) -> String {
    let state = folder.join("state");
    format!("device = \"test\"\nstate_dir = {state:?}\n[mqtt]\nurl = \"mqtt://127.0.0.1:{port}\"\nkeep_alive = 5\n")
}

/// Polls, for what gives no sign of its own.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "it never came that {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
