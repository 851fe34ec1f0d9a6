//! Topics, directions, QoS and retention, as AsyncAPI writes them.

use serde_json::{Map, Value, json};

use super::examples::examples;

/// Version of AsyncAPI's bindings for MQTT.
const BINDING: &str = "0.2.0";

/// What the topics of one device begin with, and those of work that several share.
const DEVICE: &str = "{base}/{device}";
const SHARED: &str = "{base}/any";

/// A topic.
struct Channel {
    name: &'static str,
    root: &'static str,
    /// Below the root.
    address: &'static str,
    description: &'static str,
    /// The device publishes it.
    out: bool,
    qos: u8,
    retain: bool,
    messages: &'static [&'static str],
}

const CHANNELS: [Channel; 23] = [
    Channel {
        name: "status",
        root: DEVICE,
        address: "status",
        description: "Whether the device is there; also its last will.",
        out: true,
        qos: 1,
        retain: true,
        messages: &["Status"],
    },
    Channel {
        name: "info",
        root: DEVICE,
        address: "info",
        description: "What the device is and what it takes, at each connection.",
        out: true,
        qos: 1,
        retain: true,
        messages: &["DeviceInfo"],
    },
    Channel {
        name: "health",
        root: DEVICE,
        address: "health",
        description: "Memory, temperature, disk and queue, at each connection and once a minute.",
        out: true,
        qos: 0,
        retain: false,
        messages: &["Health"],
    },
    Channel {
        name: "activity",
        root: DEVICE,
        address: "activity",
        description: "What the device does, with `home_assistant.discovery`: whenever that changes, at most once a second.",
        out: true,
        qos: 0,
        retain: true,
        messages: &["Activity"],
    },
    Channel {
        name: "doctor",
        root: DEVICE,
        address: "doctor",
        description: "What `diffused doctor` sends to itself, to see whether messages pass. Of no use to others.",
        out: true,
        qos: 1,
        retain: false,
        messages: &["DoctorText"],
    },
    Channel {
        name: "txt2img",
        root: DEVICE,
        address: "txt2img",
        description: "A prompt to paint. Never retained.",
        out: false,
        qos: 1,
        retain: false,
        messages: &["Txt2ImgRequest", "Prompt"],
    },
    Channel {
        name: "img2img",
        root: DEVICE,
        address: "img2img",
        description: "A prompt and an image to start from. Never retained.",
        out: false,
        qos: 1,
        retain: false,
        messages: &["Img2ImgRequest"],
    },
    Channel {
        name: "cancel",
        root: DEVICE,
        address: "cancel",
        description: "Cancels one job or all; answered on `…/response/cancel`.",
        out: false,
        qos: 1,
        retain: false,
        messages: &["CancelRequest"],
    },
    Channel {
        name: "command",
        root: DEVICE,
        address: "request/{command}",
        description: "A command; answered on `…/response/{command}`.",
        out: false,
        qos: 1,
        retain: false,
        messages: &["CommandRequest"],
    },
    Channel {
        name: "pause",
        root: DEVICE,
        address: "request/pause",
        description: "Starts no further job, or goes on; answered on `…/response/pause`.",
        out: false,
        qos: 1,
        retain: false,
        messages: &["PauseRequest"],
    },
    Channel {
        name: "move",
        root: DEVICE,
        address: "request/move",
        description: "Gives a job that waits another place in the queue; answered on `…/response/move`.",
        out: false,
        qos: 1,
        retain: false,
        messages: &["MoveRequest"],
    },
    Channel {
        name: "settings",
        root: DEVICE,
        address: "request/settings",
        description: "Sets what prompts that come as plain text are painted with; answered on `…/response/settings`.",
        out: false,
        qos: 1,
        retain: false,
        messages: &["SettingsRequest"],
    },
    Channel {
        name: "response",
        root: DEVICE,
        address: "response/{command}",
        description: "The answer to a command or to `…/cancel`, in zigbee2mqtt's form.",
        out: true,
        qos: 1,
        retain: false,
        messages: &["Response"],
    },
    Channel {
        name: "jobState",
        root: DEVICE,
        address: "job/{id}/state",
        description: "`queued`, `running`, then exactly one of `done`, `failed`, `cancelled` and `rejected`.",
        out: true,
        qos: 1,
        retain: false,
        messages: &["JobState"],
    },
    Channel {
        name: "jobProgress",
        root: DEVICE,
        address: "job/{id}/progress",
        description: "How far a job is, at most once a second.",
        out: true,
        qos: 0,
        retain: false,
        messages: &["JobProgress"],
    },
    Channel {
        name: "jobPreview",
        root: DEVICE,
        address: "job/{id}/preview",
        description: "What a job's image looks like so far, where that was asked for; at most once a second.",
        out: true,
        qos: 0,
        retain: false,
        messages: &["PreviewFile"],
    },
    Channel {
        name: "jobImage",
        root: DEVICE,
        address: "job/{id}/image/{n}",
        description: "An image of a job.",
        out: true,
        qos: 1,
        retain: false,
        messages: &["ImageFile"],
    },
    Channel {
        name: "jobOutput",
        root: DEVICE,
        address: "job/{id}/output/{n}",
        description: "What a display shows of an image of a job.",
        out: true,
        qos: 1,
        retain: false,
        messages: &["OutputFile"],
    },
    Channel {
        name: "jobResult",
        root: DEVICE,
        address: "job/{id}/result",
        description: "What was painted, after the job's images.",
        out: true,
        qos: 1,
        retain: false,
        messages: &["JobResult"],
    },
    Channel {
        name: "image",
        root: DEVICE,
        address: "image",
        description: "The latest image of any job: the same bytes. Retained with `mqtt.retain_image`.",
        out: true,
        qos: 0,
        retain: false,
        messages: &["ImageFile"],
    },
    Channel {
        name: "output",
        root: DEVICE,
        address: "output",
        description: "The latest output of any job: the same bytes. Retained with `mqtt.retain_image`.",
        out: true,
        qos: 0,
        retain: false,
        messages: &["OutputFile"],
    },
    Channel {
        name: "sharedTxt2img",
        root: SHARED,
        address: "txt2img",
        description: "A prompt for whichever device of a fleet has nothing else to do: a shared subscription.",
        out: false,
        qos: 1,
        retain: false,
        messages: &["Txt2ImgRequest", "Prompt"],
    },
    Channel {
        name: "sharedImg2img",
        root: SHARED,
        address: "img2img",
        description: "A prompt and an image to start from, for whichever device of a fleet has nothing else to do.",
        out: false,
        qos: 1,
        retain: false,
        messages: &["Img2ImgRequest"],
    },
];

fn reference(path: &str) -> Value {
    json!({"$ref": format!("#/{path}")})
}

/// The broker, and the device's session with it.
pub(super) fn server() -> Value {
    json!({
        "host": "{host}:1883",
        "protocol": "mqtt",
        "protocolVersion": "5",
        "description": "The broker of the network; `mqtt.url` in the configuration.",
        "variables": {"host": {"default": "localhost", "description": "Name or address."}},
        "bindings": {"mqtt": {
            "clientId": "diffused-{device}-{installation}",
            "cleanSession": false,
            "lastWill": {"topic": "{base}/{device}/status", "qos": 1, "message": "offline", "retain": true},
            "keepAlive": 30,
            "sessionExpiryInterval": 604_800,
            "bindingVersion": BINDING,
        }},
    })
}

/// Every topic, and the one that a client names in its request.
pub(super) fn channels() -> Map<String, Value> {
    let mut channels: Map<String, Value> =
        CHANNELS.iter().map(|channel| (channel.name.to_owned(), channel.describe())).collect();
    let copies = ["JobState", "JobResult", "Response"];
    channels.insert(
        "answers".to_owned(),
        json!({
            "address": null,
            "description": "The response topic of a request (MQTT 5), below `{base}/{device}/reply/` or allowed by \
                `mqtt.response_topics`: copies of the request's states and result, or of a command's answer, with its \
                correlation data.",
            "messages": message_references(&copies),
        }),
    );
    channels
}

fn message_references(names: &[&str]) -> Map<String, Value> {
    names.iter().map(|name| ((*name).to_owned(), reference(&format!("components/messages/{name}")))).collect()
}

impl Channel {
    fn describe(&self) -> Value {
        let address = format!("{}/{}", self.root, self.address);
        let names = address.split('/').filter_map(|level| level.strip_prefix('{')?.strip_suffix('}'));
        let parameters = names.map(|name| (name.to_owned(), reference(&format!("components/parameters/{name}"))));
        json!({
            "address": address,
            "description": self.description,
            "parameters": parameters.collect::<Map<_, _>>(),
            "messages": message_references(self.messages),
        })
    }

    fn operation(&self) -> Value {
        let path = format!("channels/{}", self.name);
        let messages = |channel: &str, names: &[&str]| -> Vec<Value> {
            names.iter().map(|name| reference(&format!("channels/{channel}/messages/{name}"))).collect()
        };
        let mut operation = json!({
            "action": if self.out { "send" } else { "receive" },
            "channel": reference(&path),
            "summary": self.description,
            "messages": messages(self.name, self.messages),
            "bindings": {"mqtt": {"qos": self.qos, "retain": self.retain, "bindingVersion": BINDING}},
        });
        if !self.out {
            let answers: &[&str] =
                if self.address.ends_with("2img") { &["JobState", "JobResult"] } else { &["Response"] };
            operation["reply"] = json!({
                "address": {
                    "location": "$message.header#/responseTopic",
                    "description": "MQTT 5's response topic; the answers go to the device's own topics in any case.",
                },
                "channel": reference("channels/answers"),
                "messages": messages("answers", answers),
            });
        }
        operation
    }
}

/// What the device does with each topic.
pub(super) fn operations() -> Map<String, Value> {
    CHANNELS.iter().map(|channel| (channel.name.to_owned(), channel.operation())).collect()
}

/// The topics' levels.
pub(super) fn parameters() -> Value {
    json!({
        "base": {"description": "`mqtt.base` of the configuration; may have slashes.", "default": "diffused"},
        "device": {"description": "`device` of the configuration: 1 to 64 letters, digits, `-`, `_` and `.`."},
        "command": {
            "description": "A command's name.",
            "enum": ["list", "pause", "resume", "move", "settings", "reload", "health", "self_test", "cancel"],
        },
        "id": {"description": "The job: the request's `id`, or one that the device made."},
        "n": {"description": "The image's number in its job, from 0."},
    })
}

/// The payload of each topic, with its content type and examples.
pub(super) fn messages() -> Map<String, Value> {
    let mut messages = Map::new();
    for name in CHANNELS.iter().flat_map(|channel| channel.messages) {
        let (content_type, is_text) = match *name {
            "Status" | "Prompt" | "DoctorText" => ("text/plain", 1),
            "ImageFile" | "OutputFile" => ("image/png", 0),
            "PreviewFile" => ("image/jpeg", 0),
            _ => ("application/json", 1),
        };
        let mut message = json!({
            "name": name,
            "contentType": content_type,
            "payload": reference(&format!("components/schemas/{name}")),
            "bindings": {"mqtt": {"payloadFormatIndicator": is_text, "bindingVersion": BINDING}},
        });
        if *name == "ImageFile" {
            message["summary"] = json!("A PNG, or a JPEG with the content type image/jpeg.");
        }
        if *name == "OutputFile" {
            message["summary"] = json!("A PNG, or raw bytes with the content type application/octet-stream.");
        }
        let examples = examples(name);
        if !examples.is_empty() {
            message["examples"] = Value::Array(examples);
        }
        messages.insert((*name).to_owned(), message);
    }
    messages
}
