//! How to connect, and what the client is told of it.

use std::time::Duration;

use rumqttc::NetworkOptions;
use rumqttc::v5::MqttOptions;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::LastWill;

use super::message::Message;

/// Messages that the broker may send before we acknowledge the first.
const RECEIVE_MAXIMUM: u16 = 16;
/// How to connect, and what to publish at each connection.
#[derive(Debug, Clone)]
pub struct MqttSettings {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Identifies our session; of two clients with one id, the broker disconnects the older.
    pub client_id: String,
    /// User name and password.
    pub login: Option<(String, String)>,
    /// The longest silence before a ping, at least 5 s.
    pub keep_alive: Duration,
    /// The largest packet that is taken: the broker may send twice as much, so that what is larger is answered.
    pub max_packet: u32,
    /// The most bytes of images that wait to be sent.
    pub outbox_limit: u64,
    /// What to subscribe to.
    pub filters: Vec<String>,
    /// Sent first over each connection.
    pub greetings: Vec<Message>,
    /// What the broker publishes if the connection breaks without a DISCONNECT.
    pub last_will: Option<Message>,
    /// How long the broker keeps the session while we are away.
    pub session: Duration,
}

/// The same for the client.
pub(super) fn client_options(options: &MqttSettings) -> MqttOptions {
    let mut client = MqttOptions::new(&options.client_id, &options.host, options.port);
    client
        .set_keep_alive(options.keep_alive)
        .set_clean_start(false)
        .set_session_expiry_interval(Some(u32::try_from(options.session.as_secs()).unwrap_or(u32::MAX)))
        .set_max_packet_size(Some(options.max_packet.saturating_mul(2)))
        .set_receive_maximum(Some(RECEIVE_MAXIMUM))
        .set_manual_acks(true);
    if let Some(will) = &options.last_will {
        let text = will.payload.read().unwrap_or_default();
        client.set_last_will(LastWill::new(&will.topic, text, QoS::AtLeastOnce, will.retain, None));
    }
    // Each message waits for the one before it: the system must not wait for more to send along.
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    client.set_network_options(network);
    // The client keeps a slot for each; we have one message under way, and subscriptions.
    client.set_outgoing_inflight_upper_limit(16);
    if let Some((name, password)) = &options.login {
        client.set_credentials(name, password);
    }
    client
}
