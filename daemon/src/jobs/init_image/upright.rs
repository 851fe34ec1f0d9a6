//! A view of stored pixels as they stand upright: cameras store what their sensor sees.

use image::metadata::Orientation;
use image::{GenericImageView, ImageBuffer, Pixel};

/// A width and a height of stored pixels as those of the upright image, and the other way round.
pub(super) fn turned<T>(orientation: Orientation, (width, height): (T, T)) -> (T, T) {
    match orientation {
        Orientation::Rotate90 | Orientation::Rotate270 | Orientation::Rotate90FlipH | Orientation::Rotate270FlipH => {
            (height, width)
        }
        Orientation::NoTransforms
        | Orientation::Rotate180
        | Orientation::FlipHorizontal
        | Orientation::FlipVertical => (width, height),
    }
}

/// Stored pixels, and how they are turned to stand upright.
pub(super) struct Upright<P: Pixel> {
    pub(super) stored: ImageBuffer<P, Vec<P::Subpixel>>,
    pub(super) orientation: Orientation,
}

impl<P: Pixel> GenericImageView for Upright<P> {
    type Pixel = P;

    fn dimensions(&self) -> (u32, u32) {
        turned(self.orientation, self.stored.dimensions())
    }

    fn get_pixel(&self, x: u32, y: u32) -> P {
        let (width, height) = self.stored.dimensions();
        let (x, y) = match self.orientation {
            Orientation::NoTransforms => (x, y),
            Orientation::FlipHorizontal => (width - 1 - x, y),
            Orientation::FlipVertical => (x, height - 1 - y),
            Orientation::Rotate180 => (width - 1 - x, height - 1 - y),
            Orientation::Rotate90 => (y, height - 1 - x),
            Orientation::Rotate270 => (width - 1 - y, x),
            Orientation::Rotate90FlipH => (y, x),
            Orientation::Rotate270FlipH => (width - 1 - y, height - 1 - x),
        };
        *self.stored.get_pixel(x, y)
    }
}
