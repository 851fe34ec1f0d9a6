//! A look at the broker for `doctor`, over connections under a client id of its own. A service that runs is not disturbed:
//! what is sent goes to a topic that nobody acts on, shared work is left to those who share it, and in the end the broker
//! keeps nothing of it.

use std::time::Duration;

use bytes::Bytes;
use rumqttc::v5::mqttbytes::v5::PublishProperties;

use super::access::BrokerAccess;
use super::client::{self, ClientEvent, Connection, Outbound, PacketSender, Welcome};
use super::reasons;
use super::settings::MqttSettings;
use crate::config::{Config, MqttVersion};
use crate::random;

/// How long the broker may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a large message may take there and back.
const LONG: Duration = Duration::from_secs(30);
/// How long a retained message may take to follow a subscription, and how long a goodbye.
const MOMENT: Duration = Duration::from_millis(500);

/// What is tried.
#[derive(Debug, Clone, Copy)]
pub struct ProbeWishes {
    /// Bytes of a large message.
    pub image: usize,
    /// How long the broker is to keep a session.
    pub session: Duration,
}

/// What was found; sentences are in the service's words.
#[derive(Debug, Clone)]
pub struct BrokerReport {
    /// The version of MQTT.
    pub version: MqttVersion,
    /// The largest packet that it takes, if it announced one.
    pub max_packet: Option<usize>,
    /// Whether it takes retained messages.
    pub keeps: bool,
    /// Whether it takes QoS 1.
    pub confirms: bool,
    /// How many messages may be under way, if it announced that.
    pub receive_maximum: Option<u16>,
    /// The subscriptions that it refuses, and why.
    pub refused: Vec<String>,
    /// Whether a device of our name is there.
    pub is_online: bool,
    /// Whether a message of ours comes back to us, or why not.
    pub echo: Result<(), String>,
    /// The same of a large one; `None`: not tried, since a limit was announced or small ones do not come back.
    pub large: Option<Result<(), String>>,
    /// How long a session is kept, and whether it was there at the next connection, or why there is none; `None`: not asked,
    /// as MQTT 3.1.1 does not tell.
    pub session: Option<Result<(Duration, bool), String>>,
}

/// Connects, subscribes and publishes as the service would.
///
/// # Errors
///
/// Why the broker cannot be used, in the service's words.
pub async fn probe(config: &Config, access: BrokerAccess, wishes: &ProbeWishes) -> Result<BrokerReport, String> {
    let (topics, id) = (config.topics(), random::id());
    // A group of our own gets a copy of shared work, and takes none from the others.
    let shared = match config.fleet.group.0.as_str() {
        "" => vec![],
        _ => topics.shared_filters(&format!("diffused-doctor-{id}")),
    };
    let home_assistant = config.home_assistant.discovery.then(|| topics.home_assistant());
    let settings = MqttSettings {
        access,
        client_id: format!("diffused-doctor-{id}"),
        max_packet: config.mqtt.max_packet.0.max(u32::try_from(wishes.image).unwrap_or(u32::MAX)),
        outbox_limit: 0,
        filters: [
            topics.filters(),
            shared,
            home_assistant.into_iter().collect(),
            vec![topics.of("status"), topics.of("doctor")],
        ]
        .concat(),
        optional_filters: vec![],
        shared_filters: vec![],
        greetings: vec![],
        last_will: None,
        session: Duration::ZERO,
    };
    let mut visit = Visit::begin(settings.clone(), topics.of("status")).await?;
    let Welcome { max_packet, keeps, confirms, receive_maximum, .. } = visit.welcome;
    let refused = visit.subscribe().await?;
    let topic = topics.of("doctor");
    let echo = visit.echo(&topic, format!("diffused doctor {id}").into(), PATIENCE).await;
    let large = if max_packet.is_none() && echo.is_ok() {
        let text = format!("diffused doctor {id} ").repeat(wishes.image / 8);
        Some(visit.echo(&topic, Bytes::from(text).slice(..wishes.image), LONG).await)
    } else {
        None
    };
    let is_online = visit.is_online;
    visit.end().await;
    let version = settings.access.version;
    let session = match version {
        MqttVersion::V5 => Some(session(&settings, wishes.session).await),
        MqttVersion::V3 => None,
    };
    Ok(BrokerReport { version, max_packet, keeps, confirms, receive_maximum, refused, is_online, echo, large, session })
}

/// Whether the broker keeps a session of ours, which subscribes to nothing, and for how long. The second connection ends
/// it.
async fn session(settings: &MqttSettings, wanted: Duration) -> Result<(Duration, bool), String> {
    let kept = Visit::begin(MqttSettings { session: wanted, ..settings.clone() }, String::new()).await?;
    let granted = kept.welcome.session_expiry.unwrap_or(wanted);
    kept.end().await;
    let again = Visit::begin(settings.clone(), String::new()).await?;
    let present = again.welcome.session_present;
    again.end().await;
    Ok((granted, present))
}

/// A connection.
struct Visit {
    client: PacketSender,
    connection: Connection,
    settings: MqttSettings,
    welcome: Welcome,
    /// The topic of the device's status, and whether it says that one is there.
    status: String,
    is_online: bool,
    /// Whether the connection broke.
    is_over: bool,
}

impl Visit {
    /// Connects.
    async fn begin(settings: MqttSettings, status: String) -> Result<Visit, String> {
        let (client, mut connection) = client::open(&settings);
        let welcomed = async {
            loop {
                match connection.poll().await {
                    Ok(ClientEvent::Welcomed(welcome)) => return Ok(welcome),
                    Ok(_) => {}
                    Err(trouble) => return Err(trouble.explain(false, &settings.access)),
                }
            }
        };
        let welcome = tokio::time::timeout(PATIENCE, welcomed).await.unwrap_or_else(|_| Err(silent(PATIENCE)))?;
        Ok(Visit { client, connection, settings, welcome, status, is_online: false, is_over: false })
    }

    /// The next event. What the broker sends us is acknowledged, so that it goes on sending.
    async fn next(&mut self) -> Result<ClientEvent, String> {
        let event = self.connection.poll().await.map_err(|trouble| {
            self.is_over = true;
            trouble.explain(true, &self.settings.access)
        })?;
        if let ClientEvent::Received(message) = &event {
            let _ = self.client.acknowledge(message.packet);
            if message.topic == self.status {
                self.is_online = message.payload == "online";
            }
        }
        Ok(event)
    }

    /// Subscribes, and waits for retained messages too. Gives what is refused.
    async fn subscribe(&mut self) -> Result<Vec<String>, String> {
        let filters = self.settings.filters.clone();
        self.client.subscribe(&filters).map_err(|full| format!("{full:?}"))?;
        let answered = async {
            loop {
                if let ClientEvent::Subscribed(_, codes) = self.next().await? {
                    return Ok(codes);
                }
            }
        };
        let codes = tokio::time::timeout(PATIENCE, answered).await.unwrap_or_else(|_| Err(silent(PATIENCE)))?;
        let retained = async {
            while !self.is_online {
                self.next().await?;
            }
            Ok(())
        };
        tokio::time::timeout(MOMENT, retained).await.unwrap_or(Ok::<_, String>(()))?;
        let refused = filters.iter().zip(codes).filter(|(_, code)| *code >= 0x80);
        Ok(refused.map(|(filter, code)| reasons::subscription_refused(filter, code)).collect())
    }

    /// Publishes on `topic` and waits until that came back.
    async fn echo(&mut self, topic: &str, payload: Bytes, patience: Duration) -> Result<(), String> {
        let certain = self.welcome.confirms;
        let properties = PublishProperties { payload_format_indicator: Some(1), ..PublishProperties::default() };
        let outbound = Outbound { topic, payload: payload.clone(), certain, retain: false, properties };
        self.client.publish(outbound).map_err(|full| format!("{full:?}"))?;
        let (mut confirmed, mut returned) = (!certain, false);
        let echo = async {
            while !(confirmed && returned) {
                match self.next().await? {
                    ClientEvent::Acknowledged(_, code) if code >= 0x80 => {
                        let (code, advice) = (reasons::named(code), reasons::message_advice(code));
                        return Err(format!("the broker refuses a message on `{topic}` ({code}); {advice}"));
                    }
                    ClientEvent::Acknowledged(..) => confirmed = true,
                    ClientEvent::Received(message) if message.topic == topic && message.payload == payload => {
                        returned = true;
                    }
                    _ => {}
                }
            }
            Ok(())
        };
        if let Ok(outcome) = tokio::time::timeout(patience, echo).await {
            return outcome;
        }
        let waited = format!("within {} s", patience.as_secs());
        Err(match confirmed {
            true => format!(
                "a message on `{topic}` was taken but did not come back {waited}; do the access rules let us read?"
            ),
            false => format!("a message on `{topic}` was not confirmed {waited}"),
        })
    }

    /// Says goodbye.
    async fn end(mut self) {
        let goodbye = async { while !matches!(self.connection.poll().await, Ok(ClientEvent::Ended) | Err(_)) {} };
        if !self.is_over && self.client.disconnect().is_ok() {
            let _ = tokio::time::timeout(MOMENT, goodbye).await;
        }
    }
}

fn silent(patience: Duration) -> String {
    format!("the broker did not answer within {} s", patience.as_secs())
}
