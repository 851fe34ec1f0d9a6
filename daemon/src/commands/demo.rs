//! `diffused demo`: the whole way from a device's MQTT prompt to an image, on one machine and with nothing to set up.
//! A broker runs in this process on a free port, the real service connects to it, and a client publishes the prompt
//! and shows every message that passes.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use diffused_engine::Options;
use diffused_engine::bundle::{Manifest, Text};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, Publish};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use rumqttd::{Broker, ConnectionSettings, RouterConfig, ServerSettings};
use serde_json::{Value, json};
use tokio::sync::mpsc::unbounded_channel;

use crate::commands::cli::DemoArgs;
use crate::config::{Config, Url};
use crate::contract::request::FileFormat;
use crate::contract::topics::TopicLevel;
use crate::failure::Failure;
use crate::painting::model::Model;
use crate::painting::pictures;
use crate::service::{Service, Signal};
use crate::{files, logging, random};

/// The device's name in the demo.
const DEVICE: &str = "demo";
/// The job's name in the demo.
const JOB: &str = "hello";
/// The largest message that the demo's broker takes.
const MAX_PACKET: u32 = 16 << 20;

/// Runs the demo.
pub fn run(arguments: &DemoArgs) -> Result<(), Failure> {
    let other = |path: &&PathBuf| path.extension().is_none_or(|extension| !extension.eq_ignore_ascii_case("png"));
    if let Some(path) = arguments.output.as_ref().filter(other) {
        return Err(Failure::Usage(format!("--output: {}: the demo writes a PNG; name it .png", path.display())));
    }
    logging::start("error,rumqttd=off");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.context("the runtime").and_then(|runtime| runtime.block_on(demo(arguments)));
    outcome.map_err(|error| Failure::Other(format!("{error:#}")))
}

async fn demo(arguments: &DemoArgs) -> Result<()> {
    let folder = std::env::temp_dir().join(format!("diffused-demo-{}", random::id()));
    let outcome = show(arguments, folder.clone()).await;
    // Only the service's own copies lie there.
    let _ = std::fs::remove_dir_all(folder);
    outcome
}

async fn show(arguments: &DemoArgs, folder: PathBuf) -> Result<()> {
    let screen = Screen::new();
    let port = start_broker()?;
    screen.say(&format!("an MQTT broker listens on 127.0.0.1:{port}"));

    let model = Model::new(None, Options::default())?;
    let resolver = model.resolver().context("the demo model")?;
    let engine = model.open().context("the demo model")?;
    let manifest = resolver.manifest().clone();
    screen.say(&format!("the daemon has opened the model `{}`", manifest.name));
    let example = || manifest.examples.first().cloned();
    let prompt = arguments.prompt.clone().or_else(example).context("the demo model has no example; give a prompt")?;
    if let Some(warning) = unknown(&manifest.text, &prompt) {
        screen.say(&warning);
    }
    let mut config = Config { device: TopicLevel(DEVICE.into()), state_dir: Some(folder), ..Config::default() };
    config.mqtt.url = Url { port, ..Url::default() };
    let (stop, signals) = unbounded_channel();
    let service = tokio::spawn(Service::start(config, None, model, resolver, engine)?.run(signals));

    let seed = arguments.seed.unwrap_or_else(random::seed);
    let mut device = Device::connect(port, screen);
    let picture = device.ask(&prompt, seed).await?;
    let output =
        arguments.output.clone().unwrap_or_else(|| pictures::free_name("".as_ref(), &prompt, seed, FileFormat::Png));
    files::write_atomically(&output, &picture).with_context(|| output.display().to_string())?;

    stop.send(Signal::Stop).context("the service has ended")?;
    service.await.context("the service")?;
    device.screen.say(&format!("the image is in {}", output.display()));
    if arguments.prompt.is_none() {
        println!("\n{}", next_steps(&manifest));
    }
    Ok(())
}

/// What of the prompt the demo model cannot paint, and what it can.
fn unknown(text: &Text, prompt: &str) -> Option<String> {
    let unknown = text.unknown_words(prompt);
    let known = text.words.as_ref().filter(|_| !unknown.is_empty())?;
    let (unknown, known) = (unknown.join(", "), wrapped(known));
    Some(format!("the demo model does not know: {unknown}; it paints what it knows:\n{known}"))
}

/// What to type next.
fn next_steps(manifest: &Manifest) -> String {
    let words = manifest.text.words.as_deref().unwrap_or_default();
    let examples = manifest.examples.iter().map(|prompt| format!("  diffused demo \"{prompt}\"\n"));
    format!(
        "The demo model is tiny. It knows {} words:\n{}\nPaint with them:\n{}\nFor other words use a model of your own, such as \
         Stable Diffusion 1.5:\n  model-prep convert MODEL -o BUNDLE\n  diffused generate \"…\" --model BUNDLE",
        words.len(),
        wrapped(words),
        examples.collect::<String>()
    )
}

/// The words, separated by commas, in indented lines of at most 78 characters.
fn wrapped(words: &[String]) -> String {
    let mut lines: Vec<String> = vec![];
    for (index, word) in words.iter().enumerate() {
        let word = if index + 1 < words.len() { format!(" {word},") } else { format!(" {word}") };
        match lines.last_mut() {
            Some(line) if line.chars().count() + word.chars().count() <= 78 => line.push_str(&word),
            _ => lines.push(format!(" {word}")),
        }
    }
    lines.join("\n")
}

/// Starts a broker in threads of its own; gives its port.
fn start_broker() -> Result<u16> {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let connections = ConnectionSettings {
        connection_timeout_ms: 10_000,
        max_payload_size: MAX_PACKET as usize,
        max_inflight_count: 100,
        auth: None,
        external_auth: None,
        dynamic_filters: true,
    };
    let server = ServerSettings {
        name: "demo".into(),
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        tls: None,
        next_connection_delay_ms: 1,
        connections,
    };
    let router = RouterConfig {
        max_connections: 10,
        max_outgoing_packet_count: 200,
        max_segment_size: 64 << 20,
        max_segment_count: 2,
        ..RouterConfig::default()
    };
    let config = rumqttd::Config { router, v5: Some(HashMap::from([("demo".into(), server)])), ..Default::default() };
    let mut broker = Broker::new(config);
    thread::Builder::new().name("broker".into()).spawn(move || {
        if let Err(error) = broker.start() {
            tracing::error!("the demo's broker: {error}");
        }
    })?;
    Ok(port)
}

/// The client that a device would be.
struct Device {
    client: AsyncClient,
    eventloop: EventLoop,
    screen: Screen,
}

impl Device {
    fn connect(port: u16, screen: Screen) -> Device {
        let mut options = MqttOptions::new("demo-device", "127.0.0.1", port);
        options.set_max_packet_size(Some(MAX_PACKET));
        let (client, eventloop) = AsyncClient::new(options, 100);
        Device { client, eventloop, screen }
    }

    /// Waits for the daemon, publishes the prompt and shows all messages until the job's end; gives the picture.
    async fn ask(&mut self, prompt: &str, seed: u64) -> Result<Bytes> {
        let topic = |name: &str| format!("diffused/{DEVICE}/{name}");
        let request = json!({"prompt": prompt, "seed": seed, "id": JOB}).to_string();
        let mut picture = Bytes::new();
        loop {
            let Some(message) = self.next().await? else {
                self.client.try_subscribe(topic("#"), QoS::AtLeastOnce)?;
                continue;
            };
            let name = String::from_utf8_lossy(&message.topic).into_owned();
            let outgoing = name == topic("txt2img");
            self.screen.show(if outgoing { "→" } else { "←" }, &name, &message.payload);
            if name == topic("status") && message.payload == "online" {
                self.client.try_publish(topic("txt2img"), QoS::AtLeastOnce, false, request.clone())?;
            } else if name == topic(&format!("job/{JOB}/image/0")) {
                picture = message.payload;
            } else if name == topic(&format!("job/{JOB}/state")) {
                let state: Value = serde_json::from_slice(&message.payload)?;
                match state["state"].as_str() {
                    Some("done") => return Ok(picture),
                    Some("queued" | "running") => {}
                    _ => bail!("the job ended: {state}"),
                }
            }
        }
    }

    /// The next message; `None` when the connection is there. The broker needs a moment to listen, so first attempts to
    /// connect may fail.
    async fn next(&mut self) -> Result<Option<Publish>> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match self.eventloop.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => return Ok(None),
                Ok(Event::Incoming(Packet::Publish(message))) => return Ok(Some(message)),
                Ok(_) => {}
                Err(error) if Instant::now() > deadline => bail!("the demo's broker does not answer: {error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}

/// What the user sees: a line for each message, with the time since the start.
struct Screen {
    start: Instant,
    colours: bool,
}

impl Screen {
    fn new() -> Screen {
        Screen { start: Instant::now(), colours: std::io::stdout().is_terminal() }
    }

    fn say(&self, text: &str) {
        println!("{} {}", self.time(), self.paint("1", text));
    }

    fn show(&self, arrow: &str, topic: &str, payload: &[u8]) {
        let topic = self.paint(if arrow == "→" { "33" } else { "36" }, topic);
        println!("{} {arrow} {topic}  {}", self.time(), shown(payload));
    }

    fn time(&self) -> String {
        self.paint("2", &format!("{:6.2} s", self.start.elapsed().as_secs_f64()))
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A payload on one line: short text as it is, longer text cut, anything else by its size.
fn shown(payload: &[u8]) -> String {
    const MOST: usize = 150;
    match std::str::from_utf8(payload) {
        Ok(text) if text.chars().count() <= MOST => text.to_owned(),
        Ok(text) => format!("{}… ({} bytes)", text.chars().take(MOST).collect::<String>(), payload.len()),
        Err(_) => format!("({} bytes: {})", payload.len(), kind(payload)),
    }
}

fn kind(payload: &[u8]) -> &'static str {
    match payload {
        [0x89, b'P', b'N', b'G', ..] => "a PNG image",
        [0xff, 0xd8, ..] => "a JPEG image",
        _ => "binary",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_that_the_demo_model_knows_are_listed_with_examples() {
        let manifest = Model::new(None, Options::default()).unwrap().resolver().unwrap().manifest().clone();
        let text = next_steps(&manifest);
        for part in
            ["It knows 47 words", " mo", "diffused demo \"a white boat on the sea with a sun\"", "model-prep convert"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert_eq!(unknown(&manifest.text, "a red house"), None);
        let warning = unknown(&manifest.text, "a red mushroom on the sea, a castle").unwrap();
        assert!(
            warning.starts_with("the demo model does not know: mushroom, castle; it paints what it knows:\n  a, an")
        );
        assert!(manifest.examples.iter().all(|prompt| unknown(&manifest.text, prompt).is_none()));
    }

    #[test]
    fn payloads_are_shown_on_a_line() {
        assert_eq!(shown(b"online"), "online");
        assert_eq!(shown(&[b'x'; 200]), format!("{}… (200 bytes)", "x".repeat(150)));
        assert_eq!(shown(b"\x89PNG\r\n\x1a\n\xff"), "(9 bytes: a PNG image)");
    }
}
