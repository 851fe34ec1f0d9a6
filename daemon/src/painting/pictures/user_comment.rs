//! Text in a JPEG: EXIF's comment in UTF-16, in which A1111 writes its parameters and other programs look for them.

/// The tag that leads from the first directory to EXIF's own.
const EXIF_DIRECTORY: u16 = 0x8769;
const USER_COMMENT: u16 = 0x9286;
/// Types of values: a number of four bytes, and bytes that have no type.
const LONG: u16 = 4;
const UNDEFINED: u16 = 7;
/// The order of bytes, the number 42, and where the first directory is: right behind.
const HEADER: [u8; 8] = *b"MM\0*\0\0\0\x08";
/// Bytes of a directory with one entry: how many there are, the entry, and that no other directory follows.
const DIRECTORY: usize = 2 + 12 + 4;
const COMMENT: usize = HEADER.len() + 2 * DIRECTORY;
/// What the comment begins with says its encoding.
const ENCODING: &[u8; 8] = b"UNICODE\0";
/// The most bytes of a segment behind its length and its name.
const MAX: usize = 0xffff - 2 - 6;
/// The most units of UTF-16.
const MAX_UNITS: usize = (MAX - COMMENT - ENCODING.len()) / 2;

/// EXIF metadata that has `text` and nothing else. Of a text that is too long for it the end is kept, where the
/// parameters are.
pub(super) fn write(text: &str) -> Vec<u8> {
    let text = shortened(text);
    let units = text.encode_utf16().flat_map(u16::to_be_bytes);
    let comment: Vec<u8> = ENCODING.iter().copied().chain(units).collect();
    let entry = |tag: u16, kind: u16, count: usize, value: usize| {
        let [count, value] = [count, value].map(|number| (number as u32).to_be_bytes());
        [&[0, 1][..], &tag.to_be_bytes(), &kind.to_be_bytes(), &count, &value, &[0; 4]].concat()
    };
    let first = entry(EXIF_DIRECTORY, LONG, 1, HEADER.len() + DIRECTORY);
    let second = entry(USER_COMMENT, UNDEFINED, comment.len(), COMMENT);
    [&HEADER[..], &first, &second, &comment].concat()
}

/// The text of metadata in the order of bytes that `write` uses.
pub(super) fn read(exif: &[u8]) -> Option<String> {
    exif.strip_prefix(&HEADER)?;
    let own = entry_of(exif, HEADER.len(), EXIF_DIRECTORY)?;
    let (len, place) = entry_of(exif, own.1, USER_COMMENT)?;
    let comment = exif.get(place..)?.get(..len)?.strip_prefix(ENCODING)?;
    let (units, _) = comment.as_chunks();
    String::from_utf16(&units.iter().map(|unit| u16::from_be_bytes(*unit)).collect::<Vec<_>>()).ok()
}

/// Count and value of the entry `tag` of the directory at `place`.
fn entry_of(exif: &[u8], place: usize, tag: u16) -> Option<(usize, usize)> {
    let (count, entries) = exif.get(place..)?.split_first_chunk()?;
    let entries = entries.as_chunks().0.iter().take(u16::from_be_bytes(*count).into());
    let number = |bytes: [u8; 4]| u32::from_be_bytes(bytes) as usize;
    entries.into_iter().find_map(|&[t, ag, _, _, a, b, c, d, e, f, g, h]: &[u8; 12]| {
        (u16::from_be_bytes([t, ag]) == tag).then(|| (number([a, b, c, d]), number([e, f, g, h])))
    })
}

fn shortened(text: &str) -> String {
    if text.encode_utf16().count() <= MAX_UNITS {
        return text.to_owned();
    }
    let mut units = 1; // of the ellipsis
    let fits = |c: &char| {
        units += c.len_utf16();
        units <= MAX_UNITS
    };
    let end: usize = text.chars().rev().take_while(fits).map(char::len_utf8).sum();
    format!("…{}", &text[text.len() - end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_where_a1111_has_it() {
        let text = "a red house, 家 😀\nSteps: 20";
        let theirs = include_bytes!("../../../../tests/goldens/init_images/a1111.exif");
        assert_eq!(read(theirs).as_deref(), Some(text));
        assert_eq!(read(&write(text)).as_deref(), Some(text));
    }

    #[test]
    fn damaged_metadata_has_no_text() {
        let whole = write("a");
        assert!((0..whole.len()).all(|end| read(&whole[..end]).is_none()));
        for index in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[index] = 0xff;
            let _ = read(&damaged);
        }
    }
}
