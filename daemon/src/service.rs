//! The service's loop: what comes from the broker, the worker, the clock and the system is turned into events of the
//! queue, and the queue's effects into messages and work. It runs on one thread, so nothing here needs a lock.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use diffused_engine::{Engine, Options, Painting, Resolver};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, info, warn};

use crate::config::Config;
use crate::health::{self, Health};
use crate::model::Model;
use crate::mqtt::{self, Mqtt};
use crate::notify::{self, Watchdog};
use crate::outbox::Message;
use crate::pictures::Folder;
use crate::queue::{Effect, Ending, Event, Queue};
use crate::report::{self, State};
use crate::request::Job;
use crate::topics::Topics;
use crate::worker::{self, Task, Worker};

mod intake;
mod jobs;

/// How long the running job may take to notice that it is to stop, and how long last messages may take.
const DRAIN: Duration = Duration::from_secs(8);
const FLUSH: Duration = Duration::from_secs(5);
const HEALTH_INTERVAL: Duration = Duration::from_secs(60);

/// What the system asks of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Stop.
    Stop,
    /// Read the configuration again.
    Reload,
}

/// A job's work, as the queue carries it.
#[derive(Debug)]
struct Work {
    job: Arc<Job>,
    painting: Painting,
}

/// What is remembered of a job until it ends.
#[derive(Debug, Default)]
struct Card {
    transaction: Option<Value>,
    reply: Option<Reply>,
    warnings: Vec<String>,
    images: Vec<report::Image>,
}

/// Where a client wants answers (MQTT 5).
#[derive(Debug, Clone)]
struct Reply {
    topic: String,
    correlation: Option<Bytes>,
}

/// Everything the loop holds.
pub struct Service {
    config: Config,
    config_path: Option<PathBuf>,
    state_dir: PathBuf,
    topics: Topics,
    mqtt: Mqtt,
    wire: UnboundedReceiver<mqtt::Event>,
    worker: Worker,
    painter: UnboundedReceiver<worker::Event>,
    queue: Queue<Work>,
    cards: HashMap<String, Card>,
    stop: Arc<AtomicBool>,
    resolver: Resolver,
    options: Options,
    seconds_per_step: Option<f64>,
    /// Packet ids and checksums of the last requests that were taken: what the broker sends again is told by them.
    recent: VecDeque<(u16, u64)>,
    watchdog: Watchdog,
}

impl Service {
    /// Starts the worker with an `engine` that `model` opened, and the connection. Needs a tokio runtime.
    pub fn start(
        config: Config,
        config_path: Option<PathBuf>,
        model: Model,
        resolver: Resolver,
        engine: Engine,
    ) -> Result<Service> {
        let state_dir = config.state_dir()?;
        let topics = Topics::new(&config);
        let options = model.options();
        let info = report::info(&config, &resolver, options.memory);
        let (mqtt, wire) = Mqtt::start(mqtt_options(&config, &topics, &info)?);
        let folder = Folder::new(state_dir.join("pictures"), config.keep_pictures);
        let (worker, painter) = Worker::start(model, engine, folder).context("the worker thread")?;
        let broker = format!("{}:{}", config.mqtt.url.host, config.mqtt.url.port);
        info!(model = resolver.manifest().name, broker, topic = topics.of("txt2img"), "started");
        Ok(Service {
            queue: Queue::new(config.queue_length),
            config,
            config_path,
            state_dir,
            topics,
            mqtt,
            wire,
            worker,
            painter,
            cards: HashMap::new(),
            stop: Arc::default(),
            resolver,
            options,
            seconds_per_step: None,
            recent: VecDeque::new(),
            watchdog: Watchdog::from_environment(),
        })
    }

    /// Serves until `signals` says stop; then drains.
    pub async fn run(mut self, mut signals: UnboundedReceiver<Signal>) {
        let mut tick = interval(Duration::from_secs(1));
        let mut health = interval(HEALTH_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        health.set_missed_tick_behavior(MissedTickBehavior::Skip);
        notify::ready();
        notify::status("connecting");
        loop {
            tokio::select! {
                Some(event) = self.wire.recv() => self.on_wire(event),
                Some(event) = self.painter.recv() => self.on_painter(event),
                _ = tick.tick() => self.on_tick(),
                _ = health.tick() => self.send_health(),
                signal = signals.recv() => match signal {
                    Some(Signal::Reload) => match self.reload() {
                        Ok(_) => info!("the configuration is unchanged"),
                        Err(error) => warn!("{error}"),
                    },
                    Some(Signal::Stop) | None => break,
                },
            }
        }
        self.drain().await;
    }

    fn on_wire(&mut self, event: mqtt::Event) {
        match event {
            mqtt::Event::Connected => {
                notify::status("connected");
                self.send_health();
            }
            mqtt::Event::Disconnected(reason) => {
                warn!("no connection to the broker: {reason}; trying again");
                notify::status("no connection to the broker");
            }
            mqtt::Event::Received(received) => self.receive(&received),
        }
    }

    fn on_tick(&mut self) {
        self.apply(Event::Tick);
        let signs = [Some(self.mqtt.polled()), self.worker.beat()];
        let signs: Vec<Instant> = signs.into_iter().flatten().collect();
        self.watchdog.ping(&signs, Instant::now());
    }

    fn send_health(&self) {
        let memory = health::memory();
        let health = Health {
            rss: memory.resident,
            peak_rss: memory.peak,
            memory_limit: self.options.memory,
            memory_pressure: health::memory_pressure(),
            temperature: health::temperature(),
            throttled: health::throttled(),
            disk_free: health::disk_free(&self.state_dir),
            queue: self.queue.waiting(),
            busy: self.worker.beat().is_some(),
            paused: self.queue.is_paused(),
            seconds_per_step: self.seconds_per_step,
        };
        let message = Message::json(self.topics.of("health"), &health);
        self.mqtt.publish(Message { certain: false, ..message });
    }

    /// Reads the configuration again. What differs needs a restart, which is said rather than half done.
    fn reload(&self) -> Result<Value, String> {
        let fresh = Config::load(self.config_path.as_deref()).map_err(|error| format!("{error:#}"))?;
        if fresh == self.config {
            return Ok(json!({"changed": false}));
        }
        Err("the configuration has changed and is right; restart the service to use it".into())
    }

    /// Ends all jobs and says so, then says goodbye.
    async fn drain(mut self) {
        info!("stopping");
        notify::stopping();
        self.apply(Event::CancelAll("the service was stopped; send the request again"));
        let deadline = tokio::time::Instant::now() + DRAIN;
        while !self.queue.is_empty() {
            match tokio::time::timeout_at(deadline, self.painter.recv()).await {
                Ok(Some(event)) => self.on_painter(event),
                _ => {
                    warn!("the running job did not stop in time");
                    break;
                }
            }
        }
        self.mqtt.publish(status(&self.topics, "offline"));
        if !self.mqtt.flush(FLUSH).await {
            warn!("not every message reached the broker");
        }
        self.mqtt.disconnect(Duration::from_secs(1)).await;
        info!("stopped");
    }
}

/// `…/status`, which the broker keeps.
fn status(topics: &Topics, text: &'static str) -> Message {
    let message = Message::new(topics.of("status"), Bytes::from_static(text.as_bytes()), "text/plain");
    Message { retain: true, ..message }
}

fn mqtt_options(config: &Config, topics: &Topics, info: &Value) -> Result<mqtt::Options> {
    let login = config.mqtt.username.clone().zip(Some(config.password()?.unwrap_or_default()));
    let info = Message { retain: true, ..Message::json(topics.of("info"), info) };
    Ok(mqtt::Options {
        host: config.mqtt.url.host.clone(),
        port: config.mqtt.url.port,
        client_id: format!("diffused-{}", config.device.0),
        login,
        keep_alive: Duration::from_secs(config.mqtt.keep_alive.0.into()),
        max_packet: config.mqtt.max_packet.0.try_into().unwrap_or(u32::MAX),
        filters: topics.filters(),
        greetings: vec![status(topics, "online"), info],
        last_will: status(topics, "offline"),
    })
}
