//! The table of what was tried and what held.

use std::any::Any;
use std::panic::{catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::time::Instant;

use libtest_mimic::Trial;

use crate::rig::Dice;

static ROWS: Mutex<Vec<Row>> = Mutex::new(vec![]);

struct Row {
    place: usize,
    fault: &'static str,
    tried: String,
    held: String,
    seconds: u64,
}

/// A test of a fault.
pub(crate) struct FaultTest {
    pub(crate) name: &'static str,
    /// As in the table.
    pub(crate) fault: &'static str,
    /// Gives what it tried, in figures; it panics where something does not hold.
    pub(crate) test: fn(&mut Dice) -> String,
}

impl FaultTest {
    /// `place`: among the table's rows.
    pub(crate) fn trial(self, place: usize) -> Trial {
        let FaultTest { name, fault, test } = self;
        Trial::test(name, move || {
            let start = Instant::now();
            let outcome = catch_unwind(|| test(&mut Dice::new(name)));
            let (tried, held) = match &outcome {
                Ok(tried) => (tried.clone(), "yes".to_owned()),
                Err(panic) => (name.to_owned(), format!("NO: {}", first_line(panic.as_ref()))),
            };
            ROWS.lock().unwrap().push(Row { place, fault, tried, held, seconds: start.elapsed().as_secs() });
            outcome.map(|_| ()).map_err(|panic| resume_unwind(panic))
        })
    }
}

fn first_line(panic: &dyn Any) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    text.and_then(|text| text.lines().next()).unwrap_or("a panic").to_owned()
}

/// Prints all rows that came in.
pub(crate) fn print() {
    println!("| fault | tried | s | held |\n|---|---|---|---|");
    let mut rows = ROWS.lock().unwrap();
    rows.sort_by_key(|row| row.place);
    for Row { fault, tried, held, seconds, .. } in rows.iter() {
        println!("| {fault} | {tried} | {seconds} | {held} |");
    }
}
