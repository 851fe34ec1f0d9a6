//! What a caption asks for, in the words of the demo model's grammar: the truth that a painted picture is held against.

/// What a picture shows, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scene {
    pub(crate) kind: &'static str,
    pub(crate) colour: &'static str,
    pub(crate) place: &'static str,
    pub(crate) background: &'static str,
}

pub(crate) const KINDS: [&str; 12] =
    ["circle", "square", "triangle", "star", "heart", "house", "tree", "boat", "flower", "car", "fish", "cat"];

/// The object's colours, as `model-prep/demo/train/objects.py` draws them.
pub(crate) const COLOURS: [(&str, [u8; 3]); 10] = [
    ("red", [214, 40, 40]),
    ("orange", [244, 134, 28]),
    ("yellow", [250, 210, 40]),
    ("green", [46, 160, 67]),
    ("blue", [38, 94, 220]),
    ("purple", [128, 60, 180]),
    ("pink", [244, 130, 180]),
    ("white", [245, 245, 245]),
    ("black", [28, 28, 30]),
    ("brown", [130, 82, 45]),
];

/// Where the object's centre lies, as a part of the width. The middle is what a caption means that names no place.
pub(crate) const PLACES: [(&str, f32); 3] = [("on the left", 0.28), ("in the middle", 0.5), ("on the right", 0.72)];

/// A background: its phrase, the sky's colour at the top and at the horizon, and the ground's.
pub(crate) struct Background {
    pub(crate) phrase: &'static str,
    pub(crate) sky_top: [u8; 3],
    pub(crate) sky_bottom: [u8; 3],
    pub(crate) ground: [u8; 3],
}

const fn landscape(phrase: &'static str, sky_top: [u8; 3], sky_bottom: [u8; 3], ground: [u8; 3]) -> Background {
    Background { phrase, sky_top, sky_bottom, ground }
}

const fn plain(phrase: &'static str, colour: [u8; 3]) -> Background {
    landscape(phrase, colour, colour, colour)
}

pub(crate) const BACKGROUNDS: [Background; 13] = [
    landscape("on a meadow", [96, 170, 240], [190, 225, 250], [104, 178, 84]),
    landscape("on a beach", [90, 180, 245], [200, 232, 250], [236, 214, 150]),
    landscape("in the snow", [160, 195, 225], [222, 232, 240], [244, 247, 250]),
    landscape("in the desert", [246, 190, 110], [252, 226, 170], [214, 160, 90]),
    landscape("on the sea", [110, 180, 240], [190, 222, 248], [32, 104, 168]),
    landscape("at night", [10, 14, 44], [36, 44, 92], [24, 52, 40]),
    landscape("at sunset", [88, 50, 120], [250, 140, 70], [84, 62, 58]),
    plain("on a white background", [250, 250, 250]),
    plain("on a black background", [18, 18, 20]),
    plain("on a blue background", [60, 120, 230]),
    plain("on a yellow background", [252, 222, 80]),
    plain("on a pink background", [250, 170, 205]),
    plain("on a green background", [90, 185, 100]),
];

impl Scene {
    /// Reads a caption; panics where it names no kind, colour or background, for then the test's own data is wrong.
    pub(crate) fn from_caption(caption: &str) -> Scene {
        let background = BACKGROUNDS.iter().map(|b| b.phrase).find(|phrase| caption.contains(phrase));
        let background = background.unwrap_or_else(|| panic!("no background in {caption:?}"));
        let object = caption.replace(background, "");
        let word = |names: &[&'static str]| {
            let found = names.iter().find(|name| object.split([' ', ',']).any(|word| word == **name));
            *found.unwrap_or_else(|| panic!("none of {names:?} in {caption:?}"))
        };
        let place = PLACES.iter().map(|(name, _)| *name).find(|name| object.contains(name));
        Scene {
            kind: word(&KINDS),
            colour: word(&COLOURS.map(|(name, _)| name)),
            place: place.unwrap_or("in the middle"),
            background,
        }
    }
}
