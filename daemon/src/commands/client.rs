//! What the client verbs share: the connection, whether the device is there, and commands with their answers.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, timeout_at};

use crate::commands::cli::{DeviceArgs, print_line};
use crate::config::{Config, Url};
use crate::contract::commands::{Response, ResponseData};
use crate::contract::topics::Topics;
use crate::failure::Failure;
use crate::mqtt::message::{JSON, Message, MessagePayload};
use crate::mqtt::{BrokerAccess, Mqtt, MqttSettings, WireEvent};
use crate::{logging, random};

/// How long the broker keeps what a client that waits has missed.
pub(super) const SESSION: Duration = Duration::from_secs(600);
/// The largest message that is taken, half of what the broker is told.
const MAX_PACKET: u32 = 64 << 20;
/// How long the first retained message may take, and each that follows.
const FIRST_RETAINED: Duration = Duration::from_secs(2);
const NEXT_RETAINED: Duration = Duration::from_millis(300);

/// What a verb that waits hears.
pub(super) enum Heard {
    /// A message of the device: its topic below the device's, and its payload.
    Message(String, Bytes),
    /// The device went online or offline.
    Presence(bool),
    /// The connection is gone, or an attempt to connect failed, for this reason; it comes back by itself.
    Lost(String),
    /// It is back.
    Back,
}

/// A connection to the broker, for one device.
pub(super) struct Client {
    mqtt: Mqtt,
    events: UnboundedReceiver<WireEvent>,
    topics: Topics,
    /// The device's name.
    pub(super) device: String,
    /// Its broker's address.
    pub(super) broker: String,
    /// The options by which another verb finds the same device.
    pub(super) options: String,
    timeout: Duration,
    /// Whether devices are online, by their names.
    statuses: BTreeMap<String, bool>,
    /// Came while something else was waited for.
    early: VecDeque<(String, Bytes)>,
}

/// Runs a verb. Its failure is printed as JSON too, where that is wanted.
pub(super) fn run<T>(json: bool, verb: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    run_logged("off", json, verb)
}

/// The same with the log's levels, where `DIFFUSED_LOG` does not say others.
pub(super) fn run_logged<T>(
    log: &str,
    json: bool,
    verb: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    logging::start(log);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Other(format!("the runtime: {error}")))?;
    runtime.block_on(verb).inspect_err(|failure| {
        if json {
            print_line(json!({"event": "error", "message": failure.to_string()}));
        }
    })
}

impl Client {
    /// Connects, subscribes to `names` of the device, and waits until the device is known to be there. The broker keeps what
    /// is missed while the connection is gone, for `session`.
    pub(super) async fn connect(arguments: &DeviceArgs, names: &[&str], session: Duration) -> Result<Client, Failure> {
        let mut client = Client::reach(arguments, names, session).await?;
        client.find_device().await?;
        Ok(client)
    }

    /// The same without a look at the device.
    pub(super) async fn reach(arguments: &DeviceArgs, names: &[&str], session: Duration) -> Result<Client, Failure> {
        let mut client = Client::open(arguments, names, session)?;
        client.wait_for_broker().await?;
        Ok(client)
    }

    /// The same without waiting for the broker, which is looked for until it is there.
    pub(super) fn open(arguments: &DeviceArgs, names: &[&str], session: Duration) -> Result<Client, Failure> {
        let config = config(arguments)?;
        let topics = config.topics();
        let own = ["response/+"].iter().chain(names).map(|name| topics.of(name));
        let settings = MqttSettings {
            access: BrokerAccess::of(&config).map_err(|error| Failure::Usage(format!("{error:#}")))?,
            client_id: format!("diffused-client-{}", random::id()),
            max_packet: MAX_PACKET,
            outbox_limit: 0,
            filters: own.chain([format!("{}/+/status", config.mqtt.base.0)]).collect(),
            optional_filters: vec![],
            shared_filters: vec![],
            greetings: vec![],
            last_will: None,
            session,
        };
        let broker = config.mqtt.url.to_string();
        let (mqtt, events) = Mqtt::start(settings);
        Ok(Client {
            mqtt,
            events,
            topics,
            device: config.device.0.clone(),
            broker,
            options: options(arguments, &config),
            timeout: Duration::from_secs(arguments.timeout),
            statuses: BTreeMap::new(),
            early: VecDeque::new(),
        })
    }

    async fn wait_for_broker(&mut self) -> Result<(), Failure> {
        let broker = self.broker.clone();
        let failure = |why: String| Failure::Other(format!("no connection to the broker {broker}: {why}"));
        let deadline = self.deadline();
        loop {
            match timeout_at(deadline, self.events.recv()).await {
                Ok(Some(WireEvent::Connected { .. })) => return Ok(()),
                Ok(Some(WireEvent::Disconnected { reason, .. })) => return Err(failure(reason)),
                // What the broker keeps may come before its answer to the subscriptions.
                Ok(Some(WireEvent::Received(received))) => {
                    self.mqtt.acknowledge(received.receipt);
                    if let Some(Heard::Message(name, payload)) = self.sort(&received.topic, received.payload) {
                        self.early.push_back((name, payload));
                    }
                }
                Ok(Some(_)) => {}
                _ => return Err(failure(format!("no answer in {} s", self.timeout.as_secs()))),
            }
        }
    }

    /// What its retained status says; where there is none, the device is asked.
    async fn find_device(&mut self) -> Result<(), Failure> {
        let deadline = self.deadline();
        self.hear_statuses().await;
        match self.is_online() {
            Some(true) => Ok(()),
            Some(false) => Err(self.absent("is offline")),
            None if self.ask_until(deadline, "request/list", json!({})).await.is_ok() => Ok(()),
            None => Err(self.absent("is not known to the broker")),
        }
    }

    /// The failure of a device that is not there.
    pub(super) fn absent(&self, how: &str) -> Failure {
        let online = match self.online() {
            devices if devices.is_empty() => "no device".to_owned(),
            devices => format!("{}; name one with --device", devices.join(", ")),
        };
        Failure::Other(format!("the device `{}` {how}; online at {}: {online}", self.device, self.broker))
    }

    /// The devices that are online.
    pub(super) fn online(&self) -> Vec<String> {
        self.statuses.iter().filter(|(_, online)| **online).map(|(device, _)| device.clone()).collect()
    }

    /// Whether the device is; `None`: it has said nothing.
    pub(super) fn is_online(&self) -> Option<bool> {
        self.statuses.get(&self.device).copied()
    }

    /// Hears what the broker keeps of the devices, which comes in one go.
    pub(super) async fn hear_statuses(&mut self) {
        let mut deadline = Instant::now() + FIRST_RETAINED.min(self.timeout / 2);
        while let Ok(Ok(heard)) = timeout_at(deadline, self.receive()).await {
            deadline = deadline.min(Instant::now() + NEXT_RETAINED);
            if let Heard::Message(name, payload) = heard {
                self.early.push_back((name, payload));
            }
        }
    }

    /// Publishes a request or a command, which is sent again until the broker has it.
    pub(super) fn publish(&self, name: &str, payload: &impl Serialize) {
        self.mqtt.publish(Message::json(self.topics.of(name), payload));
    }

    /// The same of what is JSON already.
    pub(super) fn publish_json(&self, name: &str, payload: Bytes) {
        self.mqtt.publish(Message::new(self.topics.of(name), MessagePayload::Bytes(payload), JSON));
    }

    /// Publishes the command `name` (`cancel`, `request/list`) and waits for its answer.
    pub(super) async fn ask(&mut self, name: &str, payload: Value) -> Result<ResponseData, Failure> {
        self.ask_until(self.deadline(), name, payload).await
    }

    async fn ask_until(&mut self, deadline: Instant, name: &str, mut payload: Value) -> Result<ResponseData, Failure> {
        let transaction = json!(random::id());
        payload["transaction"] = transaction.clone();
        self.publish(name, &payload);
        let answer = format!("response/{}", name.trim_start_matches("request/"));
        loop {
            let heard = timeout_at(deadline, self.receive()).await.map_err(|_| self.silent())??;
            let Heard::Message(name, payload) = heard else { continue };
            let response = serde_json::from_slice::<Response>(&payload).ok().filter(|_| name == answer);
            match response {
                Some(response) if response.transaction.as_ref() == Some(&transaction) => {
                    return match response.error {
                        Some(error) => Err(Failure::Other(error)),
                        None => Ok(response.data),
                    };
                }
                Some(_) => {}
                None => self.early.push_back((name, payload)),
            }
        }
    }

    /// The failure of a device that should have answered.
    pub(super) fn silent(&self) -> Failure {
        let (device, seconds) = (&self.device, self.timeout.as_secs());
        Failure::Other(format!(
            "the device `{device}` does not answer in {seconds} s; do the broker's access rules let us read and write \
             below {}?",
            self.topics.of("")
        ))
    }

    /// How long broker and device may take to answer.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// When the patience with the device ends that begins now.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// What comes next.
    pub(super) async fn hear(&mut self) -> Result<Heard, Failure> {
        match self.early.pop_front() {
            Some((name, payload)) => Ok(Heard::Message(name, payload)),
            None => self.receive().await,
        }
    }

    async fn receive(&mut self) -> Result<Heard, Failure> {
        loop {
            let gone = || Failure::Other("the connection has ended".to_owned());
            match self.events.recv().await.ok_or_else(gone)? {
                WireEvent::Connected { .. } => return Ok(Heard::Back),
                WireEvent::Disconnected { reason, .. } => return Ok(Heard::Lost(reason)),
                WireEvent::Received(received) => {
                    self.mqtt.acknowledge(received.receipt);
                    if let Some(heard) = self.sort(&received.topic, received.payload) {
                        return Ok(heard);
                    }
                }
                WireEvent::Refused(_) | WireEvent::Left(_) => {}
            }
        }
    }

    fn sort(&mut self, topic: &str, payload: Bytes) -> Option<Heard> {
        if let Some(device) = topic.strip_suffix("/status") {
            let device = device.rsplit('/').next().unwrap_or_default();
            let online = payload == "online";
            self.statuses.insert(device.to_owned(), online);
            return (device == self.device).then_some(Heard::Presence(online));
        }
        let name = topic.strip_prefix(&self.topics.of(""))?;
        Some(Heard::Message(name.to_owned(), payload))
    }

    /// The largest message that the broker takes, if it announced a limit, bytes.
    pub(super) fn max_packet(&self) -> Option<usize> {
        self.mqtt.max_packet()
    }

    /// Sends what is still to be sent, and disconnects.
    pub(super) async fn finish(&self) {
        self.mqtt.flush(self.timeout).await;
        self.mqtt.disconnect(Duration::from_secs(1)).await;
    }
}

/// The configuration, with what the command line says instead. A login belongs to the broker beside which it stands.
fn config(arguments: &DeviceArgs) -> Result<Config, Failure> {
    let mut config =
        Config::load(arguments.config.config.as_deref()).map_err(|error| Failure::Usage(format!("{error:#}")))?;
    if let Some(url) = &arguments.broker {
        config.mqtt.url = url.clone();
        (config.mqtt.username, config.mqtt.password_file) = (None, None);
        (config.mqtt.cert_file, config.mqtt.key_file) = (None, None);
    }
    if let Some(username) = &arguments.username {
        config.mqtt.username = Some(username.clone());
        config.mqtt.password_file = arguments.password_file.clone();
    }
    if let Some(device) = &arguments.device {
        config.device = device.clone();
    }
    Ok(config)
}

/// The options by which another verb finds the same device. File names with blanks are not quoted.
fn options(arguments: &DeviceArgs, config: &Config) -> String {
    let file = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let given = [
        ("config", file(&arguments.config.config)),
        ("broker", arguments.broker.as_ref().map(Url::to_string)),
        ("username", arguments.username.clone()),
        ("password-file", file(&arguments.password_file)),
        ("device", Some(config.device.0.clone())),
    ];
    let given = given.into_iter().filter_map(|(name, value)| Some(format!("--{name} {}", value?)));
    given.collect::<Vec<_>>().join(" ")
}
