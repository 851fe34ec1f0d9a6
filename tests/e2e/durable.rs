//! What outlives the process: accepted jobs, what was painted, what was not delivered yet, and answers to repeated requests.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use diffused_tests::mqtt::{Broker, Delivery, Harness, Peer, Program, config, wait_until};
use diffused_tests::{program, sha256};

fn state(message: &Delivery, id: &str) -> Option<String> {
    let is_state = message.topic == format!("job/{id}/state");
    is_state.then(|| message.json()["state"].as_str().unwrap().to_owned())
}

fn images(messages: &[Delivery], id: &str) -> Vec<String> {
    let prefix = format!("job/{id}/image/");
    messages.iter().filter(|m| m.topic.starts_with(&prefix)).map(|m| sha256(&m.payload)).collect()
}

pub(crate) fn a_stopped_service_goes_on_with_its_jobs() {
    let mut harness = Harness::start();
    let long = |id: &str| json!({"prompt": "a", "steps": 200, "seed": 1, "id": id}).to_string();
    harness.peer.publish("txt2img", long("a"));
    harness.peer.publish("txt2img", long("b"));
    harness.peer.wait_for("progress", |message| message.topic == "job/a/progress");
    harness.program.signal("TERM");
    let messages = harness.peer.wait_for("offline", |m| m.topic == "status" && m.payload == "offline");
    assert!(messages.iter().all(|m| state(m, "a").is_none_or(|state| state == "queued" || state == "running")));
    assert_eq!(harness.program.wait().code(), Some(0));
    harness.restart();
    let first = harness.peer.wait_state("a", "done");
    let second = harness.peer.wait_state("b", "done");
    assert_eq!(images(&first, "a"), images(&second, "b"));
}

pub(crate) fn accepted_jobs_outlive_a_kill_and_paint_the_same() {
    let mut harness = Harness::start();
    let request =
        |id: &str, count: u64| json!({"prompt": "a red house", "steps": 60, "seed": 7, "id": id, "n_iter": count});
    let undisturbed = harness.peer.paint(&request("undisturbed", 3));
    for id in ["a", "b", "c"] {
        harness.peer.publish("txt2img", request(id, 3).to_string());
    }
    harness.peer.wait_for("the second image", |message| message.topic == "job/a/image/1");
    harness.program.kill();
    harness.restart();
    for id in ["a", "b", "c"] {
        let messages = harness.peer.wait_state(id, "done");
        let result = messages.iter().rfind(|m| m.topic == format!("job/{id}/result")).unwrap().json();
        let listed: Vec<Value> = result["images"].as_array().unwrap().iter().map(|i| i["sha256"].clone()).collect();
        assert_eq!(json!(listed), json!(images(&undisturbed, "undisturbed")), "{id}");
    }
}

pub(crate) fn what_was_not_delivered_is_sent_after_a_restart() {
    let mut harness = Harness::start();
    harness.peer.publish("txt2img", json!({"prompt": "a", "steps": 100, "seed": 7, "id": "a"}).to_string());
    harness.peer.wait_for("progress", |message| message.topic == "job/a/progress");
    harness.broker.kill();
    wait_until("the job is done meanwhile", || harness.program.log().contains("done id=\"a\""));
    harness.program.kill();
    harness.broker.start();
    harness.peer.wait_subscribed();
    harness.restart();
    let messages = harness.peer.wait_state("a", "done");
    let result = messages.iter().find(|m| m.topic == "job/a/result").unwrap().json();
    assert_eq!(json!(images(&messages, "a")), json!([result["images"][0]["sha256"]]));
    let again = harness.peer.paint(&json!({"prompt": "a", "steps": 1, "id": "next"}));
    assert!(again.iter().all(|message| !message.topic.starts_with("job/a/")), "{again:#?}");
}

pub(crate) fn a_repeated_request_is_answered_with_the_job_that_there_is() {
    let mut harness = Harness::start();
    harness.peer.publish("request/pause", "");
    let request = json!({"prompt": "a", "steps": 2, "seed": 7, "id": "a"});
    harness.peer.publish("txt2img", request.to_string());
    harness.peer.wait_state("a", "queued");
    harness.peer.publish("txt2img", request.to_string());
    harness.peer.wait_state("a", "queued");
    harness.peer.publish("request/resume", "");
    let first = harness.peer.wait_state("a", "done");
    assert_eq!(first.iter().filter(|message| message.topic == "job/a/result").count(), 1);
    // After its end too, and after a restart; also where the request differs, with a warning.
    for (text, prompt) in [("", "a"), ("differs", "b")] {
        harness.peer.publish("txt2img", json!({"prompt": prompt, "steps": 2, "seed": 7, "id": "a"}).to_string());
        let again = harness.peer.wait_state("a", "done");
        assert_eq!(images(&again, "a"), images(&first, "a"));
        assert!(again.iter().all(|message| state(message, "a").is_none_or(|state| state == "done")), "{again:#?}");
        let result = again.iter().find(|message| message.topic == "job/a/result").unwrap().json();
        assert!(result["warnings"].to_string().contains(text), "{result}");
        harness.program.signal("TERM");
        harness.program.wait();
        harness.restart();
    }
}

pub(crate) fn what_was_cancelled_may_be_asked_for_again() {
    let mut harness = Harness::start();
    let request = |steps: u64| json!({"prompt": "a", "steps": steps, "id": "a"}).to_string();
    harness.peer.publish("txt2img", request(900));
    harness.peer.wait_state("a", "running");
    harness.peer.publish("cancel", json!({"id": "a"}).to_string());
    harness.peer.wait_state("a", "cancelled");
    harness.peer.publish("txt2img", request(1));
    harness.peer.wait_state("a", "done");
}

/// Killed after the file was written, and stopped in good order, which writes it whatever the interval is.
pub(crate) fn a_job_goes_on_from_the_step_that_is_on_disk() {
    for (interval, killed) in [(1, true), (3600, false)] {
        let mut harness = Harness::start_configured("", &format!("checkpoint_interval = {interval}\n"), "");
        let path = harness.folder.path().join("state/checkpoint");
        for (topic, init_images) in [("txt2img", json!([])), ("img2img", json!([crate::jobs::small_image()]))] {
            let request = |id: &str| {
                let mut request =
                    json!({"prompt": "a red house", "steps": 300, "seed": 7, "id": id, "sampler_name": "dpmpp_2m"});
                if topic == "img2img" {
                    request["init_images"] = init_images.clone();
                    request["width"] = json!(128);
                    request["height"] = json!(128);
                }
                request.to_string()
            };
            harness.peer.publish(topic, request(&format!("{topic}-whole")));
            let whole = harness.peer.wait_state(&format!("{topic}-whole"), "done");
            harness.peer.publish(topic, request(topic));
            if killed {
                wait_until("a checkpoint is written", || path.exists());
                harness.program.kill();
            } else {
                let steps =
                    |m: &Delivery| m.topic == format!("job/{topic}/progress") && m.json()["step"].as_u64() > Some(0);
                harness.peer.wait_for("some steps", steps);
                assert!(!path.exists());
                harness.program.signal("TERM");
                harness.program.wait();
                assert!(path.exists());
            }
            let before = harness.program.log().len();
            harness.restart();
            let messages = harness.peer.wait_state(topic, "done");
            let log = harness.program.log().split_off(before);
            assert!(log.contains("going on from a checkpoint"), "{log}");
            assert_eq!(images(&messages, topic), images(&whole, &format!("{topic}-whole")));
            assert!(!path.exists());
        }
    }
}

pub(crate) fn a_pause_outlives_the_process() {
    let mut harness = Harness::start();
    harness.peer.publish("request/pause", "");
    harness.peer.publish("txt2img", json!({"prompt": "a", "steps": 1, "id": "a"}).to_string());
    harness.peer.wait_state("a", "queued");
    harness.program.kill();
    harness.restart();
    harness.peer.wait_state("a", "queued");
    harness.peer.publish("request/list", "");
    let list = harness.peer.wait_for("the list", |message| message.topic == "response/list");
    assert_eq!(list.last().unwrap().json()["data"], json!({"running": null, "waiting": ["a"], "paused": true}));
    harness.peer.publish("request/resume", "");
    harness.peer.wait_state("a", "done");
}

pub(crate) fn an_init_image_outlives_the_process_and_goes_with_its_job() {
    let mut harness = Harness::start();
    harness.peer.publish("request/pause", "");
    let image = crate::jobs::small_image();
    // The image is dark, so all of it is repainted.
    let request = json!({
        "prompt": "a", "steps": 2, "id": "a", "init_images": [image], "mask": image, "mask_blur": 1,
        "inpainting_mask_invert": true,
    });
    harness.peer.publish("img2img", request.to_string());
    harness.peer.wait_state("a", "queued");
    let folder = harness.folder.path().join("state/init_images");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 2, "image and mask");
    fs::write(folder.join("holiday.png"), "precious").unwrap();
    harness.program.kill();
    harness.restart();
    harness.peer.publish("request/resume", "");
    harness.peer.wait_state("a", "done");
    let names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["holiday.png"]);
}

pub(crate) fn a_job_that_ends_the_process_twice_is_not_tried_again() {
    let mut harness = Harness::start();
    // No step of this size is made in time.
    let bad = json!({"prompt": "a", "steps": 9, "id": "bad", "width": 2048, "height": 2048});
    harness.peer.publish("txt2img", bad.to_string());
    harness.peer.publish("txt2img", json!({"prompt": "a", "steps": 1, "id": "good"}).to_string());
    for _ in 0..2 {
        harness.peer.wait_state("bad", "running");
        harness.program.kill();
        harness.restart();
    }
    let failed = harness.peer.wait_state("bad", "failed").pop().unwrap().json();
    assert_eq!(failed["error"]["code"], "internal");
    harness.peer.wait_state("good", "done");
}

pub(crate) fn a_second_service_on_the_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut broker = Broker::prepare(folder.path(), "");
    broker.start();
    let mut peer = Peer::connect(broker.port);
    let _first = Program::start(folder.path(), &config(folder.path(), broker.port));
    peer.wait_online();
    let config = folder.path().join("config.toml");
    let output = std::process::Command::new(program()).args(["run", "--config"]).arg(config).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && error.contains("is in use by another diffused (process "), "{error}");
}

pub(crate) fn a_damaged_journal_costs_the_damaged_lines_alone() {
    let mut harness = Harness::start();
    harness.peer.publish("request/pause", "");
    for id in ["a", "b", "c"] {
        harness.peer.publish("txt2img", json!({"prompt": "a", "steps": 1, "id": id}).to_string());
        harness.peer.wait_state(id, "queued");
    }
    harness.peer.publish("request/resume", "");
    harness.peer.publish("request/pause", "");
    harness.program.kill();
    let path = harness.folder.path().join("state/journal");
    let text = fs::read_to_string(&path).unwrap().replace("\"id\":\"b\"", "\"id\":\"B\"");
    fs::write(&path, text + "torn").unwrap();
    harness.restart();
    harness.peer.publish("request/resume", "");
    harness.peer.wait_state("c", "done");
    let log = harness.program.log();
    assert!(log.contains("damaged lines") && log.contains("journal.damaged"), "{log}");
}

pub(crate) fn the_images_of_a_job_stay_until_the_next_however_few_are_kept() {
    let mut harness = Harness::start_configured("", "keep_pictures = 1\n", "");
    let mut paint = |id: &str, count: u64| {
        let messages = harness.peer.paint(&json!({"prompt": "a", "steps": 1, "id": id, "n_iter": count}));
        let result = messages.iter().find(|m| m.topic == format!("job/{id}/result")).unwrap().json();
        let paths = result["images"].as_array().unwrap().iter().map(|image| image["path"].as_str().unwrap().to_owned());
        paths.collect::<Vec<String>>()
    };
    let first = paint("a", 4);
    // Old images are looked for once a second.
    std::thread::sleep(Duration::from_millis(2500));
    assert!(first.iter().all(|path| fs::exists(path).unwrap()));
    let second = paint("b", 1);
    assert!(fs::exists(&second[0]).unwrap());
    wait_until("the earlier images are gone", || first.iter().all(|path| !fs::exists(path).unwrap()));
}

pub(crate) fn with_no_images_kept_there_are_none_once_they_were_sent() {
    let mut harness = Harness::start_configured("", "keep_pictures = 0\n", "");
    let messages = harness.peer.paint(&json!({"prompt": "a", "steps": 1, "id": "a", "n_iter": 2}));
    assert_eq!(images(&messages, "a").len(), 2);
    let result = messages.iter().find(|message| message.topic == "job/a/result").unwrap().json();
    assert!(result["images"][0]["path"].is_null(), "{result}");
    let folder = harness.folder.path().join("state/pictures");
    let is_image = |name: &str| name.ends_with(".png");
    wait_until("the images are gone", || {
        fs::read_dir(&folder).unwrap().all(|entry| !is_image(&entry.unwrap().file_name().to_string_lossy()))
    });
}

/// The broker sends nothing more once sixteen messages are not acknowledged.
pub(crate) fn many_repeats_are_each_acknowledged() {
    let mut harness = Harness::start();
    harness.peer.publish("request/pause", "");
    let request = json!({"prompt": "a", "steps": 1, "id": "a"}).to_string();
    for _ in 0..50 {
        harness.peer.publish("txt2img", request.clone());
    }
    harness.peer.publish("request/list", "");
    harness.peer.wait_for("the list", |message| message.topic == "response/list");
    harness.peer.publish("request/resume", "");
    harness.peer.wait_state("a", "done");
}

pub(crate) fn a_retry_that_is_rejected_is_answered_under_its_id() {
    let mut harness = Harness::start_configured("", "queue_length = 1\n", "");
    let request = |id: &str| json!({"prompt": "a", "steps": 1, "id": id}).to_string();
    harness.peer.publish("request/pause", "");
    harness.peer.publish("txt2img", request("a"));
    harness.peer.wait_state("a", "queued");
    harness.peer.publish("cancel", json!({"id": "a"}).to_string());
    harness.peer.wait_state("a", "cancelled");
    harness.peer.publish("txt2img", request("b"));
    harness.peer.wait_state("b", "queued");
    harness.peer.publish("txt2img", request("a"));
    harness.peer.wait_state("a", "rejected");
}

pub(crate) fn old_images_go_while_jobs_run_one_after_the_other() {
    let mut harness = Harness::start_configured("", "keep_pictures = 2\nqueue_length = 100\n", "");
    for n in 0..99 {
        let request = json!({"prompt": "a", "steps": 1, "width": 32, "height": 32, "id": format!("j{n}")});
        harness.peer.publish("txt2img", request.to_string());
    }
    harness.peer.wait_state("j90", "done");
    let folder = harness.folder.path().join("state/pictures");
    let images = fs::read_dir(folder)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".png"));
    assert!(images.count() < 80);
}
