//! What an adapter adds to a weight, before it is scaled: its factors, and rows of their product.
//!
//! A weight is a matrix here, `[outputs][inputs × height × width]`, in the order of torch's tensor. The formulas are
//! those of LoRA (Hu et al. 2021), and of LyCORIS for LoCon, LoHa (Hyeon-Woo et al. 2021) and LoKr (Yeh et al. 2023).

/// A matrix, row by row.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FactorMatrix {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) values: Vec<f32>,
}

/// `first · second`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Product {
    pub(super) first: FactorMatrix,
    pub(super) second: FactorMatrix,
}

/// A matrix that may be factored itself.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Factor {
    Whole(FactorMatrix),
    Product(Product),
}

/// The factors of a change.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Factors {
    /// LoRA and LoCon: a product.
    LowRank(Product),
    /// LoHa: two products, multiplied value by value.
    Hadamard(Product, Product),
    /// LoKr: the Kronecker product of two matrices; a convolution's kernel is in the second one's columns.
    Kronecker(FactorMatrix, Factor),
}

impl FactorMatrix {
    /// Row `index`.
    fn row(&self, index: usize) -> &[f32] {
        self.values.get(index * self.columns..(index + 1) * self.columns).unwrap_or_default()
    }

    /// With rows and columns exchanged.
    pub(super) fn transposed(&self) -> FactorMatrix {
        let column = |column| self.values.iter().skip(column).step_by(self.columns.max(1)).copied();
        let values = (0..self.columns).flat_map(column).collect();
        FactorMatrix { rows: self.columns, columns: self.rows, values }
    }
}

impl Product {
    /// Row `index`, into `out`.
    fn row(&self, index: usize, out: &mut [f32]) {
        out.fill(0.0);
        let (fours, rest) = self.first.row(index).as_chunks::<4>();
        // Four rows at once: `out` is read and written a quarter as often.
        for (four, scales) in fours.iter().enumerate() {
            let [a, b, c, d] = [0, 1, 2, 3].map(|row| self.second.row(4 * four + row));
            for ((((out, a), b), c), d) in out.iter_mut().zip(a).zip(b).zip(c).zip(d) {
                *out += scales[0] * a + scales[1] * b + (scales[2] * c + scales[3] * d);
            }
        }
        for (inner, scale) in rest.iter().enumerate() {
            for (out, value) in out.iter_mut().zip(self.second.row(4 * fours.len() + inner)) {
                *out += scale * value;
            }
        }
    }

    /// The product in which a kernel `[rank][rank][height × width]` lies between the factors, as one of two: LoCon's
    /// `mid` and LyCORIS' `t1` and `t2` (`rebuild_tucker`): the second factor is Σⱼ kernel[i][j][t] · inputs[j][q] at
    /// [i][q][t].
    pub(super) fn around(outputs: FactorMatrix, kernel: &[f32], inputs: &FactorMatrix) -> Product {
        let (rank, taps) = (outputs.columns, kernel.len() / (outputs.columns * inputs.rows).max(1));
        let mut values = vec![0.0; rank * inputs.columns * taps];
        let rows = values.chunks_exact_mut((inputs.columns * taps).max(1));
        for (row, kernel) in rows.zip(kernel.chunks_exact((inputs.rows * taps).max(1))) {
            for (j, kernel) in kernel.chunks_exact(taps.max(1)).enumerate() {
                for (pixels, input) in row.chunks_exact_mut(taps.max(1)).zip(inputs.row(j)) {
                    pixels.iter_mut().zip(kernel).for_each(|(out, tap)| *out += tap * input);
                }
            }
        }
        Product { first: outputs, second: FactorMatrix { rows: rank, columns: inputs.columns * taps, values } }
    }
}

impl Factor {
    pub(super) fn rows(&self) -> usize {
        match self {
            Factor::Whole(matrix) => matrix.rows,
            Factor::Product(product) => product.first.rows,
        }
    }

    pub(super) fn columns(&self) -> usize {
        match self {
            Factor::Whole(matrix) => matrix.columns,
            Factor::Product(product) => product.second.columns,
        }
    }

    fn row(&self, index: usize, out: &mut [f32]) {
        match self {
            Factor::Whole(matrix) => out.copy_from_slice(matrix.row(index)),
            Factor::Product(product) => product.row(index, out),
        }
    }

    /// The whole matrix.
    pub(super) fn into_matrix(self) -> FactorMatrix {
        let product = match self {
            Factor::Whole(matrix) => return matrix,
            Factor::Product(product) => product,
        };
        let (rows, columns) = (product.first.rows, product.second.columns);
        let mut values = vec![0.0; rows * columns];
        values.chunks_exact_mut(columns.max(1)).enumerate().for_each(|(index, row)| product.row(index, row));
        FactorMatrix { rows, columns, values }
    }
}

impl Factors {
    /// Rows and columns of the change.
    pub(super) fn size(&self) -> (usize, usize) {
        match self {
            Factors::LowRank(product) | Factors::Hadamard(product, _) => (product.first.rows, product.second.columns),
            Factors::Kronecker(first, second) => (first.rows * second.rows(), first.columns * second.columns()),
        }
    }

    /// Row `index` of the change, into `out`.
    pub(super) fn row(&self, index: usize, out: &mut [f32]) {
        match self {
            Factors::LowRank(product) => product.row(index, out),
            Factors::Hadamard(first, second) => {
                let mut other = vec![0.0; out.len()];
                first.row(index, out);
                second.row(index, &mut other);
                out.iter_mut().zip(other).for_each(|(out, other)| *out *= other);
            }
            Factors::Kronecker(first, second) => {
                let mut part = vec![0.0; second.columns()];
                second.row(index % second.rows().max(1), &mut part);
                let scales = first.row(index / second.rows().max(1));
                for (out, scale) in out.chunks_exact_mut(part.len().max(1)).zip(scales) {
                    out.iter_mut().zip(&part).for_each(|(out, value)| *out = scale * value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(rows: usize, values: &[f32]) -> FactorMatrix {
        FactorMatrix { rows, columns: values.len() / rows, values: values.to_vec() }
    }

    fn rows(factors: &Factors) -> Vec<Vec<f32>> {
        let (rows, columns) = factors.size();
        let mut out = vec![vec![0.0; columns]; rows];
        out.iter_mut().enumerate().for_each(|(index, row)| factors.row(index, row));
        out
    }

    fn product() -> Product {
        Product { first: matrix(2, &[1.0, 2.0, 3.0, 4.0]), second: matrix(2, &[1.0, 0.0, 2.0, 0.0, 1.0, 3.0]) }
    }

    #[test]
    fn a_product_of_any_rank_has_rows() {
        for rank in 1..10 {
            let first: Vec<f32> = (0..rank).map(|inner| inner as f32 + 1.0).collect();
            let second: Vec<f32> = (0..2 * rank).map(|at| at as f32).collect();
            let wanted =
                [0, 1].map(|column| (0..rank).map(|inner| first[inner] * second[2 * inner + column]).sum::<f32>());
            let product = Product { first: matrix(1, &first), second: matrix(rank, &second) };
            assert_eq!(rows(&Factors::LowRank(product)), [wanted], "rank {rank}");
        }
    }

    #[test]
    fn a_product_has_rows() {
        assert_eq!(rows(&Factors::LowRank(product())), [[1.0, 2.0, 8.0], [3.0, 4.0, 18.0]]);
    }

    #[test]
    fn products_are_multiplied_value_by_value() {
        assert_eq!(rows(&Factors::Hadamard(product(), product())), [[1.0, 4.0, 64.0], [9.0, 16.0, 324.0]]);
    }

    #[test]
    fn a_kronecker_product_repeats_the_second_matrix() {
        let second = Factor::Whole(matrix(2, &[0.0, 5.0, 6.0, 7.0]));
        let factors = Factors::Kronecker(matrix(1, &[1.0, 2.0]), second);
        assert_eq!(rows(&factors), [[0.0, 5.0, 0.0, 10.0], [6.0, 7.0, 12.0, 14.0]]);
    }

    #[test]
    fn a_kernel_lies_between_outputs_and_inputs() {
        // outputs[p][i], kernel[i][j][t], inputs[j][q]: one output, rank 2, two inputs, two taps.
        let kernel = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
        let product = Product::around(matrix(1, &[1.0, 10.0]), &kernel, &matrix(2, &[1.0, 0.0, 0.0, 1.0]));
        assert_eq!(rows(&Factors::LowRank(product)), [[51.0, 62.0, 73.0, 84.0]]);
    }

    #[test]
    fn transposing_exchanges_rows_and_columns() {
        assert_eq!(matrix(2, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).transposed(), matrix(3, &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]));
    }
}
