//! `diffused http` as strangers meet it: raw HTTP, good and hostile, in front of a real broker and a real device.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use diffused_tests::mqtt::{Delivery, Harness, PATIENCE, wait_until};
use diffused_tests::{program, sha256};

/// The process that answers. Killed when dropped.
struct WebServer {
    child: Child,
    address: String,
    log: NamedTempFile,
}

impl Drop for WebServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer: status, headers in lower case, body.
#[derive(Debug)]
struct Answered {
    status: u16,
    headers: String,
    body: String,
}

impl Answered {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }

    /// Checks an error: its status, and words that it has.
    fn check(&self, status: u16, words: &str) {
        let error = self.json();
        assert!(
            self.status == status && error["detail"].as_str().unwrap().contains(words),
            "{status} {words}: {self:?}"
        );
        assert!(error["error"].is_string() && error["errors"] == error["detail"], "{self:?}");
    }
}

impl WebServer {
    fn start(harness: &Harness, more: &[&str]) -> WebServer {
        let broker = format!("mqtt://127.0.0.1:{}", harness.broker.port);
        let mut command = Command::new(program());
        command.args(["http", "--listen", "127.0.0.1:0", "--json", "--broker", &broker]).args(more);
        if !more.contains(&"--device") {
            command.args(["--device", "test"]);
        }
        let log = NamedTempFile::new().unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log.reopen().unwrap());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let told: Value = serde_json::from_str(&line).unwrap();
        let server = WebServer { child, address: told["address"].as_str().unwrap().to_owned(), log };
        let is_there =
            |server: &WebServer| server.send(b"GET /internal/ping HTTP/1.1\r\nHost: localhost\r\n\r\n").status != 0;
        assert!(is_there(&server));
        server
    }

    /// The same, once it knows the device.
    fn ready(harness: &Harness) -> WebServer {
        let server = WebServer::start(harness, &[]);
        wait_until("it knows the device", || server.get("samplers").status == 200);
        server
    }

    /// Waits until the log has these words.
    fn wait_logged(&self, words: &str) {
        wait_until(words, || std::fs::read_to_string(&self.log).unwrap().contains(words));
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends bytes and reads up to the end of the connection; the status is 0 where nothing came.
    fn send(&self, bytes: &[u8]) -> Answered {
        let mut stream = self.connect();
        // The other side may have had enough.
        let _ = stream.write_all(bytes);
        answered(stream)
    }

    fn request(&self, method: &str, path: &str, headers: &str, body: &str) -> Answered {
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/sdapi/v1/{path}") };
        let (address, length) = (&self.address, body.len());
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\n{headers}\r\n");
        self.send(format!("{head}{body}").as_bytes())
    }

    fn get(&self, path: &str) -> Answered {
        self.request("GET", path, "", "")
    }

    fn post(&self, path: &str, body: &Value) -> Answered {
        self.request("POST", path, "Content-Type: application/json\r\n", &body.to_string())
    }

    /// Asks for pictures and gives them with `info`.
    fn paint(&self, path: &str, body: &Value) -> (Vec<Vec<u8>>, Value) {
        let answer = self.post(path, body);
        assert_eq!(answer.status, 200, "{answer:?}");
        let answer = answer.json();
        let images = answer["images"].as_array().unwrap().iter();
        let images = images.map(|image| STANDARD.decode(image.as_str().unwrap()).unwrap()).collect();
        (images, serde_json::from_str(answer["info"].as_str().unwrap()).unwrap())
    }
}

fn answered(mut stream: TcpStream) -> Answered {
    let mut bytes = vec![];
    // A connection that is reset has sent what it had.
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8(bytes).unwrap();
    let (headers, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = headers.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Answered { status, headers: headers.to_lowercase(), body: body.to_owned() }
}

fn house(seed: u64, steps: usize) -> Value {
    json!({"prompt": "a red house", "seed": seed, "steps": steps, "width": 64, "height": 64, "sampler_name": "Euler a"})
}

pub(crate) fn pictures_are_painted_in_the_web_apis_words() {
    let mut harness = Harness::start();
    let server = WebServer::ready(&harness);
    let idle = server.get("progress").json();
    assert_eq!((&idle["progress"], &idle["state"]["job_count"]), (&json!(0.0), &json!(0)));
    let mut request = house(7, 2);
    request["batch_size"] = json!(2);
    request["tiling"] = json!(true);
    let (images, info) = server.paint("txt2img", &request);
    assert_eq!((images.len(), &info["all_seeds"], &info["sampler_name"]), (2, &json!([7, 8]), &json!("Euler a")));
    assert_eq!(info["warnings"], json!(["`tiling` is not known here and was left out"]));
    assert!(info["infotexts"][1].as_str().unwrap().contains("Seed: 8, Size: 64x64"), "{info}");
    // The same bytes as over MQTT.
    let mut same = house(8, 2);
    same["id"] = json!("same");
    let shown = harness.peer.paint(&same);
    let image = shown.iter().find(|message| message.topic == "job/same/image/0").unwrap();
    assert_eq!(sha256(&images[1]), sha256(&image.payload));

    let image = STANDARD.encode(&images[0]);
    let read = server.post("png-info", &json!({"image": image})).json();
    assert_eq!((&read["info"], &read["parameters"]["Seed"]), (&info["infotexts"][0], &json!("7")));
    let request = json!({"prompt": "a cat", "init_images": [image], "steps": 4, "seed": 3, "denoising_strength": 0.5});
    let (images, info) = server.paint("img2img", &request);
    assert_eq!((images.len(), &info["denoising_strength"]), (1, &json!(0.5)));
    let answer = server.post("img2img", &request).json();
    assert_eq!(answer["parameters"]["init_images"], Value::Null);

    let mut quiet = house(7, 1);
    quiet["send_images"] = json!(false);
    assert_eq!(server.paint("txt2img", &quiet).0.len(), 0);
}

pub(crate) fn what_the_device_is_is_listed_and_settings_are_obeyed() {
    let harness = Harness::start();
    let server = WebServer::ready(&harness);
    let list = |path: &str| server.get(path).json();
    let named = |list: &Value, name: &str| list.as_array().unwrap().iter().any(|item| item["name"] == name);
    assert!(named(&list("samplers"), "DPM++ 2M") && named(&list("schedulers"), "karras"));
    assert!(named(&list("upscalers"), "None") && named(&list("latent-upscale-modes"), "Latent (bicubic)"));
    for empty in ["sd-vae", "loras", "hypernetworks", "prompt-styles"] {
        assert_eq!(list(empty), json!([]), "{empty}");
    }
    assert!(list("memory")["ram"]["used"].as_u64().unwrap() > 1 << 20);
    let model = list("sd-models")[0]["title"].clone();
    let mut options = list("options");
    assert_eq!(options["sd_model_checkpoint"], model);

    server.post("options", &json!({"sd_model_checkpoint": "another"})).check(422, "is not on this device");
    let refused = server.post("options", &json!({"samples_format": "jpg", "eta_ddim": 0.5}));
    refused.check(422, "eta_ddim: is no setting of this device");
    assert_eq!(list("options"), options, "nothing was changed");
    options["samples_format"] = json!("jpg");
    options["CLIP_stop_at_last_layers"] = json!(1);
    assert_eq!(server.post("options", &options).status, 200);
    let (images, _) = server.paint("txt2img", &house(1, 1));
    assert!(images[0].starts_with(b"\xff\xd8"));
}

pub(crate) fn a_job_is_followed_and_interrupted() {
    let harness = Harness::start();
    let server = WebServer::ready(&harness);
    thread::scope(|scope| {
        let painting = scope.spawn(|| server.paint("txt2img", &house(1, 1000)));
        let mut last = Value::Null;
        wait_until("there is progress with an image", || {
            last = server.get("progress").json();
            last["progress"].as_f64().unwrap() > 0.02 && last["current_image"].is_string()
        });
        let image = STANDARD.decode(last["current_image"].as_str().unwrap()).unwrap();
        assert!(image.starts_with(b"\xff\xd8"));
        assert_eq!((&last["state"]["sampling_steps"], &last["state"]["job_count"]), (&json!(1000), &json!(1)));
        assert!(last["eta_relative"].as_f64().unwrap() > 0.0, "{last}");
        assert_eq!(server.get("progress?skip_current_image=true").json()["current_image"], Value::Null);
        assert_eq!(server.post("interrupt", &json!({})).status, 200);
        let (images, info) = painting.join().unwrap();
        assert_eq!((images.len(), &info["seed"], &info["all_seeds"]), (0, &json!(1), &json!([1])));
        assert!(info["warnings"][0].as_str().unwrap().contains("cancelled"), "{info}");
    });
    assert_eq!(server.get("progress").json()["state"]["job_count"], 0);
}

pub(crate) fn two_clients_at_once_get_their_own_pictures() {
    let harness = Harness::start();
    let server = WebServer::ready(&harness);
    let alone = [1, 2].map(|seed| sha256(&server.paint("txt2img", &house(seed, 2)).0[0]));
    let together = thread::scope(|scope| {
        let clients = [1, 2, 1, 2].map(|seed| {
            let server = &server;
            scope.spawn(move || sha256(&server.paint("txt2img", &house(seed, 2)).0[0]))
        });
        clients.map(|client| client.join().unwrap())
    });
    assert_eq!(together, [0, 1, 0, 1].map(|client| alone[client].clone()));
}

pub(crate) fn what_strangers_send_is_answered_and_hurts_nobody() {
    let harness = Harness::start();
    let server = WebServer::ready(&harness);
    let mut slow = server.connect();
    slow.write_all(b"GET /sdapi/v1/options HTTP/1.1\r\nHost: localhost\r\nX-Slow: ").unwrap();
    let began = Instant::now();

    let mut wrong = house(1, 1);
    wrong["width"] = json!(100);
    let refused = server.post("txt2img", &wrong);
    refused.check(422, "width: 100 is not allowed");
    assert_eq!(refused.json()["field"], "width");
    server.post("txt2img", &json!({"prompt": "a", "sampler_name": "magic"})).check(422, "sampler_name");
    server
        .post("txt2img", &json!({"prompt": "a", "n_iter": 9, "batch_size": 9}))
        .check(422, "batch_size: 9 times n_iter = 9");
    let enlarged = json!({"prompt": "a", "enable_hr": true, "hr_upscaler": "Model", "hr_scale": 1.5});
    server.post("txt2img", &enlarged).check(422, "hr_upscaler: Model");
    let twice = "{\"prompt\": \"a\", \"steps\": 1, \"steps\": 2}";
    server.request("POST", "txt2img", "", twice).check(400, "the key \"steps\" is there twice");
    server.post("img2img", &json!({"prompt": "a"})).check(422, "init_images");
    server.post("txt2img", &json!({"prompt": "a", "script_name": "xyz"})).check(422, "no scripts");
    server.request("POST", "txt2img", "", "{\"prompt\": ").check(400, "is no JSON object");
    server.request("POST", "txt2img", "", &"[".repeat(100_000)).check(400, "is no JSON object");
    server.get("txt2img").check(405, "Not Allowed");
    server.get("../options").check(404, "Not Found");
    server.post("interrogate", &json!({})).check(501, "nothing of this kind");
    server.request("GET", "options", "Origin: https://evil.example\r\n", "").check(403, "Origin");
    let head = "POST /sdapi/v1/txt2img HTTP/1.1\r\nHost: localhost\r\n";
    server.send(b"GET /sdapi/v1/options HTTP/1.1\r\nHost: evil.example\r\n\r\n").check(403, "evil.example");
    server.send(format!("{head}Content-Length: 99999999999\r\n\r\n").as_bytes()).check(413, "up to 8388608 bytes");
    let chunk = format!("100000\r\n{}\r\n", "x".repeat(0x10_0000));
    let chunks = format!("{head}Transfer-Encoding: chunked\r\n\r\n{}", chunk.repeat(9));
    server.send(chunks.as_bytes()).check(413, "up to 8388608 bytes");
    for garbage in
        [&b"\0\0\0\0\r\n\r\n"[..], b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n"]
    {
        assert!([0, 400].contains(&server.send(garbage).status));
    }
    let large = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    assert!([0, 431].contains(&server.send(large.as_bytes()).status));
    server.wait_logged("431");
    // What ends in the middle of its body.
    server.connect().write_all(format!("{head}Content-Length: 100\r\n\r\n{{").as_bytes()).unwrap();
    // More connections than are served at a time wait for one of them to end.
    let idle: Vec<TcpStream> = (0..70).map(|_| server.connect()).collect();
    assert_eq!(answered(slow).status, 0, "it is hung up on");
    let waited = began.elapsed();
    assert!((Duration::from_secs(9)..Duration::from_secs(60)).contains(&waited), "{waited:?}");
    assert_eq!(server.get("options").status, 200);
    drop(idle);
    assert_eq!(server.paint("txt2img", &house(1, 1)).0.len(), 1);
}

pub(crate) fn elsewhere_a_token_is_needed() {
    let harness = Harness::start();
    let folder = harness.folder.path();
    let (status, _, error) = diffused_tests::run(&["http", "--listen", "0.0.0.0:0", "--device", "test"], folder);
    assert!(status == Some(2) && error.contains("--token-file"), "{error}");
    std::fs::write(folder.join("token"), "short\n").unwrap();
    let words = ["http", "--listen", "127.0.0.1:0", "--token-file", "token"];
    let (status, _, error) = diffused_tests::run(&words, folder);
    assert!(status == Some(2) && error.contains("at least 16"), "{error}");

    let token = folder.join("token");
    std::fs::write(&token, "0123456789abcdef\n").unwrap();
    let server = WebServer::start(&harness, &["--token-file", token.to_str().unwrap()]);
    let with = |header: &str| server.request("GET", "/internal/ping", header, "");
    let refused = with("");
    refused.check(401, "token");
    assert!(refused.headers.contains("www-authenticate: basic"), "{refused:?}");
    let basic = |login: &str| format!("Authorization: Basic {}\r\n", STANDARD.encode(login));
    with(&basic("user:0123456789abcdeX")).check(401, "token");
    assert_eq!(with(&basic("user:0123456789abcdef")).status, 200);
    assert_eq!(with("Authorization: Bearer 0123456789abcdef\r\n").status, 200);
    let other = "GET /internal/ping HTTP/1.1\r\nHost: board.local\r\nAuthorization: Bearer 0123456789abcdef\r\n\r\n";
    assert_eq!(server.send(other.as_bytes()).status, 200);
}

pub(crate) fn a_client_that_hangs_up_leaves_its_job() {
    let mut harness = Harness::start();
    let server = WebServer::ready(&harness);
    let body = house(1, 1000).to_string();
    let mut stream = server.connect();
    let head = format!("POST /sdapi/v1/txt2img HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    let is_state = |topic: &str| topic.ends_with("/state");
    wait_until("it runs", || server.get("progress").json()["textinfo"] == "running");
    drop(stream);
    assert_eq!(server.get("progress").json()["state"]["job_count"], 1);
    harness.peer.wait_for("done", |message| is_state(&message.topic) && message.json()["state"] == "done");
    wait_until("it is known to be done", || server.get("progress").json()["state"]["job_count"] == 0);
}

pub(crate) fn a_broker_or_device_that_is_gone_is_told_and_found_again() {
    let mut harness = Harness::start();
    let server = WebServer::ready(&harness);
    let began = Instant::now();
    thread::scope(|scope| {
        let painting = scope.spawn(|| server.paint("txt2img", &house(1, 1000)).0.len());
        wait_until("it is painted", || server.get("progress").json()["progress"].as_f64().unwrap() > 0.02);
        harness.broker.kill();
        wait_until("that is noticed", || server.get("options").status == 503);
        let refused = server.post("txt2img", &house(1, 1));
        refused.check(503, "no connection to the broker: ");
        assert!(refused.headers.contains("retry-after: "), "{refused:?}");
        server.post("interrupt", &json!({})).check(503, "no connection to the broker");
        harness.broker.start();
        assert_eq!(painting.join().unwrap(), 1, "the client that waits gets its picture");
    });
    assert!(began.elapsed() < PATIENCE);
    harness.program.signal("TERM");
    harness.program.wait();
    wait_until("that is noticed", || server.post("txt2img", &house(1, 1)).status == 503);
    server.post("txt2img", &house(1, 1)).check(503, "the device `test` is offline");
    harness.restart();
    wait_until("it is back", || server.get("memory").status == 200);
    assert_eq!(server.paint("txt2img", &house(1, 1)).0.len(), 1);
}

pub(crate) fn whether_the_device_is_there_is_in_the_log() {
    let mut harness = Harness::start();
    let server = WebServer::start(&harness, &[]);
    server.wait_logged("the device `test` is online");
    let other = WebServer::start(&harness, &["--device", "tset"]);
    other.wait_logged("the device `tset` is not known to the broker; online at ");
    other.wait_logged(": test; name one with --device");
    harness.program.signal("TERM");
    harness.program.wait();
    server.wait_logged("the device `test` is offline");
    let late = WebServer::start(&harness, &[]);
    late.wait_logged("the device `test` is offline");
    harness.restart();
    late.wait_logged("the device `test` is online");
    harness.broker.kill();
    late.wait_logged("no connection to the broker");
}

pub(crate) fn a_client_that_waits_is_told_of_the_end() {
    let harness = Harness::start();
    for signal in ["INT", "TERM"] {
        let mut server = WebServer::ready(&harness);
        thread::scope(|scope| {
            let painting = scope.spawn(|| server.post("txt2img", &house(1, 1000)));
            wait_until("it runs", || server.get("progress").json()["textinfo"] == "running");
            let pid = server.child.id().to_string();
            assert!(Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap().success());
            let told = painting.join().unwrap();
            told.check(503, "`diffused http` was stopped; the job `");
            told.check(503, "goes on at the device `test`: `diffused watch ");
        });
        assert!(server.child.wait().unwrap().success());
        // Its job goes on; the next is to begin at once.
        harness.peer.publish("cancel", "{\"all\": true}");
    }
}

pub(crate) fn what_a_silent_device_did_not_take_in_time_is_not_painted_later() {
    let mut harness = Harness::start();
    let server = WebServer::start(&harness, &["--timeout", "1"]);
    wait_until("it knows the device", || server.get("samplers").status == 200);
    harness.program.signal("STOP");
    server.post("txt2img", &house(1, 1000)).check(503, "the device `test` does not answer in 1 s");
    server.get("memory").check(503, "does not answer");
    harness.program.signal("CONT");
    let ended = |message: &Delivery| message.topic.ends_with("/state") && message.json()["state"] == "cancelled";
    let seen = harness.peer.wait_for("cancelled", ended);
    assert!(seen.iter().all(|message| !message.topic.ends_with("/result")), "{seen:?}");
    wait_until("it answers again", || server.get("memory").status == 200);
}
