//! What is written down so that nothing is lost with the process: a file of lines, each with a checksum of its own, that
//! only grows until it is written anew with what is still of use. Here are the lines and what follows from them; the file
//! itself is the service's.
//!
//! Embedded databases were tried in its place. A job writes 3 KB with three syncs as lines; the same records took 40 KB in
//! SQLite (WAL) and 74 KB in redb, with as many syncs, because they write pages: a card would wear out thirteen times as
//! fast. What is kept is read once, at the start, so no index is needed; a damaged line costs that line alone, and a person
//! can read the file.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::contract::settings::PromptSettings;
use crate::jobs::record::{EndedJob, Expiry, JobRecord, Reply, RequestMark};
use crate::jobs::request::{INIT_IMAGE, Job, MASK};
use crate::mqtt::message::Message;

/// The form in which the lines are written.
const FORMAT: u32 = 1;
/// How many ended jobs are remembered.
const ENDED: usize = 256;
/// How much of the journal they may take, bytes.
const ENDED_BYTES: usize = 1 << 20;

/// A line: what has happened.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// The first line: whose file this is.
    Format {
        /// See `FORMAT`.
        version: u32,
    },
    /// A request was accepted.
    Accepted(Box<Acceptance>),
    /// A job was started.
    Started {
        /// Its number.
        job: u64,
    },
    /// A client cancelled a job that runs.
    Cancelled {
        /// Its number.
        job: u64,
    },
    /// A job that runs can go on from a later point than before, or was put aside in good order.
    Advanced {
        /// Its number.
        job: u64,
    },
    /// An image of a job is ready.
    Painted {
        /// The job's number.
        job: u64,
        /// Its next image.
        image: Box<crate::contract::messages::Image>,
        /// What the client should know of it.
        warnings: Vec<String>,
    },
    /// The broker did not take an image of a job that has not ended as it was painted.
    Corrected {
        /// The job's number.
        job: u64,
        /// The image's number in the job, from 0.
        index: u64,
        /// How it is described from now on.
        image: Box<crate::contract::messages::Image>,
        /// All that the client should know of the job.
        warnings: Vec<String>,
    },
    /// A job ended, or what is known of one that has ended was corrected.
    Ended(Box<EndedJob>),
    /// A message is to be sent, or one of the same number is to be sent in this form.
    Message(Box<Message>),
    /// A message was delivered or dropped.
    Left {
        /// Its number.
        message: u64,
    },
    /// The broker began a session: packet ids of earlier ones mean nothing any more.
    Session {
        /// Its number.
        session: u64,
    },
    /// A client moved a job: in this order the jobs that wait are painted, but for those that came in later.
    Order {
        /// Their numbers, the next one first.
        jobs: Vec<u64>,
    },
    /// What prompts that come as plain text are painted with from now on.
    Settings(PromptSettings),
    /// The broker keeps messages for Home Assistant.
    Announced {
        /// On these topics.
        topics: Vec<String>,
    },
    /// The queue was paused or resumed.
    Paused {
        /// Which.
        paused: bool,
    },
}

/// The files of a job's images.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceFiles {
    /// Its init image.
    pub init_image: Option<PathBuf>,
    /// Its mask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<PathBuf>,
}

impl SourceFiles {
    /// Those that there are.
    pub fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.init_image.iter().chain(&self.mask)
    }
}

/// A request that was accepted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Acceptance {
    /// See [`JobRecord::number`].
    pub number: u64,
    /// The request.
    pub job: Job,
    /// The files of its images.
    #[serde(flatten)]
    pub files: SourceFiles,
    /// See [`JobRecord::mark`].
    pub mark: RequestMark,
    /// See [`JobRecord::reply`].
    pub reply: Option<Reply>,
    /// See [`JobRecord::expiry`].
    pub expiry: Option<Expiry>,
}

impl Record {
    /// The record as a line, its end included.
    pub fn line(&self) -> String {
        let json = serde_json::to_string(self).expect("records are plain data with text for keys");
        format!("{:016x} {json}\n", xxh3_64(json.as_bytes()))
    }

    /// A line without its end; `None` if it is damaged.
    fn parse(line: &[u8]) -> Option<Record> {
        let (checksum, json) = line.split_first_chunk::<16>()?;
        let json = json.strip_prefix(b" ")?;
        let checksum = u64::from_str_radix(std::str::from_utf8(checksum).ok()?, 16).ok()?;
        if checksum != xxh3_64(json) {
            return None;
        }
        serde_json::from_slice(json).ok()
    }
}

/// What a journal says.
#[derive(Debug, Default)]
pub struct JournalState {
    /// Jobs that have not ended, by number, with the files of their init images.
    pub jobs: BTreeMap<u64, (JobRecord, SourceFiles)>,
    /// Those that have, oldest first.
    pub ended: EndedJobs,
    /// Messages that have not left, by number.
    pub messages: BTreeMap<u64, Message>,
    /// Jobs in the order in which a client has put them, where one did: by number. Some may have ended.
    pub order: Vec<u64>,
    /// What prompts that come as plain text are painted with.
    pub settings: PromptSettings,
    /// Topics on which the broker keeps messages for Home Assistant.
    pub announced: Vec<String>,
    /// Whether the queue is paused.
    pub paused: bool,
    /// The broker's session.
    pub session: u64,
    /// The next number of a job or message.
    pub next: u64,
    /// Lines that are damaged, from 1.
    pub damaged: Vec<usize>,
    /// The form in which the lines are written; 0 without a first line.
    pub format: u32,
    /// How many lines are whole.
    pub whole: usize,
}

impl JournalState {
    /// Reads the bytes of a journal. What is damaged is left out.
    pub fn replay(bytes: &[u8]) -> JournalState {
        let mut journal = JournalState { next: 1, ..JournalState::default() };
        let lines = bytes.split_inclusive(|byte| *byte == b'\n').enumerate();
        for (index, line) in lines {
            // A line without its end is one that was being written.
            match line.strip_suffix(b"\n").and_then(Record::parse) {
                Some(record) => {
                    journal.whole += 1;
                    journal.apply(record);
                }
                None => journal.damaged.push(index + 1),
            }
        }
        journal
    }

    /// Why these lines are not for this program to change.
    pub fn foreign(&self) -> Option<&'static str> {
        match self {
            JournalState { format, .. } if *format > FORMAT => Some("was written by a newer version of diffused"),
            JournalState { whole: 0, damaged, .. } if !damaged.is_empty() => Some("is not a journal of diffused"),
            _ => None,
        }
    }

    fn apply(&mut self, record: Record) {
        match record {
            Record::Format { version } => self.format = version,
            Record::Accepted(acceptance) => {
                let Acceptance { number, job, files, mark, reply, expiry } = *acceptance;
                self.count(number);
                let record = JobRecord::new(number, job, mark, reply, expiry);
                self.jobs.insert(number, (record, files));
            }
            Record::Started { job } => self.change(job, |job| {
                job.starts += 1;
                job.interrupted = true;
            }),
            Record::Cancelled { job } => self.change(job, |job| job.cancelled = true),
            Record::Advanced { job } => self.change(job, |job| job.starts = 0),
            Record::Painted { job, image, warnings } => self.change(job, |job| {
                job.images.push(*image);
                job.warnings.extend(warnings);
                job.starts = 0;
            }),
            Record::Corrected { job, index, image, warnings } => self.change(job, |job| {
                if let Some(painted) = job.images.get_mut(index as usize) {
                    *painted = *image;
                }
                job.warnings = warnings;
            }),
            Record::Ended(ended) => {
                self.count(ended.number);
                self.jobs.remove(&ended.number);
                self.ended.push(*ended);
            }
            Record::Message(message) => {
                let number = message.number.unwrap_or_default();
                self.count(number);
                self.messages.insert(number, *message);
            }
            Record::Left { message } => drop(self.messages.remove(&message)),
            Record::Session { session } => {
                self.count(session);
                self.session = session;
            }
            Record::Order { jobs } => self.order = jobs,
            Record::Settings(settings) => self.settings = settings,
            Record::Announced { topics } => self.announced = topics,
            Record::Paused { paused } => self.paused = paused,
        }
    }

    fn change(&mut self, job: u64, change: impl FnOnce(&mut JobRecord)) {
        if let Some((record, _)) = self.jobs.get_mut(&job) {
            change(record);
        }
    }

    fn count(&mut self, number: u64) {
        self.next = self.next.max(number.saturating_add(1));
    }

    /// The shortest journal that says the same.
    pub fn lines(&self) -> String {
        let mut text = String::new();
        let mut write = |record: Record| text.push_str(&record.line());
        write(Record::Format { version: FORMAT });
        self.ended.iter().for_each(|ended| write(Record::Ended(Box::new(ended.clone()))));
        for (record, files) in self.jobs.values() {
            let JobRecord { number, job, mark, reply, expiry, images, starts, .. } = record.clone();
            let known = job.warnings.len();
            let warnings = record.warnings.get(known..).unwrap_or_default();
            let files = files.clone();
            write(Record::Accepted(Box::new(Acceptance { number, job, files, mark, reply, expiry })));
            for (index, image) in images.into_iter().enumerate() {
                let warnings = if index == 0 { warnings.to_vec() } else { vec![] };
                write(Record::Painted { job: number, image: Box::new(image), warnings });
            }
            (0..starts).for_each(|_| write(Record::Started { job: number }));
            if starts == 0 && record.interrupted {
                write(Record::Started { job: number });
                write(Record::Advanced { job: number });
            }
            if record.cancelled {
                write(Record::Cancelled { job: number });
            }
        }
        self.messages.values().for_each(|message| write(Record::Message(Box::new(message.clone()))));
        if self.session > 0 {
            write(Record::Session { session: self.session });
        }
        let order: Vec<u64> = self.order.iter().copied().filter(|job| self.jobs.contains_key(job)).collect();
        if !order.is_empty() {
            write(Record::Order { jobs: order });
        }
        if self.settings != PromptSettings::default() {
            write(Record::Settings(self.settings.clone()));
        }
        if !self.announced.is_empty() {
            write(Record::Announced { topics: self.announced.clone() });
        }
        if self.paused {
            write(Record::Paused { paused: true });
        }
        text
    }
}

/// The jobs that ended last.
#[derive(Debug, Default)]
pub struct EndedJobs {
    jobs: VecDeque<(EndedJob, usize)>,
    by_id: HashMap<String, u64>,
    bytes: usize,
}

impl EndedJobs {
    /// Remembers a job, instead of what was known under its number, and forgets the oldest.
    pub fn push(&mut self, job: EndedJob) {
        let bytes = serde_json::to_vec(&job).map_or(0, |json| json.len());
        self.bytes += bytes;
        if let Some((known, known_bytes)) = self.jobs.iter_mut().find(|(known, _)| known.number == job.number) {
            self.bytes -= *known_bytes;
            (*known, *known_bytes) = (job, bytes);
            return;
        }
        self.by_id.insert(job.id.clone(), job.number);
        self.jobs.push_back((job, bytes));
        while self.jobs.len() > ENDED || (self.bytes > ENDED_BYTES && self.jobs.len() > 1) {
            let Some((oldest, bytes)) = self.jobs.pop_front() else { return };
            self.bytes -= bytes;
            if self.by_id.get(&oldest.id) == Some(&oldest.number) {
                self.by_id.remove(&oldest.id);
            }
        }
    }

    /// The job of this id that ended last.
    pub fn get(&self, id: &str) -> Option<&EndedJob> {
        let number = self.by_id.get(id)?;
        self.iter().rev().find(|job| job.number == *number)
    }

    /// Oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &EndedJob> {
        self.jobs.iter().map(|(job, _)| job)
    }
}

/// Whether `path` is named as the file of an init image or a mask is: only those are deleted.
pub fn is_source(path: &Path) -> bool {
    let is = |name: &str| [INIT_IMAGE, MASK].iter().any(|prefix| name.starts_with(prefix));
    path.file_name().is_some_and(|name| is(&name.to_string_lossy()))
}

#[cfg(test)]
mod tests;
