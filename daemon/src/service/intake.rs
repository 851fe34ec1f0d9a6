//! From a message to a job for the queue: all checks that can be made before the job's turn, so that a client learns of
//! a mistake at once.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use diffused_engine::{Options, Resolver};

use super::JobRecord;
use crate::contract::fault::Fault;
use crate::jobs::queue::Ticket;
use crate::jobs::request::{Job, Rejection, RequestMode};
use crate::mqtt::Received;

/// How many requests are remembered, to recognise those that the broker sends again.
const RECENT: usize = 64;
const RETAINED: &str = "a retained request would be painted again at every reconnection; publish it without retain";

/// Reads requests.
pub(super) struct Intake {
    resolver: Resolver,
    options: Options,
    /// Init images wait here.
    folder: PathBuf,
    /// The largest payload that is taken. The broker is told twice as much, so that what is a little larger is answered.
    max_payload: usize,
    /// Packet ids and checksums of the last requests.
    recent: VecDeque<(u16, u64)>,
}

impl Intake {
    pub(super) fn new(resolver: Resolver, options: Options, folder: PathBuf, max_payload: usize) -> Intake {
        Intake { resolver, options, folder, max_payload, recent: VecDeque::new() }
    }

    /// Parses and resolves a request.
    pub(super) fn read(&self, received: &Received, mode: RequestMode) -> Result<Ticket<JobRecord>, Rejection> {
        if received.payload.len() > self.max_payload {
            let message =
                format!("{} bytes; {} are allowed (mqtt.max_packet)", received.payload.len(), self.max_payload);
            return Err(Rejection::of_names(&received.payload, Fault::too_large("request", message)));
        }
        let mut job = Job::parse(&received.payload, mode, &self.folder)?;
        let reject =
            |job: &Job, fault| Rejection { id: Some(job.id.clone()), transaction: job.transaction.clone(), fault };
        if received.retain {
            return Err(reject(&job, Fault::param("retain", RETAINED)));
        }
        let painting = job.resolve(&self.resolver, self.options).map_err(|fault| reject(&job, fault))?;
        let mut warnings = std::mem::take(&mut job.warnings);
        warnings.extend(painting.warnings().iter().map(ToString::to_string));
        let (id, priority, deadline) = (job.id.clone(), job.priority, deadline(received, &job));
        let record = JobRecord { job: Arc::new(job), painting, reply: None, warnings, images: vec![] };
        Ok(Ticket { id, priority, deadline, work: record })
    }

    /// The broker sends a request again that it takes for lost; the copy has the duplicate flag, the packet id and the bytes
    /// of one that was taken.
    pub(super) fn is_repeated(&mut self, received: &Received) -> bool {
        let (duplicate, packet) = received.duplicate;
        let mut hasher = DefaultHasher::new();
        (&received.topic, &received.payload).hash(&mut hasher);
        let mark = (packet, hasher.finish());
        if duplicate && self.recent.contains(&mark) {
            return true;
        }
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(mark);
        false
    }
}

/// The earlier of the message's expiry and the request's `not_after`.
fn deadline(received: &Received, job: &Job) -> Option<Instant> {
    let left = job.not_after.map(|time| time.duration_since(SystemTime::now()).unwrap_or_default());
    let soonest = left.into_iter().chain(received.expiry).min()?;
    Instant::now().checked_add(soonest)
}
