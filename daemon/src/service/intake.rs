//! From a message to a job for the queue: all checks that can be made before the job's turn, so that a client learns of
//! a mistake at once; then the journal, then the queue, and only then the broker's acknowledgement.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Instant;

use diffused_engine::{Options, Painting, Resolver};
use serde_json::Value;
use tracing::{debug, warn};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::Service;
use crate::config::Config;
use crate::contract::fault::{Code, Fault, catch_panic};
use crate::contract::messages::Ending;
use crate::contract::settings::PromptSettings;
use crate::display::panels::KnownPanels;
use crate::display::spec::{DisplaySpec, OutputRequest};
use crate::jobs::init_image::InitImage;
use crate::jobs::journal::{Acceptance, Record, SourceFiles};
use crate::jobs::queue::{Deadline, Event, Now, Ticket};
use crate::jobs::record::{Expiry, JobRecord, Moment, Reply, RequestMark};
use crate::jobs::request::{Job, Rejection, RequestMode, is_plain_text};
use crate::jobs::sources::SourceBytes;
use crate::jobs::wildcards::Wildcards;
use crate::mqtt::Received;
use crate::mqtt::receipts::Receipt;
use crate::painting::output;

const RETAINED: &str = "a retained request would be painted again at every reconnection; publish it without retain";

/// Reads requests.
pub(super) struct Intake {
    resolver: Resolver,
    wildcards: Wildcards,
    options: Options,
    panels: KnownPanels,
    /// What a display shows of images whose requests are silent.
    output: Option<OutputRequest>,
    /// Whether there are previews where requests are silent.
    preview: bool,
    /// What prompts that come as plain text are painted with.
    pub(super) settings: PromptSettings,
    /// Init images wait here.
    folder: PathBuf,
    /// The largest payload that is taken. The broker is told twice as much, so that what is a little larger is answered.
    max_payload: usize,
    /// Requests that were checked and are not in the journal yet.
    pub(super) candidates: Vec<CheckedRequest>,
    /// The last rejections, newest first.
    rejections: VecDeque<(RequestMark, Rejection)>,
}

/// How many rejections are remembered: more than the broker sends before the first is acknowledged.
const REJECTIONS: usize = 64;

/// A request that was checked.
pub(super) struct CheckedRequest {
    record: JobRecord,
    deadline: Deadline,
    /// Its images, with their bytes, which are to be stored.
    sources: SourceBytes,
    receipt: Receipt,
}

impl CheckedRequest {
    /// Whether a request of this id and mark, a copy by the broker's word or not, may be the same.
    fn is_like(&self, id: &str, mark: RequestMark, duplicate: bool) -> bool {
        let comes_again = (mark.correlated || duplicate) && self.record.mark.checksum == mark.checksum;
        self.record.job.id == id || comes_again
    }
}

impl Intake {
    pub(super) fn new(resolver: Resolver, options: Options, folder: PathBuf, config: &Config) -> Intake {
        Intake {
            resolver,
            wildcards: Wildcards::new(config.wildcards.clone()),
            options,
            panels: config.panels(),
            output: config.output.clone(),
            preview: config.preview,
            settings: PromptSettings::default(),
            folder,
            max_payload: config.mqtt.max_packet.0 as usize,
            candidates: vec![],
            rejections: VecDeque::new(),
        }
    }

    /// Goes on with `resolver` and with what the configuration has for the requests to come.
    pub(super) fn reconfigure(&mut self, resolver: Resolver, config: &Config) {
        self.resolver = resolver;
        self.wildcards = Wildcards::new(config.wildcards.clone());
        self.panels = config.panels();
        self.output = config.output.clone();
        self.preview = config.preview;
    }

    /// What resolves requests.
    pub(super) fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// Parses and resolves a request; gives its images with their bytes, too.
    fn read(&self, received: &Received, mode: RequestMode) -> Result<(Job, SourceBytes), Rejection> {
        if received.payload.len() > self.max_payload {
            let message =
                format!("{} bytes; {} are allowed (mqtt.max_packet)", received.payload.len(), self.max_payload);
            return Err(Rejection::of_names(&received.payload, Fault::too_large("request", message)));
        }
        let (mut job, sources) = Job::parse(&received.payload, mode, &self.folder)?;
        if is_plain_text(&received.payload) {
            self.settings.complete(&mut job.request);
        }
        let reject =
            |job: &Job, fault| Rejection { id: Some(job.id.clone()), transaction: job.transaction.clone(), fault };
        if received.retain {
            return Err(reject(&job, Fault::param("retain", RETAINED)));
        }
        self.complete(&mut job).map_err(|fault| reject(&job, job.hires_form.rename(fault)))?;
        Ok((job, sources))
    }

    /// Finds out whether a prompt can be painted with the settings in `request`, a request that has no other keys.
    pub(super) fn try_settings(&self, request: &Value) -> Result<PromptSettings, Fault> {
        let parsed = Job::parse(request.to_string().as_bytes(), RequestMode::Txt2Img, &self.folder);
        let (mut job, _) = parsed.map_err(|rejection| rejection.fault)?;
        self.complete(&mut job)?;
        Ok(PromptSettings::of(&job.request))
    }

    /// Draws the wildcards, and finds out whether the job can be painted and what of it has no effect.
    fn complete(&self, job: &mut Job) -> Result<(), Fault> {
        let display = self.display(job)?;
        job.paint_for(display.as_ref(), self.resolver.manifest());
        job.draw(&self.wildcards, &self.resolver)?;
        let (paintings, _) = self.resolve(job)?;
        for warning in paintings.iter().flat_map(Painting::warnings).map(ToString::to_string) {
            if !job.warnings.contains(&warning) {
                job.warnings.push(warning);
            }
        }
        Ok(())
    }

    /// The smallest width and height that the model paints, pixels.
    pub(super) fn smallest_size(&self) -> usize {
        self.resolver.manifest().picture.smallest
    }

    /// What `job` was resolved to when it was read, and what a display shows of it.
    pub(super) fn resolve(&self, job: &Job) -> Result<(Vec<Painting>, Option<DisplaySpec>), Fault> {
        let (paintings, display) = (job.resolve(&self.resolver, self.options)?, self.display(job)?);
        if let (Some(spec), Some(painting)) = (&display, paintings.first()) {
            output::check(spec, painting.parameters(), self.options)?;
        }
        let has_previews = job.preview.unwrap_or(self.preview);
        Ok((paintings.into_iter().map(|painting| painting.with_previews(has_previews)).collect(), display))
    }

    /// What a display shows of the images of `job`: as it asks, or as the configuration has it for all.
    fn display(&self, job: &Job) -> Result<Option<DisplaySpec>, Fault> {
        let Some(wanted) = job.output.as_ref().or(self.output.as_ref()) else { return Ok(None) };
        wanted.resolve(&self.panels).map_err(|message| Fault::param("output", message))
    }
}

impl Service {
    /// A request for images. It is answered at once, or becomes a candidate, which `settle` will accept.
    pub(super) async fn request(&mut self, received: &Received, mode: RequestMode) {
        let (reply, refused_reply) = self.publisher.reply(received);
        let mark = mark(received, mode, self.session);
        if let Some(rejection) = self.rejected(mark, received.duplicate.0) {
            return self.reject(mark, rejection, reply, received.receipt);
        }
        // A payload that ended the service would be sent again by the broker, for ever.
        let read = catch_panic(|| self.intake.read(received, mode));
        let read = read.unwrap_or_else(|fault| Err(Rejection { id: None, transaction: None, fault }));
        let (mut job, sources) = match read {
            Ok(read) => read,
            Err(rejection) => return self.reject(mark, rejection, reply, received.receipt),
        };
        job.warnings.extend(refused_reply);
        if self.intake.candidates.iter().any(|candidate| candidate.is_like(&job.id, mark, received.duplicate.0)) {
            self.settle().await;
        }
        if let Some(known) = self.known(&job, mark, received.duplicate.0) {
            debug!(id = known, "a request came again");
            return self.answer_again(&known, mark, reply, received.receipt);
        }
        let (expiry, deadline) = times(received, &job);
        let others = self.intake.candidates.len();
        if let Err(fault) = self.queue.check(&deadline, others, Now::read()) {
            let Job { id, transaction, .. } = job;
            return self.reject(mark, Rejection { id: Some(id), transaction, fault }, reply, received.receipt);
        }
        debug!(id = job.id, prompt = job.request.prompt, "a request");
        let record = JobRecord::new(self.storage.number(), job, mark, reply, expiry);
        let is_large = !sources.is_empty();
        self.intake.candidates.push(CheckedRequest { record, deadline, sources, receipt: received.receipt });
        if is_large {
            self.settle().await;
        }
    }

    /// Accepts a request for images that the device itself makes. One that is known already is not painted again.
    pub(super) async fn propose(&mut self, payload: &[u8]) -> Result<(), Fault> {
        let read = catch_panic(|| {
            let parsed = Job::parse(payload, RequestMode::Txt2Img, &self.intake.folder);
            let (mut job, _) = parsed.map_err(|rejection| rejection.fault)?;
            self.intake.complete(&mut job)?;
            Ok(job)
        });
        let job = read.unwrap_or_else(Err)?;
        let mark = RequestMark { checksum: xxh3_64(payload), correlated: false, packet: 0, session: 0 };
        if self.known(&job, mark, false).is_some() {
            return Ok(());
        }
        let deadline = Deadline::default();
        self.queue.check(&deadline, 0, Now::read())?;
        let record = JobRecord::new(self.storage.number(), job, mark, None, None);
        let accepted = self.storage.accept(vec![], &[acceptance(&record)]).await;
        accepted
            .map_err(|error| Fault::new(Code::DiskFull, format!("the request cannot be written to disk: {error}")))?;
        self.apply(Event::Submit(ticket(record, deadline)));
        Ok(())
    }

    /// Accepts the candidates: all that are there with one sync of the disk.
    pub(super) async fn settle(&mut self) {
        let mut candidates = std::mem::take(&mut self.intake.candidates);
        if candidates.is_empty() {
            return;
        }
        let sources = candidates.iter_mut().flat_map(|candidate| std::mem::take(&mut candidate.sources)).collect();
        let records: Vec<Record> = candidates.iter().map(|candidate| acceptance(&candidate.record)).collect();
        let outcome = self.storage.accept(sources, &records).await;
        for CheckedRequest { record, deadline, receipt, .. } in candidates {
            match &outcome {
                Ok(()) => {
                    self.apply(Event::Submit(ticket(record, deadline)));
                    self.publisher.acknowledge(receipt);
                }
                Err(error) => {
                    let message = format!("the request cannot be written to disk, so it is not accepted: {error}");
                    let (mark, reply, Job { id, transaction, .. }) = (record.mark, record.reply, record.job);
                    let fault = Fault::new(Code::DiskFull, message);
                    self.reject(mark, Rejection { id: Some(id), transaction, fault }, reply, receipt);
                }
            }
        }
    }

    /// How the request was rejected of which this is the broker's copy: it is not judged anew.
    fn rejected(&self, mark: RequestMark, duplicate: bool) -> Option<Rejection> {
        let mut earlier = self.intake.rejections.iter().filter(|_| duplicate);
        earlier.find(|(other, _)| *other == mark).map(|(_, rejection)| rejection.clone())
    }

    /// The request is acknowledged once its rejection has reached the broker.
    fn reject(&mut self, mark: RequestMark, rejection: Rejection, reply: Option<Reply>, receipt: Receipt) {
        let Rejection { id, transaction, fault } = rejection;
        let id = self.free_id(id);
        let rejection = Rejection { id: Some(id.clone()), transaction: transaction.clone(), fault: fault.clone() };
        self.intake.rejections.truncate(REJECTIONS - 1);
        self.intake.rejections.push_front((mark, rejection));
        warn!(id, "rejected: {}", fault.one_line());
        let messages = self.publisher.ended(&id, transaction, reply.as_ref(), &Ending::Rejected(fault));
        self.publisher.answer(messages, receipt);
    }
}

/// A job for the queue.
pub(super) fn ticket(record: JobRecord, deadline: Deadline) -> Ticket<Box<JobRecord>> {
    Ticket {
        id: record.job.id.clone(),
        priority: record.job.priority,
        deadline,
        resumed: record.interrupted,
        work: Box::new(record),
    }
}

/// What the journal says of a job that is accepted.
fn acceptance(record: &JobRecord) -> Record {
    let JobRecord { number, job, mark, reply, expiry, .. } = record.clone();
    let path = |image: &Option<InitImage>| image.as_ref().map(|image| image.path().to_owned());
    let files = SourceFiles { init_image: path(&job.init_image), mask: path(&job.mask) };
    Record::Accepted(Box::new(Acceptance { number, job, files, mark, reply, expiry }))
}

fn mark(received: &Received, mode: RequestMode, session: u64) -> RequestMark {
    let mut checksum = Xxh3::new();
    let correlation = received.correlation.as_deref();
    checksum.update(&[u8::from(mode == RequestMode::Img2Img), u8::from(correlation.is_some())]);
    checksum.update(&(received.payload.len() as u64).to_le_bytes());
    checksum.update(&received.payload);
    checksum.update(correlation.unwrap_or_default());
    RequestMark {
        checksum: checksum.digest(),
        correlated: correlation.is_some(),
        packet: received.duplicate.1,
        session,
    }
}

/// The message's expiry and the request's `not_after`.
fn times(received: &Received, job: &Job) -> (Option<Expiry>, Deadline) {
    let expiry = received.expiry.map(|left| Expiry { left, at: Moment::now() });
    let passes = received.expiry.and_then(|left| Instant::now().checked_add(left));
    (expiry, Deadline { passes, shown: job.not_after })
}
