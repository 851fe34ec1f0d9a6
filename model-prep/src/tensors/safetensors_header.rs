//! The header of a safetensors file: its length, then JSON that says where each tensor lies behind it.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::dtype::TensorDtype;
use super::file::TensorEntry;
use crate::error::{Error, Result};

/// Most bytes of a header (safetensors' own limit).
const MAX_HEADER: u64 = 100_000_000;

/// What the header of a safetensors file says: the tensors, and the file's own metadata.
pub(crate) type Entries = (BTreeMap<String, TensorEntry>, BTreeMap<String, String>);

/// The tensors of a safetensors file of `len` bytes.
///
/// # Errors
///
/// Those of `read_header`.
pub(crate) fn read_entries(path: &Path, file: &mut impl Read, len: u64) -> Result<Entries> {
    let (header, data) = read_header(path, file, len)?;
    let tensors = header.tensors().into_iter().map(|(name, info)| {
        let offset = data + info.data_offsets.0 as u64;
        (name, TensorEntry { dtype: dtype(info.dtype), shape: info.shape.clone(), offset })
    });
    let metadata = header.metadata().iter().flatten().map(|(key, value)| (key.clone(), value.clone()));
    Ok((tensors.collect(), metadata.collect()))
}

/// Reads the header of a safetensors file of `len` bytes; also where its data begins, bytes.
///
/// # Errors
///
/// With `path`, where the file is cut off or its header is not what safetensors allows.
pub fn read_header(path: &Path, file: &mut impl Read, len: u64) -> Result<(Metadata, u64)> {
    let broken = |message: String| Error::file(path, format!("not a whole safetensors file: {message}"));
    let mut size = [0; 8];
    file.read_exact(&mut size).map_err(|_| broken(format!("it has {len} bytes")))?;
    let size = u64::from_le_bytes(size);
    let fits = size <= MAX_HEADER && size <= len.saturating_sub(8);
    let Some(fitting) = usize::try_from(size).ok().filter(|_| fits) else {
        return Err(broken(format!("a header of {size} bytes in a file of {len}")));
    };
    let mut header = vec![0; fitting];
    file.read_exact(&mut header).map_err(Error::io(path))?;
    let data = 8 + size;
    let header = parse_header(&header, len - data).map_err(broken)?;
    Ok((header, data))
}

/// The header of a safetensors file, behind which `data` bytes follow. Every tensor lies in them, in the size that its shape
/// and type need.
fn parse_header(header: &[u8], data: u64) -> std::result::Result<Metadata, String> {
    let header: Metadata = serde_json::from_slice(header).map_err(|error| format!("its header: {error}"))?;
    let needed = header.data_len() as u64;
    match needed <= data {
        true => Ok(header),
        false => Err(format!("its tensors need {needed} bytes, but {data} follow the header; copy it again")),
    }
}

fn dtype(dtype: Dtype) -> TensorDtype {
    match dtype {
        Dtype::F64 => TensorDtype::F64,
        Dtype::F32 => TensorDtype::F32,
        Dtype::F16 => TensorDtype::F16,
        Dtype::BF16 => TensorDtype::Bf16,
        Dtype::F8_E4M3 => TensorDtype::F8E4m3,
        Dtype::F8_E5M2 => TensorDtype::F8E5m2,
        Dtype::I64 => TensorDtype::I64,
        Dtype::I32 => TensorDtype::I32,
        Dtype::I16 => TensorDtype::I16,
        Dtype::I8 => TensorDtype::I8,
        Dtype::U8 => TensorDtype::U8,
        Dtype::BOOL => TensorDtype::Bool,
        Dtype::U16 => TensorDtype::Other("U16"),
        Dtype::U32 => TensorDtype::Other("U32"),
        Dtype::U64 => TensorDtype::Other("U64"),
        Dtype::C64 => TensorDtype::Other("C64"),
        Dtype::F4 => TensorDtype::Other("F4"),
        Dtype::F6_E2M3 => TensorDtype::Other("F6_E2M3"),
        Dtype::F6_E3M2 => TensorDtype::Other("F6_E3M2"),
        Dtype::F8_E8M0 => TensorDtype::Other("F8_E8M0"),
        Dtype::F8_E4M3FNUZ => TensorDtype::Other("F8_E4M3FNUZ"),
        Dtype::F8_E5M2FNUZ => TensorDtype::Other("F8_E5M2FNUZ"),
        _ => TensorDtype::Other("a type that is not known"),
    }
}
