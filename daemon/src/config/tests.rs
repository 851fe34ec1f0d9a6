//! The contract's keys are accepted, and every error has the file, the line and the key.

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
    assert_eq!(config.memory, Some(ByteSize(200 << 20)));
    assert_eq!(config.mqtt.url, Url { host: "broker".into(), port: 1884, ..Url::default() });
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
    let is_key = |line: &str| line == "[[muse]]" || line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
    let lines = include_str!("../../../systemd/config.toml").lines();
    let keys: Vec<&str> =
        lines.map(|line| line.strip_prefix('#').filter(|rest| is_key(rest)).unwrap_or(line)).collect();
    let config = parse(&keys.join("\n").replace("mqtt://", "mqtts://")).unwrap();
    assert_eq!(
        (config.device.0.as_str(), config.threads, config.memory),
        ("frame", Some(Bounded(3)), Some(ByteSize(200 << 20)))
    );
    assert_eq!((config.mqtt.username.as_deref(), config.mqtt.password_file.is_some()), (Some("frame"), true));
    assert_eq!(config.muse.len(), 1);
    assert!(config.mqtt.ca_file.is_some() && config.mqtt.cert_file.is_some() && config.mqtt.key_file.is_some());
}

#[test]
fn displays_are_named_and_described() {
    let config = parse(
        r#"
        output = { panel = "hall", rotate = 90 }
        [panels.hall]
        width = 640
        height = 480
        palette = [[0, 0, 0], [255, 255, 255], [200, 30, 20]]
        codes = [0, 1, 3]
        packing = "two-planes"
        "#,
    )
    .unwrap();
    let output = config.output.clone().unwrap().resolve(&config.panels()).unwrap().unwrap();
    assert_eq!(output.upright(), Some((480, 640)));
    assert!(config.panels().names().contains(&"hall") && config.panels().names().contains(&"inky-impression-7.3"));
    let named = parse("output = \"inky-impression-7.3\"").unwrap();
    assert_eq!(named.output.unwrap().panel.as_deref(), Some("inky-impression-7.3"));
    check_refused("output = \"hall\"", "c.toml:1: output: ", "the panel `hall` is unknown");
    check_refused("output = { rotate = 30 }", "c.toml:1: output", "0, 90, 180 and 270");
    check_refused("output = 7", "c.toml:1: output: ", "a panel's name");
    let wrong = "[panels.hall]\nwidth = 8\nheight = 8\npalette = \"grey-4\"\npacking = \"1bpp\"";
    check_refused(wrong, "c.toml:1: panels.hall: ", "the code 3 of a colour does not fit");
    check_refused("[panels.a]\nwidth = 8", "c.toml:1: panels.a: ", "missing field `height`");
}

#[test]
fn unknown_keys_are_refused_with_their_line() {
    check_refused("device = \"a\"\nmodle = \"x\"", "c.toml:2: ", "unknown field `modle`");
    check_refused("[mqtt]\n\nurll = \"x\"", "c.toml:3: ", "unknown field `urll`");
    check_refused("[mqqt]\nurl = \"x\"", "c.toml:1: ", "unknown field `mqqt`");
}

#[test]
fn wrong_values_are_refused_with_their_line_and_key() {
    check_refused("device = \"a/b\"", "c.toml:1: device: `a/b`", "64 letters");
    check_refused("\nmemory = \"plenty\"", "c.toml:2: memory: `plenty`", "for example 200M");
    check_refused("threads = 0", "c.toml:1: threads: 0 ", "from 1 to 256");
    check_refused("queue_length = 0", "c.toml:1: queue_length: 0 ", "from 1 to 10000");
    check_refused("keep_pictures = -1", "c.toml:1: keep_pictures: -1 ", "from 0 to");
    check_refused("[mqtt]\nkeep_alive = 2", "c.toml:2: mqtt.keep_alive: 2 ", "from 5 to 65535");
    check_refused("[mqtt]\nkeep_alive = \"x\"", "c.toml:2: mqtt.keep_alive: ", "invalid type");
    check_refused("[mqtt]\nmax_packet = \"300M\"", "c.toml:2: mqtt.max_packet: ", "1K to 256M");
    check_refused("[mqtt]\nmax_packet = 0", "c.toml:2: mqtt.max_packet: ", "too small");
    check_refused("[mqtt]\nmax_packet = 1", "c.toml:2: mqtt.max_packet: 1 bytes are out of range", "1K to 256M");
    check_refused("[mqtt]\nbase = \"a/#\"", "c.toml:2: mqtt.base: `a/#`", "letters");
    check_refused("[mqtt]\nbase = \"a/b/c/d/e\"", "c.toml:2: mqtt.base", "4 slashes");
    check_refused("[mqtt]\npassword_file = \"/x\"", "c.toml:2: mqtt.password_file", "mqtt.username");
    check_refused("[mqtt]\nurl = \"http://x\"", "c.toml:2: mqtt.url: `http://x`", "scheme");
    check_refused("[mqtt]\nurl = \"mqtt://x:99999\"", "c.toml:2: mqtt.url: ", "port");
    check_refused("[mqtt]\nurl = \"mqtt://u:p@x\"", "c.toml:2: mqtt.url: ", "username");
    check_refused("[mqtt]\nversion = \"4\"", "c.toml:2: mqtt.version: ", "`3.1.1`");
    check_refused("device = ", "c.toml:1: ", "");
}

#[test]
fn paths_begin_at_the_root() {
    for path in ["~/model", "model", "./model", ""] {
        for key in ["model", "wildcards", "state_dir"] {
            check_refused(
                &format!("\n{key} = {path:?}"),
                &format!("c.toml:2: {key}: `{path}`"),
                "write the whole path",
            );
        }
        for key in ["password_file", "ca_file", "cert_file", "key_file"] {
            let text = format!("[mqtt]\n{key} = {path:?}");
            check_refused(&text, &format!("c.toml:2: mqtt.{key}: `{path}`"), "write the whole path");
        }
        let text = format!("[[muse]]\nevery = \"1d\"\nprompts_file = {path:?}");
        check_refused(&text, "c.toml:3: muse[0].prompts_file: ", "write the whole path");
    }
}

#[test]
fn topics_do_not_lie_in_home_assistants() {
    check_refused("[mqtt]\nbase = \"homeassistant\"", "c.toml:2: mqtt.base: `homeassistant`", "discovery prefix");
    let other = |base: &str| format!("[home_assistant]\nprefix = \"ha\"\n[mqtt]\nbase = \"{base}\"");
    check_refused(&other("ha/x"), "c.toml:4: mqtt.base: `ha`", "write another");
    assert!(parse(&other("hall")).is_ok() && parse(&other("homeassistant")).is_ok());
}

#[test]
fn home_assistants_prefix_is_a_topic() {
    assert!(parse("[home_assistant]\ndiscovery = true\nprefix = \"home/assistant\"").is_ok());
    for bad in ["", "home/+", "/home", "a//b"] {
        let text = format!("[home_assistant]\nprefix = {bad:?}");
        check_refused(&text, "c.toml:2: home_assistant.prefix: ", "cannot begin a topic");
    }
}

#[test]
fn sizes_are_binary_in_every_spelling() {
    let sizes: [(u64, &[&str]); 6] = [
        (1, &["1", " 1 ", "1b", "1 B"]),
        (2 << 10, &["2K", "2k", "2KB", "2KiB", "2 kib", "2.0K", "2048"]),
        (200 << 20, &["200M", "200m", "200MB", "200MiB", "200 MB", "0200M"]),
        (3 << 29, &["1.5G", "1.5g", "1.5GB", "1.5 GiB", "1536M"]),
        (1 << 53, &["8388608G", "9007199254740992"]),
        (107_374_182, &["0.1G"]),
    ];
    for (bytes, texts) in sizes {
        for text in texts {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
    }
    assert_eq!(parse("memory = 1000").unwrap().memory, Some(ByteSize(1000)));
}

#[test]
fn what_is_not_a_size_is_refused() {
    let wrong =
        ["", " ", "M", "5GGG", "5 G G", "5GM", "5GiBB", "5iB", "5T", "G5", "1.2.3M", "1.5", "1,5G", "1e3", "1_000K"];
    let signs = ["-1", "-1M", "+1M", "NaN", "nanM", "inf", "infinity", "0x10", "5\u{a0}G\u{e9}"];
    for text in wrong.iter().chain(&signs) {
        assert!(text.parse::<ByteSize>().unwrap_err().contains("is not a size"), "{text}");
    }
    for text in ["0", "0M", "0.0G", "0.0001K"] {
        assert!(text.parse::<ByteSize>().unwrap_err().contains("too small"), "{text}");
    }
    for text in ["8388609G", "99999999999999999999", &"9".repeat(400)] {
        assert!(text.parse::<ByteSize>().unwrap_err().contains("too large"), "{text}");
    }
    for (value, part) in [("0", "too small"), ("-5", "too small"), ("1.5", "a size such as"), ("nan", "a size such as")]
    {
        check_refused(&format!("memory = {value}"), "c.toml:1: memory: ", part);
    }
}

#[test]
fn addresses() {
    let url = |text: &str| Url::try_from(text.to_owned()).unwrap();
    for (text, whole) in [
        ("mqtt://pi", "mqtt://pi:1883"),
        ("mqtt://[::1]:1999/", "mqtt://[::1]:1999"),
        ("mqtt://[::1]", "mqtt://[::1]:1883"),
        ("mqtts://broker.example", "mqtts://broker.example:8883"),
        ("ws://pi", "ws://pi:80/mqtt"),
        ("wss://pi:8443/a/b", "wss://pi:8443/a/b"),
    ] {
        assert_eq!(url(text).to_string(), whole);
        assert_eq!(url(whole), url(text));
    }
    for text in
        ["pi", "http://pi", "mqtt://", "mqtt://:1883", "mqtt://pi:0", "mqtt://pi/x", "ws://pi/a?b", "mqtt://p i"]
    {
        assert!(Url::try_from(text.to_owned()).unwrap_err().contains("an address looks like"), "{text}");
    }
}

#[test]
fn a_login_in_an_address_is_refused_and_not_shown() {
    let addresses =
        ["mqtt://u:geheim@x", "mqtts://u:geheim@x:8883", "ws://geheim@x/mqtt", "u:geheim@x", "wss://u:ge@geheim@x"];
    for address in addresses.iter().chain(&["http://u:geheim@x", "mqtt://u:geheim@x:99999", "mqtt://u:geheim/x@x"]) {
        let message = parse(&format!("[mqtt]\nurl = \"{address}\"")).unwrap_err();
        assert!(!message.contains("geheim") && message.starts_with("c.toml:2: mqtt.url: `"), "{message}");
    }
    check_refused("[mqtt]\nurl = \"mqtt://u:geheim@x\"", "c.toml:2: mqtt.url: `mqtt://…@x`", "`password_file`");
}

#[test]
fn fleets() {
    assert_eq!(parse("[fleet]\ngroup = \"house\"").unwrap().fleet.group, GroupName("house".into()));
    check_refused("[fleet]\ngroup = \"a/b\"", "c.toml:2: fleet.group: `a/b`", "64 letters");
    check_refused("device = \"any\"", "c.toml:1: device: `any`", "another name");
}

#[test]
fn muses() {
    let config = parse(
        "[[muse]]\nat = [\"07:00\", \"19:30\"]\nprompts = [\"a cat\"]\nsteps = 8\n[[muse]]\nevery = \"6h\"\nprompts_file = \"/p\"",
    );
    let muses = config.unwrap().muse;
    assert_eq!(muses[0].at, [TimeOfDay { hour: 7, minute: 0 }, TimeOfDay { hour: 19, minute: 30 }]);
    assert_eq!((&muses[0].request["steps"], muses[0].order), (&serde_json::json!(8), PromptOrder::Random));
    assert_eq!(muses[1].every, Some(Period(std::time::Duration::from_secs(6 * 3600))));
    let wrong = [
        ("prompts = [\"a\"]", "`at` or `every` is missing"),
        ("every = \"1d\"", "`prompts` or `prompts_file` is missing"),
        ("every = \"1d\"\nat = [\"07:00\"]\nprompts = [\"a\"]", "cannot stand beside"),
        ("every = \"1d\"\nprompts = [\"a\"]\nprompts_file = \"/p\"", "cannot stand beside"),
        ("every = \"1d\"\nprompts = [\"a\"]\nid = \"x\"", "`id` cannot be given"),
        ("every = \"0s\"\nprompts = [\"a\"]", "not a period"),
        ("every = \"soon\"\nprompts = [\"a\"]", "not a period"),
        ("at = [\"7:00\"]\nprompts = [\"a\"]", "not a time of day"),
        ("at = [\"24:00\"]\nprompts = [\"a\"]", "not a time of day"),
        ("every = \"1d\"\nprompts = [\"a\"]\norder = \"backwards\"", "in turn"),
    ];
    for (keys, part) in wrong {
        check_refused(&format!("[[muse]]\n{keys}"), "c.toml", part);
    }
    let twice = "[[muse]]\nname = \"2\"\nevery = \"1d\"\nprompts = [\"a\"]\n";
    check_refused(&format!("{twice}{}", twice.replace("name = \"2\"\n", "")), "c.toml", "another of this name");
}

#[test]
fn files_of_tls_without_tls_are_an_error() {
    for key in ["ca_file", "cert_file", "key_file"] {
        check_refused(&format!("[mqtt]\n{key} = \"/x\""), &format!("c.toml:2: mqtt.{key}: mqtt://"), "mqtts://");
    }
    let text = "url = \"mqtts://x\"\nca_file = \"/a\"\ncert_file = \"/b\"\nkey_file = \"/c\"";
    assert!(parse(&format!("[mqtt]\n{text}")).is_ok());
}
