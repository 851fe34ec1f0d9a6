//! The work of models that are known without their files.

use diffused_engine::layer_kinds::{WORK_KINDS, WorkByKind};

use super::report::PaintingTime;

/// A picture of a model: multiply-adds of a step, and of decoding. As the engine counts them in a bundle of that model;
/// text encoding, half a percent of a picture of twenty steps, is left out.
pub(super) struct KnownPicture {
    model: &'static str,
    side: usize,
    steps: usize,
    step: WorkByKind,
    decoding: WorkByKind,
}

/// Stable Diffusion 1.5 with guidance.
pub(super) fn all() -> [KnownPicture; 2] {
    let of = |side, step, decoding| KnownPicture {
        model: "Stable Diffusion 1.5",
        side,
        steps: 20,
        step: WorkByKind(step),
        decoding: WorkByKind(decoding),
    };
    [
        of(
            512,
            [410_763_919_360, 256_315_883_520, 111_757_230_080, 3_557_621_760, 0],
            [1_235_784_630_272, 4_294_967_296, 17_179_869_184, 0, 0],
        ),
        of(
            256,
            [102_690_979_840, 66_313_912_320, 6_984_826_880, 889_405_440, 0],
            [308_946_157_568, 1_073_741_824, 1_073_741_824, 0, 0],
        ),
    ]
}

impl KnownPicture {
    /// What it takes where each kind of layers makes so many multiply-adds a second.
    pub(super) fn time(&self, rates: &[f64; WORK_KINDS]) -> PaintingTime {
        let (step, decoding) = (self.step.seconds(rates), self.decoding.seconds(rates));
        let total = step * self.steps as f64 + decoding;
        PaintingTime::new(self.model.to_owned(), (self.side, self.side), self.steps, [step, decoding, total])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `diffused plan` says of the true model's graphs.
    #[test]
    fn a_step_has_the_graphs_multiply_adds() {
        let totals = all().map(|picture| [picture.step.total(), picture.decoding.total()]);
        assert_eq!(totals, [[782_394_654_720, 1_257_259_466_752], [176_879_124_480, 311_093_641_216]]);
        let time = all()[0].time(&[1e12; WORK_KINDS]);
        assert_eq!((time.step_seconds, time.decode_seconds, time.total_seconds), (0.782, 1.257, 16.905));
    }
}
