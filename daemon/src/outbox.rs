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
}

impl Message {
    /// A QoS 1 message of JSON.
    pub fn json(topic: String, value: &impl serde::Serialize) -> Message {
        let payload = serde_json::to_vec(value).expect("payloads are plain data with text for keys");
        Message::new(topic, payload.into(), "application/json")
    }

    /// A QoS 1 message of any kind.
    pub fn new(topic: String, payload: Bytes, content_type: &'static str) -> Message {
        Message { topic, payload, certain: true, retain: false, content_type, correlation: None }
    }

    /// Whether the payload is UTF-8 text, as MQTT 5's payload format has it.
    pub fn is_text(&self) -> bool {
        !self.content_type.starts_with("image/")
    }

    /// Bytes of the packet that carries it, rounded up.
    pub fn packet_size(&self) -> usize {
        let extra = self.content_type.len() + self.correlation.as_ref().map_or(0, Bytes::len);
        self.payload.len() + self.topic.len() + extra + PACKET_OVERHEAD
    }
}

/// More than the fixed header, packet id, and the properties' lengths and keys can take.
pub const PACKET_OVERHEAD: usize = 64;

/// Messages in the order in which they are to be sent.
#[derive(Debug, Default)]
pub struct Outbox {
    entries: VecDeque<Message>,
    head: Head,
    connected: bool,
    limit: Option<usize>,
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
    pub fn push(&mut self, message: Message) -> Result<(), Message> {
        if self.is_too_large(&message) {
            return Err(message);
        }
        if message.certain || self.connected {
            self.entries.push_back(message);
        }
        Ok(())
    }

    /// A connection is there, which takes packets of `limit` bytes; `greetings` go before all else. Gives back what is
    /// too large for it.
    pub fn connect(&mut self, limit: Option<usize>, greetings: &[Message]) -> Vec<Message> {
        (self.connected, self.limit, self.head) = (true, limit, Head::Waiting);
        let replaced = |entry: &Message| greetings.iter().any(|greeting| greeting.topic == entry.topic);
        self.entries.retain(|entry| !replaced(entry));
        greetings.iter().rev().for_each(|greeting| self.entries.push_front(greeting.clone()));
        let fits = |entry: &Message| limit.is_none_or(|limit| entry.packet_size() <= limit);
        let (kept, large): (VecDeque<_>, VecDeque<_>) = self.entries.drain(..).partition(fits);
        self.entries = kept;
        large.into()
    }

    /// The connection is gone: what was not acknowledged will be sent again.
    pub fn disconnect(&mut self) {
        (self.connected, self.head) = (false, Head::Waiting);
        self.entries.retain(|entry| entry.certain);
    }

    /// What to hand to the client now, if anything.
    pub fn next(&self) -> Option<&Message> {
        self.entries.front().filter(|_| self.connected && self.head == Head::Waiting)
    }

    /// The client has taken the message that `next` gave.
    pub fn handed_over(&mut self) {
        match self.entries.front() {
            Some(message) if message.certain => self.head = Head::HandedOver,
            _ => drop(self.entries.pop_front()),
        }
    }

    /// The client has written a message that is to be acknowledged, under the packet id `id`.
    pub fn sent(&mut self, id: u16) {
        if self.head == Head::HandedOver {
            self.head = Head::Sent(id);
        }
    }

    /// The broker has acknowledged the packet `id`; gives the message's topic.
    pub fn acknowledged(&mut self, id: u16) -> Option<String> {
        if self.head != Head::Sent(id) {
            return None;
        }
        self.head = Head::Waiting;
        self.entries.pop_front().map(|message| message.topic)
    }

    /// Is everything sent and acknowledged?
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Is there a connection?
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// The largest packet that the broker takes, as its last CONNACK has it.
    pub fn limit(&self) -> Option<usize> {
        self.limit
    }

    fn is_too_large(&self, message: &Message) -> bool {
        self.limit.is_some_and(|limit| message.packet_size() > limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(topic: &str, certain: bool) -> Message {
        Message { certain, ..Message::new(topic.into(), Bytes::from_static(b"x"), "text/plain") }
    }

    fn connected(topics: &[&str]) -> Outbox {
        let mut outbox = Outbox::default();
        outbox.connect(None, &[]);
        topics.iter().for_each(|topic| outbox.push(message(topic, true)).unwrap());
        outbox
    }

    fn next(outbox: &Outbox) -> Option<&str> {
        outbox.next().map(|message| message.topic.as_str())
    }

    #[test]
    fn one_at_a_time_until_it_is_acknowledged() {
        let mut outbox = connected(&["a", "b"]);
        assert_eq!(next(&outbox), Some("a"));
        outbox.handed_over();
        assert_eq!(next(&outbox), None);
        outbox.sent(7);
        assert_eq!(outbox.acknowledged(6), None, "another packet's");
        assert_eq!(outbox.acknowledged(7).as_deref(), Some("a"));
        assert_eq!(next(&outbox), Some("b"));
    }

    #[test]
    fn what_was_not_acknowledged_is_sent_again() {
        let mut outbox = connected(&["a", "b"]);
        outbox.handed_over();
        outbox.sent(1);
        outbox.disconnect();
        assert_eq!(next(&outbox), None);
        assert_eq!(outbox.acknowledged(1), None);
        outbox.connect(None, &[]);
        assert_eq!(next(&outbox), Some("a"));
    }

    #[test]
    fn what_need_not_arrive_is_sent_once_and_only_over_a_connection() {
        let mut outbox = connected(&["a"]);
        outbox.push(message("progress", false)).unwrap();
        outbox.push(message("b", true)).unwrap();
        outbox.handed_over();
        outbox.sent(1);
        outbox.acknowledged(1);
        assert_eq!(next(&outbox), Some("progress"));
        outbox.handed_over();
        assert_eq!(next(&outbox), Some("b"));
        outbox.disconnect();
        outbox.push(message("progress", false)).unwrap();
        outbox.connect(None, &[]);
        outbox.handed_over();
        outbox.sent(2);
        outbox.acknowledged(2);
        assert!(outbox.is_empty());
    }

    #[test]
    fn greetings_go_first_and_replace_their_elders() {
        let mut outbox = Outbox::default();
        outbox.push(message("result", true)).unwrap();
        outbox.push(message("status", true)).unwrap();
        outbox.connect(None, &[message("status", true), message("info", true)]);
        let topics: Vec<_> = outbox.entries.iter().map(|entry| entry.topic.as_str()).collect();
        assert_eq!(topics, ["status", "info", "result"]);
    }

    #[test]
    fn what_the_broker_would_not_take_is_given_back() {
        let mut outbox = connected(&["a"]);
        let large = Message::new("large".into(), vec![0; 500].into(), "image/png");
        outbox.push(large.clone()).unwrap();
        outbox.disconnect();
        assert_eq!(outbox.connect(Some(300), &[]), std::slice::from_ref(&large));
        assert_eq!(outbox.push(large.clone()), Err(large));
        assert_eq!(next(&outbox), Some("a"));
    }
}
