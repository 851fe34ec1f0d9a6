//! Linear layers and convolutions: one matrix product over panels of weights, with what follows it fused in.

use crate::cpu::Level;
use crate::operands::{ConvCall, LinearCall};
use crate::product;
use crate::scalar;
use crate::simd::at_level;

impl Level {
    /// A linear layer. Writes to `out`, `[rows][features]`, the columns that the call's panels cover.
    ///
    /// # Panics
    ///
    /// If sizes do not fit each other, or the CPU does not have the level.
    pub fn linear(self, call: &LinearCall, out: &mut [f32]) {
        if let Some(call) = call.as_conv(out) {
            self.conv2d(&call, out);
        }
    }

    /// A convolution. Writes to `out`, `[batch][strip.out_rows][out_width][features]`, the columns that the call's panels cover.
    ///
    /// # Panics
    ///
    /// If sizes do not fit each other, or the CPU does not have the level.
    pub fn conv2d(self, call: &ConvCall, out: &mut [f32]) {
        let call = &call.checked(out);
        at_level!(self, simd => product::run(simd, call, out), scalar => scalar::matmul::matmul(call, out));
    }
}
