//! Orders of events, each written as what happens and what must follow.

use std::time::Duration;

use super::*;

struct Fixture {
    queue: Queue<()>,
    now: Now,
}

impl Fixture {
    fn new(capacity: usize) -> Fixture {
        Fixture { queue: Queue::new(capacity), now: Now::read() }
    }

    fn check(&mut self, event: Event<()>, expect: &[&str]) {
        let shown = format!("{event:?}");
        let effects = self.queue.apply(event, self.now);
        let effects: Vec<String> = effects.iter().map(show).collect();
        assert_eq!(effects, expect, "after {shown}");
    }

    fn pass(&mut self, seconds: u64) {
        self.now.instant += Duration::from_secs(seconds);
    }

    fn until(&self, seconds: u64) -> Deadline {
        Deadline { passes: Some(self.now.instant + Duration::from_secs(seconds)), shown: None }
    }
}

fn show(effect: &Effect<()>) -> String {
    match effect {
        Effect::Queued { id, position } => format!("{id} queued {position}"),
        Effect::Start { id } => format!("{id} start"),
        Effect::Stop { id } => format!("{id} stop"),
        Effect::Ended { id, ending, .. } => match ending {
            Ending::Done => format!("{id} done"),
            Ending::Cancelled(_) => format!("{id} cancelled"),
            Ending::Failed(fault) => format!("{id} failed {:?}", fault.code),
            Ending::Rejected(fault) => format!("{id} rejected {:?}", fault.code),
        },
    }
}

fn job(id: &str) -> Event<()> {
    Event::Submit(Ticket { id: id.into(), priority: 0, deadline: Deadline::default(), resumed: false, work: () })
}

fn urgent(id: &str, priority: i64) -> Event<()> {
    Event::Submit(Ticket { id: id.into(), priority, deadline: Deadline::default(), resumed: false, work: () })
}

fn done() -> Event<()> {
    Event::Finished(Ending::Done)
}

fn cancel(id: &str) -> Event<()> {
    Event::Cancel(id.into())
}

fn moved(id: &str, to: usize) -> Event<()> {
    Event::Move { id: id.into(), to }
}

#[test]
fn a_job_that_waits_is_moved_and_told() {
    let mut fixture = Fixture::new(8);
    fixture.check(job("a"), &["a queued 0", "a start"]);
    for (index, id) in ["b", "c", "d"].into_iter().enumerate() {
        fixture.check(job(id), &[&format!("{id} queued {}", index + 1)]);
    }
    fixture.check(moved("d", 0), &["d queued 1", "b queued 2", "c queued 3"]);
    fixture.check(moved("b", 99), &["c queued 2", "b queued 3"]);
    // The running one, one that is not there, and one that is where it is to be.
    fixture.check(moved("a", 1), &[]);
    fixture.check(moved("x", 0), &[]);
    fixture.check(moved("d", 0), &[]);
    assert_eq!(fixture.queue.ids(), ["a", "d", "c", "b"]);
    assert_eq!(fixture.queue.waiting(), fixture.queue.waiting_works().count());
}

#[test]
fn who_comes_later_goes_behind_the_last_that_is_as_urgent() {
    let mut fixture = Fixture::new(8);
    fixture.check(Event::Pause, &[]);
    fixture.check(job("a"), &["a queued 0"]);
    fixture.check(urgent("low", -5), &["low queued 1"]);
    fixture.check(moved("low", 0), &["low queued 0", "a queued 1"]);
    fixture.check(job("b"), &["b queued 2"]);
    fixture.check(urgent("high", 5), &["high queued 0", "low queued 1", "a queued 2", "b queued 3"]);
    fixture.check(moved("high", 3), &["low queued 0", "a queued 1", "b queued 2", "high queued 3"]);
    fixture.check(job("c"), &["c queued 4"]);
}

#[test]
fn the_work_is_carried_to_the_end() {
    let mut queue = Queue::new(1);
    let ticket = |id: &str, work: &'static str| Ticket {
        id: id.into(),
        priority: 0,
        deadline: Deadline::default(),
        resumed: false,
        work,
    };
    let now = Now::read();
    queue.apply(Event::Submit(ticket("a", "first")), now);
    queue.apply(Event::Submit(ticket("b", "second")), now);
    assert_eq!((queue.get("a"), queue.get("b"), queue.get("c")), (Some(&"first"), Some(&"second"), None));
    queue.running_mut().unwrap().1.clone_from(&"painted");
    let ended = queue.apply(Event::Finished(Ending::Done), now);
    assert!(matches!(ended.first(), Some(Effect::Ended { work: "painted", ending: Ending::Done, .. })));
}

#[test]
fn jobs_run_one_after_another() {
    let mut fixture = Fixture::new(8);
    fixture.check(job("a"), &["a queued 0", "a start"]);
    fixture.check(job("b"), &["b queued 1"]);
    fixture.check(job("c"), &["c queued 2"]);
    fixture.check(done(), &["a done", "c queued 1", "b start"]);
    fixture.check(done(), &["b done", "c start"]);
    fixture.check(done(), &["c done"]);
    assert!(fixture.queue.is_empty());
}

#[test]
fn priority_goes_before_arrival() {
    let mut fixture = Fixture::new(8);
    fixture.check(job("a"), &["a queued 0", "a start"]);
    fixture.check(job("b"), &["b queued 1"]);
    fixture.check(urgent("c", 5), &["c queued 1", "b queued 2"]);
    fixture.check(urgent("d", 5), &["d queued 2", "b queued 3"]);
    assert_eq!(fixture.queue.ids(), ["a", "c", "d", "b"]);
}

#[test]
fn a_full_queue_refuses() {
    let mut fixture = Fixture::new(2);
    fixture.check(job("a"), &["a queued 0", "a start"]);
    fixture.check(job("b"), &["b queued 1"]);
    let refused = |fixture: &Fixture, others| {
        let checked = fixture.queue.check(&Deadline::default(), others, fixture.now);
        checked.err().map(|fault| fault.code)
    };
    assert_eq!((refused(&fixture, 0), refused(&fixture, 1)), (None, Some(Code::QueueFull)));
    fixture.check(job("c"), &["c queued 2"]);
    assert_eq!(refused(&fixture, 0), Some(Code::QueueFull));
    fixture.check(done(), &["a done", "c queued 1", "b start"]);
    assert_eq!(refused(&fixture, 0), None);
}

#[test]
fn jobs_of_an_earlier_run_keep_their_order_and_those_in_front_are_reported() {
    let mut fixture = Fixture::new(1);
    let ticket =
        |n: i64| Ticket { id: n.to_string(), priority: -n, deadline: Deadline::default(), resumed: false, work: () };
    fixture.queue.restore((0..12).map(ticket), true);
    let front: Vec<String> = (0..FRONT).map(|n| format!("{n} queued {n}")).collect();
    let front: Vec<&str> = front.iter().map(String::as_str).collect();
    fixture.check(Event::Tick, &front);
    assert_eq!(fixture.queue.ids(), (0..12).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(fixture.queue.position("11"), Some(11));
    let effects: Vec<String> = fixture.queue.apply(Event::Resume, fixture.now).iter().map(show).collect();
    assert_eq!(effects, ["0 start"]);
}

#[test]
fn what_was_started_before_stays_in_front_of_what_comes_in() {
    let mut fixture = Fixture::new(9);
    let ticket = |id: &str, priority, resumed| Ticket {
        id: id.into(),
        priority,
        deadline: Deadline::default(),
        resumed,
        work: (),
    };
    fixture.queue.restore([ticket("run", 0, true), ticket("five", 5, false), ticket("four", 4, false)], true);
    for (id, priority) in [("one", 1), ("nine", 9)] {
        fixture.queue.apply(urgent(id, priority), fixture.now);
    }
    assert_eq!(fixture.queue.ids(), ["run", "nine", "five", "four", "one"]);
}

#[test]
fn waiting_and_running_jobs_are_cancelled() {
    let mut fixture = Fixture::new(8);
    fixture.check(job("a"), &["a queued 0", "a start"]);
    fixture.check(job("b"), &["b queued 1"]);
    fixture.check(job("c"), &["c queued 2"]);
    fixture.check(cancel("b"), &["b cancelled", "c queued 1"]);
    fixture.check(cancel("a"), &["a stop"]);
    fixture.check(cancel("a"), &[]);
    fixture.check(cancel("unknown"), &[]);
    let ended = Ending::Cancelled(Fault::new(Code::Cancelled, ""));
    fixture.check(Event::Finished(ended), &["a cancelled", "c start"]);
}

#[test]
fn all_are_cancelled_at_once() {
    let mut fixture = Fixture::new(8);
    fixture.check(job("a"), &["a queued 0", "a start"]);
    fixture.check(job("b"), &["b queued 1"]);
    fixture.check(Event::CancelAll("all"), &["a stop", "b cancelled"]);
    fixture.check(done(), &["a done"]);
    fixture.check(Event::CancelAll("all"), &[]);
}

#[test]
fn deadlines_hold_for_the_start() {
    let mut fixture = Fixture::new(8);
    let until = |fixture: &Fixture, id: &str, seconds| {
        Event::Submit(Ticket { id: id.into(), priority: 0, deadline: fixture.until(seconds), resumed: false, work: () })
    };
    let late = fixture.queue.check(&fixture.until(0), 0, fixture.now).unwrap_err();
    assert_eq!(late.code, Code::Expired);
    fixture.check(until(&fixture, "a", 5), &["a queued 0", "a start"]);
    fixture.check(until(&fixture, "b", 5), &["b queued 1"]);
    fixture.check(until(&fixture, "c", 50), &["c queued 2"]);
    fixture.pass(10);
    fixture.check(Event::Tick, &["b failed Expired", "c queued 1"]);
    fixture.check(done(), &["a done", "c start"]);
}

#[test]
fn a_clock_that_is_set_moves_only_deadlines_of_the_clock() {
    let mut fixture = Fixture::new(8);
    let hour = Duration::from_secs(3600);
    let deadlines =
        [fixture.until(3600), Deadline { passes: None, shown: Some(fixture.now.shown + hour) }].into_iter().enumerate();
    fixture.check(job("first"), &["first queued 0", "first start"]);
    for (n, deadline) in deadlines {
        fixture.queue.apply(
            Event::Submit(Ticket { id: n.to_string(), priority: 0, deadline, resumed: false, work: () }),
            fixture.now,
        );
    }
    fixture.now.shown = SystemTime::UNIX_EPOCH;
    fixture.check(Event::Tick, &[]);
    fixture.now.shown = SystemTime::now() + 24 * hour;
    fixture.check(Event::Tick, &["1 failed Expired"]);
}

#[test]
fn an_expired_job_is_not_started() {
    let mut fixture = Fixture::new(8);
    fixture.check(job("a"), &["a queued 0", "a start"]);
    let deadline = fixture.until(5);
    fixture.check(
        Event::Submit(Ticket { id: "b".into(), priority: 0, deadline, resumed: false, work: () }),
        &["b queued 1"],
    );
    fixture.pass(5);
    fixture.check(done(), &["a done", "b failed Expired"]);
}

#[test]
fn a_paused_queue_takes_and_starts_nothing() {
    let mut fixture = Fixture::new(8);
    fixture.check(Event::Pause, &[]);
    fixture.check(job("a"), &["a queued 0"]);
    fixture.check(job("b"), &["b queued 1"]);
    fixture.check(urgent("c", 1), &["c queued 0", "a queued 1", "b queued 2"]);
    fixture.check(Event::Resume, &["c start"]);
    assert!(!fixture.queue.is_paused());
}

#[test]
fn effects_grow_with_the_number_of_jobs_and_not_with_its_square() {
    const JOBS: usize = 1000;
    let fill = |queue: &mut Queue<()>, now| {
        let submitted = (0..JOBS).map(|n| queue.apply(job(&n.to_string()), now).len());
        submitted.sum::<usize>()
    };
    let mut fixture = Fixture::new(JOBS);
    fixture.queue.apply(Event::Pause, fixture.now);
    assert_eq!(fill(&mut fixture.queue, fixture.now), JOBS, "each arrival is reported");
    let mut effects = fixture.queue.apply(Event::Resume, fixture.now).len();
    for _ in 0..JOBS {
        effects += fixture.queue.apply(done(), fixture.now).len();
    }
    assert!(fixture.queue.is_empty() && effects < (FRONT + 2) * JOBS, "{effects}");

    let mut fixture = Fixture::new(JOBS);
    fixture.queue.apply(Event::Pause, fixture.now);
    fill(&mut fixture.queue, fixture.now);
    let effects = fixture.queue.apply(Event::CancelAll("all"), fixture.now);
    assert_eq!(effects.len(), JOBS, "no positions of jobs that go");
}

#[test]
fn the_first_jobs_are_told_where_they_are() {
    let mut fixture = Fixture::new(20);
    for n in 0..12 {
        fixture.queue.apply(job(&n.to_string()), fixture.now);
    }
    let moved =
        ["0 done", "2 queued 1", "3 queued 2", "4 queued 3", "5 queued 4", "6 queued 5", "7 queued 6", "8 queued 7"];
    let effects: Vec<_> = fixture.queue.apply(done(), fixture.now).iter().map(show).collect();
    assert_eq!(effects[..8], moved);
    assert_eq!(effects[8..], ["1 start"]);
}
