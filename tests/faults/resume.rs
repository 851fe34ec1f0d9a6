//! The service killed in the middle of an image: it goes on from its checkpoint, whole or damaged, and the bytes are those of
//! an undisturbed run; a job during which the program ended twice is not tried again.

use std::fs;

use base64::Engine as _;
use image::{ImageFormat, RgbImage};
use serde_json::{Value, json};

use diffused_tests::mqtt::PATIENCE;

use crate::rig::{Dice, Rig, check_ends, size};

/// Among them those that need the history of earlier steps, noise of their own, and two calls of the UNet a step.
const SAMPLERS: [&str; 6] = ["dpmpp_2m_karras", "euler_ancestral", "pndm", "ddim", "euler", "dpmpp_2m"];
const IMAGES: usize = 2;

fn request(id: &str, sampler: &str) -> Value {
    json!({
        "prompt": "a red house", "steps": 25, "seed": 7, "id": id, "width": 256, "height": 256, "n_iter": IMAGES,
        "sampler_name": sampler,
    })
}

fn init_image() -> String {
    encoded(&RgbImage::from_fn(256, 256, |x, y| image::Rgb([x as u8, y as u8, 128])))
}

/// White on the left.
fn mask() -> String {
    encoded(&RgbImage::from_fn(256, 256, |x, _| image::Rgb([if x < 150 { 255 } else { 0 }; 3])))
}

fn encoded(picture: &RgbImage) -> String {
    let mut file = std::io::Cursor::new(vec![]);
    picture.write_to(&mut file, ImageFormat::Png).unwrap();
    base64::engine::general_purpose::STANDARD.encode(file.into_inner())
}

pub(crate) fn kill_in_an_image(dice: &mut Dice) -> String {
    let mut rig = Rig::start("", "threads = 1\ncheckpoint_interval = 1\n");
    let (rounds, first) = (size(2, 24), dice.below(6) as usize);
    let (mut kills, mut damaged) = (0, 0);
    for round in 0..rounds {
        let sampler = SAMPLERS[(first + round) % SAMPLERS.len()];
        let submit = |id: &str| {
            let mut request = request(id, sampler);
            if round % 2 == 1 {
                (request["init_images"], request["denoising_strength"]) = (json!([init_image()]), json!(0.8));
                if round % 4 == 1 {
                    (request["mask"], request["mask_blur"]) = (json!(mask()), json!(3));
                }
                rig.peer.publish("img2img", request.to_string());
            } else {
                rig.peer.publish("txt2img", request.to_string());
            }
        };
        let [whole, killed] = ["whole", "killed"].map(|kind| format!("{kind}{round}"));
        submit(&whole);
        submit(&killed);
        rig.wait(PATIENCE, "the undisturbed job is done", |ledger| ledger.endings.contains_key(&whole));
        while !rig.tap.ledger().endings.contains_key(&killed) && kills < 4 * (round + 1) {
            rig.peer.wait_state(&killed, "running");
            // Time for a checkpoint, so that the kills do not look like the job's fault.
            dice.sleep(1500..3000);
            rig.program.kill();
            kills += 1;
            let checkpoint = rig.folder.path().join("state/checkpoint");
            if let Some(mut bytes) = fs::read(&checkpoint).ok().filter(|_| dice.below(3) == 0) {
                let at = dice.below(bytes.len() as u64) as usize;
                if dice.below(2) == 0 {
                    bytes.truncate(at)
                } else {
                    bytes[at] ^= 1
                }
                fs::write(&checkpoint, bytes).unwrap();
                damaged += 1;
            }
            rig.restart();
            rig.peer.wait_online();
        }
        rig.wait(PATIENCE, "the killed job is done", |ledger| ledger.endings.contains_key(&killed));
        let ledger = rig.tap.ledger();
        check_ends(&ledger);
        for image in 0..IMAGES {
            let [whole, killed] = [&whole, &killed].map(|id| &ledger.images[&format!("job/{id}/image/{image}")]);
            assert_eq!(whole, killed, "image {image} of {sampler}");
        }
    }
    format!(
        "{kills} kills in {rounds} jobs of {IMAGES} images, {damaged} checkpoints damaged, the bytes of undisturbed runs"
    )
}

pub(crate) fn kill_twice(dice: &mut Dice) -> String {
    let mut rig = Rig::start("", "threads = 1\n");
    let rounds = size(2, 20);
    for round in 0..rounds {
        let mut request = request(&format!("crash{round}"), "ddim");
        (request["width"], request["height"]) = (json!(2048), json!(2048));
        rig.peer.publish("txt2img", request.to_string());
        for _ in 0..2 {
            rig.peer.wait_state(&format!("crash{round}"), "running");
            dice.sleep(0..300);
            rig.program.kill();
            rig.restart();
        }
        let failed = rig.peer.wait_state(&format!("crash{round}"), "failed").pop().unwrap().json();
        let why = failed["error"]["message"].as_str().unwrap();
        assert!(failed["error"]["code"] == "internal" && why.contains("ended 2 times"), "{failed}");
        let next = rig.submit();
        rig.wait(PATIENCE, "the next job is done", |ledger| ledger.endings.contains_key(&next));
    }
    let mut ledger = rig.tap.ledger();
    assert_eq!(ledger.take_out("ended 2 times"), rounds);
    check_ends(&ledger);
    format!("{rounds} jobs failed with the reason, each next one done")
}
