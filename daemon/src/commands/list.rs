//! `diffused list`, `pause` and `resume`: the jobs of a device, and whether it starts the next.

use std::time::Duration;

use serde_json::json;

use crate::commands::cli::{DeviceArgs, print_line};
use crate::commands::client::{self, Client};
use crate::contract::commands::{JobList, ResponseData};
use crate::failure::Failure;

/// Sends the command `name` and shows the jobs.
pub fn run(name: &str, arguments: &DeviceArgs) -> Result<(), Failure> {
    client::run(arguments.json, async {
        let mut client = Client::connect(arguments, &[], Duration::ZERO).await?;
        let data = client.ask(&format!("request/{name}"), json!({})).await?;
        client.finish().await;
        match data {
            ResponseData::Jobs(jobs) if !arguments.json => lines(&jobs).iter().for_each(print_line),
            data => print_line(json!(data)),
        }
        Ok(())
    })
}

/// A line a job, the running one first.
pub(super) fn lines(jobs: &JobList) -> Vec<String> {
    let mut lines = vec![];
    lines.extend(jobs.running.iter().map(|id| format!("{id}  running")));
    let before = usize::from(jobs.running.is_some());
    let waiting = (before..).zip(&jobs.waiting);
    lines.extend(waiting.map(|(before, id)| format!("{id}  waiting, {before} before it")));
    if lines.is_empty() {
        lines.push("no jobs".to_owned());
    }
    if jobs.paused {
        lines.push("paused: no further job is started; `diffused resume` goes on".to_owned());
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
        assert_eq!(lines(&jobs(None, &[], false)), ["no jobs"]);
        let busy = lines(&jobs(Some("a"), &["b", "c"], true));
        assert_eq!(busy[..3], ["a  running", "b  waiting, 1 before it", "c  waiting, 2 before it"]);
        assert!(busy[3].starts_with("paused"));
    }
}
