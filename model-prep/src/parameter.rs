//! A weight of a bundle: which tensors of the source it is made of, and its bytes.
//!
//! A parameter carries the name of the source's module: matrix `conv_in` is made of `conv_in.weight` and
//! `conv_in.bias`. Where a matrix is cut by its inputs, its first part carries the name and the bias, the second the name
//! with [`SECOND`] after it. A parameter is written and read in units that no block cuts: panels of a matrix, rows of a table.

use std::ops::Range;

use diffused_engine::bundle::{NewTensor, WeightShape};
use diffused_kernels::pack::{Format, Layout, PANEL, PHASES, pack_panel, phase_row, unpack_panel};
use half::f16;

use crate::error::Result;
use crate::tensors::Checkpoint;

/// What the name of a matrix's second part ends with.
const SECOND: &str = ".second";

/// A weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parameter {
    /// Its name in the bundle: the source's module, or a part of it.
    pub(crate) name: String,
    /// Which of the source's inputs it has, where they are in two matrices.
    pub(crate) part: Option<InputPart>,
    /// What it holds.
    pub(crate) shape: ParameterShape,
    /// How its channels are scaled.
    pub(crate) scales: ChannelScales,
}

/// The inputs of one matrix that a part of it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InputPart {
    /// The part's first input.
    pub(crate) first: usize,
    /// Inputs of the whole matrix.
    pub(crate) whole: usize,
}

impl InputPart {
    /// The name of the second part of the matrix `name`.
    pub(crate) fn second(name: &str) -> String {
        format!("{name}{SECOND}")
    }
}

/// Powers of two by which a weight's channels are multiplied on the way from the source into the bundle: exact in f32.
/// An empty list scales nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ChannelScales {
    /// Exponents, one for each output of a matrix, its bias included, or each channel of a norm.
    pub(crate) outputs: Vec<i32>,
    /// Exponents, one for each input of a matrix.
    pub(crate) inputs: Vec<i32>,
}

/// What a weight holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ParameterShape {
    /// A linear layer's or convolution's matrix.
    Matrix {
        /// Outputs; GEGLU's values and gates together.
        n: usize,
        /// Inputs of a tap.
        k: usize,
        /// 1 or 3.
        kernel: usize,
        /// There are biases.
        bias: bool,
        /// GEGLU: the source has all values, then all gates.
        gated: bool,
        /// The convolution of an image that is doubled, a 3×3 one, is stored in phases.
        phases: bool,
        /// How it is stored.
        format: Format,
    },
    /// Gamma and beta of a norm.
    Norm {
        /// Of each.
        channels: usize,
    },
    /// Slopes of PReLU.
    Slopes {
        /// One for each.
        channels: usize,
    },
    /// A table that single rows are read of.
    Table {
        /// Rows.
        rows: usize,
        /// Values of a row.
        columns: usize,
        /// Stored in f16, else f32.
        half: bool,
    },
}

/// Called with a channel and its values, as written and as the source has them.
pub(crate) type EachChannel<'a> = dyn FnMut(usize, &[(f32, f32)]) + 'a;

impl Parameter {
    /// The weight of the source's module `name`, not scaled.
    pub(crate) fn new(name: &str, shape: ParameterShape) -> Parameter {
        Parameter { name: name.to_owned(), part: None, shape, scales: ChannelScales::default() }
    }

    /// The source's module.
    pub(crate) fn module(&self) -> &str {
        match self.part {
            Some(_) => self.name.strip_suffix(SECOND).unwrap_or(&self.name),
            None => &self.name,
        }
    }

    /// The source's tensors and their shapes, as torch has them.
    pub(crate) fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let (weight, bias) = (format!("{}.weight", self.module()), format!("{}.bias", self.module()));
        match self.shape {
            ParameterShape::Matrix { n, k, kernel, bias: there, .. } => {
                let k = self.part.map_or(k, |part| part.whole);
                let shape = if kernel == 1 { vec![n, k] } else { vec![n, k, kernel, kernel] };
                let bias = there.then_some((bias, vec![n]));
                [Some((weight, shape)), bias].into_iter().flatten().collect()
            }
            ParameterShape::Norm { channels } => vec![(weight, vec![channels]), (bias, vec![channels])],
            ParameterShape::Slopes { channels } => vec![(weight, vec![channels])],
            ParameterShape::Table { rows, columns, .. } => vec![(weight, vec![rows, columns])],
        }
    }

    /// It is a matrix in int8.
    pub(crate) fn is_int8(&self) -> bool {
        matches!(self.shape, ParameterShape::Matrix { format: Format::Int8, .. })
    }

    /// Inputs of a tap of a matrix; channels of a norm; values of a table's row.
    pub(crate) fn inputs(&self) -> usize {
        self.layout().k
    }

    /// As the bundle holds it.
    pub(crate) fn stored(&self) -> WeightShape {
        match self.shape {
            ParameterShape::Matrix { .. } => WeightShape::Matrix { layout: self.layout(), n: self.outputs() },
            ParameterShape::Norm { channels } => WeightShape::Table { rows: 2, columns: channels, half: false },
            ParameterShape::Slopes { channels } => WeightShape::Table { rows: 1, columns: channels, half: false },
            ParameterShape::Table { rows, columns, half } => WeightShape::Table { rows, columns, half },
        }
    }

    /// What is written for it; of GEGLU whole pairs of panels.
    pub(crate) fn tensor(&self) -> NewTensor {
        let pairs = matches!(self.shape, ParameterShape::Matrix { gated: true, .. });
        NewTensor { name: self.name.clone(), shape: self.stored(), pairs }
    }

    /// Outputs of a matrix as stored: GEGLU's halves, and each phase, fill whole panels.
    fn outputs(&self) -> usize {
        match self.shape {
            ParameterShape::Matrix { n, gated: true, .. } => 2 * (n / 2).next_multiple_of(PANEL),
            ParameterShape::Matrix { n, phases: true, .. } => PHASES * n.next_multiple_of(PANEL),
            ParameterShape::Matrix { n, .. } => n,
            ParameterShape::Norm { .. } | ParameterShape::Slopes { .. } | ParameterShape::Table { .. } => 0,
        }
    }

    /// Bytes of the whole weight.
    pub(crate) fn bytes(&self) -> u64 {
        let stored = self.stored();
        stored.units() as u64 * stored.unit_bytes() as u64
    }

    fn layout(&self) -> Layout {
        match self.shape {
            ParameterShape::Matrix { k, kernel, phases, format, .. } => {
                Layout { format, k, taps: if phases { PHASES } else { kernel * kernel } }
            }
            ParameterShape::Norm { channels: k }
            | ParameterShape::Slopes { channels: k }
            | ParameterShape::Table { columns: k, .. } => Layout { format: Format::F32, k, taps: 1 },
        }
    }

    /// Writes unit `index` into `out`.
    pub(crate) fn encode(&self, source: &Checkpoint, index: usize, out: &mut [u8]) -> Result<()> {
        let rows = self.source_rows(source, index)?;
        match self.shape {
            ParameterShape::Matrix { format, .. } => {
                let values: Vec<&[f32]> = rows.values.chunks_exact(rows.len).collect();
                if format == Format::F16 {
                    self.check_half(source, &rows.values)?;
                }
                pack_panel(&self.layout(), &values, &rows.bias, out);
            }
            ParameterShape::Table { half: true, .. } => {
                self.check_half(source, &rows.values)?;
                write(out, &rows.values, |value| f16::from_f32(value).to_le_bytes());
            }
            ParameterShape::Norm { .. } | ParameterShape::Slopes { .. } | ParameterShape::Table { .. } => {
                write(out, &rows.values, f32::to_le_bytes);
            }
        }
        Ok(())
    }

    /// The values of unit `index`, as written in `unit` and as the source has them, in the same order.
    pub(crate) fn compare(&self, source: &Checkpoint, index: usize, unit: &[u8]) -> Result<Vec<(f32, f32)>> {
        let wanted = self.source_rows(source, index)?;
        let found: Vec<f32> = match self.shape {
            ParameterShape::Matrix { .. } => {
                let (rows, bias) = unpack_panel(&self.layout(), unit);
                let (rows, bias) = (&rows[..wanted.bias.len()], &bias[..wanted.bias.len()]);
                rows.iter().flatten().chain(bias).copied().collect()
            }
            ParameterShape::Table { half: true, .. } => read(unit, |bytes| f16::from_le_bytes(bytes).to_f32()),
            ParameterShape::Norm { .. } | ParameterShape::Slopes { .. } | ParameterShape::Table { .. } => {
                read(unit, f32::from_le_bytes)
            }
        };
        Ok(found.into_iter().zip(wanted.values.into_iter().chain(wanted.bias)).collect())
    }

    /// Calls `each` with every output of a matrix, without its bias, or channel of a norm in unit `index`: which one,
    /// and its values as `compare` has them.
    pub(crate) fn compare_channels(
        &self,
        source: &Checkpoint,
        index: usize,
        unit: &[u8],
        each: &mut EachChannel,
    ) -> Result<()> {
        let values = self.compare(source, index, unit)?;
        let (first, count, len) = match self.shape {
            ParameterShape::Matrix { k, .. } => {
                let outputs = self.panel_outputs(index);
                (outputs.start, outputs.len(), k * self.layout().taps)
            }
            ParameterShape::Norm { channels } | ParameterShape::Slopes { channels } => (0, channels, 1),
            ParameterShape::Table { columns, .. } => (index, 1, columns),
        };
        for (channel, values) in (first..).zip(values.chunks_exact(len).take(count)) {
            each(channel, values);
        }
        Ok(())
    }

    /// What unit `index` is made of, in the order of the bundle.
    fn source_rows(&self, source: &Checkpoint, index: usize) -> Result<Rows> {
        let (weight, bias_name) = (format!("{}.weight", self.module()), format!("{}.bias", self.module()));
        let (first, count, len) = match self.shape {
            ParameterShape::Matrix { k, kernel, .. } => {
                let outputs = self.panel_outputs(index);
                (outputs.start, outputs.len(), self.part.map_or(k, |part| part.whole) * kernel * kernel)
            }
            ParameterShape::Norm { channels } | ParameterShape::Slopes { channels } => (0, 1, channels),
            ParameterShape::Table { columns, .. } => (index, 1, columns),
        };
        let (mut values, mut len) = (vec![0.0; count * len], len);
        let norm = matches!(self.shape, ParameterShape::Norm { .. });
        source.read(if norm && index == 1 { &bias_name } else { &weight }, first * len, &mut values)?;
        let mut bias = Vec::new();
        if let ParameterShape::Matrix { kernel, bias: there, .. } = self.shape {
            bias.resize(count, 0.0);
            if there {
                source.read(&bias_name, first, &mut bias)?;
            }
            if let Some(part) = self.part {
                let inputs = part.first..part.first + self.inputs();
                values = values.chunks_exact(len).flat_map(|row| row[inputs.clone()].to_vec()).collect();
                len = self.inputs();
            }
            values.chunks_exact_mut(len).for_each(|row| taps_first(row, kernel * kernel));
            if let Some(phase) = self.phase(index) {
                values = values.chunks_exact(len).flat_map(|row| phase_row(row, phase)).collect();
                len = self.layout().taps * self.inputs();
            }
            let outputs = self.scales.outputs.get(first..first + count).unwrap_or_default();
            for ((row, bias), exponent) in values.chunks_exact_mut(len).zip(&mut bias).zip(outputs) {
                row.iter_mut().chain([bias]).for_each(|value| *value *= power_of_two(*exponent));
            }
        }
        let columns = if norm { &self.scales.outputs } else { &self.scales.inputs };
        if !columns.is_empty() {
            for (value, exponent) in values.iter_mut().zip(columns.iter().cycle()) {
                *value *= power_of_two(*exponent);
            }
        }
        Ok(Rows { values, len, bias })
    }

    /// The outputs of a matrix that a panel makes, as the source counts them.
    fn panel_outputs(&self, panel: usize) -> Range<usize> {
        let ParameterShape::Matrix { n, gated, phases, .. } = self.shape else { return 0..0 };
        let (start, first, end) = match (gated, phases) {
            (true, _) => (panel % 2 * (n / 2), panel / 2 * PANEL, n / 2),
            (false, true) => (0, panel % n.div_ceil(PANEL) * PANEL, n),
            (false, false) => (0, panel * PANEL, n),
        };
        start + first..start + end.min(first + PANEL)
    }

    /// The phase of a panel, if the matrix is in phases.
    fn phase(&self, panel: usize) -> Option<usize> {
        match self.shape {
            ParameterShape::Matrix { n, phases: true, .. } => Some(panel / n.div_ceil(PANEL)),
            _ => None,
        }
    }

    fn check_half(&self, source: &Checkpoint, values: &[f32]) -> Result<()> {
        match values.iter().find(|value| f16::from_f32(**value).is_infinite()) {
            Some(value) => {
                let message = format!("holds {value}, which is too large for f16; use --weights f32");
                Err(source.error(&format!("{}.weight", self.module()), message))
            }
            None => Ok(()),
        }
    }
}

/// Rows of a matrix or table.
struct Rows {
    values: Vec<f32>,
    /// Values of a row.
    len: usize,
    /// One for each row of a matrix.
    bias: Vec<f32>,
}

/// torch's `[k][taps]` to `[taps][k]`.
fn taps_first(row: &mut [f32], taps: usize) {
    if taps == 1 {
        return;
    }
    let k = row.len() / taps;
    let old = row.to_vec();
    for (i, value) in row.iter_mut().enumerate() {
        *value = old[i % k * taps + i / k];
    }
}

/// `2^exponent`, for an exponent from -126 to 127.
pub(crate) fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits(((127 + exponent) as u32) << (f32::MANTISSA_DIGITS - 1))
}

fn write<const N: usize>(out: &mut [u8], values: &[f32], bytes: impl Fn(f32) -> [u8; N]) {
    for (out, value) in out.as_chunks_mut().0.iter_mut().zip(values) {
        *out = bytes(*value);
    }
}

fn read<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|bytes| value(*bytes)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of 40 outputs.
    fn matrix(kernel: usize, gated: bool, phases: bool) -> Parameter {
        let shape = ParameterShape::Matrix { n: 40, k: 8, kernel, bias: true, gated, phases, format: Format::Int8 };
        Parameter::new("ff", shape)
    }

    #[test]
    fn panels_of_a_gated_matrix_are_values_and_gates_by_turns() {
        let panels: Vec<_> = (0..4).map(|panel| matrix(1, true, false).panel_outputs(panel)).collect();
        assert_eq!(panels, [0..16, 20..36, 16..20, 36..40]);
        assert_eq!(matrix(1, false, false).panel_outputs(2), 32..40);
    }

    #[test]
    fn both_halves_of_a_gated_matrix_fill_panels() {
        let parameter = matrix(1, true, false);
        assert_eq!((parameter.outputs(), parameter.stored().units()), (64, 4));
        assert!(parameter.tensor().pairs);
    }

    #[test]
    fn each_phase_fills_panels() {
        let parameter = matrix(3, false, true);
        assert_eq!((parameter.outputs(), parameter.stored().units()), (192, 12));
        let panels: Vec<_> = [0, 2, 3, 11].map(|panel| (parameter.phase(panel), parameter.panel_outputs(panel))).into();
        assert_eq!(panels, [(Some(0), 0..16), (Some(0), 32..40), (Some(1), 0..16), (Some(3), 32..40)]);
        assert_eq!(parameter.tensors()[0].1, [40, 8, 3, 3]);
        assert_eq!(matrix(3, false, false).phase(2), None);
    }

    #[test]
    fn taps_come_first() {
        let mut row = [0.0, 1.0, 2.0, 10.0, 11.0, 12.0];
        taps_first(&mut row, 3);
        assert_eq!(row, [0.0, 10.0, 1.0, 11.0, 2.0, 12.0]);
    }
}
