//! The tensors of torch's zip archives (`.ckpt`, `.bin`, `.pt`): `data.pkl` says which there are, and `data/KEY` holds
//! the values of each.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use super::byte_reader::Parsed;
use super::dtype::TensorDtype;
use super::file::{Contents, MAX_DIMENSIONS, MAX_NAME, MAX_TENSORS, TensorEntry};
use super::pickle::{self, Pickle, PickleValue};
use super::zip::Zip;
use crate::error::{Error, Result};

/// Most bytes of the pickle. The largest published checkpoints' have less than one MiB.
const MAX_PICKLE: u64 = 32 << 20;

/// How deep tensors may lie in dictionaries, and how many places are looked at.
const MAX_DEPTH: usize = 8;
const MAX_PLACES: usize = 8 * MAX_TENSORS;

/// Reads what tensors the archive `path` of `len` bytes holds. Those under `state_dict` are named without it; of nested
/// dictionaries the keys are joined by dots.
///
/// # Errors
///
/// An archive that is not torch's or is damaged, or whose pickle asks for more than tensors.
pub(crate) fn read(path: &Path, file: &File, len: u64) -> Result<Contents> {
    let zip = Zip::open(path, file, len)?;
    let pickle = zip.members.keys().filter(|name| name.ends_with("/data.pkl")).min_by_key(|name| name.len()).cloned();
    let Some(pickle) = pickle else {
        return Err(Error::file(path, "is a zip archive, but not one of torch's; unpack it first"));
    };
    let folder = pickle.strip_suffix("data.pkl").unwrap_or_default();
    if zip.members.contains_key(&format!("{folder}constants.pkl")) {
        return Err(Error::file(
            path,
            "is a TorchScript program and not a file of weights; take the model that it was made of",
        ));
    }
    if zip.read(&format!("{folder}byteorder"), 16)?.is_some_and(|order| order != b"little") {
        return Err(Error::file(
            path,
            "was written by a big-endian machine, which is not read; have torch save it elsewhere",
        ));
    }
    let bytes = zip.read(&pickle, MAX_PICKLE)?.unwrap_or_default();
    let broken = |message| Error::file(path, format!("its pickle is not read: {message}"));
    let (pickle, root) = pickle::read(&bytes).map_err(broken)?;
    let state = pickle.get(root, "state_dict").filter(|state| matches!(state, PickleValue::Dict(_)));
    let mut search = TensorSearch { pickle: &pickle, zip: &zip, path, folder, found: BTreeMap::new(), places: 0 };
    search.look("", state.unwrap_or(root), 0)?;
    let tensors = search.found;
    match tensors.is_empty() {
        true => Err(Error::file(path, "holds no tensors")),
        false => Ok(Contents { tensors, metadata: metadata(&pickle, root) }),
    }
}

/// Short text and numbers beside the tensors.
fn metadata(pickle: &Pickle, root: PickleValue) -> BTreeMap<String, String> {
    let PickleValue::Dict(_) = root else { return BTreeMap::new() };
    let pairs = pickle.items(root).as_chunks().0.iter();
    let said = pairs.filter_map(|[key, value]| {
        let value = match value {
            PickleValue::Int(value) => value.to_string(),
            PickleValue::Float(value) => value.to_string(),
            value @ PickleValue::Text(_) => short(pickle.text(*value)?)?.to_owned(),
            _ => return None,
        };
        Some((short(pickle.text(*key)?)?.to_owned(), value))
    });
    said.collect()
}

/// Text that is short enough to be kept again.
fn short(text: &str) -> Option<&str> {
    (text.len() <= MAX_NAME).then_some(text)
}

/// Looks for tensors in a pickle.
struct TensorSearch<'a> {
    pickle: &'a Pickle,
    zip: &'a Zip<'a>,
    path: &'a Path,
    /// The folder of the archive that all its files are in, with a slash.
    folder: &'a str,
    found: BTreeMap<String, TensorEntry>,
    places: usize,
}

impl TensorSearch<'_> {
    fn look(&mut self, name: &str, value: PickleValue, depth: usize) -> Result<()> {
        self.places += 1;
        if self.places > MAX_PLACES || self.found.len() > MAX_TENSORS {
            return Err(Error::file(
                self.path,
                format!("its pickle holds more than {MAX_TENSORS} tensors or dictionaries"),
            ));
        }
        if name.len() > MAX_NAME {
            return Err(Error::file(self.path, format!("its pickle has names of more than {MAX_NAME} bytes")));
        }
        if let PickleValue::Call(_) = value {
            let inner = self.parameters(value).filter(|_| depth < MAX_DEPTH);
            return match (inner, self.tensor(value)) {
                (Some(inner), _) => self.look(name, inner, depth + 1),
                (None, Some(tensor)) => {
                    let entry = tensor.map_err(|message| Error::tensor(self.path, name, message))?;
                    let entry = self.located(name, entry)?;
                    match self.found.insert(name.to_owned(), entry) {
                        None => Ok(()),
                        Some(_) => Err(Error::tensor(self.path, name, "is there twice")),
                    }
                }
                (None, None) => Ok(()),
            };
        }
        let PickleValue::Dict(_) = value else { return Ok(()) };
        if depth >= MAX_DEPTH {
            return Ok(());
        }
        for [key, value] in self.pickle.items(value).as_chunks().0 {
            let Some(key) = self.pickle.text(*key) else { continue };
            let name = if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
            self.look(&name, *value, depth + 1)?;
        }
        Ok(())
    }

    /// What a call wraps: a parameter's tensor, or a module's parameters.
    fn parameters(&self, call: PickleValue) -> Option<PickleValue> {
        let [function, arguments, state @ ..] = self.pickle.items(call) else { return None };
        let arguments = self.pickle.items(*arguments);
        match self.pickle.text(*function)? {
            "torch._utils _rebuild_parameter" | "torch._utils _rebuild_parameter_with_state" => {
                arguments.first().copied()
            }
            _ => self.pickle.get(*state.first()?, "_parameters"),
        }
    }

    /// The tensor that a call stands for, if it does; why it cannot be read.
    fn tensor(&self, call: PickleValue) -> Option<Parsed<StoredTensor>> {
        let [function, arguments, ..] = self.pickle.items(call) else { return None };
        let with_type = match self.pickle.text(*function)? {
            "torch._utils _rebuild_tensor_v2" => false,
            "torch._utils _rebuild_tensor_v3" => true,
            _ => return None,
        };
        let stored = self.stored(self.pickle.items(*arguments), with_type);
        Some(stored.ok_or_else(|| "is described as torch does not describe tensors".to_owned()))
    }

    /// A tensor from the arguments that torch rebuilds it with.
    fn stored(&self, arguments: &[PickleValue], with_type: bool) -> Option<StoredTensor> {
        let [storage @ PickleValue::Persistent(_), PickleValue::Int(offset), shape, strides, rest @ ..] = arguments
        else {
            return None;
        };
        let [id] = self.pickle.items(*storage) else { return None };
        let [_, class, key, _, ..] = self.pickle.items(*id) else { return None };
        let class = if with_type { rest.get(2)? } else { class };
        Some(StoredTensor {
            dtype: dtype(self.pickle.text(*class)?),
            key: self.pickle.text(*key)?.to_owned(),
            first: usize::try_from(*offset).ok()?,
            shape: self.sizes(*shape)?,
            strides: self.sizes(*strides)?,
        })
    }

    fn sizes(&self, value: PickleValue) -> Option<Vec<usize>> {
        let PickleValue::Items(_) = value else { return None };
        (self.pickle.items(value).len() <= MAX_DIMENSIONS).then_some(())?;
        let size =
            |value: &PickleValue| if let PickleValue::Int(size) = value { usize::try_from(*size).ok() } else { None };
        self.pickle.items(value).iter().map(size).collect()
    }

    /// Where the tensor's values lie in the file.
    fn located(&self, name: &str, tensor: StoredTensor) -> Result<TensorEntry> {
        let error = |message: String| Error::tensor(self.path, name, message);
        let StoredTensor { dtype, key, first, shape, strides } = tensor;
        let member = format!("{}data/{key}", self.folder);
        let Some(storage) = self.zip.members.get(&member) else {
            return Err(error(format!("its values, {member}, are missing in the archive")));
        };
        let offset = self.zip.offset(&member, *storage)?;
        let size = dtype.block_bytes().max(1);
        let needed = extent(&shape, &strides).and_then(|extent| extent.checked_add(first)?.checked_mul(size));
        if needed.is_none_or(|needed| needed as u64 > storage.len) {
            return Err(error(format!("of the shape {shape:?} does not fit in its {} bytes, {member}", storage.len)));
        }
        let strides = (!is_contiguous(&shape, &strides)).then_some(strides);
        Ok(TensorEntry { dtype, shape, strides, offset: offset + (first * size) as u64 })
    }
}

/// A tensor as the pickle describes it.
struct StoredTensor {
    dtype: TensorDtype,
    /// The file with its values.
    key: String,
    /// The place of its first value there.
    first: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

/// Values from the first to the last of a tensor, with both; `None` where that or the number of values is too large for
/// this machine, or the shape is not one.
fn extent(shape: &[usize], strides: &[usize]) -> Option<usize> {
    (shape.len() == strides.len()).then_some(())?;
    let len = shape.iter().try_fold(1usize, |len, size| len.checked_mul(*size))?;
    let mut steps = shape.iter().zip(strides);
    let last =
        steps.try_fold(0usize, |last, (size, stride)| last.checked_add(size.saturating_sub(1).checked_mul(*stride)?));
    if len == 0 { Some(0) } else { last?.checked_add(1) }
}

/// The values follow each other in the shape's order.
fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut next = 1;
    shape.iter().zip(strides).rev().all(|(size, stride)| {
        let fits = *size == 1 || *stride == next;
        next *= size;
        fits
    })
}

/// The type that a storage's class, or torch's name of a type, stands for.
fn dtype(class: &str) -> TensorDtype {
    match class {
        "torch DoubleStorage" => TensorDtype::F64,
        "torch FloatStorage" => TensorDtype::F32,
        "torch HalfStorage" => TensorDtype::F16,
        "torch BFloat16Storage" => TensorDtype::Bf16,
        "torch LongStorage" => TensorDtype::I64,
        "torch IntStorage" => TensorDtype::I32,
        "torch ShortStorage" => TensorDtype::I16,
        "torch CharStorage" => TensorDtype::I8,
        "torch ByteStorage" => TensorDtype::U8,
        "torch BoolStorage" => TensorDtype::Bool,
        "torch float8_e4m3fn" => TensorDtype::F8E4m3,
        "torch float8_e5m2" => TensorDtype::F8E5m2,
        _ => TensorDtype::Other("a type of torch's that is not known"),
    }
}
