//! A WebP's chunks. The decoder takes their sizes, and those of the frames in them, at their word when it takes memory,
//! so they are held against the file and the image first.

use std::io::{self, BufRead, Read, Seek};

use super::FileStructure;

mod codes;

/// Bytes of a chunk's name and length.
const HEAD: u64 = 8;
/// Bytes of what a frame of an animation says of itself.
const ANIMATION_FRAME: u64 = 16;
/// How transparency is stored: as a lossless image's green.
const LOSSLESS: u8 = 1;

/// Goes through the chunks of a WebP, without reading its pixels.
pub(super) fn walk(file: &mut (impl BufRead + Seek), found: &mut FileStructure) -> io::Result<()> {
    let (_, len) = chunk(file)?;
    let mut name = [0; 4];
    file.read_exact(&mut name)?;
    // The last byte is there, and so are those before it.
    let start = file.stream_position()?;
    let inside = len.checked_sub(4).ok_or_else(contradiction)?;
    if inside > 0 {
        file.seek_relative(inside as i64 - 1)?;
        file.read_exact(&mut [0])?;
        file.seek(io::SeekFrom::Start(start))?;
    }
    chunks(file, inside, None, found)?;
    found.is_whole = true;
    Ok(())
}

/// Goes through chunks of `left` bytes in all: those of an animation's frame of the size `canvas`, or of the file.
fn chunks(
    file: &mut (impl BufRead + Seek),
    mut left: u64,
    mut canvas: Option<(u32, u32)>,
    found: &mut FileStructure,
) -> io::Result<()> {
    let is_file = canvas.is_none();
    while left >= HEAD {
        let (name, len) = chunk(file)?;
        let padded = len + len % 2;
        left = left.checked_sub(HEAD + len).ok_or_else(contradiction)?;
        let end = file.stream_position()? + padded;
        let size = match &name {
            b"VP8X" if is_file => {
                let [_, _, _, _, w, i, d, h, g, t] = bytes(file)?;
                canvas = Some((number([w, i, d]) + 1, number([h, g, t]) + 1));
                None
            }
            b"VP8 " => {
                let [_, _, _, _, _, _, w, i, h, g] = bytes(file)?;
                Some((u32::from(u16::from_le_bytes([w, i]) & 0x3fff), u32::from(u16::from_le_bytes([h, g]) & 0x3fff)))
            }
            b"VP8L" => {
                let [_, a, b, c, d] = bytes(file)?;
                let sizes = u32::from_le_bytes([a, b, c, d]);
                let size = ((sizes & 0x3fff) + 1, (sizes >> 14 & 0x3fff) + 1);
                let codes = codes::memory(file.by_ref().take(len.saturating_sub(5)), size)?;
                found.codes = found.codes.max(codes);
                Some(size)
            }
            b"ALPH" => {
                let [head] = bytes(file)?;
                if let (LOSSLESS, Some(size)) = (head & 3, canvas) {
                    let codes = codes::memory(file.by_ref().take(len.saturating_sub(1)), size)?;
                    found.codes = found.codes.max(codes);
                }
                None
            }
            b"ANMF" if is_file => {
                let [_, _, _, _, _, _, w, i, d, h, g, t, _, _, _, _] = bytes(file)?;
                let size = (number([w, i, d]) + 1, number([h, g, t]) + 1);
                chunks(file, len.saturating_sub(ANIMATION_FRAME), Some(size), found)?;
                None
            }
            _ => None,
        };
        if size.is_some() && canvas.is_some() && size != canvas {
            return Err(contradiction());
        }
        file.seek(io::SeekFrom::Start(end))?;
        left = left.saturating_sub(len % 2);
    }
    Ok(())
}

fn chunk(file: &mut impl Read) -> io::Result<([u8; 4], u64)> {
    let [n, a, m, e, length @ ..] = bytes::<8>(file)?;
    Ok(([n, a, m, e], u32::from_le_bytes(length).into()))
}

fn bytes<const N: usize>(file: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn number([low, middle, high]: [u8; 3]) -> u32 {
    u32::from_le_bytes([low, middle, high, 0])
}

fn contradiction() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "its sizes contradict each other")
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn chunk(name: &[u8; 4], payload: &[u8]) -> Vec<u8> {
        [name, &(payload.len() as u32).to_le_bytes()[..], payload].concat()
    }

    fn file(chunks: &[Vec<u8>]) -> Vec<u8> {
        chunk(b"RIFF", &[b"WEBP".to_vec(), chunks.concat()].concat())
    }

    fn check(bytes: &[u8]) -> io::Result<bool> {
        let mut found = FileStructure::default();
        walk(&mut Cursor::new(bytes), &mut found).map(|()| found.is_whole)
    }

    #[test]
    fn frames_have_the_size_that_the_image_has() {
        let canvas = |width: u8, height: u8| chunk(b"VP8X", &[0, 0, 0, 0, width - 1, 0, 0, height - 1, 0, 0]);
        let lossy = |width: u8, height: u8| chunk(b"VP8 ", &[0, 0, 0, 0, 0, 0, width, 0, height, 0]);
        let sizes = |width: u32, height: u32| ((width - 1) | ((height - 1) << 14)).to_le_bytes();
        // No transforms, no cached colours, one group of codes with one symbol each.
        let codes = [0b1000_1000, 0b1000_1000, 0b1000, 0];
        let lossless = |width, height| chunk(b"VP8L", &[&[0x2f][..], &sizes(width, height), &codes].concat());
        let animated = |width: u8, height: u8, inner: Vec<u8>| {
            let head = [0, 0, 0, 0, 0, 0, width - 1, 0, 0, height - 1, 0, 0, 0, 0, 0, 0];
            chunk(b"ANMF", &[&head[..], &inner].concat())
        };
        let good = [
            vec![lossy(9, 7)],
            vec![lossless(9, 7)],
            vec![canvas(9, 7), lossy(9, 7)],
            vec![canvas(9, 7), animated(4, 3, lossless(4, 3))],
        ];
        assert!(good.iter().all(|chunks| check(&file(chunks)).unwrap()));
        let bad = [
            vec![canvas(9, 7), lossy(9, 8)],
            vec![canvas(9, 7), lossless(10, 7)],
            vec![canvas(9, 7), animated(4, 3, lossy(5, 3))],
        ];
        assert!(bad.iter().all(|chunks| check(&file(chunks)).is_err()));
    }

    #[test]
    fn a_chunk_longer_than_the_file_is_refused() {
        let mut bytes = file(&[chunk(b"EXIF", &[1, 2])]);
        bytes[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(check(&bytes).unwrap_err().kind(), io::ErrorKind::InvalidData);
        bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(check(&bytes).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
