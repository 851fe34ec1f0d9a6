//! Clocks that jump by a day or start in 1970, as a board without a battery does.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, SystemTime};

use rumqttc::v5::mqttbytes::v5::PublishProperties;
use serde_json::json;

use diffused_tests::mqtt::PATIENCE;

use crate::rig::{Dice, Rig, check_ends, size};
use crate::shim::Shim;

const DAY: i64 = 24 * 3600;

fn now() -> i64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64
}

/// A rig whose clock is `ahead` seconds ahead.
fn start(ahead: i64) -> (Rig, Shim) {
    let folder = tempfile::tempdir().unwrap();
    let shim = Shim::new(folder.path());
    shim.set_clock(ahead);
    let environment = shim.environment.clone();
    (Rig::start_in(folder, "", "queue_length = 1000\n", environment), shim)
}

/// Publishes a job that may wait for an hour, by the broker's measure or by a clock that is `ahead` seconds ahead.
fn submit(rig: &Rig, id: &str, ahead: Option<i64>) {
    let mut request = json!({"prompt": "a", "steps": 1, "width": 64, "height": 64, "id": id});
    match ahead {
        Some(ahead) => {
            request["not_after"] = json!(now() + ahead + 3600);
            rig.peer.publish("txt2img", request.to_string());
        }
        None => {
            let hour = PublishProperties { message_expiry_interval: Some(3600), ..PublishProperties::default() };
            rig.peer.publish_with("txt2img", request.to_string(), hour);
        }
    }
}

/// Deadlines that lie ahead, by the clock at each moment, are kept; nothing hangs.
pub(crate) fn jumps(dice: &mut Dice) -> String {
    let (mut rig, shim) = start(0);
    let (jumps, mut ahead) = (size(6, 200), 0);
    for jump in 0..jumps {
        rig.peer.publish("request/pause", "");
        rig.peer.wait_for("a pause", |message| message.topic == "response/pause");
        submit(&rig, &format!("expiry{jump}"), None);
        let next = [-DAY, 0, DAY, 365 * DAY][dice.below(4) as usize];
        // Ahead of both clocks.
        submit(&rig, &format!("not_after{jump}"), Some(ahead.max(next)));
        rig.wait(PATIENCE, "both jobs wait", |ledger| ledger.accepted.len() == 2 * jump + 2);
        shim.set_clock(next);
        ahead = next;
        // The queue looks at its deadlines once a second.
        thread::sleep(Duration::from_millis(1200));
        rig.peer.publish("request/resume", "");
        rig.wait(PATIENCE, "both jobs have ended", |ledger| ledger.endings.len() == 2 * jump + 2);
        check_ends(&rig.tap.ledger());
    }
    assert_eq!(rig.tap.ledger().connections, 1);
    format!("{jumps} jumps by up to a year, {} jobs with an hour to wait, all done, 1 connection", 2 * jumps)
}

/// Ids that the service makes are unique over its starts, deadlines of today lie ahead, and the jump to today harms nothing.
pub(crate) fn start_in_1970(_: &mut Dice) -> String {
    let in_1970 = 100 - now();
    let (mut rig, shim) = start(in_1970);
    let (starts, jobs) = (size(2, 20), 5);
    for start in 0..starts {
        for _ in 0..jobs {
            rig.peer.publish("txt2img", json!({"prompt": "a", "steps": 1, "width": 64, "height": 64}).to_string());
        }
        submit(&rig, &format!("expiry{start}"), None);
        submit(&rig, &format!("not_after{start}"), Some(0));
        let all = (jobs + 2) * (start + 1);
        rig.wait(PATIENCE, "all jobs have ended", |ledger| ledger.endings.len() >= all);
        rig.program.kill();
        shim.set_clock(in_1970);
        rig.restart();
        rig.peer.wait_online();
    }
    shim.set_clock(0);
    submit(&rig, "today", Some(0));
    let all = (jobs + 2) * starts + 1;
    rig.wait(PATIENCE, "all jobs have ended", |ledger| ledger.endings.contains_key("today"));
    let ledger = rig.tap.ledger();
    check_ends(&ledger);
    let ids: BTreeSet<&String> = ledger.endings.keys().collect();
    assert_eq!(ids.len(), all, "{ids:?}");
    format!("{starts} starts in 1970, {all} jobs, all done, no id twice")
}
