//! Which level runs: a test leg (under qemu, say) names what it expects, so that it cannot silently test something else.

use diffused_kernels::{Level, cpu};

/// `DIFFUSED_EXPECT_LEVEL=neon` asserts the level and, with it, the architecture.
#[test]
fn the_expected_level_is_detected() {
    let Ok(expected) = std::env::var("DIFFUSED_EXPECT_LEVEL") else {
        return eprintln!("DIFFUSED_EXPECT_LEVEL is not set; detected: {}", cpu::describe());
    };
    let arch = match expected.as_str() {
        "neon" | "dotprod" => "aarch64",
        "avx2" | "avx512-vnni" => "x86_64",
        "scalar" => std::env::consts::ARCH,
        other => panic!("DIFFUSED_EXPECT_LEVEL={other} names no level"),
    };
    assert_eq!(std::env::consts::ARCH, arch);
    assert_eq!(Level::detected().name(), expected);
}

#[test]
fn the_level_in_use_is_available_and_described() {
    assert!(Level::current().available());
    assert!(cpu::describe().starts_with(std::env::consts::ARCH));
}

/// The instructions of a level cannot be reached on a CPU without them.
#[test]
fn a_level_that_is_not_there_is_refused() {
    for level in Level::ALL.into_iter().filter(|level| !level.available()) {
        let run = || level.silu(&mut [1.0; 4]);
        assert!(std::panic::catch_unwind(run).is_err(), "{level} ran");
    }
}
