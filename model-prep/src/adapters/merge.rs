//! The change of one weight: computed for the rows that are read.
//!
//! W + strength · alpha/rank · product (LoRA), and of DoRA (Liu et al. 2024) each output's row, or in LyCORIS' older
//! files each input's column, of that sum scaled to the length that was trained. As in PEFT, on which diffusers relies,
//! the strength scales the product alone, and several changes come one after the other, but lengths are those of the
//! model's own weight with one product.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::factors::Factors;
use super::key::LoraPart;
use super::nearest;
use super::parts::ModuleParts;
use crate::error::{Error, Result};
use crate::tensors::{Checkpoint, TensorFile};

/// The factors that were read last, of one module of a file, by one of its keys.
pub(super) type FactorCache = RefCell<Option<(String, Rc<Factors>)>>;

/// What is added to a weight's rows.
enum Addend {
    /// A product of factors.
    Factors(Rc<FactorCache>),
    /// Values of the file.
    Diff(String),
}

/// The lengths that DoRA trained.
enum Magnitudes {
    /// Of each output's row.
    Outputs(Vec<f32>),
    /// Of each input's column, here already divided by the column's length; and a kernel's pixels.
    Inputs(Vec<f32>, usize),
}

/// The change of a weight.
pub(super) struct WeightMerge {
    parts: ModuleParts,
    addend: Addend,
    /// Rows and columns.
    size: (usize, usize),
    scale: f32,
    magnitudes: Option<Magnitudes>,
}

impl WeightMerge {
    /// Reads the module's factors once, to know that they fit. `scale_of` says how a rank scales where no alpha is
    /// there.
    pub(super) fn new(
        parts: &ModuleParts,
        strength: f32,
        scale_of: &dyn Fn(usize) -> f32,
        cache: &Rc<FactorCache>,
    ) -> Result<WeightMerge> {
        let parts = parts.clone();
        if let Some(key) = parts.key(LoraPart::Diff) {
            let shape = parts.file().tensors.get(key).map_or(&[][..], |tensor| &tensor.shape);
            let size = (shape.first().copied().unwrap_or(1), shape.iter().skip(1).product());
            let addend = Addend::Diff(key.to_owned());
            return Ok(WeightMerge { addend, size, scale: strength, magnitudes: None, parts });
        }
        let (factors, rank) = parts.factors()?;
        let scale = match (parts.values(LoraPart::Alpha)?, rank) {
            (_, None) => 1.0,
            (Some(alpha), Some(rank)) => alpha.first().copied().unwrap_or_default() / rank as f32,
            (None, Some(rank)) => scale_of(rank),
        };
        let addend = Addend::Factors(Rc::clone(cache));
        Ok(WeightMerge { addend, size: factors.size(), scale: strength * scale, magnitudes: None, parts })
    }

    /// For the weight of `module`, as it is before anything is merged.
    ///
    /// # Errors
    ///
    /// The sizes differ.
    pub(super) fn fitted_to(mut self, checkpoint: &Checkpoint, module: &str) -> Result<WeightMerge> {
        let weight = format!("{module}.weight");
        let shape = checkpoint.shape(&weight).ok_or_else(|| checkpoint.error(&weight, "is missing"))?;
        let (rows, columns) = (shape.first().copied().unwrap_or(1), shape.iter().skip(1).product());
        if self.size != (rows, columns) {
            let (own_rows, own_columns) = self.size;
            let message =
                format!("changes a layer of {own_rows}×{own_columns}, but {module} is one of {rows}×{columns}");
            return Err(self.parts.error(self.parts.first_key(), message));
        }
        self.magnitudes = self.magnitudes(checkpoint, &weight, shape)?;
        Ok(self)
    }

    fn magnitudes(&self, checkpoint: &Checkpoint, weight: &str, shape: &[usize]) -> Result<Option<Magnitudes>> {
        let Some((key, of_inputs)) = self.magnitude_key() else { return Ok(None) };
        let mut values = self.parts.file().read_all(key)?;
        let (rows, inputs) = (self.size.0, shape.get(1).copied().unwrap_or(1));
        let axis = if of_inputs { inputs } else { rows };
        if values.len() != axis {
            let message =
                format!("holds {} magnitudes for a layer of {rows} outputs and {inputs} inputs", values.len());
            return Err(self.parts.error(key, message));
        }
        if !of_inputs {
            return Ok(Some(Magnitudes::Outputs(values)));
        }
        let taps = self.size.1 / inputs.max(1);
        let lengths = self.column_lengths(checkpoint, weight, inputs, taps)?;
        values.iter_mut().zip(lengths).for_each(|(value, length)| *value /= length);
        Ok(Some(Magnitudes::Inputs(values, taps)))
    }

    /// The key of DoRA's magnitudes, and whether they are of the inputs: of LyCORIS' their first axis is then 1.
    fn magnitude_key(&self) -> Option<(&str, bool)> {
        if let Some(key) = self.parts.key(LoraPart::Magnitude) {
            return Some((key, false));
        }
        let key = self.parts.key(LoraPart::DoraScale)?;
        let shape = &self.parts.file().tensors.get(key)?.shape;
        Some((key, shape.len() > 1 && shape.first() == Some(&1) && self.size.0 != 1))
    }

    /// The length of each input's column of the sum.
    fn column_lengths(&self, checkpoint: &Checkpoint, weight: &str, inputs: usize, taps: usize) -> Result<Vec<f32>> {
        let (rows, columns) = self.size;
        let (mut squares, mut row) = (vec![0.0; inputs], vec![0.0; columns]);
        for index in 0..rows {
            checkpoint.read(weight, index * columns, &mut row)?;
            add(&mut row, &self.change(index)?);
            for (square, values) in squares.iter_mut().zip(row.chunks_exact(taps.max(1))) {
                *square += sum_of_squares(values);
            }
        }
        Ok(squares.into_iter().map(length).collect())
    }

    /// Changes row `index`, which was `base` before anything was merged.
    fn apply(&self, index: usize, base: &[f32], row: &mut [f32]) -> Result<()> {
        let change = self.change(index)?;
        add(row, &change);
        match &self.magnitudes {
            None => {}
            Some(Magnitudes::Outputs(magnitudes)) => {
                let own = length(base.iter().zip(&change).map(|(base, change)| f64::from(base + change).powi(2)).sum());
                let scale = magnitudes.get(index).copied().unwrap_or_default() / own;
                row.iter_mut().for_each(|value| *value *= scale);
            }
            Some(Magnitudes::Inputs(scales, taps)) => {
                let inputs = row.chunks_exact_mut((*taps).max(1)).zip(scales);
                inputs.for_each(|(values, scale)| values.iter_mut().for_each(|value| *value *= scale));
            }
        }
        Ok(())
    }

    /// Row `index` of what is added.
    fn change(&self, index: usize) -> Result<Vec<f32>> {
        let columns = self.size.1;
        let mut change = vec![0.0; columns];
        match &self.addend {
            Addend::Diff(key) => self.parts.file().read(key, index * columns, &mut change)?,
            Addend::Factors(cache) => self.factors(cache)?.row(index, &mut change),
        }
        change.iter_mut().for_each(|value| *value *= self.scale);
        Ok(change)
    }

    /// The module's factors, read again where another module's were needed since.
    fn factors(&self, cache: &FactorCache) -> Result<Rc<Factors>> {
        let key = self.parts.first_key();
        if let Some((cached, factors)) = &*cache.borrow()
            && cached == key
        {
            return Ok(Rc::clone(factors));
        }
        cache.take();
        let factors = Rc::new(self.parts.factors()?.0);
        cache.replace(Some((key.to_owned(), Rc::clone(&factors))));
        Ok(factors)
    }
}

/// Has `weight` changed by `merges`, one after the other, whenever rows of it are read.
pub(super) fn merge_weight(checkpoint: &mut Checkpoint, weight: &str, merges: Vec<WeightMerge>) -> Result<()> {
    let columns = merges.first().map_or(1, |merge| merge.size.1).max(1);
    let name = weight.to_owned();
    checkpoint.change(
        weight,
        Box::new(move |first, values| {
            let parts = !first.is_multiple_of(columns) || !values.len().is_multiple_of(columns);
            if let Some(merge) = merges.first().filter(|_| parts) {
                let message = format!("changes whole rows of {name}, but a part of one was read");
                return Err(merge.parts.error(merge.parts.first_key(), message));
            }
            for (row, index) in values.chunks_exact_mut(columns).zip(first / columns..) {
                let base = row.to_vec();
                merges.iter().try_for_each(|merge| merge.apply(index, &base, row))?;
            }
            Ok(())
        }),
    )
}

/// The change of a bias.
pub(super) struct BiasMerge {
    file: Arc<TensorFile>,
    key: String,
    strength: f32,
}

impl BiasMerge {
    pub(super) fn new(file: &Arc<TensorFile>, key: &str, strength: f32) -> BiasMerge {
        BiasMerge { file: Arc::clone(file), key: key.to_owned(), strength }
    }

    /// Has the bias of `module` changed whenever it is read.
    ///
    /// # Errors
    ///
    /// There is no bias, or it is of another length.
    pub(super) fn add_to(self, checkpoint: &mut Checkpoint, module: &str) -> Result<()> {
        let error = |message| Error::tensor(&self.file.path, &self.key, message);
        let bias = format!("{module}.bias");
        let Some(shape) = checkpoint.shape(&bias) else {
            return Err(error(format!("changes the bias of {module}, which has none")));
        };
        let own = self.file.tensors.get(&self.key).map_or(0, |tensor| tensor.len());
        if own != shape.iter().product::<usize>() {
            return Err(error(format!("changes a bias of {own} values, but that of {module} is of shape {shape:?}")));
        }
        checkpoint.change(
            &bias,
            Box::new(move |first, values| {
                let mut change = vec![0.0; values.len()];
                self.file.read(&self.key, first, &mut change)?;
                values.iter_mut().zip(change).for_each(|(value, change)| *value += self.strength * change);
                Ok(())
            }),
        )
    }
}

fn add(values: &mut [f32], change: &[f32]) {
    values.iter_mut().zip(change).for_each(|(value, change)| *value += change);
}

fn sum_of_squares(values: &[f32]) -> f64 {
    values.iter().map(|value| f64::from(*value).powi(2)).sum()
}

/// The root of a sum of squares, but not 0, by which it is divided.
fn length(squares: f64) -> f32 {
    nearest(squares.sqrt()).max(f32::EPSILON)
}
