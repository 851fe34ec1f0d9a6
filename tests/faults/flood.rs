//! Far more prompts at once than a queue takes.

use std::time::{Duration, Instant};

use serde_json::json;

use diffused_tests::mqtt::PATIENCE;

use crate::rig::{Dice, Rig, size};

/// More than the idle service takes, MiB.
const MORE: u64 = 70;
/// States (queued, each place among the first eight that wait, running, end), progress, image (twice) and result.
const MESSAGES: usize = 16;

/// Each prompt is queued or told that the queue is full and ends exactly once; commands are answered meanwhile.
pub(crate) fn prompts_at_once(_: &mut Dice) -> String {
    let (prompts, queue) = (size(2000, 10_000), size(500, 5000));
    let mut rig = Rig::start("", &format!("queue_length = {queue}\n"));
    let idle = rig.program.memory().1;
    let start = Instant::now();
    for n in 0..prompts {
        let request =
            json!({"prompt": "a red house", "steps": 1, "seed": 1, "width": 32, "height": 32, "id": format!("f{n}")});
        rig.peer.publish("txt2img", request.to_string());
    }
    rig.wait(PATIENCE * 5, "all requests are accepted", |ledger| ledger.accepted.len() == prompts);
    let accepted = start.elapsed().as_secs_f64();
    let waiting = format!("f{}", queue - 1);
    let cancelled = ask(&mut rig, &format!("{{\"id\": \"{waiting}\"}}"));
    let all = ask(&mut rig, "{\"all\": true}");
    rig.wait(PATIENCE * 5, "all jobs have ended", |ledger| ledger.endings.len() == prompts);
    let ledger = rig.tap.ledger();
    assert!(ledger.ended_twice().is_empty(), "{:#?}", ledger.ended_twice());
    let [done, gone, rejected] = ["done", "cancelled", "rejected"].map(|state| ledger.ended_as(state));
    assert_eq!(done + gone + rejected, prompts, "{done} done, {gone} cancelled, {rejected} rejected");
    assert!(
        ledger
            .endings
            .values()
            .flatten()
            .filter(|text| text.contains("rejected"))
            .all(|text| text.contains("queue_full"))
    );
    assert!(done + gone >= queue && gone > 1, "{done} done, {gone} cancelled");
    let messages = ledger.messages_by_job().into_values().max().unwrap();
    assert!(messages <= MESSAGES, "{messages} messages of one job");
    let peak = rig.program.memory().0;
    assert!(peak <= idle + MORE, "{peak} MiB, {idle} MiB when idle");
    format!(
        "{prompts}, a queue of {queue}: taken in {accepted:.1} s, {done} done, {gone} cancelled, {rejected} queue_full; at most \
         {messages} messages a job; peak {peak} MiB, idle {idle}; cancel answered after {cancelled:.2} s, all after {all:.2} s"
    )
}

/// Seconds from the arrival of a message to `cancel` to the answer.
fn ask(rig: &mut Rig, payload: &str) -> f64 {
    rig.peer.publish("cancel", payload.to_owned());
    let limit = Duration::from_secs(1);
    let mut answer = None;
    rig.wait(limit + Duration::from_secs(60), &format!("{payload} is answered"), |ledger| {
        answer = ledger.answered_in("cancel", "response/cancel");
        answer.is_some()
    });
    let answer = answer.unwrap();
    assert!(answer <= limit, "{payload}: answered after {answer:?}");
    answer.as_secs_f64()
}
