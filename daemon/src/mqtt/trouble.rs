//! What an error of the client means for what was on its way, and what to do about a refusal.

use rumqttc::v5::mqttbytes::Error as PacketError;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, DisconnectReasonCode, PubAckReason};
use rumqttc::v5::{ConnectionError, MqttOptions, StateError};

use super::outbox::Loss;

/// What `error` says of the message that was on its way.
pub(super) fn loss(error: &ConnectionError) -> Loss {
    let ConnectionError::MqttState(error) = error else { return Loss::Ended };
    match error {
        StateError::AwaitPingResp => Loss::Silence,
        // The client does not know all codes of a PUBACK or DISCONNECT, packet too large (0x95) among them.
        StateError::Deserialization(PacketError::InvalidConnectReturnCode(_)) => Loss::Refused,
        StateError::ServerDisconnect { reason_code: DisconnectReasonCode::PacketTooLarge, .. } => Loss::Refused,
        _ => Loss::Ended,
    }
}

/// `error` as people read it; `met`: whether the broker had answered our CONNECT.
pub(super) fn explain(error: &ConnectionError, met: bool) -> String {
    use ConnectReturnCode::{RefusedProtocolVersion, UnsupportedProtocolVersion};
    let speaks_3 = match error {
        ConnectionError::ConnectionRefused(RefusedProtocolVersion | UnsupportedProtocolVersion) => true,
        // Such brokers close the connection, do not answer, or answer in the form of MQTT 3, which does not parse.
        ConnectionError::MqttState(_) | ConnectionError::Timeout(_) => !met,
        _ => false,
    };
    match speaks_3 {
        true => {
            format!("{error}; does the broker speak MQTT 5 (mosquitto 1.6 or newer does)? MQTT 3.1.1 is not enough")
        }
        false => error.to_string(),
    }
}

/// Lowers what the broker has just refused, for the next attempt.
pub(super) fn adapt(options: &mut MqttOptions, error: &ConnectionError) {
    use ConnectReturnCode::{QoSNotSupported, RetainNotSupported};
    let (ConnectionError::ConnectionRefused(code), Some(mut will)) = (error, options.last_will()) else { return };
    match code {
        RetainNotSupported => will.retain = false,
        QoSNotSupported => will.qos = QoS::AtMostOnce,
        _ => return,
    }
    options.set_last_will(will);
}

/// What may be done about a refused message.
pub(super) fn advice(reason: PubAckReason) -> &'static str {
    match reason {
        PubAckReason::NotAuthorized => "do its access rules let us write?",
        PubAckReason::QuotaExceeded => "it holds as much as it may; does somebody read what we publish?",
        _ => "see its log for the reason",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frozen_broker_has_refused_nothing_and_an_unknown_code_is_a_refusal() {
        let state = |error| loss(&ConnectionError::MqttState(error));
        assert_eq!(state(StateError::AwaitPingResp), Loss::Silence);
        let unknown = PacketError::InvalidConnectReturnCode(149);
        assert_eq!(state(StateError::Deserialization(unknown)), Loss::Refused);
        let reason_code = DisconnectReasonCode::PacketTooLarge;
        assert_eq!(state(StateError::ServerDisconnect { reason_code, reason_string: None }), Loss::Refused);
        assert_eq!(state(StateError::ConnectionAborted), Loss::Ended);
    }
}
