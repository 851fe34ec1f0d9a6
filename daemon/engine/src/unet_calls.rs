//! What each call of the UNet computes. Two ways to compute less are asked for, change the image a little, and are decided
//! here for all calls of a pass before the first:
//!
//! - Guidance in an interval of noise levels alone (Kynkäänniemi et al. 2024, <https://arxiv.org/abs/2404.07724>): a call
//!   outside of it sees the prompt alone, as all calls do at a guidance scale of 1.
//! - Deep features that are kept over several calls (DeepCache, Ma et al. 2023, <https://arxiv.org/abs/2312.00858>): the
//!   calls between compute the UNet's shallow part (`graph::shallow`).

use crate::error::{Error, Result};
use crate::graph::GraphPart;
use crate::prompt::Prompts;
use crate::sampler::Sampler;

/// The most calls for which deep features are computed once.
pub const MAX_CACHE_INTERVAL: usize = 20;

/// What a call of the UNet computes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct UnetCall {
    /// It sees the prompt alone, where others see the negative one, too.
    pub(crate) unguided: bool,
    /// What of the network runs.
    pub(crate) part: GraphPart,
}

impl UnetCall {
    /// Whether it needs what a call before it left.
    pub(crate) fn is_shallow(self) -> bool {
        self.part == GraphPart::Shallow
    }
}

/// How a painting's calls compute less; by default none does.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Savings {
    /// From which part of the way from noise to image to which there is guidance.
    pub(crate) guidance_interval: Option<[f64; 2]>,
    /// For how many calls deep features are computed once.
    pub(crate) cache_interval: Option<usize>,
}

impl Savings {
    /// The calls of a pass that attends to `prompts`, whose texts change by call `turn` and those after it.
    pub(crate) fn calls(self, sampler: &Sampler, prompts: &Prompts, turn: usize) -> Vec<UnetCall> {
        let has_guidance = |call: usize| {
            let progress = sampler.progress(call);
            self.guidance_interval.is_none_or(|[from, to]| from <= progress && progress < to)
        };
        let texts = |call: usize| prompts.rows.iter().map(|row| row.text_at(turn + call)).collect::<Vec<_>>();
        let mut calls: Vec<UnetCall> = Vec::new();
        let mut since_kept = 0;
        for call in 0..sampler.timesteps().len() {
            let unguided = prompts.is_a_pair() && !has_guidance(call);
            let fits = calls.last().is_some_and(|last| last.unguided == unguided) && texts(call - 1) == texts(call);
            let part = match self.cache_interval {
                None => GraphPart::Whole,
                Some(interval) if fits && since_kept + 1 < interval => GraphPart::Shallow,
                Some(_) => GraphPart::Keeping,
            };
            since_kept = if part == GraphPart::Shallow { since_kept + 1 } else { 0 };
            calls.push(UnetCall { unguided, part });
        }
        calls
    }
}

/// An interval as a request has it, unless it is all of the way.
pub(crate) fn guidance_interval(wanted: Option<[f64; 2]>) -> Result<Option<[f64; 2]>> {
    let Some([from, to]) = wanted else { return Ok(None) };
    if !(0.0 <= from && from < to && to <= 1.0) {
        let message =
            format!("{from} to {to} is not an interval from 0 to 1: write two numbers, the smaller one first");
        return Err(Error::InvalidParam { field: "guidance_interval", message });
    }
    Ok(wanted.filter(|interval| *interval != [0.0, 1.0]))
}

/// A number of calls as a request has it, unless it is 1, which keeps nothing.
pub(crate) fn cache_interval(wanted: Option<usize>) -> Result<Option<usize>> {
    match wanted {
        Some(calls) if !(1..=MAX_CACHE_INTERVAL).contains(&calls) => {
            let message = format!("{calls} is out of range; allowed are 1 to {MAX_CACHE_INTERVAL}");
            Err(Error::InvalidParam { field: "cache_interval", message })
        }
        wanted => Ok(wanted.filter(|calls| *calls > 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::sample;
    use crate::prompt::{PromptChunk, PromptTokens, ReadPrompt};
    use crate::sampler::SamplerKind;

    fn prompts(turns: Vec<(usize, usize)>) -> Prompts {
        let tokens = PromptTokens { first: vec![0; 77], second: vec![], absent: false };
        let chunk = PromptChunk { tokens, weights: [vec![1.0; 77], vec![]] };
        let row = |turns| ReadPrompt { texts: vec![vec![chunk.clone()]; 2], turns, stretched: 1 };
        let rows = vec![row(vec![(99, 0)]), row(turns)];
        Prompts { rows, chunks: 1, weights: vec![1.0], left_out: 0, alone: 1 }
    }

    fn sampler(kind: SamplerKind, steps: usize, strength: Option<f64>) -> Sampler {
        Sampler::new(kind, &sample().sampling, steps, strength).unwrap()
    }

    /// A letter for each call: `g`uided or `u`nguided, in capitals where all of the network runs.
    fn shown(savings: Savings, sampler: &Sampler, prompts: &Prompts) -> String {
        let letter = |call: &UnetCall| match (call.unguided, call.is_shallow()) {
            (false, false) => 'G',
            (false, true) => 'g',
            (true, false) => 'U',
            (true, true) => 'u',
        };
        savings.calls(sampler, prompts, 0).iter().map(letter).collect()
    }

    #[test]
    fn guidance_has_an_interval_of_steps() {
        let constant = prompts(vec![(99, 0)]);
        let calls = |interval, kind, steps, strength| {
            let savings = Savings { guidance_interval: Some(interval), ..Savings::default() };
            shown(savings, &sampler(kind, steps, strength), &constant)
        };
        assert_eq!(calls([0.2, 0.8], SamplerKind::Euler, 10, None), "UUGGGGGGUU");
        assert_eq!(calls([0.3, 1.0], SamplerKind::Euler, 10, None), "UUUGGGGGGG");
        // Steps of two calls are guided as a whole; what an image's strength leaves out is part of the way.
        assert_eq!(calls([0.25, 0.75], SamplerKind::Heun, 4, None), "UUGGGGU");
        assert_eq!(calls([0.2, 0.8], SamplerKind::Euler, 10, Some(0.5)), "GGGUU");
        assert!(!calls([0.0, 1.0], SamplerKind::Pndm, 4, None).contains('U'));
    }

    #[test]
    fn deep_features_are_kept_until_something_else_changes() {
        let calls = |interval, cache, prompts: &Prompts| {
            let savings = Savings { guidance_interval: interval, cache_interval: Some(cache) };
            shown(savings, &sampler(SamplerKind::Euler, 10, None), prompts)
        };
        let constant = prompts(vec![(99, 0)]);
        assert_eq!(calls(None, 3, &constant), "GggGggGggG");
        assert_eq!(calls(Some([0.0, 0.7]), 3, &constant), "GggGggGUuu");
        assert_eq!(calls(None, 4, &prompts(vec![(4, 0), (99, 1)])), "GgggGGgggG");
        let in_turns = (0..10).map(|call| (call, call % 2)).collect();
        assert_eq!(calls(None, 2, &prompts(in_turns)), "GGGGGGGGGG");
    }

    #[test]
    fn joined_prompts_are_guided_all_the_way() {
        let pair = prompts(vec![(99, 0)]);
        let rows = [&pair.rows[..], &pair.rows[1..]].concat();
        let joined = Prompts { rows, weights: vec![1.0, 0.5], ..pair };
        let savings = Savings { guidance_interval: Some([0.2, 0.8]), ..Savings::default() };
        assert_eq!(shown(savings, &sampler(SamplerKind::Euler, 5, None), &joined), "GGGGG");
    }

    #[test]
    fn what_is_no_interval_is_refused() {
        for wrong in [[0.5, 0.5], [0.8, 0.2], [-0.1, 1.0], [0.0, 1.1], [f64::NAN, 1.0]] {
            assert!(guidance_interval(Some(wrong)).is_err(), "{wrong:?}");
        }
        assert_eq!(guidance_interval(Some([0.0, 1.0])).unwrap(), None);
        assert!(cache_interval(Some(0)).is_err() && cache_interval(Some(21)).is_err());
        assert_eq!([1, 2, 20].map(|calls| cache_interval(Some(calls)).unwrap()), [None, Some(2), Some(20)]);
    }
}
