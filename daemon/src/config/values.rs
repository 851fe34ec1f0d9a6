//! The values of configuration keys: each is checked where it is parsed, so that every error has a line and a key.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

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

/// Bytes, at least 1: in files and on the command line a number with K, M or G, always of 1024; in a file also a plain
/// number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// The largest size that is taken: up to here f64 represents every whole number.
    const MOST: u64 = 1 << 53;

    /// `text` is quoted in the error.
    #[expect(clippy::cast_possible_truncation, reason = "a fraction of a byte is cut off; the range is checked")]
    fn new(bytes: f64, text: &str) -> Result<ByteSize, String> {
        match bytes {
            ..1.0 => Err(format!("`{text}` is too small; a size is at least 1 byte")),
            _ if bytes <= ByteSize::MOST as f64 => Ok(ByteSize(bytes as u64)),
            _ => Err(format!("`{text}` is too large; a size is at most {}G", ByteSize::MOST >> 30)),
        }
    }
}

impl FromStr for ByteSize {
    type Err = String;

    /// `200M`, `1.5 GiB`, `512kb`, `1048576`: case, spaces before the unit, and a B or iB after it change nothing.
    fn from_str(text: &str) -> Result<ByteSize, String> {
        let wrong = || format!("`{text}` is not a size; write a number with K, M or G, for example 200M or 1.5G");
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let trimmed = text.trim();
        let (number, unit) = trimmed.split_at(trimmed.find(|c| !is_number(c)).unwrap_or(trimmed.len()));
        let unit_bytes = match unit.trim_start().to_ascii_lowercase().as_str() {
            "" | "b" => 1.0,
            "k" | "kb" | "kib" => 1024.0,
            "m" | "mb" | "mib" => 1024.0 * 1024.0,
            "g" | "gb" | "gib" => 1024.0 * 1024.0 * 1024.0,
            _ => return Err(wrong()),
        };
        if unit_bytes == 1.0 && number.contains('.') {
            return Err(wrong());
        }
        let number: f64 = number.parse().map_err(|_| wrong())?;
        ByteSize::new(number * unit_bytes, text)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
        deserializer.deserialize_any(ByteSizeVisitor)
    }
}

struct ByteSizeVisitor;

impl Visitor<'_> for ByteSizeVisitor {
    type Value = ByteSize;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a size such as \"200M\", or a whole number of bytes")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<ByteSize, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, bytes: i64) -> Result<ByteSize, E> {
        ByteSize::new(bytes as f64, &bytes.to_string()).map_err(E::custom)
    }
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

/// A broker's address.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct Url {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
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
        match scheme {
            "mqtt" => {}
            "mqtts" => return wrong("needs TLS, which this version does not support yet"),
            _ => return wrong("has a scheme other than mqtt://"),
        }
        let rest = rest.trim_end_matches('/');
        if rest.contains(['/', '@', '?']) {
            return wrong("has more than host and port (`username` and `password_file` are keys of their own)");
        }
        let port = |text: &str| text.parse().ok().filter(|port| *port > 0);
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, text)) if !text.ends_with(']') => (host, port(text)),
            _ => (rest, Some(1883)),
        };
        match port {
            None => wrong("has a port that is not from 1 to 65535"),
            Some(_) if host.is_empty() => wrong("lacks a host"),
            Some(port) => Ok(Url { host: host.to_owned(), port }),
        }
    }
}

/// A key of the contract whose feature this version lacks: any value but the default is an error, so that nobody
/// relies on a setting that does nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NotYet<T>(T);

impl<'de, T: Default + PartialEq + Deserialize<'de>> Deserialize<'de> for NotYet<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<NotYet<T>, D::Error> {
        if T::deserialize(deserializer)? == T::default() {
            return Ok(NotYet::default());
        }
        Err(D::Error::custom("this version does not support this yet; leave the key out"))
    }
}
