//! The autoencoder in strips gives the bytes of the whole picture, whatever the budget made it store.

use std::path::Path;

use diffused_engine::bundle::AutoencoderKind;
use diffused_engine::latents::Latents;
use diffused_engine::memory_plan::RunBudget;
use diffused_engine::vae::{VaeDecoder, VaeEncoder};
use diffused_engine::{Bundle, Source};

/// Whole, everything stored, as little as can be, and what lets results be stored in part.
const BUDGETS: [Option<usize>; 9] = [
    None,
    Some(usize::MAX),
    Some(1),
    Some(1 << 20),
    Some(5 << 18),
    Some(3 << 19),
    Some(7 << 18),
    Some(2 << 20),
    Some(3 << 20),
];

fn demo() -> Bundle {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/demo");
    Bundle::open(Source::Folder(folder)).unwrap()
}

fn budget(strips: Option<usize>) -> RunBudget {
    RunBudget { strips, ..RunBudget::ample() }
}

/// Numbers between -1 and 1 without any pattern.
fn noise(len: usize) -> Vec<f32> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn decoded_pictures_do_not_depend_on_the_strips() {
    let bundle = demo();
    for (width, height) in [(16, 16), (12, 20), (13, 9)] {
        let pictures: Vec<Vec<u32>> = BUDGETS
            .map(|strips| {
                let latents = Latents { width, height, channels: 4, values: noise(width * height * 4) };
                let mut decoder = VaeDecoder::open(&bundle, AutoencoderKind::Full).unwrap();
                bits(&decoder.decode(&latents, budget(strips), &mut |_| {}).unwrap())
            })
            .into();
        assert_eq!(pictures[0].len(), width * height * 64 * 3);
        pictures.iter().for_each(|picture| assert!(*picture == pictures[0], "{width} x {height}"));
    }
}

#[test]
fn encoded_latents_do_not_depend_on_the_strips() {
    let bundle = demo();
    let (width, height) = (128, 96);
    let latents: Vec<Vec<u32>> = BUDGETS
        .map(|strips| {
            let mut encoder = VaeEncoder::open(&bundle, AutoencoderKind::Full).unwrap();
            let (pixels, size) = (noise(width * height * 3), (width, height));
            let moments = encoder.encode(pixels, size, budget(strips), &mut |_| {});
            let moments = moments.unwrap();
            bits(&moments.sample(|| noise(width * height / 64 * 4)).values)
        })
        .into();
    latents.iter().for_each(|other| assert!(*other == latents[0]));
}
