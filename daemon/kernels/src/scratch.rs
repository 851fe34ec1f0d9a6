//! What threads keep between tasks, so that none allocates: packed operands and sums.

use crate::{attention, product};

/// Frees what the threads of the current rayon pool keep between tasks, up to 2 MiB each. The next kernels allocate it anew,
/// for their own sizes: worth it between networks.
pub fn release_scratch() {
    rayon::broadcast(|_| {
        product::release_scratch();
        attention::release_scratch();
    });
}
