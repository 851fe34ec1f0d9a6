//! What the polling task and the service share: the client, the outbox, and what is known of the connection. It is locked
//! for moments only and never across an await.

use std::time::{Duration, Instant};

use rumqttc::v5::mqttbytes::v5::PublishProperties;
use tokio::sync::mpsc;
use tracing::{debug, error, info, warn};

use super::backoff::GOOD_CONNECTION;
use super::client::{ClientEvent, Incoming, Outbound, PacketSender, Welcome};
use super::message::Message;
use super::outbox::{Outbox, Refused};
use super::problems::{Kind, Problems};
use super::receipts::{Receipt, Receipts};
use super::settings::MqttSettings;
use super::subscriptions::Subscriptions;
use super::trouble::Trouble;
use super::{Received, WireEvent, reasons};

pub(super) struct Link {
    pub(super) client: PacketSender,
    pub(super) outbox: Outbox,
    pub(super) problems: Problems,
    pub(super) last_beat: Instant,
    /// Whether we have disconnected for good.
    pub(super) finished: bool,
    settings: MqttSettings,
    /// What came over this connection and is to be acknowledged, by packet id.
    receipts: Receipts<u16>,
    /// When the broker accepted us, and what it said.
    welcome: Option<(Instant, Welcome)>,
    subscriptions: Subscriptions,
    /// When the message was written whose acknowledgement is awaited.
    unconfirmed: Option<Instant>,
    /// Whether shared work is taken.
    shares: bool,
    /// Whether the next connection is worth a line in the log: not if connections end soon, each for the reason of the last.
    is_news: bool,
    events: mpsc::UnboundedSender<WireEvent>,
}

impl Link {
    pub(super) fn new(client: PacketSender, settings: MqttSettings, events: mpsc::UnboundedSender<WireEvent>) -> Link {
        Link {
            client,
            outbox: Outbox::new(settings.outbox_limit),
            problems: Problems::default(),
            last_beat: Instant::now(),
            finished: false,
            settings,
            receipts: Receipts::default(),
            welcome: None,
            subscriptions: Subscriptions::default(),
            unconfirmed: None,
            shares: false,
            is_news: true,
            events,
        }
    }

    pub(super) fn client_id(&self) -> String {
        self.settings.client_id.clone()
    }

    /// Returns whether the connection was ended by us.
    pub(super) fn handle(&mut self, event: ClientEvent) -> bool {
        match event {
            ClientEvent::Welcomed(welcome) => self.welcomed(welcome),
            ClientEvent::Received(incoming) => self.receive(*incoming),
            ClientEvent::Sent(packet) => {
                self.outbox.sent(packet);
                self.unconfirmed = Some(Instant::now());
            }
            ClientEvent::Acknowledged(packet, code) => self.acknowledged(packet, code),
            ClientEvent::Subscribing(packet) => self.subscriptions.written(packet),
            ClientEvent::Subscribed(packet, codes) => self.subscribed(packet, &codes),
            ClientEvent::Ended => self.finished = true,
            ClientEvent::Other => {}
        }
        self.pump();
        self.finished
    }

    /// Whether an acknowledgement is overdue: a broker that answers pings, but never that, would stop all deliveries.
    pub(super) fn overdue(&self) -> Option<Trouble> {
        let patience = self.settings.access.keep_alive * 2 + Duration::from_secs(5);
        self.unconfirmed.filter(|since| since.elapsed() > patience)?;
        let seconds = patience.as_secs();
        Some(Trouble::Silent(format!("the broker did not acknowledge a message within {seconds} s; it is sent again")))
    }

    /// Subscribes. Nothing is published before the broker has answered: `online` means that requests are heard.
    fn welcomed(&mut self, welcome: Welcome) {
        self.receipts.forget();
        self.problems.connected();
        self.welcome = Some((Instant::now(), welcome));
        let Welcome { session_present, max_packet, .. } = welcome;
        match self.is_news {
            true => info!(session_present, max_packet_size = ?max_packet, "connected"),
            false => debug!(session_present, max_packet_size = ?max_packet, "connected"),
        }
        if !welcome.keeps {
            self.warn(
                Kind::Retain,
                "the broker keeps no retained messages: who subscribes later does not get status and info",
            );
        }
        if !welcome.confirms {
            self.warn(Kind::Qos, "the broker confirms nothing (QoS 0 alone): messages may be lost");
        }
        self.subscriptions.forget();
        self.subscribe(self.settings.filters.clone());
        self.subscribe(self.settings.optional_filters.clone());
        self.update_sharing();
    }

    fn warn(&mut self, kind: Kind, text: &str) {
        if self.problems.set(kind, text.to_owned()) {
            warn!("{text}");
        }
    }

    fn subscribe(&mut self, filters: Vec<String>) {
        if filters.is_empty() {
            return;
        }
        match self.client.subscribe(&filters) {
            Ok(()) => self.subscriptions.asked(filters),
            // It has room for hundreds.
            Err(full) => error!("cannot subscribe: {full:?}"),
        }
    }

    fn subscribed(&mut self, packet: u16, codes: &[u8]) {
        let Some(filters) = self.subscriptions.answered(packet) else { return };
        let mut is_deaf = false;
        for (filter, code) in filters.iter().zip(codes) {
            let kind = Kind::Subscription(filter.clone());
            if *code < 0x80 {
                self.problems.clear(|other| *other == kind);
                continue;
            }
            is_deaf = true;
            let text = reasons::subscription_refused(filter, *code);
            if self.problems.set(kind, text.clone()) {
                error!("{text}");
            }
        }
        if filters == self.settings.filters {
            self.greet(is_deaf);
        }
    }

    /// Begins to publish, with the greetings. Nobody is to rely on a device that does not hear all that it should.
    fn greet(&mut self, is_deaf: bool) {
        let mut greetings = self.settings.greetings.clone();
        if let Some(will) = self.settings.last_will.as_ref().filter(|_| is_deaf) {
            greetings.iter_mut().filter(|g| g.topic == will.topic).for_each(|greeting| *greeting = will.clone());
        }
        let limit = self.welcome.and_then(|(_, welcome)| welcome.max_packet);
        let refused = self.outbox.connect(limit, &greetings);
        self.give_back(refused);
        let session_present = self.welcome.is_some_and(|(_, welcome)| welcome.session_present);
        self.emit(WireEvent::Connected { session_present });
    }

    /// Ends a subscription, which the broker's session may hold from before.
    pub(super) fn unsubscribe(&mut self, filter: &str) {
        if let Err(full) = self.client.unsubscribe(filter) {
            error!("cannot unsubscribe: {full:?}");
        }
    }

    /// Goes on with `outbox_limit`, `greetings` and `optional_filters`.
    pub(super) fn reconfigure(&mut self, outbox_limit: u64, greetings: Vec<Message>, optional_filters: Vec<String>) {
        self.outbox.set_image_limit(outbox_limit);
        let earlier = std::mem::replace(&mut self.settings.optional_filters, optional_filters);
        if self.welcome.is_some() && earlier != self.settings.optional_filters {
            earlier.iter().for_each(|filter| self.unsubscribe(filter));
            self.subscribe(self.settings.optional_filters.clone());
        }
        let earlier = std::mem::replace(&mut self.settings.greetings, greetings.clone());
        for greeting in greetings.into_iter().filter(|greeting| !earlier.contains(greeting)) {
            self.publish(greeting);
        }
    }

    /// Takes shared work from now on, or none.
    pub(super) fn share(&mut self, takes: bool) {
        let changed = std::mem::replace(&mut self.shares, takes) != takes;
        if changed && self.welcome.is_some() {
            self.update_sharing();
        }
    }

    fn update_sharing(&mut self) {
        let filters = self.settings.shared_filters.clone();
        match self.shares {
            _ if filters.is_empty() => {}
            true => self.subscribe(filters),
            // The broker's session may hold it from before.
            false => filters.iter().for_each(|filter| self.unsubscribe(filter)),
        }
    }

    /// Returns how long the connection had held.
    pub(super) fn disconnect(&mut self, trouble: &Trouble) -> Duration {
        self.receipts.forget();
        self.unconfirmed = None;
        let refused = self.outbox.disconnect(trouble.loss());
        self.give_back(refused);
        let welcome = self.welcome.take();
        let lasted = welcome.map(|(at, _)| at.elapsed()).unwrap_or_default();
        if lasted >= GOOD_CONNECTION {
            self.problems.settled();
        }
        let reason = trouble.explain(welcome.is_some(), &self.settings.access);
        let is_news = self.problems.set(Kind::Connection, format!("no connection to the broker: {reason}"));
        self.is_news = is_news || welcome.is_none();
        self.note_image_size(welcome.and_then(|(_, welcome)| welcome.max_packet));
        self.emit(WireEvent::Disconnected { reason, is_news });
        lasted
    }

    /// What the broker's refusals have taught.
    fn note_image_size(&mut self, announced: Option<usize>) {
        let Some(limit) = self.outbox.limit().filter(|limit| announced.is_none_or(|announced| *limit < announced))
        else {
            return;
        };
        let text = format!("the broker refuses images of more than {limit} bytes; raise its limit on messages");
        self.problems.set(Kind::ImageSize, text);
    }

    fn receive(&mut self, incoming: Incoming) {
        let Incoming { topic, payload, retain, duplicate, packet, properties } = incoming;
        let received = Received {
            topic,
            payload,
            retain,
            response_topic: properties.response_topic,
            correlation: properties.correlation_data,
            user_properties: properties.user_properties,
            expiry: properties.message_expiry_interval.map(|seconds| Duration::from_secs(seconds.into())),
            duplicate: (duplicate, packet),
            receipt: self.receipts.issue(packet),
        };
        self.emit(WireEvent::Received(Box::new(received)));
    }

    pub(super) fn publish(&mut self, message: Message) {
        let refused = self.outbox.push(message);
        self.give_back(refused);
        self.pump();
    }

    fn acknowledged(&mut self, packet: u16, code: u8) {
        let taken = code < 0x80;
        let Some((topic, refused)) = self.outbox.acknowledged(packet, taken) else { return };
        self.unconfirmed = None;
        if taken {
            return debug!(topic, "delivered");
        }
        let (named, advice) = (reasons::named(code), reasons::message_advice(code));
        let text = format!("the broker refused a message ({named}); {advice}");
        match self.problems.set(Kind::Message(code), text.clone()) {
            true => error!(topic, "{text}; further ones are not logged"),
            false => debug!(topic, named, "refused again"),
        }
        self.give_back(refused.filter(|refused| refused.place.is_some()));
        self.note_image_size(self.welcome.and_then(|(_, welcome)| welcome.max_packet));
    }

    /// Returns whether the connection by which it came is still there.
    pub(super) fn acknowledge(&mut self, receipt: Receipt) -> bool {
        let ready = self.receipts.handled(receipt);
        ready.is_some_and(|ready| ready.into_iter().all(|packet| self.client.acknowledge(packet).is_ok()))
    }

    /// Images and results go back to the service, which has something smaller to send; the rest is dropped.
    fn give_back(&self, refused: impl IntoIterator<Item = Refused>) {
        for refused in refused {
            let (message, limit) = (&refused.message, self.outbox.limit());
            let (topic, bytes) = (&message.topic, message.packet_size());
            match refused.place {
                Some(_) => self.emit(WireEvent::Refused(Box::new(refused))),
                None if limit.is_some_and(|limit| bytes > limit) => {
                    warn!(topic, bytes, limit, "dropped: larger than the broker takes");
                }
                None => error!(topic, bytes, "dropped: the broker ends each connection over which it is sent"),
            }
        }
    }

    /// Hands over what can be sent now.
    pub(super) fn pump(&mut self) {
        let (keeps, confirms) = self.welcome.map_or((true, true), |(_, welcome)| (welcome.keeps, welcome.confirms));
        while let Some(message) = self.outbox.next() {
            let Ok(payload) = message.payload.read().inspect_err(|error| {
                warn!(topic = message.topic, "the file of an image is gone before it was sent: {error}");
            }) else {
                let refused = self.outbox.unreadable();
                self.give_back(refused);
                continue;
            };
            let outbound = Outbound {
                topic: &message.topic,
                payload,
                certain: message.certain && confirms,
                retain: message.retain && keeps,
                properties: PublishProperties {
                    payload_format_indicator: Some(message.is_text().into()),
                    content_type: Some(message.content_type.to_string()),
                    correlation_data: message.correlation.clone(),
                    user_properties: message.user_properties.clone(),
                    ..PublishProperties::default()
                },
            };
            match self.client.publish(outbound) {
                Ok(()) => self.outbox.handed_over(confirms),
                // The channel is full: the next event tries again.
                Err(_) => break,
            }
        }
        self.let_go();
    }

    /// Acknowledges what was answered by messages that have left the outbox, and passes on their numbers.
    fn let_go(&mut self) {
        for left in self.outbox.left() {
            if let Some(receipt) = left.answers {
                self.acknowledge(receipt);
            }
            if let Some(number) = left.number {
                self.emit(WireEvent::Left(number));
            }
        }
    }

    fn emit(&self, event: WireEvent) {
        // The service has gone only when the program ends.
        let _ = self.events.send(event);
    }
}
