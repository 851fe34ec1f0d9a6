//! How to reach the broker, with what proves who we are.

use std::time::Duration;

use anyhow::Result;

use super::tls::Tls;
use crate::config::{Config, MqttVersion, Url};

/// Where the broker is and how to log in. What it needs of files is read when it is made.
#[derive(Debug, Clone)]
pub struct BrokerAccess {
    pub(super) url: Url,
    pub(super) version: MqttVersion,
    pub(super) login: Option<(String, String)>,
    pub(super) tls: Option<Tls>,
    /// The longest silence before a ping, at least 5 s.
    pub(super) keep_alive: Duration,
}

impl BrokerAccess {
    /// As configured. The error has the key and the file that is at fault.
    pub fn of(config: &Config) -> Result<BrokerAccess> {
        Ok(BrokerAccess {
            url: config.mqtt.url.clone(),
            version: config.mqtt.version,
            login: config.login()?,
            tls: config.tls_files()?.as_ref().map(Tls::load).transpose()?,
            keep_alive: Duration::from_secs(config.mqtt.keep_alive.0.into()),
        })
    }
}
