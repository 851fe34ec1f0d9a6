//! What a sampler's calls leave for later ones. It is all that a sampler remembers: methods themselves never change.

use std::sync::Arc;

use super::{NoiseDraws, Sampler};

/// The calls that were made for an image. Tensors are as long as its latents and shared, so that a copy costs little.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// How many calls there were.
    pub(crate) made: usize,
    /// What the last ones gave, newest last: the UNet's outputs, or the images that they predict.
    pub(crate) outputs: Vec<Arc<Vec<f32>>>,
    /// Latents before a step of several calls.
    pub(crate) sample: Option<Arc<Vec<f32>>>,
    /// Weighted sum of such a step's outputs so far.
    pub(crate) sum: Option<Arc<Vec<f32>>>,
}

impl History {
    /// Adds an output, and keeps the newest `most`.
    pub(crate) fn push(&mut self, output: Arc<Vec<f32>>, most: usize) {
        self.outputs.push(output);
        self.outputs.drain(..self.outputs.len().saturating_sub(most));
    }

    /// All tensors, in the order of the fields.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = &[f32]> {
        self.outputs.iter().chain(&self.sample).chain(&self.sum).map(|tensor| tensor.as_slice())
    }

    /// What it is after each call of `sampler`, with empty tensors.
    fn replayed(sampler: &Sampler) -> impl Iterator<Item = History> {
        sampler.timesteps().iter().scan(History::default(), |history, _| {
            sampler.step(history, vec![], &[], &mut NoiseDraws { next: &mut Vec::new, of_seed: &|_| vec![], seed: 0 });
            Some(history.clone())
        })
    }

    /// Whether `sampler` leaves as many tensors after as many calls.
    pub(crate) fn is_of(&self, sampler: &Sampler) -> bool {
        if self.made > sampler.timesteps().len() {
            return false;
        }
        let replayed = History::replayed(sampler).take(self.made).last().unwrap_or_default();
        let kinds = |history: &History| (history.outputs.len(), history.sample.is_some(), history.sum.is_some());
        kinds(&replayed) == kinds(self)
    }

    /// The most tensors that it holds on the way through an image.
    pub(crate) fn most_tensors(sampler: &Sampler) -> usize {
        History::replayed(sampler).map(|history| history.tensors().count()).max().unwrap_or(0)
    }
}
