//! What an operator takes of the memory: each says it beside its `run`, and the planner adds up what they say.

/// What an operator holds while it runs, beside the values that are alive before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct OperatorMemory {
    /// The input over which the result is written if nothing reads that input afterwards.
    pub(crate) takes_over: Option<usize>,
    /// Bytes that are neither input nor output and are freed at the end.
    pub(crate) scratch: usize,
    /// Bytes of the f32 result from which `q` and `scale` are made once the inputs are dropped. 0: the outputs are
    /// written directly, while the inputs are still held.
    pub(crate) unquantized: usize,
}

/// Bytes of a tensor of f32.
pub(super) fn f32_bytes(shape: &[usize]) -> usize {
    shape.iter().product::<usize>() * size_of::<f32>()
}
