//! A look at the broker for `doctor`: one connection, under another client id, which leaves nothing behind.

use std::time::Duration;

use super::access::BrokerAccess;
use super::client::{self, ClientEvent, Connection, PacketSender, Welcome};
use super::reasons;
use super::settings::MqttSettings;
use crate::config::{Config, MqttVersion};
use crate::random;

/// The longest that the look may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a retained message may take to follow a subscription.
const RETAINED: Duration = Duration::from_millis(500);

/// Connects and subscribes as the service would. Gives what the broker said, a sentence each, or why it cannot be used, in the
/// service's words.
pub async fn probe(config: &Config, access: BrokerAccess) -> Result<Vec<String>, String> {
    let topics = config.topics();
    let status = topics.of("status");
    let settings = MqttSettings {
        access,
        client_id: format!("diffused-doctor-{}", random::id()),
        max_packet: config.mqtt.max_packet.0,
        outbox_limit: 0,
        filters: [topics.filters(), topics.shared_filters(&config.fleet.group.0), vec![status.clone()]].concat(),
        shared_filters: vec![],
        greetings: vec![],
        last_will: None,
        session: Duration::ZERO,
    };
    let (client, mut connection) = client::open(&settings);
    let looked = tokio::time::timeout(PATIENCE, look(&client, &mut connection, &settings)).await;
    let welcome =
        looked.unwrap_or_else(|_| Err(format!("the broker did not answer within {} s", PATIENCE.as_secs())))?;
    let mut found = vec![describe(&welcome, settings.access.version)];
    if tokio::time::timeout(RETAINED, is_online(&mut connection, &status)).await.unwrap_or(false) {
        let device = &config.device.0;
        found.push(format!(
            "a device named `{device}` is online; if that is not this one, give this one another `device`"
        ));
    }
    let _ = client.disconnect();
    let _ = tokio::time::timeout(RETAINED, connection.poll()).await;
    Ok(found)
}

async fn look(client: &PacketSender, connection: &mut Connection, settings: &MqttSettings) -> Result<Welcome, String> {
    let mut welcome = None;
    loop {
        match connection.poll().await {
            Ok(ClientEvent::Welcomed(said)) => {
                welcome = Some(said);
                client.subscribe(&settings.filters).map_err(|full| format!("{full:?}"))?;
            }
            Ok(ClientEvent::Subscribed(_, codes)) => {
                let refused = settings.filters.iter().zip(codes).find(|(_, code)| *code >= 0x80);
                return match (refused, welcome) {
                    (None, Some(welcome)) => Ok(welcome),
                    (None, None) => Err("the broker answered what was not asked".into()),
                    (Some((filter, code)), _) => Err(reasons::subscription_refused(filter, code)),
                };
            }
            Ok(_) => {}
            Err(trouble) => return Err(trouble.explain(welcome.is_some(), &settings.access)),
        }
    }
}

/// Whether the retained status says so.
async fn is_online(connection: &mut Connection, status: &str) -> bool {
    loop {
        match connection.poll().await {
            Ok(ClientEvent::Received(message)) if message.topic == status => return message.payload == "online",
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}

fn describe(welcome: &Welcome, version: MqttVersion) -> String {
    if version == MqttVersion::V3 {
        return "MQTT 3.1.1, which announces no limits; our subscriptions are granted".into();
    }
    let packets = welcome.max_packet.map_or("packets of any size".into(), |most| format!("packets up to {most} bytes"));
    let retained = if welcome.keeps { "retained messages" } else { "no retained messages" };
    let qos = if welcome.confirms { "QoS 1" } else { "QoS 0 alone" };
    let under_way = welcome.receive_maximum.map_or(String::new(), |most| format!(", {most} messages under way"));
    format!("MQTT 5, {packets}, {retained}, {qos}{under_way}; our subscriptions are granted")
}
