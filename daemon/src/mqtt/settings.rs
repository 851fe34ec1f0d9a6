//! How to connect, and what the client is told of it.

use std::time::Duration;

use bytes::Bytes;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::LastWill;
use rumqttc::{self as v3, NetworkOptions, TlsConfiguration, Transport, v5};

use super::access::BrokerAccess;
use super::message::Message;
use crate::config;

/// Messages that the broker may send before we acknowledge the first.
const RECEIVE_MAXIMUM: u16 = 16;
/// Slots of the client for what is under way: one message, and subscriptions.
const INFLIGHT: u16 = 16;
/// The longest that connecting may take, TLS and CONNACK included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How to connect, and what to publish at each connection.
#[derive(Debug, Clone)]
pub struct MqttSettings {
    /// Where the broker is and how to log in.
    pub access: BrokerAccess,
    /// Identifies our session; of two clients with one id, the broker disconnects the older.
    pub client_id: String,
    /// The largest packet that is taken: the broker may send twice as much, so that what is larger is answered.
    pub max_packet: u32,
    /// The most bytes of images that wait to be sent.
    pub outbox_limit: u64,
    /// What to subscribe to.
    pub filters: Vec<String>,
    /// What to subscribe to as well: the device hears its requests without it, too.
    pub optional_filters: Vec<String>,
    /// What to subscribe to while shared work is taken.
    pub shared_filters: Vec<String>,
    /// Sent first over each connection.
    pub greetings: Vec<Message>,
    /// What the broker publishes if the connection breaks without a DISCONNECT.
    pub last_will: Option<Message>,
    /// How long the broker keeps the session while we are away; MQTT 3.1.1 knows for ever and, for zero, not at all.
    pub session: Duration,
}

/// The same for the client of MQTT 5.
pub(super) fn options_5(settings: &MqttSettings) -> v5::MqttOptions {
    let access = &settings.access;
    let mut client = v5::MqttOptions::new(&settings.client_id, address(access), access.url.port);
    client
        .set_transport(transport(access))
        .set_connection_timeout(CONNECT_TIMEOUT.as_secs())
        .set_keep_alive(access.keep_alive)
        .set_clean_start(false)
        .set_session_expiry_interval(Some(u32::try_from(settings.session.as_secs()).unwrap_or(u32::MAX)))
        .set_max_packet_size(Some(settings.max_packet.saturating_mul(2)))
        .set_receive_maximum(Some(RECEIVE_MAXIMUM))
        .set_manual_acks(true)
        .set_network_options(network());
    client.set_outgoing_inflight_upper_limit(INFLIGHT);
    if let Some(will) = &settings.last_will {
        client.set_last_will(LastWill::new(&will.topic, text(will), QoS::AtLeastOnce, will.retain, None));
    }
    if let Some((name, password)) = &access.login {
        client.set_credentials(name, password);
    }
    client
}

/// The same for the client of MQTT 3.1.1, which has no session expiry and announces no limits.
pub(super) fn options_3(settings: &MqttSettings) -> v3::MqttOptions {
    let access = &settings.access;
    let mut client = v3::MqttOptions::new(&settings.client_id, address(access), access.url.port);
    client
        .set_transport(transport(access))
        .set_keep_alive(access.keep_alive)
        .set_clean_session(settings.session.is_zero())
        .set_max_packet_size(settings.max_packet.saturating_mul(2) as usize, usize::MAX)
        .set_manual_acks(true)
        .set_inflight(INFLIGHT);
    if let Some(will) = &settings.last_will {
        client.set_last_will(v3::LastWill::new(&will.topic, text(will), v3::QoS::AtLeastOnce, will.retain));
    }
    if let Some((name, password)) = &access.login {
        client.set_credentials(name, password);
    }
    client
}

/// Each message waits for the one before it: the system must not wait for more to send along.
pub(super) fn network() -> NetworkOptions {
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    network.set_connection_timeout(CONNECT_TIMEOUT.as_secs());
    network
}

/// A last will's payload, which is in memory.
fn text(will: &Message) -> Bytes {
    will.payload.read().unwrap_or_default()
}

/// What the client takes for the broker's address: of a websocket the whole of it, of TLS the name in the certificate.
fn address(access: &BrokerAccess) -> String {
    let url = &access.url;
    match url.transport {
        config::Transport::Tcp => url.host.clone(),
        config::Transport::Tls => url.host.trim_matches(['[', ']']).to_owned(),
        config::Transport::Ws | config::Transport::Wss => url.to_string(),
    }
}

fn transport(access: &BrokerAccess) -> Transport {
    let tls = access.tls.as_ref().map(|tls| TlsConfiguration::Rustls(tls.0.clone()));
    match (access.url.transport.is_websocket(), tls) {
        (false, None) => Transport::Tcp,
        (false, Some(tls)) => Transport::tls_with_config(tls),
        (true, None) => Transport::Ws,
        (true, Some(tls)) => Transport::wss_with_config(tls),
    }
}
