//! An output that several threads write at once, each its own tile.
//!
//! The output is an array `[lines][columns][values]`. Each axis is cut into parts that do not overlap, and a tile is one part of
//! each axis; [`split`] makes every tile once, so a tile is the only way to its values while it lives.

use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;

/// How one axis is cut: `groups` stretches of `len` units follow each other from `first` on, each in `parts` parts that are
/// as equal as whole units allow. A unit is `unit` positions; positions from `end` on belong to no part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cuts {
    pub(crate) first: usize,
    pub(crate) groups: usize,
    pub(crate) len: usize,
    pub(crate) parts: usize,
    pub(crate) unit: usize,
    pub(crate) end: usize,
}

impl Cuts {
    /// `groups` stretches of `len` positions, each in `parts` parts.
    pub(crate) fn equal(groups: usize, len: usize, parts: usize) -> Cuts {
        Cuts { first: 0, groups, len, parts, unit: 1, end: groups * len }
    }

    /// The number of parts.
    pub(crate) fn count(&self) -> usize {
        self.groups * self.parts
    }

    /// The positions of a part. Those of part `i + 1` start where, or after, those of part `i` end.
    fn part(&self, i: usize) -> Range<usize> {
        let units = part(self.len, self.parts, i % self.parts);
        let position = |units: usize| (self.first + (i / self.parts * self.len + units) * self.unit).min(self.end);
        position(units.start)..position(units.end)
    }
}

/// Part `i` of `0..len` in `count` parts, as equal as they can be.
#[inline(always)]
pub(crate) fn part(len: usize, count: usize, i: usize) -> Range<usize> {
    len * i / count..len * (i + 1) / count
}

/// Cuts `out`, an array of `shape`, into tiles: one for every part of the three axes. The parts of the last axis come slowest,
/// those of the middle one fastest.
///
/// # Panics
///
/// If `out` has another size, or an axis is cut beyond its end.
pub(crate) fn split<'a>(
    out: &'a mut [f32],
    shape: [usize; 3],
    cuts: [Cuts; 3],
) -> impl IndexedParallelIterator<Item = OutTile<'a>> {
    let size = shape[0].checked_mul(shape[1]).and_then(|size| size.checked_mul(shape[2]));
    assert_eq!(size, Some(out.len()), "an output of {shape:?}");
    assert!(cuts.iter().zip(shape).all(|(cuts, len)| cuts.end <= len), "{cuts:?} in {shape:?}");
    let [lines, columns, _] = cuts.map(|cuts| cuts.count());
    let whole = Whole { first: out.as_mut_ptr(), shape, borrow: PhantomData };
    (0..cuts.iter().map(Cuts::count).product()).into_par_iter().with_max_len(1).map(move |i: usize| {
        let (value, rest) = (i / (lines * columns), i % (lines * columns));
        let ranges = [cuts[0].part(rest / columns), cuts[1].part(rest % columns), cuts[2].part(value)];
        // SAFETY: each `i` comes once and is another choice of one part of each axis. Two tiles differ in the part of an axis,
        // and an axis's parts have no position in common. All are within the shape, since `part` ends at `end`.
        unsafe { whole.tile(ranges) }
    })
}

/// The whole of an output, while it is cut.
#[derive(Clone, Copy)]
struct Whole<'a> {
    first: *mut f32,
    shape: [usize; 3],
    borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: it stands for a `&mut [f32]`, which may be sent to a thread.
unsafe impl Send for Whole<'_> {}
// SAFETY: the only way from a shared reference to the values is `tile`, whose callers promise that no two tiles overlap.
unsafe impl Sync for Whole<'_> {}

impl<'a> Whole<'a> {
    /// # Safety
    ///
    /// The ranges are within the shape, and no other tile has a value of theirs.
    unsafe fn tile(self, [lines, columns, values]: [Range<usize>; 3]) -> OutTile<'a> {
        let [_, width, stride] = self.shape;
        let first = self.first.wrapping_add((lines.start * width + columns.start) * stride + values.start);
        OutTile { first, lines, columns, values, pitch: width * stride, stride, borrow: PhantomData }
    }
}

/// A box of an output: some values of some columns of some lines.
pub(crate) struct OutTile<'a> {
    /// The first value.
    first: *mut f32,
    /// Which lines, columns and values of the whole output these are; of a tile with gaps, of what the gaps leave.
    pub(crate) lines: Range<usize>,
    pub(crate) columns: Range<usize>,
    pub(crate) values: Range<usize>,
    /// From a line to the next, in values.
    pitch: usize,
    /// From a column to the next, in values.
    stride: usize,
    borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: it stands for `&mut [f32]`s, which may be sent to a thread; no other tile has the same values.
unsafe impl Send for OutTile<'_> {}

impl OutTile<'_> {
    /// The tile's values of its line and column of these numbers.
    ///
    /// # Panics
    ///
    /// If the tile has fewer lines or columns.
    #[inline(always)]
    pub(crate) fn at(&mut self, line: usize, column: usize) -> &mut [f32] {
        assert!(line < self.lines.len() && column < self.columns.len(), "a cell beyond the tile");
        // SAFETY: the cell is the tile's, whose values are within the output (see `Whole::tile`) and in no other tile; so are
        // those of `narrowed` and `spaced`, which have some of its cells. This tile is borrowed as long as the slice.
        unsafe {
            std::slice::from_raw_parts_mut(self.first.add(line * self.pitch + column * self.stride), self.values.len())
        }
    }

    /// Where a cell starts, for prefetching; it need not exist.
    #[inline(always)]
    pub(crate) fn address(&self, line: usize, column: usize) -> *const f32 {
        self.first.wrapping_add(line * self.pitch + column * self.stride)
    }

    /// The same lines and columns, of which only some values: those at `values` in the whole output's cells.
    ///
    /// # Panics
    ///
    /// If the tile does not have these values.
    #[inline(always)]
    pub(crate) fn narrowed(&mut self, values: Range<usize>) -> OutTile<'_> {
        let inside = self.values.start <= values.start && values.start <= values.end && values.end <= self.values.end;
        assert!(inside, "values {values:?} of {:?}", self.values);
        let first = self.first.wrapping_add(values.start - self.values.start);
        OutTile { first, lines: self.lines.clone(), columns: self.columns.clone(), values, ..*self }
    }

    /// The same values of every `step`-th line and column, from these on, which are counted from the tile's first.
    ///
    /// # Panics
    ///
    /// If the tile has fewer lines or columns than come before.
    #[inline(always)]
    pub(crate) fn spaced(&mut self, [line, column]: [usize; 2], step: usize) -> OutTile<'_> {
        assert!(line <= self.lines.len() && column <= self.columns.len(), "a cell beyond the tile");
        let first = self.first.wrapping_add(line * self.pitch + column * self.stride);
        let [lines, columns] = [self.lines.len() - line, self.columns.len() - column].map(|len| 0..len.div_ceil(step));
        let (values, pitch, stride) = (self.values.clone(), self.pitch * step, self.stride * step);
        OutTile { first, lines, columns, values, pitch, stride, borrow: PhantomData }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cuts of axes of 2 × 7, 5 and 40 positions, of which the last 3 and the first 4 belong to no tile.
    fn cuts() -> ([usize; 3], [Cuts; 3]) {
        let values = Cuts { first: 4, groups: 1, len: 5, parts: 3, unit: 8, end: 37 };
        ([14, 5, 40], [Cuts::equal(2, 7, 3), Cuts::equal(1, 5, 2), values])
    }

    #[test]
    fn every_value_is_in_one_tile() {
        let (shape, cuts) = cuts();
        let mut out = vec![0.0; shape.iter().product()];
        split(&mut out, shape, cuts).for_each(|mut tile| {
            let (lines, columns) = (tile.lines.len(), tile.columns.len());
            for (line, column) in (0..lines).flat_map(|l| (0..columns).map(move |c| (l, c))) {
                tile.at(line, column).iter_mut().for_each(|value| *value += 1.0);
            }
        });
        for (i, value) in out.iter().enumerate() {
            let owned = (4..37).contains(&(i % 40));
            assert_eq!(*value, if owned { 1.0 } else { 0.0 }, "value {i}");
        }
    }

    #[test]
    fn a_tile_knows_where_it_is() {
        let (shape, cuts) = cuts();
        let mut out: Vec<f32> = (0..shape.iter().product::<usize>()).map(|i| i as f32).collect();
        split(&mut out, shape, cuts).for_each(|mut tile| {
            let (lines, columns) = (tile.lines.clone(), tile.columns.clone());
            let start = tile.values.start + (tile.values.len() > 2) as usize;
            let mut part = tile.narrowed(start..start + 1);
            for (line, column) in lines.clone().flat_map(|l| columns.clone().map(move |c| (l, c))) {
                let found = part.at(line - lines.start, column - columns.start);
                assert_eq!(found, [((line * 5 + column) * 40 + start) as f32]);
            }
        });
    }

    #[test]
    #[cfg_attr(miri, ignore = "unwinding out of rayon's threads takes Miri many minutes")]
    fn nothing_beyond_a_tile_is_given_out() {
        let (shape, cuts) = cuts();
        let beyond: [fn(&mut OutTile); 3] = [
            |tile| tile.at(tile.lines.len(), 0).fill(1.0),
            |tile| tile.at(0, tile.columns.len()).fill(1.0),
            |tile| _ = tile.narrowed(tile.values.start..tile.values.end + 1),
        ];
        for reach in beyond {
            let mut out = vec![0.0; shape.iter().product()];
            let run = || split(&mut out, shape, cuts).for_each(|mut tile| reach(&mut tile));
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
        }
        let mut out = vec![0.0; 10];
        let run = || split(&mut out, [usize::MAX, 2, 5], cuts).for_each(drop);
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err(), "a size that wraps");
    }
}
