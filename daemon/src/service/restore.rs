//! A start after an earlier run: its jobs are queued again, the interrupted one first, and what it had still to send is sent.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Instant;

use tracing::{error, info, warn};

use super::Service;
use super::intake::ticket;
use crate::contract::fault::{Code, Fault};
use crate::contract::messages::Ending;
use crate::jobs::init_image::InitImage;
use crate::jobs::journal::{JournalState, Record, SourceFiles};
use crate::jobs::queue::{Deadline, Ticket};
use crate::jobs::record::{JobRecord, Moment};
use crate::jobs::sources::of_mask;

/// Starts without progress after which a job is taken for the cause of the crashes.
const STARTS: u32 = 2;

impl Service {
    /// Takes over what the journal says.
    pub(super) fn restore(&mut self, journal: JournalState) {
        let JournalState { jobs, ended, messages, order, settings, announced, paused, session, .. } = journal;
        let (waiting, unsent) = (jobs.len(), messages.len());
        if waiting + unsent > 0 {
            info!(waiting, unsent, "going on with what an earlier run has left");
        }
        (self.ended, self.session) = (ended, session);
        self.intake.settings = settings;
        self.announcement.topics = announced;
        self.publisher.send(messages.into_values());
        let mut tickets = vec![];
        for (record, files) in jobs.into_values() {
            match revive(record, files) {
                Ok(record) => tickets.push(ticket(record.0, record.1)),
                Err(ended) => self.end(ended.0, ended.1),
            }
        }
        self.queue.restore(in_order(tickets, &order), paused);
    }

    /// The broker has begun a session: packet ids of earlier ones mean nothing any more.
    pub(super) fn begin_session(&mut self) {
        self.session = self.storage.number();
        self.storage.note(&Record::Session { session: self.session });
    }

    /// The running job is left to the next start, without counting this one as a crash.
    pub(super) fn put_aside(&mut self) {
        let Some((_, record)) = self.queue.running_mut() else { return };
        info!(id = record.job.id, "put aside until the next start");
        self.advanced();
    }

    /// Notes that the running job does not begin anew at the next start.
    pub(super) fn advanced(&mut self) {
        let Some((_, record)) = self.queue.running_mut() else { return };
        let job = record.number;
        self.storage.note_urgently(&Record::Advanced { job });
    }
}

/// Jobs as they are to be painted: those that were started before, then those that a client has put in `order`, by their
/// numbers, then those that came in later, each behind the last that is as urgent.
fn in_order(mut tickets: Vec<Ticket<Box<JobRecord>>>, order: &[u64]) -> Vec<Ticket<Box<JobRecord>>> {
    let places: HashMap<u64, usize> = order.iter().enumerate().map(|(place, number)| (*number, place)).collect();
    // The sort keeps the order of those that are equal.
    tickets.sort_by_key(|ticket| (!ticket.resumed, places.get(&ticket.work.number).copied().unwrap_or(usize::MAX)));
    let mut ordered: Vec<Ticket<Box<JobRecord>>> = vec![];
    for ticket in tickets {
        let is_placed = ticket.resumed || places.contains_key(&ticket.work.number);
        let goes_before = |other: &Ticket<_>| is_placed || other.resumed || other.priority >= ticket.priority;
        let last = ordered.iter().rposition(goes_before);
        ordered.insert(last.map_or(0, |last| last + 1), ticket);
    }
    ordered
}

/// A job as it can be queued, or how it ends instead.
fn revive(mut record: JobRecord, files: SourceFiles) -> Result<(JobRecord, Deadline), Box<(JobRecord, Ending)>> {
    if record.cancelled {
        let ending = Ending::Cancelled(Fault::new(Code::Cancelled, "cancelled while it was painted"));
        return Err(Box::new((record, ending)));
    }
    if record.starts >= STARTS {
        let message =
            format!("the program ended {} times while it painted this job, so it is not tried again", record.starts);
        error!(id = record.job.id, "{message}");
        return Err(Box::new((record, Ending::Failed(Fault::new(Code::Internal, message)))));
    }
    let open = |path: Option<PathBuf>| path.map(|path| InitImage::open(&path)).transpose();
    match (open(files.init_image), open(files.mask).map_err(of_mask)) {
        (Ok(init_image), Ok(mask)) => (record.job.init_image, record.job.mask) = (init_image, mask),
        (Err(fault), _) | (_, Err(fault)) => {
            warn!(id = record.job.id, "{fault}");
            return Err(Box::new((record, Ending::Failed(fault))));
        }
    }
    let passes = record.expiry.as_ref().map(|expiry| Instant::now() + expiry.left(&Moment::now()));
    // A job that was started before is not late any more.
    let deadline = match record.interrupted {
        true => Deadline::default(),
        false => Deadline { passes, shown: record.job.not_after },
    };
    Ok((record, deadline))
}
