//! Brokers that die, come back, freeze, or take little.

use std::time::{Duration, Instant};

use serde_json::json;

use diffused_tests::mqtt::PATIENCE;

use crate::rig::{Dice, Rig, check_ends, size};

/// `keep_alive` of the tests' configuration.
const KEEP_ALIVE: u64 = 5;

pub(crate) fn restarts_without_persistence(dice: &mut Dice) -> String {
    restarts(dice, "")
}

pub(crate) fn restarts_with_persistence(dice: &mut Dice) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    // Run by root, mosquitto becomes a user who may not write there.
    let keys = format!("user root\npersistence true\npersistence_location {path}/\nautosave_on_changes true\n");
    restarts(dice, &format!("{keys}autosave_interval 1"))
}

/// No job that the service has acknowledged, and no result, is lost over the broker's restarts.
fn restarts(dice: &mut Dice, broker: &str) -> String {
    let mut rig = Rig::start(broker, "");
    let (mut slowest, rounds) = (Duration::ZERO, size(4, 50));
    for _ in 0..rounds {
        for _ in 0..3 {
            rig.submit();
        }
        dice.sleep(0..1500);
        if dice.below(2) == 0 {
            rig.broker.kill()
        } else {
            rig.broker.stop()
        }
        dice.sleep(100..2500);
        // The service may be back before the broker is seen to have started.
        let back = Instant::now();
        rig.broker.start();
        let online = rig.wait(Duration::from_secs(60), "the service is back", |ledger| {
            ledger.passed.iter().rev().any(|m| m.to_broker && m.topic == "status" && m.at > back)
        });
        slowest = slowest.max(online);
    }
    let ended = rig.check_all_done(rounds);
    let accepted = rig.tap.ledger().accepted.len();
    format!(
        "{rounds} restarts, {accepted} jobs accepted, {ended} ends; back after {:.1} s at most",
        slowest.as_secs_f64()
    )
}

pub(crate) fn frozen_while_it_takes_an_image(dice: &mut Dice) -> String {
    let mut rig = Rig::start("", "");
    let (mut slowest, rounds) = (0.0_f64, size(1, 10));
    for round in 0..rounds {
        let request = json!({"prompt": "a", "steps": 1, "id": format!("large{round}"), "width": 512, "height": 512});
        rig.peer.publish("txt2img", request.to_string());
        let topic = format!("job/large{round}/image/0");
        rig.wait(Duration::from_secs(60), "an image is on its way", |ledger| {
            ledger.passed.iter().any(|message| message.topic == topic)
        });
        rig.broker.signal("STOP");
        rig.submit();
        let noticed = || rig.program.log().matches("no connection to the broker").count() > round;
        let waited = rig.wait(Duration::from_secs(2 * KEEP_ALIVE + 5), "the service notices", |_| noticed());
        slowest = slowest.max(waited.as_secs_f64());
        dice.sleep(0..3000);
        rig.broker.signal("CONT");
        rig.wait(Duration::from_secs(60), "all is delivered", |ledger| {
            ledger.endings.contains_key(&format!("large{round}")) && ledger.images.contains_key(&topic)
        });
    }
    let ended = rig.check_all_done(rounds);
    format!("{rounds} times, noticed after {slowest:.1} s at most, {ended} ends")
}

/// An image that does not fit comes as a JPEG that does.
pub(crate) fn limit_of_100_kilobytes(_: &mut Dice) -> String {
    let rig = Rig::start("max_packet_size 100000", "");
    let jobs = size(3, 30);
    for job in 0..jobs {
        let request = json!({"prompt": "a", "steps": 1, "id": format!("l{job}"), "width": 512, "height": 512});
        rig.peer.publish("txt2img", request.to_string());
    }
    rig.wait(PATIENCE * size(1, 5) as u32, "all have ended", |ledger| ledger.endings.len() == jobs);
    let ledger = rig.tap.ledger();
    check_ends(&ledger);
    let images = ledger.passed.iter().filter(|message| message.topic.ends_with("/image/0"));
    let sizes: Vec<usize> = images.map(|message| message.bytes).collect();
    let largest = sizes.iter().max().unwrap();
    assert!(sizes.len() == jobs && *largest < 100_000, "{sizes:?}");
    assert_eq!(ledger.connections, 1);
    format!("{jobs} images of 512×512, each in a message, the largest of {} KB, over 1 connection", largest / 1000)
}
