//! What the log says of the broker and of the device: each change once, and at the start whether they are there.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use crate::commands::client::{Client, Heard};

/// How long after a connection what the broker keeps of the devices may take to come.
const RETAINED: Duration = Duration::from_secs(1);

/// What the log has said.
#[derive(Default)]
pub(super) struct PresenceLog {
    /// Why there is no connection.
    lost: Option<String>,
    /// Whether the device was online, or was not known.
    told: Option<Option<bool>>,
    /// When to say it first over a new connection.
    pub(super) due: Option<Instant>,
}

impl PresenceLog {
    /// Takes in what was heard.
    pub(super) fn hear(&mut self, heard: &Heard, client: &Client) {
        match heard {
            Heard::Lost(why) => {
                if self.lost.as_ref() != Some(why) {
                    warn!("no connection to the broker {}: {why}; trying again", client.broker);
                }
                (self.lost, self.due) = (Some(why.clone()), None);
            }
            Heard::Back => {
                info!("connected to the broker {}", client.broker);
                (self.lost, self.due) = (None, Some(Instant::now() + RETAINED));
            }
            Heard::Presence(_) if self.due.is_none() => self.tell(client),
            Heard::Presence(_) | Heard::Message(..) => {}
        }
    }

    /// Says whether the device is there.
    pub(super) fn tell(&mut self, client: &Client) {
        self.due = None;
        let online = client.is_online();
        if self.told.replace(online) == Some(online) {
            return;
        }
        match online {
            Some(true) => info!("the device `{}` is online", client.device),
            Some(false) => warn!("{}", client.absent("is offline")),
            None => warn!("{}", client.absent("is not known to the broker")),
        }
    }
}
