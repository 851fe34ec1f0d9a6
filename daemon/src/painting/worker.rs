//! The thread that paints. It alone owns the engine; the service sends it one job at a time and receives its progress,
//! its images and its end. Whatever goes wrong in a job, the thread lives on: even a panic ends only that job.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use diffused_engine::error::Error;
use diffused_engine::request::{Parameters, Start};
use diffused_engine::{Engine, Painting, StepCheckpoint};
use image::RgbImage;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing::{error, info, warn};

use crate::contract::fault::{Code, Fault, catch_panic};
use crate::contract::messages::JobProgress;
use crate::display::spec::DisplaySpec;
use crate::health;
use crate::jobs::request::Job;
use crate::painting::checkpoint::{CheckpointFile, CheckpointKeeper};
use crate::painting::cooling::{Cooler, Cooling};
use crate::painting::model::Model;
use crate::painting::output::{self, PaintedOutput};
use crate::painting::pictures::{self, Folder};
use crate::painting::placed::PlacedImage;
use crate::painting::preview::PreviewClock;
use crate::painting::progress::{JobTimes, Meter};
use observer::JobObserver;

mod observer;

/// How long the engine stays open without work: one job after the other finds everything in place.
const IDLE: Duration = Duration::from_secs(5);

/// What the worker reports.
#[derive(Debug)]
pub enum Report {
    /// Progress of the running job, at most once a second.
    Progress(JobProgress),
    /// What the running job's image looks like so far, a JPEG; at most once a second.
    Preview(Vec<u8>),
    /// The job can go on from a later step than before, even after a power cut.
    Checkpointed,
    /// The job pauses until the processor has cooled down, or goes on.
    Cooling(bool),
    /// An image is ready.
    Painted(Painted),
    /// The job ended.
    Finished(Result<JobTimes, Fault>),
}

/// An image that is ready.
#[derive(Debug)]
pub struct Painted {
    /// Its number, from 0.
    pub index: u64,
    /// What to publish, or, where nothing fits through the broker, what is on disk.
    pub file: PlacedImage,
    /// Whether it fits through the broker.
    pub fits: bool,
    /// Where it is kept, in the format that was asked for.
    pub path: Option<PathBuf>,
    /// Its prompt, where that was drawn for it.
    pub prompt: Option<String>,
    /// What a display shows of it.
    pub output: Option<PaintedOutput>,
    /// What the client should know about it.
    pub warnings: Vec<String>,
}

/// What earlier runs of the program have done of a job.
#[derive(Debug, Clone, Copy)]
pub struct EarlierRuns {
    /// Images that they painted.
    pub images: u64,
    /// Whether the last one ended while it was painted.
    pub interrupted: bool,
}

/// The service's end of the thread.
#[derive(Debug)]
pub struct Worker {
    /// When jobs pause: holds from the next job on.
    pub cooling: Cooling,
    tasks: mpsc::Sender<WorkerTask>,
    last_activity: Arc<Mutex<Option<Instant>>>,
    /// Set when the running job is to end.
    stop: Arc<AtomicBool>,
    /// Set before `stop` where the job goes on at the program's next start.
    aside: Arc<AtomicBool>,
}

impl Worker {
    /// Starts the thread with an `engine` that `model` opened; finished images go to `folder` as well, and the running job's
    /// steps to `checkpoints`.
    pub fn start(
        model: Model,
        engine: Engine,
        folder: Folder,
        checkpoints: CheckpointFile,
        cooling: Cooling,
    ) -> std::io::Result<(Worker, UnboundedReceiver<Report>)> {
        let (tasks, incoming) = mpsc::channel();
        let (reports, received) = unbounded_channel();
        let last_activity = Arc::new(Mutex::new(None));
        let model_sha256 = engine.model_sha256().to_owned();
        let last = last_activity.clone();
        let painter = Painter { model, model_sha256, folder, checkpoints, reports, last_activity: last };
        thread::Builder::new().name("worker".into()).spawn(move || painter.run(engine, &incoming))?;
        Ok((Worker { cooling, tasks, last_activity, stop: Arc::default(), aside: Arc::default() }, received))
    }

    /// Starts to paint `paintings`, which `job` was resolved to, from the first on that was not painted `earlier`, which
    /// goes on from its checkpoint if there is one; only one job at a time. `display`: what a display shows of each image.
    /// `limit`: the largest image that the broker takes, bytes.
    pub fn run(
        &mut self,
        job: Job,
        paintings: Vec<Painting>,
        earlier: EarlierRuns,
        display: Option<DisplaySpec>,
        limit: Option<usize>,
    ) {
        *lock(&self.last_activity) = Some(Instant::now());
        (self.stop, self.aside) = Default::default();
        // The thread ends only after this end of the channel is gone.
        let (stop, aside) = (self.stop.clone(), self.aside.clone());
        let cooling = self.cooling.clone();
        let _ = self.tasks.send(WorkerTask { job, paintings, earlier, display, limit, cooling, stop, aside });
    }

    /// Ends the running job within a moment; `Report::Finished` will follow.
    pub fn stop(&self) {
        // So that whoever sees this flag sees the other one too.
        self.stop.store(true, Ordering::Release);
    }

    /// The same, but with the job's latest step on disk: a later `run` of it goes on from there. A job that was stopped for
    /// good before stays that.
    pub fn put_aside(&self) {
        if !self.is_stopping() {
            self.aside.store(true, Ordering::Relaxed);
            self.stop();
        }
    }

    /// Whether the last job was asked to stop.
    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// When the engine last reported a layer; `None` while no job runs.
    pub fn last_activity(&self) -> Option<Instant> {
        *lock(&self.last_activity)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A job on its way to the thread.
struct WorkerTask {
    job: Job,
    /// One for each image.
    paintings: Vec<Painting>,
    earlier: EarlierRuns,
    display: Option<DisplaySpec>,
    limit: Option<usize>,
    cooling: Cooling,
    stop: Arc<AtomicBool>,
    aside: Arc<AtomicBool>,
}

impl WorkerTask {
    fn is_put_aside(&self) -> bool {
        self.stop.load(Ordering::Acquire) && self.aside.load(Ordering::Relaxed)
    }
}

/// The thread's side.
struct Painter {
    model: Model,
    model_sha256: String,
    folder: Folder,
    checkpoints: CheckpointFile,
    reports: UnboundedSender<Report>,
    last_activity: Arc<Mutex<Option<Instant>>>,
}

impl Painter {
    fn run(&self, engine: Engine, tasks: &mpsc::Receiver<WorkerTask>) {
        let mut engine = Some(engine);
        while let Some(task) = next(&mut engine, tasks) {
            let outcome = self.attempt(&mut engine, &task);
            if outcome.is_ok() || !task.is_put_aside() {
                self.checkpoints.remove();
            }
            *lock(&self.last_activity) = None;
            self.report(Report::Finished(outcome));
        }
    }

    /// A panic leaves an engine of which nothing is known: it is opened anew for the next job.
    fn attempt(&self, engine: &mut Option<Engine>, task: &WorkerTask) -> Result<JobTimes, Fault> {
        let mut ready = match engine.take() {
            Some(engine) => engine,
            None => self.reopen()?,
        };
        let outcome = catch_panic(|| self.paint_all(&mut ready, task))?;
        *engine = Some(ready);
        outcome
    }

    /// The model must be the one that the service announced at its start.
    fn reopen(&self) -> Result<Engine, Fault> {
        let engine = self.model.open()?;
        if engine.model_sha256() != self.model_sha256 {
            let message = "the model's folder holds another bundle than at the start; restart the service to use it";
            return Err(Fault::new(Code::ModelCorrupt, message));
        }
        Ok(engine)
    }

    fn paint_all(&self, engine: &mut Engine, task: &WorkerTask) -> Result<JobTimes, Fault> {
        let now = Instant::now();
        let mut observer = JobObserver {
            meter: Meter::new(task.job.count, task.earlier.images, now),
            checkpoints: CheckpointKeeper::new(&self.checkpoints, &task.job, task.earlier.interrupted, now),
            cooler: Cooler::new(task.cooling.clone()),
            stop: task.stop.clone(),
            reported: None,
            previews: PreviewClock::default(),
            painter: self,
        };
        for (index, painting) in (0..).zip(&task.paintings).skip(task.earlier.images as usize) {
            if index > task.earlier.images {
                observer.meter.next_image(Instant::now());
            }
            observer.checkpoints.begin(index);
            let image = self.paint(engine, task, index, painting, &mut observer);
            diffused_heap::trim();
            if task.is_put_aside() && observer.checkpoints.write() {
                self.report(Report::Checkpointed);
            }
            let image = image?;
            let mut painted = self.finish(task, index, &image, painting.parameters())?;
            if let Some(spec) = &task.display {
                self.make_room_for(engine, output::needs(spec, painting.parameters()));
                let what = (spec, &*format!("{}-{index}", task.job.id), index);
                painted.output = output::make(&image, what, &self.folder, task.limit, &mut painted.warnings);
            }
            self.report(Report::Painted(painted));
        }
        Ok(observer.meter.times(Instant::now()))
    }

    /// Paints image `index`, from its checkpoint if there is one.
    fn paint(
        &self,
        engine: &mut Engine,
        task: &WorkerTask,
        index: u64,
        painting: &Painting,
        observer: &mut JobObserver,
    ) -> Result<RgbImage, Fault> {
        let earlier = if index == task.earlier.images { observer.checkpoints.load() } else { None };
        if let Some(checkpoint) = earlier {
            info!(id = task.job.id, image = index, step = checkpoint.calls(), "going on from a checkpoint");
            let start = self.start(engine, task, painting, Some(checkpoint))?;
            match engine.paint(painting, start, observer) {
                Err(Error::Checkpoint(message)) => {
                    warn!(id = task.job.id, "painted from the start: the checkpoint cannot be used: {message}");
                }
                painted => return self.finish_image(engine, task, painting, painted?),
            }
        }
        let start = self.start(engine, task, painting, None)?;
        let painted = engine.paint(painting, start, observer)?;
        self.finish_image(engine, task, painting, painted)
    }

    /// What the engine starts from.
    fn start(
        &self,
        engine: &mut Engine,
        task: &WorkerTask,
        painting: &Painting,
        checkpoint: Option<StepCheckpoint>,
    ) -> Result<Start, Fault> {
        if checkpoint.is_none() || task.job.mask.is_some() {
            self.make_room(engine, task, painting.parameters());
        }
        task.job.sources().start(painting.parameters(), checkpoint)
    }

    /// With what a mask leaves of the init image.
    fn finish_image(
        &self,
        engine: &mut Engine,
        task: &WorkerTask,
        painting: &Painting,
        painted: RgbImage,
    ) -> Result<RgbImage, Fault> {
        if task.job.mask.is_some() {
            self.make_room(engine, task, painting.parameters());
        }
        task.job.sources().finish(painting.parameters(), painted)
    }

    /// Frees weights that were kept where the images that the job is made of need their memory.
    fn make_room(&self, engine: &mut Engine, task: &WorkerTask, parameters: &Parameters) {
        if task.job.init_image.is_some() {
            self.make_room_for(engine, task.job.sources().memory(parameters));
        }
    }

    /// Frees weights that were kept where so many bytes of pixels need their memory.
    fn make_room_for(&self, engine: &mut Engine, pixels: u64) {
        let Some(memory) = self.model.options().memory else { return };
        if health::memory().resident.is_some_and(|resident| resident + pixels > memory) {
            engine.forget();
            diffused_heap::trim();
        }
    }

    /// Encodes the pixels, stores the file, and makes one that fits through the broker.
    fn finish(
        &self,
        task: &WorkerTask,
        index: u64,
        image: &RgbImage,
        parameters: &Parameters,
    ) -> Result<Painted, Fault> {
        let file = pictures::encode(image, parameters, task.job.format)?;
        let stem = format!("{}-{index}", task.job.id);
        let mut warnings = vec![];
        let stored = match self.folder.store(&stem, &file) {
            Ok(path) => Some(path),
            Err(error) => {
                error!(job = task.job.id, "the image could not be kept: {error}");
                warnings.push(format!("image {index} could not be kept on disk: {error}"));
                None
            }
        };
        let path = stored.clone().filter(|_| self.folder.keeps());
        let prompt = parameters.prompt_template.as_ref().map(|_| parameters.prompt.clone());
        let Some(limit) = task.limit.filter(|limit| file.bytes.len() > *limit) else {
            return Ok(Painted {
                index,
                file: PlacedImage::new(file, stored),
                fits: true,
                path,
                prompt,
                output: None,
                warnings,
            });
        };
        let large = format!("image {index} has {} bytes, the broker takes {limit}", file.bytes.len());
        if let Some((small, quality)) = pictures::encode_within(image, &pictures::infotext(parameters), limit)? {
            warnings.push(format!("{large}: published as a JPEG of quality {quality}"));
            let place = self.folder.store(&format!("{stem}-small"), &small).ok();
            return Ok(Painted {
                index,
                file: PlacedImage::new(small, place),
                fits: true,
                path,
                prompt,
                output: None,
                warnings,
            });
        }
        if stored.is_none() {
            return Err(Fault::new(Code::DiskFull, format!("{large}, and {}", warnings.join("; "))));
        }
        warnings.push(format!("{large}: not published, see its path"));
        // The only way to it, also where images are not kept for longer than it takes to send them.
        let path = stored.clone();
        Ok(Painted { index, file: PlacedImage::new(file, stored), fits: false, path, prompt, output: None, warnings })
    }

    fn report(&self, report: Report) {
        // The service has gone only when the program ends.
        let _ = self.reports.send(report);
    }
}

/// The next job. An engine that has waited for long enough is closed, and what it held is the system's again: opening it
/// takes a fraction of a step.
fn next(engine: &mut Option<Engine>, tasks: &mpsc::Receiver<WorkerTask>) -> Option<WorkerTask> {
    if engine.is_some() {
        match tasks.recv_timeout(IDLE) {
            Err(RecvTimeoutError::Timeout) => {
                *engine = None;
                diffused_heap::trim();
            }
            received => return received.ok(),
        }
    }
    tasks.recv().ok()
}
