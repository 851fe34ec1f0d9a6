//! The size in which an image for a display is painted.

/// What a model paints: its own side, its smallest and its largest, and what each is a multiple of, pixels.
#[derive(Debug, Clone, Copy)]
pub struct PaintableSides {
    /// The model was made for a square of this side.
    pub default: usize,
    /// The smallest.
    pub smallest: usize,
    /// The largest.
    pub largest: usize,
    /// Every side is a multiple of this.
    pub multiple: usize,
}

/// The size for a display of `width` by `height` pixels: the display's own where the model paints that with at most a
/// quarter more pixels than it was made for, and at least as many as three quarters; else of the same shape with as
/// many pixels as the model was made for, to be scaled and cut to the display's.
pub fn painted(width: usize, height: usize, sides: PaintableSides) -> (usize, usize) {
    let (pixels, unit) = (sides.default * sides.default, sides.multiple);
    let allowed = |side: usize| side.is_multiple_of(unit) && (sides.smallest..=sides.largest).contains(&side);
    let own = width * height;
    if allowed(width) && allowed(height) && 4 * own <= 5 * pixels && 4 * own >= 3 * pixels {
        return (width, height);
    }
    let most = sides.largest / unit * unit;
    let side = |this: usize, other: usize| {
        let exact = (pixels * this / other).isqrt();
        ((exact + unit / 2) / unit * unit).clamp(sides.smallest, most)
    };
    (side(width, height), side(height, width))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_for_a_display_has_its_shape_and_the_models_number_of_pixels() {
        let sides = PaintableSides { default: 512, smallest: 64, largest: 2048, multiple: 8 };
        let cases = [
            ((600, 448), (600, 448)), // its own: 2 % more pixels than 512 × 512
            ((640, 400), (640, 400)),
            ((800, 480), (664, 400)),
            ((480, 800), (400, 664)),
            ((1872, 1404), (592, 440)),
            ((250, 122), (736, 360)),
            ((400, 300), (592, 440)),
            ((4096, 16), (2048, 64)),
        ];
        for ((width, height), expected) in cases {
            assert_eq!(painted(width, height, sides), expected, "{width}×{height}");
        }
    }
}
