//! The messages of the contract, each to its topic and a copy to the client's response topic.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use tracing::warn;

use crate::config::Config;
use crate::contract::commands::Response;
use crate::contract::discovery;
use crate::contract::info::DeviceInfo;
use crate::contract::messages::{
    Activity, DisplayFile, Ending, Health, Image, JobProgress, JobResult, JobState, State,
};
use crate::contract::request::FileFormat;
use crate::contract::topics::{Topics, is_safe_level};
use crate::jobs::record::{JobRecord, Reply};
use crate::mqtt::message::{Message, MessagePayload, Part, SentImage};
use crate::mqtt::receipts::Receipt;
use crate::mqtt::{self, BrokerAccess, Mqtt, Received};
use crate::painting::placed::{Place, PlacedImage};
use crate::painting::worker::Painted;

/// The most bytes of user properties that are returned: they are kept with each answer.
const MOST_USER_PROPERTIES: usize = 4096;
/// The most bytes of correlation data, for the same reason.
const MOST_CORRELATION: usize = 4096;
/// How long the broker keeps our session while we are away.
pub(crate) const SESSION: Duration = Duration::from_secs(7 * 24 * 3600);

/// The connection, and what every message needs.
pub(super) struct Publisher {
    mqtt: Mqtt,
    topics: Topics,
    retain_image: bool,
    /// Messages that go out once the journal has what they follow from.
    held: Mutex<Vec<Message>>,
}

impl Publisher {
    pub(super) fn new(mqtt: Mqtt, topics: Topics, retain_image: bool) -> Publisher {
        Publisher { mqtt, topics, retain_image, held: Mutex::default() }
    }

    /// Goes on with what the configuration has, and tells clients of it.
    pub(super) fn reconfigure(&mut self, config: &Config, info: &DeviceInfo) {
        self.topics = config.topics();
        self.retain_image = config.mqtt.retain_image;
        self.mqtt.reconfigure(
            config.mqtt.outbox.0,
            greetings(config, &self.topics, info),
            optional_filters(config, &self.topics),
        );
    }

    pub(super) fn topics(&self) -> &Topics {
        &self.topics
    }

    pub(super) fn mqtt(&self) -> &Mqtt {
        &self.mqtt
    }

    pub(super) fn acknowledge(&self, receipt: Receipt) {
        self.mqtt.acknowledge(receipt);
    }

    /// When the task that polls the MQTT client was last seen alive.
    pub(super) fn last_beat(&self) -> Instant {
        self.mqtt.last_beat()
    }

    /// Where to answer the client that published `received`, or a warning why its response topic is refused.
    pub(super) fn reply(&self, received: &Received) -> (Option<Reply>, Option<String>) {
        let Some(topic) = received.response_topic.clone() else { return (None, None) };
        match self.topics.check_response(&topic) {
            Ok(()) if received.correlation.as_ref().is_some_and(|data| data.len() > MOST_CORRELATION) => {
                let warning =
                    format!("no answers are sent: the correlation data are longer than {MOST_CORRELATION} bytes");
                (None, Some(warning))
            }
            Ok(()) => {
                let (mut user_properties, mut warning) = (received.user_properties.clone(), None);
                let bytes: usize = user_properties.iter().map(|(name, value)| name.len() + value.len()).sum();
                if bytes > MOST_USER_PROPERTIES {
                    user_properties.clear();
                    let most = MOST_USER_PROPERTIES;
                    warning = Some(format!("{bytes} bytes of user properties are not returned; {most} would be"));
                }
                (Some(Reply { topic, correlation: received.correlation.clone(), user_properties }), warning)
            }
            Err(why) => {
                warn!(topic, "a response topic was refused: {why}");
                (None, Some(format!("no answers are sent to the response topic: {why}")))
            }
        }
    }

    /// Bytes of the largest image that the broker takes; `None` if it announced no limit.
    pub(super) fn image_limit(&self, id: &str) -> Option<usize> {
        // With the longest topic and content type that an image has.
        let empty = MessagePayload::Bytes(Bytes::new());
        let empty = Message::new(self.topics.job(id, "output/00"), empty, FileFormat::Raw.content_type());
        self.mqtt.max_packet().map(|packet| packet.saturating_sub(empty.packet_size()))
    }

    /// Holds messages until `release`, so that a client hears of nothing that a crash could undo.
    pub(super) fn send(&self, messages: impl IntoIterator<Item = Message>) {
        self.held().extend(messages);
    }

    /// Sends what is held: the journal is written.
    pub(super) fn release(&self) {
        std::mem::take(&mut *self.held()).into_iter().for_each(|message| self.mqtt.publish(message));
    }

    fn held(&self) -> MutexGuard<'_, Vec<Message>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the answer to a request, which is acknowledged once all of it has reached the broker.
    pub(super) fn answer(&self, mut messages: Vec<Message>, receipt: Receipt) {
        match messages.last_mut() {
            Some(last) => last.answers = Some(receipt),
            None => self.acknowledge(receipt),
        }
        self.send(messages);
    }

    pub(super) fn state(&self, record: &JobRecord, state: State, position: Option<usize>) -> Vec<Message> {
        let id = &record.job.id;
        let (transaction, warnings) = (record.job.transaction.clone(), record.warnings.clone());
        let part = if position.is_some() { Part::Position(id.clone()) } else { Part::Other };
        let topic = self.topics.job(id, "state");
        let state = JobState { id: id.clone(), transaction, state, position, error: None, warnings };
        with_copy(topic, record.reply.as_ref(), &state, part)
    }

    pub(super) fn ended(
        &self,
        id: &str,
        transaction: Option<Value>,
        reply: Option<&Reply>,
        ending: &Ending,
    ) -> Vec<Message> {
        let state = JobState::ended(id.to_owned(), transaction, ending);
        with_copy(self.topics.job(id, "state"), reply, &state, Part::Ending(id.to_owned()))
    }

    pub(super) fn progress(&self, id: &str, progress: &JobProgress) {
        let message = Message::json(self.topics.job(id, "progress"), progress);
        self.mqtt.publish(Message { certain: false, ..message });
    }

    /// A preview that the broker does not take is not missed.
    pub(super) fn preview(&self, id: &str, jpeg: Vec<u8>) {
        let topic = self.topics.job(id, "preview");
        let payload = MessagePayload::Bytes(jpeg.into());
        let message = Message::new(topic, payload, FileFormat::Jpeg.content_type());
        if self.mqtt.max_packet().is_none_or(|most| message.packet_size() <= most) {
            self.mqtt.publish(Message { certain: false, part: Part::Preview, ..message });
        }
    }

    /// How an image is described in its job's result.
    pub(super) fn describe(&self, id: &str, painted: &Painted) -> Image {
        let topic = self.topics.job(id, &format!("image/{}", painted.index));
        let output = painted.output.as_ref().map(|output| DisplayFile {
            topic: output.fits.then(|| self.topics.job(id, &format!("output/{}", painted.index))),
            content_type: output.file.format.content_type().to_owned(),
            width: output.size.0,
            height: output.size.1,
            bytes: output.file.len,
            sha256: output.file.sha256.clone(),
            path: output.path.clone(),
        });
        Image {
            topic: painted.fits.then_some(topic),
            content_type: painted.file.format.content_type().to_owned(),
            bytes: painted.file.len,
            sha256: painted.file.sha256.clone(),
            path: painted.path.clone(),
            prompt: painted.prompt.clone(),
            output,
        }
    }

    /// An image, or what a display shows of it, for its job's topic and as the latest.
    pub(super) fn image(&self, image: SentImage, file: PlacedImage) -> [Message; 2] {
        let name = if image.output { "output" } else { "image" };
        let topic = self.topics.job(&image.job, &format!("{name}/{}", image.index));
        let payload = match file.place {
            Place::File(path) => MessagePayload::File { path, bytes: file.len },
            Place::Memory(bytes) => MessagePayload::Bytes(bytes.into()),
        };
        let message = Message { part: Part::Image(image), ..Message::new(topic, payload, file.format.content_type()) };
        let latest =
            Message { topic: self.topics.of(name), certain: false, retain: self.retain_image, ..message.clone() };
        [message, latest]
    }

    pub(super) fn result(&self, result: &JobResult, reply: Option<&Reply>) -> Vec<Message> {
        with_copy(self.topics.job(&result.id, "result"), reply, result, Part::Result(result.id.clone()))
    }

    /// What Home Assistant learns of the device, once more.
    pub(super) fn discovery(&self, config: &Config, info: &DeviceInfo) {
        self.mqtt.publish(discovery(config, &self.topics, info));
    }

    /// What the device does, which the broker keeps.
    pub(super) fn activity(&self, activity: &Activity) {
        let message = Message::json(self.topics.of("activity"), activity);
        self.mqtt.publish(Message { certain: false, retain: true, ..message });
    }

    pub(super) fn health(&self, health: &Health) {
        let message = Message::json(self.topics.of("health"), health);
        self.mqtt.publish(Message { certain: false, ..message });
    }

    /// Answers the command `name`, which may be anything that fits into a topic.
    pub(super) fn response(&self, name: &str, reply: Option<&Reply>, response: &Response, receipt: Receipt) {
        let mut messages: Vec<Message> =
            reply.map(|reply| Message { part: Part::Response, ..copy(reply, response) }).into_iter().collect();
        if is_safe_level(name) {
            let message = Message::json(self.topics.of(&format!("response/{name}")), response);
            messages.push(Message { part: Part::Response, ..message });
        } else if messages.is_empty() {
            warn!(name, "a command's name cannot be part of a topic, so it has no answer");
        }
        self.answer(messages, receipt);
    }

    /// The files of images that wait to be sent.
    pub(super) fn waiting_files(&self) -> std::collections::HashSet<PathBuf> {
        self.mqtt.waiting_files()
    }

    /// Waits until all is sent, for `timeout` at most, publishes `offline`, and disconnects. Returns whether all was sent.
    pub(super) async fn finish(&self, timeout: Duration) -> bool {
        const GOODBYE: Duration = Duration::from_secs(1);
        self.mqtt.flush(timeout).await;
        // Before whatever could not be sent.
        self.mqtt.publish(Message { part: Part::Response, ..status(&self.topics, "offline") });
        let sent = self.mqtt.flush(GOODBYE).await;
        if sent {
            self.mqtt.disconnect(GOODBYE).await;
        }
        // Else the broker publishes the last will, which is `offline` too.
        sent
    }
}

/// To `topic`, and a copy to the client's response topic.
fn with_copy(topic: String, reply: Option<&Reply>, value: &impl Serialize, part: Part) -> Vec<Message> {
    let copied = reply.map(|reply| Message { part: part.clone(), ..copy(reply, value) });
    copied.into_iter().chain([Message { part, ..Message::json(topic, value) }]).collect()
}

fn copy(reply: &Reply, value: &impl Serialize) -> Message {
    let (correlation, user_properties) = (reply.correlation.clone(), reply.user_properties.clone());
    Message { correlation, user_properties, ..Message::json(reply.topic.clone(), value) }
}

/// `…/status`, which the broker keeps.
fn status(topics: &Topics, text: &'static str) -> Message {
    let payload = MessagePayload::Bytes(Bytes::from_static(text.as_bytes()));
    Message { retain: true, ..Message::new(topics.of("status"), payload, "text/plain") }
}

/// What is published first over each connection.
fn greetings(config: &Config, topics: &Topics, info: &DeviceInfo) -> Vec<Message> {
    let info_message = Message { retain: true, ..Message::json(topics.of("info"), info) };
    let discovery = config.home_assistant.discovery.then(|| discovery(config, topics, info));
    [status(topics, "online"), info_message].into_iter().chain(discovery).collect()
}

/// What Home Assistant learns of the device.
fn discovery(config: &Config, topics: &Topics, info: &DeviceInfo) -> Message {
    let payload = discovery::payload(topics, &config.device.0, info, config.preview);
    Message { retain: true, ..Message::json(topics.discovery(), &payload) }
}

/// Where Home Assistant says that it has started.
fn optional_filters(config: &Config, topics: &Topics) -> Vec<String> {
    config.home_assistant.discovery.then(|| topics.home_assistant()).into_iter().collect()
}

/// How to connect, and what is published at each connection and when it breaks.
pub(super) fn mqtt_options(
    config: &Config,
    topics: &Topics,
    info: &DeviceInfo,
    client_id: String,
) -> Result<mqtt::MqttSettings> {
    Ok(mqtt::MqttSettings {
        access: BrokerAccess::of(config)?,
        client_id,
        max_packet: config.mqtt.max_packet.0,
        outbox_limit: config.mqtt.outbox.0,
        filters: topics.filters(),
        optional_filters: optional_filters(config, topics),
        shared_filters: topics.shared_filters(&config.fleet.group.0),
        greetings: greetings(config, topics, info),
        last_will: Some(status(topics, "offline")),
        session: SESSION,
    })
}
