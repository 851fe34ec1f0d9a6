//! `diffused list`, `pause`, `resume` and `move`: the jobs of a device, their order, and whether it starts the next.

use std::time::Duration;

use serde_json::{Value, json};

use crate::commands::cli::{DeviceArgs, MoveArgs, print_line};
use crate::commands::client::{self, Client};
use crate::contract::commands::{JobList, MoveRequest, ResponseData};
use crate::failure::Failure;

/// Sends the command `name` and shows the jobs.
pub fn run(name: &str, arguments: &DeviceArgs) -> Result<(), Failure> {
    ask(name, &json!({}), arguments, |_| (name == "resume").then(|| "resumed".to_owned()))
}

/// `diffused move`: sends it and shows the jobs in their new order.
pub fn run_move(arguments: &MoveArgs) -> Result<(), Failure> {
    let request = MoveRequest { id: arguments.id.0.clone(), to: Some(arguments.to), transaction: None };
    ask("move", &json!(request), &arguments.device, |jobs| moved(&arguments.id.0, arguments.to, jobs))
}

/// Where a job is after it was moved: behind the last one that waits, where more than wait were to go before it.
fn moved(id: &str, to: usize, jobs: &JobList) -> Option<String> {
    let before = jobs.waiting.iter().position(|waiting| waiting == id)?;
    let why = if before < to { format!(": no more than {before} others wait") } else { String::new() };
    let before = if before == 1 { "1 job that waits is".to_owned() } else { format!("{before} jobs that wait are") };
    Some(format!("moved: {before} before `{id}`{why}"))
}

/// `told`: what is said before the jobs are listed.
fn ask(
    name: &str,
    request: &Value,
    arguments: &DeviceArgs,
    told: impl Fn(&JobList) -> Option<String>,
) -> Result<(), Failure> {
    client::run(arguments.json, async {
        let mut client = Client::connect(arguments, &[], Duration::ZERO).await?;
        let data = client.ask(&format!("request/{name}"), request.clone()).await?;
        client.finish().await;
        match data {
            ResponseData::Jobs(jobs) if !arguments.json => {
                told(&jobs).iter().for_each(print_line);
                lines(&jobs, &client.options).iter().for_each(print_line);
            }
            data => print_line(json!(data)),
        }
        Ok(())
    })
}

/// Whether the queue is paused, then a line a job, the running one first. With `options` another verb finds the device.
pub(super) fn lines(jobs: &JobList, options: &str) -> Vec<String> {
    let mut lines = vec![];
    if jobs.paused {
        lines.push(format!("paused: no further job is started; `diffused resume {options}` goes on"));
    }
    lines.extend(jobs.running.iter().map(|id| format!("{id}  running")));
    let before = usize::from(jobs.running.is_some());
    let waiting = (before..).zip(&jobs.waiting);
    lines.extend(waiting.map(|(before, id)| format!("{id}  waiting, {before} before it")));
    if jobs.running.is_none() && jobs.waiting.is_empty() {
        lines.push("no jobs".to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_was_moved_is_found_again() {
        let waiting = ["a", "b", "c"].map(str::to_owned).to_vec();
        let jobs = JobList { running: Some("x".to_owned()), waiting, paused: false };
        let told = |id, to| moved(id, to, &jobs).unwrap();
        assert_eq!(told("a", 0), "moved: 0 jobs that wait are before `a`");
        assert_eq!(told("b", 1), "moved: 1 job that waits is before `b`");
        assert_eq!(told("c", 99), "moved: 2 jobs that wait are before `c`: no more than 2 others wait");
        // It may have been started meanwhile.
        assert_eq!(moved("x", 0, &jobs), None);
    }

    #[test]
    fn every_job_has_a_line() {
        let jobs = |running: Option<&str>, waiting: &[&str], paused| JobList {
            running: running.map(str::to_owned),
            waiting: waiting.iter().map(|id| (*id).to_owned()).collect(),
            paused,
        };
        assert_eq!(lines(&jobs(None, &[], false), ""), ["no jobs"]);
        let busy = lines(&jobs(Some("a"), &["b", "c"], true), "--device frame");
        assert!(busy[0].starts_with("paused") && busy[0].contains("`diffused resume --device frame`"), "{busy:?}");
        assert_eq!(busy[1..], ["a  running", "b  waiting, 1 before it", "c  waiting, 2 before it"]);
    }
}
