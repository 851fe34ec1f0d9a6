//! What is still to be sent, as a pure state machine. The MQTT client forgets its unsent messages when the broker has
//! lost our session, so a message stays here until the broker has acknowledged it, however often the connection
//! breaks meanwhile. One acknowledged message is on its way at a time: that keeps the contract's order over
//! reconnections, and a PUBACK cannot be taken for another's.

use std::collections::VecDeque;

use bytes::Bytes;

/// A message to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Where to.
    pub topic: String,
    /// What.
    pub payload: Bytes,
    /// Sent until the broker acknowledges it (QoS 1); else once, and not at all without a connection (QoS 0).
    pub certain: bool,
    /// Whether the broker keeps it for later subscribers.
    pub retain: bool,
    /// MIME type of the payload.
    pub content_type: &'static str,
    /// MQTT 5's correlation data, returned to the client that sent it.
    pub correlation: Option<Bytes>,
    /// What it carries of a job.
    pub part: Part,
}

/// What a message carries of a job, where that matters once the broker refuses an image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Part {
    /// Neither of the following.
    #[default]
    Other,
    /// The position of this job: a newer one replaces it as long as it is not sent.
    Position(String),
    /// An image.
    Image(SentImage),
    /// The result of this job.
    Result(String),
}

/// The image of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentImage {
    /// Its job.
    pub job: String,
    /// Its number in the job, from 0.
    pub index: u64,
    /// Whether it is a smaller copy of one that the broker refused.
    pub reduced: bool,
}

impl Message {
    /// A QoS 1 message of JSON.
    pub fn json(topic: String, value: &impl serde::Serialize) -> Message {
        let payload = serde_json::to_vec(value).expect("payloads are plain data with text for keys");
        Message::new(topic, payload.into(), "application/json")
    }

    /// A QoS 1 message of any kind.
    pub fn new(topic: String, payload: Bytes, content_type: &'static str) -> Message {
        Message { topic, payload, certain: true, retain: false, content_type, correlation: None, part: Part::Other }
    }

    /// Whether the payload is UTF-8 text, as MQTT 5's payload format has it.
    pub fn is_text(&self) -> bool {
        !self.content_type.starts_with("image/")
    }

    /// Whether `newer` makes this one superfluous.
    fn replaced_by(&self, newer: &Message) -> bool {
        matches!(self.part, Part::Position(_)) && self.part == newer.part && self.topic == newer.topic
    }

    /// Bytes of the packet that carries it, rounded up.
    pub fn packet_size(&self) -> usize {
        let extra = self.content_type.len() + self.correlation.as_ref().map_or(0, Bytes::len);
        self.payload.len() + self.topic.len() + extra + PACKET_OVERHEAD
    }
}

/// More than the fixed header, packet id, and the properties' lengths and keys can take.
pub const PACKET_OVERHEAD: usize = 64;

/// A message that the broker does not take.
#[derive(Debug, PartialEq)]
pub struct Refused {
    /// The message.
    pub message: Message,
    /// Of an image: its place in the outbox, which is kept until `resolve` says what takes it. Nothing behind it is sent.
    pub place: Option<u64>,
}

/// Why a connection is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The broker did not answer any more.
    Silence,
    /// The broker, or what is between, ended it.
    Ended,
    /// The broker refused the message that was on its way.
    Refused,
}

/// Connections that may end while one message is on its way: after the last, the message is taken for their cause.
const LOST_CONNECTIONS: u32 = 3;

/// Messages in the order in which they are to be sent.
#[derive(Debug, Default)]
pub struct Outbox {
    entries: VecDeque<Entry>,
    head: Head,
    connected: bool,
    /// The largest packet, as the last CONNACK has it.
    announced: Option<usize>,
    /// The largest packet, as refused images have taught.
    learned: Option<usize>,
    /// Topics of greetings that the broker does not take.
    barred: Vec<String>,
    places: u64,
}

#[derive(Debug)]
struct Entry {
    place: u64,
    message: Message,
    /// Connections that ended while it was on its way.
    lost: u32,
    /// An image that the broker refused: it is not sent.
    refused: bool,
}

/// What has become of the first entry.
#[derive(Debug, Default, PartialEq)]
enum Head {
    #[default]
    Waiting,
    /// The client has it.
    HandedOver,
    /// It was written under this packet id.
    Sent(u16),
}

impl Outbox {
    /// Puts `message` last. Gives it back if it is larger than the broker takes; one that need not arrive is dropped
    /// while there is no connection.
    pub fn push(&mut self, message: Message) -> Option<Refused> {
        if !message.certain && !self.connected {
            return None;
        }
        if matches!(message.part, Part::Position(_)) {
            // The first entry may be on its way.
            if let Some(older) = self.entries.iter_mut().skip(1).rfind(|entry| entry.message.replaced_by(&message)) {
                older.message = message;
                return None;
            }
        }
        let fits = self.fits(&message);
        let entry = self.entry(message);
        self.entries.push_back(entry);
        if fits { None } else { self.refuse(self.entries.len() - 1) }
    }

    /// A connection is there, which takes packets of `limit` bytes; `greetings` go before all else. Gives back what is
    /// too large for it.
    pub fn connect(&mut self, limit: Option<usize>, greetings: &[Message]) -> Vec<Refused> {
        (self.connected, self.announced, self.head) = (true, limit, Head::Waiting);
        let lost =
            |entries: &VecDeque<Entry>, topic: &str| entries.iter().find(|e| e.message.topic == topic).map(|e| e.lost);
        let wanted = greetings.iter().filter(|greeting| !self.barred.contains(&greeting.topic));
        let wanted: Vec<_> = wanted.map(|greeting| (greeting.clone(), lost(&self.entries, &greeting.topic))).collect();
        self.entries.retain(|entry| greetings.iter().all(|greeting| greeting.topic != entry.message.topic));
        for (greeting, lost) in wanted.into_iter().rev() {
            let entry = Entry { lost: lost.unwrap_or(0), ..self.entry(greeting) };
            self.entries.push_front(entry);
        }
        self.refuse_large()
    }

    /// The connection is gone: what was not acknowledged will be sent again, unless it is what ends the connections.
    /// Gives back what will not.
    pub fn disconnect(&mut self, loss: Loss) -> Vec<Refused> {
        let on_its_way = self.head != Head::Waiting;
        (self.connected, self.head) = (false, Head::Waiting);
        self.entries.retain(|entry| entry.message.certain);
        let Some(first) = self.entries.front_mut().filter(|_| on_its_way && loss != Loss::Silence) else {
            return vec![];
        };
        let is_image = matches!(first.message.part, Part::Image(_));
        first.lost += if is_image && loss == Loss::Refused { LOST_CONNECTIONS } else { 1 };
        if first.lost < LOST_CONNECTIONS {
            return vec![];
        }
        let size = first.message.packet_size();
        let refused = self.refuse(0);
        match is_image {
            true => self.learned = Some(self.learned.unwrap_or(usize::MAX).min(size / 2)),
            false => self.barred.extend(refused.iter().filter(|r| r.message.retain).map(|r| r.message.topic.clone())),
        }
        refused.into_iter().chain(self.refuse_large()).collect()
    }

    /// What to hand to the client now, if anything.
    pub fn next(&self) -> Option<&Message> {
        let first = self.entries.front().filter(|_| self.connected && self.head == Head::Waiting);
        first.filter(|entry| !entry.refused).map(|entry| &entry.message)
    }

    /// The client has taken the message that `next` gave; `confirmed`: whether the broker acknowledges what it should.
    pub fn handed_over(&mut self, confirmed: bool) {
        match self.entries.front() {
            Some(entry) if entry.message.certain && confirmed => self.head = Head::HandedOver,
            _ => drop(self.entries.pop_front()),
        }
    }

    /// The client has written a message that is to be acknowledged, under the packet id `id`.
    pub fn sent(&mut self, id: u16) {
        if self.head == Head::HandedOver {
            self.head = Head::Sent(id);
        }
    }

    /// The broker has acknowledged the packet `id`, and has taken it or not; gives the message's topic, and the message
    /// if it was not taken.
    pub fn acknowledged(&mut self, id: u16, taken: bool) -> Option<(String, Option<Refused>)> {
        if self.head != Head::Sent(id) {
            return None;
        }
        self.head = Head::Waiting;
        let topic = self.entries.front()?.message.topic.clone();
        let refused = if taken { self.entries.pop_front().and(None) } else { self.refuse(0) };
        Some((topic, refused))
    }

    /// Puts `instead` where the refused image of `place` was, and lets `change` correct the job's result behind it.
    pub fn resolve(&mut self, place: u64, instead: Vec<Message>, change: impl Fn(&mut Message)) {
        let Some(at) = self.entries.iter().position(|entry| entry.place == place) else { return };
        let Some(Entry { message: Message { part: Part::Image(image), .. }, .. }) = self.entries.remove(at) else {
            return;
        };
        let result = Part::Result(image.job);
        self.entries.iter_mut().skip(at).filter(|e| e.message.part == result).for_each(|e| change(&mut e.message));
        for message in instead.into_iter().rev() {
            let entry = self.entry(message);
            self.entries.insert(at, entry);
        }
    }

    /// Is everything sent and acknowledged?
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Is there a connection?
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// The largest packet that the broker takes, as far as is known.
    pub fn limit(&self) -> Option<usize> {
        self.announced.into_iter().chain(self.learned).min()
    }

    fn entry(&mut self, message: Message) -> Entry {
        self.places += 1;
        Entry { place: self.places, message, lost: 0, refused: false }
    }

    /// What refused images have taught holds for images: nothing is known of what is smaller.
    fn fits(&self, message: &Message) -> bool {
        let limit = if matches!(message.part, Part::Image(_)) { self.limit() } else { self.announced };
        limit.is_none_or(|limit| message.packet_size() <= limit)
    }

    fn refuse_large(&mut self) -> Vec<Refused> {
        let mut refused = vec![];
        let mut at = 0;
        while at < self.entries.len() {
            let before = self.entries.len();
            if !self.fits(&self.entries[at].message) {
                refused.extend(self.refuse(at));
            }
            at += usize::from(self.entries.len() == before);
        }
        refused
    }

    /// Takes the entry out, or an image out of what is sent. `None`: it was refused before.
    fn refuse(&mut self, at: usize) -> Option<Refused> {
        let entry = self.entries.get_mut(at)?;
        if !matches!(entry.message.part, Part::Image(_)) || !entry.message.certain {
            return self.entries.remove(at).map(|entry| Refused { message: entry.message, place: None });
        }
        let known = std::mem::replace(&mut entry.refused, true);
        (!known).then(|| Refused { message: entry.message.clone(), place: Some(entry.place) })
    }
}

#[cfg(test)]
mod tests;
