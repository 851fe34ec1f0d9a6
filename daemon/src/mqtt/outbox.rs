//! What is still to be sent, as a pure state machine. The MQTT client forgets its unsent messages when the broker has
//! lost our session, so a message stays here until the broker has acknowledged it, however often the connection
//! breaks meanwhile. One acknowledged message is on its way at a time: that keeps the contract's order over
//! reconnections, and a PUBACK cannot be taken for another's.

use std::collections::VecDeque;
use std::path::Path;

use super::message::{Message, MessagePayload, Part};
use super::receipts::Receipt;

/// A message that is not sent.
#[derive(Debug, PartialEq)]
pub struct Refused {
    /// The message.
    pub message: Message,
    /// Of an image: its place in the outbox, which is kept until `resolve` says what takes it. Nothing behind it is sent.
    pub place: Option<u64>,
    /// Why.
    pub reason: Reason,
}

/// Why a message is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The broker does not take it.
    Broker,
    /// Its file cannot be read any more.
    Unreadable,
    /// More images waited than may wait, and it was the oldest.
    Aged,
}

/// A message that has left the outbox, delivered or dropped.
#[derive(Debug, PartialEq, Eq)]
pub struct Left {
    /// Its number in the journal.
    pub number: Option<u64>,
    /// The request that it answered.
    pub answers: Option<Receipt>,
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
#[derive(Debug)]
pub struct Outbox {
    entries: VecDeque<Entry>,
    /// The most bytes of images that wait.
    image_limit: u64,
    left: Vec<Left>,
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
    /// It is not sent: something smaller will take its place.
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
    /// From the next image on, images of so many bytes may wait.
    pub fn set_image_limit(&mut self, image_limit: u64) {
        self.image_limit = image_limit;
    }

    /// An empty outbox, in which images of `image_limit` bytes may wait.
    pub fn new(image_limit: u64) -> Outbox {
        Outbox {
            entries: VecDeque::new(),
            image_limit,
            left: vec![],
            head: Head::Waiting,
            connected: false,
            announced: None,
            learned: None,
            barred: vec![],
            places: 0,
        }
    }

    /// Puts `message` last, or first if it answers a command. Gives it back if it is larger than the broker takes, and the
    /// oldest images where too many wait. One that need not arrive is dropped while there is no connection.
    pub fn push(&mut self, message: Message) -> Vec<Refused> {
        if !message.certain && !self.connected {
            self.leave(&message);
            return vec![];
        }
        if message.part.is_replaced() {
            // The first entry may be on its way.
            if let Some(older) = self.entries.iter_mut().skip(1).rfind(|entry| entry.message.replaced_by(&message)) {
                let older = std::mem::replace(&mut older.message, message);
                self.leave(&older);
                return vec![];
            }
        }
        let at = if message.part == Part::Response { self.after_responses() } else { self.entries.len() };
        let fits = self.fits(&message);
        let entry = self.entry(message);
        self.entries.insert(at, entry);
        let large = if fits { None } else { self.refuse(at, Reason::Broker) };
        large.into_iter().chain(self.age()).collect()
    }

    /// A connection is there, which takes packets of `limit` bytes; `greetings` go before all else. Gives back what is
    /// too large for it.
    pub fn connect(&mut self, limit: Option<usize>, greetings: &[Message]) -> Vec<Refused> {
        (self.connected, self.announced, self.head) = (true, limit, Head::Waiting);
        let lost =
            |entries: &VecDeque<Entry>, topic: &str| entries.iter().find(|e| e.message.topic == topic).map(|e| e.lost);
        let wanted = greetings.iter().filter(|greeting| !self.barred.contains(&greeting.topic));
        let wanted: Vec<_> = wanted.map(|greeting| (greeting.clone(), lost(&self.entries, &greeting.topic))).collect();
        let is_greeting = |entry: &Entry| greetings.iter().any(|greeting| greeting.topic == entry.message.topic);
        let (outdated, kept): (Vec<Entry>, Vec<Entry>) = self.entries.drain(..).partition(is_greeting);
        self.entries = kept.into();
        outdated.iter().for_each(|entry| self.leave(&entry.message));
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
        let refused = self.refuse(0, Reason::Broker);
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
            _ => self.leave_first(),
        }
    }

    /// The file of the message that `next` gave cannot be read. Gives it back unless it need not arrive.
    pub fn unreadable(&mut self) -> Option<Refused> {
        let certain = self.entries.front()?.message.certain;
        self.refuse(0, Reason::Unreadable).filter(|_| certain)
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
        if !taken {
            return Some((topic, self.refuse(0, Reason::Broker)));
        }
        self.leave_first();
        Some((topic, None))
    }

    /// Puts `instead` where the refused message of `place` was, and lets `change` correct the job's result and ending behind
    /// it, if it has reason to. Gives what was changed.
    pub fn resolve(
        &mut self,
        place: u64,
        instead: Vec<Message>,
        change: impl Fn(&mut Message) -> bool,
    ) -> Vec<Message> {
        let Some(at) = self.entries.iter().position(|entry| entry.place == place) else { return vec![] };
        let Some(Entry { message, .. }) = self.entries.remove(at) else { return vec![] };
        self.leave(&message);
        let mut changed = vec![];
        for Entry { message: later, .. } in self.entries.iter_mut().skip(at) {
            if later.part.completes(&message.part) && change(later) {
                changed.push(later.clone());
            }
        }
        for message in instead.into_iter().rev() {
            let entry = self.entry(message);
            self.entries.insert(at, entry);
        }
        changed
    }

    /// Everything that has left since the last call.
    pub fn left(&mut self) -> Vec<Left> {
        std::mem::take(&mut self.left)
    }

    /// The files of images that wait.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.entries.iter().filter_map(|entry| match &entry.message.payload {
            MessagePayload::File { path, .. } => Some(path.as_path()),
            MessagePayload::Bytes(_) => None,
        })
    }

    /// How many messages wait.
    pub fn len(&self) -> usize {
        self.entries.len()
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

    fn leave(&mut self, message: &Message) {
        if message.number.is_some() || message.answers.is_some() {
            self.left.push(Left { number: message.number, answers: message.answers });
        }
    }

    fn leave_first(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.leave(&entry.message);
        }
    }

    /// Where an answer to a command goes: behind what is on its way and other answers.
    fn after_responses(&self) -> usize {
        let on_its_way = usize::from(self.head != Head::Waiting);
        let others = self.entries.iter().skip(on_its_way).take_while(|entry| entry.message.part == Part::Response);
        (on_its_way + others.count()).min(self.entries.len())
    }

    /// What refused images have taught is a guess, and holds for images as they were painted: nothing is known of what is
    /// smaller, and smaller copies were made to fit.
    fn fits(&self, message: &Message) -> bool {
        let limit = match &message.part {
            Part::Image(image) if !image.reduced => self.limit(),
            _ => self.announced,
        };
        limit.is_none_or(|limit| message.packet_size() <= limit)
    }

    fn refuse_large(&mut self) -> Vec<Refused> {
        let mut refused = vec![];
        let mut at = 0;
        while at < self.entries.len() {
            let before = self.entries.len();
            if !self.fits(&self.entries[at].message) {
                refused.extend(self.refuse(at, Reason::Broker));
            }
            at += usize::from(self.entries.len() == before);
        }
        refused
    }

    /// Refuses the oldest images until those that wait are within the limit; the newest always waits.
    fn age(&mut self) -> Vec<Refused> {
        let waits = |entry: &Entry| !entry.refused && entry.message.is_certain_image();
        let images = self.entries.iter().enumerate().filter(|(_, entry)| waits(entry));
        let mut images: VecDeque<(usize, u64)> =
            images.map(|(at, entry)| (at, entry.message.payload.len() as u64)).collect();
        let mut bytes: u64 = images.iter().map(|(_, len)| len).sum();
        let mut refused = vec![];
        while bytes > self.image_limit && images.len() > 1 {
            let Some((at, len)) = images.pop_front() else { break };
            bytes -= len;
            if at > 0 || self.head == Head::Waiting {
                refused.extend(self.refuse(at, Reason::Aged));
            }
        }
        refused
    }

    /// Takes the entry out, or, where something smaller may take its place, out of what is sent. `None`: it was refused before.
    fn refuse(&mut self, at: usize, reason: Reason) -> Option<Refused> {
        let entry = self.entries.get_mut(at)?;
        if !entry.message.is_certain_image() && !matches!(entry.message.part, Part::Result(_)) {
            let message = self.entries.remove(at)?.message;
            self.leave(&message);
            return Some(Refused { message, place: None, reason });
        }
        let known = std::mem::replace(&mut entry.refused, true);
        (!known).then(|| Refused { message: entry.message.clone(), place: Some(entry.place), reason })
    }
}

#[cfg(test)]
mod tests;
