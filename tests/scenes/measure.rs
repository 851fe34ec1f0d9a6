//! Measures what a picture shows, knowing nothing of its prompt: of all scenes that could have been asked for (every
//! kind, colour, size and position on every background) it finds the one that leaves the least of the picture
//! unexplained. First coarsely over all of them, then finely around the best of each kind.

use image::{RgbImage, imageops};

use crate::caption::{BACKGROUNDS, Background, COLOURS, KINDS, PLACES, Scene};
use crate::shapes::{FigurePart, Shape};

/// Squared distance of two colours from which on one does not explain the other at all. It is also the most that a
/// pixel can cost, so that suns, clouds and rainbows weigh no more than their area.
const UNEXPLAINED: f32 = 70.0 * 70.0;

/// Where the horizon of a landscape lies, as a part of the height.
const HORIZON: f32 = 0.62;

/// What `picture` shows.
pub(crate) fn measure(picture: &RgbImage) -> Scene {
    let coarse = View::of(picture, 32);
    let fine = View::of(picture, 64);
    let (kind, best) = KINDS
        .iter()
        .map(|kind| (*kind, fine.refine(&Shape::of(kind), coarse.search(&Shape::of(kind)))))
        .min_by(|a, b| a.1.cost.total_cmp(&b.1.cost))
        .expect("there are kinds");
    let off = |place: f32| (place - best.position.x).abs();
    let place = PLACES.iter().min_by(|a, b| off(a.1).total_cmp(&off(b.1))).expect("there are places");
    Scene { kind, colour: best.colour, place: place.0, background: fine.background.phrase }
}

/// Where an object is and how large: centre and radius as parts of the picture's side.
#[derive(Clone, Copy)]
struct Position {
    x: f32,
    y: f32,
    radius: f32,
}

/// An object of one kind, and how much of the picture it leaves unexplained.
#[derive(Clone, Copy)]
struct Candidate {
    position: Position,
    colour: &'static str,
    cost: f32,
}

/// A picture scaled down, with the background that it was found to have.
struct View {
    side: usize,
    pixels: Vec<[f32; 3]>,
    background: &'static Background,
    /// What each pixel costs where the background is taken for it.
    background_cost: Vec<f32>,
}

impl View {
    fn of(picture: &RgbImage, side: usize) -> View {
        let small = imageops::thumbnail(picture, side as u32, side as u32);
        let pixels: Vec<[f32; 3]> = small.pixels().map(|p| p.0.map(f32::from)).collect();
        let unexplained = |b: &Background| costs(&pixels, &expected_rows(b, side)).iter().sum::<f32>();
        let background =
            BACKGROUNDS.iter().min_by(|a, b| unexplained(a).total_cmp(&unexplained(b))).expect("there are backgrounds");
        let background_cost = costs(&pixels, &painted_rows(&pixels, &expected_rows(background, side)));
        View { side, pixels, background, background_cost }
    }

    /// The best position of a shape over the whole picture, on a grid.
    fn search(&self, shape: &Shape) -> Candidate {
        let grid = |from: f32, to: f32, step: f32| {
            (0..=((to - from) / step).round() as usize).map(move |i| from + i as f32 * step)
        };
        let positions = grid(0.2, 0.8, 0.05)
            .flat_map(|x| grid(0.3, 0.7, 0.05).flat_map(move |y| grid(0.14, 0.4, 0.035).map(move |r| (x, y, r))));
        let candidates = positions.map(|(x, y, radius)| self.candidate(shape, Position { x, y, radius }));
        candidates.min_by(|a, b| a.cost.total_cmp(&b.cost)).expect("the grid is not empty")
    }

    /// Moves and resizes a shape as long as that explains more.
    fn refine(&self, shape: &Shape, start: Candidate) -> Candidate {
        let mut best = self.candidate(shape, start.position);
        for step in [0.02, 0.01, 0.005] {
            loop {
                let Position { x, y, radius } = best.position;
                let moves = [
                    (step, 0.0, 0.0),
                    (-step, 0.0, 0.0),
                    (0.0, step, 0.0),
                    (0.0, -step, 0.0),
                    (0.0, 0.0, step),
                    (0.0, 0.0, -step),
                ];
                let moved = moves.map(|(dx, dy, dr)| Position { x: x + dx, y: y + dy, radius: radius + dr });
                let candidates = moved.map(|position| self.candidate(shape, position));
                let better = candidates.into_iter().min_by(|a, b| a.cost.total_cmp(&b.cost)).expect("six moves");
                if better.cost >= best.cost {
                    break;
                }
                best = better;
            }
        }
        best
    }

    /// The shape at a position in the colour that explains most, and what the whole picture then costs.
    fn candidate(&self, shape: &Shape, position: Position) -> Candidate {
        let mut changes = [0.0; COLOURS.len()];
        let side = self.side as f32;
        let span = |centre: f32| {
            let from = ((centre - position.radius) * side).max(0.0) as usize;
            from..(((centre + position.radius) * side).ceil().max(0.0) as usize).min(self.side)
        };
        for row in span(position.y) {
            for column in span(position.x) {
                let dx = ((column as f32 + 0.5) / side - position.x) / position.radius;
                let dy = ((row as f32 + 0.5) / side - position.y) / position.radius;
                let Some(part) = shape.part_at(dx, dy) else { continue };
                let at = row * self.side + column;
                for (change, (name, colour)) in changes.iter_mut().zip(COLOURS) {
                    *change += cost(self.pixels[at], paint(part, name, colour)) - self.background_cost[at];
                }
            }
        }
        let (change, colour) = changes
            .into_iter()
            .zip(COLOURS.map(|(name, _)| name))
            .min_by(|a, b| a.0.total_cmp(&b.0))
            .expect("there are colours");
        Candidate { position, colour, cost: self.background_cost.iter().sum::<f32>() + change }
    }
}

/// The colour of a part of an object whose own colour is `colour`.
fn paint(part: FigurePart, name: &str, colour: [u8; 3]) -> [f32; 3] {
    let own = colour.map(f32::from);
    match part {
        FigurePart::Body => own,
        FigurePart::Dark => own.map(|c| c * 0.72),
        FigurePart::Light => own.map(|c| c + (255.0 - c) * 0.35),
        FigurePart::Fixed(fixed) => fixed.map(f32::from),
        FigurePart::FixedBut(fixed, but, other) => if name == but { other } else { fixed }.map(f32::from),
    }
}

fn cost(a: [f32; 3], b: [f32; 3]) -> f32 {
    let squares = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b));
    squares.sum::<f32>().min(UNEXPLAINED)
}

/// What each pixel costs where every row has one colour.
fn costs(pixels: &[[f32; 3]], rows: &[[f32; 3]]) -> Vec<f32> {
    let side = rows.len();
    pixels.iter().enumerate().map(|(i, pixel)| cost(*pixel, rows[i / side])).collect()
}

/// The colour of each row of a background as it would be drawn.
fn expected_rows(background: &Background, side: usize) -> Vec<[f32; 3]> {
    let row = |i: usize| {
        let height = (i as f32 + 0.5) / side as f32 / HORIZON;
        let mix = |c: usize| {
            let (top, bottom) = (f32::from(background.sky_top[c]), f32::from(background.sky_bottom[c]));
            if height > 1.0 { f32::from(background.ground[c]) } else { top + (bottom - top) * height }
        };
        [mix(0), mix(1), mix(2)]
    };
    (0..side).map(row).collect()
}

/// The colour of each row as it was painted: the median of what is like the expected one.
fn painted_rows(pixels: &[[f32; 3]], expected: &[[f32; 3]]) -> Vec<[f32; 3]> {
    let side = expected.len();
    let row = |(i, expected): (usize, &[f32; 3])| {
        let like = pixels[i * side..(i + 1) * side].iter().filter(|pixel| cost(**pixel, *expected) < UNEXPLAINED);
        let like: Vec<[f32; 3]> = like.copied().collect();
        let median = |c: usize| {
            let mut values: Vec<f32> = like.iter().map(|pixel| pixel[c]).collect();
            values.sort_by(f32::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or(expected[c])
        };
        [median(0), median(1), median(2)]
    };
    expected.iter().enumerate().map(row).collect()
}
