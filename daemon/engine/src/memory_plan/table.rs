//! A memory plan as people read it.

use std::fmt;

use super::{MemoryPlan, StagePlan};
use crate::request::Stage;

impl fmt::Display for MemoryPlan {
    /// A line for each stage, then what it comes to; MiB.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let head = ["MiB", "activations", "resident", "streamed", "ring", "peak"];
        for [stage, numbers @ ..] in std::iter::once(head.map(String::from)).chain(self.stages.iter().map(row)) {
            write!(f, "{stage:<19}")?;
            numbers.iter().try_for_each(|number| write!(f, "{number:>13}"))?;
            writeln!(f)?;
        }
        let step = self.stages.iter().find(|plan| plan.stage == Stage::Unet).map_or(0, |unet| unet.streamed);
        let others = if self.keeps_all { " with the other stages' weights" } else { "" };
        writeln!(f, "The image takes {:.1} MiB at most, the greatest peak{others}.", mib(self.peak()))?;
        writeln!(f, "Each step reads {:.1} MiB of weights.", mib(step))?;
        match self.keeps_all {
            true => writeln!(f, "All weights stay in memory from one image to the next."),
            false => Ok(()),
        }
    }
}

/// What a peak of the table is made of, in a process that takes `process` bytes itself.
pub fn sum_of_peaks(process: u64) -> String {
    format!(
        "A stage's peak is the sum of its activations, resident weights and ring, of what allocations leave unused, and of \
         the {:.1} MiB that the process takes itself.",
        mib(process)
    )
}

fn row(plan: &StagePlan) -> [String; 6] {
    let name = match plan.stage {
        Stage::TextEncoder => "text encoder",
        Stage::VaeEncoder => "VAE encoder",
        Stage::Unet => "UNet",
        Stage::VaeDecoder => "VAE decoder",
        Stage::Upscaler => "upscaler",
    };
    let name = if plan.pass.is_first() { name.to_owned() } else { format!("{name}, hires") };
    let numbers = [plan.activations, plan.resident, plan.streamed, plan.ring, plan.peak];
    let [a, b, c, d, e] = numbers.map(|bytes| format!("{:.1}", mib(bytes)));
    [name, a, b, c, d, e]
}

/// Bytes in MiB.
pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1 << 20) as f64
}

/// An image's multiply-adds as people compare models by them: "470 GMAC in 1 step".
pub fn work_of(multiply_adds: u64, steps: usize) -> String {
    let plural = if steps == 1 { "" } else { "s" };
    format!("{:.0} GMAC (10⁹ multiply-adds) in {steps} step{plural}", multiply_adds as f64 / 1e9)
}
