//! Why there is no connection: the client's errors, of either version, in the few kinds that matter here.

use std::error::Error;
use std::io;

use rumqttc::{self as v3, v5};

use super::access::BrokerAccess;
use super::outbox::Loss;
use super::{reasons, tls};
use crate::config::MqttVersion;

/// Why a connection ended, or none came about. Codes are MQTT 5's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The broker refused us in its CONNACK.
    Refused(u8),
    /// It ended the connection with a DISCONNECT.
    Ended(u8, Option<String>),
    /// A packet of it has a code that the client does not know, a PUBACK of 0x95 among them.
    UnknownCode(u8),
    /// It did not answer any more, or not at all.
    Silent(String),
    /// It sent a message of so many bytes, which is more than we take and could not be announced.
    TooLarge(usize),
    /// TLS: what is wrong and what to do.
    Tls(String),
    /// The TLS handshake ended early.
    Handshake(String),
    /// The connection ended without a word, or what came over it is not MQTT.
    Closed(String),
    /// There is no way to the broker.
    Unreachable(String),
}

impl Trouble {
    /// What it says of the message that was on its way.
    pub(super) fn loss(&self) -> Loss {
        match self {
            Trouble::Silent(_) => Loss::Silence,
            Trouble::UnknownCode(_) | Trouble::Ended(0x95, _) => Loss::Refused,
            _ => Loss::Ended,
        }
    }

    /// As people read it; `met`: whether the broker had accepted us.
    pub(super) fn explain(&self, met: bool, access: &BrokerAccess) -> String {
        match self {
            Trouble::Refused(0x84) if access.version == MqttVersion::V3 => {
                let code = reasons::named_3(0x84);
                format!("the broker refused us ({code}); it does not speak MQTT 3.1.1, set `mqtt.version = \"5\"`")
            }
            Trouble::Refused(code) if access.version == MqttVersion::V3 => {
                format!("the broker refused us ({}); {}", reasons::named_3(*code), reasons::connection_advice(*code))
            }
            Trouble::Refused(code) => {
                format!("the broker refused us ({}); {}", reasons::named(*code), reasons::connection_advice(*code))
            }
            Trouble::Ended(code, reason) => {
                let (code, advice) = (reasons::named(*code), reasons::connection_advice(*code));
                let reason =
                    reason.as_ref().map(|reason| format!(", \"{}\"", reason.escape_debug())).unwrap_or_default();
                format!("the broker ended the connection ({code}{reason}); {advice}")
            }
            Trouble::UnknownCode(code) => {
                format!("the broker refused a message ({}); {}", reasons::named(*code), reasons::message_advice(*code))
            }
            Trouble::TooLarge(bytes) => {
                format!(
                    "a message of {bytes} bytes came in, more than mqtt.max_packet allows; the session is begun anew"
                )
            }
            Trouble::Tls(text) | Trouble::Unreachable(text) => text.clone(),
            Trouble::Handshake(text) => format!("{text}, in the middle of the TLS handshake; is this a port for TLS?"),
            Trouble::Silent(text) | Trouble::Closed(text) if met => text.clone(),
            Trouble::Silent(text) | Trouble::Closed(text) => format!("{text}; {}", first_guess(access)),
        }
    }

    fn of_io(error: &io::Error, kind: fn(String) -> Trouble) -> Trouble {
        tls::explain(error).map_or_else(|| kind(error.to_string()), Trouble::Tls)
    }

    /// An error that carries its cause.
    fn of_chain(error: &(dyn Error + 'static)) -> Trouble {
        tls::explain(error).map_or_else(|| Trouble::Unreachable(error.to_string()), Trouble::Tls)
    }

    /// Another kind of port hangs up on the websocket's handshake, or answers what is not HTTP.
    fn of_websocket(error: &(dyn Error + 'static)) -> Trouble {
        let hint =
            "is this a port for websockets, and the path right? if it is one for plain MQTT, it is mqtt:// (mqtts://)";
        tls::explain(error).map_or_else(|| Trouble::Unreachable(format!("{error}; {hint}")), Trouble::Tls)
    }

    fn of_tls(error: &v3::TlsError) -> Trouble {
        tls::explain(error).map_or_else(|| Trouble::Handshake(error.to_string()), Trouble::Tls)
    }
}

/// What may be wrong where a broker hangs up or says nothing to our CONNECT: brokers of MQTT 3 do so to MQTT 5, or answer
/// in a form that does not parse, and ports for TLS to what is not encrypted.
fn first_guess(access: &BrokerAccess) -> &'static str {
    match (access.version, access.tls.is_some()) {
        (MqttVersion::V5, true) => {
            "does the broker speak MQTT 5 (mosquitto 1.6 or newer does)? if not, set `mqtt.version = \"3.1.1\"`"
        }
        (MqttVersion::V5, false) => {
            "does the broker speak MQTT 5 (mosquitto 1.6 or newer does; if not, set `mqtt.version = \"3.1.1\"`), or does \
             this port want websockets (ws://), or want TLS (mqtts://)?"
        }
        (MqttVersion::V3, true) => "is this a port for MQTT?",
        (MqttVersion::V3, false) => {
            "is this a port for MQTT, or does it want websockets (ws://), or want TLS (mqtts://)?"
        }
    }
}

impl From<v5::ConnectionError> for Trouble {
    fn from(error: v5::ConnectionError) -> Trouble {
        use v5::{ConnectionError as E, StateError as S};
        match error {
            E::ConnectionRefused(code) => Trouble::Refused(connack_code(code)),
            E::MqttState(S::ServerDisconnect { reason_code, reason_string }) => {
                Trouble::Ended(reason_code as u8, reason_string)
            }
            E::MqttState(S::Deserialization(v5::mqttbytes::Error::InvalidConnectReturnCode(code))) => {
                Trouble::UnknownCode(code)
            }
            E::MqttState(S::Deserialization(v5::mqttbytes::Error::Io(error)) | S::Io(error)) => {
                Trouble::of_io(&error, Trouble::Closed)
            }
            E::MqttState(S::AwaitPingResp) => Trouble::Silent("the broker does not answer pings".into()),
            E::MqttState(S::ConnectionAborted) => Trouble::Closed("the broker closed the connection".into()),
            E::MqttState(S::Deserialization(error)) => Trouble::Closed(format!("what came is not MQTT 5: {error}")),
            E::MqttState(error) => Trouble::Closed(error.to_string()),
            E::Timeout(_) => Trouble::Silent("the broker did not answer in time".into()),
            E::Tls(error) => Trouble::of_tls(&error),
            E::Io(error) => Trouble::of_io(&error, Trouble::Unreachable),
            E::Websocket(error) => Trouble::of_websocket(&error),
            error => Trouble::of_chain(&error),
        }
    }
}

impl From<v3::ConnectionError> for Trouble {
    fn from(error: v3::ConnectionError) -> Trouble {
        use v3::{ConnectReturnCode as C, ConnectionError as E, StateError as S};
        match error {
            E::ConnectionRefused(code) => Trouble::Refused(match code {
                C::Success => 0x80,
                C::RefusedProtocolVersion => 0x84,
                C::BadClientId => 0x85,
                C::ServiceUnavailable => 0x88,
                C::BadUserNamePassword => 0x86,
                C::NotAuthorized => 0x87,
            }),
            E::MqttState(S::Deserialization(v3::mqttbytes::Error::PayloadSizeLimitExceeded(bytes))) => {
                Trouble::TooLarge(bytes)
            }
            E::MqttState(S::Deserialization(v3::mqttbytes::Error::Io(error)) | S::Io(error)) => {
                Trouble::of_io(&error, Trouble::Closed)
            }
            E::MqttState(S::AwaitPingResp) => Trouble::Silent("the broker does not answer pings".into()),
            E::FlushTimeout => Trouble::Silent("the broker takes nothing any more".into()),
            E::MqttState(S::ConnectionAborted) => Trouble::Closed("the broker closed the connection".into()),
            E::MqttState(S::Deserialization(error)) => Trouble::Closed(format!("what came is not MQTT 3.1.1: {error}")),
            E::MqttState(error) => Trouble::Closed(error.to_string()),
            E::NetworkTimeout => Trouble::Silent("the broker did not answer in time".into()),
            E::Tls(error) => Trouble::of_tls(&error),
            E::Io(error) => Trouble::of_io(&error, Trouble::Unreachable),
            E::Websocket(error) => Trouble::of_websocket(&error),
            error => Trouble::of_chain(&error),
        }
    }
}

fn connack_code(code: v5::mqttbytes::v5::ConnectReturnCode) -> u8 {
    use v5::mqttbytes::v5::ConnectReturnCode as C;
    match code {
        C::Success | C::UnspecifiedError => 0x80,
        C::MalformedPacket => 0x81,
        C::ProtocolError => 0x82,
        C::ImplementationSpecificError => 0x83,
        C::RefusedProtocolVersion | C::UnsupportedProtocolVersion => 0x84,
        C::BadClientId | C::ClientIdentifierNotValid => 0x85,
        C::BadUserNamePassword => 0x86,
        C::NotAuthorized => 0x87,
        C::ServiceUnavailable | C::ServerUnavailable => 0x88,
        C::ServerBusy => 0x89,
        C::Banned => 0x8a,
        C::BadAuthenticationMethod => 0x8c,
        C::TopicNameInvalid => 0x90,
        C::PacketTooLarge => 0x95,
        C::QuotaExceeded => 0x97,
        C::PayloadFormatInvalid => 0x99,
        C::RetainNotSupported => 0x9a,
        C::QoSNotSupported => 0x9b,
        C::UseAnotherServer => 0x9c,
        C::ServerMoved => 0x9d,
        C::ConnectionRateExceeded => 0x9f,
    }
}

#[cfg(test)]
mod tests {
    use rumqttc::v5::mqttbytes::Error as PacketError;
    use rumqttc::v5::mqttbytes::v5::DisconnectReasonCode;
    use rumqttc::v5::{ConnectionError, StateError};

    use super::*;

    #[test]
    fn a_frozen_broker_has_refused_nothing_and_an_unknown_code_is_a_refusal() {
        let state = |error| Trouble::from(ConnectionError::MqttState(error)).loss();
        assert_eq!(state(StateError::AwaitPingResp), Loss::Silence);
        let unknown = PacketError::InvalidConnectReturnCode(149);
        assert_eq!(state(StateError::Deserialization(unknown)), Loss::Refused);
        let reason_code = DisconnectReasonCode::PacketTooLarge;
        assert_eq!(state(StateError::ServerDisconnect { reason_code, reason_string: None }), Loss::Refused);
        assert_eq!(state(StateError::ConnectionAborted), Loss::Ended);
    }
}
