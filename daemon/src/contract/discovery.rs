//! Home Assistant's MQTT discovery: one message that describes the device and its entities. Each reads a topic of the
//! contract by a template of Home Assistant's and writes to one; nothing is published for them alone.

use serde_json::{Map, Value, json};

use crate::contract::info::DeviceInfo;
use crate::contract::settings::PromptSettings;
use crate::contract::topics::Topics;

/// Seconds without `…/health`, which comes once a minute, after which what it said is not known any more.
const STALE: u32 = 180;
/// The longest state that Home Assistant has, characters: of text that is longer it shows the beginning.
const LONGEST_STATE: usize = 255;

/// The payload for the device `name`. `preview`: whether jobs have previews by themselves.
pub fn payload(topics: &Topics, name: &str, info: &DeviceInfo, preview: bool) -> Value {
    let id = topics.object_id();
    let mut components = Map::new();
    for (key, mut component) in all(topics, info, preview) {
        component["unique_id"] = json!(format!("{id}_{key}"));
        // A request or a command is worth an acknowledgement.
        component["qos"] = json!(1);
        components.insert(key.to_owned(), component);
    }
    json!({
        "dev": {
            "identifiers": [id],
            "name": name,
            "manufacturer": "diffused",
            "model": info.model.name,
            "model_id": format!("{} {}", info.model.family, info.model.weights),
            "sw_version": info.version,
        },
        "o": {"name": "diffused", "sw_version": info.version, "support_url": env!("CARGO_PKG_REPOSITORY")},
        // Not as a list: Home Assistant has its entities share that, and completes it while it makes the first of them.
        "availability_topic": topics.of("status"),
        "payload_available": "online",
        "payload_not_available": "offline",
        "cmps": components,
    })
}

/// Every entity by its key.
fn all(topics: &Topics, info: &DeviceInfo, preview: bool) -> Vec<(&'static str, Value)> {
    [pictures(topics, preview), prompts(topics), settings(topics, info), queue(topics), health(topics)].concat()
}

fn pictures(topics: &Topics, preview: bool) -> Vec<(&'static str, Value)> {
    vec![
        (
            "picture",
            json!({"p": "image", "name": "Picture", "image_topic": topics.of("image"), "content_type": "image/png"}),
        ),
        (
            "preview",
            json!({
                "p": "image", "name": "Preview", "image_topic": topics.job("+", "preview"),
                "content_type": "image/jpeg", "enabled_by_default": preview,
            }),
        ),
    ]
}

/// What is typed here is painted; the second takes prompts of any length, from automations.
fn prompts(topics: &Topics) -> Vec<(&'static str, Value)> {
    let topic = topics.of("txt2img");
    vec![
        (
            "prompt",
            json!({
                "p": "text", "name": "Prompt", "icon": "mdi:brush", "command_topic": topic, "min": 1,
                "max": LONGEST_STATE,
            }),
        ),
        ("paint", json!({"p": "notify", "name": "Paint", "icon": "mdi:brush", "command_topic": topic})),
    ]
}

/// What the prompts to come are painted with. They show the device's own choice where nothing is set.
fn settings(topics: &Topics, info: &DeviceInfo) -> Vec<(&'static str, Value)> {
    let of = |key: &str, mut entity: Value| {
        entity["entity_category"] = json!("config");
        entity["command_topic"] = json!(topics.of("request/settings"));
        entity["command_template"] = json!(format!("{{\"{key}\": {{{{ value | tojson }}}}}}"));
        entity["state_topic"] = json!(topics.of("info"));
        let own = if key == "negative_prompt" { "''".to_owned() } else { format!("value_json.defaults.{key}") };
        let cut = if key == "negative_prompt" { format!("[:{LONGEST_STATE}]") } else { String::new() };
        entity["value_template"] = json!(format!("{{{{ (value_json.settings.{key} | default({own})){cut} }}}}"));
        entity
    };
    let nothing: Map<String, Value> =
        PromptSettings::KEYS.map(|key| (key.to_owned(), Value::Null)).into_iter().collect();
    let steps = json!({
        "p": "number", "name": "Steps", "icon": "mdi:stairs", "min": 1, "max": 1000, "step": 1, "mode": "box",
    });
    let cfg_scale = json!({
        "p": "number", "name": "Guidance scale", "icon": "mdi:compass", "min": 0, "max": 50, "step": 0.1, "mode": "box",
    });
    let sampler = json!({
        "p": "select", "name": "Sampler", "icon": "mdi:chart-bell-curve", "options": info.samplers,
    });
    let negative_prompt = json!({
        "p": "text", "name": "Negative prompt", "icon": "mdi:cancel", "min": 0, "max": LONGEST_STATE,
    });
    vec![
        ("steps", of("steps", steps)),
        ("cfg_scale", of("cfg_scale", cfg_scale)),
        ("sampler", of("sampler_name", sampler)),
        ("negative_prompt", of("negative_prompt", negative_prompt)),
        (
            "own_settings",
            json!({
                "p": "button", "name": "Model's own settings", "icon": "mdi:restore", "entity_category": "config",
                "command_topic": topics.of("request/settings"), "payload_press": json!(nothing).to_string(),
            }),
        ),
    ]
}

fn queue(topics: &Topics) -> Vec<(&'static str, Value)> {
    let state_topic = topics.of("activity");
    vec![
        (
            "state",
            json!({
                "p": "sensor", "name": "State", "icon": "mdi:state-machine", "device_class": "enum",
                "options": ["idle", "painting", "cooling", "paused"],
                "state_topic": state_topic, "value_template": "{{ value_json.state }}",
            }),
        ),
        (
            "progress",
            json!({
                "p": "sensor", "name": "Progress", "icon": "mdi:progress-clock", "unit_of_measurement": "%",
                "state_topic": state_topic,
                "value_template": "{{ ((value_json.progress | default(0, true)) * 100) | round | int }}",
            }),
        ),
        (
            "time_left",
            json!({
                "p": "sensor", "name": "Time left", "device_class": "duration", "unit_of_measurement": "s",
                "suggested_display_precision": 0, "state_topic": state_topic,
                "value_template": "{{ value_json.eta_relative | default(none) }}",
            }),
        ),
        (
            "waiting",
            json!({
                "p": "sensor", "name": "Waiting jobs", "icon": "mdi:tray-full", "state_class": "measurement",
                "state_topic": state_topic, "value_template": "{{ value_json.waiting }}",
            }),
        ),
        (
            "pause",
            json!({
                "p": "switch", "name": "Pause", "icon": "mdi:pause", "command_topic": topics.of("request/pause"),
                "payload_on": "{\"paused\": true}", "payload_off": "{\"paused\": false}", "state_topic": state_topic,
                "state_on": "paused", "state_off": "not paused",
                "value_template": "{{ 'paused' if value_json.paused else 'not paused' }}",
            }),
        ),
        (
            "cancel",
            json!({
                "p": "button", "name": "Cancel", "icon": "mdi:close", "command_topic": topics.of("cancel"),
                "payload_press": "{\"running\": true}",
            }),
        ),
        (
            "cancel_all",
            json!({
                "p": "button", "name": "Cancel all", "icon": "mdi:close-box-multiple",
                "command_topic": topics.of("cancel"), "payload_press": "{\"all\": true}",
            }),
        ),
    ]
}

fn health(topics: &Topics) -> Vec<(&'static str, Value)> {
    let of = |mut entity: Value, template: String| {
        entity["entity_category"] = json!("diagnostic");
        entity["state_topic"] = json!(topics.of("health"));
        entity["expire_after"] = json!(STALE);
        entity["value_template"] = json!(template);
        entity
    };
    let plain = |key: &str| format!("{{{{ value_json.{key} }}}}");
    let bytes = |key: &str, shift: u32| {
        format!("{{{{ (value_json.{key} / {}) | round(1) if value_json.{key} is number else none }}}}", 1u64 << shift)
    };
    let flag =
        |key: &str| format!("{{{{ none if value_json.{key} is none else 'ON' if value_json.{key} else 'OFF' }}}}");
    let sensor = |name: &str, class: &str, unit: &str| {
        json!({
            "p": "sensor", "name": name, "device_class": class, "unit_of_measurement": unit,
            "state_class": "measurement", "suggested_display_precision": 1,
        })
    };
    let alarm =
        |name: &str, icon: &str| json!({"p": "binary_sensor", "name": name, "device_class": "problem", "icon": icon});
    let mut problems = of(alarm("Problem", "mdi:alert"), flag("problems"));
    problems["json_attributes_topic"] = json!(topics.of("health"));
    problems["json_attributes_template"] = json!("{{ {'problems': value_json.problems} | tojson }}");
    vec![
        ("memory", of(sensor("Memory", "data_size", "MiB"), bytes("rss", 20))),
        ("temperature", of(sensor("Temperature", "temperature", "°C"), plain("temperature"))),
        ("seconds_per_step", of(sensor("Time per step", "duration", "s"), plain("seconds_per_step"))),
        ("disk_free", of(sensor("Disk free", "data_size", "GiB"), bytes("disk_free", 30))),
        ("throttled", of(alarm("Throttled", "mdi:speedometer-slow"), flag("throttled"))),
        ("problem", problems),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    /// The message of a device of the default configuration with `device`.
    fn message(device: &str) -> (Topics, Value) {
        let config = Config::parse(&format!("device = {device:?}"), "c.toml".as_ref()).unwrap();
        let topics = config.topics();
        let examples = crate::contract::asyncapi::info_example();
        let info: DeviceInfo = serde_json::from_value(examples).unwrap();
        let payload = payload(&topics, device, &info, false);
        (topics, payload)
    }

    /// Topics that the device publishes, and those that it acts on.
    const READ: [&str; 5] = ["status", "info", "health", "activity", "image"];

    #[test]
    fn every_entity_reads_and_writes_topics_of_the_contract() {
        let (topics, message) = message("frame");
        let components = message["cmps"].as_object().unwrap();
        assert!(components.len() > 20);
        for (key, component) in components {
            assert_eq!(component["unique_id"], format!("diffused_frame_{key}"));
            for (name, topic) in component.as_object().unwrap().iter().filter(|(name, _)| name.ends_with("topic")) {
                let topic = topic.as_str().unwrap();
                let is_known = match name.as_str() {
                    "command_topic" => topics.input(topic).is_some(),
                    _ => READ.iter().any(|name| topics.of(name) == topic) || topic == topics.job("+", "preview"),
                };
                assert!(is_known, "{key}: {name} = {topic}");
            }
        }
        // Far below the smallest limit of a broker, 128 KiB.
        assert!(message.to_string().len() < 12_000, "{}", message.to_string().len());
    }

    #[test]
    fn the_id_is_one_that_home_assistant_takes() {
        let (topics, message) = message("kitchen.v2");
        assert_eq!(topics.discovery(), "homeassistant/device/diffused_kitchen_v2/config");
        assert_eq!(message["dev"]["identifiers"], json!(["diffused_kitchen_v2"]));
    }
}
