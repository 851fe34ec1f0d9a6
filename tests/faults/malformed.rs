//! What no client should send: each request gets one reply, and the next job is served.

use std::io::Cursor;
use std::time::{Duration, Instant};

use base64::Engine as _;
use image::{GrayImage, ImageFormat};
use serde_json::json;

use diffused_tests::mqtt::{Delivery, PATIENCE};

use crate::rig::{Dice, Rig, size};

/// More than the idle service takes, MiB: thrice the largest message, and a job.
const MORE: u64 = 90;

fn is_rejection(message: &Delivery) -> bool {
    message.topic.ends_with("/state") && message.json()["state"] == "rejected"
}

fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// A picture that is small as a file and huge in memory, 400 megapixels.
fn bomb(format: ImageFormat) -> String {
    let mut file = Cursor::new(vec![]);
    GrayImage::new(20_000, 20_000).write_to(&mut file, format).unwrap();
    base64(file.get_ref())
}

/// Requests by topic, and their ids where there are some to be read.
fn requests(dice: &mut Dice) -> Vec<(&'static str, Vec<u8>, Option<&'static str>)> {
    let text = |value: serde_json::Value| value.to_string().into_bytes();
    let nested = |open: &str, close: &str| format!("{}{}", open.repeat(10_000), close.repeat(10_000));
    let deep = format!("{{\"id\": \"deep\", \"prompt\": {}}}", nested("[", "]")).into_bytes();
    let mut all = vec![
        ("txt2img", deep, None),
        ("txt2img", nested("[", "]").into_bytes(), None),
        ("txt2img", nested("{\"a\":", "}").into_bytes(), None),
        ("txt2img", b"{\"prompt\": \"a\", \"id\": \"cut".to_vec(), None),
        ("txt2img", b"a house\0with a garden".to_vec(), None),
        ("txt2img", vec![0xff; 1000], None),
        ("txt2img", text(json!({"prompt": "a\u{0}b", "id": "nul"})), Some("nul")),
        ("txt2img", text(json!({"prompt": "x".repeat(1 << 20), "id": "long"})), Some("long")),
        ("txt2img", text(json!({"prompt": format!("e{}", "\u{301}".repeat(100_000)), "id": "marks"})), Some("marks")),
        ("txt2img", text(json!({"prompt": "a", "id": "\u{202e}bidi"})), None),
        ("txt2img", text(json!({"prompt": "a", "id": "huge", "width": 1e18, "steps": 1})), Some("huge")),
        ("img2img", text(json!({"prompt": "a", "id": "png", "init_images": [bomb(ImageFormat::Png)]})), Some("png")),
        ("img2img", text(json!({"prompt": "a", "id": "jpeg", "init_images": [bomb(ImageFormat::Jpeg)]})), Some("jpeg")),
        ("img2img", text(json!({"prompt": "a", "id": "text", "init_images": ["%".repeat(1000)]})), Some("text")),
    ];
    for _ in 0..size(40, 10_000) {
        let (topic, payload, _) = &all[dice.below(14) as usize];
        // A damaged small one: a byte changed, after a beginning that keeps it from being a prompt.
        let mut payload = [b"{x", &payload[..payload.len().min(200)]].concat();
        let at = 2 + dice.below(payload.len() as u64 - 2) as usize;
        payload[at] = dice.below(256) as u8;
        all.push((topic, payload, None));
    }
    all
}

pub(crate) fn payloads(dice: &mut Dice) -> String {
    let mut rig = Rig::start("", "");
    let idle = rig.program.memory().1;
    let all = requests(dice);
    let (mut slowest, limit) = (Duration::ZERO, Duration::from_secs(1));
    for (topic, payload, id) in &all {
        rig.peer.publish(topic, payload.clone());
        let rejected = rig.peer.wait_for("rejection", is_rejection).pop().unwrap();
        if let Some(id) = id {
            assert_eq!(rejected.topic, format!("job/{id}/state"), "{rejected:?}");
        }
        let answered = rig.tap.ledger().answered_in(topic, &rejected.topic).expect("an answer passes the tap");
        let shown = String::from_utf8_lossy(&payload[..payload.len().min(80)]).into_owned();
        assert!(answered < limit, "{answered:?} for {} bytes: {shown}", payload.len());
        slowest = slowest.max(answered);
    }
    rig.submit();
    // What is odd and yet a prompt.
    let odd =
        json!({"prompt": "\u{202e}a red \u{2066}house\u{feff}", "steps": 1, "id": "odd", "width": 64, "height": 64});
    rig.peer.publish("txt2img", odd.to_string());
    rig.wait(PATIENCE, "all requests are answered", |ledger| ledger.endings.len() == all.len() + 2);
    let ledger = rig.tap.ledger();
    assert!(ledger.ended_twice().is_empty(), "{:#?}", ledger.ended_twice());
    assert_eq!((ledger.ended_as("rejected"), ledger.ended_as("done")), (all.len(), 2));
    let peak = rig.program.memory().0;
    assert!(peak <= idle + MORE, "{peak} MiB, {idle} MiB when idle");
    format!(
        "{}, one rejection each, after {:.3} s at most; peak {peak} MiB, idle {idle}",
        all.len(),
        slowest.as_secs_f64()
    )
}

/// One that is received is answered, and the broker keeps back what is larger than the service announced.
pub(crate) fn large_packets(_: &mut Dice) -> String {
    let mut rig = Rig::start("", "");
    let idle = rig.program.memory().1;
    let start = Instant::now();
    for (id, megabytes) in [("one", 1), ("sixteen", 16), ("most", 250)] {
        let request = json!({"prompt": "x".repeat(megabytes * 1_000_000), "id": id});
        rig.peer.publish("txt2img", request.to_string());
        if megabytes < 250 {
            let rejected = rig.peer.wait_state(id, "rejected").pop().unwrap().json();
            assert_eq!(rejected["error"]["code"], "too_large", "{rejected}");
        }
    }
    rig.submit();
    rig.wait(PATIENCE, "the next job is done", |ledger| ledger.endings.contains_key("j0"));
    let ledger = rig.tap.ledger();
    assert_eq!((ledger.connections, ledger.endings.len()), (1, 3), "{:?}", ledger.endings.keys());
    let peak = rig.program.memory().0;
    assert!(peak <= idle + MORE, "{peak} MiB, {idle} MiB when idle");
    let seconds = start.elapsed().as_secs_f64();
    format!(
        "1 and 16 MB rejected, 250 MB kept back by the broker, the next job done, 1 connection; peak {peak} MiB, idle {idle}; {seconds:.1} s"
    )
}
