//! A colour as requests and configurations write it.

use std::fmt;
use std::str::FromStr;

use image::Rgb;
use serde::{Deserialize, Serialize};

/// A colour in sRGB: red, green, blue. Written `#rrggbb`; `white` and `black` are read too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Colour(pub [u8; 3]);

impl Colour {
    /// Paper.
    pub const WHITE: Colour = Colour([255; 3]);
}

impl Default for Colour {
    fn default() -> Colour {
        Colour::WHITE
    }
}

impl fmt::Display for Colour {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let [red, green, blue] = self.0;
        write!(f, "#{red:02x}{green:02x}{blue:02x}")
    }
}

impl FromStr for Colour {
    type Err = String;

    fn from_str(text: &str) -> Result<Colour, String> {
        let digits = |text: &str| {
            let digits = text.strip_prefix('#')?;
            let hexadecimal = digits.len() == 6 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            u32::from_str_radix(digits, 16).ok().filter(|_| hexadecimal)
        };
        match text.to_ascii_lowercase().as_str() {
            "white" => Ok(Colour::WHITE),
            "black" => Ok(Colour([0; 3])),
            text => match digits(text).map(u32::to_be_bytes) {
                Some([_, red, green, blue]) => Ok(Colour([red, green, blue])),
                None => Err("expected a colour as #rrggbb, for example #ff8000, or white or black".into()),
            },
        }
    }
}

impl TryFrom<String> for Colour {
    type Error = String;

    fn try_from(text: String) -> Result<Colour, String> {
        text.parse()
    }
}

impl From<Colour> for String {
    fn from(colour: Colour) -> String {
        colour.to_string()
    }
}

impl From<Colour> for Rgb<u8> {
    fn from(colour: Colour) -> Rgb<u8> {
        Rgb(colour.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_six_digits_or_a_name() {
        for (text, colour) in [("#0a141e", [10, 20, 30]), ("#FF8000", [255, 128, 0]), ("White", [255; 3])] {
            assert_eq!(text.parse(), Ok(Colour(colour)));
            assert_eq!(Colour(colour).to_string().parse(), Ok(Colour(colour)));
        }
        for text in ["", "#", "#fff", "#12345é", "#+12345", "0a141e", "red"] {
            assert!(text.parse::<Colour>().is_err(), "{text}");
        }
    }
}
