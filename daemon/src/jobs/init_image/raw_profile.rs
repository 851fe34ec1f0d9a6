//! EXIF metadata of a PNG as ImageMagick and exiftool have it where a program does not know the `eXIf` chunk: hexadecimal, in a
//! text that may be compressed.

use std::io::{BufRead, Seek};

/// Names of the text.
const KEYWORDS: [&str; 2] = ["Raw profile type exif", "Raw profile type APP1"];
/// The most bytes of text that are unpacked.
const MAX_TEXT: usize = 1 << 20;

/// The metadata of the PNG, if it stands before the pixels as such a text.
pub(super) fn exif(file: impl BufRead + Seek) -> Option<Vec<u8>> {
    let reader = png::Decoder::new_with_limits(file, png::Limits { bytes: 2 * MAX_TEXT }).read_info().ok()?;
    let info = reader.info();
    let is_exif = |keyword: &str| KEYWORDS.contains(&keyword);
    if let Some(text) = info.uncompressed_latin1_text.iter().find(|text| is_exif(&text.keyword)) {
        return bytes(&text.text);
    }
    let mut text = info.compressed_latin1_text.iter().find(|text| is_exif(&text.keyword))?.clone();
    text.decompress_text_with_limit(MAX_TEXT).ok()?;
    bytes(&text.get_text().ok()?)
}

/// Of a line break, the name, the length, and the bytes in lines.
fn bytes(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.split('\n').skip(3).flat_map(str::bytes).collect();
    let (pairs, _) = digits.as_chunks();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
    pairs.iter().map(byte).collect()
}
