//! How large the channels of quantized values are, counted while networks run: what a converter needs to even them out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts of the values that a bundle's networks quantize; clones count together.
#[derive(Debug, Clone, Default)]
pub struct QuantizedValues {
    network: &'static str,
    counted: Arc<Mutex<BTreeMap<String, ChannelSquares>>>,
}

/// The channels of one value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChannelSquares {
    /// Rows that were counted.
    pub rows: u64,
    /// For each channel the sum of the squares of its int8 values; the largest of a row is 127.
    pub sums: Vec<u64>,
}

impl QuantizedValues {
    /// What was counted of the values that a network's nodes make, by the network's and the node's name, with a slash
    /// between them.
    pub fn counted(&self) -> BTreeMap<String, ChannelSquares> {
        self.lock().clone()
    }

    /// The same, for a network of this name.
    pub(crate) fn of_network(&self, network: &'static str) -> QuantizedValues {
        QuantizedValues { network, ..self.clone() }
    }

    /// Counts rows of `channels` values that a node has made.
    pub(crate) fn count(&self, node: &str, q: &[i8], channels: usize) {
        let mut counted = self.lock();
        let value = counted.entry(format!("{}/{node}", self.network)).or_default();
        value.rows += (q.len() / channels) as u64;
        value.sums.resize(channels, 0);
        for row in q.chunks_exact(channels) {
            for (sum, q) in value.sums.iter_mut().zip(row) {
                *sum += u64::from(q.unsigned_abs()).pow(2);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, ChannelSquares>> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_count_together_channel_by_channel() {
        let values = QuantizedValues::default();
        values.of_network("unet").count("norm", &[127, -2, 0, -127], 2);
        values.of_network("unet").count("norm", &[1, 127], 2);
        let sums = vec![127 * 127 + 1, 4 + 2 * 127 * 127];
        assert_eq!(values.counted(), BTreeMap::from([("unet/norm".to_owned(), ChannelSquares { rows: 3, sums })]));
    }
}
