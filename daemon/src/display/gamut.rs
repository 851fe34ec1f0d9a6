//! From the picture's colours to those that mixtures of a display's colours can have. Its white stands for white and
//! its darkest colour for black (relative colorimetry with black point compensation, as ICC profiles have it), so that
//! greys stay grey on paper that is not; what is then still outside becomes the mixture that looks nearest. Diffusion
//! would otherwise carry the difference on for ever.

use super::inks::{Ink, Inks, Span};
use super::light::{Light, distance, light, light_of, oklab, zip};

/// Nodes of the grid along each primary, and how far they are apart: from 0 to 255.
const NODES: usize = 16;
const STEP: u8 = 17;
/// What is as near as this in OKLab, squared, counts as inside.
const INSIDE: f32 = 4e-6;

/// Turns 8-bit colours into light that the display can mix.
#[derive(Debug)]
pub(super) struct Gamut {
    black: Light,
    range: Light,
    inks: Vec<Light>,
    span: Span,
    /// By how much colours are moved that lie on a grid; a picture touches few of its nodes.
    moves: Vec<Option<Light>>,
}

impl Gamut {
    pub(super) fn of(inks: &Inks) -> Gamut {
        let Inks::Few(inks) = inks else {
            let all = [[0.0; 3], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
            return Gamut { black: [0.0; 3], range: [1.0; 3], inks: vec![], span: Span::of(&all), moves: vec![] };
        };
        // Yellow may be lighter than white paper.
        let whiteness = |ink: &&Ink| ink.lightness - ink.chroma;
        let blackness = |ink: &&Ink| -ink.lightness - ink.chroma;
        let black = inks.iter().max_by(|a, b| f32::total_cmp(&blackness(a), &blackness(b)));
        let white = inks.iter().max_by(|a, b| f32::total_cmp(&whiteness(a), &whiteness(b)));
        let [black, white] = [black, white].map(|ink| ink.map_or([0.0; 3], |ink| ink.light));
        let inks: Vec<Light> = inks.iter().map(|ink| ink.light).collect();
        let span = Span::of(&inks);
        let range = zip(white, black, |white, black| white - black);
        Gamut { black, range, inks, span, moves: vec![None; NODES * NODES * NODES] }
    }

    /// The light that stands for an sRGB colour.
    pub(super) fn target(&mut self, colour: [u8; 3]) -> Light {
        let seen = self.on_paper(light(colour));
        if self.inks.is_empty() {
            return seen;
        }
        let moved = self.interpolated(colour);
        self.span.nearest(zip(seen, moved, |seen, moved| seen + moved))
    }

    /// Between the display's black and white as `light` is between black and white.
    fn on_paper(&self, light: Light) -> Light {
        zip(self.black, zip(self.range, light, |range, light| range * light), |black, part| black + part)
    }

    /// The move of a colour, from the nodes around it.
    fn interpolated(&mut self, colour: [u8; 3]) -> Light {
        let node = colour.map(|value| usize::from(value / STEP));
        let part = colour.map(|value| f32::from(value % STEP) / f32::from(STEP));
        let mut sum = [0.0; 3];
        for corner in 0..8 {
            let bits = [corner & 1, corner >> 1 & 1, corner >> 2];
            let share = zip(bits.map(|bit| bit as f32), part, |bit, part| if bit == 1.0 { part } else { 1.0 - part });
            let share = share[0] * share[1] * share[2];
            if share > 0.0 {
                let moved = self.node([node[0] + bits[0], node[1] + bits[1], node[2] + bits[2]]);
                sum = zip(sum, moved, |sum, moved| sum + share * moved);
            }
        }
        sum
    }

    fn node(&mut self, [red, green, blue]: [usize; 3]) -> Light {
        let at = (red * NODES + green) * NODES + blue;
        if let Some(known) = self.moves[at] {
            return known;
        }
        let value = |node: usize| light_of(node as u8 * STEP);
        let seen = self.on_paper([value(red), value(green), value(blue)]);
        let found = self.nearest_mixture(seen);
        let moved =
            if distance(oklab(found), oklab(seen)) < INSIDE { [0.0; 3] } else { zip(found, seen, |f, s| f - s) };
        self.moves[at] = Some(moved);
        moved
    }

    /// The mixture of colours that looks nearest to `seen`: from the nearest colour by ever smaller steps towards others.
    fn nearest_mixture(&self, seen: Light) -> Light {
        let lab = oklab(seen);
        let far = |light: Light| distance(oklab(light), lab);
        let first = self.inks.iter().copied().min_by(|a, b| f32::total_cmp(&far(*a), &far(*b)));
        let mut point = first.unwrap_or(seen);
        let (mut best, mut step) = (far(point), 0.5);
        while step > 1.0 / 4096.0 {
            let towards = self.inks.iter().map(|ink| zip(point, *ink, |point, ink| point + step * (ink - point)));
            let nearest = towards.map(|light| (far(light), light)).min_by(|a, b| f32::total_cmp(&a.0, &b.0));
            match nearest.filter(|(far, _)| *far < best) {
                Some((far, light)) => (best, point) = (far, light),
                None => step /= 2.0,
            }
        }
        point
    }
}
