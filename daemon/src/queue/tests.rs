//! Orders of events, each written as what happens and what must follow.

use std::time::Duration;

use super::*;

struct Bench {
    queue: Queue<()>,
    now: Instant,
}

impl Bench {
    fn new(capacity: usize) -> Bench {
        Bench { queue: Queue::new(capacity), now: Instant::now() }
    }

    fn check(&mut self, event: Event<()>, expect: &[&str]) {
        let shown = format!("{event:?}");
        let effects = self.queue.apply(event, self.now);
        let effects: Vec<String> = effects.iter().map(show).collect();
        assert_eq!(effects, expect, "after {shown}");
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn until(&self, seconds: u64) -> Option<Instant> {
        Some(self.now + Duration::from_secs(seconds))
    }
}

fn show(effect: &Effect<()>) -> String {
    match effect {
        Effect::Queued { id, position } => format!("{id} queued {position}"),
        Effect::Start { id, .. } => format!("{id} start"),
        Effect::Stop { id } => format!("{id} stop"),
        Effect::Ended { id, ending } => match ending {
            Ending::Done => format!("{id} done"),
            Ending::Cancelled(_) => format!("{id} cancelled"),
            Ending::Failed(fault) => format!("{id} failed {:?}", fault.code),
            Ending::Rejected(fault) => format!("{id} rejected {:?}", fault.code),
        },
    }
}

fn job(id: &str) -> Event<()> {
    Event::Submit(Ticket { id: id.into(), priority: 0, deadline: None, work: () })
}

fn urgent(id: &str, priority: i64) -> Event<()> {
    Event::Submit(Ticket { id: id.into(), priority, deadline: None, work: () })
}

fn done() -> Event<()> {
    Event::Finished(Ending::Done)
}

fn cancel(id: &str) -> Event<()> {
    Event::Cancel(id.into())
}

#[test]
fn jobs_run_one_after_another() {
    let mut bench = Bench::new(8);
    bench.check(job("a"), &["a queued 0", "a start"]);
    bench.check(job("b"), &["b queued 1"]);
    bench.check(job("c"), &["c queued 2"]);
    bench.check(done(), &["a done", "c queued 1", "b start"]);
    bench.check(done(), &["b done", "c start"]);
    bench.check(done(), &["c done"]);
    assert!(bench.queue.is_empty());
}

#[test]
fn priority_goes_before_arrival() {
    let mut bench = Bench::new(8);
    bench.check(job("a"), &["a queued 0", "a start"]);
    bench.check(job("b"), &["b queued 1"]);
    bench.check(urgent("c", 5), &["c queued 1", "b queued 2"]);
    bench.check(urgent("d", 5), &["d queued 2", "b queued 3"]);
    assert_eq!(bench.queue.ids(), ["a", "c", "d", "b"]);
}

#[test]
fn a_full_queue_refuses() {
    let mut bench = Bench::new(1);
    bench.check(job("a"), &["a queued 0", "a start"]);
    bench.check(job("b"), &["b queued 1"]);
    bench.check(job("c"), &["c rejected QueueFull"]);
    bench.check(done(), &["a done", "b start"]);
    bench.check(job("c"), &["c queued 1"]);
}

#[test]
fn a_name_is_given_once_at_a_time() {
    let mut bench = Bench::new(8);
    bench.check(job("a"), &["a queued 0", "a start"]);
    bench.check(job("a"), &["a rejected InvalidParam"]);
    bench.check(done(), &["a done"]);
    bench.check(job("a"), &["a queued 0", "a start"]);
}

#[test]
fn waiting_and_running_jobs_are_cancelled() {
    let mut bench = Bench::new(8);
    bench.check(job("a"), &["a queued 0", "a start"]);
    bench.check(job("b"), &["b queued 1"]);
    bench.check(job("c"), &["c queued 2"]);
    bench.check(cancel("b"), &["b cancelled", "c queued 1"]);
    bench.check(cancel("a"), &["a stop"]);
    bench.check(cancel("a"), &[]);
    bench.check(cancel("unknown"), &[]);
    let ended = Ending::Cancelled(Fault::new(Code::Cancelled, ""));
    bench.check(Event::Finished(ended), &["a cancelled", "c start"]);
}

#[test]
fn all_are_cancelled_at_once() {
    let mut bench = Bench::new(8);
    bench.check(job("a"), &["a queued 0", "a start"]);
    bench.check(job("b"), &["b queued 1"]);
    bench.check(Event::CancelAll("all"), &["a stop", "b cancelled"]);
    bench.check(done(), &["a done"]);
    bench.check(Event::CancelAll("all"), &[]);
}

#[test]
fn deadlines_hold_for_the_start() {
    let mut bench = Bench::new(8);
    let until = |bench: &Bench, id: &str, seconds| {
        Event::Submit(Ticket { id: id.into(), priority: 0, deadline: bench.until(seconds), work: () })
    };
    bench.check(until(&bench, "late", 0), &["late rejected Expired"]);
    bench.check(until(&bench, "a", 5), &["a queued 0", "a start"]);
    bench.check(until(&bench, "b", 5), &["b queued 1"]);
    bench.check(until(&bench, "c", 50), &["c queued 2"]);
    bench.pass(10);
    bench.check(Event::Tick, &["b failed Expired", "c queued 1"]);
    bench.check(done(), &["a done", "c start"]);
}

#[test]
fn an_expired_job_is_not_started() {
    let mut bench = Bench::new(8);
    bench.check(job("a"), &["a queued 0", "a start"]);
    let deadline = bench.until(5);
    bench.check(Event::Submit(Ticket { id: "b".into(), priority: 0, deadline, work: () }), &["b queued 1"]);
    bench.pass(5);
    bench.check(done(), &["a done", "b failed Expired"]);
}

#[test]
fn a_paused_queue_takes_and_starts_nothing() {
    let mut bench = Bench::new(8);
    bench.check(Event::Pause, &[]);
    bench.check(job("a"), &["a queued 0"]);
    bench.check(job("b"), &["b queued 1"]);
    bench.check(urgent("c", 1), &["c queued 0", "a queued 1", "b queued 2"]);
    bench.check(Event::Resume, &["c start"]);
    assert!(!bench.queue.is_paused());
}
