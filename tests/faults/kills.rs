//! The service killed at random moments: every request that was published ends once, with the image of an undisturbed run.

use std::fs;
use std::time::Duration;

use diffused_tests::mqtt::{PATIENCE, Program, config};

use crate::rig::{Dice, Rig, check_ends, size};

pub(crate) fn kill_9(dice: &mut Dice) -> String {
    let mut rig = Rig::start("", "queue_length = 1000\nthreads = 1\n");
    let kills = size(30, 200);
    for _ in 0..kills {
        for _ in 0..3 {
            rig.submit();
        }
        // Longer than a start and some jobs take, shorter than all.
        dice.sleep(0..900);
        rig.program.kill();
        rig.restart();
    }
    rig.peer.wait_online();
    let published = rig.submitted;
    rig.wait_all_ended(published);
    // A job during which the program ended twice is taken for the cause.
    let twice = rig.tap.ledger().take_out("the program ended 2 times");
    assert!(twice <= kills / 4, "{twice} of {published} jobs failed");
    let done = rig.check_all_done(published - twice);
    assert_eq!(done + twice, published);
    format!("{kills} kills, {published} jobs, {done} done once with the right image, {twice} killed twice and failed")
}

/// What a damaged journal still says is used, and the damage is in the log.
pub(crate) fn torn_journal(dice: &mut Dice) -> String {
    let (mut lost, mut jobs, rounds) = (0, 0, size(4, 100));
    for _ in 0..rounds {
        let mut rig = Rig::start("", "");
        rig.peer.publish("request/pause", "");
        rig.peer.wait_for("a pause", |message| message.topic == "response/pause");
        let ids: Vec<String> = (0..6).map(|_| rig.submit()).collect();
        rig.wait(PATIENCE, "all jobs wait", |ledger| ledger.accepted.len() == ids.len());
        rig.program.kill();
        let path = rig.folder.path().join("state/journal");
        let mut bytes = fs::read(&path).unwrap();
        let whole = bytes.clone();
        match dice.below(3) {
            0 => bytes.truncate(bytes.len() - 1 - dice.below(bytes.len() as u64 / 2) as usize),
            1 => bytes.extend((0..dice.below(300) + 1).map(|_| dice.below(256) as u8)),
            _ => {
                let at = dice.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << dice.below(8);
            }
        }
        fs::write(&path, &bytes).unwrap();
        rig.restart();
        rig.peer.wait_online();
        rig.peer.publish("request/resume", "");
        let kept: Vec<&String> = ids.iter().filter(|id| is_whole(&whole, &bytes, id)).collect();
        rig.wait(PATIENCE, &format!("{kept:?} have ended"), |ledger| {
            kept.iter().all(|id| ledger.endings.contains_key(*id))
        });
        let next = rig.submit();
        rig.wait(PATIENCE, "the next job is done", |ledger| ledger.endings.contains_key(&next));
        check_ends(&rig.tap.ledger());
        // A cut between two lines leaves a shorter journal that is whole.
        let torn = !whole.starts_with(&bytes) || bytes.last() != Some(&b'\n');
        assert_eq!(rig.program.log().contains("damaged"), torn, "is the damage in the log? {}", rig.program.log());
        (lost, jobs) = (lost + ids.len() - kept.len(), jobs + ids.len());
    }
    format!(
        "{rounds} journals cut, flipped or with rubbish behind them: {} of {jobs} jobs used, {lost} in damaged lines",
        jobs - lost
    )
}

/// Whether the line by which the job was accepted is in both.
fn is_whole(before: &[u8], after: &[u8], id: &str) -> bool {
    let mark = format!("\"id\":\"{id}\"");
    let lines: Vec<&[u8]> = after.split_inclusive(|byte| *byte == b'\n').collect();
    let mut accepted = before.split_inclusive(|byte| *byte == b'\n').filter(|line| {
        let text = String::from_utf8_lossy(line);
        text.contains("\"accepted\"") && text.contains(&mark)
    });
    let line = accepted.next().unwrap_or_else(|| panic!("{id} is not in the journal"));
    lines.contains(&line)
}

/// A state folder that a service works on is refused to a second one, by name.
pub(crate) fn second_service(_: &mut Dice) -> String {
    let rig = Rig::start("", "");
    let folder = tempfile::tempdir().unwrap();
    let mut second = Program::start(folder.path(), &config(rig.folder.path(), rig.tap.port));
    let (status, log) = (second.wait(), second.log());
    assert!(!status.success() && log.contains("in use by another diffused"), "{status:?} {log}");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(rig.tap.ledger().connections, 1);
    "refused by name, the first one undisturbed".into()
}
