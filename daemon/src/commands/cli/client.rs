//! The options of the verbs that reach a device over MQTT.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::{ArgGroup, Args};

use super::{ConfigFile, OUTPUT, PaintArgs};
use crate::config::Url;
use crate::contract::request::FileFormat;
use crate::contract::topics::TopicLevel;

/// Which device, and by which broker.
#[derive(Debug, Args)]
pub struct DeviceArgs {
    /// Broker and device are those of this file
    #[command(flatten)]
    pub config: ConfigFile,
    /// The device; the configuration's own if not given
    #[arg(long, value_name = "NAME", value_parser = level)]
    pub device: Option<TopicLevel>,
    /// The broker, as in mqtt://127.0.0.1:1883; without the configuration's login
    #[arg(long, value_name = "URL", value_parser = url)]
    pub broker: Option<Url>,
    /// User name for the broker
    #[arg(long, value_name = "NAME")]
    pub username: Option<String>,
    /// A file that holds the password and nothing else
    #[arg(long, value_name = "FILE", requires = "username")]
    pub password_file: Option<PathBuf>,
    /// How long broker and device may take to answer, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
    /// Print lines of JSON
    #[arg(long)]
    pub json: bool,
}

/// `diffused submit`
#[derive(Debug, Args)]
pub struct SubmitArgs {
    /// The image
    #[command(flatten)]
    pub paint: PaintArgs,
    /// How many images, with the seeds that follow, 1 to 16
    #[arg(long, value_name = "N")]
    pub n_iter: Option<u32>,
    /// The file to write, .png or .jpg, a folder, or - for stdout; named after the prompt if not given
    #[arg(short, long, value_name = "FILE", help_heading = OUTPUT)]
    pub output: Option<PathBuf>,
    /// png or jpeg; by the output's name if not given
    #[arg(long, value_name = "FORMAT", help_heading = OUTPUT)]
    pub format: Option<FileFormat>,
    /// Larger goes first, -100 to 100
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub priority: Option<i32>,
    /// The job's id; made at random if not given
    #[arg(long, value_parser = level)]
    pub id: Option<TopicLevel>,
    /// Seconds since 1970: if the job has not started by then, it is not painted
    #[arg(long, value_name = "TIME")]
    pub not_after: Option<f64>,
    /// Leave the job once it is in the queue, and print its id
    #[arg(long, conflicts_with = "output")]
    pub no_wait: bool,
    /// Which device, and by which broker
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// `diffused watch`
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// The job, until it ends; all jobs if not given
    #[arg(value_parser = level)]
    pub id: Option<TopicLevel>,
    /// Which device, and by which broker
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// `diffused cancel`
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("which").required(true).args(["id", "all"])))]
pub struct CancelArgs {
    /// The job
    #[arg(value_parser = level)]
    pub id: Option<TopicLevel>,
    /// Cancel every job of the device
    #[arg(long)]
    pub all: bool,
    /// Which device, and by which broker
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// `diffused http`
#[derive(Debug, Args)]
pub struct HttpArgs {
    /// Where to listen; another address than this machine's own needs --token-file
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7860", value_parser = listen)]
    pub listen: SocketAddr,
    /// A file whose first line is a secret that clients must give: as a password (Basic) or as a Bearer token
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Which device, and by which broker
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// `diffused move`
#[derive(Debug, Args)]
pub struct MoveArgs {
    /// The job
    #[arg(value_parser = level)]
    pub id: TopicLevel,
    /// How many of the waiting jobs go before it
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub to: usize,
    /// Which device, and by which broker
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// An address with a port, or one of both alone: a port is one of this machine's own address.
fn listen(text: &str) -> Result<SocketAddr, String> {
    const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const PORT: u16 = 7860;
    let host = |text: &str| if text == "localhost" { Some(LOCAL) } else { text.parse().ok() };
    let both = |(address, port): (&str, &str)| Some(SocketAddr::new(host(address)?, port.parse().ok()?));
    let address = text.parse().ok().or_else(|| text.rsplit_once(':').and_then(both));
    let address = address.or_else(|| Some(SocketAddr::new(LOCAL, text.parse().ok()?)));
    let address = address.or_else(|| Some(SocketAddr::new(host(text)?, PORT)));
    address.ok_or_else(|| "expected an address and a port as in 127.0.0.1:7860 or [::1]:7860, or a port alone".into())
}

fn level(text: &str) -> Result<TopicLevel, String> {
    TopicLevel::try_from(text.to_owned())
}

fn url(text: &str) -> Result<Url, String> {
    Url::try_from(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_a_port_or_both_are_listened_on() {
        for (text, expected) in [
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("[::1]:7861", "[::1]:7861"),
            ("7861", "127.0.0.1:7861"),
            ("localhost:7861", "127.0.0.1:7861"),
            ("localhost", "127.0.0.1:7860"),
            ("0.0.0.0", "0.0.0.0:7860"),
            ("::1", "[::1]:7860"),
        ] {
            assert_eq!(listen(text).unwrap().to_string(), expected, "{text}");
        }
        for wrong in ["", "board.local:7860", "127.0.0.1:99999", ":", "http://127.0.0.1:7860"] {
            assert!(listen(wrong).unwrap_err().contains("as in 127.0.0.1:7860"), "{wrong}");
        }
    }
}
