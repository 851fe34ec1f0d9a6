//! libFuzzer's entry: the target that `FUZZ_TARGET` names, with one input after the other.
#![no_main]

use std::sync::LazyLock;

use diffused_fuzz::{TARGETS, Target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let wanted = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET names a target");
    TARGETS.iter().find(|(name, _)| *name == wanted).expect("a target of that name").1
});

/// Called by libFuzzer. A panic ends the process here, which libFuzzer reports with the input.
#[unsafe(no_mangle)]
extern "C" fn LLVMFuzzerTestOneInput(input: *const u8, len: usize) -> i32 {
    // SAFETY: libFuzzer passes `len` bytes that it does not change during the call; the pointer may be null where there
    // are none.
    let input = if len == 0 { &[] } else { unsafe { std::slice::from_raw_parts(input, len) } };
    TARGET(input);
    0
}
