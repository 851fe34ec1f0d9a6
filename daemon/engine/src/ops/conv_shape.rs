//! The kernels' view of a convolution: what of its input it reads, and in what form its matrix is.
//!
//! Whether a matrix is in phases is known from its shape, so that bundles whose convolutions all have nine taps run too.

use diffused_kernels::pack::PHASES;
use diffused_kernels::{ConvShape, Enlarged};

use crate::layer::{Layer, Padding};
use crate::weights::Shape;

/// The most pixels of a side; a graph that enlarges beyond them is not a model's.
const MAX_PIXELS: usize = 1 << 16;

/// Whether a layer is a convolution whose matrix is in phases, and one that can be.
pub(super) fn in_phases(layer: &Layer, weights: &[Shape]) -> bool {
    let doubles = matches!(
        layer,
        Layer::Conv2d { kernel: 3, stride: 1, padding: Padding::Same, upsample: true, size: false, .. }
    );
    doubles && matches!(weights, [Shape::Matrix { layout, .. }, ..] if layout.taps == PHASES)
}

/// A convolution with these weights over `x`, `[batch, height, width, channels]`, and the height and width that its last
/// input gives if it has one for that; `None` if it does not fit them.
pub(crate) fn conv_shape(layer: &Layer, weights: &[Shape], x: &[usize], size: Option<[usize; 2]>) -> Option<ConvShape> {
    let Layer::Conv2d { kernel, stride, padding, upsample, .. } = *layer else { return None };
    let [batch, height, width, _] = *x else { return None };
    let pad_end_only = padding == Padding::End;
    let twice = [height.checked_mul(2)?, width.checked_mul(2)?];
    let seen = if upsample { size.unwrap_or(twice) } else { [height, width] };
    let enlarged = match upsample {
        true if in_phases(layer, weights) => Enlarged::Phases,
        true => Enlarged::To(seen),
        false => Enlarged::No,
    };
    let doubled = |(twice, seen): (usize, usize)| twice.abs_diff(seen) <= 1;
    let enlarges = !upsample || twice.into_iter().zip(seen).all(doubled);
    let least = if kernel == 3 && pad_end_only { 2 } else { 1 };
    let fits = matches!(kernel, 1 | 3)
        && matches!(stride, 1 | 2)
        && batch > 0
        && seen.iter().all(|side| (least..=MAX_PIXELS).contains(side));
    (fits && enlarges).then_some(ConvShape { batch, height, width, kernel, stride, pad_end_only, enlarged })
}

#[cfg(test)]
mod tests {
    use diffused_kernels::pack::{Format, Layout, PANEL};
    use tract_onnx::prelude::*;

    use super::super::shapes::{Operand, macs, outputs};
    use super::*;

    const F32: DatumType = DatumType::F32;

    /// A 3×3 convolution to 6 features that enlarges its input.
    fn enlarging(size: bool, residual: bool) -> Layer {
        Layer::Conv2d {
            weight: "w".into(),
            features: 6,
            kernel: 3,
            stride: 1,
            padding: Padding::Same,
            upsample: true,
            size,
            time: false,
            residual,
            half: 0,
            relu: false,
            slopes: None,
        }
    }

    fn matrix(taps: usize, n: usize) -> Shape {
        Shape::Matrix { layout: Layout { format: Format::F32, k: 2, taps }, n }
    }

    /// The shape of what comes out over an image of 5×4, enlarged to that of the second input if there is one.
    fn enlarged(weights: Shape, size: Option<Operand>, residual: bool) -> Result<TVec<usize>, String> {
        let inputs: Vec<Operand> = [(F32, tvec![1, 5, 4, 2])].into_iter().chain(size.clone()).collect();
        Ok(outputs(&enlarging(size.is_some(), residual), &[weights], &inputs)?.remove(0).1)
    }

    #[test]
    fn a_picture_is_doubled_or_enlarged_to_the_size_of_another() {
        assert_eq!(enlarged(matrix(9, 6), None, false).unwrap()[..], [1, 10, 8, 6]);
        for (height, width) in [(9, 7), (10, 8), (11, 9)] {
            let size = Some((DatumType::F16, tvec![1, height, width, 3]));
            assert_eq!(enlarged(matrix(9, 6), size, false).unwrap()[..], [1, height, width, 6]);
        }
    }

    #[test]
    fn other_enlargements_are_refused() {
        for (height, width) in [(8, 8), (12, 8), (10, 6), (10, 10)] {
            let message = enlarged(matrix(9, 6), Some((F32, tvec![1, height, width, 3])), false).unwrap_err();
            assert!(message.contains(&format!("enlarged to {height}x{width}")), "{message}");
        }
        let message = enlarged(matrix(9, 6), Some((F32, tvec![1, 10])), false).unwrap_err();
        assert!(message.contains("a picture is wanted"), "{message}");
        let message = enlarged(matrix(9, 6), Some((F32, tvec![1, 10, 8, 6])), true).unwrap_err();
        assert!(message.contains("no residual"), "{message}");
    }

    /// The matrix of a doubled image may be in phases; of those of a given size it may not.
    #[test]
    fn phases_are_of_doubled_images_alone() {
        let in_phases = matrix(PHASES, PHASES * PANEL);
        assert_eq!(enlarged(in_phases, None, false).unwrap()[..], [1, 10, 8, 6]);
        for (weights, size) in [
            (matrix(PHASES, 6), None),
            (matrix(PHASES, PHASES * 6), None),
            (matrix(9, PHASES * PANEL), None),
            (in_phases, Some((F32, tvec![1, 10, 8, 3]))),
        ] {
            let message = enlarged(weights, size, false).unwrap_err();
            assert!(message.contains("its weights are"), "{message}");
        }
        let mut plain = enlarging(false, false);
        if let Layer::Conv2d { upsample, .. } = &mut plain {
            *upsample = false;
        }
        assert!(outputs(&plain, &[in_phases], &[(F32, tvec![1, 5, 4, 2])]).is_err());
    }

    #[test]
    fn phases_take_four_ninths_of_the_multiply_adds() {
        let layer = enlarging(false, false);
        let macs = |weights| macs(&layer, &[weights], &[tvec![1, 5, 4, 2]], &[1, 10, 8, 6]);
        assert_eq!((macs(matrix(9, 6)), macs(matrix(PHASES, PHASES * PANEL))), (80 * 6 * 18, 80 * 6 * 8));
    }
}
