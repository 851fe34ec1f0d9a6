//! The engine's noise against torch's (`goldens/make_noise.py`): shared seeds must give the pictures that others get.

use diffused_engine::noise::Noise;
use serde::Deserialize;

/// One generator and what it draws, call by call.
#[derive(Deserialize)]
struct Case {
    seed: u64,
    draws: Vec<Vec<f32>>,
}

#[test]
fn noise_is_torchs() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("goldens/noise.json")).unwrap();
    for case in cases {
        let mut noise = Noise::new(case.seed);
        for (call, expected) in case.draws.iter().enumerate() {
            let drawn = noise.randn(expected.len());
            for (i, (&drawn, &expected)) in drawn.iter().zip(expected).enumerate() {
                let at = format!("seed {}, call {call}, value {i}", case.seed);
                assert!((drawn - expected).abs() <= 2e-6, "{at}: {drawn}, torch has {expected}");
            }
        }
    }
}

#[test]
fn noise_is_the_same_on_every_cpu() {
    let drawn = Noise::new(42).randn(1000);
    let bytes: Vec<u8> = drawn.iter().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(xxhash_rust::xxh3::xxh3_64(&bytes), 11_819_364_384_007_117_987);
}
