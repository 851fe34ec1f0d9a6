//! The queue of jobs as a pure state machine: `apply` takes what happened and returns what is to be done. It has no clock,
//! no network and no worker, so every order of events can be tested.
//!
//! One job runs at a time. Waiting jobs are ordered by priority, then by arrival, unless a client moves one. A deadline holds for the start of a
//! job: a job that runs is finished.
//!
//! Each job causes a bounded number of effects, however many wait.

use std::time::{Instant, SystemTime};

use crate::contract::fault::{Code, Fault};
use crate::contract::messages::Ending;

/// A job as the queue knows it; `W` is all else that is known of it, which the queue only carries.
#[derive(Debug, Clone, PartialEq)]
pub struct Ticket<W> {
    /// Unique in the queue.
    pub id: String,
    /// Larger goes first.
    pub priority: i64,
    /// Not to be started after this.
    pub deadline: Deadline,
    /// Whether it was started before: it goes before all that were not.
    pub resumed: bool,
    /// All else.
    pub work: W,
}

/// Until when a job may be started: whichever comes first.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Deadline {
    /// When a time that was given has passed, whatever the clock is set to.
    pub passes: Option<Instant>,
    /// When the clock shows this.
    pub shown: Option<SystemTime>,
}

/// The present.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For times that pass.
    pub instant: Instant,
    /// What the clock shows.
    pub shown: SystemTime,
}

impl Now {
    /// As the system has it.
    pub fn read() -> Now {
        Now { instant: Instant::now(), shown: SystemTime::now() }
    }
}

impl Deadline {
    fn is_over(&self, now: Now) -> bool {
        self.passes.is_some_and(|end| end <= now.instant) || self.shown.is_some_and(|end| end <= now.shown)
    }
}

/// What happened.
#[derive(Debug)]
pub enum Event<W> {
    /// A job came in, which `check` has let pass.
    Submit(Ticket<W>),
    /// A job is to end.
    Cancel(String),
    /// All jobs are to end; the text is the reason for those that wait.
    CancelAll(&'static str),
    /// A job that waits is to have so many others that wait before it, or all if there are fewer.
    Move {
        /// The job.
        id: String,
        /// How many.
        to: usize,
    },
    /// The running job ended: it was painted, cancelled, or went wrong.
    Finished(Ending),
    /// Stop starting jobs.
    Pause,
    /// Start jobs again.
    Resume,
    /// Time went by.
    Tick,
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub enum Effect<W> {
    /// Report that a job waits.
    Queued {
        /// The job.
        id: String,
        /// How many are before it.
        position: usize,
    },
    /// Start a job and report it.
    Start {
        /// The job.
        id: String,
    },
    /// Stop the running job; the event `Finished` will follow.
    Stop {
        /// The job.
        id: String,
    },
    /// Report how a job ended; it has left the queue, or was never in it.
    Ended {
        /// The job.
        id: String,
        /// All else that is known of it.
        work: W,
        /// How.
        ending: Ending,
    },
}

/// The first waiting jobs, of which each change of position is reported. Of those behind them only the arrival is: else the
/// messages would grow with the square of the queue.
const FRONT: usize = 8;

/// Waiting jobs and the running one.
#[derive(Debug)]
pub struct Queue<W> {
    capacity: usize,
    waiting: Vec<Waiting<W>>,
    running: Option<RunningJob<W>>,
    paused: bool,
}

#[derive(Debug)]
struct Waiting<W> {
    ticket: Ticket<W>,
    /// The position that was last reported.
    reported: Option<usize>,
}

#[derive(Debug)]
struct RunningJob<W> {
    id: String,
    work: W,
    cancelled: bool,
}

impl<W> Queue<W> {
    /// An empty queue in which `capacity` jobs may wait.
    pub fn new(capacity: usize) -> Queue<W> {
        Queue { capacity, waiting: vec![], running: None, paused: false }
    }

    /// From now on so many jobs may wait; those that wait already stay.
    pub fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity;
    }

    /// Puts jobs of an earlier run into the empty queue, in the order of `tickets`. Stops starting jobs where `paused` is.
    /// Their positions are reported as those of any others, but for those that are not at the front.
    pub fn restore(&mut self, tickets: impl IntoIterator<Item = Ticket<W>>, paused: bool) {
        self.paused = paused;
        for ticket in tickets {
            let index = self.waiting.len();
            self.waiting.push(Waiting { ticket, reported: (index >= FRONT).then_some(index) });
        }
    }

    /// Whether a job with this deadline can be taken at `now`, where `others` that were let pass are still to come.
    ///
    /// # Errors
    ///
    /// `Expired` or `QueueFull`.
    pub fn check(&self, deadline: &Deadline, others: usize, now: Now) -> Result<(), Fault> {
        if deadline.is_over(now) {
            return Err(expired());
        }
        if self.waiting.len() + others >= self.capacity {
            let message = format!("{} jobs wait already; try again later", self.capacity);
            return Err(Fault::new(Code::QueueFull, message));
        }
        Ok(())
    }

    /// Changes the state by `event` at the time `now`; the effects are to be carried out in their order.
    pub fn apply(&mut self, event: Event<W>, now: Now) -> Vec<Effect<W>> {
        let mut effects = vec![];
        match event {
            Event::Submit(ticket) => self.submit(ticket),
            Event::Cancel(id) => self.cancel(&id, "cancelled before it was started", &mut effects),
            Event::CancelAll(why) => self.cancel_all(why, &mut effects),
            Event::Move { id, to } => self.move_to(&id, to),
            Event::Finished(ending) => self.finish(ending, &mut effects),
            Event::Pause => self.paused = true,
            Event::Resume => self.paused = false,
            Event::Tick => {}
        }
        self.expire(now, &mut effects);
        self.report_positions(&mut effects);
        self.start(&mut effects);
        effects
    }

    /// Every job's id, the running one first, then in the order in which they will run.
    pub fn ids(&self) -> Vec<String> {
        let running = self.running.iter().map(|running| &running.id);
        running.chain(self.waiting.iter().map(|waiting| &waiting.ticket.id)).cloned().collect()
    }

    /// What is known of a job that waits or runs.
    pub fn get(&self, id: &str) -> Option<&W> {
        let running = self.running.iter().map(|running| (&running.id, &running.work));
        let waiting = self.waiting.iter().map(|waiting| (&waiting.ticket.id, &waiting.ticket.work));
        running.chain(waiting).find(|(other, _)| *other == id).map(|(_, work)| work)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, id: &str) -> Option<&mut W> {
        let running = self.running.iter_mut().map(|running| (&running.id, &mut running.work));
        let waiting = self.waiting.iter_mut().map(|Waiting { ticket, .. }| (&ticket.id, &mut ticket.work));
        running.chain(waiting).find(|(other, _)| *other == id).map(|(_, work)| work)
    }

    /// Whether a job of this id waits or runs.
    pub fn contains(&self, id: &str) -> bool {
        self.get(id).is_some()
    }

    /// How many jobs are before one that waits or runs.
    pub fn position(&self, id: &str) -> Option<usize> {
        self.ids().iter().position(|other| other == id)
    }

    /// What is known of all jobs.
    pub fn works(&self) -> impl Iterator<Item = &W> {
        let running = self.running.iter().map(|running| &running.work);
        running.chain(self.waiting.iter().map(|waiting| &waiting.ticket.work))
    }

    /// What is known of the jobs that wait, the next one first.
    pub fn waiting_works(&self) -> impl Iterator<Item = &W> {
        self.waiting.iter().map(|waiting| &waiting.ticket.work)
    }

    /// The id of the job that runs.
    pub fn running(&self) -> Option<&str> {
        self.running.as_ref().map(|running| running.id.as_str())
    }

    /// The job that runs.
    pub fn running_mut(&mut self) -> Option<(&str, &mut W)> {
        self.running.as_mut().map(|running| (running.id.as_str(), &mut running.work))
    }

    /// How many jobs wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether no jobs are started.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Whether no job waits or runs.
    pub fn is_empty(&self) -> bool {
        self.running.is_none() && self.waiting.is_empty()
    }

    fn submit(&mut self, ticket: Ticket<W>) {
        // Jobs that were moved may lie out of order.
        let goes_before = |other: &Ticket<W>| other.resumed || other.priority >= ticket.priority;
        let last = self.waiting.iter().rposition(|waiting| goes_before(&waiting.ticket));
        self.waiting.insert(last.map_or(0, |last| last + 1), Waiting { ticket, reported: None });
    }

    fn move_to(&mut self, id: &str, to: usize) {
        if let Some(at) = self.waiting.iter().position(|waiting| waiting.ticket.id == id) {
            let moved = self.waiting.remove(at);
            self.waiting.insert(to.min(self.waiting.len()), moved);
        }
    }

    fn cancel(&mut self, id: &str, why: &str, effects: &mut Vec<Effect<W>>) {
        if let Some(at) = self.waiting.iter().position(|waiting| waiting.ticket.id == id) {
            let cancelled = Ending::Cancelled(Fault::new(Code::Cancelled, why));
            effects.push(self.waiting.remove(at).ticket.ended(cancelled));
        }
        if self.running().is_some_and(|running| running == id) {
            self.stop(effects);
        }
    }

    fn cancel_all(&mut self, why: &str, effects: &mut Vec<Effect<W>>) {
        self.stop(effects);
        let cancelled = |waiting: Waiting<W>| waiting.ticket.ended(Ending::Cancelled(Fault::new(Code::Cancelled, why)));
        effects.extend(self.waiting.drain(..).map(cancelled));
    }

    /// Stops the running job, once.
    fn stop(&mut self, effects: &mut Vec<Effect<W>>) {
        if let Some(running) = self.running.as_mut().filter(|running| !running.cancelled) {
            running.cancelled = true;
            effects.push(Effect::Stop { id: running.id.clone() });
        }
    }

    fn finish(&mut self, ending: Ending, effects: &mut Vec<Effect<W>>) {
        if let Some(running) = self.running.take() {
            effects.push(Effect::Ended { id: running.id, work: running.work, ending });
        }
    }

    fn expire(&mut self, now: Now, effects: &mut Vec<Effect<W>>) {
        let late = |waiting: &mut Waiting<W>| waiting.ticket.deadline.is_over(now);
        let late = self.waiting.extract_if(.., late);
        effects.extend(late.map(|waiting| waiting.ticket.ended(Ending::Failed(expired()))));
    }

    fn report_positions(&mut self, effects: &mut Vec<Effect<W>>) {
        let ahead = usize::from(self.running.is_some());
        // The first of an idle queue is about to start: only its arrival is reported.
        let starting = ahead == 0 && !self.paused;
        for (index, waiting) in self.waiting.iter_mut().enumerate() {
            let position = index + ahead;
            let is_new = waiting.reported.is_none();
            let has_moved = waiting.reported != Some(position) && index < FRONT;
            if is_new || (has_moved && !(starting && index == 0)) {
                waiting.reported = Some(position);
                effects.push(Effect::Queued { id: waiting.ticket.id.clone(), position });
            }
        }
    }

    fn start(&mut self, effects: &mut Vec<Effect<W>>) {
        if self.paused || self.running.is_some() || self.waiting.is_empty() {
            return;
        }
        let Ticket { id, work, .. } = self.waiting.remove(0).ticket;
        self.running = Some(RunningJob { id: id.clone(), work, cancelled: false });
        effects.push(Effect::Start { id });
    }
}

impl<W> Ticket<W> {
    fn ended(self, ending: Ending) -> Effect<W> {
        Effect::Ended { id: self.id, work: self.work, ending }
    }
}

fn expired() -> Fault {
    Fault::new(Code::Expired, "its deadline passed before it could be started")
}

#[cfg(test)]
mod tests;
