//! The prefix codes of a lossless WebP, read ahead of its decoder: of a few bytes each, it makes tables of some kilobytes, and
//! there may be 5 · 65536 of them. So what they will take is counted first, from the stream's own description of them ("WebP
//! Lossless Bitstream Specification", RFC 9649); nothing is held meanwhile but one code's lengths.

use std::io::{self, Read};

/// The codes of a group: green and lengths, red, blue, alpha, distances; and the symbols of each, without cached colours.
const ALPHABETS: [u16; 5] = [256 + LENGTHS, 256, 256, 256, 40];
/// Symbols for the lengths of copies, behind the values of green.
const LENGTHS: u16 = 24;
/// The order of the lengths of the code that the others' lengths are written in.
const ORDER: [usize; 19] = [17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
const LONGEST: usize = 15;
/// A code's bits that the decoder looks up at once, in a table with four bytes for each of their values.
const LOOKED_UP: usize = 10;
/// Bytes of a longer symbol: two nodes of a tree.
const SYMBOL: u64 = 32;
/// Bytes of a group of codes itself, while the list of them grows.
const GROUP: u64 = 1 << 10;

/// Bytes that the decoder takes for the codes of the stream that `file` is at, of an image of this width and height.
///
/// # Errors
///
/// Where the stream ends early or is damaged.
pub(super) fn memory(file: impl Read, (width, height): (u32, u32)) -> io::Result<u64> {
    let mut bits = Bits { file, held: 0, left: 0 };
    let blocks = |size: u32, width: u32| u64::from(width.div_ceil(1 << size)) * u64::from(height.div_ceil(1 << size));
    let mut width = width;
    let mut transforms = 4;
    while bits.is_set()? {
        transforms = u32::checked_sub(transforms, 1).ok_or_else(damaged)?;
        match bits.take(2)? {
            0 | 1 => {
                let size = bits.take(3)? + 2;
                skip_image(&mut bits, blocks(size, width))?;
            }
            2 => {}
            _ => {
                let colours = bits.take(8)? + 1;
                skip_image(&mut bits, colours.into())?;
                let packed = [(2, 3), (4, 2), (16, 1)].into_iter().find(|(most, _)| colours <= *most);
                width = width.div_ceil(1 << packed.map_or(0, |(_, shift)| shift));
            }
        }
    }
    let cached = cached_colours(&mut bits)?;
    let groups = if bits.is_set()? {
        let size = bits.take(3)? + 2;
        skip_image(&mut bits, blocks(size, width))? + 1
    } else {
        1
    };
    let mut bytes = GROUP * groups;
    for _ in 0..groups {
        for alphabet in alphabets(cached) {
            bytes += PrefixCode::read(&mut bits, alphabet)?.memory();
        }
    }
    Ok(bytes)
}

/// Passes over an image of so many pixels within the stream. Gives the largest number that its pixels stand for as numbers of
/// groups: pixels that are not copies have all of them.
fn skip_image(bits: &mut Bits<impl Read>, pixels: u64) -> io::Result<u64> {
    let cached = cached_colours(bits)?;
    let [green, red, blue, alpha, distance] = alphabets(cached).map(|alphabet| PrefixCode::read(bits, alphabet));
    let [green, red, blue, alpha, distance] = [green?, red?, blue?, alpha?, distance?];
    let (mut made, mut largest) = (0, 0);
    while made < pixels {
        let symbol = green.symbol(bits)?;
        match symbol.checked_sub(256) {
            None => {
                largest = largest.max(u64::from(red.symbol(bits)?) << 8 | u64::from(symbol));
                blue.symbol(bits)?;
                alpha.symbol(bits)?;
                made += 1;
            }
            Some(length) if length < LENGTHS => {
                made += long(bits, length)?;
                let symbol = distance.symbol(bits)?;
                long(bits, symbol)?;
            }
            Some(_) => made += 1,
        }
    }
    Ok(largest)
}

/// A length or a distance that `symbol` and the bits behind it stand for.
fn long(bits: &mut Bits<impl Read>, symbol: u16) -> io::Result<u64> {
    let symbol = u32::from(symbol);
    if symbol < 4 {
        return Ok(u64::from(symbol) + 1);
    }
    let more = (symbol - 2) >> 1;
    Ok(u64::from((2 + (symbol & 1)) << more) + u64::from(bits.take(more)?) + 1)
}

/// How many colours are kept to be used again.
fn cached_colours(bits: &mut Bits<impl Read>) -> io::Result<u16> {
    if !bits.is_set()? {
        return Ok(0);
    }
    match bits.take(4)? {
        size @ 1..=11 => Ok(1 << size),
        _ => Err(damaged()),
    }
}

fn alphabets(cached: u16) -> [u16; 5] {
    let [green, red, blue, alpha, distance] = ALPHABETS;
    [green + cached, red, blue, alpha, distance]
}

/// A prefix code: how many symbols have each length, and the symbols in the order of their codes.
struct PrefixCode {
    /// Of 1 bit, of 2, ….
    counts: [u32; LONGEST],
    symbols: Vec<u16>,
}

impl PrefixCode {
    fn read(bits: &mut Bits<impl Read>, alphabet: u16) -> io::Result<PrefixCode> {
        if bits.is_set()? {
            let has_two = bits.is_set()?;
            let len = if bits.is_set()? { 8 } else { 1 };
            let first = bits.short(len)?;
            let symbols = if has_two { vec![first, bits.short(8)?] } else { vec![first] };
            let of_one_bit = 1 + u32::from(has_two);
            let counts = std::array::from_fn(|at| if at == 0 { of_one_bit } else { 0 });
            return Ok(PrefixCode { counts, symbols });
        }
        let mut lengths = [0; ORDER.len()];
        for place in ORDER.into_iter().take(4 + bits.take(4)? as usize) {
            let length = bits.short(3)?;
            lengths.iter_mut().skip(place).take(1).for_each(|of| *of = length);
        }
        let lengths = PrefixCode::of_lengths(&lengths)?;
        PrefixCode::of_lengths(&lengths.read_lengths(bits, alphabet)?)
    }

    /// The lengths of another code, which are written in this one.
    fn read_lengths(&self, bits: &mut Bits<impl Read>, alphabet: u16) -> io::Result<Vec<u16>> {
        let mut left = if bits.is_set()? {
            let len = 2 + 2 * bits.take(3)?;
            2 + bits.take(len)?
        } else {
            alphabet.into()
        };
        let alphabet = usize::from(alphabet);
        let (mut lengths, mut last) = (Vec::with_capacity(alphabet), 8);
        while lengths.len() < alphabet && left > 0 {
            left -= 1;
            let (length, times) = match self.symbol(bits)? {
                16 => (last, 3 + bits.take(2)?),
                17 => (0, 3 + bits.take(3)?),
                18 => (0, 11 + bits.take(7)?),
                length => (length, 1),
            };
            last = if length > 0 { length } else { last };
            lengths.extend((0..times).map(|_| length));
        }
        if lengths.len() > alphabet { Err(damaged()) } else { Ok(lengths) }
    }

    /// The canonical code of symbols with these lengths, of which 0 is for symbols that do not occur.
    fn of_lengths(lengths: &[u16]) -> io::Result<PrefixCode> {
        let mut symbols: Vec<(u16, u16)> =
            (0..).zip(lengths).filter(|of| *of.1 > 0).map(|(at, len)| (*len, at)).collect();
        symbols.sort_unstable();
        let mut counts = [0; LONGEST];
        for (count, length) in counts.iter_mut().zip(1..) {
            *count = symbols.iter().filter(|of| of.0 == length).fold(0, |count, _| count + 1);
        }
        let symbols: Vec<u16> = symbols.into_iter().map(|of| of.1).collect();
        if symbols.is_empty() { Err(damaged()) } else { Ok(PrefixCode { counts, symbols }) }
    }

    fn symbol(&self, bits: &mut Bits<impl Read>) -> io::Result<u16> {
        if let [only] = self.symbols[..] {
            return Ok(only);
        }
        let (mut code, mut first, mut before) = (0, 0, 0);
        for count in &self.counts {
            code |= bits.take(1)?;
            if code < first + count {
                return self.symbols.get((before + code - first) as usize).copied().ok_or_else(damaged);
            }
            before += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        Err(damaged())
    }

    /// Bytes that the decoder takes for it.
    fn memory(&self) -> u64 {
        if self.symbols.len() < 2 {
            return 0;
        }
        let longest = self.counts.iter().rposition(|count| *count > 0).map_or(0, |at| at + 1);
        let beyond: u32 = self.counts.iter().skip(LOOKED_UP).sum();
        (4 << longest.min(LOOKED_UP)) + SYMBOL * u64::from(beyond.max(2)) + 64
    }
}

/// Bits of a file, each byte's lowest first.
struct Bits<R> {
    file: R,
    held: u32,
    left: u32,
}

impl<R: Read> Bits<R> {
    fn is_set(&mut self) -> io::Result<bool> {
        Ok(self.take(1)? == 1)
    }

    /// A number of `count` bits, at most 16.
    fn short(&mut self, count: u32) -> io::Result<u16> {
        u16::try_from(self.take(count)?).map_err(|_| damaged())
    }

    /// A number of `count` bits, at most 24.
    fn take(&mut self, count: u32) -> io::Result<u32> {
        while self.left < count {
            let [byte] = super::bytes(&mut self.file)?;
            self.held |= u32::from(byte) << self.left;
            self.left += 8;
        }
        let number = self.held & ((1 << count) - 1);
        self.held >>= count;
        self.left -= count;
        Ok(number)
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "its codes are damaged")
}
