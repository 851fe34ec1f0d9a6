//! The header of a safetensors file: its length, then JSON that says where each tensor lies behind it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::io::Read;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use super::byte_reader::Parsed;
use super::dtype::TensorDtype;
use super::file::{Contents, MAX_DIMENSIONS, MAX_TENSORS, TensorEntry};
use crate::error::{Error, Result};

/// Most bytes of a header. safetensors' own limit is 100 MB; the largest published ones have a few.
pub(crate) const MAX_HEADER: u64 = 32 << 20;

/// The header's JSON.
#[derive(Default)]
struct SafetensorsHeader {
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, TensorInfo>,
}

/// Reads the header of a safetensors file of `len` bytes.
///
/// # Errors
///
/// With `path`, where the file is cut off or its header is not what safetensors allows: tensors that do not follow each
/// other, two of one name, bytes that belong to none.
pub(crate) fn read(path: &Path, file: &mut impl Read, len: u64) -> Result<Contents> {
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
    let header = parse(&header, len - data).map_err(broken)?;
    let tensors = header.tensors.into_iter().map(|(name, info)| {
        let offset = data + info.data_offsets.0 as u64;
        (name, TensorEntry { dtype: dtype(info.dtype), shape: info.shape, strides: None, offset })
    });
    Ok(Contents { tensors: tensors.collect(), metadata: header.metadata })
}

/// The header of a safetensors file, behind which `data` bytes follow. The tensors fill them, each in the size that its
/// shape and type need.
fn parse(header: &[u8], data: u64) -> Parsed<SafetensorsHeader> {
    let header: SafetensorsHeader = serde_json::from_slice(header).map_err(|error| format!("its header: {error}"))?;
    let mut tensors: Vec<(String, TensorInfo)> =
        header.tensors.iter().map(|(name, info)| (name.clone(), info.clone())).collect();
    tensors.sort_by_key(|(_, info)| info.data_offsets);
    // The library's own check: sizes, and that the tensors follow each other.
    let checked = Metadata::new(None, tensors).map_err(|error| format!("its header: {error}"))?;
    let needed = checked.data_len() as u64;
    if needed > data {
        return Err(format!("its tensors need {needed} bytes, but {data} follow the header; copy it again"));
    }
    match needed == data {
        true => Ok(header),
        false => Err(format!("{} bytes follow its last tensor, which no tensor needs; copy it again", data - needed)),
    }
}

impl<'de> Deserialize<'de> for SafetensorsHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<SafetensorsHeader, D::Error> {
        deserializer.deserialize_map(SafetensorsVisitor)
    }
}

/// Takes the header's entries one by one, since a map would keep the last of two with one name.
struct SafetensorsVisitor;

impl<'de> Visitor<'de> for SafetensorsVisitor {
    type Value = SafetensorsHeader;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<SafetensorsHeader, A::Error> {
        let mut header = SafetensorsHeader::default();
        let mut described = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                header.metadata = map.next_value::<Option<SafetensorsMetadata>>()?.unwrap_or_default().0;
                insert(&mut described, name, ())?;
                continue;
            }
            let info: TensorInfo = map.next_value()?;
            if info.shape.len() > MAX_DIMENSIONS {
                return Err(A::Error::custom(format_args!("{name} has more than {MAX_DIMENSIONS} dimensions")));
            }
            insert(&mut header.tensors, name, info)?;
        }
        Ok(header)
    }
}

/// What a file says of itself.
#[derive(Default)]
struct SafetensorsMetadata(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for SafetensorsMetadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<SafetensorsMetadata, D::Error> {
        deserializer.deserialize_map(MetadataVisitor)
    }
}

struct MetadataVisitor;

impl<'de> Visitor<'de> for MetadataVisitor {
    type Value = SafetensorsMetadata;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<SafetensorsMetadata, A::Error> {
        let mut metadata = BTreeMap::new();
        while let Some((key, value)) = map.next_entry()? {
            insert(&mut metadata, key, value)?;
        }
        Ok(SafetensorsMetadata(metadata))
    }
}

/// Adds what is not there yet.
fn insert<V, E: serde::de::Error>(map: &mut BTreeMap<String, V>, name: String, value: V) -> std::result::Result<(), E> {
    if map.len() == MAX_TENSORS {
        return Err(E::custom(format_args!("there are more than {MAX_TENSORS} tensors or keys")));
    }
    match map.entry(name) {
        Entry::Vacant(entry) => drop(entry.insert(value)),
        Entry::Occupied(entry) => return Err(E::custom(format_args!("{} is there twice", entry.key()))),
    }
    Ok(())
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
