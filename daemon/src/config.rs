//! The configuration file. Every key has a default, so an empty file is valid; an unknown key is an error, because a
//! misspelt one would otherwise be ignored for ever. Values are checked by their types, so that every error has the
//! file, the line and the key.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::unwrap_used))]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use diffused_engine::bundle::AutoencoderKind;
use diffused_engine::prompt::PromptSyntax;
use serde::Deserialize;

use crate::contract::topics::{self, ANY, TopicBase, TopicLevel, Topics};
use crate::display::panels::{KnownPanels, PanelEntry};
use crate::display::spec::{OutputRequest, name_or_keys};

pub use muse::{MuseConfig, Period, PromptOrder, TimeOfDay};
pub use secrets::TlsFiles;
pub use values::{Bounded, ByteSize, GroupName, MqttVersion, PacketSize, Transport, Url};

use values::whole_path;

mod folders;
mod muse;
mod places;
mod reload;
mod secrets;
mod values;

/// The configuration that is read where the command line names no other.
pub const DEFAULT_PATH: &str = "/etc/diffused/config.toml";

/// The whole file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The device's name in every topic.
    pub device: TopicLevel,
    /// A bundle; `None`: the demo model inside the program.
    #[serde(deserialize_with = "whole_path")]
    pub model: Option<PathBuf>,
    /// The autoencoder for requests that name none; `None`: the model's own choice.
    pub decoder: Option<AutoencoderKind>,
    /// How the prompts of requests that do not say are read.
    pub prompt_syntax: PromptSyntax,
    /// How many times as wide and high images become for requests that do not say; `None`: they stay as they are.
    pub upscale: Option<Bounded<1, 8>>,
    /// From which part of the way from noise to image to which there is guidance, for requests that do not say.
    pub guidance_interval: Option<[f64; 2]>,
    /// For how many calls of the UNet its deep features are computed once, for requests that do not say.
    pub cache_interval: Option<Bounded<1, 20>>,
    /// Where the files of wildcards in prompts are.
    #[serde(deserialize_with = "whole_path")]
    pub wildcards: Option<PathBuf>,
    /// What a display shows of images whose requests are silent; `None`: nothing.
    #[serde(deserialize_with = "name_or_keys")]
    pub output: Option<OutputRequest>,
    /// Whether previews are published where a request does not say.
    pub preview: bool,
    /// Displays that `output` may name beside those that the program knows.
    pub panels: BTreeMap<String, PanelEntry>,
    /// The most memory to use.
    pub memory: Option<ByteSize>,
    /// The temperature above which painting pauses between layers, °C; `None`: it never does.
    pub max_temperature: Option<Bounded<40, 110>>,
    /// Where the temperature is read, in thousandths of °C; `None`: the processor's thermal zone.
    #[serde(deserialize_with = "whole_path")]
    pub temperature_file: Option<PathBuf>,
    /// Worker threads; `None`: one for each CPU.
    pub threads: Option<Bounded<1, 256>>,
    /// Where images are kept; `None`: see `Config::state_dir`.
    #[serde(deserialize_with = "whole_path")]
    pub state_dir: Option<PathBuf>,
    /// How many images are kept there before the oldest is deleted.
    pub keep_pictures: Bounded<0, 1_000_000>,
    /// How often the running job's state is written there at most, seconds.
    pub checkpoint_interval: Bounded<1, 3600>,
    /// How many jobs may wait.
    pub queue_length: Bounded<1, 10_000>,
    /// The broker.
    pub mqtt: MqttConfig,
    /// Home Assistant.
    pub home_assistant: HomeAssistant,
    /// Work that devices share.
    pub fleet: Fleet,
    /// What the device paints by itself.
    pub muse: Vec<MuseConfig>,
}

/// `[mqtt]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MqttConfig {
    /// Where the broker is.
    pub url: Url,
    /// The version of MQTT.
    pub version: MqttVersion,
    /// User name for the broker.
    pub username: Option<String>,
    /// A file that holds the password and nothing else.
    #[serde(deserialize_with = "whole_path")]
    pub password_file: Option<PathBuf>,
    /// Over TLS: whom to trust; `None`: the system's authorities.
    #[serde(deserialize_with = "whole_path")]
    pub ca_file: Option<PathBuf>,
    /// Over TLS: our certificate, for brokers that want one.
    #[serde(deserialize_with = "whole_path")]
    pub cert_file: Option<PathBuf>,
    /// Over TLS: its private key.
    #[serde(deserialize_with = "whole_path")]
    pub key_file: Option<PathBuf>,
    /// The first levels of every topic.
    pub base: TopicBase,
    /// MQTT's keep-alive interval, seconds.
    pub keep_alive: Bounded<5, 65535>,
    /// The largest incoming message.
    pub max_packet: PacketSize,
    /// The most bytes of images that wait for the broker.
    pub outbox: ByteSize,
    /// Prefixes of response topics that are allowed beside `<base>/<device>/reply/…`; "" allows all.
    pub response_topics: Vec<String>,
    /// Whether the broker keeps the latest image of `…/image`.
    pub retain_image: bool,
}

/// `[home_assistant]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HomeAssistant {
    /// Announce the device (MQTT discovery).
    pub discovery: bool,
    /// The discovery prefix; no response topic may lie under it.
    pub prefix: TopicBase,
}

/// `[fleet]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fleet {
    /// Take work that is shared in this group; "" takes none.
    pub group: GroupName,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            device: host_name(),
            model: None,
            decoder: None,
            prompt_syntax: PromptSyntax::default(),
            upscale: None,
            guidance_interval: None,
            cache_interval: None,
            wildcards: None,
            output: None,
            preview: false,
            panels: BTreeMap::new(),
            memory: None,
            max_temperature: None,
            temperature_file: None,
            threads: None,
            state_dir: None,
            keep_pictures: Bounded(100),
            checkpoint_interval: Bounded(60),
            queue_length: Bounded(32),
            mqtt: MqttConfig::default(),
            home_assistant: HomeAssistant::default(),
            fleet: Fleet::default(),
            muse: vec![],
        }
    }
}

impl Default for MqttConfig {
    fn default() -> MqttConfig {
        MqttConfig {
            url: Url::default(),
            version: MqttVersion::default(),
            username: None,
            password_file: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            base: TopicBase::default(),
            keep_alive: Bounded(30),
            max_packet: PacketSize(8 << 20),
            outbox: ByteSize(512 << 20),
            response_topics: vec![],
            retain_image: false,
        }
    }
}

impl Default for HomeAssistant {
    fn default() -> HomeAssistant {
        HomeAssistant { discovery: false, prefix: TopicBase("homeassistant".into()) }
    }
}

impl Config {
    /// Reads `path`; without one, the default path if there is such a file, else all defaults.
    pub fn load(path: Option<&Path>) -> Result<Config> {
        let default = Path::new(DEFAULT_PATH);
        let path = match path {
            Some(path) => path,
            None if default.exists() => default,
            None => return Ok(Config::default()),
        };
        let text = fs::read_to_string(path).with_context(|| format!("{}: cannot be read", path.display()))?;
        Config::parse(&text, path)
    }

    /// Parses and checks `text`; `path` is for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Config> {
        let located = |error: toml::de::Error, key: &str| {
            let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            anyhow!("{}:{line}: {key}{}", path.display(), error.message().trim_end())
        };
        let document = toml::Deserializer::parse(text).map_err(|error| located(error, ""))?;
        let config: Config = serde_path_to_error::deserialize(document).map_err(|error| {
            let key = error.path().to_string();
            let key = if key == "." { String::new() } else { format!("{key}: ") };
            located(error.into_inner(), &key)
        })?;
        config.check().map_err(|error| anyhow!(places::located(&format!("{error:#}"), text, path)))?;
        Ok(config)
    }

    /// `message`, which may begin with a key and a colon, with the file and the key's line in it; see `load` for `path`.
    pub fn located(path: Option<&Path>, message: &str) -> String {
        let path = path.unwrap_or(Path::new(DEFAULT_PATH));
        fs::read_to_string(path).map_or_else(|_| message.to_owned(), |text| places::located(message, &text, path))
    }

    /// What no single value's type can see.
    fn check(&self) -> Result<()> {
        let levels = self.topics().of("").matches('/').count() - 1;
        if levels > 4 {
            bail!("mqtt.base: at most 4 slashes are allowed; some brokers allow no more than 7 in a whole topic");
        }
        let (base, prefix) = (&self.mqtt.base.0, &self.home_assistant.prefix.0);
        if base.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
            bail!(
                "mqtt.base: `{prefix}` is Home Assistant's discovery prefix, where it reads every message; write another"
            );
        }
        if self.mqtt.password_file.is_some() && self.mqtt.username.is_none() {
            bail!("mqtt.password_file: mqtt.username is missing beside it");
        }
        if self.device.0 == ANY {
            bail!("device: `{ANY}` stands for the devices of a fleet; give this one another name");
        }
        let panels = self.panels();
        panels.check().map_err(|error| anyhow!("panels.{error}"))?;
        self.output
            .as_ref()
            .map_or(Ok(None), |output| output.resolve(&panels))
            .map_err(|error| anyhow!("output: {error}"))?;
        self.check_tls()?;
        muse::check(&self.muse)?;
        Ok(())
    }

    /// The displays that can be named.
    pub fn panels(&self) -> KnownPanels {
        KnownPanels::with(self.panels.clone())
    }

    /// The device's topics.
    pub fn topics(&self) -> Topics {
        let reserved = self.home_assistant.prefix.0.clone();
        Topics::new(&self.mqtt.base, &self.device, reserved, self.mqtt.response_topics.clone())
    }
}

/// The host's name as a topic level; "diffused" where it cannot be read.
fn host_name() -> TopicLevel {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let safe: String = name.trim().chars().map(|c| if topics::is_safe(c) { c } else { '-' }).take(64).collect();
    TopicLevel::try_from(safe).unwrap_or_else(|_| TopicLevel("diffused".into()))
}

#[cfg(test)]
mod tests;
