//! `diffused list`, `pause`, `resume` and `move`: the jobs of a device, their order, and whether it starts the next.

use std::time::Duration;

use serde_json::{Value, json};

use crate::commands::cli::{DeviceArgs, MoveArgs, print_line};
use crate::commands::client::{self, Client};
use crate::contract::commands::{JobList, MoveRequest, ResponseData};
use crate::failure::Failure;

/// Sends the command `name` and shows the jobs.
pub fn run(name: &str, arguments: &DeviceArgs) -> Result<(), Failure> {
    ask(name, &json!({}), arguments)
}

/// `diffused move`: sends it and shows the jobs in their new order.
pub fn run_move(arguments: &MoveArgs) -> Result<(), Failure> {
    let request = MoveRequest { id: arguments.id.0.clone(), to: Some(arguments.to), transaction: None };
    ask("move", &json!(request), &arguments.device)
}

fn ask(name: &str, request: &Value, arguments: &DeviceArgs) -> Result<(), Failure> {
    client::run(arguments.json, async {
        let mut client = Client::connect(arguments, &[], Duration::ZERO).await?;
        let data = client.ask(&format!("request/{name}"), request.clone()).await?;
        client.finish().await;
        match data {
            ResponseData::Jobs(jobs) if !arguments.json => {
                if name == "resume" {
                    print_line("resumed");
                }
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
