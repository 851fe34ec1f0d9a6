//! Commands and cancellations, answered on `…/response/<name>`.

use serde_json::{Value, json};
use tracing::warn;

use super::Service;
use crate::contract::commands::{CancelledJobs, JobList, Response, ResponseData, SelfTestJob, SettingsInUse};
use crate::contract::settings::PromptSettings;
use crate::jobs::journal::Record;
use crate::jobs::queue::Event;
use crate::jobs::request::{RequestMode, trimmed, whole};
use crate::mqtt::Received;
use crate::random;

impl Service {
    pub(super) async fn command(&mut self, received: &Received, name: &str) {
        let payload = String::from_utf8_lossy(&received.payload);
        let payload = trimmed(&payload);
        let parsed: Result<Value, _> = if payload.is_empty() { Ok(json!({})) } else { serde_json::from_str(payload) };
        let transaction = parsed.as_ref().ok().and_then(|value| value.get("transaction").cloned());
        let outcome = match parsed {
            _ if received.retain => Err("retained commands are refused; publish it without retain".into()),
            Err(error) => Err(format!("the payload does not parse as JSON: {error}")),
            Ok(value) if name == "cancel" => self.cancel(&value),
            Ok(value) if name == "move" => self.move_job(&value),
            Ok(value) if name == "settings" => self.settings(value),
            Ok(_) if name == "self_test" => Ok(self.self_test(received).await),
            Ok(value) => self.execute(name, &value),
        };
        if let Err(error) = &outcome {
            warn!("a command was refused: {error}");
        }
        let (reply, _) = self.publisher.reply(received);
        let response = Response::new(outcome, transaction);
        self.publisher.response(name, reply.as_ref(), &response, received.receipt);
    }

    fn execute(&mut self, name: &str, wanted: &Value) -> Result<ResponseData, String> {
        match name {
            "list" => {}
            "pause" | "resume" => {
                let paused = name == "pause" && paused_in(wanted)?;
                self.storage.note_urgently(&Record::Paused { paused });
                self.apply(if paused { Event::Pause } else { Event::Resume });
            }
            "reload" => return self.reload().map(ResponseData::Reload),
            "health" => return Ok(ResponseData::Health(Box::new(self.health()))),
            _ => {
                return Err(format!(
                    "`{}` is unknown; there are list, pause, resume, move, settings, reload, health and self_test",
                    shown(name)
                ));
            }
        }
        Ok(self.jobs())
    }

    fn jobs(&self) -> ResponseData {
        let running = self.queue.running();
        let waiting: Vec<String> = self.queue.ids().into_iter().filter(|id| Some(id.as_str()) != running).collect();
        let (running, paused) = (running.map(str::to_owned), self.queue.is_paused());
        ResponseData::Jobs(JobList { running, waiting, paused })
    }

    /// `{"id": …, "to": …}`
    fn move_job(&mut self, wanted: &Value) -> Result<ResponseData, String> {
        let id = id_in(wanted).ok_or("expected {\"id\": …, \"to\": …}")?;
        let to = match wanted.get("to").filter(|to| !to.is_null()) {
            None => 0,
            Some(to) => whole(to).and_then(|to| usize::try_from(to).ok()).ok_or_else(|| {
                format!(
                    "to: {} is not a whole number from 0: how many waiting jobs go before it",
                    shown(&to.to_string())
                )
            })?,
        };
        if self.queue.running() == Some(&id) || !self.queue.contains(&id) {
            return Err(format!("there is no job `{}` that waits", shown(&id)));
        }
        self.apply(Event::Move { id, to });
        let jobs = self.queue.waiting_works().map(|record| record.number).collect();
        self.storage.note_urgently(&Record::Order { jobs });
        Ok(self.jobs())
    }

    /// Keys of a request, for the prompts to come that are plain text.
    fn settings(&mut self, wanted: Value) -> Result<ResponseData, String> {
        let Value::Object(mut wanted) = wanted else { return Err("expected an object of settings".into()) };
        wanted.remove("transaction");
        if let Some(unknown) = wanted.keys().find(|key| !PromptSettings::KEYS.contains(&key.as_str())) {
            return Err(format!("`{}` is unknown; there are {}", shown(unknown), PromptSettings::KEYS.join(", ")));
        }
        let mut request = json!(self.intake.settings);
        request["prompt"] = json!("a");
        request.as_object_mut().into_iter().for_each(|request| request.extend(std::mem::take(&mut wanted)));
        let settings = self.intake.try_settings(&request).map_err(|fault| fault.one_line())?;
        if settings != self.intake.settings {
            self.storage.note_urgently(&Record::Settings(settings.clone()));
            self.intake.settings = settings.clone();
            self.publisher.reconfigure(&self.config, &self.info());
        }
        Ok(ResponseData::Settings(SettingsInUse { settings }))
    }

    /// Queues a small image that every device with this model paints alike, as a request of its own: all that a request needs
    /// is tried on the way.
    async fn self_test(&mut self, received: &Received) -> ResponseData {
        let job = format!("self-test-{}", random::id());
        let size = self.intake.smallest_size();
        let request = json!({
            "id": job, "prompt": "a red house", "seed": 0, "steps": 4, "width": size, "height": size, "priority": 100,
            "output": "none", "preview": false,
        });
        let request = Received {
            topic: self.publisher.topics().of("txt2img"),
            payload: request.to_string().into(),
            retain: false,
            response_topic: None,
            correlation: None,
            user_properties: vec![],
            expiry: None,
            duplicate: (false, 0),
            receipt: received.receipt,
        };
        self.request(&request, RequestMode::Txt2Img).await;
        self.settle().await;
        ResponseData::SelfTest(SelfTestJob { job })
    }

    /// `{"id": …}`, `{"running": true}` or `{"all": true}`
    fn cancel(&mut self, wanted: &Value) -> Result<ResponseData, String> {
        let wants = |key: &str| wanted.get(key).and_then(Value::as_bool).unwrap_or(false);
        let (cancelled, event) = match id_in(wanted) {
            Some(id) if !self.queue.contains(&id) => {
                return Err(format!("there is no job `{}` in the queue", shown(&id)));
            }
            Some(id) => (vec![id.clone()], Event::Cancel(id)),
            None if wants("all") => (self.queue.ids(), Event::CancelAll("cancelled before it was started")),
            None if wants("running") => match self.queue.running().map(str::to_owned) {
                Some(id) => (vec![id.clone()], Event::Cancel(id)),
                None => return Ok(ResponseData::Cancelled(CancelledJobs { cancelled: vec![] })),
            },
            None => return Err("expected {\"id\": …}, {\"running\": true} or {\"all\": true}".into()),
        };
        self.apply(event);
        Ok(ResponseData::Cancelled(CancelledJobs { cancelled }))
    }
}

/// The job that a command names.
fn id_in(wanted: &Value) -> Option<String> {
    let id = wanted.get("id").filter(|id| !id.is_null())?;
    Some(id.as_str().map_or_else(|| id.to_string(), str::to_owned))
}

/// What a client wrote, as errors show it: short and on one line.
fn shown(text: &str) -> String {
    text.chars().take(80).collect::<String>().escape_debug().to_string()
}

/// Whether a `pause` is one: with `{"paused": false}` it is not.
fn paused_in(wanted: &Value) -> Result<bool, String> {
    match wanted.get("paused") {
        None | Some(Value::Null) => Ok(true),
        Some(Value::Bool(paused)) => Ok(*paused),
        Some(other) => Err(format!("paused: {} is neither true nor false", shown(&other.to_string()))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pause_that_is_neither_true_nor_false_is_refused() {
        assert_eq!(paused_in(&json!({})), Ok(true));
        assert_eq!(paused_in(&json!({"paused": true})), Ok(true));
        assert_eq!(paused_in(&json!({"paused": false})), Ok(false));
        for other in [json!("false"), json!(0), json!([])] {
            assert!(paused_in(&json!({"paused": other})).unwrap_err().contains("neither true nor false"));
        }
    }
}
