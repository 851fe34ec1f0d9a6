//! What single pixels can show: a few colours, or so many levels of each primary.

use super::light::{Light, distance, light, light_of, oklab, zip};

/// What a pixel can be.
#[derive(Debug)]
pub(super) enum Inks {
    /// One of a few colours.
    Few(Vec<Ink>),
    /// 32 levels of red and blue, 64 of green: the lights of the levels.
    Rgb565 { five: Vec<f32>, six: Vec<f32> },
}

/// A colour: its light, how that looks, and lightness and colourfulness by OKLab.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ink {
    pub(super) light: Light,
    look: Light,
    pub(super) lightness: f32,
    pub(super) chroma: f32,
}

/// Light on a scale on which equal steps look about alike: its square roots. Of the scales that were tried it keeps the
/// diffused error smallest: in OKLab the nearest colour of a dull palette can be one that makes the error grow.
fn look(light: Light) -> Light {
    light.map(|part| libm::copysignf(libm::sqrtf(part.abs()), part))
}

impl Inks {
    /// The colours of a palette, sRGB.
    pub(super) fn few(colours: &[[u8; 3]]) -> Inks {
        let ink = |light| {
            let [lightness, a, b] = oklab(light);
            Ink { light, look: look(light), lightness, chroma: libm::sqrtf(a * a + b * b) }
        };
        Inks::Few(colours.iter().map(|colour| ink(light(*colour))).collect())
    }

    /// What 16 bits a pixel can hold.
    pub(super) fn rgb565() -> Inks {
        let levels = |bits| (0..1_u32 << bits).map(|level| light_of(widened(level, bits))).collect();
        Inks::Rgb565 { five: levels(5), six: levels(6) }
    }

    /// The number of the colour that looks nearest to `wanted`, and its light.
    pub(super) fn nearest(&self, wanted: Light) -> (u16, Light) {
        match self {
            Inks::Few(inks) => {
                let wanted = look(wanted);
                least(inks, |ink| distance(ink.look, wanted))
            }
            Inks::Rgb565 { five, six } => {
                let [red, green, blue] =
                    [(five, wanted[0]), (six, wanted[1]), (five, wanted[2])].map(|(l, v)| level(l, v));
                ((red << 11 | green << 5 | blue) as u16, [five[red], six[green], five[blue]])
            }
        }
    }

    /// The number of the colour whose light is nearest to `wanted`, and its light.
    pub(super) fn nearest_light(&self, wanted: Light) -> (u16, Light) {
        match self {
            Inks::Few(inks) => least(inks, |ink| distance(ink.light, wanted)),
            Inks::Rgb565 { .. } => self.nearest(wanted),
        }
    }
}

fn least(inks: &[Ink], by: impl Fn(&Ink) -> f32) -> (u16, Light) {
    let (mut best, mut found) = (f32::INFINITY, (0, [0.0; 3]));
    for (number, ink) in (0..).zip(inks) {
        let far = by(ink);
        if far < best {
            (best, found) = (far, (number, ink.light));
        }
    }
    found
}

/// The level whose light is nearest.
fn level(lights: &[f32], wanted: f32) -> usize {
    let above = lights.partition_point(|light| *light < wanted);
    match (above.checked_sub(1), lights.get(above)) {
        (Some(below), Some(light)) if light - wanted < wanted - lights[below] => above,
        (Some(below), _) => below,
        (None, _) => above,
    }
}

/// The 8-bit value that a display shows for a level of `bits` bits: its first bits repeated.
pub(super) fn widened(level: u32, bits: u32) -> u8 {
    (level << (8 - bits) | level >> (2 * bits - 8)) as u8
}

/// What the colours span: a line of greys, a plane or all of space. Light outside of it can never be made of them.
#[derive(Debug)]
pub(super) struct Span {
    origin: Light,
    directions: Vec<Light>,
}

impl Span {
    pub(super) fn of(lights: &[Light]) -> Span {
        let mut span = Span { origin: lights.first().copied().unwrap_or_default(), directions: vec![] };
        for light in lights {
            let rest = zip(*light, span.nearest(*light), |light, nearest| light - nearest);
            let length = libm::sqrtf(dot(rest, rest));
            if length > 1e-3 {
                span.directions.push(rest.map(|part| part / length));
            }
        }
        span
    }

    /// The point of the span nearest to `light`.
    pub(super) fn nearest(&self, light: Light) -> Light {
        if self.directions.len() == 3 {
            return light;
        }
        let from_origin = zip(light, self.origin, |light, origin| light - origin);
        self.directions.iter().fold(self.origin, |sum, direction| {
            let along = dot(from_origin, *direction);
            zip(sum, *direction, |sum, part| sum + along * part)
        })
    }
}

fn dot(a: Light, b: Light) -> f32 {
    let [x, y, z] = zip(a, b, |a, b| a * b);
    x + y + z
}
