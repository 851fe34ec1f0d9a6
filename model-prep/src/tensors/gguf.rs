//! GGUF: ggml's container. Its header has keys with values and the list of tensors; the tensors follow, each aligned.
//!
//! Source: ggml's `docs/gguf.md`. Dimensions are there in the reverse of torch's order.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use super::byte_reader::Parsed;
use super::dtype::TensorDtype;
use super::file::{Contents, MAX_DIMENSIONS, MAX_NAME, MAX_TENSORS, TensorEntry};
use super::ggml::GgmlBlock;
use crate::error::{Error, Result};

/// Most bytes of the header.
const MAX_HEADER: u64 = 32 << 20;

/// Reads the header of the file `path` of `len` bytes.
///
/// # Errors
///
/// A file that is cut off, whose tensors do not lie in it, or of a version that is not known.
pub(crate) fn read(path: &Path, file: &File, len: u64) -> Result<Contents> {
    let broken = |message: String| Error::file(path, format!("not a whole GGUF file: {message}"));
    let mut header = GgufHeader { rest: BufReader::new(file).take(MAX_HEADER), consumed: 0 };
    let (contents, data) = header.contents().map_err(broken)?;
    let mut contents = contents;
    for (name, entry) in &mut contents.tensors {
        let (block, size) = (entry.dtype.block_values(), entry.dtype.block_bytes());
        let rows_fit = entry.shape.last().is_some_and(|columns| columns.is_multiple_of(block));
        if !rows_fit {
            return Err(broken(format!("rows of tensor {name} are not whole blocks of {block} values")));
        }
        let end = (entry.len() / block).checked_mul(size).and_then(|bytes| {
            entry.offset = entry.offset.checked_add(data)?;
            entry.offset.checked_add(bytes as u64)
        });
        if end.is_none_or(|end| end > len) {
            return Err(broken(format!("tensor {name} ends behind its {len} bytes; copy it again")));
        }
    }
    Ok(contents)
}

/// The header, as far as it was not read yet.
struct GgufHeader<R> {
    rest: R,
    consumed: u64,
}

impl<R: Read> GgufHeader<R> {
    /// The tensors, their offsets from the returned place on.
    fn contents(&mut self) -> Parsed<(Contents, u64)> {
        let _magic: [u8; 4] = self.array()?;
        let version = self.u32()?;
        if !(2..=3).contains(&version) {
            return Err(format!("it has version {version}; known are 2 and 3"));
        }
        let (tensors, keys) = (self.u64()?, self.u64()?);
        if tensors.max(keys) > MAX_TENSORS as u64 {
            return Err(format!("it is said to have {tensors} tensors and {keys} keys; allowed are {MAX_TENSORS}"));
        }
        let (mut contents, mut alignment) = (Contents::default(), 32);
        for _ in 0..keys {
            let (key, kind) = (self.text()?, self.u32()?);
            let value = self.value(kind)?;
            if key == "general.alignment" {
                alignment =
                    value.parse().ok().filter(|size| (1..=1 << 20).contains(size)).ok_or("an absurd alignment")?;
            }
            contents.metadata.insert(key, value);
        }
        for _ in 0..tensors {
            let name = self.text()?;
            let entry = self.entry().map_err(|message| format!("tensor {name}: {message}"))?;
            if contents.tensors.insert(name.clone(), entry).is_some() {
                return Err(format!("tensor {name} is there twice"));
            }
        }
        Ok((contents, self.consumed.next_multiple_of(alignment)))
    }

    fn entry(&mut self) -> Parsed<TensorEntry> {
        let dimensions = self.u32()?;
        if dimensions as usize > MAX_DIMENSIONS {
            return Err(format!("{dimensions} dimensions"));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            shape.push(usize::try_from(self.u64()?).map_err(|_| "a shape that is too large")?);
        }
        shape.reverse();
        if shape.is_empty() {
            shape.push(1);
        }
        shape.iter().try_fold(1usize, |len, size| len.checked_mul(*size)).ok_or("a shape that is too large")?;
        let dtype = dtype(self.u32()?);
        Ok(TensorEntry { dtype, shape, strides: None, offset: self.u64()? })
    }

    /// A value of a type, as text; lists are passed over.
    fn value(&mut self, kind: u32) -> Parsed<String> {
        Ok(match kind {
            0 => u8::from_le_bytes(self.array()?).to_string(),
            1 => i8::from_le_bytes(self.array()?).to_string(),
            2 => u16::from_le_bytes(self.array()?).to_string(),
            3 => i16::from_le_bytes(self.array()?).to_string(),
            4 => self.u32()?.to_string(),
            5 => i32::from_le_bytes(self.array()?).to_string(),
            6 => f32::from_le_bytes(self.array()?).to_string(),
            7 => (self.array()? != [0u8]).to_string(),
            8 => self.text()?,
            9 => {
                let (kind, count) = (self.u32()?, self.u64()?);
                if kind == 9 {
                    return Err("a list of lists".into());
                }
                for _ in 0..count {
                    self.value(kind)?;
                }
                String::new()
            }
            10 => self.u64()?.to_string(),
            11 => i64::from_le_bytes(self.array()?).to_string(),
            12 => f64::from_le_bytes(self.array()?).to_string(),
            _ => return Err(format!("a value of type {kind}, which is not known")),
        })
    }

    /// Text; of a long one the beginning.
    fn text(&mut self) -> Parsed<String> {
        let len = self.u64()?;
        let mut kept = Vec::new();
        let mut bytes = self.rest.by_ref().take(len);
        bytes.by_ref().take(MAX_NAME as u64).read_to_end(&mut kept).map_err(|error| error.to_string())?;
        let skipped = std::io::copy(&mut bytes, &mut std::io::sink()).map_err(|error| error.to_string())?;
        if kept.len() as u64 + skipped != len {
            return Err("it ends too early; copy it again".into());
        }
        self.consumed += len;
        Ok(String::from_utf8_lossy(&kept).into_owned())
    }

    fn u32(&mut self) -> Parsed<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Parsed<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn array<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        let mut bytes = [0; N];
        self.rest.read_exact(&mut bytes).map_err(|_| "it ends too early; copy it again")?;
        self.consumed += N as u64;
        Ok(bytes)
    }
}

/// The type of ggml's number `kind`.
fn dtype(kind: u32) -> TensorDtype {
    match kind {
        0 => TensorDtype::F32,
        1 => TensorDtype::F16,
        2 => TensorDtype::Ggml(GgmlBlock::Q4_0),
        3 => TensorDtype::Ggml(GgmlBlock::Q4_1),
        6 => TensorDtype::Ggml(GgmlBlock::Q5_0),
        7 => TensorDtype::Ggml(GgmlBlock::Q5_1),
        8 => TensorDtype::Ggml(GgmlBlock::Q8_0),
        10 => TensorDtype::Ggml(GgmlBlock::Q2_K),
        11 => TensorDtype::Ggml(GgmlBlock::Q3_K),
        12 => TensorDtype::Ggml(GgmlBlock::Q4_K),
        13 => TensorDtype::Ggml(GgmlBlock::Q5_K),
        14 => TensorDtype::Ggml(GgmlBlock::Q6_K),
        24 => TensorDtype::I8,
        25 => TensorDtype::I16,
        26 => TensorDtype::I32,
        27 => TensorDtype::I64,
        28 => TensorDtype::F64,
        30 => TensorDtype::Bf16,
        _ => TensorDtype::Other("a type of ggml's that is not known"),
    }
}
