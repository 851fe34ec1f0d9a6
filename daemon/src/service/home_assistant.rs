//! Home Assistant: the device's description, again whenever Home Assistant starts, and what the device does, for as long as
//! the configuration has `home_assistant.discovery`. What the broker keeps of it is taken back afterwards: the journal knows
//! the topics, also those of an earlier device or prefix.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Service;
use crate::contract::messages::{Activity, ActivityState};
use crate::jobs::journal::Record;
use crate::mqtt::message::{Message, MessagePayload};

/// How long Home Assistant may take from the description to listening: it makes its entities first, and the broker does not
/// keep the device's health, which they would else show only a minute later.
const SETTLE: Duration = Duration::from_secs(5);

/// What is known of Home Assistant.
#[derive(Debug, Default)]
pub(super) struct Announcement {
    /// Topics on which the broker keeps what was published for Home Assistant.
    pub(super) topics: Vec<String>,
    /// Whether Home Assistant has started and waits for the description.
    pub(super) is_due: bool,
    /// What was published last of the device's doings.
    activity: Option<Activity>,
    /// When the entities of the last description show the device's health, if they do not yet.
    health_due: Option<Instant>,
}

impl Service {
    /// Goes on as the configuration has it, after a start or a reload.
    pub(super) fn announce(&mut self) {
        let topics = self.publisher.topics();
        let wanted = match self.config.home_assistant.discovery {
            true => vec![topics.discovery(), topics.of("activity")],
            false => vec![],
        };
        self.described();
        if wanted == self.announcement.topics {
            return;
        }
        self.storage.note_urgently(&Record::Announced { topics: wanted.clone() });
        let earlier = std::mem::replace(&mut self.announcement.topics, wanted);
        for topic in earlier {
            if !self.announcement.topics.contains(&topic) {
                // What is empty and retained makes the broker forget.
                let nothing = Message::new(topic, MessagePayload::Bytes(Bytes::new()), "text/plain");
                let nothing = self.keep(Message { retain: true, ..nothing });
                self.publisher.send([nothing]);
            }
        }
        self.announcement.activity = None;
    }

    /// Once a second: tells Home Assistant what has changed, and all if it has just started.
    pub(super) fn update_home_assistant(&mut self) {
        if !self.config.home_assistant.discovery || !self.publisher.mqtt().is_connected() {
            return;
        }
        if std::mem::take(&mut self.announcement.is_due) {
            self.publisher.discovery(&self.config, &self.info());
            self.announcement.activity = None;
            self.send_health();
            self.described();
        }
        if self.announcement.health_due.is_some_and(|due| due <= Instant::now()) {
            self.announcement.health_due = None;
            self.send_health();
        }
        let activity = self.activity();
        if self.announcement.activity.as_ref() != Some(&activity) {
            self.publisher.activity(&activity);
            self.announcement.activity = Some(activity);
        }
    }

    /// The connection is new: the broker may have lost what it was told, and has got the description again.
    pub(super) fn forget_activity(&mut self) {
        self.announcement.activity = None;
        self.described();
    }

    /// The description was sent.
    fn described(&mut self) {
        self.announcement.health_due = Some(Instant::now() + SETTLE);
    }

    fn activity(&self) -> Activity {
        let job = self.queue.running().map(str::to_owned);
        let progress = self.running.progress.filter(|_| job.is_some());
        let paused = self.queue.is_paused();
        let state = match () {
            () if self.running.is_cooling && job.is_some() => ActivityState::Cooling,
            () if job.is_some() => ActivityState::Painting,
            () if paused => ActivityState::Paused,
            () => ActivityState::Idle,
        };
        Activity {
            state,
            job,
            progress: progress.map(|progress| progress.progress),
            eta_relative: progress.and_then(|progress| progress.eta_relative),
            waiting: self.queue.waiting(),
            paused,
        }
    }
}
