//! The wire: the only module of the service that names the MQTT client, rumqttc 0.25, in `client`. Its fork,
//! rumqttc-v5-next 0.34, does not know all codes of a PUBACK either, takes no QoS 1 message and no subscription where the
//! broker kept a session that this process did not begin, and has MQTT 3.1.1 in another crate. What is known of 0.25 and
//! kept to:
//!
//! - Nothing is awaited in the task that polls; messages are handed over with `try_…`, one at a time, from our outbox.
//! - `poll` has no time limit of its own, so it gets one, and what it still holds after an error is thrown away:
//!   our outbox sends it again, and the broker sends again what was not acknowledged.
//! - Acknowledgements belong to a connection, since a packet id means nothing on the next one.
//! - The largest packet that the broker takes is known before anything is sent over a connection.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};
use tracing::warn;

use backoff::Backoff;
use client::Connection;
use link::Link;
use message::Message;
use outbox::{Loss, Refused};
use receipts::Receipt;

pub use access::BrokerAccess;
pub use probe::{BrokerReport, ProbeWishes, probe};
pub use settings::MqttSettings;

mod access;
mod backoff;
mod client;
mod link;
pub mod message;
pub mod outbox;
mod probe;
mod problems;
mod reasons;
pub mod receipts;
mod settings;
mod subscriptions;
mod tls;
mod trouble;

/// What happened on the wire.
#[derive(Debug)]
pub enum WireEvent {
    /// A connection is there, and the broker has answered our subscriptions.
    Connected {
        /// Whether the broker still had our session. If not, packet ids begin anew.
        session_present: bool,
    },
    /// It is gone, or an attempt failed; the next follows by itself.
    Disconnected {
        /// Why.
        reason: String,
        /// Whether it is another reason than before.
        is_news: bool,
    },
    /// An image or a result is not sent. It keeps its place in the order until `Mqtt::resolve` says what takes it.
    Refused(Box<Refused>),
    /// The message of this number in the journal was delivered or dropped.
    Left(u64),
    /// A message came in. It is to be acknowledged once it is in the queue or answered.
    Received(Box<Received>),
}

/// A message that came in.
#[derive(Debug)]
pub struct Received {
    /// Where it was published.
    pub topic: String,
    /// Its bytes.
    pub payload: Bytes,
    /// Whether its publisher wanted the broker to keep it.
    pub retain: bool,
    /// MQTT 5's response topic, unchecked.
    pub response_topic: Option<String>,
    /// MQTT 5's correlation data, to be returned with an answer.
    pub correlation: Option<Bytes>,
    /// MQTT 5's user properties, likewise.
    pub user_properties: Vec<(String, String)>,
    /// How long it is of use.
    pub expiry: Option<Duration>,
    /// The duplicate flag and the packet id.
    pub duplicate: (bool, u16),
    /// For `Mqtt::acknowledge`.
    pub receipt: Receipt,
}

/// The service's end of the connection.
#[derive(Clone)]
pub struct Mqtt {
    link: Arc<Mutex<Link>>,
    sent: Arc<Notify>,
}

impl Mqtt {
    /// Starts to connect, for ever, in a task of its own.
    pub fn start(settings: MqttSettings) -> (Mqtt, mpsc::UnboundedReceiver<WireEvent>) {
        let (client, connection) = client::open(&settings);
        let (events, received) = mpsc::unbounded_channel();
        let link = Link::new(client, settings, events);
        let mqtt = Mqtt { link: Arc::new(Mutex::new(link)), sent: Arc::default() };
        tokio::spawn(poll(mqtt.clone(), connection));
        (mqtt, received)
    }

    /// Sends `message` as soon as that can be. One that is larger than the broker takes is dropped with a warning in
    /// the log, an image or result given back as an event: see `max_packet`.
    pub fn publish(&self, message: Message) {
        self.lock().publish(message);
    }

    /// Sends `instead` where the refused message of `place` was; `change` corrects the job's result and ending if they wait
    /// already, and returns whether it did. Gives what was changed.
    pub fn resolve(&self, place: u64, instead: Vec<Message>, change: impl Fn(&mut Message) -> bool) -> Vec<Message> {
        let mut link = self.lock();
        let changed = link.outbox.resolve(place, instead, change);
        link.pump();
        changed
    }

    /// Sends a message's PUBACK, after those of all that came before it. Returns false if the connection by which it came is
    /// gone: then the broker sends it again.
    pub fn acknowledge(&self, receipt: Receipt) -> bool {
        self.lock().acknowledge(receipt)
    }

    /// The files of images that wait to be sent.
    pub fn waiting_files(&self) -> HashSet<PathBuf> {
        self.lock().outbox.files().map(Path::to_owned).collect()
    }

    /// How many messages wait to be sent.
    pub fn waiting(&self) -> usize {
        self.lock().outbox.len()
    }

    /// Whether there is a connection.
    pub fn is_connected(&self) -> bool {
        self.lock().outbox.is_connected()
    }

    /// The largest packet that the broker takes, if it announced one.
    pub fn max_packet(&self) -> Option<usize> {
        self.lock().outbox.limit()
    }

    /// What is wrong with the broker now, a sentence each.
    pub fn problems(&self) -> Vec<String> {
        self.lock().problems.now()
    }

    /// Goes on with `outbox_limit`, `greetings` and `optional_filters`; of the greetings, those that are new are sent over
    /// this connection too.
    pub fn reconfigure(&self, outbox_limit: u64, greetings: Vec<Message>, optional_filters: Vec<String>) {
        self.lock().reconfigure(outbox_limit, greetings, optional_filters);
    }

    /// Ends a subscription that an earlier configuration had, and that the broker's session still holds.
    pub fn unsubscribe(&self, filter: &str) {
        self.lock().unsubscribe(filter);
    }

    /// Takes shared work, or leaves it to others. What the broker has sent already comes all the same.
    pub fn share(&self, takes: bool) {
        self.lock().share(takes);
    }

    /// When the task that polls the client was last seen alive.
    pub fn last_beat(&self) -> Instant {
        self.lock().last_beat
    }

    /// Waits until all is sent and acknowledged; returns false if that takes longer than `timeout` or there is no connection.
    pub async fn flush(&self, timeout: Duration) -> bool {
        let flushed = async {
            loop {
                let sent = self.sent.notified();
                match &self.lock().outbox {
                    outbox if outbox.is_empty() => return true,
                    outbox if !outbox.is_connected() => return false,
                    _ => {}
                }
                sent.await;
            }
        };
        tokio::time::timeout(timeout, flushed).await.unwrap_or(false)
    }

    /// Sends DISCONNECT, so that the broker does not publish the last will; waits for `timeout` at most.
    pub async fn disconnect(&self, timeout: Duration) {
        if !self.lock().outbox.is_connected() || self.lock().client.disconnect().is_err() {
            return;
        }
        let gone = async {
            loop {
                let sent = self.sent.notified();
                if self.lock().finished {
                    return;
                }
                sent.await;
            }
        };
        let _ = tokio::time::timeout(timeout, gone).await;
    }

    fn lock(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Drives the client: the only place that awaits it.
async fn poll(mqtt: Mqtt, mut connection: Connection) {
    let mut backoff = Backoff::default();
    loop {
        let trouble = match beating(&mqtt, connection.poll()).await {
            Ok(event) => {
                let finished = mqtt.lock().handle(event);
                mqtt.sent.notify_waiters();
                if finished {
                    return;
                }
                // Pings are events too, so this is looked at often enough.
                let overdue = mqtt.lock().overdue();
                let Some(trouble) = overdue else { continue };
                connection.recover(&trouble);
                trouble
            }
            Err(trouble) => trouble,
        };
        let lasted = mqtt.lock().disconnect(&trouble);
        mqtt.sent.notify_waiters();
        // Where a refused message ends connections there is no other client to look for.
        if trouble.loss() != Loss::Refused && backoff.ended_early(lasted) {
            let id = mqtt.lock().client_id();
            warn!(
                id,
                "connections end soon after they begin: is there another client of this id, or a device of this name?"
            );
        }
        beating(&mqtt, tokio::time::sleep(backoff.next(lasted))).await;
    }
}

/// How often the polling task says that it is alive while it waits.
const BEAT: Duration = Duration::from_secs(1);

/// Waits for `event`, which has a time limit of its own, and says meanwhile that this task is alive.
async fn beating<T>(mqtt: &Mqtt, event: impl Future<Output = T>) -> T {
    let mut event = pin!(event);
    loop {
        mqtt.lock().last_beat = Instant::now();
        if let Ok(event) = tokio::time::timeout(BEAT, &mut event).await {
            return event;
        }
    }
}
