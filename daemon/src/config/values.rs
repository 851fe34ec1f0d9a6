//! The values of configuration keys: each is checked where it is parsed, so that every error has a line and a key.

use std::fmt;
use std::path::PathBuf;

pub use diffused_engine::byte_size::ByteSize;
use serde::Deserialize;
use serde::de::{Deserializer, Error};

use crate::contract::topics::TopicLevel;

/// A whole number from `LEAST` to `MOST`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounded<const LEAST: u32, const MOST: u32>(pub u32);

impl<'de, const LEAST: u32, const MOST: u32> Deserialize<'de> for Bounded<LEAST, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = i64::deserialize(deserializer)?;
        let allowed = u32::try_from(number).ok().filter(|number| (LEAST..=MOST).contains(number));
        allowed.map(Bounded).ok_or_else(|| {
            D::Error::custom(format!("{number} is out of range; whole numbers from {LEAST} to {MOST} are allowed"))
        })
    }
}

/// A path from the root on: the service's working folder is not the shell's, and `~` is known to shells alone.
pub(super) fn whole_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    let path = PathBuf::deserialize(deserializer)?;
    if path.is_absolute() {
        return Ok(Some(path));
    }
    let shown = path.display();
    Err(D::Error::custom(format!(
        "`{shown}` does not begin with `/`; write the whole path (`~` is known to shells alone)"
    )))
}

/// The size of an MQTT packet, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "ByteSize")]
pub struct PacketSize(pub u32);

impl TryFrom<ByteSize> for PacketSize {
    type Error = String;

    fn try_from(size: ByteSize) -> Result<PacketSize, String> {
        let bytes = u32::try_from(size.0).ok().filter(|bytes| (1024..=0x1000_0000).contains(bytes));
        let wrong = || format!("{} bytes are out of range; 1K to 256M, which is MQTT's own limit, are allowed", size.0);
        bytes.map(PacketSize).ok_or_else(wrong)
    }
}

/// What carries MQTT to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// `mqtt://`
    Tcp,
    /// `mqtts://`
    Tls,
    /// `ws://`, a websocket
    Ws,
    /// `wss://`, a websocket over TLS
    Wss,
}

impl Transport {
    /// By the address's scheme, with its usual port.
    const ALL: [(&str, Transport, u16); 4] = [
        ("mqtt", Transport::Tcp, 1883),
        ("mqtts", Transport::Tls, 8883),
        ("ws", Transport::Ws, 80),
        ("wss", Transport::Wss, 443),
    ];

    /// Whether it is encrypted.
    pub fn is_tls(self) -> bool {
        matches!(self, Transport::Tls | Transport::Wss)
    }

    /// Whether it is a websocket.
    pub fn is_websocket(self) -> bool {
        matches!(self, Transport::Ws | Transport::Wss)
    }
}

/// The version of MQTT that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum MqttVersion {
    /// MQTT 5
    #[default]
    #[serde(rename = "5")]
    V5,
    /// MQTT 3.1.1
    #[serde(rename = "3.1.1")]
    V3,
}

/// A broker's address.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct Url {
    /// How to get there.
    pub transport: Transport,
    /// Name or address; one of IPv6 is in brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Of a websocket, with its `/`; else empty.
    pub path: String,
}

impl Default for Url {
    fn default() -> Url {
        Url { transport: Transport::Tcp, host: "127.0.0.1".into(), port: 1883, path: String::new() }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let scheme = Transport::ALL.iter().find(|(_, transport, _)| *transport == self.transport);
        write!(f, "{}://{}:{}{}", scheme.map_or("mqtt", |(name, ..)| name), self.host, self.port, self.path)
    }
}

impl TryFrom<String> for Url {
    type Error = String;

    fn try_from(text: String) -> Result<Url, String> {
        // A login in the address is not to be seen in logs.
        let shown = match (text.split_once("://"), text.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, host))) => format!("{scheme}://…@{host}"),
            (None, Some((_, host))) => format!("…@{host}"),
            _ => text.clone(),
        };
        let wrong = |why: &str| Err(format!("`{shown}` {why}; an address looks like mqtt://127.0.0.1:1883"));
        let Some((scheme, rest)) = text.split_once("://") else { return wrong("lacks mqtt://") };
        let Some(&(_, transport, usual)) = Transport::ALL.iter().find(|(name, ..)| *name == scheme) else {
            return wrong("has a scheme other than mqtt, mqtts, ws and wss");
        };
        if rest.contains('@') {
            return wrong("has a login in it (`username` and `password_file` are keys of their own)");
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let path = match path {
            "" | "/" if transport.is_websocket() => "/mqtt",
            path if transport.is_websocket() => path,
            "" | "/" => "",
            _ => return wrong("has a path, which only websockets (ws://, wss://) have"),
        };
        let unfit = |c: char| c.is_whitespace() || c.is_control() || "?#".contains(c);
        if rest.contains(unfit) {
            return wrong("has more than host, port and path");
        }
        let port = |text: &str| text.parse().ok().filter(|port| *port > 0);
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, text)) if !text.ends_with(']') => (host, port(text)),
            _ => (authority, Some(usual)),
        };
        match port {
            None => wrong("has a port that is not from 1 to 65535"),
            Some(_) if host.is_empty() => wrong("lacks a host"),
            Some(port) => Ok(Url { transport, host: host.to_owned(), port, path: path.to_owned() }),
        }
    }
}

/// The name of a fleet's group, one level of a topic, or nothing.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct GroupName(pub String);

impl TryFrom<String> for GroupName {
    type Error = String;

    fn try_from(text: String) -> Result<GroupName, String> {
        if text.is_empty() { Ok(GroupName(text)) } else { TopicLevel::try_from(text).map(|level| GroupName(level.0)) }
    }
}
