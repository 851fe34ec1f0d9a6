//! What an image file's own structure says before anything is unpacked: whether its end is there, which decoders do not
//! miss, and where its metadata is.

use std::io::{self, BufRead, Read, Seek};

use image::ImageFormat;

mod webp;

/// The most bytes of metadata that are read.
const MAX_EXIF: u32 = 1 << 20;

/// What the structure says.
#[derive(Debug, Default, PartialEq)]
pub(super) struct FileStructure {
    /// Whether the file's end is there, as far as its structure shows that.
    pub(super) is_whole: bool,
    /// Of a JPEG, whether it is unpacked row by row: a sequential one with all components in its first scan.
    pub(super) is_sequential: bool,
    /// Of a WebP, bytes that its decoder takes for the codes of a lossless image.
    pub(super) codes: u64,
    /// Of a PNG, its metadata, which may stand before the pixels or behind them.
    pub(super) exif: Option<Vec<u8>>,
}

/// Reads the structure of a file from its beginning.
///
/// # Errors
///
/// Where the file cannot be read, or its sizes contradict each other. One that ends early is not whole.
pub(super) fn read(format: ImageFormat, file: &mut (impl BufRead + Seek)) -> io::Result<FileStructure> {
    let mut found = FileStructure::default();
    let walked = match format {
        ImageFormat::Jpeg => walk_jpeg(file, &mut found),
        ImageFormat::Png => walk_png(file, &mut found),
        ImageFormat::WebP => webp::walk(file, &mut found),
        _ => {
            found.is_whole = true;
            Ok(())
        }
    };
    match walked {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(found),
        walked => walked.map(|()| found),
    }
}

/// Reads a JPEG to the end of its first image.
fn walk_jpeg(file: &mut impl BufRead, found: &mut FileStructure) -> io::Result<()> {
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

/// Skips what is not a marker: a scan's data.
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

/// Goes through the chunks of a PNG, without reading its pixels.
fn walk_png(file: &mut (impl BufRead + Seek), found: &mut FileStructure) -> io::Result<()> {
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
                found.exif = Some(exif);
                file.seek_relative(CHECKSUM)?;
            }
            _ => file.seek_relative(i64::from(len) + CHECKSUM)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::RgbImage;

    use super::*;

    fn file(format: ImageFormat) -> Vec<u8> {
        let mut file = Cursor::new(vec![]);
        RgbImage::from_fn(40, 40, |x, y| image::Rgb([x as u8 * 6, y as u8 * 6, 7]))
            .write_to(&mut file, format)
            .unwrap();
        file.into_inner()
    }

    fn read_bytes(format: ImageFormat, bytes: &[u8]) -> FileStructure {
        read(format, &mut Cursor::new(bytes)).unwrap()
    }

    #[test]
    fn a_file_that_ends_early_is_not_whole() {
        // A JPEG's last marker counts, of a PNG its last chunk's name, of a WebP its last byte.
        for (format, needless) in [(ImageFormat::Jpeg, 0), (ImageFormat::Png, 8), (ImageFormat::WebP, 0)] {
            let bytes = file(format);
            assert!(read_bytes(format, &bytes).is_whole, "{format:?}");
            for end in 0..bytes.len() - needless {
                assert!(!read_bytes(format, &bytes[..end]).is_whole, "{format:?} of {end} bytes");
            }
        }
    }

    #[test]
    fn only_baseline_jpegs_are_sequential() {
        let mut bytes = file(ImageFormat::Jpeg);
        assert!(read_bytes(ImageFormat::Jpeg, &bytes).is_sequential);
        let frame = bytes.windows(2).position(|bytes| bytes == [0xff, 0xc0]).unwrap();
        bytes[frame + 1] = 0xc2;
        assert!(!read_bytes(ImageFormat::Jpeg, &bytes).is_sequential);
    }

    #[test]
    fn exif_may_stand_behind_the_pixels() {
        let mut bytes = file(ImageFormat::Png);
        let chunk = [&[0, 0, 0, 9][..], b"eXIfExif\0\0abc", &[0; 4]].concat();
        let end = bytes.len() - 12;
        bytes.splice(end..end, chunk);
        assert_eq!(read_bytes(ImageFormat::Png, &bytes).exif.as_deref(), Some(&b"Exif\0\0abc"[..]));
    }
}
