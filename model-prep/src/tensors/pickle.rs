//! Python's pickles as data: dictionaries, lists, numbers, text, and the names of what Python would call. Nothing is
//! called.
//!
//! A pickle is a program for a stack machine (Python's `pickletools` describes it). The machine here knows the opcodes
//! that build data; what Python would import and call is kept as a name and its arguments, which `torch` may know.

use std::collections::BTreeMap;

use super::byte_reader::{ByteReader, Parsed};

/// Most opcodes, which also bounds the memory: each makes at most one value and one container of some tens of bytes.
/// The largest published checkpoints have some hundred thousand.
const MAX_OPCODES: usize = 2_000_000;

/// Most values that are copied: only dictionaries that are made from lists of pairs copy any.
const MAX_COPIES: usize = 2_000_000;

/// Longest name of a class or function, its module before it, bytes.
const MAX_NAME: usize = 1024;

/// Modules whose functions run programs, read files or load code: no model's file has a use for them.
const HOSTILE: [&str; 31] = [
    "os",
    "posix",
    "nt",
    "subprocess",
    "sys",
    "socket",
    "shutil",
    "runpy",
    "pty",
    "importlib",
    "imp",
    "ctypes",
    "code",
    "codeop",
    "webbrowser",
    "pickle",
    "_pickle",
    "marshal",
    "types",
    "operator",
    "_operator",
    "functools",
    "asyncio",
    "multiprocessing",
    "threading",
    "urllib",
    "requests",
    "http",
    "ftplib",
    "pip",
    "timeit",
];

/// Python's own functions that do the same.
const HOSTILE_BUILTINS: [&str; 9] =
    ["eval", "exec", "execfile", "compile", "open", "__import__", "getattr", "apply", "input"];

/// A value of a pickle. What has parts is an index into `Pickle`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum PickleValue {
    /// Python's None.
    None,
    /// A truth value.
    Bool(bool),
    /// An integer of at most 64 bits.
    Int(i64),
    /// A number.
    Float(f64),
    /// Text.
    Text(usize),
    /// A tuple, list or set.
    Items(usize),
    /// Keys and values by turns.
    Dict(usize),
    /// The name of a class or function, its module before it.
    Global(usize),
    /// What a call of the first item with the second would give; a third is the state that it gets.
    Call(usize),
    /// Something outside of the pickle that the only item tells of.
    Persistent(usize),
    /// Bytes, or an integer that is too large.
    Other,
}

/// A pickle that was read.
#[derive(Debug, Default)]
pub(super) struct Pickle {
    texts: Vec<String>,
    items: Vec<Vec<PickleValue>>,
}

impl Pickle {
    /// A text, or a class's name.
    pub(super) fn text(&self, value: PickleValue) -> Option<&str> {
        match value {
            PickleValue::Text(index) | PickleValue::Global(index) => self.texts.get(index).map(String::as_str),
            _ => None,
        }
    }

    /// The parts of a value that has any.
    pub(super) fn items(&self, value: PickleValue) -> &[PickleValue] {
        match value {
            PickleValue::Items(i) | PickleValue::Dict(i) | PickleValue::Call(i) | PickleValue::Persistent(i) => {
                self.items.get(i).map(Vec::as_slice).unwrap_or_default()
            }
            _ => &[],
        }
    }

    /// The value of a dictionary under `key`.
    pub(super) fn get(&self, dict: PickleValue, key: &str) -> Option<PickleValue> {
        let PickleValue::Dict(_) = dict else { return None };
        self.items(dict)
            .as_chunks()
            .0
            .iter()
            .find_map(|[found, value]| (self.text(*found) == Some(key)).then_some(*value))
    }
}

/// Reads a pickle; also its value.
///
/// # Errors
///
/// What is wrong with it: it is cut off, asks for an opcode that torch never writes, or names what no model needs.
pub(super) fn read(bytes: &[u8]) -> Parsed<(Pickle, PickleValue)> {
    let mut machine = Machine { rest: ByteReader(bytes), ..Machine::default() };
    for _ in 0..MAX_OPCODES {
        let opcode = machine.rest.u8().ok_or(CUT_OFF)?;
        if opcode == b'.' {
            let value = machine.pop()?;
            return Ok((machine.pickle, value));
        }
        machine.step(opcode)?;
    }
    Err(format!("it has more than {MAX_OPCODES} opcodes"))
}

/// A stack of values, in which marks were set.
#[derive(Default)]
struct Machine<'a> {
    rest: ByteReader<'a>,
    pickle: Pickle,
    stack: Vec<PickleValue>,
    marks: Vec<usize>,
    copies: usize,
    memo: BTreeMap<u32, PickleValue>,
}

const CUT_OFF: &str = "it is cut off";
const EMPTY: &str = "it takes more from its stack than is there";

impl Machine<'_> {
    fn step(&mut self, opcode: u8) -> Parsed<()> {
        match opcode {
            0x80 => self.bytes(1).map(drop),
            0x95 => self.bytes(8).map(drop),
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' => self.pop().map(drop),
            b'1' => self.marked().map(drop),
            b'a' => {
                let item = self.pop()?;
                self.extend(&[item])
            }
            b'e' | b'u' | 0x90 => {
                let items = self.marked()?;
                self.extend(&items)
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.extend(&[key, value])
            }
            b'b' => self.build(),
            b'q' | b'r' | b'p' | 0x94 => {
                let index = self.index(opcode)?;
                let value = self.top()?;
                self.memo.insert(index, value);
                Ok(())
            }
            _ => {
                let value = self.value(opcode)?;
                self.stack.push(value);
                Ok(())
            }
        }
    }

    /// The value that an opcode puts on the stack.
    fn value(&mut self, opcode: u8) -> Parsed<PickleValue> {
        match opcode {
            b'2' => self.top(),
            b'h' | b'j' | b'g' => {
                let index = self.index(opcode)?;
                self.memo.get(&index).copied().ok_or_else(|| "a value that it did not keep".to_owned())
            }
            b'N' => Ok(PickleValue::None),
            0x88 => Ok(PickleValue::Bool(true)),
            0x89 => Ok(PickleValue::Bool(false)),
            b'J' | b'K' | b'M' | 0x8a | 0x8b | b'I' | b'L' | b'F' | b'G' => self.number(opcode),
            b'X' | b'T' | b'U' | 0x8c | 0x8d | b'V' | b'S' => self.new_text(opcode),
            b'B' | b'C' | 0x8e | 0x96 => {
                let len = self.length(opcode)?;
                self.bytes(len).map(|_| PickleValue::Other)
            }
            b']' | b')' | 0x8f => Ok(PickleValue::Items(self.store(Vec::new()))),
            b'l' | b't' | 0x91 => {
                let items = self.marked()?;
                Ok(PickleValue::Items(self.store(items)))
            }
            0x85..=0x87 => {
                let at = self.stack.len().checked_sub(usize::from(opcode - 0x84)).ok_or(EMPTY)?;
                let items = self.stack.split_off(at);
                Ok(PickleValue::Items(self.store(items)))
            }
            b'}' => Ok(PickleValue::Dict(self.store(Vec::new()))),
            b'd' => {
                let items = self.marked()?;
                Ok(PickleValue::Dict(self.store(items)))
            }
            b'c' | 0x93 => self.global(opcode),
            b'R' | 0x81 | 0x92 => {
                if opcode == 0x92 {
                    self.pop()?; // arguments by name
                }
                let (arguments, function) = (self.pop()?, self.pop()?);
                self.call(function, arguments)
            }
            b'Q' => {
                let id = self.pop()?;
                Ok(PickleValue::Persistent(self.store(vec![id])))
            }
            _ => Err(format!("the opcode {opcode:#04x}, which torch does not write")),
        }
    }

    fn number(&mut self, opcode: u8) -> Parsed<PickleValue> {
        match opcode {
            b'K' | b'M' | b'J' => {
                let bytes = self.bytes(match opcode {
                    b'K' => 1,
                    b'M' => 2,
                    _ => 4,
                })?;
                // Of these only that of four bytes has a sign.
                Ok(PickleValue::Int(little_endian(bytes, opcode == b'J')))
            }
            0x8a | 0x8b => {
                let len = self.length(opcode)?;
                let bytes = self.bytes(len)?;
                Ok(if len <= 8 { PickleValue::Int(little_endian(bytes, true)) } else { PickleValue::Other })
            }
            b'G' => Ok(PickleValue::Float(f64::from_be_bytes(self.rest.array().ok_or(CUT_OFF)?))),
            b'F' => self.line()?.parse().map(PickleValue::Float).map_err(|_| "a number that cannot be read".to_owned()),
            _ => Ok(match self.line()?.trim_end_matches('L') {
                "01" => PickleValue::Bool(true),
                "00" => PickleValue::Bool(false),
                number => number.parse().map_or(PickleValue::Other, PickleValue::Int),
            }),
        }
    }

    fn new_text(&mut self, opcode: u8) -> Parsed<PickleValue> {
        let text = match opcode {
            b'V' | b'S' => self.line()?.trim_matches(['\'', '"']).to_owned(),
            _ => {
                let len = self.length(opcode)?;
                String::from_utf8_lossy(self.bytes(len)?).into_owned()
            }
        };
        self.pickle.texts.push(text);
        Ok(PickleValue::Text(self.pickle.texts.len() - 1))
    }

    fn global(&mut self, opcode: u8) -> Parsed<PickleValue> {
        let (module, name) = match opcode {
            b'c' => (self.line()?.to_owned(), self.line()?.to_owned()),
            _ => {
                let (name, module) = (self.pop()?, self.pop()?);
                let text = |value| self.pickle.text(value).map(str::to_owned).ok_or("a class without a name");
                (text(module)?, text(name)?)
            }
        };
        if module.len() + name.len() > MAX_NAME {
            return Err(format!("a class's name of more than {MAX_NAME} bytes"));
        }
        if is_hostile(&module, &name) {
            return Err(format!(
                "it names {module}.{name}, which would run a program or load code wherever torch opens this file; nothing of \
                 it was run; do not use this file"
            ));
        }
        self.pickle.texts.push(format!("{module} {name}"));
        Ok(PickleValue::Global(self.pickle.texts.len() - 1))
    }

    /// What a call stands for: dictionaries are made, everything else stays a name and its arguments.
    fn call(&mut self, function: PickleValue, arguments: PickleValue) -> Parsed<PickleValue> {
        let dictionaries = ["collections OrderedDict", "collections defaultdict", "builtins dict", "__builtin__ dict"];
        if !self.pickle.text(function).is_some_and(|name| dictionaries.contains(&name)) {
            return Ok(PickleValue::Call(self.store(vec![function, arguments])));
        }
        let pairs = self.pickle.items(arguments).first().map(|pairs| self.pickle.items(*pairs)).unwrap_or_default();
        self.copies += pairs.len();
        if self.copies > MAX_COPIES {
            return Err(format!("it makes dictionaries of more than {MAX_COPIES} pairs"));
        }
        let pairs = pairs.iter().filter_map(|pair| self.pickle.items(*pair).first_chunk::<2>());
        let pairs = pairs.flatten().copied().collect();
        Ok(PickleValue::Dict(self.store(pairs)))
    }

    /// Adds items to the list, set or dictionary on the stack; what is none takes them and forgets them.
    fn extend(&mut self, items: &[PickleValue]) -> Parsed<()> {
        match self.top()? {
            PickleValue::Items(at) | PickleValue::Dict(at) => {
                self.pickle.items.get_mut(at).into_iter().for_each(|kept| kept.extend_from_slice(items));
            }
            _ => {}
        }
        Ok(())
    }

    /// Gives an object its state.
    fn build(&mut self) -> Parsed<()> {
        let state = self.pop()?;
        if let PickleValue::Call(at) = self.top()? {
            self.pickle.items.get_mut(at).into_iter().for_each(|call| {
                call.truncate(2);
                call.push(state);
            });
        }
        Ok(())
    }

    fn store(&mut self, items: Vec<PickleValue>) -> usize {
        self.pickle.items.push(items);
        self.pickle.items.len() - 1
    }

    fn pop(&mut self) -> Parsed<PickleValue> {
        self.stack.pop().ok_or_else(|| EMPTY.to_owned())
    }

    fn top(&self) -> Parsed<PickleValue> {
        self.stack.last().copied().ok_or_else(|| EMPTY.to_owned())
    }

    /// What was put on the stack since the last mark.
    fn marked(&mut self) -> Parsed<Vec<PickleValue>> {
        let mark = self.marks.pop().ok_or(EMPTY)?;
        match mark <= self.stack.len() {
            true => Ok(self.stack.split_off(mark)),
            false => Err(EMPTY.to_owned()),
        }
    }

    fn bytes(&mut self, len: usize) -> Parsed<&[u8]> {
        self.rest.take(len).ok_or_else(|| CUT_OFF.to_owned())
    }

    /// The length before text, bytes or a large integer.
    fn length(&mut self, opcode: u8) -> Parsed<usize> {
        let len = match opcode {
            b'U' | 0x8c | b'C' | 0x8a => self.rest.u8().map(u64::from),
            0x8d | 0x8e | 0x96 => self.rest.u64(),
            _ => self.rest.u32().map(u64::from),
        };
        usize::try_from(len.ok_or(CUT_OFF)?).map_err(|_| CUT_OFF.to_owned())
    }

    /// Where a value is kept.
    fn index(&mut self, opcode: u8) -> Parsed<u32> {
        match opcode {
            b'q' | b'h' => self.rest.u8().map(u32::from).ok_or_else(|| CUT_OFF.to_owned()),
            b'r' | b'j' => self.rest.u32().ok_or_else(|| CUT_OFF.to_owned()),
            b'p' | b'g' => self.line()?.parse().map_err(|_| "a place that is not a number".to_owned()),
            _ => u32::try_from(self.memo.len()).map_err(|_| "it keeps too many values".to_owned()),
        }
    }

    fn line(&mut self) -> Parsed<&str> {
        let end = self.rest.0.iter().position(|byte| *byte == b'\n').ok_or(CUT_OFF)?;
        let line = self.rest.take(end + 1).and_then(|line| line.get(..end)).ok_or(CUT_OFF)?;
        std::str::from_utf8(line).map_err(|_| "text that is not UTF-8".to_owned())
    }
}

/// An integer of at most eight bytes.
fn little_endian(bytes: &[u8], signed: bool) -> i64 {
    let negative = signed && bytes.last().is_some_and(|byte| byte >> 7 == 1);
    let mut wide = [if negative { 0xff } else { 0 }; 8];
    wide.iter_mut().zip(bytes).for_each(|(wide, byte)| *wide = *byte);
    i64::from_le_bytes(wide)
}

/// Nothing but an attack has a use for it.
fn is_hostile(module: &str, name: &str) -> bool {
    let package = module.split('.').next().unwrap_or_default();
    let builtin = matches!(package, "builtins" | "__builtin__") && HOSTILE_BUILTINS.contains(&name);
    builtin || HOSTILE.contains(&package)
}
