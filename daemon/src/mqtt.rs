//! The wire: the only file of the service that names the MQTT client. It keeps to what is known of rumqttc 0.25:
//!
//! - Nothing is awaited in the task that polls; messages are handed over with `try_…`, one at a time, from our outbox.
//! - `poll` has no time limit of its own, so it gets one, and what it still holds after an error is thrown away:
//!   our outbox sends it again, and the broker sends again what was not acknowledged.
//! - Acknowledgements carry the number of the connection, since a packet id means nothing on the next one.
//! - The largest packet that the broker takes is known before anything is sent over a connection.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, Filter, Packet, PubAck, PubAckReason, Publish, PublishProperties, RetainForwardRule, SubAck,
    SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, Event as ClientEvent, EventLoop};
use tokio::sync::{Notify, mpsc};
use tracing::{debug, error, info, warn};

use backoff::Backoff;
use message::Message;
use outbox::{Loss, Outbox, Refused};
use receipts::{Receipt, Receipts};

pub use settings::MqttSettings;
use settings::client_options;

mod backoff;
pub mod message;
pub mod outbox;
pub mod receipts;
mod settings;
mod trouble;

/// Slots between us and the client; far more than acknowledgements, subscriptions and one message can fill.
const CHANNEL: usize = 1024;

/// What happened on the wire.
#[derive(Debug)]
pub enum WireEvent {
    /// A connection is there and subscriptions are on their way.
    Connected,
    /// It is gone, or an attempt failed; the next follows by itself.
    Disconnected(String),
    /// An image or a result is not sent. It keeps its place in the order until `Mqtt::resolve` says what takes it.
    Refused(Box<Refused>),
    /// The message of this number in the journal was delivered or dropped.
    Left(u64),
    /// A message came in. It is to be acknowledged once it is in the queue or answered.
    Received(Box<Received>),
}

/// A message that came in.
#[derive(Debug)]
pub struct Received {
    /// Where it was published.
    pub topic: String,
    /// Its bytes.
    pub payload: Bytes,
    /// Whether its publisher wanted the broker to keep it.
    pub retain: bool,
    /// MQTT 5's response topic, unchecked.
    pub response_topic: Option<String>,
    /// MQTT 5's correlation data, to be returned with an answer.
    pub correlation: Option<Bytes>,
    /// How long it is of use.
    pub expiry: Option<Duration>,
    /// The duplicate flag and the packet id.
    pub duplicate: (bool, u16),
    /// For `Mqtt::acknowledge`.
    pub receipt: Receipt,
}

/// The service's end of the connection.
#[derive(Clone)]
pub struct Mqtt {
    link: Arc<Mutex<Link>>,
    sent: Arc<Notify>,
}

/// What the polling task and the service share. It is locked for moments only and never across an await.
struct Link {
    client: AsyncClient,
    outbox: Outbox,
    options: MqttSettings,
    /// What came over this connection and is to be acknowledged.
    receipts: Receipts<Publish>,
    connected_at: Option<Instant>,
    last_poll: Instant,
    finished: bool,
    /// Whether the broker takes retained messages.
    keeps: bool,
    /// Whether it takes QoS 1.
    confirms: bool,
    /// Refusals that were logged over this connection.
    reported: Vec<PubAckReason>,
    events: mpsc::UnboundedSender<WireEvent>,
}

impl Mqtt {
    /// Starts to connect, for ever, in a task of its own.
    pub fn start(options: MqttSettings) -> (Mqtt, mpsc::UnboundedReceiver<WireEvent>) {
        let (client, eventloop) = AsyncClient::new(client_options(&options), CHANNEL);
        let (events, received) = mpsc::unbounded_channel();
        let link = Link {
            client,
            outbox: Outbox::new(options.outbox_limit),
            options,
            receipts: Receipts::default(),
            connected_at: None,
            last_poll: Instant::now(),
            finished: false,
            reported: vec![],
            keeps: true,
            confirms: true,
            events,
        };
        let mqtt = Mqtt { link: Arc::new(Mutex::new(link)), sent: Arc::default() };
        tokio::spawn(poll(mqtt.clone(), eventloop));
        (mqtt, received)
    }

    /// Sends `message` as soon as that can be. One that is larger than the broker takes is dropped with a warning in
    /// the log, an image or result given back as an event: see `max_packet`.
    pub fn publish(&self, message: Message) {
        let mut link = self.lock();
        let refused = link.outbox.push(message);
        link.give_back(refused);
        link.pump();
    }

    /// Sends `instead` where the refused message of `place` was; `change` corrects the job's result and ending if they wait
    /// already, and returns whether it did. Gives what was changed.
    pub fn resolve(&self, place: u64, instead: Vec<Message>, change: impl Fn(&mut Message) -> bool) -> Vec<Message> {
        let mut link = self.lock();
        let changed = link.outbox.resolve(place, instead, change);
        link.pump();
        changed
    }

    /// Sends a message's PUBACK, after those of all that came before it. Returns false if the connection by which it came is
    /// gone: then the broker sends it again.
    pub fn acknowledge(&self, receipt: Receipt) -> bool {
        self.lock().acknowledge(receipt)
    }

    /// The files of images that wait to be sent.
    pub fn waiting_files(&self) -> HashSet<PathBuf> {
        self.lock().outbox.files().map(Path::to_owned).collect()
    }

    /// How many messages wait to be sent.
    pub fn waiting(&self) -> usize {
        self.lock().outbox.len()
    }

    /// Whether there is a connection.
    pub fn is_connected(&self) -> bool {
        self.lock().outbox.is_connected()
    }

    /// The largest packet that the broker takes, if it announced one.
    pub fn max_packet(&self) -> Option<usize> {
        self.lock().outbox.limit()
    }

    /// When the client was last polled.
    pub fn last_poll(&self) -> Instant {
        self.lock().last_poll
    }

    /// Waits until all is sent and acknowledged; returns false if that takes longer than `timeout` or there is no connection.
    pub async fn flush(&self, timeout: Duration) -> bool {
        let flushed = async {
            loop {
                let sent = self.sent.notified();
                match &self.lock().outbox {
                    outbox if outbox.is_empty() => return true,
                    outbox if !outbox.is_connected() => return false,
                    _ => {}
                }
                sent.await;
            }
        };
        tokio::time::timeout(timeout, flushed).await.unwrap_or(false)
    }

    /// Sends DISCONNECT, so that the broker does not publish the last will; waits for `timeout` at most.
    pub async fn disconnect(&self, timeout: Duration) {
        if !self.lock().outbox.is_connected() || self.lock().client.try_disconnect().is_err() {
            return;
        }
        let gone = async {
            loop {
                let sent = self.sent.notified();
                if self.lock().finished {
                    return;
                }
                sent.await;
            }
        };
        let _ = tokio::time::timeout(timeout, gone).await;
    }

    fn lock(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Drives the client: the only place that awaits it.
async fn poll(mqtt: Mqtt, mut eventloop: EventLoop) {
    let mut backoff = Backoff::default();
    let keep_alive = eventloop.options.keep_alive();
    loop {
        let timeout = eventloop.options.keep_alive() * 2 + Duration::from_secs(2);
        let outcome = tokio::time::timeout(timeout, eventloop.poll()).await;
        let (reason, loss) = match outcome {
            Ok(Ok(event)) => {
                if eventloop.options.keep_alive().is_zero() {
                    // The broker asks for no pings at all; the client would send them without a pause.
                    eventloop.options.set_keep_alive(keep_alive);
                }
                let finished = mqtt.lock().handle(event);
                mqtt.sent.notify_waiters();
                if finished {
                    return;
                }
                continue;
            }
            Ok(Err(error)) => {
                let met = mqtt.lock().outbox.is_connected();
                trouble::adapt(&mut eventloop.options, &error);
                (trouble::explain(&error, met), trouble::loss(&error))
            }
            Err(_) => (format!("the broker was silent for {} s", timeout.as_secs()), Loss::Silence),
        };
        let lasted = {
            let mut link = mqtt.lock();
            eventloop.clean();
            eventloop.pending.clear();
            link.disconnect(reason, loss)
        };
        mqtt.sent.notify_waiters();
        if backoff.ended_early(lasted) {
            let id = eventloop.options.client_id();
            warn!(
                id,
                "connections end soon after they begin: is there another client of this id, or a device of this name?"
            );
        }
        tokio::time::sleep(backoff.next(lasted)).await;
    }
}

impl Link {
    /// Returns whether the connection was ended by us.
    fn handle(&mut self, event: ClientEvent) -> bool {
        self.last_poll = Instant::now();
        match event {
            ClientEvent::Incoming(Packet::ConnAck(connack)) => self.connect(&connack),
            ClientEvent::Incoming(Packet::Publish(publish)) => self.receive(publish),
            ClientEvent::Incoming(Packet::PubAck(puback)) => self.acknowledged(&puback),
            ClientEvent::Incoming(Packet::SubAck(suback)) => self.subscribed(&suback),
            ClientEvent::Outgoing(Outgoing::Publish(id)) if id != 0 => self.outbox.sent(id),
            ClientEvent::Outgoing(Outgoing::Disconnect) => self.finished = true,
            _ => {}
        }
        self.pump();
        self.finished
    }

    fn connect(&mut self, connack: &ConnAck) {
        self.receipts.forget();
        self.connected_at = Some(Instant::now());
        let properties = connack.properties.as_ref();
        let limit = properties.and_then(|p| p.max_packet_size).map(|size| size as usize);
        self.keeps = properties.and_then(|p| p.retain_available) != Some(0);
        self.confirms = properties.and_then(|p| p.max_qos) != Some(0);
        if !self.keeps {
            warn!("the broker keeps no retained messages: who subscribes later does not get status and info");
        }
        if !self.confirms {
            warn!("the broker confirms nothing (QoS 0 alone): messages may be lost");
        }
        info!(session_present = connack.session_present, max_packet_size = ?limit, "connected");
        let filters = self.options.filters.iter().map(|filter| Filter {
            // A retained request is to be recognised even if it arrives live.
            preserve_retain: true,
            retain_forward_rule: RetainForwardRule::OnNewSubscribe,
            ..Filter::new(filter, QoS::AtLeastOnce)
        });
        if let Err(error) = self.client.try_subscribe_many(filters) {
            error!("cannot subscribe: {error}");
        }
        self.reported.clear();
        let refused = self.outbox.connect(limit, &self.options.greetings);
        self.give_back(refused);
        self.emit(WireEvent::Connected);
    }

    /// Returns how long the connection had held.
    fn disconnect(&mut self, reason: String, loss: Loss) -> Duration {
        self.last_poll = Instant::now();
        self.receipts.forget();
        let refused = self.outbox.disconnect(loss);
        self.give_back(refused);
        self.emit(WireEvent::Disconnected(reason));
        self.connected_at.take().map(|at| at.elapsed()).unwrap_or_default()
    }

    fn receive(&mut self, mut publish: Publish) {
        let payload = std::mem::take(&mut publish.payload);
        let properties = publish.properties.take();
        let received = Received {
            topic: String::from_utf8_lossy(&publish.topic).into_owned(),
            payload,
            retain: publish.retain,
            response_topic: properties.as_ref().and_then(|p| p.response_topic.clone()),
            correlation: properties.as_ref().and_then(|p| p.correlation_data.clone()),
            expiry: properties.as_ref().and_then(|p| p.message_expiry_interval).map(|s| Duration::from_secs(s.into())),
            duplicate: (publish.dup, publish.pkid),
            receipt: self.receipts.issue(publish),
        };
        self.emit(WireEvent::Received(Box::new(received)));
    }

    fn acknowledged(&mut self, puback: &PubAck) {
        let taken = matches!(puback.reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers);
        let Some((topic, refused)) = self.outbox.acknowledged(puback.pkid, taken) else { return };
        match puback.reason {
            _ if taken => return debug!(topic, "delivered"),
            reason if self.reported.contains(&reason) => debug!(topic, "refused: {reason:?}"),
            reason => {
                let advice = trouble::advice(reason);
                error!(topic, "the broker refused a message ({reason:?}); {advice}; further ones are not logged");
                self.reported.push(reason);
            }
        }
        self.give_back(refused.filter(|refused| refused.place.is_some()));
    }

    /// Returns whether the connection by which it came is still there.
    fn acknowledge(&mut self, receipt: Receipt) -> bool {
        let ready = self.receipts.handled(receipt);
        ready.is_some_and(|ready| ready.iter().all(|publish| self.client.try_ack(publish).is_ok()))
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

    fn subscribed(&mut self, suback: &SubAck) {
        let refused = |code: &SubscribeReasonCode| !matches!(code, SubscribeReasonCode::Success(_));
        for (filter, code) in self.options.filters.iter().zip(&suback.return_codes).filter(|(_, code)| refused(code)) {
            error!(
                filter,
                "the broker refused a subscription ({code:?}); do its access rules let us read? until then the status is offline"
            );
        }
        if suback.return_codes.iter().any(refused) {
            // Nobody is to rely on a device that hears nothing.
            if let Some(offline) = self.options.last_will.clone() {
                let refused = self.outbox.push(offline);
                self.give_back(refused);
            }
        }
    }

    /// Hands over what can be sent now.
    fn pump(&mut self) {
        while let Some(message) = self.outbox.next() {
            let Ok(payload) = message.payload.read().inspect_err(|error| {
                warn!(topic = message.topic, "the file of an image is gone before it was sent: {error}");
            }) else {
                let refused = self.outbox.unreadable();
                self.give_back(refused);
                continue;
            };
            let qos = if message.certain && self.confirms { QoS::AtLeastOnce } else { QoS::AtMostOnce };
            let properties = PublishProperties {
                payload_format_indicator: Some(message.is_text().into()),
                content_type: Some(message.content_type.to_string()),
                correlation_data: message.correlation.clone(),
                ..PublishProperties::default()
            };
            let (topic, retain) = (message.topic.clone(), message.retain && self.keeps);
            match self.client.try_publish_with_properties(topic, qos, retain, payload, properties) {
                Ok(()) => self.outbox.handed_over(self.confirms),
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
