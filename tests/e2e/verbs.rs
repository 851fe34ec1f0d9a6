//! The client verbs, as people and scripts run them: what they print and write, and how they end.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use diffused_tests::mqtt::{Harness, Program, config, wait_until};
use diffused_tests::{program, sha256};

/// How a verb ended.
#[derive(Debug)]
struct Ended {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ended {
    fn lines(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{self:?}"))).collect()
    }

    fn check(&self, status: i32, parts: &[&str]) {
        assert_eq!(self.status, Some(status), "{self:?}");
        let said = format!("{}{}", self.stdout, self.stderr);
        assert!(parts.iter().all(|part| said.contains(part)), "{parts:?}: {self:?}");
    }
}

/// A verb that runs, told which device and broker are meant.
fn start(port: u16, folder: &Path, words: &[&str]) -> Child {
    let mut command = Command::new(program());
    command.args(words).args(["--device", "test", "--broker", &format!("mqtt://127.0.0.1:{port}")]);
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn wait(child: Child) -> Ended {
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { status: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn verb(harness: &Harness, words: &[&str]) -> Ended {
    wait(start(harness.broker.port, harness.folder.path(), words))
}

pub(crate) fn submit_waits_and_writes_the_images() {
    let harness = Harness::start();
    let file = |name: &str| fs::read(harness.folder.path().join(name)).unwrap();
    let words = ["submit", "a red house", "--seed", "7", "--steps", "2", "--id", "house", "-o", "house.png", "--json"];
    let ended = verb(&harness, &[&words[..], &["--preview", "preview.jpg"]].concat());
    ended.check(0, &[]);
    assert!(file("preview.jpg").starts_with(b"\xff\xd8"));
    let lines = ended.lines();
    assert_eq!((&lines[0]["event"], &lines[0]["state"]), (&json!("state"), &json!("queued")), "{ended:?}");
    let done = lines.last().unwrap();
    assert_eq!((&done["event"], &done["paths"], &done["id"]), (&json!("done"), &json!(["house.png"]), &json!("house")));
    assert_eq!(done["images"][0]["sha256"], sha256(&file("house.png")));

    fs::create_dir(harness.folder.path().join("out")).unwrap();
    let words = ["submit", "a red house", "--seed", "7", "--steps", "2", "--n-iter", "2", "-o", "out"];
    let ended = verb(&harness, &[&words[..], &["--format", "jpeg"]].concat());
    ended.check(0, &["out/a-red-house-7.jpg  (seed 7)\n", "out/a-red-house-8.jpg  (seed 8)\n2 images in "]);
    assert!(file("out/a-red-house-8.jpg").starts_with(b"\xff\xd8"));
    assert_eq!(ended.stderr, "");

    let words =
        ["submit", "a red house at sunset", "--steps", "2", "--strength", "0.9", "--negative-prompt", "a dragon"];
    let ended = verb(&harness, &[&words[..], &["--init-image", "house.png", "-o", "sunset.png"]].concat());
    ended.check(0, &["sunset.png  (seed "]);
    assert_eq!(ended.stderr, "diffused: warning: negative_prompt: the model does not know the words: dragon\n");
    assert!(file("sunset.png").starts_with(b"\x89PNG"));
}

pub(crate) fn the_same_submission_again_fetches_the_image() {
    let mut harness = Harness::start();
    let words = ["submit", "a red house", "--steps", "2", "--id", "house"];
    verb(&harness, &[&words[..], &["--no-wait"]].concat()).check(0, &["house\n"]);
    harness.peer.wait_state("house", "done");
    let ended = verb(&harness, &words);
    ended.check(0, &["a-red-house-"]);
    assert_eq!(ended.stderr, "");
    assert_eq!(harness.program.log().matches("running id=\"house\"").count(), 1);
}

pub(crate) fn a_smaller_copy_is_named_after_its_format() {
    let harness = Harness::start_with("max_packet_size 9000");
    let ended = verb(&harness, &["submit", "a red house", "--seed", "7", "--steps", "2", "-o", "house.png"]);
    ended.check(0, &["house.jpg  (seed 7, ", " s, a JPEG: the broker does not take the PNG)"]);
    let file = |name: &str| fs::read(harness.folder.path().join(name));
    assert!(file("house.jpg").unwrap().starts_with(b"\xff\xd8"));
    assert!(file("house.png").is_err());
}

pub(crate) fn what_cannot_be_painted_is_told_with_its_reason() {
    let harness = Harness::start();
    let rejected = verb(&harness, &["submit", "a", "--width", "100"]);
    rejected.check(1, &["rejected: width: 100 is not allowed", "96 and 104"]);
    let rejected = verb(&harness, &["submit", "a", "--sampler", "lcm", "--steps", "60", "--json"]);
    rejected.check(1, &["was rejected: steps"]);
    let lines = rejected.lines();
    assert_eq!((&lines[0]["state"], &lines[0]["error"]["field"]), (&json!("rejected"), &json!("steps")));
    assert_eq!(lines.last().unwrap()["event"], "error");
    verb(&harness, &["submit", "a", "--init-image", "none.png"]).check(2, &["--init-image: none.png"]);
    verb(&harness, &["submit", "a", "-o", "a.gif"]).check(2, &["--output: a.gif"]);
    let ended = verb(&harness, &["submit", "a", "-o", "cat.png", "--format", "jpeg"]);
    ended.check(2, &["--format: the output cat.png ends in .png"]);
    verb(&harness, &["submit", "a", "-o", "missing/"]).check(2, &["there is no folder `missing/`; create it"]);
    verb(&harness, &["submit", "a", "--id", "a/b"]).check(2, &["--id"]);
    verb(&harness, &["cancel"]).check(2, &["--all"]);
}

pub(crate) fn a_queue_is_listed_paused_and_cancelled() {
    let harness = Harness::start();
    verb(&harness, &["list"]).check(0, &["no jobs"]);
    let paused = verb(&harness, &["pause"]);
    let broker = format!("mqtt://127.0.0.1:{}", harness.broker.port);
    paused.check(0, &[&format!("`diffused resume --broker {broker} --device test` goes on\nno jobs\n")]);
    assert!(paused.stdout.starts_with("paused: "), "{paused:?}");
    for id in ["a", "b", "c"] {
        let ended = verb(&harness, &["submit", "a cat", "--id", id, "--no-wait"]);
        ended.check(0, &[]);
        assert_eq!(ended.stdout, format!("{id}\n"));
    }
    verb(&harness, &["list"]).check(0, &["paused", "a  waiting, 0 before it", "c  waiting, 2 before it"]);
    verb(&harness, &["move", "c"]).check(0, &["paused", "c  waiting, 0 before it", "b  waiting, 2 before it"]);
    let last = verb(&harness, &["move", "c", "--to", "99"]);
    last.check(0, &["moved: 2 jobs that wait are before `c`: no more than 2 others wait\n", "c  waiting, 2 before it"]);
    verb(&harness, &["move", "x"]).check(1, &["there is no job `x` that waits"]);
    verb(&harness, &["cancel", "b"]).check(0, &["cancelled: b"]);
    verb(&harness, &["cancel", "b"]).check(1, &["there is no job `b`"]);
    let listed = verb(&harness, &["list", "--json"]).lines();
    assert_eq!(listed, [json!({"running": null, "waiting": ["a", "c"], "paused": true})]);
    verb(&harness, &["cancel", "--all"]).check(0, &["cancelled: a, c"]);
    verb(&harness, &["cancel", "--all"]).check(0, &["no job to cancel"]);
    verb(&harness, &["resume"]).check(0, &["resumed\nno jobs\n"]);
}

pub(crate) fn a_job_is_watched_to_its_end() {
    let harness = Harness::start();
    let folder = harness.folder.path().to_owned();
    verb(&harness, &["watch", "none"]).check(1, &["no job `none`", "it has ended, or there never was one of this id"]);
    verb(&harness, &["pause"]).check(0, &[]);
    verb(&harness, &["submit", "a cat", "--steps", "2", "--id", "a", "--no-wait"]).check(0, &[]);
    let mut watch = start(harness.broker.port, &folder, &["watch", "a", "--json"]);
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines().map(Result::unwrap);
    let first: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
    assert_eq!(first, json!({"event": "state", "id": "a", "state": "queued", "position": 0}));
    harness.peer.publish("request/resume", "");
    let lines: Vec<Value> = lines.map(|line| serde_json::from_str(&line).unwrap()).collect();
    let events: Vec<&str> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert!(["state", "progress", "result"].iter().all(|event| events.contains(event)), "{lines:?}");
    assert_eq!(lines.last().unwrap()["state"], "done");
    wait(watch).check(0, &[]);

    harness.peer.publish("request/pause", "");
    verb(&harness, &["submit", "a cat", "--id", "b", "--no-wait"]).check(0, &[]);
    let mut watch = start(harness.broker.port, &folder, &["watch", "b"]);
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "b  queued, next");
    harness.peer.publish("cancel", r#"{"id": "b"}"#);
    assert!(lines.last().unwrap().starts_with("b  cancelled: "));
    wait(watch).check(1, &["the job `b` was cancelled: "]);
}

pub(crate) fn a_device_is_described() {
    let harness = Harness::start();
    verb(&harness, &["status"])
        .check(0, &["test       online", "demo (sd1, int8), 128 x 128 in ", "disk  ", "no jobs"]);
    let status = verb(&harness, &["status", "--json"]).lines().remove(0);
    assert_eq!((&status["status"], &status["info"]["schema"]), (&json!("online"), &json!(1)));
    assert_eq!(status["online"], json!(["test"]));
    assert!(status["health"]["rss"].as_u64() > Some(1 << 20), "{status}");
}

pub(crate) fn who_does_not_answer_is_named() {
    let mut harness = Harness::start();
    let other = ["list", "--device", "cellar"];
    let mut command = Command::new(program());
    command.args(other).args(["--timeout", "1", "--broker", &format!("mqtt://127.0.0.1:{}", harness.broker.port)]);
    let began = Instant::now();
    let output = command.output().unwrap();
    assert!(began.elapsed() < Duration::from_millis(1800), "{:?}", began.elapsed());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("`cellar` is not known to the broker") && said.contains(": test; name one with --device"),
        "{said}"
    );
    assert_eq!(output.status.code(), Some(1));
    harness.program.signal("TERM");
    harness.program.wait();
    for words in [&["list"][..], &["submit", "a"], &["watch"], &["status"], &["cancel", "--all"]] {
        verb(&harness, words).check(1, &["the device `test` is offline", "online at mqtt://127.0.0.1:", ": no device"]);
    }
    harness.broker.kill();
    verb(&harness, &["list"]).check(1, &["no connection to the broker mqtt://127.0.0.1", "refused"]);
}

pub(crate) fn a_submission_survives_a_broker_that_restarts() {
    let mut harness = Harness::start();
    let words = ["submit", "a cat", "--seed", "7", "--steps", "150", "--id", "a", "-o", "cat.png"];
    let child = start(harness.broker.port, harness.folder.path(), &words);
    harness.peer.wait_for("progress", |message| message.topic == "job/a/progress");
    harness.broker.kill();
    wait_until("the connection is missed", || harness.program.log().contains("no connection to the broker"));
    // Several attempts to connect fail meanwhile.
    std::thread::sleep(Duration::from_secs(4));
    harness.broker.start();
    let ended = wait(child);
    ended.check(0, &["cat.png  (seed 7, ", "is gone; waiting for it to come back; ^C leaves the job"]);
    let told = |text: &str| ended.stderr.matches(text).count();
    let counts = (told("the connection to the broker is gone"), told("the connection to the broker is back"));
    assert_eq!(counts, (1, 1), "{ended:?}");
    assert!(told("has gone offline") <= 1, "{ended:?}");
    assert!(fs::read(harness.folder.path().join("cat.png")).unwrap().starts_with(b"\x89PNG"));
}

/// The client is away when the broker, which has forgotten everything, gets the images: it asks again.
pub(crate) fn a_submission_that_missed_its_images_gets_them_again() {
    let mut harness = Harness::start();
    let words = ["submit", "a cat", "--seed", "7", "--steps", "60", "--id", "a", "-o", "cat.png"];
    let child = start(harness.broker.port, harness.folder.path(), &words);
    harness.peer.wait_for("progress", |message| message.topic == "job/a/progress");
    let signal = |name: &str| {
        assert!(Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap().success());
    };
    signal("STOP");
    harness.broker.kill();
    wait_until("the job is done meanwhile", || harness.program.log().contains("done id=\"a\""));
    harness.broker.start();
    // Whether the test's own client is back by then is chance; the program's log is not.
    let result = "delivered topic=\"diffused/test/job/a/result\"";
    wait_until("the job's messages have left", || harness.program.log().contains(result));
    signal("CONT");
    wait(child).check(0, &["cat.png  (seed 7, "]);
    assert_eq!(harness.program.log().matches("running id=\"a\"").count(), 1);
}

pub(crate) fn a_submission_survives_a_device_that_is_killed() {
    let mut harness = Harness::start();
    let words = ["submit", "a cat", "--seed", "7", "--steps", "150", "--id", "a", "-o", "cat.png"];
    let child = start(harness.broker.port, harness.folder.path(), &words);
    harness.peer.wait_for("progress", |message| message.topic == "job/a/progress");
    harness.program.kill();
    harness.peer.wait_for("offline", |message| message.topic == "status" && message.payload == "offline");
    harness.program = Program::start(harness.folder.path(), &config(harness.folder.path(), harness.broker.port));
    wait(child).check(0, &["cat.png  (seed 7, ", "the device has gone offline; waiting for it to come back"]);
}

pub(crate) fn an_interrupted_submission_leaves_the_job() {
    let mut harness = Harness::start();
    let words = ["submit", "a cat", "--steps", "30", "--id", "a"];
    let mut child = start(harness.broker.port, harness.folder.path(), &words);
    harness.peer.wait_state("a", "running");
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(
        said.contains("the job goes on")
            && said.contains("diffused cancel a --broker mqtt://127.0.0.1:")
            && said.contains("--device test"),
        "{said}"
    );
    harness.peer.wait_state("a", "done");
}
