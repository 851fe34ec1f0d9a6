//! Where a painting was after a call of the UNet, so that it can go on from there in another process.
//!
//! As bytes it is numbers of four bytes, little endian: the header, the noise generator's state, then tensors, and at the
//! end a checksum (XXH3-64) of all before. A file of it may be torn, edited or of another time: bytes are taken only
//! where the checksum and every length fit, and an engine goes on only with what the same program made of the same
//! painting and model.

use std::sync::Arc;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::hash::xxh3;
use crate::hires::SamplingPass;
use crate::latents::Latents;
use crate::noise::{self, Noise};
use crate::sampler::{History, Sampler};

/// The first four bytes.
const MAGIC: u32 = u32::from_le_bytes(*b"dfck");
/// The version of the layout: in a second pass the calls of the first one follow the header.
const FORMAT: u32 = 1;
const FORMAT_HIRES: u32 = 2;
/// Numbers before the noise generator's state.
const HEADER: usize = 15;
/// The most outputs that a history holds.
const MOST_OUTPUTS: u32 = 16;

/// The state between two calls of the UNet. Painting on from it gives the bytes of a painting that was never interrupted.
#[derive(Debug, Clone, PartialEq)]
pub struct StepCheckpoint {
    pub(crate) origin: Origin,
    /// Calls of the UNet in the pass before.
    pub(crate) earlier: usize,
    pub(crate) latents: Latents,
    pub(crate) history: History,
    pub(crate) noise: Noise,
}

/// What a checkpoint belongs to: checksums of the program's version, the model and the painting's parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    program: u64,
    model: u64,
    painting: u64,
}

impl Origin {
    /// Of what this program makes of a painting with the model of this checksum. The parameters count as results show
    /// them, so that one that is new and not used leaves the checksum as it was.
    pub(crate) fn new(model_sha256: &str, parameters: &impl Serialize) -> Origin {
        let parameters =
            serde_json::to_vec(parameters).expect("parameters have only strings as keys, and finite numbers");
        Origin {
            program: xxh3(env!("CARGO_PKG_VERSION").as_bytes()),
            model: xxh3(model_sha256.as_bytes()),
            painting: xxh3(&parameters),
        }
    }
}

impl StepCheckpoint {
    /// Before the first call of the UNet.
    pub(crate) fn new(origin: Origin, latents: Latents, noise: Noise) -> StepCheckpoint {
        StepCheckpoint { origin, earlier: 0, latents, history: History::default(), noise }
    }

    /// How many calls of the UNet were made, in both passes.
    pub fn calls(&self) -> usize {
        self.earlier + self.history.made
    }

    /// The pass that is on its way.
    pub(crate) fn pass(&self) -> SamplingPass {
        if self.earlier == 0 { SamplingPass::First } else { SamplingPass::Hires }
    }

    /// The checkpoint as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let Origin { program, model, painting } = self.origin;
        let Latents { height, width, channels, .. } = self.latents;
        let History { made, outputs, sample, sum } = &self.history;
        let tensors = || std::iter::once(self.latents.values.as_slice()).chain(self.history.tensors());
        let split = |number: u64| [number as u32, (number >> 32) as u32];
        let format = if self.earlier == 0 { FORMAT } else { FORMAT_HIRES };
        let earlier = (self.earlier > 0).then_some(self.earlier as u32);
        let header = [[MAGIC, format], split(program), split(model), split(painting)].into_iter().flatten();
        let sizes = [*made, height, width, channels, outputs.len(), sample.iter().len(), sum.iter().len()];
        let words = header.chain(sizes.map(|size| size as u32)).chain(earlier).chain(self.noise.to_words());
        let len = HEADER + 1 + noise::WORDS + tensors().map(<[f32]>::len).sum::<usize>() + 2;
        let mut bytes = Vec::with_capacity(len * size_of::<u32>());
        words.for_each(|word| bytes.extend(word.to_le_bytes()));
        tensors().flatten().for_each(|value| bytes.extend(value.to_le_bytes()));
        bytes.extend(xxh3(&bytes).to_le_bytes());
        bytes
    }

    /// The checkpoint that [`StepCheckpoint::to_bytes`] made `bytes` of. It takes no more memory than they do.
    ///
    /// # Errors
    ///
    /// `Checkpoint` where they are not what was written, or of another version's layout.
    pub fn from_bytes(bytes: &[u8]) -> Result<StepCheckpoint> {
        let Some((bytes, checksum)) = bytes.split_last_chunk() else { return refuse("it is cut off") };
        let (words, rest) = bytes.as_chunks();
        let Some((header, words)) = words.split_first_chunk::<HEADER>() else { return refuse("it is cut off") };
        let header = header.map(u32::from_le_bytes);
        if header[0] != MAGIC {
            return refuse("it is something else");
        }
        if ![FORMAT, FORMAT_HIRES].contains(&header[1]) {
            let message = format!("its format is {}, this program reads {FORMAT} and {FORMAT_HIRES}", header[1]);
            return refuse(&message);
        }
        if u64::from_le_bytes(*checksum) != xxh3(bytes) || !rest.is_empty() {
            return refuse("it is cut off or was changed");
        }
        let [_, format, origin @ .., made, height, width, channels, outputs, sample, sum] = header;
        let [program, model, painting] = joined(origin);
        let origin = Origin { program, model, painting };
        let earlier = match format {
            FORMAT_HIRES => words.split_first().map(|(earlier, words)| (u32::from_le_bytes(*earlier), words)),
            _ => Some((0, words)),
        };
        // A second pass has a first one before it.
        let earlier = earlier.filter(|(earlier, _)| (format == FORMAT_HIRES) == (*earlier > 0));
        let read = earlier.and_then(|(earlier, words)| {
            let checkpoint = read(origin, made, [height, width, channels], [outputs, sample, sum], words)?;
            Some(StepCheckpoint { earlier: earlier as usize, ..checkpoint })
        });
        read.map_or_else(|| refuse("its numbers do not fit each other"), Ok)
    }

    /// Whether an engine may go on from here: it is of `origin`, and its pass of the painting has this sampler and latents of
    /// this height, width and number of channels. Without a sampler, the painting has no such pass.
    ///
    /// # Errors
    ///
    /// `Checkpoint` with what is different.
    pub(crate) fn check(&self, origin: Origin, sampler: Option<&Sampler>, shape: (usize, usize, usize)) -> Result<()> {
        if self.origin.program != origin.program {
            return refuse("another version of the program made it");
        }
        if self.origin.model != origin.model {
            return refuse("it is of another model");
        }
        let Latents { height, width, channels, .. } = self.latents;
        let fits = (height, width, channels) == shape && sampler.is_some_and(|sampler| self.history.is_of(sampler));
        if self.origin.painting != origin.painting || !fits {
            return refuse("it is of another painting");
        }
        Ok(())
    }
}

fn refuse<T>(message: &str) -> Result<T> {
    Err(Error::Checkpoint(message.to_owned()))
}

/// Numbers whose lower halves come first.
fn joined(halves: [u32; 6]) -> [u64; 3] {
    std::array::from_fn(|i| u64::from(halves[2 * i + 1]) << 32 | u64::from(halves[2 * i]))
}

/// A checkpoint with so many tensors: outputs, sample, sum. `None` unless `words` are just the noise generator's state and
/// these, and each value is finite.
fn read(
    origin: Origin,
    made: u32,
    [height, width, channels]: [u32; 3],
    [outputs, sample, sum]: [u32; 3],
    words: &[[u8; 4]],
) -> Option<StepCheckpoint> {
    let (noise, words) = words.split_first_chunk::<{ noise::WORDS }>()?;
    let noise = Noise::from_words(&noise.map(u32::from_le_bytes))?;
    let len = [width, channels].into_iter().try_fold(height, u32::checked_mul)? as usize;
    if len == 0 || outputs > MOST_OUTPUTS || sample > 1 || sum > 1 {
        return None;
    }
    let mut tensors = words.chunks_exact(len).map(|tensor| {
        let values: Vec<f32> = tensor.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        values.iter().all(|value| value.is_finite()).then_some(values)
    });
    let mut some = |count: u32| (0..count).map(|_| tensors.next()?.map(Arc::new)).collect::<Option<Vec<_>>>();
    if words.len() != (1 + outputs + sample + sum) as usize * len {
        return None;
    }
    let latents = Arc::unwrap_or_clone(some(1)?.pop()?);
    let history =
        History { made: made as usize, outputs: some(outputs)?, sample: some(sample)?.pop(), sum: some(sum)?.pop() };
    let [height, width, channels] = [height, width, channels].map(|size| size as usize);
    Some(StepCheckpoint {
        origin,
        earlier: 0,
        latents: Latents { height, width, channels, values: latents },
        history,
        noise,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct ParametersOfBefore {
        steps: usize,
    }

    #[derive(Serialize)]
    struct ParametersOfToday {
        steps: usize,
        #[serde(skip_serializing_if = "Option::is_none")]
        more: Option<usize>,
    }

    #[test]
    fn a_new_parameter_counts_where_it_is_used() {
        let before = Origin::new("model", &ParametersOfBefore { steps: 7 });
        let today = |more| Origin::new("model", &ParametersOfToday { steps: 7, more });
        assert_eq!(today(None), before);
        assert_ne!(today(Some(1)), before);
    }
}
