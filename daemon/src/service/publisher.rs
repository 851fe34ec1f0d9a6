//! Everything that the service publishes: the messages of the contract, each to its topic and a copy to the
//! client's response topic.

use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use tracing::warn;

use super::JobRecord;
use crate::config::Config;
use crate::contract::messages::{Ending, Health, Image, JobProgress, JobResult, JobState, State, Timings};
use crate::contract::topics::{Topics, is_safe_level};
use crate::mqtt::outbox::{Message, Part, SentImage};
use crate::mqtt::{self, Mqtt, Receipt, Received};
use crate::painting::pictures::ImageFile;
use crate::painting::worker::Painted;

/// A client's response topic and correlation data (MQTT 5), checked.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    topic: String,
    correlation: Option<Bytes>,
}

/// The connection, and what every message needs.
pub(super) struct Publisher {
    mqtt: Mqtt,
    topics: Topics,
    model_sha256: String,
    retain_image: bool,
}

impl Publisher {
    pub(super) fn new(mqtt: Mqtt, topics: Topics, model_sha256: String, retain_image: bool) -> Publisher {
        Publisher { mqtt, topics, model_sha256, retain_image }
    }

    pub(super) fn topics(&self) -> &Topics {
        &self.topics
    }

    pub(super) fn acknowledge(&self, receipt: &Receipt) -> bool {
        self.mqtt.acknowledge(receipt)
    }

    /// When the MQTT client was last polled.
    pub(super) fn last_poll(&self) -> Instant {
        self.mqtt.last_poll()
    }

    /// Where to answer the client that published `received`, or a warning why its response topic is refused.
    pub(super) fn reply(&self, received: &Received) -> (Option<Reply>, Option<String>) {
        let Some(topic) = received.response_topic.clone() else { return (None, None) };
        match self.topics.check_response(&topic) {
            Ok(()) => (Some(Reply { topic, correlation: received.correlation.clone() }), None),
            Err(why) => {
                warn!(topic, "a response topic was refused: {why}");
                (None, Some(format!("no answers are sent to the response topic: {why}")))
            }
        }
    }

    /// Bytes of the largest image that the broker takes; `None` if it announced no limit.
    pub(super) fn image_limit(&self, id: &str) -> Option<usize> {
        // With the longest topic and content type that an image has.
        let empty = Message::new(self.topics.job(id, "image/00"), Bytes::new(), "image/jpeg");
        self.mqtt.max_packet().map(|packet| packet.saturating_sub(empty.packet_size()))
    }

    pub(super) fn state(&self, id: &str, record: &JobRecord, state: State, position: Option<usize>) {
        let (transaction, warnings) = (record.job.transaction.clone(), record.warnings.clone());
        let state = JobState { id: id.to_owned(), transaction, state, position, error: None, warnings };
        let part = if position.is_some() { Part::Position(id.to_owned()) } else { Part::Other };
        self.answer(self.topics.job(id, "state"), record.reply.as_ref(), &state, part);
    }

    pub(super) fn ended(&self, id: &str, transaction: Option<&Value>, reply: Option<&Reply>, ending: &Ending) {
        let state = JobState::ended(id.to_owned(), transaction.cloned(), ending);
        self.answer(self.topics.job(id, "state"), reply, &state, Part::Other);
    }

    pub(super) fn progress(&self, id: &str, progress: &JobProgress) {
        let message = Message::json(self.topics.job(id, "progress"), progress);
        self.mqtt.publish(Message { certain: false, ..message });
    }

    /// Publishes an image and enters it in the job's record.
    pub(super) fn image(&self, id: &str, record: &mut JobRecord, painted: Painted) {
        let topic = self.topics.job(id, &format!("image/{}", painted.index));
        record.images.push(image(&painted, &topic));
        record.warnings.extend(painted.warnings);
        if painted.fits {
            let image = SentImage { job: id.to_owned(), index: painted.index, reduced: false };
            self.image_messages(image, painted.file).into_iter().for_each(|message| self.mqtt.publish(message));
        }
    }

    /// The image for its job's topic and as the latest.
    fn image_messages(&self, image: SentImage, file: ImageFile) -> Vec<Message> {
        let topic = self.topics.job(&image.job, &format!("image/{}", image.index));
        let message = Message::new(topic, Bytes::from(file.bytes), file.format.content_type());
        let message = Message { part: Part::Image(image), ..message };
        let latest =
            Message { topic: self.topics.of("image"), certain: false, retain: self.retain_image, ..message.clone() };
        vec![message, latest]
    }

    /// Sends `file`, or nothing, where the refused image was, and lets `change` correct a result that waits behind it.
    pub(super) fn resolve(&self, place: u64, image: SentImage, file: Option<ImageFile>, change: impl Fn(&mut Vec<u8>)) {
        let instead = file.map(|file| self.image_messages(image, file)).unwrap_or_default();
        self.mqtt.resolve(place, instead, |result| {
            let mut payload = result.payload.to_vec();
            change(&mut payload);
            result.payload = payload.into();
        });
    }

    pub(super) fn result(&self, id: &str, record: &JobRecord, timings: &Timings) {
        let result = JobResult {
            id: id.to_owned(),
            transaction: record.job.transaction.clone(),
            status: State::Done,
            parameters: record.painting.parameters().clone(),
            model_sha256: self.model_sha256.clone(),
            timings: timings.clone(),
            images: record.images.clone(),
            warnings: record.warnings.clone(),
        };
        self.answer(self.topics.job(id, "result"), record.reply.as_ref(), &result, Part::Result(id.to_owned()));
    }

    pub(super) fn health(&self, health: &Health) {
        let message = Message::json(self.topics.of("health"), health);
        self.mqtt.publish(Message { certain: false, ..message });
    }

    /// Answers the command `name`, which may be anything that fits into a topic.
    pub(super) fn response(&self, name: &str, reply: Option<&Reply>, response: &Value) {
        self.copy(reply, response, Part::Other);
        if is_safe_level(name) {
            self.mqtt.publish(Message::json(self.topics.of(&format!("response/{name}")), response));
        } else if reply.is_none() {
            warn!(name, "a command's name cannot be part of a topic, so it has no answer");
        }
    }

    /// Publishes `offline`, waits until all is sent, for `timeout` at most, and disconnects. Returns whether all was sent.
    pub(super) async fn finish(&self, timeout: Duration) -> bool {
        self.mqtt.publish(status(&self.topics, "offline"));
        let sent = self.mqtt.flush(timeout).await;
        self.mqtt.disconnect(Duration::from_secs(1)).await;
        sent
    }

    /// To `topic`, and a copy to the client's response topic.
    fn answer(&self, topic: String, reply: Option<&Reply>, value: &impl Serialize, part: Part) {
        self.copy(reply, value, part.clone());
        self.mqtt.publish(Message { part, ..Message::json(topic, value) });
    }

    fn copy(&self, reply: Option<&Reply>, value: &impl Serialize, part: Part) {
        if let Some(Reply { topic, correlation }) = reply {
            let copy = Message::json(topic.clone(), value);
            self.mqtt.publish(Message { correlation: correlation.clone(), part, ..copy });
        }
    }
}

/// An image that is published to `topic` if it fits.
fn image(painted: &Painted, topic: &str) -> Image {
    Image {
        topic: painted.fits.then(|| topic.to_owned()),
        content_type: painted.file.format.content_type().to_owned(),
        bytes: painted.file.bytes.len(),
        sha256: painted.file.sha256(),
        path: painted.path.clone(),
    }
}

/// `…/status`, which the broker keeps.
fn status(topics: &Topics, text: &'static str) -> Message {
    let message = Message::new(topics.of("status"), Bytes::from_static(text.as_bytes()), "text/plain");
    Message { retain: true, ..message }
}

/// How to connect, and what is published at each connection and when it breaks.
pub(super) fn mqtt_options(
    config: &Config,
    topics: &Topics,
    info: &Value,
    client_id: String,
) -> Result<mqtt::MqttSettings> {
    let login = config.mqtt.username.clone().zip(Some(config.password()?.unwrap_or_default()));
    let info = Message { retain: true, ..Message::json(topics.of("info"), info) };
    Ok(mqtt::MqttSettings {
        host: config.mqtt.url.host.clone(),
        port: config.mqtt.url.port,
        client_id,
        login,
        keep_alive: Duration::from_secs(config.mqtt.keep_alive.0.into()),
        max_packet: config.mqtt.max_packet.0,
        filters: topics.filters(),
        greetings: vec![status(topics, "online"), info],
        last_will: status(topics, "offline"),
    })
}
