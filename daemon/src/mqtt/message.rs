//! A message that is to be published, on its way through the outbox.

use std::borrow::Cow;
use std::fs;
use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::receipts::Receipt;

/// A message to be sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Where to.
    pub topic: String,
    /// What.
    pub payload: MessagePayload,
    /// Sent until the broker acknowledges it (QoS 1); else once, and not at all without a connection (QoS 0).
    pub certain: bool,
    /// Whether the broker keeps it for later subscribers.
    pub retain: bool,
    /// MIME type of the payload.
    pub content_type: Cow<'static, str>,
    /// MQTT 5's correlation data, returned to the client that sent it.
    #[serde(with = "base64_bytes")]
    pub correlation: Option<Bytes>,
    /// MQTT 5's user properties, likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub user_properties: Vec<(String, String)>,
    /// What it carries of a job.
    pub part: Part,
    /// Its number in the journal; `None`: it is not sent after a restart.
    pub number: Option<u64>,
    /// The request that it answers, which is acknowledged once this message has left the outbox.
    #[serde(skip)]
    pub answers: Option<Receipt>,
}

/// What a message carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessagePayload {
    /// These bytes. Those of a message with a number are text.
    #[serde(with = "text_bytes")]
    Bytes(Bytes),
    /// A file, which is read when the message is sent: images that wait for a broker take no memory.
    File {
        /// Where it is.
        path: PathBuf,
        /// Its length, bytes.
        bytes: usize,
    },
}

impl MessagePayload {
    /// Its length, bytes.
    pub fn len(&self) -> usize {
        match self {
            MessagePayload::Bytes(bytes) => bytes.len(),
            MessagePayload::File { bytes, .. } => *bytes,
        }
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its bytes. A file whose length has changed is an error.
    pub fn read(&self) -> io::Result<Bytes> {
        match self {
            MessagePayload::Bytes(bytes) => Ok(bytes.clone()),
            MessagePayload::File { path, bytes } => {
                let read = fs::read(path)?;
                if read.len() != *bytes {
                    return Err(io::Error::other(format!("{} bytes, not {bytes}", read.len())));
                }
                Ok(read.into())
            }
        }
    }
}

/// What a message carries of a job, where that matters on its way.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// None of the following.
    #[default]
    Other,
    /// The answer to a command: it goes before all that waits.
    Response,
    /// The position of this job: a newer one replaces it as long as it is not sent.
    Position(String),
    /// What an image looks like so far: a newer one replaces it likewise.
    Preview,
    /// An image.
    Image(SentImage),
    /// The result of this job.
    Result(String),
    /// The ending of this job.
    Ending(String),
}

impl Part {
    /// Whether a newer one on the same topic replaces it.
    pub(super) fn is_replaced(&self) -> bool {
        matches!(self, Part::Position(_) | Part::Preview)
    }

    /// Whether it is the result or the ending of the job that `other` is a part of, and may have to mention it.
    pub(super) fn completes(&self, other: &Part) -> bool {
        match (self, other) {
            (Part::Result(job) | Part::Ending(job), Part::Image(image)) => *job == image.job,
            (Part::Ending(job), Part::Result(other)) => job == other,
            _ => false,
        }
    }
}

/// The image of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentImage {
    /// Its job.
    pub job: String,
    /// Its number in the job, from 0.
    pub index: u64,
    /// Whether it is a smaller copy of one that the broker refused.
    pub reduced: bool,
    /// Whether it is what a display shows of the image.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub output: bool,
}

impl Message {
    /// A QoS 1 message of JSON.
    pub fn json(topic: String, value: &impl serde::Serialize) -> Message {
        let payload = serde_json::to_vec(value).expect("payloads are plain data with text for keys");
        Message::new(topic, MessagePayload::Bytes(payload.into()), JSON)
    }

    /// A QoS 1 message of any kind.
    pub fn new(topic: String, payload: MessagePayload, content_type: impl Into<Cow<'static, str>>) -> Message {
        Message {
            topic,
            payload,
            certain: true,
            retain: false,
            content_type: content_type.into(),
            correlation: None,
            user_properties: vec![],
            part: Part::Other,
            number: None,
            answers: None,
        }
    }

    /// Whether the payload is UTF-8 text, as MQTT 5's payload format has it.
    pub fn is_text(&self) -> bool {
        !self.content_type.starts_with("image/") && self.content_type != BINARY
    }

    /// Whether `newer` makes this one superfluous.
    pub(super) fn replaced_by(&self, newer: &Message) -> bool {
        self.part.is_replaced() && self.part == newer.part && self.topic == newer.topic
    }

    /// Whether it is an image that is sent until it arrives.
    pub(super) fn is_certain_image(&self) -> bool {
        self.certain && matches!(self.part, Part::Image(_))
    }

    /// Bytes of the packet that carries it, rounded up.
    pub fn packet_size(&self) -> usize {
        // A user property has a byte and two lengths before its two texts.
        let user: usize = self.user_properties.iter().map(|(name, value)| 5 + name.len() + value.len()).sum();
        let extra = self.content_type.len() + self.correlation.as_ref().map_or(0, Bytes::len) + user;
        self.payload.len() + self.topic.len() + extra + PACKET_OVERHEAD
    }
}

/// The content type of bytes of any kind.
const BINARY: &str = "application/octet-stream";

/// The content type of JSON.
pub const JSON: &str = "application/json";

/// More than the fixed header, packet id, and the properties' lengths and keys can take.
const PACKET_OVERHEAD: usize = 64;

/// Bytes of any kind as base64, in the journal.
pub mod base64_bytes {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use bytes::Bytes;
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    /// `None` is `null`.
    pub fn serialize<S: Serializer>(bytes: &Option<Bytes>, serializer: S) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => serializer.serialize_some(&STANDARD.encode(bytes)),
            None => serializer.serialize_none(),
        }
    }

    /// The reverse.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Bytes>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
        STANDARD.decode(text).map(|bytes| Some(bytes.into())).map_err(D::Error::custom)
    }
}

/// Bytes that are text, in the journal.
mod text_bytes {
    use bytes::Bytes;
    use serde::de::{Deserialize, Deserializer};
    use serde::ser::{Error, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(std::str::from_utf8(bytes).map_err(S::Error::custom)?)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        Ok(String::deserialize(deserializer)?.into())
    }
}
