//! The contract's keys are taken, and what is wrong is named with its line.

use std::path::Path;

use super::*;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("c.toml")).map_err(|error| format!("{error:#}"))
}

fn check_refused(text: &str, beginning: &str, part: &str) {
    let message = parse(text).expect_err(text);
    assert!(message.starts_with(beginning) && message.contains(part), "{text:?} gave: {message}");
}

#[test]
fn an_empty_file_is_all_defaults() {
    let config = parse("").unwrap();
    assert_eq!(config, Config::default());
    assert_eq!((config.mqtt.url.host.as_str(), config.mqtt.url.port), ("127.0.0.1", 1883));
    assert_eq!((config.mqtt.base.0.as_str(), config.mqtt.keep_alive.0), ("diffused", 30));
}

#[test]
fn every_key_of_the_contract_is_taken() {
    let config = parse(
        r#"
        device = "frame"
        model = "/var/lib/diffused/models/sd15"
        memory = "200M"
        state_dir = "/var/lib/diffused"
        [mqtt]
        url = "mqtt://broker:1884"
        username = "frame"
        password_file = "/etc/diffused/password"
        base = "home/diffused"
        keep_alive = 60
        [home_assistant]
        discovery = false
        prefix = "homeassistant"
        [fleet]
        group = ""
        "#,
    )
    .unwrap();
    assert_eq!(config.memory, Some(Size(200 << 20)));
    assert_eq!(config.mqtt.url, Url { host: "broker".into(), port: 1884 });
    assert_eq!(config.device.0, "frame");
}

#[test]
fn the_shipped_file_is_the_defaults() {
    let shipped = parse(include_str!("../../../systemd/config.toml")).unwrap();
    let state_dir = Some("/var/lib/diffused".into());
    assert_eq!(shipped, Config { state_dir, ..Config::default() });
}

#[test]
fn what_the_shipped_file_comments_out_is_taken() {
    let is_key = |line: &str| line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
    let lines = include_str!("../../../systemd/config.toml").lines();
    let keys: Vec<&str> =
        lines.map(|line| line.strip_prefix('#').filter(|rest| is_key(rest)).unwrap_or(line)).collect();
    let config = parse(&keys.join("\n")).unwrap();
    assert_eq!(
        (config.device.0.as_str(), config.threads, config.memory),
        ("frame", Some(Threads(3)), Some(Size(200 << 20)))
    );
    assert_eq!((config.mqtt.username.as_deref(), config.mqtt.password_file.is_some()), (Some("frame"), true));
}

#[test]
fn unknown_keys_are_refused_with_their_line() {
    check_refused("device = \"a\"\nmodle = \"x\"", "c.toml:2: ", "unknown field `modle`");
    check_refused("[mqtt]\n\nurll = \"x\"", "c.toml:3: ", "unknown field `urll`");
    check_refused("[mqqt]\nurl = \"x\"", "c.toml:1: ", "unknown field `mqqt`");
}

#[test]
fn wrong_values_are_refused_with_their_line() {
    check_refused("device = \"a/b\"", "c.toml:1: ", "`a/b`");
    check_refused("\nmemory = \"plenty\"", "c.toml:2: ", "`plenty`");
    check_refused("memory = \"0\"", "c.toml:1: ", "`0`");
    check_refused("threads = 0", "c.toml:1: ", "1 to 256");
    check_refused("[mqtt]\nkeep_alive = 2", "c.toml:2: ", "5 to 65535");
    check_refused("[mqtt]\nkeep_alive = \"x\"", "c.toml:2: ", "invalid type");
    check_refused("[mqtt]\nbase = \"a/#\"", "c.toml:2: ", "`a/#`");
    check_refused("[mqtt]\nbase = \"a/b/c/d/e\"", "c.toml: ", "4 slashes");
    check_refused("[mqtt]\nurl = \"http://x\"", "c.toml:2: ", "scheme");
    check_refused("[mqtt]\nurl = \"mqtt://x:99999\"", "c.toml:2: ", "port");
    check_refused("[mqtt]\nurl = \"mqtt://u:p@x\"", "c.toml:2: ", "username");
    check_refused("device = ", "c.toml:1: ", "");
}

#[test]
fn what_is_not_supported_is_refused_and_not_ignored() {
    check_refused("[home_assistant]\ndiscovery = true", "c.toml:2: ", "does not support");
    check_refused("[fleet]\ngroup = \"x\"", "c.toml:2: ", "does not support");
    check_refused("[mqtt]\nurl = \"mqtts://x\"", "c.toml:2: ", "not supported");
}

#[test]
fn sizes() {
    for (text, bytes) in [("1", 1), ("2K", 2048), ("200M", 200 << 20), ("1G", 1 << 30), ("64MiB", 64 << 20)] {
        assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
    }
    assert_eq!(parse("memory = 1000").unwrap().memory, Some(Size(1000)));
}

#[test]
fn addresses() {
    let url = |text: &str| Url::try_from(text.to_owned()).unwrap();
    assert_eq!(url("mqtt://pi"), Url { host: "pi".into(), port: 1883 });
    assert_eq!(url("mqtt://[::1]:1999/"), Url { host: "[::1]".into(), port: 1999 });
    assert_eq!(url("mqtt://[::1]"), Url { host: "[::1]".into(), port: 1883 });
}
