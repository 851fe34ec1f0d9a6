//! The MQTT client behind one face, whichever version of the protocol it speaks. MQTT 3.1.1 lacks limits, properties and
//! reason codes; where it does, a broker counts as one that has no limits and refuses nothing.

use std::time::Duration;

use bytes::Bytes;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, Filter, Packet, PubAck, PubAckReason, Publish, PublishProperties, RetainForwardRule, SubscribeReasonCode,
};
use rumqttc::v5::{self, AsyncClient, EventLoop};
use rumqttc::{self as v3, Outgoing};

use super::settings::{MqttSettings, network, options_3, options_5};
use super::trouble::Trouble;
use crate::config::MqttVersion;

/// Slots between us and the client; far more than acknowledgements, subscriptions and one message can fill.
const CHANNEL: usize = 1024;

/// Hands packets to the client's task. Nothing here waits.
pub(super) enum PacketSender {
    V5(AsyncClient),
    V3(v3::AsyncClient),
}

/// Drives the client.
pub(super) struct Connection {
    version: EventLoops,
    keep_alive: Duration,
    /// Of MQTT 3.1.1: whether the broker forgets us when we go.
    is_clean: bool,
}

enum EventLoops {
    V5(Box<EventLoop>),
    V3(Box<v3::EventLoop>),
}

/// The client's channel is full.
#[derive(Debug)]
pub(super) struct Full;

/// What a broker said when it accepted us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Welcome {
    pub(super) session_present: bool,
    /// The largest packet that it takes, if it announced one.
    pub(super) max_packet: Option<usize>,
    /// Whether it takes retained messages.
    pub(super) keeps: bool,
    /// Whether it takes QoS 1.
    pub(super) confirms: bool,
    /// How many messages of QoS 1 may be under way, if it announced that.
    pub(super) receive_maximum: Option<u16>,
    /// Whether it shares subscriptions.
    pub(super) shares_subscriptions: bool,
    /// How long it keeps our session while we are away, if that is not as we asked.
    pub(super) session_expiry: Option<Duration>,
}

/// A message that came in.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) topic: String,
    pub(super) payload: Bytes,
    pub(super) retain: bool,
    pub(super) duplicate: bool,
    /// 0: it is not to be acknowledged.
    pub(super) packet: u16,
    pub(super) properties: PublishProperties,
}

/// What happened; codes are MQTT 5's.
#[derive(Debug)]
pub(super) enum ClientEvent {
    /// The broker accepted us.
    Welcomed(Welcome),
    Received(Box<Incoming>),
    /// A QoS 1 message was written under this packet id.
    Sent(u16),
    /// The broker acknowledged it with this code.
    Acknowledged(u16, u8),
    /// A SUBSCRIBE was written under this packet id.
    Subscribing(u16),
    /// The broker answered it with a code for each filter.
    Subscribed(u16, Vec<u8>),
    /// Our DISCONNECT was written.
    Ended,
    /// Nothing that matters here.
    Other,
}

/// What is published.
pub(super) struct Outbound<'a> {
    pub(super) topic: &'a str,
    pub(super) payload: Bytes,
    pub(super) certain: bool,
    pub(super) retain: bool,
    pub(super) properties: PublishProperties,
}

/// A client that is not connected yet, and what drives it.
pub(super) fn open(settings: &MqttSettings) -> (PacketSender, Connection) {
    let keep_alive = settings.access.keep_alive;
    let (client, version) = match settings.access.version {
        MqttVersion::V5 => {
            let (client, eventloop) = AsyncClient::new(options_5(settings), CHANNEL);
            (PacketSender::V5(client), EventLoops::V5(Box::new(eventloop)))
        }
        MqttVersion::V3 => {
            let (client, mut eventloop) = v3::AsyncClient::new(options_3(settings), CHANNEL);
            eventloop.set_network_options(network());
            (PacketSender::V3(client), EventLoops::V3(Box::new(eventloop)))
        }
    };
    (client, Connection { version, keep_alive, is_clean: settings.session.is_zero() })
}

impl PacketSender {
    pub(super) fn publish(&self, message: Outbound) -> Result<(), Full> {
        let Outbound { topic, payload, certain, retain, properties } = message;
        match self {
            PacketSender::V5(client) => {
                let qos = if certain { QoS::AtLeastOnce } else { QoS::AtMostOnce };
                client.try_publish_with_properties(topic, qos, retain, payload, properties).map_err(|_| Full)
            }
            PacketSender::V3(client) => {
                let qos = if certain { v3::QoS::AtLeastOnce } else { v3::QoS::AtMostOnce };
                client.try_publish(topic, qos, retain, payload).map_err(|_| Full)
            }
        }
    }

    /// Sends the PUBACK of a message that came in; without a packet id, as QoS 0 has none, nothing.
    pub(super) fn acknowledge(&self, packet: u16) -> Result<(), Full> {
        if packet == 0 {
            return Ok(());
        }
        match self {
            PacketSender::V5(client) => {
                let publish = Publish { pkid: packet, qos: QoS::AtLeastOnce, ..Publish::default() };
                client.try_ack(&publish).map_err(|_| Full)
            }
            PacketSender::V3(client) => {
                let mut publish = v3::Publish::new("", v3::QoS::AtLeastOnce, Bytes::new());
                publish.pkid = packet;
                client.try_ack(&publish).map_err(|_| Full)
            }
        }
    }

    /// Sends one SUBSCRIBE for all of `filters`.
    pub(super) fn subscribe(&self, filters: &[String]) -> Result<(), Full> {
        match self {
            PacketSender::V5(client) => {
                let filters = filters.iter().map(|filter| Filter {
                    // A retained request is to be recognised even if it arrives live.
                    preserve_retain: true,
                    retain_forward_rule: RetainForwardRule::OnNewSubscribe,
                    ..Filter::new(filter, QoS::AtLeastOnce)
                });
                client.try_subscribe_many(filters).map_err(|_| Full)
            }
            PacketSender::V3(client) => {
                let filters = filters.iter().map(|f| v3::SubscribeFilter::new(f.clone(), v3::QoS::AtLeastOnce));
                client.try_subscribe_many(filters).map_err(|_| Full)
            }
        }
    }

    pub(super) fn unsubscribe(&self, filter: &str) -> Result<(), Full> {
        match self {
            PacketSender::V5(client) => client.try_unsubscribe(filter).map_err(|_| Full),
            PacketSender::V3(client) => client.try_unsubscribe(filter).map_err(|_| Full),
        }
    }

    pub(super) fn disconnect(&self) -> Result<(), Full> {
        match self {
            PacketSender::V5(client) => client.try_disconnect().map_err(|_| Full),
            PacketSender::V3(client) => client.try_disconnect().map_err(|_| Full),
        }
    }
}

impl Connection {
    /// Waits for the next event; connects where there is no connection. After an error what the client still held is
    /// thrown away: our outbox sends it again, and the broker sends again what was not acknowledged.
    pub(super) async fn poll(&mut self) -> Result<ClientEvent, Trouble> {
        // The client's own wait for a packet is endless.
        let timeout = self.keep_alive * 2 + Duration::from_secs(2);
        let outcome = match &mut self.version {
            EventLoops::V5(eventloop) => {
                let event = tokio::time::timeout(timeout, eventloop.poll()).await;
                event.map(|event| event.map(event_5).map_err(Trouble::from))
            }
            EventLoops::V3(eventloop) => {
                let event = tokio::time::timeout(timeout, eventloop.poll()).await;
                event.map(|event| event.map(event_3).map_err(Trouble::from))
            }
        };
        let outcome = outcome
            .unwrap_or_else(|_| Err(Trouble::Silent(format!("the broker was silent for {} s", timeout.as_secs()))));
        match &outcome {
            Ok(event) => self.settle(event),
            Err(trouble) => self.recover(trouble),
        }
        outcome
    }

    fn settle(&mut self, event: &ClientEvent) {
        let welcomed = matches!(event, ClientEvent::Welcomed(_));
        match &mut self.version {
            // The broker wants no pings at all; the client would send them without a pause.
            EventLoops::V5(eventloop) if eventloop.options.keep_alive().is_zero() => {
                eventloop.options.set_keep_alive(self.keep_alive);
            }
            EventLoops::V3(eventloop) if welcomed => {
                eventloop.mqtt_options.set_clean_session(self.is_clean);
            }
            _ => {}
        }
    }

    /// Throws the connection away, with what the client still holds.
    pub(super) fn recover(&mut self, trouble: &Trouble) {
        match &mut self.version {
            EventLoops::V5(eventloop) => {
                eventloop.clean();
                eventloop.pending.clear();
                // What the broker has just refused is left out of the next attempt.
                if let (Trouble::Refused(code @ (RETAIN | QOS)), Some(mut will)) =
                    (trouble, eventloop.options.last_will())
                {
                    match *code {
                        RETAIN => will.retain = false,
                        _ => will.qos = QoS::AtMostOnce,
                    }
                    eventloop.options.set_last_will(will);
                }
            }
            EventLoops::V3(eventloop) => {
                eventloop.clean();
                eventloop.pending.clear();
                // It would be sent again for ever: MQTT 3.1.1 has no limit that could be announced.
                if matches!(trouble, Trouble::TooLarge(_)) {
                    eventloop.mqtt_options.set_clean_session(true);
                }
            }
        }
    }
}

/// Retain not supported, QoS not supported.
const RETAIN: u8 = 0x9a;
const QOS: u8 = 0x9b;

fn event_5(event: v5::Event) -> ClientEvent {
    match event {
        v5::Event::Incoming(Packet::ConnAck(connack)) => ClientEvent::Welcomed(welcome(&connack)),
        v5::Event::Incoming(Packet::Publish(publish)) => ClientEvent::Received(Box::new(Incoming {
            topic: String::from_utf8_lossy(&publish.topic).into_owned(),
            payload: publish.payload,
            retain: publish.retain,
            duplicate: publish.dup,
            packet: publish.pkid,
            properties: publish.properties.unwrap_or_default(),
        })),
        v5::Event::Incoming(Packet::PubAck(puback)) => ClientEvent::Acknowledged(puback.pkid, puback_code(&puback)),
        v5::Event::Incoming(Packet::SubAck(suback)) => {
            ClientEvent::Subscribed(suback.pkid, suback.return_codes.iter().map(suback_code).collect())
        }
        v5::Event::Incoming(_) => ClientEvent::Other,
        v5::Event::Outgoing(outgoing) => written(&outgoing),
    }
}

fn event_3(event: v3::Event) -> ClientEvent {
    match event {
        v3::Event::Incoming(v3::Packet::ConnAck(connack)) => ClientEvent::Welcomed(Welcome {
            session_present: connack.session_present,
            max_packet: None,
            keeps: true,
            confirms: true,
            receive_maximum: None,
            // Not in MQTT 3.1.1; brokers that have it take it over both.
            shares_subscriptions: true,
            session_expiry: None,
        }),
        v3::Event::Incoming(v3::Packet::Publish(publish)) => ClientEvent::Received(Box::new(Incoming {
            topic: publish.topic,
            payload: publish.payload,
            retain: publish.retain,
            duplicate: publish.dup,
            packet: publish.pkid,
            properties: PublishProperties::default(),
        })),
        v3::Event::Incoming(v3::Packet::PubAck(puback)) => ClientEvent::Acknowledged(puback.pkid, 0),
        v3::Event::Incoming(v3::Packet::SubAck(suback)) => {
            let code = |code: &v3::SubscribeReasonCode| match code {
                v3::SubscribeReasonCode::Success(qos) => *qos as u8,
                v3::SubscribeReasonCode::Failure => 0x80,
            };
            ClientEvent::Subscribed(suback.pkid, suback.return_codes.iter().map(code).collect())
        }
        v3::Event::Incoming(_) => ClientEvent::Other,
        v3::Event::Outgoing(outgoing) => written(&outgoing),
    }
}

fn written(outgoing: &Outgoing) -> ClientEvent {
    match outgoing {
        Outgoing::Publish(id) if *id != 0 => ClientEvent::Sent(*id),
        Outgoing::Subscribe(id) => ClientEvent::Subscribing(*id),
        Outgoing::Disconnect => ClientEvent::Ended,
        _ => ClientEvent::Other,
    }
}

fn welcome(connack: &ConnAck) -> Welcome {
    let properties = connack.properties.as_ref();
    Welcome {
        session_present: connack.session_present,
        max_packet: properties.and_then(|p| p.max_packet_size).map(|size| size as usize),
        keeps: properties.and_then(|p| p.retain_available) != Some(0),
        confirms: properties.and_then(|p| p.max_qos) != Some(0),
        receive_maximum: properties.and_then(|p| p.receive_max),
        shares_subscriptions: properties.and_then(|p| p.shared_subscription_available) != Some(0),
        session_expiry: properties
            .and_then(|p| p.session_expiry_interval)
            .map(|seconds| Duration::from_secs(seconds.into())),
    }
}

fn puback_code(puback: &PubAck) -> u8 {
    match puback.reason {
        PubAckReason::Success => 0x00,
        PubAckReason::NoMatchingSubscribers => 0x10,
        PubAckReason::UnspecifiedError => 0x80,
        PubAckReason::ImplementationSpecificError => 0x83,
        PubAckReason::NotAuthorized => 0x87,
        PubAckReason::TopicNameInvalid => 0x90,
        PubAckReason::PacketIdentifierInUse => 0x91,
        PubAckReason::QuotaExceeded => 0x97,
        PubAckReason::PayloadFormatInvalid => 0x99,
    }
}

fn suback_code(code: &SubscribeReasonCode) -> u8 {
    match code {
        SubscribeReasonCode::Success(qos) => *qos as u8,
        SubscribeReasonCode::Failure | SubscribeReasonCode::Unspecified => 0x80,
        SubscribeReasonCode::ImplementationSpecific => 0x83,
        SubscribeReasonCode::NotAuthorized => 0x87,
        SubscribeReasonCode::TopicFilterInvalid => 0x8f,
        SubscribeReasonCode::PkidInUse => 0x91,
        SubscribeReasonCode::QuotaExceeded => 0x97,
        SubscribeReasonCode::SharedSubscriptionsNotSupported => 0x9e,
        SubscribeReasonCode::SubscriptionIdNotSupported => 0xa1,
        SubscribeReasonCode::WildcardSubscriptionsNotSupported => 0xa2,
    }
}
