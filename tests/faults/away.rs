//! Nobody takes the images for long: they wait on the disk, within the memory budget, and the service answers meanwhile.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use diffused_tests::mqtt::{PATIENCE, wait_until};
use diffused_tests::scripted::Scripted;
use diffused_tests::tap::is_end;
use diffused_tests::wire::{PUBACK, PUBLISH, SUBSCRIBE, obey, request};

use crate::rig::{Dice, Rig, check_ends, size};

/// Images of half a megabyte each.
fn images(id: &str, count: usize) -> Value {
    json!({"prompt": "a", "steps": 1, "seed": 1, "id": id, "width": 512, "height": 512, "n_iter": count})
}

/// All images are painted while there is no broker, and delivered once there is.
pub(crate) fn broker_away(_: &mut Dice) -> String {
    let (jobs, count, budget) = (size(6, 32), size(6, 16), size(64, 150) as u64);
    let mut rig = Rig::start("", &format!("memory = \"{budget}M\"\nkeep_pictures = {}\n", jobs * count + 1));
    rig.peer.paint(&images("alone", 1));
    let alone = rig.program.memory().0;
    rig.peer.publish("request/pause", "");
    rig.peer.wait_for("a pause", |message| message.topic == "response/pause");
    for job in 0..jobs {
        rig.peer.publish("txt2img", images(&format!("w{job}"), count).to_string());
    }
    rig.wait(PATIENCE, "all jobs wait", |ledger| ledger.accepted.len() == jobs + 1);
    rig.peer.publish("request/resume", "");
    rig.peer.wait_for("an answer", |message| message.topic == "response/resume");
    rig.broker.kill();
    let away = Instant::now();
    for done in 1..=jobs {
        // Each job within the time that is allowed for a wait.
        wait_until("all is painted", || rig.program.log().matches(" done id=\"w").count() >= done);
    }
    let painted = rig.program.memory().0;
    thread::sleep(Duration::from_secs(size(1, 1200) as u64));
    rig.broker.start();
    let away = away.elapsed().as_secs();
    rig.wait(PATIENCE * size(1, 5) as u32, "all ends are delivered", |ledger| ledger.endings.len() == jobs + 1);
    let ledger = rig.tap.ledger();
    check_ends(&ledger);
    assert_eq!(ledger.images.len(), jobs * count + 1, "images: {:?}", ledger.images.keys());
    let (peak, delivered) = (rig.program.memory().0, ledger.images.len());
    assert!(peak <= budget, "{peak} MiB of {budget}, {alone} before, {painted} before the delivery");
    format!(
        "away for {away} s, {jobs} jobs, {delivered} images delivered; peak {peak} MiB, {alone} before, budget {budget}"
    )
}

/// A broker that never acknowledges an image, and then one that does.
pub(crate) fn nobody_takes_images(_: &mut Dice) -> String {
    let (jobs, budget) = (size(24, 400), 64);
    let taking = Arc::new(AtomicBool::new(false));
    let times = Arc::new(Mutex::new(vec![]));
    let (now_taking, answers) = (taking.clone(), times.clone());
    let (mut next, mut asked) = (0, Instant::now());
    let keys = format!("memory = \"{budget}M\"\nqueue_length = {jobs}\n");
    let mut broker = Scripted::start_configured(&keys, move |packet, connection| {
        let takes = now_taking.load(Ordering::Relaxed);
        if connection == 0 && takes {
            return vec![0xe0, 2, 0x8b, 0];
        }
        let answer = if packet.topic.contains("/image/") && !takes { vec![] } else { obey(packet) };
        let acknowledged = packet.kind == PUBACK;
        if acknowledged {
            answers.lock().unwrap().push(asked.elapsed());
        }
        // The next request once the one before is acknowledged.
        if (packet.kind == SUBSCRIBE && connection == 0) || (acknowledged && next < jobs) {
            next += 1;
            asked = Instant::now();
            return [answer, request(&images(&format!("n{next}"), 1), next as u16)].concat();
        }
        answer
    });
    wait_until("the first job is done", || broker.program.log().contains(" done id=\"n1\""));
    let alone = broker.program.memory().0;
    wait_until("all requests are acknowledged", || times.lock().unwrap().len() == jobs);
    let slowest = *times.lock().unwrap().iter().max().unwrap();
    let limit = Duration::from_secs(size(2, 1) as u64);
    assert!(slowest < limit, "a request was acknowledged after {slowest:?}");
    thread::sleep(Duration::from_secs(size(5, 3600) as u64));
    assert!(broker.program.is_running());
    let waiting = broker.program.memory().0;
    let most = budget;
    assert!(waiting <= most, "{waiting} MiB of {budget}, {alone} before");
    taking.store(true, Ordering::Relaxed);
    // What was on its way when the connection ended comes twice.
    let ended = || {
        let seen = broker.seen.lock().unwrap();
        let states = seen.iter().filter(|packet| packet.kind == PUBLISH && packet.topic.ends_with("/state"));
        let ends = states.filter(|packet| is_end(packet.json()["state"].as_str()));
        ends.map(|packet| (packet.topic.clone(), packet.payload.clone())).collect::<BTreeSet<_>>().len()
    };
    for done in 1..=jobs {
        wait_until("all jobs have ended", || ended() >= done);
    }
    assert_eq!(ended(), jobs);
    let peak = broker.program.memory().0;
    assert!(peak <= most, "{peak} MiB of {budget}, {alone} before");
    format!(
        "{jobs} jobs; each request acknowledged within {:.2} s; peak {peak} MiB, {alone} before, budget {budget}; all ended after",
        slowest.as_secs_f64()
    )
}
