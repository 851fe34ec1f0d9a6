//! The contract's document, docs/asyncapi.json, as what every message is measured by: from a topic to the schema that its
//! payload must have. Devices are held to it strictly: a key that the schema does not name is a mistake.

use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::root;

mod schema;

/// docs/asyncapi.json.
pub fn description() -> &'static Value {
    static DESCRIPTION: LazyLock<Value> = LazyLock::new(|| {
        let text = std::fs::read_to_string(root().join("docs/asyncapi.json")).expect("docs/asyncapi.json");
        serde_json::from_str(&text).expect("docs/asyncapi.json is JSON")
    });
    &DESCRIPTION
}

/// The document, with devices' messages closed to keys that it does not name.
static STRICT: LazyLock<Value> = LazyLock::new(|| {
    let mut strict = description().clone();
    let schemas = strict["components"]["schemas"].as_object_mut().expect("schemas");
    schemas.iter_mut().filter(|(name, _)| !name.ends_with("Request")).for_each(|(_, schema)| close(schema));
    strict
});

/// Lets the objects of `schema` have no other keys than those that it names.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if map.get("type").is_some_and(|kind| kind == "object") && !map.contains_key("additionalProperties") {
                map.insert("additionalProperties".to_owned(), json!(false));
            }
            map.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

/// Validates `value` against the schema `name`.
///
/// # Errors
/// What is wrong with it, and where.
pub fn validate(name: &str, value: &Value) -> Result<(), String> {
    let mut faults = vec![];
    let schema = json!({"$ref": format!("#/components/schemas/{name}")});
    schema::validate(&STRICT, &schema, value, "", &mut faults);
    if faults.is_empty() { Ok(()) } else { Err(format!("not a {name}: {}", faults.join("; "))) }
}

/// Validates a message that a device sent: `topic` in full, or one that a client named for answers. What clients send to
/// a device is not looked at: tests send it wrong things.
///
/// # Errors
/// What is wrong with it: a topic that the contract does not have, or a payload that is not the topic's.
pub fn check(topic: &str, payload: &[u8]) -> Result<(), String> {
    let Some((name, channel)) = channel(topic) else {
        // Whichever kind of answer it is.
        let names = ["JobState", "JobResult", "Response"];
        let value = parse(payload)?;
        let fits = names.iter().any(|name| validate(name, &value).is_ok());
        return if fits { Ok(()) } else { Err(format!("neither of {names:?}")) };
    };
    if description()["operations"][name]["action"] != "send" {
        return Ok(());
    }
    let messages = channel["messages"].as_object().expect("a channel's messages");
    let name = messages.keys().next().expect("one message a channel");
    match name.as_str() {
        "ImageFile" if payload.starts_with(b"\x89PNG\r\n\x1a\n") || payload.starts_with(b"\xff\xd8\xff") => Ok(()),
        "ImageFile" => Err("neither a PNG nor a JPEG".into()),
        "PreviewFile" if payload.starts_with(b"\xff\xd8\xff") => Ok(()),
        "PreviewFile" => Err("not a JPEG".into()),
        // It is taken back: the broker is to forget it.
        "Activity" if payload.is_empty() => Ok(()),
        // A display's memory holds any bytes.
        "OutputFile" => Ok(()),
        "Status" | "DoctorText" => validate(name, &String::from_utf8_lossy(payload).into()),
        _ => validate(name, &parse(payload)?),
    }
}

fn parse(payload: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(payload).map_err(|error| error.to_string())
}

/// The QoS with which a device publishes on `topic`, whether the broker keeps it, and the content type; `None`: no device
/// publishes there.
pub fn delivery(topic: &str) -> Option<(u64, bool, &'static str)> {
    let (name, channel) = channel(topic)?;
    let operation = &description()["operations"][name];
    let binding = &operation["bindings"]["mqtt"];
    let message = channel["messages"].as_object()?.keys().next()?;
    let content_type = description()["components"]["messages"][message]["contentType"].as_str()?;
    (operation["action"] == "send").then_some((binding["qos"].as_u64()?, binding["retain"].as_bool()?, content_type))
}

/// The channel of a topic of a device whose base is one level, and its name; `None`: not a device's.
fn channel(topic: &str) -> Option<(&'static str, &'static Value)> {
    let channels = description()["channels"].as_object().expect("channels");
    let matches = |address: &str| {
        let (wanted, given) = (address.split('/'), topic.split('/'));
        wanted.clone().count() == given.clone().count()
            && wanted.zip(given).all(|(wanted, given)| wanted.starts_with('{') || wanted == given)
    };
    let found = channels.iter().find(|(_, channel)| channel["address"].as_str().is_some_and(matches))?;
    Some((found.0.as_str(), found.1))
}
