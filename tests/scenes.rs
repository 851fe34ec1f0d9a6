//! Prompts are obeyed: what the demo model paints is measured (kind, colour and place of the object, and what is behind
//! it) and held against the prompt. The measuring is itself put to the test: on pictures drawn from captions it must agree
//! with them, and it must not agree with another picture's caption.

#[path = "scenes/caption.rs"]
mod caption;
#[path = "scenes/measure.rs"]
mod measure;
#[path = "scenes/painted.rs"]
mod painted;
#[path = "scenes/shapes.rs"]
mod shapes;

use std::io::{Write, stderr};
use std::path::Path;

use caption::Scene;
use image::RgbImage;
use measure::measure;
use painted::{LessWork, paint};

/// The pictures of `scenes/sheet.png` (drawn by `scenes/sheet.py`) and their captions.
fn true_scenes() -> Vec<(String, RgbImage)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes");
    let sheet = image::open(folder.join("sheet.png")).expect("sheet.png").to_rgb8();
    let tile = |i: u32| image::imageops::crop_imm(&sheet, i % 8 * 128, i / 8 * 128, 128, 128).to_image();
    include_str!("scenes/sheet.txt").lines().zip(0..).map(|(caption, i)| (caption.to_owned(), tile(i))).collect()
}

/// Whether the picture shows what its caption says.
fn obeyed((caption, shown): &(String, Scene)) -> bool {
    *shown == Scene::from_caption(caption)
}

/// How many of `pictures` show what their captions say; prints what the others show.
fn count_obeyed(pictures: &[(String, Scene)]) -> usize {
    let disobedient: Vec<_> = pictures.iter().filter(|picture| !obeyed(picture)).collect();
    for (caption, shown) in &disobedient {
        println!("{caption:?} was not obeyed: the picture shows {shown:?}");
    }
    pictures.len() - disobedient.len()
}

#[test]
fn measuring_agrees_with_what_was_drawn() {
    let mut measured: Vec<_> =
        true_scenes().into_iter().map(|(caption, picture)| (caption, measure(&picture))).collect();
    let right = count_obeyed(&measured);
    println!("{right} of {} true scenes are measured right", measured.len());
    assert!(measured.len() == 48 && right >= 46, "95 % of 48 true scenes must be measured right, {right} were");

    let captions: Vec<String> = measured.iter().map(|(caption, _)| caption.clone()).collect();
    for (i, (caption, _)) in measured.iter_mut().enumerate() {
        *caption = captions[(i + 1) % captions.len()].clone();
    }
    let wrong_captions = measured.iter().filter(|picture| obeyed(picture)).count();
    assert!(wrong_captions <= 4, "{wrong_captions} of 48 scenes agree with the next scene's caption");
}

/// How many pictures show what their captions say, and of how many.
fn obeyed_of(painted: &[(String, RgbImage)]) -> (usize, usize) {
    let measured: Vec<_> = painted.iter().map(|(prompt, image)| (prompt.clone(), measure(image))).collect();
    (count_obeyed(&measured), measured.len())
}

#[test]
fn the_demo_model_obeys_its_prompts() {
    let less = LessWork { guidance_interval: Some([0.0, 0.8]), cache_interval: Some(2) };
    for work in [LessWork::default(), less] {
        let (obeyed, all) = obeyed_of(&paint(work, usize::MAX));
        // Shown even when the test passes.
        let _ = writeln!(stderr(), "{obeyed} of {all} prompts are obeyed with {work:?}");
        assert!(all >= 24 && obeyed * 10 >= all * 9, "{obeyed} of {all} is less than 90 %, with {work:?}");
    }
}
