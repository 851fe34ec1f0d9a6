//! The service's loop: what comes from the broker, the worker, the clock and the system is turned into events of the
//! queue, and the queue's effects into messages and work. It runs on one thread, so nothing here needs a lock.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use diffused_engine::{Engine, Options, Painting, Resolver};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{MissedTickBehavior, interval, timeout_at};
use tracing::{debug, info, warn};

use crate::config::Config;
use crate::contract::fault::Fault;
use crate::contract::messages::{Health, JobProgress, JobResult};
use crate::contract::topics::InputTopic;
use crate::health::{self, ReadMeter, Resource, TemperatureSensor};
use crate::jobs::journal::{EndedJobs, Record};
use crate::jobs::queue::{Event, Queue};
use crate::jobs::record::JobRecord;
use crate::jobs::request::RequestMode;
use crate::mqtt::{Mqtt, Received, WireEvent};
use crate::painting::checkpoint::CheckpointFile;
use crate::painting::cooling::Cooling;
use crate::painting::model::Model;
use crate::painting::pictures::Folder;
use crate::painting::worker::{Report, Worker};
use home_assistant::Announcement;
use intake::Intake;
use muse::Muses;
pub(crate) use muse::{check as check_muses, unreadable_prompts};
pub(crate) use notify::{Loading, status as tell_systemd};
use notify::{Readiness, Watchdog};
use publisher::Publisher;
pub(crate) use publisher::SESSION;
pub(crate) use reload::with_defaults;
use storage::Storage;
pub(crate) use storage::is_in_use;

mod client_id;
mod commands;
mod home_assistant;
mod info;
mod intake;
mod known;
mod lifecycle;
mod muse;
mod notify;
mod publisher;
mod refusals;
mod reload;
mod restore;
mod storage;

/// How long the running job may take to notice that it is to stop, and how long last messages may take.
const DRAIN: Duration = Duration::from_secs(5);
const FLUSH: Duration = Duration::from_secs(3);
const HEALTH_INTERVAL: Duration = Duration::from_secs(60);
/// The most events of the wire that are handled in one turn: requests among them are brought to the disk together.
const BATCH: usize = 256;

/// A signal of the system to the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Stop.
    Stop,
    /// Read the configuration again.
    Reload,
}

/// Everything the loop holds.
pub struct Service {
    config: Config,
    config_path: Option<PathBuf>,
    /// The memory budget, for `…/health`.
    memory: Option<u64>,
    model_sha256: String,
    state_dir: PathBuf,
    storage: Storage,
    intake: Intake,
    publisher: Publisher,
    wire: UnboundedReceiver<WireEvent>,
    worker: Worker,
    reports: UnboundedReceiver<Report>,
    queue: Queue<Box<JobRecord>>,
    /// The broker's session.
    session: u64,
    /// Jobs that have ended, for requests that come again.
    ended: EndedJobs,
    running: RunningState,
    folder: Folder,
    /// Whether images may have become superfluous.
    prune: bool,
    seconds_per_step: Option<f64>,
    read_meter: ReadMeter,
    readiness: Readiness,
    watchdog: Watchdog,
    muses: Muses,
    announcement: Announcement,
}

/// What is known of the running job alone.
#[derive(Default)]
struct RunningState {
    painting: Option<Painting>,
    result: Option<JobResult>,
    /// How far it is.
    progress: Option<JobProgress>,
    /// Why the service ends it.
    fault: Option<Fault>,
    /// Whether it pauses because the processor is hot.
    is_cooling: bool,
    /// What the process had written when it was started, bytes.
    written_before: Option<u64>,
}

/// When painting pauses for heat.
fn cooling(config: &Config) -> Cooling {
    let sensor = TemperatureSensor::find(config.temperature_file.as_deref());
    let limit = config.max_temperature.map(|degrees| f64::from(degrees.0));
    if let (Some(limit), None) = (limit, sensor.read()) {
        warn!(
            "max_temperature is {limit} °C, but no temperature can be read: painting never pauses; see temperature_file"
        );
    }
    Cooling { sensor, limit }
}

impl Service {
    /// Starts the worker with an `engine` that `model` opened, and the connection; goes on with what an earlier run has left.
    /// Needs a tokio runtime.
    pub fn start(
        config: Config,
        config_path: Option<PathBuf>,
        model: Model,
        resolver: Resolver,
        engine: Engine,
    ) -> Result<Service> {
        let state_dir = config.state_dir()?;
        let (storage, journal) = Storage::open(&state_dir)?;
        let topics = config.topics();
        let options: Options = model.options();
        let info = info::info(&config, &resolver, options.memory, &journal.settings);
        let (mqtt, wire) =
            Mqtt::start(publisher::mqtt_options(&config, &topics, &info, client_id::of(&config.device, &state_dir))?);
        let folder = Folder::new(state_dir.join("pictures"), config.keep_pictures.0 as usize);
        folder.remove_leftovers();
        let checkpoints = CheckpointFile::new(&state_dir, Duration::from_secs(config.checkpoint_interval.0.into()));
        let cooling = cooling(&config);
        let (worker, reports) =
            Worker::start(model, engine, folder.clone(), checkpoints, cooling).context("the worker thread")?;
        let broker = config.mqtt.url.to_string();
        info!(model = resolver.manifest().name, broker, topic = topics.of("txt2img"), "started");
        let mut service = Service {
            queue: Queue::new(config.queue_length.0 as usize),
            publisher: Publisher::new(mqtt, topics, config.mqtt.retain_image),
            model_sha256: resolver.model_sha256().to_owned(),
            intake: Intake::new(resolver, options, storage.init_images(), &config),
            memory: options.memory,
            session: 0,
            ended: EndedJobs::default(),
            running: RunningState::default(),
            prune: true,
            muses: Muses::open(&config, &state_dir),
            announcement: Announcement::default(),
            config,
            config_path,
            state_dir,
            storage,
            wire,
            worker,
            reports,
            folder,
            seconds_per_step: None,
            read_meter: ReadMeter::start(Instant::now()),
            readiness: Readiness::default(),
            watchdog: Watchdog::from_environment(),
        };
        service.restore(journal);
        service.announce();
        Ok(service)
    }

    /// Serves until `signals` says stop; then drains.
    pub async fn run(mut self, mut signals: UnboundedReceiver<Signal>) {
        let mut tick = interval(Duration::from_secs(1));
        let mut health = interval(HEALTH_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        health.set_missed_tick_behavior(MissedTickBehavior::Skip);
        notify::status("connecting to the broker");
        loop {
            self.storage.flush().await;
            self.publisher.release();
            self.share();
            tokio::select! {
                Some(event) = self.wire.recv() => self.on_wire(event).await,
                Some(report) = self.reports.recv() => self.on_report(report),
                _ = tick.tick() => {
                    self.on_tick();
                    self.storage.recover().await;
                    self.muse().await;
                }
                _ = health.tick() => {
                    self.read_meter.measure(Instant::now());
                    self.send_health();
                }
                signal = signals.recv() => match signal {
                    Some(Signal::Reload) => {
                        // The log says what came of it.
                        let _ = self.reload();
                    }
                    Some(Signal::Stop) | None => break,
                },
            }
        }
        self.drain().await;
    }

    /// Shared work is for devices that have nothing else to do.
    fn share(&self) {
        let is_idle = self.queue.is_empty() && !self.queue.is_paused() && self.storage.problem().is_none();
        self.publisher.mqtt().share(is_idle);
    }

    /// Handles `event` and those that are there already.
    async fn on_wire(&mut self, event: WireEvent) {
        let mut next = Some(event);
        let mut handled = 0;
        while let Some(event) = next {
            match event {
                WireEvent::Received(received) => self.receive(&received).await,
                event => self.on_connection(event).await,
            }
            handled += 1;
            next = if handled < BATCH { self.wire.try_recv().ok() } else { None };
        }
        self.settle().await;
    }

    async fn on_connection(&mut self, event: WireEvent) {
        match event {
            WireEvent::Connected { session_present } => {
                if !session_present {
                    self.begin_session();
                }
                self.readiness.tried(&format!("connected to {}", self.config.mqtt.url));
                self.forget_activity();
                self.send_health();
            }
            WireEvent::Disconnected { reason, is_news } => {
                match is_news {
                    true => warn!("no connection to the broker: {reason}; trying again"),
                    false => debug!("no connection to the broker: {reason}; trying again"),
                }
                self.readiness.tried(&format!("no connection to the broker: {reason}; trying again"));
            }
            WireEvent::Refused(refused) => self.refused(*refused).await,
            WireEvent::Left(message) => {
                self.storage.note(&Record::Left { message });
                self.prune = true;
            }
            WireEvent::Received(_) => {}
        }
    }

    /// Each message is answered, and acknowledged to the broker only once it is in the journal or the answer has arrived.
    async fn receive(&mut self, received: &Received) {
        let input = self.publisher.topics().input(&received.topic);
        match input {
            // An empty retained message only clears one that the broker kept.
            Some(_) if received.retain && received.payload.is_empty() => self.publisher.acknowledge(received.receipt),
            Some(InputTopic::Txt2Img) => self.request(received, RequestMode::Txt2Img).await,
            Some(InputTopic::Img2Img) => self.request(received, RequestMode::Img2Img).await,
            Some(InputTopic::Cancel) => self.settle_then_command(received, "cancel").await,
            Some(InputTopic::Command(name)) => self.settle_then_command(received, &name).await,
            Some(InputTopic::HomeAssistant) if self.config.home_assistant.discovery => {
                self.announcement.is_due |= received.payload == "online";
                self.publisher.acknowledge(received.receipt);
            }
            Some(InputTopic::HomeAssistant) | None => {
                debug!(topic = received.topic, "a message for an earlier configuration");
                self.publisher.mqtt().unsubscribe(&received.topic);
                self.publisher.acknowledge(received.receipt);
            }
        }
    }

    /// A command may concern the requests before it.
    async fn settle_then_command(&mut self, received: &Received, name: &str) {
        self.settle().await;
        self.command(received, name).await;
    }

    fn on_tick(&mut self) {
        self.apply(Event::Tick);
        self.update_home_assistant();
        self.prune_images();
        let activity = [Some(self.publisher.last_beat()), self.worker.last_activity()];
        let activity: Vec<Instant> = activity.into_iter().flatten().collect();
        self.watchdog.ping(&activity, Instant::now());
    }

    fn send_health(&self) {
        self.publisher.health(&self.health());
    }

    fn health(&self) -> Health {
        let memory = health::memory();
        Health {
            rss: memory.resident,
            peak_rss: memory.peak,
            memory_limit: self.memory,
            memory_pressure: health::pressure(Resource::Memory),
            io_pressure: health::pressure(Resource::Io),
            cpu_pressure: health::pressure(Resource::Cpu),
            temperature: self.worker.cooling.sensor.read(),
            throttled: health::throttled(),
            cooling: self.running.is_cooling,
            read_rate: self.read_meter.rate(),
            bytes_written: health::storage().map(|storage| storage.written),
            disk_free: health::disk_free(&self.state_dir),
            queue: self.queue.waiting(),
            busy: self.worker.last_activity().is_some(),
            paused: self.queue.is_paused(),
            undelivered: self.publisher.mqtt().waiting(),
            problems: self.problems(),
            seconds_per_step: self.seconds_per_step,
        }
    }

    /// What is wrong with the disk, the processor, the broker and the muses now.
    fn problems(&self) -> Vec<String> {
        let disk = self.storage.problem().map(str::to_owned);
        let cooling = &self.worker.cooling;
        let heat =
            cooling.limit.zip(cooling.resumes_at()).filter(|_| self.running.is_cooling).map(|(limit, resumes)| {
                format!("the processor is hotter than {limit} °C (max_temperature): painting goes on at {resumes} °C")
            });
        disk.into_iter().chain(heat).chain(self.publisher.mqtt().problems()).chain(self.muses.problems()).collect()
    }

    /// Puts the running job aside, to go on with at the next start, then disconnects. Waiting jobs are in the journal.
    async fn drain(mut self) {
        info!("stopping");
        notify::stopping();
        // The broker would keep shared work for our return.
        self.publisher.mqtt().share(false);
        let deadline = tokio::time::Instant::now() + DRAIN;
        self.apply(Event::Pause);
        self.worker.put_aside();
        while self.queue.running().is_some() {
            match timeout_at(deadline, self.reports.recv()).await {
                Ok(Some(Report::Finished(Err(_)))) => break,
                Ok(Some(report)) => self.on_report(report),
                _ => {
                    warn!("the running job did not stop in time: it is left behind");
                    break;
                }
            }
        }
        self.put_aside();
        self.storage.flush().await;
        self.publisher.release();
        if !self.publisher.finish(FLUSH).await {
            warn!("not every message reached the broker; the rest is sent after the next start");
        }
        while let Ok(event) = self.wire.try_recv() {
            if let WireEvent::Left(message) = event {
                self.storage.note(&Record::Left { message });
            }
        }
        self.storage.flush().await;
        if let Some(problem) = self.storage.problem() {
            warn!("{problem}: what ended meanwhile may be painted again");
        }
        info!("stopped");
    }
}
