//! What systemd's unit relies on: readiness, the watchdog, reloads, what is in the log; and what a board is spared:
//! heat, memory and wear.

use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use diffused_tests::mqtt::{Broker, Harness, PATIENCE, Peer, Program, config, wait_until};
use diffused_tests::{copy_demo_bundle, sha256};

/// systemd's end of the notifications.
struct Systemd {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Systemd {
    fn listen(folder: &Path) -> Systemd {
        let path = folder.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Systemd { socket, path }
    }

    fn start(&self, folder: &Path, config: &str, more: &[(&str, PathBuf)]) -> Program {
        Program::start_with(folder, config, &[&[("NOTIFY_SOCKET", self.path.clone())], more].concat())
    }

    /// The next notification, if one comes within the socket's time.
    fn try_next(&self) -> Option<String> {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    /// All up to the first that has the line `wanted`.
    fn wait_for(&self, wanted: &str) -> Vec<String> {
        let mut seen = vec![];
        loop {
            seen.push(self.try_next().expect("a notification"));
            if seen.last().unwrap().lines().any(|line| line == wanted) {
                return seen;
            }
        }
    }
}

fn request(id: &str) -> Value {
    json!({"prompt": "a red house", "steps": 2, "seed": 3, "width": 64, "height": 64, "id": id})
}

pub(crate) fn it_is_ready_once_it_has_a_broker_and_tells_of_reloads() {
    let folder = tempfile::tempdir().unwrap();
    let mut broker = Broker::prepare(folder.path(), "");
    broker.start();
    let systemd = Systemd::listen(folder.path());
    let program = systemd.start(folder.path(), &config(folder.path(), broker.port), &[]);
    let start = systemd.wait_for("READY=1");
    assert!(start.iter().any(|text| text.starts_with("EXTEND_TIMEOUT_USEC=")), "{start:?}");
    let connected = format!("STATUS=connected to mqtt://127.0.0.1:{}", broker.port);
    assert!(start.last().unwrap().lines().any(|line| line == connected), "{start:?}");
    program.signal("HUP");
    let reload = systemd.wait_for("READY=1");
    assert!(reload.iter().any(|text| text.contains("RELOADING=1\nMONOTONIC_USEC=")), "{reload:?}");
    program.signal("TERM");
    systemd.wait_for("STOPPING=1");
}

pub(crate) fn a_board_without_a_broker_is_ready_too() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::prepare(folder.path(), "");
    let systemd = Systemd::listen(folder.path());
    let _program = systemd.start(folder.path(), &config(folder.path(), broker.port), &[]);
    let ready = systemd.wait_for("READY=1").pop().unwrap();
    assert!(ready.contains("\nSTATUS=no connection to the broker: "), "{ready}");
}

/// The worker hangs as it would on a card that does not answer: it opens a file of the model, and that never ends.
pub(crate) fn a_worker_that_hangs_is_not_covered_up_before_the_watchdog() {
    const TIMEOUT: Duration = Duration::from_millis(1500);
    let folder = tempfile::tempdir().unwrap();
    let mut broker = Broker::prepare(folder.path(), "");
    broker.start();
    let mut peer = Peer::connect(broker.port);
    let systemd = Systemd::listen(folder.path());
    let watchdog = ("WATCHDOG_USEC", PathBuf::from(TIMEOUT.as_micros().to_string()));
    let model = folder.path().join("model");
    copy_demo_bundle(&model);
    let text = format!("model = {model:?}\n{}", config(folder.path(), broker.port)).replace("= 5\n", "= 600\n");
    let _program = systemd.start(folder.path(), &text, &[watchdog]);
    peer.wait_online();
    // Idle, on a connection without a word for minutes, until the worker has closed the model.
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(8) {
        systemd.wait_for("WATCHDOG=1");
    }
    let pipe = model.join("bundle.json");
    fs::remove_file(&pipe).unwrap();
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    peer.publish("txt2img", request("a").to_string());
    peer.wait_state("a", "running");
    std::thread::sleep(2 * TIMEOUT);
    systemd.socket.set_nonblocking(true).unwrap();
    let pings = || std::iter::from_fn(|| systemd.try_next()).filter(|text| text.contains("WATCHDOG=1")).count();
    // Those that were sent before the time was over.
    pings();
    std::thread::sleep(2 * TIMEOUT);
    assert_eq!(pings(), 0);
    peer.publish("request/health", "");
    let health = peer.wait_for("an answer", |message| message.topic == "response/health").pop().unwrap().json();
    assert_eq!(health["data"]["busy"], true, "the loop goes on: {health}");
}

pub(crate) fn a_reload_takes_over_what_it_can_and_names_the_rest() {
    let mut harness = Harness::start();
    let path = harness.folder.path().join("config.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(
        &path,
        format!("queue_length = 7\nkeep_pictures = 1\nthreads = 1\noutput = \"waveshare-7.5-v2\"\n{text}"),
    )
    .unwrap();
    harness.peer.publish("request/reload", "");
    let mut messages = harness.peer.wait_for("response", |message| message.topic == "response/reload");
    let info = messages.iter().rfind(|message| message.topic == "info").expect("what has changed for clients").json();
    assert_eq!(info["limits"]["queue"], 7);
    let answer = messages.pop().unwrap().json();
    assert_eq!(answer["data"], json!({"changed": true, "restart": ["threads"]}), "{answer}");
    let pictures = || fs::read_dir(harness.folder.path().join("state/pictures")).unwrap().flatten();
    let kept = || pictures().filter(|entry| !entry.file_name().to_string_lossy().starts_with('.')).count();
    let shown = harness.peer.paint(&request("a"));
    assert!(shown.iter().any(|message| message.topic == "job/a/output/0"), "{shown:#?}");
    harness.peer.paint(&request("b"));
    // The image and its display's of the latest job.
    wait_until("the older job's images are gone", || kept() == 2);
    fs::write(&path, text).unwrap();
    harness.program.signal("HUP");
    wait_until("it is in use", || harness.program.log().contains("the changed configuration is in use"));
    let silent = harness.peer.paint(&request("c"));
    assert!(silent.iter().all(|message| message.topic != "job/c/output/0"), "{silent:#?}");
}

pub(crate) fn heat_makes_a_job_pause_and_changes_nothing_else() {
    let heat = tempfile::tempdir().unwrap();
    let file = heat.path().join("temp");
    let set = |degrees: u32| fs::write(&file, format!("{degrees}000\n")).unwrap();
    set(50);
    let keys = format!("max_temperature = 70\ntemperature_file = {file:?}\n");
    let mut harness = Harness::start_configured("", &keys, "");
    let image = |messages: &[diffused_tests::mqtt::Delivery], id: &str| {
        let topic = format!("job/{id}/image/0");
        sha256(&messages.iter().find(|message| message.topic == topic).expect("an image").payload)
    };
    let cool = harness.peer.paint(&request("cool"));
    set(71);
    harness.peer.publish("txt2img", request("hot").to_string());
    let pause =
        harness.peer.wait_for("a pause", |message| message.topic == "health" && message.json()["cooling"] == true);
    let health = pause.last().unwrap().json();
    assert_eq!(health["temperature"], 71.0);
    assert!(health["problems"][0].as_str().unwrap().contains("max_temperature"), "{health}");
    // Below the limit, but not well below.
    set(68);
    std::thread::sleep(Duration::from_millis(1500));
    assert!(harness.peer.wait_briefly().iter().all(|message| message.topic != "job/hot/image/0"));
    set(65);
    let hot = harness.peer.wait_state("hot", "done");
    let result = hot.iter().find(|message| message.topic == "job/hot/result").unwrap().json();
    assert!(result["timings"]["cooling"].as_f64() >= Some(1.5), "{result}");
    assert!(hot.iter().any(|message| message.topic == "health" && message.json()["cooling"] == false), "{hot:#?}");
    assert_eq!(image(&cool, "cool"), image(&hot, "hot"));
}

/// At every level, whatever carries MQTT.
pub(crate) fn no_password_is_in_the_log_and_no_prompt_below_debug() {
    const PASSWORD: &str = "Geheimnis-4711";
    for (transport, level) in [("mqtt", "trace"), ("ws", "trace"), ("mqtt", "")] {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut broker = Broker::prepare(folder.path(), &format!("listener {port} 127.0.0.1\nprotocol websockets"));
        broker.start();
        let port = if transport == "ws" { port } else { broker.port };
        let password = folder.path().join("password");
        fs::write(&password, PASSWORD).unwrap();
        let text = config(folder.path(), port).replace("mqtt://", &format!("{transport}://"));
        let text = format!("{text}username = \"frame\"\npassword_file = {password:?}\n");
        let program = Program::start_with(folder.path(), &text, &[("DIFFUSED_LOG", level.into())]);
        wait_until("it is connected", || program.log().contains("connected"));
        let mut peer = Peer::connect(broker.port);
        peer.wait_online();
        peer.paint(&json!({"prompt": "a secret garden", "steps": 1, "id": "a", "width": 64, "height": 64}));
        let log = program.log();
        let bytes: Vec<u8> = PASSWORD.bytes().collect();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        for written in [PASSWORD.to_owned(), hex, format!("{bytes:?}").trim_matches(['[', ']']).to_owned()] {
            assert!(!log.contains(&written), "{transport}: {written}");
        }
        assert_eq!(log.contains("secret garden"), level == "trace", "{transport} {level}");
        if level.is_empty() {
            let line = log.lines().find(|line| line.contains("done id=\"a\"")).expect("a line of the job");
            let keys = ["images=1", "seconds=", "unet=", "seconds_per_step=", "peak_mib=", "written_kib="];
            keys.iter().for_each(|key| assert!(line.contains(key), "{key}: {line}"));
        }
    }
}

/// Of the state folder, on a file system that is none in memory. What a job writes beside its image is little.
pub(crate) fn a_job_writes_little_to_the_card() {
    const JOBS: u64 = 8;
    let mut harness = Harness::start();
    harness.peer.paint(&request("first"));
    let before = harness.program.written();
    let mut images = 0;
    for job in 0..JOBS {
        let id = format!("j{job}");
        let messages = harness.peer.paint(&json!({"prompt": "a red house", "steps": 2, "id": id}));
        images += messages.iter().find(|m| m.topic == format!("job/{id}/image/0")).unwrap().payload.len() as u64;
    }
    let (each, image) = ((harness.program.written() - before) / JOBS, images / JOBS);
    println!("a job writes {each} bytes for an image of {image}");
    assert!(each < image + (48 << 10), "{each} bytes for an image of {image}");
}

/// A minute after its last job, as after its start.
pub(crate) fn an_idle_service_holds_little_memory() {
    let mut harness = Harness::start();
    let start = Instant::now();
    for id in ["a", "b"] {
        wait_until("it holds at most 15 MiB", || harness.program.memory().1 <= 15);
        println!("{} MiB after {:.0} s", harness.program.memory().1, start.elapsed().as_secs_f64());
        harness.peer.paint(&request(id));
    }
    wait_until("it holds at most 15 MiB", || harness.program.memory().1 <= 15);
}
