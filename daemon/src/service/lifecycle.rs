//! A job's way through the service: queued, started, painted, ended. What a client must learn is noted in the journal with
//! the message that says so.

use std::collections::{HashSet, VecDeque};
use std::path::PathBuf;

use tracing::{debug, info, warn};

use super::{RunningState, Service};
use crate::contract::fault::{Code, Fault};
use crate::contract::messages::{Ending, Image, JobResult, State, Timings};
use crate::health;
use crate::jobs::journal::Record;
use crate::jobs::queue::{Effect, Event, Now};
use crate::jobs::record::{EndedJob, JobRecord};
use crate::mqtt::message::{Message, MessagePayload, SentImage};
use crate::painting::placed::{Place, PlacedImage};
use crate::painting::progress::JobTimes;
use crate::painting::worker::{EarlierRuns, Painted, Report};
use crate::random;

/// More images than a job has, smaller copies and what displays show included.
const NEWEST: usize = 64;

impl Service {
    /// Changes the queue and carries out what follows from it.
    pub(super) fn apply(&mut self, event: Event<Box<JobRecord>>) {
        let mut effects = VecDeque::from(self.queue.apply(event, Now::read()));
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::Queued { id, position } => {
                    if let Some(record) = self.queue.get(&id) {
                        self.publisher.send(self.publisher.state(record, State::Queued, Some(position)));
                    }
                }
                Effect::Start { id } => {
                    if let Err(fault) = self.start_job(&id) {
                        effects.extend(self.queue.apply(Event::Finished(Ending::Failed(fault)), Now::read()));
                    }
                }
                Effect::Stop { id } => self.stop_job(&id),
                Effect::Ended { work, ending, .. } => self.end(*work, ending),
            }
        }
    }

    /// The id under which a request is rejected: never that of a job that waits, runs or is done.
    pub(super) fn free_id(&self, id: Option<String>) -> String {
        let is_done = |id: &String| self.ended.get(id).is_some_and(|ended| ended.ending == Ending::Done);
        let is_free = |id: &String| !self.queue.contains(id) && !is_done(id);
        id.filter(is_free).unwrap_or_else(random::id)
    }

    fn start_job(&mut self, id: &str) -> Result<(), Fault> {
        let Some(record) = self.queue.get(id) else { return Ok(()) };
        // It may fail after a restart, with another model or less memory.
        let (paintings, display) = self.intake.resolve(&record.job)?;
        let Some(painting) = paintings.first().cloned() else { return Ok(()) };
        let earlier = EarlierRuns { images: record.images.len() as u64, interrupted: record.interrupted };
        info!(id, steps = painting.parameters().steps, "running");
        self.storage.note(&Record::Started { job: record.number });
        self.publisher.send(self.publisher.state(record, State::Running, None));
        let limit = self.publisher.image_limit(id);
        self.worker.run(record.job.clone(), paintings, earlier, display, limit);
        let written_before = health::storage().map(|storage| storage.written);
        self.running = RunningState { painting: Some(painting), written_before, ..RunningState::default() };
        Ok(())
    }

    fn stop_job(&mut self, id: &str) {
        debug!(id, "asked to stop");
        if let Some(record) = self.queue.get(id) {
            self.storage.note_urgently(&Record::Cancelled { job: record.number });
        }
        self.worker.stop();
    }

    pub(super) fn on_report(&mut self, report: Report) {
        let Some(id) = self.queue.running().map(str::to_owned) else { return };
        match report {
            Report::Progress(progress) => {
                self.publisher.progress(&id, &progress);
                self.running.progress = Some(progress);
            }
            Report::Preview(file) => self.publisher.preview(&id, file),
            Report::Checkpointed => self.advanced(),
            Report::Cooling(is_cooling) => {
                debug!(id, is_cooling, "the processor is hot");
                self.running.is_cooling = is_cooling;
                self.send_health();
            }
            Report::Painted(painted) => self.painted(&id, painted),
            Report::Finished(outcome) => self.finished(&id, outcome),
        }
    }

    /// Publishes an image and enters it in the job's record.
    fn painted(&mut self, id: &str, painted: Painted) {
        let image = self.publisher.describe(id, &painted);
        let Painted { index, file, fits, output, warnings, .. } = painted;
        if matches!(file.place, Place::Memory(_)) && !self.publisher.mqtt().is_connected() {
            let message = format!("the image could be neither sent nor kept; {}", warnings.join("; "));
            self.running.fault = Some(Fault::new(Code::DiskFull, message));
            return self.worker.stop();
        }
        let Some((_, record)) = self.queue.running_mut() else { return };
        record.images.push(image.clone());
        record.warnings.extend(warnings.iter().cloned());
        let number = record.number;
        if fits {
            self.send_image(SentImage { job: id.to_owned(), index, reduced: false, output: false }, file);
        }
        if let Some(output) = output.filter(|output| output.fits) {
            self.send_image(SentImage { job: id.to_owned(), index, reduced: false, output: true }, output.file);
        }
        self.storage.note_urgently(&Record::Painted { job: number, image: Box::new(image), warnings });
    }

    fn send_image(&mut self, image: SentImage, file: PlacedImage) {
        let [message, latest] = self.publisher.image(image, file);
        let message = self.keep(message);
        self.publisher.send([message, latest]);
    }

    fn finished(&mut self, id: &str, outcome: Result<JobTimes, Fault>) {
        let ending = match (outcome, self.running.fault.take()) {
            (_, Some(fault)) => Ending::Failed(fault),
            (Ok(times), None) => {
                self.seconds_per_step = times.seconds_per_step.or(self.seconds_per_step);
                self.log_done(id, &times);
                self.running.result = self.result(id, times.timings);
                Ending::Done
            }
            (Err(fault), None) if self.worker.is_stopping() && fault.code == Code::Cancelled => {
                Ending::Cancelled(fault)
            }
            (Err(fault), None) => Ending::Failed(fault),
        };
        self.apply(Event::Finished(ending));
    }

    /// The one line that the log has of a job that went well.
    fn log_done(&self, id: &str, times: &JobTimes) {
        let Timings { text_encoder, vae_encoder, unet, vae_decoder, upscaler, cooling, total, peak_rss } =
            times.timings;
        let written =
            health::storage().zip(self.running.written_before).map(|(now, before)| (now.written - before) >> 10);
        info!(
            id,
            images = self.queue.get(id).map(|record| record.images.len()),
            seconds = total,
            text_encoder,
            vae_encoder = (vae_encoder > 0.0).then_some(vae_encoder),
            unet,
            seconds_per_step = times.seconds_per_step.map(|seconds| (seconds * 1000.0).round() / 1000.0),
            vae_decoder,
            upscaler,
            cooling,
            peak_mib = peak_rss.map(|bytes| bytes >> 20),
            written_kib = written,
            "done"
        );
    }

    fn result(&self, id: &str, timings: Timings) -> Option<JobResult> {
        let (record, painting) = (self.queue.get(id)?, self.running.painting.as_ref()?);
        Some(JobResult {
            id: id.to_owned(),
            transaction: record.job.transaction.clone(),
            status: State::Done,
            parameters: painting.parameters().clone(),
            model_sha256: self.model_sha256.clone(),
            timings,
            images: record.images.clone(),
            warnings: record.warnings.clone(),
        })
    }

    pub(super) fn end(&mut self, record: JobRecord, ending: Ending) {
        let id = &record.job.id;
        match &ending {
            // Its line is written with its times.
            Ending::Done => {}
            Ending::Cancelled(fault) => info!(id, "ended: {}", fault.one_line()),
            Ending::Failed(fault) | Ending::Rejected(fault) => warn!(id, "ended: {}", fault.one_line()),
        }
        let (reply, transaction) = (record.reply.as_ref(), record.job.transaction.clone());
        let result = self.running.result.take().filter(|result| result.id == *id);
        let mut messages = result.as_ref().map_or(vec![], |result| self.publisher.result(result, reply));
        messages.extend(self.publisher.ended(id, transaction.clone(), reply, &ending));
        for message in messages {
            let message = self.keep(message);
            self.publisher.send([message]);
        }
        let (number, mark) = (record.number, record.mark);
        let ended = EndedJob { number, id: id.clone(), transaction, mark, ending, result };
        self.storage.note_urgently(&Record::Ended(Box::new(ended.clone())));
        self.ended.push(ended);
        let sources = record.job.init_image.iter().chain(&record.job.mask);
        sources.for_each(|image| self.storage.remove_source(image.path()));
        if !record.images.is_empty() {
            self.prune = true;
            self.prune_images();
        }
    }

    /// Notes a message that is to be sent whatever happens. An image that could not be stored is sent by this run or not at all.
    pub(super) fn keep(&mut self, message: Message) -> Message {
        let is_unstored_image = !message.is_text() && matches!(message.payload, MessagePayload::Bytes(_));
        if is_unstored_image {
            return message;
        }
        let message = Message { number: Some(message.number.unwrap_or_else(|| self.storage.number())), ..message };
        self.storage.note_urgently(&Record::Message(Box::new(message.clone())));
        message
    }

    /// Removes the oldest images beyond the number that is kept, but for those that wait to be sent and those of the `latest`
    /// job. While a job runs the newest stay, which may be its own and not in its record yet.
    pub(super) fn prune_images(&mut self) {
        if !self.prune {
            return;
        }
        self.prune = false;
        let newest = if self.queue.running().is_some() { NEWEST } else { 0 };
        let latest = self.ended.iter().rev().find_map(|ended| ended.result.as_ref());
        let paths = |image: &Image| [image.path.clone(), image.output.as_ref().and_then(|output| output.path.clone())];
        let latest = latest.into_iter().flat_map(|result| result.images.iter().flat_map(paths).flatten());
        let in_use: HashSet<PathBuf> = self.publisher.waiting_files().into_iter().chain(latest).collect();
        self.folder.prune(newest, &in_use);
    }
}
