//! Disks that are full or broken: a request is refused with the reason, and taken again once it can be written down.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use diffused_tests::mqtt::{PATIENCE, wait_until};

use crate::rig::{Dice, Rig, check_ends, size, small};
use crate::shim::{EIO, ENOSPC, RENAME, SYNC, Shim, WRITE};

/// How long after a disk can be written again a request must be taken.
const RECOVERY: Duration = Duration::from_secs(10);

pub(crate) fn writes_that_fail(_: &mut Dice) -> String {
    let folder = tempfile::tempdir().unwrap();
    let shim = Shim::new(folder.path());
    let environment = shim.environment.clone();
    let mut rig = Rig::start_in(folder, "", "", environment);
    let faults = [("write ENOSPC", ENOSPC, WRITE), ("write EIO", EIO, WRITE), ("sync EIO", EIO, SYNC)];
    let all = [faults.as_slice(), &[("all ENOSPC", ENOSPC, WRITE | SYNC | RENAME)]].concat();
    let (mut slowest, mut tried) = (0.0_f64, vec![]);
    for (round, (name, error, calls)) in all.iter().cycle().take(all.len() * size(1, 20)).enumerate() {
        // One that was taken before is painted all the same, while nothing can be written.
        let running = format!("running{round}");
        rig.peer.publish("txt2img", two_images(&running).to_string());
        rig.peer.wait_state(&running, "running");
        shim.fail(*error, *calls);
        let id = format!("refused{round}");
        let refused = refuse(&mut rig, &id);
        assert_eq!(refused["error"]["code"], "disk_full", "{name}: {refused}");
        // Some of them end before the fault does.
        thread::sleep(Duration::from_millis(if round % 2 == 0 { 300 } else { 4000 }));
        assert!(rig.program.is_running(), "{name}: the service ended");
        shim.heal();
        slowest = slowest.max(recover(&mut rig, round));
        tried.push(*name);
    }
    check_disk_ends(&rig);
    let ledger = rig.tap.ledger();
    let hashes = |round: usize, image: usize| &ledger.images[&format!("job/running{round}/image/{image}")];
    let same = (0..tried.len()).all(|round| [0, 1].iter().all(|image| hashes(round, *image) == hashes(0, *image)));
    assert!(same, "images painted during the faults differ: {:?}", ledger.images);
    tried.truncate(all.len());
    format!("{}: disk_full each time; requests taken {slowest:.1} s after the fault at most", tried.join(", "))
}

/// A small file system is filled.
pub(crate) fn full_disk(_: &mut Dice) -> String {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    fs::create_dir(&state).unwrap();
    let Some(_mount) = Mount::new(&state) else {
        eprintln!("faults: no file system can be mounted here: a full disk was NOT tried, see the writes that fail");
        return "SKIPPED: mounting is not allowed here; the writes that fail stand for it".into();
    };
    let mut rig = Rig::start_in(folder, "", "keep_pictures = 20\n", vec![]);
    let (mut slowest, rounds) = (0.0_f64, size(2, 20));
    for round in 0..rounds {
        let taken = rig.submit();
        rig.wait(PATIENCE, "a job is taken", |ledger| ledger.accepted.contains(&taken));
        let filler = state.join("filler");
        fill(&filler);
        let refused = refuse(&mut rig, &format!("refused{round}"));
        assert_eq!(refused["error"]["code"], "disk_full", "{refused}");
        thread::sleep(Duration::from_secs(1));
        assert!(rig.program.is_running(), "the service ended");
        fs::remove_file(&filler).unwrap();
        slowest = slowest.max(recover(&mut rig, round));
    }
    check_disk_ends(&rig);
    format!(
        "a tmpfs of 4 MB filled {rounds} times: disk_full; requests taken {slowest:.1} s after there was space at most"
    )
}

/// A tmpfs of 4 MB; unmounted when dropped.
struct Mount(PathBuf);

impl Mount {
    fn new(place: &Path) -> Option<Mount> {
        let mut mount = Command::new("mount");
        let status = mount.args(["-t", "tmpfs", "-o", "size=4M", "none"]).arg(place).status();
        status.is_ok_and(|status| status.success()).then(|| Mount(place.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // The service may still have files open there.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    while file.write_all(&[0]).is_ok() {}
}

fn two_images(id: &str) -> Value {
    json!({"prompt": "a", "steps": 25, "seed": 7, "id": id, "width": 128, "height": 128, "n_iter": 2})
}

/// Publishes a request that needs some pages of the disk; gives the message of its end.
fn refuse(rig: &mut Rig, id: &str) -> Value {
    let mut request = small(id, 0);
    request["prompt"] = json!("a red house ".repeat(1000));
    rig.peer.publish("txt2img", request.to_string());
    rig.peer.wait_state(id, "rejected").pop().unwrap().json()
}

/// Publishes requests until one is taken; gives the seconds that it took.
fn recover(rig: &mut Rig, round: usize) -> f64 {
    let start = Instant::now();
    for attempt in 0.. {
        let id = format!("again{round}-{attempt}");
        rig.peer.publish("txt2img", small(&id, 0).to_string());
        let topic = format!("job/{id}/state");
        let answer = rig.peer.wait_for("an answer", |message| message.topic == topic).pop().unwrap().json();
        if answer["state"] == "queued" {
            break;
        }
        assert!(start.elapsed() < RECOVERY, "still refused: {answer}");
        thread::sleep(Duration::from_millis(200));
    }
    let took = start.elapsed();
    assert!(took < RECOVERY, "taken again after {took:?}");
    took.as_secs_f64()
}

/// All that was taken was done, once; the rest was rejected.
fn check_disk_ends(rig: &Rig) {
    wait_until("all jobs have ended", || rig.tap.ledger().open().is_empty());
    let mut ledger = rig.tap.ledger();
    ledger.take_out("disk_full");
    check_ends(&ledger);
}
