//! `diffused watch`: what happens to the jobs of a device, a line an event.

use serde::Serialize;
use serde_json::{Value, json};

use crate::commands::cli::{WatchArgs, print_line};
use crate::commands::client::{self, Client, Heard, SESSION};
use crate::commands::progress_line::describe;
use crate::contract::commands::ResponseData;
use crate::contract::messages::{JobProgress, JobResult, JobState, State};
use crate::failure::Failure;

/// Follows one job to its end, or all jobs until it is interrupted.
pub fn run(arguments: &WatchArgs) -> Result<(), Failure> {
    client::run(arguments.device.json, async {
        tokio::select! {
            outcome = watch(arguments) => outcome,
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    })
}

async fn watch(arguments: &WatchArgs) -> Result<(), Failure> {
    let id = arguments.id.as_ref().map_or("+", |id| &id.0);
    let names = ["state", "progress", "result"].map(|name| format!("job/{id}/{name}"));
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut client = Client::connect(&arguments.device, &names, SESSION).await?;
    let json = arguments.device.json;
    if arguments.id.is_some() {
        let state = present(&mut client, id).await?;
        show(json, &labelled("state", id, &state), || Some(format!("{id}  {}", state_line(&state))));
    }
    loop {
        let (name, payload) = match client.hear().await? {
            Heard::Message(name, payload) => (name, payload),
            Heard::Presence(online) => {
                let status = if online { "online" } else { "offline" };
                show(json, &json!({"event": status}), || Some(format!("the device is {status}")));
                continue;
            }
            Heard::Lost(_) | Heard::Back => continue,
        };
        let Some((id, event)) = name.strip_prefix("job/").and_then(|rest| rest.split_once('/')) else { continue };
        match event {
            "state" => {
                let Ok(state) = serde_json::from_slice::<JobState>(&payload) else { continue };
                show(json, &labelled("state", id, &state), || Some(format!("{id}  {}", state_line(&state))));
                if arguments.id.is_some() && !matches!(state.state, State::Queued | State::Running) {
                    client.finish().await;
                    return ended(&state);
                }
            }
            "progress" => {
                let Ok(progress) = serde_json::from_slice::<JobProgress>(&payload) else { continue };
                show(json, &labelled("progress", id, &progress), || {
                    Some(format!("{id}  {}", progress_line(&progress)))
                });
            }
            _ => {
                let Ok(result) = serde_json::from_slice::<JobResult>(&payload) else { continue };
                show(json, &labelled("result", id, &result), || None);
            }
        }
    }
}

/// The state of a job in the queue: one of which nothing will be heard is not waited for.
async fn present(client: &mut Client, id: &str) -> Result<JobState, Failure> {
    let data = client.ask("request/list", json!({})).await?;
    let (running, position) = match &data {
        ResponseData::Jobs(jobs) => {
            let before = usize::from(jobs.running.is_some());
            let position = jobs.waiting.iter().position(|known| known == id).map(|position| before + position);
            (jobs.running.as_deref() == Some(id), position)
        }
        _ => (false, None),
    };
    if !running && position.is_none() {
        return Err(Failure::Other(format!(
            "the device `{}` has no job `{id}` in its queue: it has ended, or there never was one of this id; the \
             `diffused submit` that began a job, repeated with its `--id {id}`, shows how it ended",
            client.device
        )));
    }
    let state = if running { State::Running } else { State::Queued };
    Ok(JobState { id: id.to_owned(), transaction: None, state, position, error: None, warnings: vec![] })
}

fn show(json: bool, value: &Value, line: impl FnOnce() -> Option<String>) {
    if json {
        print_line(value);
    } else {
        line().into_iter().for_each(print_line);
    }
}

/// A message as a line of JSON.
pub(super) fn labelled(event: &str, id: &str, message: &impl Serialize) -> Value {
    let mut line = json!(message);
    line["event"] = json!(event);
    line["id"] = json!(id);
    line
}

/// A state in words, with its position, its warnings or its error.
pub(super) fn state_line(state: &JobState) -> String {
    let mut line = match (state.state, state.position) {
        (State::Queued, Some(0)) => "queued, next".to_owned(),
        (State::Queued, Some(before)) => format!("queued, {before} before it"),
        (other, _) => json!(other).as_str().unwrap_or_default().to_owned(),
    };
    if let Some(fault) = state.error.as_ref().filter(|fault| fault.message != line) {
        line += &format!(": {}", fault.one_line());
    }
    for warning in state.warnings.iter().filter(|_| state.state == State::Queued) {
        line += &format!(" (warning: {warning})");
    }
    line
}

fn progress_line(progress: &JobProgress) -> String {
    let left = progress.eta_relative.map(|seconds| format!(", {seconds:.0} s to go")).unwrap_or_default();
    format!("{}{left}", describe(progress))
}

/// How a job ended, as the program ends.
pub(super) fn ended(state: &JobState) -> Result<(), Failure> {
    let verb = match state.state {
        State::Done => return Ok(()),
        State::Failed => "has",
        _ => "was",
    };
    Err(Failure::Other(format!("the job `{}` {verb} {}", state.id, state_line(state))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_in_words() {
        let line = |state: Value| state_line(&serde_json::from_value(state).unwrap());
        assert_eq!(line(json!({"id": "a", "state": "queued", "position": 0})), "queued, next");
        let warned = json!({"id": "a", "state": "queued", "position": 2, "warnings": ["`x` is unknown"]});
        assert_eq!(line(warned), "queued, 2 before it (warning: `x` is unknown)");
        assert_eq!(line(json!({"id": "a", "state": "done"})), "done");
        let error = json!({"code": "invalid_param", "field": "width", "message": "100 is\nnot allowed"});
        let rejected = line(json!({"id": "a", "state": "rejected", "error": error}));
        assert_eq!(rejected, "rejected: width: 100 is not allowed");
        let error = json!({"code": "cancelled", "field": null, "message": "cancelled"});
        assert_eq!(line(json!({"id": "a", "state": "cancelled", "error": error})), "cancelled");
    }
}
