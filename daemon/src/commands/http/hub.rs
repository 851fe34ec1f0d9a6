//! What is known of the device, and the jobs that came by HTTP. One task hears the broker and publishes; the connections
//! leave here what is to be published and wait here for what comes of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use super::answer::HttpFault;
use super::job::{JobEnd, WebJob};
use super::options::WebOptions;
use super::presence::PresenceLog;
use crate::commands::client::{Client, Heard};
use crate::config::Config;
use crate::contract::commands::{Response, ResponseData};
use crate::contract::info::DeviceInfo;
use crate::random;

/// After a reconnection: how long nothing is heard of a job before its request is published again.
const REPEAT: Duration = Duration::from_secs(3);

/// The device as the connections see it.
pub(super) struct Hub {
    known: Mutex<DeviceView>,
    outgoing: mpsc::UnboundedSender<Publication>,
    /// The device's name.
    device: String,
    timeout: Duration,
}

/// What is to be published: its topic below the device's, and its payload, JSON.
type Publication = (String, Bytes);

/// What is known.
struct DeviceView {
    /// Why there is no connection, if there is none.
    lost: Option<String>,
    /// Whether this process ends.
    is_ending: bool,
    /// Whether the device is online; `None`: it has said nothing.
    online: Option<bool>,
    info: Option<DeviceInfo>,
    /// The largest message that the broker takes, if it said so.
    max_packet: Option<usize>,
    options: WebOptions,
    /// In the order in which they came.
    jobs: Vec<WebJob>,
    /// Who waits for a command's answer, by its transaction.
    asked: HashMap<String, oneshot::Sender<Response>>,
}

impl Hub {
    /// The hub, and what drives it.
    pub(super) fn start(client: Client) -> (Arc<Hub>, impl Future<Output = ()>) {
        let (outgoing, publications) = mpsc::unbounded_channel();
        let known = DeviceView {
            lost: Some("it was not reached yet".to_owned()),
            is_ending: false,
            online: None,
            info: None,
            max_packet: None,
            options: WebOptions::default(),
            jobs: vec![],
            asked: HashMap::new(),
        };
        let (device, timeout) = (client.device.clone(), client.timeout());
        let hub = Arc::new(Hub { known: Mutex::new(known), outgoing, device, timeout });
        (hub.clone(), drive(hub, client, publications))
    }

    fn lock(&self) -> MutexGuard<'_, DeviceView> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, name: &str, payload: impl Into<Bytes>) {
        // It is gone only when the program ends.
        let _ = self.outgoing.send((name.to_owned(), payload.into()));
    }

    /// What the device has said of itself.
    pub(super) fn info(&self) -> Result<DeviceInfo, HttpFault> {
        self.check_connection()?;
        let unknown = || HttpFault::unavailable(format!("the device `{}` has not said what it is yet", self.device));
        self.lock().info.clone().ok_or_else(unknown)
    }

    /// The largest request that device and broker take, bytes.
    pub(super) fn largest_request(&self) -> usize {
        let known = self.lock();
        let unknown = || Config::default().mqtt.max_packet.0;
        let device = known.info.as_ref().map_or_else(unknown, |info| info.limits.packet) as usize;
        known.max_packet.map_or(device, |broker| broker.min(device))
    }

    pub(super) fn options(&self) -> WebOptions {
        self.lock().options.clone()
    }

    pub(super) fn set_options(&self, options: WebOptions) {
        self.lock().options = options;
    }

    /// Answers whoever waits, and whoever comes, that the process ends. The jobs go on at the device.
    pub(super) fn end(&self) {
        let mut known = self.lock();
        known.is_ending = true;
        known.jobs.clear();
        known.asked.clear();
    }

    fn check_connection(&self) -> Result<(), HttpFault> {
        if self.lock().is_ending {
            return Err(ending());
        }
        let lost = self.lock().lost.clone();
        lost.map_or(Ok(()), |why| Err(HttpFault::unavailable(format!("no connection to the broker: {why}"))))
    }

    fn check_device(&self) -> Result<(), HttpFault> {
        self.check_connection()?;
        match self.lock().online {
            Some(false) => Err(HttpFault::unavailable(format!("the device `{}` is offline", self.device))),
            _ => Ok(()),
        }
    }

    fn silent(&self) -> HttpFault {
        let seconds = self.timeout.as_secs();
        HttpFault::unavailable(format!("the device `{}` does not answer in {seconds} s", self.device))
    }

    /// Publishes a request, whose job gets an id, and waits for its end. Whoever does not wait leaves the job in the queue.
    pub(super) async fn paint(&self, topic: &'static str, mut keys: Map<String, Value>) -> Result<JobEnd, HttpFault> {
        self.check_device()?;
        let id = random::id();
        keys.insert("id".to_owned(), json!(id));
        // Once as text, which may be large, it is never copied.
        let request = Bytes::from(Value::Object(keys).to_string());
        let largest = self.largest_request();
        if request.len() > largest {
            return Err(HttpFault::too_large(format!("the device takes requests of up to {largest} bytes")));
        }
        let (job, first, end) = WebJob::new(id.clone(), topic, request.clone());
        self.lock().jobs.push(job);
        let _waiting = Waiter { hub: self, id: &id };
        self.publish(topic, request);
        if timeout(self.timeout, first).await.is_err() {
            // Whenever it comes, nobody wants it any more.
            self.lock().jobs.retain(|job| job.id != id);
            self.publish("cancel", json!({"id": id}).to_string());
            return Err(self.silent());
        }
        end.await.map_err(|_| {
            let device = &self.device;
            let job = format!("the job `{id}` goes on at the device `{device}`: `diffused watch {id}` follows it");
            HttpFault::unavailable(format!("{ENDING}; {job}"))
        })
    }

    /// Cancels the job that is painted, if it came by HTTP, or else the next that did.
    pub(super) fn interrupt(&self) -> Result<(), HttpFault> {
        self.check_connection()?;
        let mut known = self.lock();
        if let Some(job) = current(&mut known.jobs) {
            job.is_interrupted = true;
            let id = job.id.clone();
            drop(known);
            self.publish("cancel", json!({"id": id}).to_string());
        }
        Ok(())
    }

    /// What the painted job looks like to clients, or the next one, if any came by HTTP.
    pub(super) fn progress(&self, with_image: bool) -> Value {
        let mut known = self.lock();
        current(&mut known.jobs).map_or_else(super::job::idle, |job| job.progress(with_image))
    }

    /// Publishes the command `name` and waits for its answer.
    pub(super) async fn ask(&self, name: &str) -> Result<ResponseData, HttpFault> {
        self.check_device()?;
        let transaction = random::id();
        let (sender, answer) = oneshot::channel();
        self.lock().asked.insert(transaction.clone(), sender);
        self.publish(&format!("request/{name}"), json!({"transaction": transaction}).to_string());
        let answer = timeout(self.timeout, answer).await;
        self.lock().asked.remove(&transaction);
        let response = answer.map_err(|_| self.silent())?.map_err(|_| ending())?;
        response.error.map_or(Ok(response.data), |error| Err(HttpFault::unavailable(error)))
    }

    /// Takes in what was heard; gives when to look for jobs of which nothing was heard since.
    fn hear(&self, heard: Heard, max_packet: Option<usize>) -> Option<Instant> {
        let mut known = self.lock();
        match heard {
            Heard::Lost(why) => known.lost = Some(why),
            Heard::Back => {
                (known.lost, known.max_packet) = (None, max_packet);
                known.jobs.iter_mut().for_each(WebJob::forget_answer);
                return Some(Instant::now() + REPEAT);
            }
            Heard::Presence(online) => {
                // It may have forgotten what it was doing.
                let is_back = known.online.replace(online) == Some(false) && online;
                if is_back {
                    known.jobs.iter_mut().for_each(WebJob::forget_answer);
                    return Some(Instant::now() + REPEAT);
                }
            }
            Heard::Message(name, payload) => {
                if let Some(publication) = known.message(&name, payload) {
                    let _ = self.outgoing.send(publication);
                }
            }
        }
        None
    }

    /// Publishes again what was not answered over this connection: the job that there is answers it. One for which nobody
    /// waits has ended meanwhile, or will without being seen.
    fn repeat(&self) {
        let mut known = self.lock();
        known.jobs.retain(|job| job.is_answered || job.is_wanted());
        for job in known.jobs.iter().filter(|job| !job.is_answered) {
            self.publish(job.topic, job.request.clone());
        }
    }
}

/// What clients are told at the end.
const ENDING: &str = "`diffused http` was stopped";

fn ending() -> HttpFault {
    HttpFault::unavailable(ENDING)
}

/// The job that is painted, or the next. One of which nothing was heard, and for which nobody waits, may not be there.
fn current(jobs: &mut [WebJob]) -> Option<&mut WebJob> {
    let next = || jobs.iter().position(|job| job.is_answered || job.is_wanted());
    let current = jobs.iter().position(WebJob::is_running).or_else(next)?;
    jobs.get_mut(current)
}

impl DeviceView {
    /// Takes a message in; gives what is to be published for it.
    fn message(&mut self, name: &str, payload: Bytes) -> Option<Publication> {
        if name == "info" {
            self.info = serde_json::from_slice(&payload).ok().or(self.info.take());
        } else if name.starts_with("response/") {
            let response = serde_json::from_slice::<Response>(&payload).ok()?;
            let sender = self.asked.remove(response.transaction.as_ref()?.as_str()?)?;
            // Whoever asked may have gone.
            let _ = sender.send(response);
        } else {
            let (id, part) = name.strip_prefix("job/")?.split_once('/')?;
            let at = self.jobs.iter().position(|job| job.id == id)?;
            let job = &mut self.jobs[at];
            let state = job.hear(part, payload)?;
            if job.wants_repeat(&state) {
                return Some((job.topic.to_owned(), job.request.clone()));
            }
            self.jobs.remove(at).end(state);
        }
        None
    }
}

/// A connection that waits for a job. Once it does not any more, nothing is kept for it.
struct Waiter<'a> {
    hub: &'a Hub,
    id: &'a str,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.hub.lock().jobs.iter_mut().filter(|job| job.id == self.id).for_each(WebJob::leave);
    }
}

/// Hears and publishes for ever.
async fn drive(hub: Arc<Hub>, mut client: Client, mut publications: mpsc::UnboundedReceiver<Publication>) {
    let (mut look, mut presence) = (None, PresenceLog::default());
    loop {
        tokio::select! {
            heard = client.hear() => {
                let Ok(heard) = heard else { return };
                presence.hear(&heard, &client);
                look = hub.hear(heard, client.max_packet()).or(look);
            }
            Some((name, payload)) = publications.recv() => client.publish_json(&name, payload),
            () = sleep_until(presence.due.unwrap_or_else(Instant::now)), if presence.due.is_some() => presence.tell(&client),
            () = sleep_until(look.unwrap_or_else(Instant::now)), if look.is_some() => {
                look = None;
                hub.repeat();
            }
        }
    }
}
