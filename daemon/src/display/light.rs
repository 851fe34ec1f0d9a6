//! Light and its perception. A display's colours mix in the eye as light does, so sums and means are of linear light;
//! what is near and what is far is judged in OKLab. All of it is plain f32 arithmetic in one order and the `libm` crate's
//! functions: the same bits on every machine.

use std::sync::LazyLock;

/// Linear light of sRGB's primaries: red, green, blue, from 0 to 1.
pub(super) type Light = [f32; 3];

/// The light of each 8-bit sRGB value (IEC 61966-2-1).
static LIGHTS: LazyLock<[f32; 256]> = LazyLock::new(|| {
    std::array::from_fn(|value| {
        let value = value as f32 / 255.0;
        if value <= 0.04045 { value / 12.92 } else { libm::powf((value + 0.055) / 1.055, 2.4) }
    })
});

/// The light of an 8-bit sRGB value.
pub(super) fn light_of(value: u8) -> f32 {
    LIGHTS[usize::from(value)]
}

/// The light of an 8-bit sRGB colour.
pub(super) fn light(colour: [u8; 3]) -> Light {
    colour.map(light_of)
}

/// Lightness from 0 to 1, green to red, blue to yellow (Björn Ottosson's OKLab, 2020), of any light, also below 0.
pub(super) fn oklab([red, green, blue]: Light) -> [f32; 3] {
    let long = libm::cbrtf(0.412_221_46 * red + 0.536_332_55 * green + 0.051_445_995 * blue);
    let medium = libm::cbrtf(0.211_903_5 * red + 0.680_699_5 * green + 0.107_396_96 * blue);
    let short = libm::cbrtf(0.088_302_46 * red + 0.281_718_85 * green + 0.629_978_7 * blue);
    [
        0.210_454_26 * long + 0.793_617_8 * medium - 0.004_072_047 * short,
        1.977_998_5 * long - 2.428_592_2 * medium + 0.450_593_7 * short,
        0.025_904_037 * long + 0.782_771_77 * medium - 0.808_675_77 * short,
    ]
}

/// `f` of each pair of components.
pub(super) fn zip(a: Light, b: Light, f: impl Fn(f32, f32) -> f32) -> Light {
    [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2])]
}

/// The square of the distance.
pub(super) fn distance(a: [f32; 3], b: [f32; 3]) -> f32 {
    let [x, y, z] = zip(a, b, |a, b| (a - b) * (a - b));
    x + y + z
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn light_is_the_standards() {
        let close = |found: f32, expected: f32| assert!((found - expected).abs() < 1e-5, "{found} for {expected}");
        for (value, expected) in [(0, 0.0), (10, 0.003_035), (128, 0.215_861), (255, 1.0)] {
            close(light_of(value), expected);
        }
    }

    #[test]
    fn oklab_is_its_authors() {
        // From the table of pairs that the author of OKLab gives, and white.
        let cases = [([1.0, 1.0, 1.0], [1.0, 0.0, 0.0]), ([1.0, 0.0, 0.0], [0.628, 0.225, 0.126])];
        for (light, expected) in cases {
            assert!(distance(oklab(light), expected) < 1e-6, "{:?} for {expected:?}", oklab(light));
        }
    }
}
