//! Tensors that are used no more, kept for the next operator that needs one of their type and size.
//!
//! A step makes gigabytes of activations in a few sizes. tract would fill each new one with zeros, on one thread, though
//! every value is written anyway. Kept tensors never add to the peak that the schedule predicts: the longest unused are
//! freed as soon as a new tensor needs their room.

use tract_onnx::prelude::tract_num_traits::Zero;
use tract_onnx::prelude::*;

use super::values::zeros;
use crate::error::Result;

/// Smaller tensors are not worth keeping, bytes.
const SMALLEST: usize = 64 << 10;

/// Unused tensors, and the bytes of all that operators took.
#[derive(Default)]
pub(crate) struct Pool {
    free: Vec<Tensor>,
    /// Bytes of `free`.
    kept: usize,
    /// Bytes of what was taken and not given back.
    taken: usize,
    /// The most bytes of both together.
    most: usize,
}

impl Pool {
    /// A pool for runs whose tensors, the unused ones included, may have `most` bytes.
    pub(crate) fn new(most: usize) -> Pool {
        Pool { most, ..Pool::default() }
    }

    /// Gets ready for a run on `inputs`, which operators give as what was taken here: what the last run took and did not
    /// give back is gone.
    pub(crate) fn begin(&mut self, inputs: &[TValue]) {
        self.taken = inputs.iter().map(|input| bytes(input)).filter(|bytes| *bytes >= SMALLEST).sum();
    }

    /// Frees everything that is kept.
    pub(crate) fn clear(&mut self) {
        self.free.clear();
        self.kept = 0;
    }

    /// A tensor whose values are arbitrary: the caller writes all of them.
    pub(super) fn take<T: Datum + Zero>(&mut self, shape: &[usize]) -> Result<Tensor> {
        let len: usize = shape.iter().product();
        let bytes = len * size_of::<T>();
        if bytes < SMALLEST {
            return zeros::<T>(shape);
        }
        let fits = |tensor: &Tensor| tensor.datum_type() == T::datum_type() && tensor.len() == len;
        let found = self.free.iter().rposition(fits);
        let tensor = match found.map(|at| self.free.remove(at)) {
            Some(tensor) => {
                self.kept -= bytes;
                tensor.into_shape(shape).map_err(super::values::internal)?
            }
            None => {
                self.make_room(bytes);
                zeros::<T>(shape)?
            }
        };
        self.taken += bytes;
        Ok(tensor)
    }

    /// Makes room for `bytes` that an operator takes elsewhere, until they are given back with `release`.
    pub(super) fn reserve(&mut self, bytes: usize) {
        self.make_room(bytes);
        self.taken += bytes;
    }

    /// Gives back what was reserved.
    pub(super) fn release(&mut self, bytes: usize) {
        self.taken = self.taken.saturating_sub(bytes);
    }

    /// Keeps `value` if this is the only reference to it.
    pub(super) fn give(&mut self, value: TValue) {
        let bytes = bytes(&value);
        if bytes < SMALLEST || !value.is_exclusive() {
            return;
        }
        self.taken = self.taken.saturating_sub(bytes);
        self.kept += bytes;
        self.free.push(value.into_tensor());
    }

    /// Frees the longest unused until `bytes` more are within the run's most.
    fn make_room(&mut self, bytes: usize) {
        while self.taken + self.kept + bytes > self.most && !self.free.is_empty() {
            self.kept -= self::bytes(&self.free.remove(0));
        }
    }
}

fn bytes(tensor: &Tensor) -> usize {
    tensor.len() * tensor.datum_type().size_of()
}

#[cfg(test)]
mod tests {
    use super::super::values::OperatorInputs;
    use super::*;

    const SHAPE: [usize; 2] = [16, 1024];
    const BYTES: usize = 4 * SHAPE[0] * SHAPE[1];

    #[test]
    fn what_was_given_is_taken_again_in_another_shape() {
        let mut pool = Pool::new(BYTES);
        let first = pool.take::<f32>(&SHAPE).unwrap();
        pool.give(first.into());
        assert_eq!((pool.kept, pool.taken), (BYTES, 0));
        assert_eq!(pool.take::<f32>(&[1, 1024, 16]).unwrap().shape(), [1, 1024, 16]);
        assert_eq!((pool.kept, pool.taken), (0, BYTES));
    }

    #[test]
    fn what_others_hold_is_not_taken_from_them() {
        let mut pool = Pool::new(BYTES);
        let value: TValue = pool.take::<f32>(&SHAPE).unwrap().into();
        let other = value.clone();
        pool.give(value);
        assert_eq!((pool.kept, pool.taken), (0, BYTES));
        drop(other);
    }

    #[test]
    fn what_is_given_was_counted_before() {
        let mut pool = Pool::new(3 * BYTES);
        let input: TValue = Tensor::zero::<f32>(&SHAPE).unwrap().into();
        pool.begin(std::slice::from_ref(&input));
        let copy = OperatorInputs::new(tvec![input.clone()]).tensor(&mut pool).unwrap();
        assert_eq!((pool.kept, pool.taken), (0, 2 * BYTES), "an input, and the copy of it that an operator writes to");
        pool.give(copy.into());
        pool.give(input);
        assert_eq!((pool.kept, pool.taken), (2 * BYTES, 0));
    }

    #[test]
    fn keeping_never_adds_to_the_peak() {
        let mut pool = Pool::new(2 * BYTES);
        let values = [(); 2].map(|()| pool.take::<f32>(&SHAPE).unwrap());
        values.into_iter().for_each(|value| pool.give(value.into()));
        let _large = pool.take::<i8>(&[5 * SHAPE[0], SHAPE[1]]).unwrap();
        assert_eq!((pool.kept, pool.taken), (0, BYTES / 4 * 5));
    }
}
