//! Sizes as people write them, `200M`.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

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
