//! The configuration file. Every key has a default, so an empty file is a good one; an unknown key is refused, because
//! a misspelt one would otherwise be ignored for ever. Values are checked by their types, so that every message
//! carries the file and the line.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;

use crate::topics;

/// Where the configuration is looked for when nothing else is said.
pub const DEFAULT_PATH: &str = "/etc/diffused/config.toml";

/// The whole file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The device's name in every topic.
    pub device: Level,
    /// A bundle; `None`: the demo model inside the program.
    pub model: Option<PathBuf>,
    /// The most memory to use.
    pub memory: Option<Size>,
    /// Worker threads; `None`: one for each CPU.
    pub threads: Option<Threads>,
    /// Where pictures are kept; `None`: see `Config::state_dir`.
    pub state_dir: Option<PathBuf>,
    /// How many pictures are kept there before the oldest goes.
    pub keep_pictures: usize,
    /// How many jobs may wait.
    pub queue_length: usize,
    /// The broker.
    pub mqtt: Mqtt,
    /// Home Assistant.
    pub home_assistant: HomeAssistant,
    /// Work that devices share.
    pub fleet: Fleet,
}

/// `[mqtt]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mqtt {
    /// Where the broker is.
    pub url: Url,
    /// Name for the broker, if it asks for one.
    pub username: Option<String>,
    /// A file that holds the password alone.
    pub password_file: Option<PathBuf>,
    /// For mqtts://.
    pub ca_file: Option<PathBuf>,
    /// For mqtts://.
    pub cert_file: Option<PathBuf>,
    /// For mqtts://.
    pub key_file: Option<PathBuf>,
    /// What every topic begins with.
    pub base: Base,
    /// Seconds between two signs of life on a quiet connection.
    pub keep_alive: KeepAlive,
    /// The largest message that is taken.
    pub max_packet: Size,
    /// Beginnings of the response topics that clients may name; "" allows all, an empty list none.
    pub response_topics: Vec<String>,
    /// Whether the broker keeps the latest picture of `…/image`.
    pub retain_image: bool,
}

/// `[home_assistant]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HomeAssistant {
    /// Announce the device.
    pub discovery: NotYet<bool>,
    /// Under this prefix; no client may name a response topic there.
    pub prefix: String,
}

/// `[fleet]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fleet {
    /// Take work that is shared in this group.
    pub group: NotYet<String>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            device: Level(host_name()),
            model: None,
            memory: None,
            threads: None,
            state_dir: None,
            keep_pictures: 100,
            queue_length: 32,
            mqtt: Mqtt::default(),
            home_assistant: HomeAssistant::default(),
            fleet: Fleet::default(),
        }
    }
}

impl Default for Mqtt {
    fn default() -> Mqtt {
        Mqtt {
            url: Url { host: "127.0.0.1".into(), port: 1883 },
            username: None,
            password_file: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            base: Base("diffused".into()),
            keep_alive: KeepAlive(30),
            max_packet: Size(8 << 20),
            response_topics: vec![String::new()],
            retain_image: false,
        }
    }
}

impl Default for HomeAssistant {
    fn default() -> HomeAssistant {
        HomeAssistant { discovery: NotYet::default(), prefix: "homeassistant".into() }
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
        let config: Config = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            anyhow!("{}:{line}: {}", path.display(), error.message().trim_end())
        })?;
        config.check().with_context(|| path.display().to_string())?;
        Ok(config)
    }

    /// What no single value's type can see.
    fn check(&self) -> Result<()> {
        let levels = format!("{}/{}", self.mqtt.base.0, self.device.0);
        if levels.matches('/').count() > 4 {
            bail!("mqtt.base: `{levels}` has more than 4 slashes; some brokers take no more than 7 in a whole topic");
        }
        let tls = [&self.mqtt.ca_file, &self.mqtt.cert_file, &self.mqtt.key_file];
        if tls.iter().any(|file| file.is_some()) {
            bail!("mqtt.ca_file, cert_file and key_file belong to mqtts://, which this version does not support yet");
        }
        if self.mqtt.password_file.is_some() && self.mqtt.username.is_none() {
            bail!("mqtt.password_file needs mqtt.username beside it");
        }
        if self.queue_length == 0 {
            bail!("queue_length: must be at least 1");
        }
        Ok(())
    }

    /// The broker's password, read from its file without the line's end.
    pub fn password(&self) -> Result<Option<String>> {
        let Some(path) = &self.mqtt.password_file else { return Ok(None) };
        let text = fs::read_to_string(path).with_context(|| format!("mqtt.password_file: {}", path.display()))?;
        Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
    }

    /// Where pictures are kept, made if need be. Where the configuration is silent: systemd's state directory, else
    /// /var/lib/diffused if we may write there, else the user's own state folder.
    pub fn state_dir(&self) -> Result<PathBuf> {
        let make = |folder: &Path| fs::create_dir_all(folder.join("pictures"));
        if let Some(folder) = &self.state_dir {
            make(folder).with_context(|| format!("state_dir: {}", folder.display()))?;
            return Ok(folder.clone());
        }
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let home = || variable("HOME").map(|home| home.join(".local/state"));
        let own = variable("XDG_STATE_HOME").or_else(home).map(|folder| folder.join("diffused"));
        let candidates = [variable("STATE_DIRECTORY"), Some("/var/lib/diffused".into()), own];
        let found = candidates.into_iter().flatten().find(|folder| make(folder).is_ok());
        found.context("state_dir: no folder to write to; name one in the configuration")
    }
}

/// One level of a topic.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct Level(pub String);

impl TryFrom<String> for Level {
    type Error = String;
    fn try_from(text: String) -> Result<Level, String> {
        if topics::is_safe_level(&text) {
            return Ok(Level(text));
        }
        Err(format!("`{text}` cannot be part of a topic: use 1 to 64 letters, digits, `-`, `_` and `.`"))
    }
}

/// The first levels of every topic.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct Base(pub String);

impl TryFrom<String> for Base {
    type Error = String;
    fn try_from(text: String) -> Result<Base, String> {
        if text.split('/').all(topics::is_safe_level) {
            return Ok(Base(text));
        }
        Err(format!("`{text}` cannot begin a topic: use levels of letters, digits, `-`, `_` and `.`, with `/` between"))
    }
}

/// A broker's address.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct Url {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl TryFrom<String> for Url {
    type Error = String;
    fn try_from(text: String) -> Result<Url, String> {
        let wrong = |why: &str| Err(format!("`{text}` is no broker's address: {why} (as in mqtt://127.0.0.1:1883)"));
        let Some((scheme, rest)) = text.split_once("://") else { return wrong("it lacks mqtt://") };
        match scheme {
            "mqtt" => {}
            "mqtts" => return wrong("mqtts:// is not supported yet"),
            _ => return wrong("its scheme is not mqtt://"),
        }
        let rest = rest.trim_end_matches('/');
        if rest.contains(['/', '@', '?']) {
            return wrong("only host and port may follow; `username` and `password_file` are keys of their own");
        }
        let port = |text: &str| text.parse().ok().filter(|port| *port > 0);
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, text)) if !text.ends_with(']') => (host, port(text)),
            _ => (rest, Some(1883)),
        };
        match port {
            None => wrong("its port is not between 1 and 65535"),
            Some(_) if host.is_empty() => wrong("it lacks a host"),
            Some(port) => Ok(Url { host: host.to_owned(), port }),
        }
    }
}

/// Seconds, 5 to 65535.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "i64")]
pub struct KeepAlive(pub u16);

impl TryFrom<i64> for KeepAlive {
    type Error = String;
    fn try_from(seconds: i64) -> Result<KeepAlive, String> {
        match u16::try_from(seconds) {
            Ok(seconds @ 5..) => Ok(KeepAlive(seconds)),
            _ => Err(format!("{seconds} is out of range; 5 to 65535 seconds are allowed")),
        }
    }
}

/// A number of threads, 1 to 256.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "i64")]
pub struct Threads(pub usize);

impl TryFrom<i64> for Threads {
    type Error = String;
    fn try_from(threads: i64) -> Result<Threads, String> {
        match usize::try_from(threads) {
            Ok(threads @ 1..=256) => Ok(Threads(threads)),
            _ => Err(format!("{threads} is out of range; 1 to 256 are allowed")),
        }
    }
}

/// Bytes, written as a string with K, M or G (of 1024) or as a plain number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "SizeText")]
pub struct Size(pub u64);

/// The two ways to write a `Size`.
#[derive(Deserialize)]
#[serde(untagged)]
enum SizeText {
    Bytes(u64),
    Text(String),
}

impl TryFrom<SizeText> for Size {
    type Error = String;
    fn try_from(text: SizeText) -> Result<Size, String> {
        match text {
            SizeText::Bytes(bytes) => Ok(Size(bytes)),
            SizeText::Text(text) => text.parse(),
        }
    }
}

impl std::str::FromStr for Size {
    type Err = String;
    fn from_str(text: &str) -> Result<Size, String> {
        let digits = text.trim_end_matches("iB").trim_end_matches(['K', 'M', 'G', 'k', 'm', 'g']);
        let shift = match text[digits.len()..].chars().next().map(|unit| unit.to_ascii_uppercase()) {
            None => 0,
            Some('K') => 10,
            Some('M') => 20,
            _ => 30,
        };
        let size = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
        size.filter(|size| *size > 0)
            .map(Size)
            .ok_or_else(|| format!("`{text}` is no size: write a number with K, M or G, as in \"200M\""))
    }
}

/// A key of the contract whose feature this version lacks: only its default is taken, rather than ignoring it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NotYet<T>(T);

impl<'de, T: Default + PartialEq + Deserialize<'de>> Deserialize<'de> for NotYet<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<NotYet<T>, D::Error> {
        if T::deserialize(deserializer)? == T::default() {
            return Ok(NotYet::default());
        }
        Err(serde::de::Error::custom("this version does not support this yet; leave the key out"))
    }
}

/// The host's name as a topic level; "diffused" where there is none.
fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let safe: String = name.trim().chars().map(|c| if topics::is_safe(c) { c } else { '-' }).take(64).collect();
    if safe.is_empty() { "diffused".into() } else { safe }
}

#[cfg(test)]
mod tests;
