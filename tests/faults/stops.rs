//! SIGTERM while a single operator takes longer than anybody waits.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use diffused_tests::mqtt::PATIENCE;

use crate::rig::{Dice, Rig, check_ends, size};

/// The first operators of this take seconds each on one thread.
fn long(id: &str) -> Value {
    json!({"prompt": "a", "steps": 9, "id": id, "width": 2048, "height": 2048})
}

/// A second SIGTERM ends the service at once, and the next start serves.
pub(crate) fn second_sigterm(dice: &mut Dice) -> String {
    let mut rig = Rig::start("", "threads = 1\n");
    let (mut slowest, rounds) = (Duration::ZERO, size(2, 20));
    for round in 0..rounds {
        let id = format!("s{round}");
        rig.peer.publish("txt2img", long(&id).to_string());
        rig.peer.wait_state(&id, "running");
        dice.sleep(1000..2500);
        rig.program.signal("TERM");
        dice.sleep(50..400);
        let second = Instant::now();
        rig.program.signal("TERM");
        rig.program.wait();
        slowest = slowest.max(second.elapsed());
        rig.peer.wait_for("offline", |message| message.topic == "status" && message.payload == "offline");
        rig.restart();
        rig.peer.wait_online();
        rig.peer.publish("cancel", "{\"all\": true}");
        rig.peer.wait_for("an answer", |message| message.topic == "response/cancel");
    }
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    thread::sleep(Duration::from_millis(500));
    let next = rig.submit();
    rig.wait(PATIENCE, "the next job is done", |ledger| ledger.endings.contains_key(&next));
    format!(
        "{rounds} times, ended after {:.2} s at most, `offline` each time, the next job done",
        slowest.as_secs_f64()
    )
}

/// The service ends in time, says so, and the next start goes on with the job: its image is that of an undisturbed run.
pub(crate) fn sigterm_mid_job(dice: &mut Dice) -> String {
    let request =
        |id: &str| json!({"prompt": "a", "steps": 10, "seed": 7, "id": id, "width": 512, "height": 384, "n_iter": 2});
    let mut rig = Rig::start("", "threads = 1\n");
    rig.peer.publish("txt2img", request("whole").to_string());
    rig.wait(PATIENCE, "the undisturbed job is done", |ledger| ledger.endings.contains_key("whole"));
    rig.peer.publish("txt2img", request("stopped").to_string());
    let (mut slowest, rounds) = (0.0_f64, size(3, 30));
    for _ in 0..rounds {
        dice.sleep(300..2000);
        slowest = slowest.max(stop(&mut rig));
        rig.restart();
        rig.peer.wait_online();
    }
    rig.wait(PATIENCE, "the stopped job is done", |ledger| ledger.endings.contains_key("stopped"));
    let ledger = rig.tap.ledger();
    check_ends(&ledger);
    for image in 0..2 {
        let [whole, stopped] = ["whole", "stopped"].map(|id| &ledger.images[&format!("job/{id}/image/{image}")]);
        assert_eq!(whole, stopped, "image {image}");
    }
    format!(
        "{rounds} times in one job of 2 images, ended after {slowest:.1} s at most, the bytes of an undisturbed run"
    )
}

/// The same while one operator takes seconds.
pub(crate) fn sigterm_in_a_long_operator(dice: &mut Dice) -> String {
    let mut rig = Rig::start("", "threads = 1\n");
    rig.peer.publish("txt2img", long("long").to_string());
    rig.peer.wait_state("long", "running");
    let (mut slowest, rounds) = (0.0_f64, size(2, 30));
    for _ in 0..rounds {
        dice.sleep(1000..4000);
        slowest = slowest.max(stop(&mut rig));
        rig.restart();
        rig.peer.wait_online();
        rig.peer.wait_state("long", "running");
    }
    assert!(rig.tap.ledger().endings.is_empty(), "{:?}", rig.tap.ledger().endings);
    rig.peer.publish("cancel", "{\"id\": \"long\"}");
    rig.wait(PATIENCE, "the job is cancelled", |ledger| ledger.ended_as("cancelled") == 1);
    format!("{rounds} times, ended after {slowest:.1} s at most, the job runs again after each start")
}

/// Stops the service; gives the seconds that it took.
fn stop(rig: &mut Rig) -> f64 {
    let start = Instant::now();
    rig.program.signal("TERM");
    let status = rig.program.wait();
    let took = start.elapsed();
    assert!(took < Duration::from_secs(10) && status.code() == Some(0), "{status:?} after {took:?}");
    rig.peer.wait_for("offline", |message| message.topic == "status" && message.payload == "offline");
    took.as_secs_f64()
}
