//! MQTT 5's reason codes as people read them.

/// `code` with its name in the standard, `0x97 quota exceeded`.
pub(super) fn named(code: u8) -> String {
    let name = match code {
        0x00 => "success",
        0x10 => "no matching subscribers",
        0x80 => "unspecified error",
        0x81 => "malformed packet",
        0x82 => "protocol error",
        0x83 => "implementation specific error",
        0x84 => "unsupported protocol version",
        0x85 => "client identifier not valid",
        0x86 => "bad user name or password",
        0x87 => "not authorized",
        0x88 => "server unavailable",
        0x89 => "server busy",
        0x8a => "banned",
        0x8b => "server shutting down",
        0x8c => "bad authentication method",
        0x8d => "keep alive timeout",
        0x8e => "session taken over",
        0x8f => "topic filter invalid",
        0x90 => "topic name invalid",
        0x91 => "packet identifier in use",
        0x93 => "receive maximum exceeded",
        0x94 => "topic alias invalid",
        0x95 => "packet too large",
        0x96 => "message rate too high",
        0x97 => "quota exceeded",
        0x98 => "administrative action",
        0x99 => "payload format invalid",
        0x9a => "retain not supported",
        0x9b => "QoS not supported",
        0x9c => "use another server",
        0x9d => "server moved",
        0x9e => "shared subscriptions not supported",
        0x9f => "connection rate exceeded",
        0xa0 => "maximum connect time",
        0xa2 => "wildcard subscriptions not supported",
        _ => "a code that MQTT does not have here",
    };
    format!("0x{code:02x} {name}")
}

/// The return code of MQTT 3.1.1's CONNACK for MQTT 5's `code`, with its name in the standard.
pub(super) fn named_3(code: u8) -> String {
    match code {
        0x84 => "return code 1, unacceptable protocol version".into(),
        0x85 => "return code 2, identifier rejected".into(),
        0x88 => "return code 3, server unavailable".into(),
        0x86 => "return code 4, bad user name or password".into(),
        0x87 => "return code 5, not authorized".into(),
        code => named(code),
    }
}

/// What to do where the broker refuses the connection, or ends it, with `code`.
pub(super) fn connection_advice(code: u8) -> &'static str {
    match code {
        0x81 | 0x82 => "please report it, with the broker's name and version",
        0x84 => "the broker does not speak MQTT 5; set `mqtt.version = \"3.1.1\"`",
        0x85 => "it does not take our client id; do its rules want another `device` name?",
        0x86 | 0x8c => "check mqtt.username and mqtt.password_file",
        0x87 => "check mqtt.username and mqtt.password_file, and the broker's access rules",
        0x88 | 0x89 | 0x8b => "it is busy or going down; we keep trying",
        0x8a | 0x98 => "its administrator shut us out",
        0x8d => "it heard nothing from us in time; is the network slow?",
        0x8e => "another client has our id; is there a copy of this device's state_dir?",
        0x95 => "raise its limit on messages",
        0x96 | 0x97 | 0x9f => "it limits how much or how often we may connect and send; raise that limit",
        0x9a => "it keeps no retained messages; we go on without",
        0x9b => "it takes QoS 0 alone; we go on with that",
        0x9c | 0x9d => "it has moved; correct mqtt.url",
        _ => "see its log for the reason",
    }
}

/// What to do where it refuses a message with `code`.
pub(super) fn message_advice(code: u8) -> &'static str {
    match code {
        0x87 => "do its access rules let us write?",
        0x90 => "does it allow such topics (mqtt.base)?",
        0x95 => "raise its limit on messages",
        0x97 => "it holds as much as it may; does somebody read what we publish?",
        _ => "see its log for the reason",
    }
}

/// It refuses a subscription with `code`; what to do.
pub(super) fn subscription_refused(filter: &str, code: u8) -> String {
    let advice = match code {
        0x80 | 0x87 => "do its access rules let us read?",
        0x97 => "it limits subscriptions; raise that limit",
        0x9e => "it has no shared subscriptions; leave fleet.group empty",
        0xa2 => "it has no wildcards, which the commands' topic needs",
        _ => "see its log for the reason",
    };
    format!("the broker refuses the subscription to `{filter}` ({}); {advice}", named(code))
}
