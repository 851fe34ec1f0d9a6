//! The contract as a document, docs/asyncapi.json: AsyncAPI 3, with schemas from the types that are sent. Its generator is
//! a test, so the program carries nothing of it; who changes a type writes the file anew:
//!
//! `DIFFUSED_REGENERATE=1 cargo test --release -p diffused --lib asyncapi`

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::contract::commands::{CancelRequest, CommandRequest, MoveRequest, PauseRequest, Response, SettingsRequest};
use crate::contract::info::DeviceInfo;
use crate::contract::messages::{Activity, Health, JobProgress, JobResult, JobState, SCHEMA};
use crate::contract::request::PaintRequest;

mod channels;
mod examples;
pub(super) use examples::info as info_example;
pub(super) mod types;

const VARIABLE: &str = "DIFFUSED_REGENERATE";

/// The whole document.
fn description() -> Value {
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "diffused",
            "version": format!("{SCHEMA}.0.0"),
            "description": "Images from prompts over MQTT. The version is that of topics and payloads; `schema` of \
                `…/info` is its first number. Operations are the device's: it receives requests and sends all else. \
                More in docs/mqtt.md.",
            "license": {"name": "MIT OR Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {"broker": channels::server()},
        "channels": channels::channels(),
        "operations": channels::operations(),
        "components": {
            "messages": channels::messages(),
            "parameters": channels::parameters(),
            "schemas": schemas(),
        },
    })
}

/// Every type of the contract, by its name.
fn schemas() -> Map<String, Value> {
    let mut settings = SchemaSettings::draft07().for_serialize();
    settings.definitions_path = "/components/schemas".into();
    settings.meta_schema = None;
    let mut generator = settings.into_generator();
    for add in [
        add::<DeviceInfo>,
        add::<Health>,
        add::<Activity>,
        add::<JobState>,
        add::<JobProgress>,
        add::<JobResult>,
        add::<PaintRequest>,
        add::<CancelRequest>,
        add::<CommandRequest>,
        add::<PauseRequest>,
        add::<MoveRequest>,
        add::<SettingsRequest>,
        add::<Response>,
    ] {
        add(&mut generator);
    }
    let mut schemas = generator.take_definitions(true);
    let request = schemas.remove("PaintRequest").expect("it was added");
    schemas.insert("Txt2ImgRequest".to_owned(), txt2img(request.clone()));
    schemas.insert("Img2ImgRequest".to_owned(), img2img(request));
    let text = |description: &str, rest: Value| {
        let mut schema = json!({"type": "string", "description": description});
        schema.as_object_mut().into_iter().for_each(|s| s.extend(rest.as_object().cloned().unwrap_or_default()));
        schema
    };
    let prompt = "The prompt itself: any text in UTF-8 that is not JSON, up to 20,000 bytes.";
    schemas.insert("Prompt".to_owned(), text(prompt, json!({"minLength": 1, "maxLength": 20_000})));
    let status = "Whether the device is there and hears requests.";
    schemas.insert("Status".to_owned(), text(status, json!({"enum": ["online", "offline"]})));
    schemas.insert("DoctorText".to_owned(), text("Text without a meaning, up to the size of an image.", json!({})));
    schemas.insert("ImageFile".to_owned(), text("The bytes of a PNG or JPEG.", json!({"format": "binary"})));
    schemas.insert("PreviewFile".to_owned(), text("The bytes of a JPEG.", json!({"format": "binary"})));
    let output = "The bytes of a PNG, or those that a display's memory holds.";
    schemas.insert("OutputFile".to_owned(), text(output, json!({"format": "binary"})));
    schemas
}

fn add<T: JsonSchema>(generator: &mut SchemaGenerator) {
    generator.subschema_for::<T>();
}

/// Without what belongs to img2img.
fn txt2img(request: Value) -> Value {
    let mut request = with_web_keys(request);
    for key in ["init_images", "mask"] {
        request["properties"][key] = json!({"type": "null", "description": "Belongs to img2img: refused."});
    }
    request
}

/// With an init image.
fn img2img(request: Value) -> Value {
    let mut request = with_web_keys(request);
    request["properties"]["init_images"]["type"] = json!("array");
    request["required"].as_array_mut().into_iter().for_each(|keys| keys.push(json!("init_images")));
    request
}

/// With the keys that the web API alone has. The rest is open: an unknown key is a warning.
fn with_web_keys(mut request: Value) -> Value {
    request["additionalProperties"] = json!(true);
    types::web_hires(&mut request["properties"]);
    request
}

#[test]
fn the_committed_description_is_the_codes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/asyncapi.json");
    let text = format!("{}\n", serde_json::to_string_pretty(&description()).expect("a JSON document"));
    if std::env::var_os(VARIABLE).is_some() {
        std::fs::write(path, &text).expect("docs/asyncapi.json");
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == text,
        "docs/asyncapi.json is not what the types say; write it anew and look at the difference:\n    \
         {VARIABLE}=1 cargo test --release -p diffused --lib asyncapi"
    );
}
