//! Where the files of a zip archive lie. Only files that are stored as they are can be read: torch compresses none, and
//! so nothing has to be unpacked and no archive can be larger inside than it is.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::byte_reader::ByteReader;
use super::file::MAX_TENSORS;
use crate::error::{Error, Result};

/// Most bytes of the archive's directory.
const MAX_DIRECTORY: u64 = 32 << 20;

/// Most files: one for each tensor, and some more.
const MAX_FILES: usize = MAX_TENSORS + 100;

/// A file in an archive.
#[derive(Debug, Clone, Copy)]
pub(super) struct ZipMember {
    /// Where its header lies, bytes of the archive.
    header: u64,
    /// Its length, bytes.
    pub(super) len: u64,
    /// It can be read in place.
    plain: bool,
}

/// The files of an archive by their names.
pub(super) struct Zip<'a> {
    path: &'a Path,
    file: &'a File,
    len: u64,
    /// The directory.
    pub(super) members: BTreeMap<String, ZipMember>,
}

/// Where the directory lies.
struct Directory {
    offset: u64,
    len: u64,
}

impl<'a> Zip<'a> {
    /// Reads the directory of the archive `path` of `len` bytes.
    ///
    /// # Errors
    ///
    /// An archive that is cut off, in several parts, or larger than any checkpoint's.
    pub(super) fn open(path: &'a Path, file: &'a File, len: u64) -> Result<Zip<'a>> {
        let mut zip = Zip { path, file, len, members: BTreeMap::new() };
        let Directory { offset, len } = zip.directory()?;
        if len > MAX_DIRECTORY {
            return Err(zip.broken(&format!("its directory has {len} bytes; allowed are {MAX_DIRECTORY}")));
        }
        let bytes = zip.bytes(offset, usize::try_from(len).unwrap_or(usize::MAX))?;
        let mut rest = ByteReader(&bytes);
        while !rest.0.is_empty() {
            let (name, member) = member(&mut rest).ok_or_else(|| zip.broken("its directory is damaged"))?;
            if zip.members.insert(name.clone(), member).is_some() {
                return Err(zip.broken(&format!("{name} is there twice")));
            }
            if zip.members.len() > MAX_FILES {
                return Err(zip.broken(&format!("it holds more than {MAX_FILES} files")));
            }
        }
        Ok(zip)
    }

    /// Where `member`, called `name`, lies, bytes of the archive.
    ///
    /// # Errors
    ///
    /// A file that is compressed, encrypted or not wholly there.
    pub(super) fn offset(&self, name: &str, member: ZipMember) -> Result<u64> {
        if !member.plain {
            return Err(
                self.broken(&format!("{name} is compressed or encrypted, as torch stores nothing; unpack it first"))
            );
        }
        let header = self.bytes(member.header, 30)?;
        let mut fields = ByteReader(&header);
        let lengths = (fields.take(4) == Some(b"PK\x03\x04")).then(|| {
            fields.take(22)?;
            Some(u64::from(fields.u16()?) + u64::from(fields.u16()?))
        });
        let Some(lengths) = lengths.flatten() else { return Err(self.broken(&format!("{name} has no header"))) };
        let offset = member.header + 30 + lengths;
        match offset.checked_add(member.len).is_some_and(|end| end <= self.len) {
            true => Ok(offset),
            false => Err(self.broken(&format!("{name} ends behind the archive's end"))),
        }
    }

    /// All of the file `name`, which may have `most` bytes; `None` if it is not there.
    ///
    /// # Errors
    ///
    /// Those of `offset`, and a longer file.
    pub(super) fn read(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>> {
        let Some(member) = self.members.get(name) else { return Ok(None) };
        if member.len > most {
            return Err(self.broken(&format!("{name} has {} bytes; allowed are {most}", member.len)));
        }
        let offset = self.offset(name, *member)?;
        self.bytes(offset, usize::try_from(member.len).unwrap_or(usize::MAX)).map(Some)
    }

    /// An error of the archive.
    pub(super) fn broken(&self, message: &str) -> Error {
        Error::file(self.path, format!("not a whole zip archive as torch writes it: {message}"))
    }

    /// Looks for the directory from the archive's end, where a comment may follow it.
    fn directory(&self) -> Result<Directory> {
        let start = self.len.saturating_sub(22 + 0xffff);
        let end = self.bytes(start, usize::try_from(self.len - start).unwrap_or(usize::MAX))?;
        let cut_off =
            || self.broken(&format!("its directory, at the end, is missing ({} bytes); copy it again", self.len));
        let at = end.windows(4).rposition(|window| window == b"PK\x05\x06").ok_or_else(cut_off)?;
        let mut fields = ByteReader(end.get(at + 4..).unwrap_or_default());
        let place = fields.take(8).and_then(|_| {
            let place = (u64::from(fields.u32()?), u64::from(fields.u32()?));
            let comment = fields.u16()?;
            fields.take(comment.into())?;
            Some(place)
        });
        let (len, offset) = place.ok_or_else(cut_off)?;
        // Sizes that need 64 bits are in another record, which the twenty bytes before this one point to.
        let wide = at.checked_sub(20).and_then(|at| self.wide_directory(end.get(at..)?));
        let directory = wide.transpose()?.unwrap_or(Directory { offset, len });
        match directory.offset.checked_add(directory.len).is_some_and(|end| end <= self.len) {
            true => Ok(directory),
            false => Err(cut_off()),
        }
    }

    /// The directory's place from the record of large archives, which `locator` points to.
    fn wide_directory(&self, locator: &[u8]) -> Option<Result<Directory>> {
        let mut locator = ByteReader(locator);
        (locator.take(4)? == b"PK\x06\x07").then_some(())?;
        locator.u32()?;
        let record = match self.bytes(locator.u64()?, 56) {
            Ok(record) => record,
            Err(error) => return Some(Err(error)),
        };
        let mut fields = ByteReader(&record);
        (fields.take(4)? == b"PK\x06\x06").then_some(())?;
        fields.take(36)?;
        let (len, offset) = (fields.u64()?, fields.u64()?);
        Some(Ok(Directory { offset, len }))
    }

    fn bytes(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        if offset.checked_add(len as u64).is_none_or(|end| end > self.len) {
            return Err(self.broken("it ends too early; copy it again"));
        }
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, offset).map_err(Error::io(self.path))?;
        Ok(bytes)
    }
}

/// The next entry of a directory.
fn member(rest: &mut ByteReader) -> Option<(String, ZipMember)> {
    (rest.take(4)? == b"PK\x01\x02").then_some(())?;
    rest.take(4)?;
    let (flags, method) = (rest.u16()?, rest.u16()?);
    rest.take(8)?;
    let (mut packed, mut len) = (u64::from(rest.u32()?), u64::from(rest.u32()?));
    let (name_len, extra_len, comment_len) = (rest.u16()?, rest.u16()?, rest.u16()?);
    rest.take(8)?;
    let mut header = u64::from(rest.u32()?);
    let name = String::from_utf8_lossy(rest.take(name_len.into())?).into_owned();
    let mut extra = ByteReader(rest.take(extra_len.into())?);
    rest.take(comment_len.into())?;
    while let (Some(kind), Some(size)) = (extra.u16(), extra.u16()) {
        let mut field = ByteReader(extra.take(size.into())?);
        if kind == 1 {
            for value in [&mut len, &mut packed, &mut header] {
                if *value == u64::from(u32::MAX) {
                    *value = field.u64()?;
                }
            }
        }
    }
    let plain = flags & 1 == 0 && method == 0 && packed == len;
    Some((name, ZipMember { header, len, plain }))
}
