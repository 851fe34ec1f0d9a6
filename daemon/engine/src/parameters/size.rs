//! The size that is painted: the request's, the model's own, or what follows from an init image's shape.

use super::{MAX_SIDE, invalid};
use crate::bundle::PictureSizes;
use crate::error::{Error, Result};

/// Width and height of what is painted, pixels. `init_size` is the init image's: without a width and a height its shape
/// is painted, at its own size, or at as many pixels as the model was made for where that has more; with one of them
/// the other follows from the shape.
pub(super) fn resolve(
    width: Option<usize>,
    height: Option<usize>,
    init_size: Option<(u32, u32)>,
    sizes: &PictureSizes,
) -> Result<(usize, usize)> {
    let width = width.map(|width| side("width", width, sizes)).transpose()?;
    let height = height.map(|height| side("height", height, sizes)).transpose()?;
    let Some(init) = init_size.map(|(width, height)| (u64::from(width.max(1)), u64::from(height.max(1)))) else {
        return Ok((width.unwrap_or(sizes.default), height.unwrap_or(sizes.default)));
    };
    match (width, height) {
        (Some(width), Some(height)) => Ok((width, height)),
        (Some(width), None) => Ok((width, follows(init, width as u64 * init.1, init.0, sizes)?)),
        (None, Some(height)) => Ok((follows(init, height as u64 * init.0, init.1, sizes)?, height)),
        (None, None) => of_shape(init, sizes),
    }
}

/// The side of `length / by` pixels, to the nearest multiple.
fn follows(init: (u64, u64), length: u64, by: u64, sizes: &PictureSizes) -> Result<usize> {
    let unit = sizes.factor as u64;
    let rounded = ((2 * length + by * unit) / (2 * by * unit) * unit) as usize;
    if (sizes.smallest..=most(sizes)).contains(&rounded) { Ok(rounded) } else { Err(too_long(init, sizes)) }
}

/// The image's own size, rounded down; smaller where it has more pixels than the model was made for; larger where a
/// side would be below the model's smallest.
fn of_shape(init: (u64, u64), sizes: &PictureSizes) -> Result<(usize, usize)> {
    let (width, height) = init;
    let [unit, smallest, default] = [sizes.factor, sizes.smallest, sizes.default].map(|side| side as u64);
    let pixels = (width * height).min(default * default);
    // Whole numbers, so that the side of a square is exact.
    let scaled = [pixels * width / height, pixels * height / width].map(|square| square.isqrt() / unit * unit);
    let sides = if scaled.iter().all(|side| *side >= smallest) {
        scaled
    } else {
        [width, height].map(|side| smallest * side / width.min(height) / unit * unit)
    };
    let sides = sides.map(|side| side as usize);
    if sides.iter().all(|side| *side <= most(sizes)) { Ok(sides.into()) } else { Err(too_long(init, sizes)) }
}

/// The largest side.
fn most(sizes: &PictureSizes) -> usize {
    MAX_SIDE / sizes.factor * sizes.factor
}

fn too_long((width, height): (u64, u64), sizes: &PictureSizes) -> Error {
    let (smallest, most) = (sizes.smallest, most(sizes));
    let message = format!(
        "the shape of {width}×{height} pixels cannot be painted by this model, whose sides are {smallest} to {most}; \
         give width and height"
    );
    invalid("init_images", message)
}

/// A width or height that the model can paint, or the ones next to it.
fn side(field: &'static str, value: usize, sizes: &PictureSizes) -> Result<usize> {
    let (unit, least, most) = (sizes.factor, sizes.smallest, most(sizes));
    if (least..=most).contains(&value) && value.is_multiple_of(unit) {
        return Ok(value);
    }
    let nearest = match value {
        value if value < least => format!("the nearest is {least}"),
        value if value > most => format!("the nearest is {most}"),
        value => format!("the nearest are {} and {}", value / unit * unit, value.next_multiple_of(unit)),
    };
    let message =
        format!("{value} is not allowed; this model takes multiples of {unit} from {least} to {most}, {nearest}");
    Err(invalid(field, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::sample;

    /// Of a model for 512 × 512, whose sides are multiples of 8 from 64.
    fn size(width: Option<usize>, height: Option<usize>, init: (u32, u32)) -> Result<(usize, usize)> {
        resolve(width, height, Some(init), &sample().picture)
    }

    #[test]
    fn a_small_init_image_keeps_its_size() {
        let cases =
            [((512, 512), (512, 512)), ((600, 400), (600, 400)), ((607, 431), (600, 424)), ((65, 70), (64, 64))];
        for (init, expected) in cases {
            assert_eq!(size(None, None, init).unwrap(), expected, "{init:?}");
        }
    }

    #[test]
    fn a_large_one_keeps_its_shape_at_the_models_number_of_pixels() {
        let cases = [
            ((4032, 3024), (584, 440)),
            ((3024, 4032), (440, 584)),
            ((2000, 2000), (512, 512)),
            ((4096, 2048), (720, 360)),
            ((1920, 1080), (680, 384)),
            ((8000, 1000), (1448, 176)),
        ];
        for (init, expected) in cases {
            assert_eq!(size(None, None, init).unwrap(), expected, "{init:?}");
        }
    }

    #[test]
    fn a_thin_one_grows_to_the_smallest_side() {
        for (init, expected) in
            [((700, 63), (704, 64)), ((1, 1), (64, 64)), ((20, 70), (64, 224)), ((30, 1), (1920, 64))]
        {
            assert_eq!(size(None, None, init).unwrap(), expected, "{init:?}");
        }
        for init in [(4096, 64), (1, 33), (8192, 1)] {
            let error = size(None, None, init).unwrap_err().to_string();
            assert!(error.starts_with("init_images: the shape of "), "{error}");
        }
        assert_eq!(size(Some(512), Some(512), (4096, 64)).unwrap(), (512, 512));
    }

    #[test]
    fn one_side_gives_the_other() {
        assert_eq!(size(Some(768), None, (4032, 3024)).unwrap(), (768, 576));
        assert_eq!(size(None, Some(768), (4032, 3024)).unwrap(), (1024, 768));
        assert_eq!(size(Some(512), None, (1920, 1080)).unwrap(), (512, 288));
        assert_eq!(size(Some(512), None, (100, 101)).unwrap(), (512, 520));
        assert!(size(Some(512), None, (4096, 64)).is_err() && size(Some(2048), None, (64, 128)).is_err());
        assert!(size(Some(100), None, (64, 64)).is_err());
    }
}
