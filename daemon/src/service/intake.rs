//! What arrives: requests, cancellations and commands. Each is answered, and acknowledged to the broker only once it
//! is in the queue or answered.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::SystemTime;

use super::*;
use crate::fault::{Fault, catch_panic};
use crate::mqtt::Received;
use crate::queue::Ticket;
use crate::random;
use crate::request::{Rejection, RequestKind};
use crate::topics::Input;

/// How many requests are remembered, to tell those that the broker sends again.
const RECENT: usize = 64;
const RETAINED: &str = "a retained request would be painted again at every reconnection; publish it without retain";

impl Service {
    pub(super) fn receive(&mut self, received: &Received) {
        match self.topics.input(&received.topic) {
            // An empty retained message only clears one that the broker kept.
            Some(_) if received.retain && received.payload.is_empty() => {}
            Some(Input::Txt2Img) => self.request(received, RequestKind::Txt2Img),
            Some(Input::Img2Img) => self.request(received, RequestKind::Img2Img),
            Some(Input::Cancel) => self.command(received, "cancel"),
            Some(Input::Command(name)) => self.command(received, &name),
            None => warn!(topic = received.topic, "a message on a topic of no meaning"),
        }
        if !self.mqtt.acknowledge(&received.receipt) {
            debug!(topic = received.topic, "not acknowledged: the connection is gone");
        }
    }

    /// A request for pictures.
    fn request(&mut self, received: &Received, kind: RequestKind) {
        if self.is_repeated(received) {
            return debug!("the broker sent a request again");
        }
        let (reply, warning) = self.reply(received);
        // A payload that kills the service would be sent again by the broker, for ever.
        let read = catch_panic(|| self.read(received, kind));
        match read.unwrap_or_else(|fault| Err(Rejection { id: None, transaction: None, fault })) {
            Ok((mut job, painting)) => {
                let ineffective = painting.warnings().iter().map(ToString::to_string);
                let warnings =
                    warning.into_iter().chain(std::mem::take(&mut job.warnings)).chain(ineffective).collect();
                let card = Card { transaction: job.transaction.clone(), reply, warnings, images: vec![] };
                self.cards.insert(job.id.clone(), card);
                let (id, priority, deadline) = (job.id.clone(), job.priority, deadline(received, &job));
                let work = Work { job: Arc::new(job), painting };
                self.apply(Event::Submit(Ticket { id, priority, deadline, work }));
            }
            Err(rejection) => self.reject(rejection, reply),
        }
    }

    /// All checks that can be made before the job's turn, so that a client hears of a mistake at once.
    fn read(&self, received: &Received, kind: RequestKind) -> Result<(Job, Painting), Rejection> {
        let job = Job::parse(&received.payload, kind, &self.state_dir)?;
        let reject = |fault| Rejection { id: Some(job.id.clone()), transaction: job.transaction.clone(), fault };
        if received.retain {
            return Err(reject(Fault::param("retain", RETAINED)));
        }
        if self.queue.contains(&job.id) {
            return Err(reject(Fault::param("id", format!("a job `{}` is in the queue already", job.id))));
        }
        let painting = job.resolve(&self.resolver, self.options).map_err(reject)?;
        Ok((job, painting))
    }

    /// Says why a request was not taken. A job of the same name keeps that name for itself.
    fn reject(&mut self, rejection: Rejection, reply: Option<Reply>) {
        let id = rejection.id.filter(|id| !self.queue.contains(id)).unwrap_or_else(random::id);
        warn!(id, "rejected: {}", rejection.fault);
        let ending = Ending::Rejected(rejection.fault);
        let state = State::ended(&id, rejection.transaction.as_ref(), &ending);
        self.send("state", &id, reply.as_ref(), &state);
    }

    /// Where the publisher wants answers, or a warning why it gets none there.
    fn reply(&self, received: &Received) -> (Option<Reply>, Option<String>) {
        let Some(topic) = received.response_topic.clone() else { return (None, None) };
        match self.topics.check_response(&topic) {
            Ok(()) => (Some(Reply { topic, correlation: received.correlation.clone() }), None),
            Err(why) => {
                warn!(topic, "a response topic was refused: {why}");
                (None, Some(format!("no answers are sent to the response topic: {why}")))
            }
        }
    }

    /// The broker sends again what it believes we did not get; such a message has the mark, the packet id and the bytes
    /// of one that was taken.
    fn is_repeated(&mut self, received: &Received) -> bool {
        let (duplicate, packet) = received.duplicate;
        let mut hasher = DefaultHasher::new();
        (&received.topic, &received.payload).hash(&mut hasher);
        let mark = (packet, hasher.finish());
        if duplicate && self.recent.contains(&mark) {
            return true;
        }
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(mark);
        false
    }

    /// A command, answered on `…/response/<name>`.
    fn command(&mut self, received: &Received, name: &str) {
        let payload = String::from_utf8_lossy(&received.payload);
        let parsed: Result<Value, _> =
            if payload.trim().is_empty() { Ok(json!({})) } else { serde_json::from_str(&payload) };
        let transaction = parsed.as_ref().ok().and_then(|value| value.get("transaction").cloned());
        let outcome = match parsed {
            _ if received.retain => Err("retained commands are refused; publish it without retain".into()),
            Err(error) => Err(format!("the payload looks like JSON but does not parse: {error}")),
            Ok(value) if name == "cancel" => self.cancel(&value),
            Ok(_) => self.obey(name),
        };
        let answer = report::response(outcome, transaction);
        if let (Some(reply), _) = self.reply(received) {
            let copy = Message::json(reply.topic, &answer);
            self.mqtt.publish(Message { correlation: reply.correlation, ..copy });
        }
        if crate::topics::is_safe_level(name) {
            self.mqtt.publish(Message::json(self.topics.of(&format!("response/{name}")), &answer));
        }
    }

    fn obey(&mut self, name: &str) -> Result<Value, String> {
        match name {
            "list" => {}
            "pause" => self.apply(Event::Pause),
            "resume" => self.apply(Event::Resume),
            "reload" => return self.reload(),
            _ => return Err(format!("`{name}` is unknown; there are list, pause, resume and reload")),
        }
        let running = self.queue.running();
        let waiting: Vec<String> = self.queue.ids().into_iter().filter(|id| Some(id.as_str()) != running).collect();
        Ok(json!({"running": running, "waiting": waiting, "paused": self.queue.is_paused()}))
    }

    /// `{"id": …}` or `{"all": true}`
    fn cancel(&mut self, wanted: &Value) -> Result<Value, String> {
        let id = wanted.get("id").map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_owned));
        let all = wanted.get("all").and_then(Value::as_bool).unwrap_or(false);
        let cancelled = match id {
            Some(id) if !self.queue.contains(&id) => return Err(format!("there is no job `{id}` in the queue")),
            Some(id) => vec![id],
            None if all => self.queue.ids(),
            None => return Err("expected {\"id\": …} or {\"all\": true}".into()),
        };
        cancelled.iter().for_each(|id| self.apply(Event::Cancel(id.clone())));
        Ok(json!({"cancelled": cancelled}))
    }
}

/// The earlier of the message's expiry and the request's `not_after`.
fn deadline(received: &Received, job: &Job) -> Option<Instant> {
    let left = job.not_after.map(|time| time.duration_since(SystemTime::now()).unwrap_or_default());
    let soonest = left.into_iter().chain(received.expiry).min()?;
    Instant::now().checked_add(soonest)
}
