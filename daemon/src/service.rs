//! The service's loop: what comes from the broker, the worker, the clock and the system is turned into events of the
//! queue, and the queue's effects into messages and work. It runs on one thread, so nothing here needs a lock.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use diffused_engine::{Engine, Options, Resolver};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, info, warn};

use crate::config::Config;
use crate::contract::fault::{Code, Fault, catch_panic};
use crate::contract::messages::{Ending, Health, State};
use crate::contract::topics::InputTopic;
use crate::health;
use crate::jobs::queue::{Effect, Event, Queue};
use crate::jobs::request::{Rejection, RequestMode};
use crate::mqtt::{Mqtt, Received, WireEvent};
use crate::painting::model::Model;
use crate::painting::pictures::Folder;
use crate::painting::worker::{Report, Worker};
use crate::random;
use intake::Intake;
use notify::Watchdog;
use publisher::{Publisher, Reply};
use record::JobRecord;

mod client_id;
mod commands;
mod info;
mod intake;
mod notify;
mod publisher;
mod record;
mod refusals;

/// How long the running job may take to notice that it is to stop, and how long last messages may take.
const DRAIN: Duration = Duration::from_secs(8);
const FLUSH: Duration = Duration::from_secs(5);
const STOPPED: &str = "the service was stopped; send the request again";
const HEALTH_INTERVAL: Duration = Duration::from_secs(60);

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
    state_dir: PathBuf,
    intake: Intake,
    publisher: Publisher,
    wire: UnboundedReceiver<WireEvent>,
    worker: Worker,
    reports: UnboundedReceiver<Report>,
    queue: Queue<JobRecord>,
    seconds_per_step: Option<f64>,
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
        let topics = config.topics();
        let options: Options = model.options();
        let info = info::info(&config, &resolver, options.memory);
        let (mqtt, wire) =
            Mqtt::start(publisher::mqtt_options(&config, &topics, &info, client_id::of(&config.device, &state_dir))?);
        let folder = Folder::new(state_dir.join("pictures"), config.keep_pictures.0 as usize);
        let (worker, reports) = Worker::start(model, engine, folder).context("the worker thread")?;
        let broker = format!("{}:{}", config.mqtt.url.host, config.mqtt.url.port);
        info!(model = resolver.manifest().name, broker, topic = topics.of("txt2img"), "started");
        Ok(Service {
            queue: Queue::new(config.queue_length.0 as usize),
            publisher: Publisher::new(mqtt, topics, resolver.model_sha256().to_owned(), config.mqtt.retain_image),
            intake: Intake::new(resolver, options, state_dir.clone(), config.mqtt.max_packet.0 as usize),
            memory: options.memory,
            config,
            config_path,
            state_dir,
            wire,
            worker,
            reports,
            seconds_per_step: None,
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
                Some(report) = self.reports.recv() => self.on_report(report),
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

    fn on_wire(&mut self, event: WireEvent) {
        match event {
            WireEvent::Connected => {
                notify::status("connected");
                self.send_health();
            }
            WireEvent::Disconnected(reason) => {
                warn!("no connection to the broker: {reason}; trying again");
                notify::status("no connection to the broker");
            }
            WireEvent::Refused(refused) => self.refused(*refused),
            WireEvent::Received(received) => self.receive(&received),
        }
    }

    /// Each message is answered, and acknowledged to the broker only once it is in the queue or answered.
    fn receive(&mut self, received: &Received) {
        match self.publisher.topics().input(&received.topic) {
            // An empty retained message only clears one that the broker kept.
            Some(_) if received.retain && received.payload.is_empty() => {}
            Some(InputTopic::Txt2Img) => self.request(received, RequestMode::Txt2Img),
            Some(InputTopic::Img2Img) => self.request(received, RequestMode::Img2Img),
            Some(InputTopic::Cancel) => self.command(received, "cancel"),
            Some(InputTopic::Command(name)) => self.command(received, &name),
            None => warn!(topic = received.topic, "a message on an unknown topic"),
        }
        if !self.publisher.acknowledge(&received.receipt) {
            debug!(topic = received.topic, "not acknowledged: the connection is gone");
        }
    }

    /// A request for images.
    fn request(&mut self, received: &Received, mode: RequestMode) {
        if self.intake.is_repeated(received) {
            return debug!("the broker sent a request again");
        }
        let (reply, refused_reply) = self.publisher.reply(received);
        // A payload that ended the service would be sent again by the broker, for ever.
        let read = catch_panic(|| self.intake.read(received, mode));
        match read.unwrap_or_else(|fault| Err(Rejection { id: None, transaction: None, fault })) {
            Ok(mut ticket) => {
                ticket.work.reply = reply;
                ticket.work.warnings.extend(refused_reply);
                self.apply(Event::Submit(ticket));
            }
            Err(Rejection { id, transaction, fault }) => {
                let id = self.free_id(id);
                warn!(id, "rejected: {}", fault.one_line());
                self.publisher.ended(&id, transaction.as_ref(), reply.as_ref(), &Ending::Rejected(fault));
            }
        }
    }

    /// The id under which a request is rejected: never that of a job in the queue.
    fn free_id(&self, id: Option<String>) -> String {
        id.filter(|id| !self.queue.contains(id)).unwrap_or_else(random::id)
    }

    /// Changes the queue and carries out what follows from it.
    fn apply(&mut self, event: Event<JobRecord>) {
        for effect in self.queue.apply(event, Instant::now()) {
            match effect {
                Effect::Queued { id, position } => {
                    if let Some(record) = self.queue.get(&id) {
                        self.publisher.state(&id, record, State::Queued, Some(position));
                    }
                }
                Effect::Start { id } => self.start_job(&id),
                Effect::Stop { id } => {
                    debug!(id, "asked to stop");
                    self.worker.stop();
                }
                Effect::Ended { id, work, ending } => self.end(id, &work, &ending),
            }
        }
    }

    fn start_job(&mut self, id: &str) {
        let Some(record) = self.queue.get(id) else { return };
        info!(id, steps = record.painting.parameters().steps, "running");
        self.publisher.state(id, record, State::Running, None);
        let limit = self.publisher.image_limit(id);
        self.worker.run(record.job.clone(), record.painting.clone(), limit);
    }

    fn end(&mut self, id: String, record: &JobRecord, ending: &Ending) {
        let id = if matches!(ending, Ending::Rejected(_)) { self.free_id(Some(id)) } else { id };
        match ending {
            Ending::Done => info!(id, "done"),
            Ending::Cancelled(fault) => info!(id, "ended: {}", fault.one_line()),
            Ending::Failed(fault) | Ending::Rejected(fault) => warn!(id, "ended: {}", fault.one_line()),
        }
        self.publisher.ended(&id, record.job.transaction.as_ref(), record.reply.as_ref(), ending);
    }

    fn on_report(&mut self, report: Report) {
        let Some((id, record)) = self.queue.running_mut() else { return };
        match report {
            Report::Progress(progress) => self.publisher.progress(id, &progress),
            Report::Painted(painted) => self.publisher.image(id, record, painted),
            Report::Finished(Ok(timings)) => {
                self.publisher.result(id, record, &timings);
                let calls = record.painting.calls() * record.images.len().max(1);
                self.seconds_per_step = Some(timings.unet / calls.max(1) as f64);
                self.apply(Event::Finished(Ending::Done));
            }
            Report::Finished(Err(fault)) => {
                let cancelled = self.worker.is_stopping() && fault.code == Code::Cancelled;
                let ending = if cancelled { Ending::Cancelled(fault) } else { Ending::Failed(fault) };
                self.apply(Event::Finished(ending));
            }
        }
    }

    fn on_tick(&mut self) {
        self.apply(Event::Tick);
        let activity = [Some(self.publisher.last_poll()), self.worker.last_activity()];
        let activity: Vec<Instant> = activity.into_iter().flatten().collect();
        self.watchdog.ping(&activity, Instant::now());
    }

    fn send_health(&self) {
        let memory = health::memory();
        self.publisher.health(&Health {
            rss: memory.resident,
            peak_rss: memory.peak,
            memory_limit: self.memory,
            memory_pressure: health::memory_pressure(),
            temperature: health::temperature(),
            throttled: health::throttled(),
            disk_free: health::disk_free(&self.state_dir),
            queue: self.queue.waiting(),
            busy: self.worker.last_activity().is_some(),
            paused: self.queue.is_paused(),
            seconds_per_step: self.seconds_per_step,
        });
    }

    /// Reads the configuration again. A difference is not applied: the answer asks for a restart.
    fn reload(&self) -> Result<Value, String> {
        let fresh = Config::load(self.config_path.as_deref()).map_err(|error| format!("{error:#}"))?;
        if fresh == self.config {
            return Ok(json!({"changed": false}));
        }
        Err("the configuration has changed and is right; restart the service to use it".into())
    }

    /// Ends all jobs and reports it, then disconnects.
    async fn drain(mut self) {
        info!("stopping");
        notify::stopping();
        self.apply(Event::CancelAll(STOPPED));
        let deadline = tokio::time::Instant::now() + DRAIN;
        while !self.queue.is_empty() {
            match tokio::time::timeout_at(deadline, self.reports.recv()).await {
                Ok(Some(report)) => self.on_report(report),
                _ => {
                    warn!("the running job did not stop in time: it is left behind");
                    self.apply(Event::Finished(Ending::Cancelled(Fault::new(Code::Cancelled, STOPPED))));
                }
            }
        }
        if !self.publisher.finish(FLUSH).await {
            warn!("not every message reached the broker");
        }
        info!("stopped");
    }
}
