//! MQTT 5 packets as bytes: for brokers that do what mosquitto cannot be made to do, and to see what passes between the
//! service and its broker.

use std::io::Read;

use serde_json::Value;

use crate::contract;

/// An MQTT 5 CONNACK of success, without properties.
pub const CONNACK: &[u8] = &[0x20, 3, 0, 0, 0];
/// The reason code of success.
pub const TAKEN: u8 = 0;
/// The type of a CONNECT.
pub const CONNECT: u8 = 1;
/// The type of a PUBLISH.
pub const PUBLISH: u8 = 3;
/// The type of a PUBACK.
pub const PUBACK: u8 = 4;
/// The type of a SUBSCRIBE.
pub const SUBSCRIBE: u8 = 8;
const PINGREQ: u8 = 12;
/// Below them are all topics of the service under test.
pub const BASE: &str = "diffused/test/";

/// A packet, of either end.
#[derive(Debug, Clone, Default)]
pub struct Packet {
    /// Its type.
    pub kind: u8,
    /// Of a PUBLISH of QoS 1, a PUBACK or a SUBSCRIBE; zeros in others.
    pub id: [u8; 2],
    /// Of a PUBLISH.
    pub topic: String,
    /// Of a PUBLISH.
    pub payload: Vec<u8>,
    /// Of a PUBLISH.
    pub retain: bool,
    /// The reason code of a PUBACK or CONNACK.
    pub code: u8,
    /// All of it.
    pub bytes: Vec<u8>,
}

impl Packet {
    /// The next packet, or `None` where the connection ends.
    pub fn read(stream: &mut impl Read) -> Option<Packet> {
        let mut bytes = vec![0];
        stream.read_exact(&mut bytes).ok()?;
        let mut length = 0;
        for shift in [0, 7, 14, 21] {
            let mut byte = [0];
            stream.read_exact(&mut byte).ok()?;
            bytes.push(byte[0]);
            length |= usize::from(byte[0] & 127) << shift;
            if byte[0] < 128 {
                break;
            }
        }
        let head = bytes.len();
        bytes.resize(head + length, 0);
        stream.read_exact(&mut bytes[head..]).ok()?;
        let (flags, body) = (bytes[0], &bytes[head..]);
        let id = |at: usize| body.get(at..at + 2).map_or([0; 2], |id| [id[0], id[1]]);
        let packet = Packet { kind: flags >> 4, ..Packet::default() };
        let packet = match packet.kind {
            PUBLISH => Packet { retain: flags & 1 == 1, ..Packet::publish(packet, flags & 6 != 0, body)? },
            PUBACK => Packet { id: id(0), code: body.get(2).copied().unwrap_or(TAKEN), ..packet },
            2 => Packet { code: *body.get(1)?, ..packet },
            SUBSCRIBE => Packet { id: id(0), ..packet },
            _ => packet,
        };
        Some(Packet { bytes, ..packet })
    }

    fn publish(packet: Packet, has_id: bool, body: &[u8]) -> Option<Packet> {
        let length = usize::from(u16::from_be_bytes([*body.first()?, *body.get(1)?]));
        let (topic, mut rest) = body.get(2..)?.split_at_checked(length)?;
        let mut id = [0; 2];
        if has_id {
            id.copy_from_slice(rest.get(..2)?);
            rest = &rest[2..];
        }
        let (mut properties, mut used) = (0, 0);
        for (at, byte) in rest.iter().enumerate().take(4) {
            properties |= usize::from(byte & 127) << (7 * at);
            used = at + 1;
            if *byte < 128 {
                break;
            }
        }
        let payload = rest.get(used + properties..)?.to_vec();
        Some(Packet { id, topic: String::from_utf8(topic.to_vec()).ok()?, payload, ..packet })
    }

    /// The topic without `BASE`, where it begins so.
    pub fn name(&self) -> &str {
        self.topic.strip_prefix(BASE).unwrap_or(&self.topic)
    }

    /// What is wrong with a PUBLISH of the service, by the contract's document.
    pub fn breaks_contract(&self) -> Option<String> {
        let problem = contract::check(&self.topic, &self.payload).err()?;
        Some(format!("{}: {problem}: {}", self.topic, String::from_utf8_lossy(&self.payload)))
    }

    /// The payload as JSON, `null` where it is something else.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.payload).unwrap_or_default()
    }
}

/// A PUBACK; without an id, as QoS 0 has none, nothing.
pub fn puback(packet: &Packet, code: u8) -> Vec<u8> {
    if packet.id == [0; 2] { vec![] } else { vec![0x40, 3, packet.id[0], packet.id[1], code] }
}

/// A SUBACK for the four filters of the service.
pub fn suback(packet: &Packet, code: u8) -> Vec<u8> {
    [&[0x90, 7, packet.id[0], packet.id[1], 0][..], &[code; 4]].concat()
}

/// A request for an image, to the service: of QoS 1 with an `id` other than 0, else of QoS 0.
pub fn request(value: &Value, id: u16) -> Vec<u8> {
    let (topic, payload) = (format!("{BASE}txt2img"), value.to_string());
    let id = if id == 0 { vec![] } else { id.to_be_bytes().to_vec() };
    let body = [&[0, topic.len() as u8], topic.as_bytes(), &id, &[0], payload.as_bytes()].concat();
    let length = [body.len() as u8 | 128, (body.len() >> 7) as u8];
    assert!(body.len() < 1 << 14);
    [&[if id.is_empty() { 0x30 } else { 0x32 }], &length[..], &body].concat()
}

/// What an obedient broker answers.
pub fn obey(packet: &Packet) -> Vec<u8> {
    match packet.kind {
        CONNECT => CONNACK.to_vec(),
        PUBLISH => puback(packet, TAKEN),
        SUBSCRIBE => suback(packet, 1),
        PINGREQ => vec![0xd0, 0],
        _ => vec![],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_is_read_as_it_was_written() {
        let value = json!({"prompt": "x".repeat(300)});
        for id in [0, 0x1234] {
            let bytes = request(&value, id);
            let packet = Packet::read(&mut bytes.as_slice()).unwrap();
            assert_eq!((packet.name(), packet.json(), packet.retain), ("txt2img", value.clone(), false));
            assert_eq!((packet.id, &packet.bytes), (id.to_be_bytes(), &bytes));
        }
        let packet = Packet::read(&mut &[0x40, 3, 1, 2, 0x95][..]).unwrap();
        assert_eq!((packet.kind, packet.id, packet.code), (PUBACK, [1, 2], 0x95));
        assert!(Packet::read(&mut &[0x40, 3, 1][..]).is_none());
    }
}
