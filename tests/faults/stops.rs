//! SIGTERM while a single operator takes longer than anybody waits.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use diffused_tests::mqtt::PATIENCE;

use crate::rig::{Dice, Rig, size};

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
