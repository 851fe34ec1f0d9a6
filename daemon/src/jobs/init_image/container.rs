//! What an image file's own structure says before anything is unpacked: whether its end is there, which decoders do not
//! miss, and where its metadata is.

use std::io::{self, BufRead, Read, Seek};

/// The most bytes of metadata that are read.
const MAX_EXIF: u32 = 1 << 20;

/// Of a JPEG.
#[derive(Debug, PartialEq)]
pub(super) struct Jpeg {
    /// Whether it is unpacked row by row: a sequential one with all components in its first scan.
    pub(super) is_sequential: bool,
    /// Whether it has the marker that ends an image.
    pub(super) is_whole: bool,
}

/// Of a PNG.
#[derive(Debug, PartialEq)]
pub(super) struct Png {
    /// Its metadata, which may stand before the pixels or behind them.
    pub(super) exif: Option<Vec<u8>>,
    /// Whether it has the chunk that ends an image.
    pub(super) is_whole: bool,
}

/// Reads a JPEG from its beginning to the end of its first image.
///
/// # Errors
///
/// Where the file cannot be read. One that ends early is not whole.
pub(super) fn jpeg(mut file: impl BufRead) -> io::Result<Jpeg> {
    let mut found = Jpeg { is_sequential: false, is_whole: false };
    match walk_jpeg(&mut file, &mut found) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(found),
        walked => walked.map(|()| found),
    }
}

fn walk_jpeg(file: &mut impl BufRead, found: &mut Jpeg) -> io::Result<()> {
    let (mut components, mut scans) = (None, 0);
    loop {
        match next_marker(file)? {
            // Those without a segment: a filler's end, restarts, the beginning of an image.
            0x00 | 0x01 | 0xd0..=0xd8 => continue,
            0xd9 => {
                found.is_whole = true;
                return Ok(());
            }
            marker => {
                let segment = segment(file)?;
                if matches!(marker, 0xc0 | 0xc1) {
                    components = segment.get(5).copied();
                }
                if marker == 0xda {
                    scans += 1;
                    found.is_sequential |= scans == 1 && components.is_some() && components == segment.first().copied();
                }
            }
        }
    }
}

/// Skips what is no marker: a scan's data.
fn next_marker(file: &mut impl BufRead) -> io::Result<u8> {
    if file.skip_until(0xff)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    loop {
        match byte(file)? {
            0xff => continue,
            marker => return Ok(marker),
        }
    }
}

fn segment(file: &mut impl Read) -> io::Result<Vec<u8>> {
    let len = u16::from_be_bytes([byte(file)?, byte(file)?]).saturating_sub(2);
    let mut segment = vec![0; len.into()];
    file.read_exact(&mut segment)?;
    Ok(segment)
}

fn byte(file: &mut impl Read) -> io::Result<u8> {
    let mut byte = [0];
    file.read_exact(&mut byte)?;
    Ok(byte[0])
}

/// Goes through the chunks of a PNG from its beginning, without reading its pixels.
///
/// # Errors
///
/// Where the file cannot be read. One that ends early is not whole.
pub(super) fn png(mut file: impl BufRead + Seek) -> io::Result<Png> {
    let mut found = Png { exif: None, is_whole: false };
    match walk_png(&mut file, &mut found) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(found),
        walked => walked.map(|()| found),
    }
}

fn walk_png(file: &mut (impl BufRead + Seek), found: &mut Png) -> io::Result<()> {
    const SIGNATURE: i64 = 8;
    const CHECKSUM: i64 = 4;
    file.seek_relative(SIGNATURE)?;
    loop {
        let mut head = [0; 8];
        file.read_exact(&mut head)?;
        let [a, b, c, d, name @ ..] = head;
        let len = u32::from_be_bytes([a, b, c, d]);
        match &name {
            b"IEND" => {
                found.is_whole = true;
                return Ok(());
            }
            b"eXIf" if len <= MAX_EXIF => {
                let mut exif = vec![];
                if file.take(len.into()).read_to_end(&mut exif)? < len as usize {
                    return Ok(());
                }
                // Some write it as it stands in a JPEG.
                found.exif = Some(exif.strip_prefix(b"Exif\0\0").map(<[u8]>::to_vec).unwrap_or(exif));
                file.seek_relative(CHECKSUM)?;
            }
            _ => file.seek_relative(i64::from(len) + CHECKSUM)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{ImageFormat, RgbImage};

    use super::*;

    fn file(format: ImageFormat) -> Vec<u8> {
        let mut file = Cursor::new(vec![]);
        RgbImage::from_fn(40, 40, |x, y| image::Rgb([x as u8 * 6, y as u8 * 6, 7]))
            .write_to(&mut file, format)
            .unwrap();
        file.into_inner()
    }

    #[test]
    fn a_jpeg_ends_with_its_marker() {
        let mut bytes = file(ImageFormat::Jpeg);
        assert_eq!(jpeg(&bytes[..]).unwrap(), Jpeg { is_sequential: true, is_whole: true });
        for end in 0..bytes.len() {
            assert!(!jpeg(&bytes[..end]).unwrap().is_whole, "{end}");
        }
        let frame = bytes.windows(2).position(|bytes| bytes == [0xff, 0xc0]).unwrap();
        bytes[frame + 1] = 0xc2;
        assert_eq!(jpeg(&bytes[..]).unwrap(), Jpeg { is_sequential: false, is_whole: true });
    }

    #[test]
    fn a_png_ends_with_its_chunk() {
        let bytes = file(ImageFormat::Png);
        assert_eq!(png(Cursor::new(&bytes)).unwrap(), Png { exif: None, is_whole: true });
        for end in 0..bytes.len() - 8 {
            assert!(!png(Cursor::new(&bytes[..end])).unwrap().is_whole, "{end}");
        }
    }

    #[test]
    fn exif_may_stand_behind_the_pixels() {
        let mut bytes = file(ImageFormat::Png);
        let chunk = [&[0, 0, 0, 9][..], b"eXIfExif\0\0abc", &[0; 4]].concat();
        let end = bytes.len() - 12;
        bytes.splice(end..end, chunk);
        assert_eq!(png(Cursor::new(&bytes)).unwrap(), Png { exif: Some(b"abc".to_vec()), is_whole: true });
    }
}
