//! The twelve kinds of objects as outlines and parts, after `model-prep/demo/train/objects.py`: what the
//! measuring function looks for in a picture. Coordinates are from the object's centre, in units of its radius.

use std::f32::consts::PI;

/// What a point of an object is coloured with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FigurePart {
    /// The object's colour.
    Body,
    /// The object's colour, darker.
    Dark,
    /// The object's colour, lighter.
    Light,
    /// A colour that is the same for all objects of the kind.
    Fixed([u8; 3]),
    /// A fixed colour, and another where the object has the named one.
    FixedBut([u8; 3], &'static str, [u8; 3]),
}

enum Outline {
    Polygon(Vec<[f32; 2]>),
    /// Left, top, right, bottom.
    Ellipse([f32; 4]),
    /// Left, top, right, bottom.
    Rectangle([f32; 4]),
}

impl Outline {
    fn contains(&self, x: f32, y: f32) -> bool {
        match self {
            Outline::Polygon(points) => inside_polygon(points, x, y),
            Outline::Rectangle([left, top, right, bottom]) => x >= *left && x <= *right && y >= *top && y <= *bottom,
            Outline::Ellipse([left, top, right, bottom]) => {
                let dx = (x - (left + right) / 2.0) / ((right - left) / 2.0);
                let dy = (y - (top + bottom) / 2.0) / ((bottom - top) / 2.0);
                dx * dx + dy * dy <= 1.0
            }
        }
    }
}

/// Even-odd rule.
fn inside_polygon(points: &[[f32; 2]], x: f32, y: f32) -> bool {
    let edges = points.iter().zip(points.iter().cycle().skip(1));
    let crossed =
        edges.filter(|([ax, ay], [bx, by])| (ay > &y) != (by > &y) && x < (bx - ax) * (y - ay) / (by - ay) + ax);
    crossed.count() % 2 == 1
}

/// One kind of object, its parts in the order in which they are painted.
pub(crate) struct Shape(Vec<(Outline, FigurePart)>);

impl Shape {
    /// What lies at a point, or `None` beside the object.
    pub(crate) fn part_at(&self, x: f32, y: f32) -> Option<FigurePart> {
        self.0.iter().rev().find(|(outline, _)| outline.contains(x, y)).map(|(_, part)| *part)
    }

    /// The shape of a kind, by its name in captions.
    pub(crate) fn of(kind: &str) -> Shape {
        Shape(match kind {
            "circle" => vec![(Outline::Ellipse([-1.0, -1.0, 1.0, 1.0]), FigurePart::Body)],
            "square" => vec![(Outline::Rectangle([-0.88, -0.88, 0.88, 0.88]), FigurePart::Body)],
            "triangle" => vec![(polygon(&[[0.0, -1.0], [0.95, 0.8], [-0.95, 0.8]]), FigurePart::Body)],
            "star" => vec![(star(), FigurePart::Body)],
            "heart" => vec![(heart(), FigurePart::Body)],
            "house" => house(),
            "tree" => tree(),
            "boat" => boat(),
            "flower" => flower(),
            "car" => car(),
            "fish" => fish(),
            "cat" => cat(),
            other => panic!("no kind of object is called {other:?}"),
        })
    }
}

fn polygon(points: &[[f32; 2]]) -> Outline {
    Outline::Polygon(points.to_vec())
}

/// An ellipse around a centre.
fn ellipse(x: f32, y: f32, rx: f32, ry: f32) -> Outline {
    Outline::Ellipse([x - rx, y - ry, x + rx, y + ry])
}

fn star() -> Outline {
    let corner = |i: usize| {
        let (angle, radius) = (-PI / 2.0 + i as f32 * PI / 5.0, if i.is_multiple_of(2) { 1.0 } else { 0.42 });
        [angle.cos() * radius, angle.sin() * radius]
    };
    Outline::Polygon((0..10).map(corner).collect())
}

fn heart() -> Outline {
    let point = |i: usize| {
        let t = i as f32 / 60.0 * 2.0 * PI;
        let height = 13.0 * t.cos() - 5.0 * (2.0 * t).cos() - 2.0 * (3.0 * t).cos() - (4.0 * t).cos();
        [16.0 * t.sin().powi(3) / 17.0, -height / 17.0]
    };
    Outline::Polygon((0..60).map(point).collect())
}

fn house() -> Vec<(Outline, FigurePart)> {
    let window = |x: f32| (Outline::Rectangle([x - 0.16, 0.05, x + 0.16, 0.37]), FigurePart::Fixed([252, 240, 180]));
    vec![
        (Outline::Rectangle([-0.75, -0.2, 0.75, 0.95]), FigurePart::Body),
        (polygon(&[[-0.98, -0.15], [0.0, -1.0], [0.98, -0.15]]), FigurePart::Dark),
        (Outline::Rectangle([-0.18, 0.35, 0.18, 0.95]), FigurePart::Fixed([92, 60, 40])),
        window(-0.47),
        window(0.47),
    ]
}

fn tree() -> Vec<(Outline, FigurePart)> {
    let crown = [(0.0, -0.5, 0.5), (-0.4, -0.05, 0.45), (0.4, -0.05, 0.45), (0.0, 0.0, 0.45)];
    let trunk = (Outline::Rectangle([-0.13, 0.2, 0.13, 1.0]), FigurePart::Fixed([112, 72, 42]));
    std::iter::once(trunk).chain(crown.map(|(x, y, r)| (ellipse(x, y, r, r), FigurePart::Body))).collect()
}

fn boat() -> Vec<(Outline, FigurePart)> {
    vec![
        (polygon(&[[-1.0, 0.35], [1.0, 0.35], [0.65, 0.9], [-0.65, 0.9]]), FigurePart::Dark),
        (Outline::Rectangle([-0.05, -0.95, 0.03, 0.35]), FigurePart::Fixed([90, 62, 44])),
        (polygon(&[[0.07, -0.9], [0.85, 0.22], [0.07, 0.22]]), FigurePart::Body),
        (polygon(&[[-0.1, -0.7], [-0.7, 0.22], [-0.1, 0.22]]), FigurePart::Light),
    ]
}

fn flower() -> Vec<(Outline, FigurePart)> {
    let petal = |i: usize| {
        let angle = i as f32 * PI / 3.0;
        (ellipse(angle.cos() * 0.42, -0.35 + angle.sin() * 0.42, 0.28, 0.28), FigurePart::Body)
    };
    let stem = (Outline::Rectangle([-0.06, 0.0, 0.06, 1.0]), FigurePart::Fixed([40, 120, 50]));
    let leaf = (Outline::Ellipse([0.02, 0.5, 0.5, 0.75]), FigurePart::Fixed([56, 140, 62]));
    let centre = (ellipse(0.0, -0.35, 0.22, 0.22), FigurePart::FixedBut([250, 214, 70], "yellow", [150, 90, 40]));
    [stem, leaf].into_iter().chain((0..6).map(petal)).chain([centre]).collect()
}

fn car() -> Vec<(Outline, FigurePart)> {
    let glass = FigurePart::Fixed([200, 226, 244]);
    let wheel = |x: f32| {
        let tyre = (ellipse(x, 0.5, 0.24, 0.24), FigurePart::Fixed([30, 30, 32]));
        [tyre, (ellipse(x, 0.5, 0.1, 0.1), FigurePart::Fixed([190, 190, 195]))]
    };
    let body = [
        (Outline::Rectangle([-1.0, -0.05, 1.0, 0.5]), FigurePart::Body),
        (polygon(&[[-0.6, 0.0], [-0.38, -0.48], [0.35, -0.48], [0.65, 0.0]]), FigurePart::Dark),
        (polygon(&[[-0.44, -0.04], [-0.3, -0.38], [-0.04, -0.38], [-0.04, -0.04]]), glass),
        (polygon(&[[0.04, -0.04], [0.04, -0.38], [0.28, -0.38], [0.48, -0.04]]), glass),
    ];
    body.into_iter().chain(wheel(-0.55)).chain(wheel(0.55)).collect()
}

fn fish() -> Vec<(Outline, FigurePart)> {
    vec![
        (polygon(&[[0.5, 0.0], [1.0, -0.5], [1.0, 0.5]]), FigurePart::Dark),
        (Outline::Ellipse([-0.95, -0.5, 0.65, 0.5]), FigurePart::Body),
        (Outline::Ellipse([-0.68, -0.22, -0.46, 0.0]), FigurePart::Fixed([255, 255, 255])),
        (Outline::Ellipse([-0.62, -0.16, -0.52, -0.06]), FigurePart::Fixed([10, 10, 10])),
    ]
}

fn cat() -> Vec<(Outline, FigurePart)> {
    let ear = |s: f32| (polygon(&[[s * 0.5, -0.95], [s * 0.08, -0.6], [s * 0.52, -0.3]]), FigurePart::Dark);
    let eye = |x: f32| (ellipse(x, -0.35, 0.1, 0.1), FigurePart::FixedBut([250, 250, 250], "white", [60, 60, 60]));
    vec![
        (ellipse(0.0, 0.5, 0.6, 0.5), FigurePart::Body),
        ear(-1.0),
        ear(1.0),
        (ellipse(0.0, -0.3, 0.52, 0.48), FigurePart::Body),
        eye(-0.2),
        eye(0.2),
        (polygon(&[[-0.08, -0.15], [0.08, -0.15], [0.0, -0.04]]), FigurePart::Fixed([230, 120, 130])),
    ]
}
