//! The tensors of one module of a LoRA file, and the factors that they make up.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::factors::{Factor, FactorMatrix, Factors, Product};
use super::key::LoraPart;
use crate::error::{Error, Result};
use crate::tensors::TensorFile;

/// A module's tensors in a file.
#[derive(Clone)]
pub(super) struct ModuleParts {
    file: Arc<TensorFile>,
    keys: BTreeMap<LoraPart, String>,
}

impl ModuleParts {
    pub(super) fn new(file: &Arc<TensorFile>) -> ModuleParts {
        ModuleParts { file: Arc::clone(file), keys: BTreeMap::new() }
    }

    /// Adds the tensor `key`.
    ///
    /// # Errors
    ///
    /// The module has such a tensor already, spelled otherwise.
    pub(super) fn add(&mut self, part: LoraPart, key: &str) -> Result<()> {
        match self.keys.insert(part, key.to_owned()) {
            Some(other) => Err(self.error(key, format!("is there twice, also as {other}"))),
            None => Ok(()),
        }
    }

    /// The file.
    pub(super) fn file(&self) -> &TensorFile {
        &self.file
    }

    /// One of its keys, for messages.
    pub(super) fn first_key(&self) -> &str {
        self.keys.values().next().map_or("", String::as_str)
    }

    /// The tensor that is `part`.
    pub(super) fn key(&self, part: LoraPart) -> Option<&str> {
        self.keys.get(&part).map(String::as_str)
    }

    /// It holds more than a bias.
    pub(super) fn changes_weight(&self) -> bool {
        self.keys.keys().any(|part| *part != LoraPart::DiffBias)
    }

    /// All values of `part` where it is there.
    pub(super) fn values(&self, part: LoraPart) -> Result<Option<Vec<f32>>> {
        self.key(part).map(|key| self.file.read_all(key)).transpose()
    }

    /// An error of tensor `key`.
    pub(super) fn error(&self, key: &str, message: impl Into<String>) -> Error {
        Error::tensor(&self.file.path, key, message)
    }

    /// Reads the factors, and their rank, by which alpha is divided; `None`: alpha has no effect.
    ///
    /// # Errors
    ///
    /// A factor is missing, or two do not fit each other.
    pub(super) fn factors(&self) -> Result<(Factors, Option<usize>)> {
        let has = |part| self.keys.contains_key(&part);
        if has(LoraPart::Down) || has(LoraPart::Up) {
            return self.low_rank();
        }
        if has(LoraPart::HadaW1A) || has(LoraPart::HadaW1B) {
            return self.hadamard();
        }
        if [LoraPart::LokrW1, LoraPart::LokrW1A, LoraPart::LokrW2, LoraPart::LokrW2A].into_iter().any(has) {
            return self.kronecker();
        }
        Err(self.error(self.first_key(), "is not the part of a LoRA that can do without others"))
    }

    fn low_rank(&self) -> Result<(Factors, Option<usize>)> {
        let (up, down) = (self.matrix(LoraPart::Up)?, self.matrix(LoraPart::Down)?);
        let rank = down.rows;
        let product = match self.key(LoraPart::Mid) {
            None => self.product(LoraPart::Up, up, down)?,
            Some(_) => self.around(LoraPart::Up, up, LoraPart::Mid, &down)?,
        };
        Ok((Factors::LowRank(product), Some(rank)))
    }

    fn hadamard(&self) -> Result<(Factors, Option<usize>)> {
        let mut rank = 0;
        let mut product = |a, b, kernel| {
            let (first, second) = (self.matrix(a)?, self.matrix(b)?);
            rank = second.rows;
            match self.key(kernel) {
                None => self.product(a, first, second),
                Some(_) => self.around(a, first.transposed(), kernel, &second),
            }
        };
        let first = product(LoraPart::HadaW1A, LoraPart::HadaW1B, LoraPart::HadaT1)?;
        let second = product(LoraPart::HadaW2A, LoraPart::HadaW2B, LoraPart::HadaT2)?;
        let size = |product: &Product| (product.first.rows, product.second.columns);
        if size(&first) != size(&second) {
            return Err(self.error(self.first_key(), "the two products of a LoHa are of different sizes"));
        }
        Ok((Factors::Hadamard(first, second), Some(rank)))
    }

    fn kronecker(&self) -> Result<(Factors, Option<usize>)> {
        let mut rank = None;
        let mut factor = |whole, a, b, kernel: Option<LoraPart>| -> Result<Factor> {
            if self.key(whole).is_some() {
                return Ok(Factor::Whole(self.matrix(whole)?));
            }
            let (first, second) = (self.matrix(a)?, self.matrix(b)?);
            rank = Some(second.rows);
            Ok(Factor::Product(match kernel.filter(|kernel| self.key(*kernel).is_some()) {
                None => self.product(a, first, second)?,
                Some(kernel) => self.around(a, first.transposed(), kernel, &second)?,
            }))
        };
        let first = factor(LoraPart::LokrW1, LoraPart::LokrW1A, LoraPart::LokrW1B, None)?.into_matrix();
        let second = factor(LoraPart::LokrW2, LoraPart::LokrW2A, LoraPart::LokrW2B, Some(LoraPart::LokrT2))?;
        Ok((Factors::Kronecker(first, second), rank))
    }

    /// Tensor `part` as a matrix: the first axis are rows.
    fn matrix(&self, part: LoraPart) -> Result<FactorMatrix> {
        let Some(key) = self.key(part) else {
            return Err(self.error(self.first_key(), format!("its module has no {part:?}, which it needs")));
        };
        let shape = self.shape(key);
        let rows = shape.first().copied().unwrap_or(1);
        let values = self.file.read_all(key)?;
        let columns = shape.iter().skip(1).product();
        if rows == 0 || columns == 0 {
            return Err(self.error(key, format!("has the shape {shape:?}, which holds nothing")));
        }
        Ok(FactorMatrix { rows, columns, values })
    }

    fn shape(&self, key: &str) -> &[usize] {
        self.file.tensors.get(key).map_or(&[], |tensor| &tensor.shape)
    }

    fn product(&self, part: LoraPart, first: FactorMatrix, second: FactorMatrix) -> Result<Product> {
        if first.columns == second.rows {
            return Ok(Product { first, second });
        }
        let key = self.key(part).unwrap_or_default();
        Err(self.error(key, format!("has {} columns for {} rows of its second factor", first.columns, second.rows)))
    }

    /// The product around the kernel `part`.
    fn around(
        &self,
        outputs_part: LoraPart,
        outputs: FactorMatrix,
        part: LoraPart,
        inputs: &FactorMatrix,
    ) -> Result<Product> {
        let (key, kernel) = (self.key(part).unwrap_or_default(), self.values(part)?.unwrap_or_default());
        let shape = self.shape(key);
        match *shape {
            [i, j, ..] if i == outputs.columns && j == inputs.rows => Ok(Product::around(outputs, &kernel, inputs)),
            _ => {
                let outputs_key = self.key(outputs_part).unwrap_or_default();
                let message = format!("has the shape {shape:?} between {} and {}", outputs.columns, inputs.rows);
                Err(self.error(key, format!("{message} of its factors, {outputs_key} the first")))
            }
        }
    }
}
