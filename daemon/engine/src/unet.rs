//! The noise predictor, run once a step; guidance runs both its halves as one batch, so that each weight is read once, and
//! what they have in common is computed once (`graph::repeat`). What each call computes is settled before the first
//! (`unet_calls`).

use crate::bundle::{Bundle, PictureSizes, Text};
use crate::error::{Error, Result};
use crate::graph::{InputShape, InputValues, KnownInput, Signature};
use crate::inpainting::MaskedImage;
use crate::latents::Latents;
use crate::memory_plan::{Demand, RunBudget};
use crate::network::{Network, NetworkRun, RunKind, Tick};
use crate::text_encoder::Embeddings;
use crate::unet_calls::UnetCall;

/// The UNet.
pub struct Unet {
    network: Network,
    guidance_embedding: bool,
    /// Width of the pooled embedding, if it is an input; then the picture's sizes are one, too.
    pooled: Option<usize>,
    /// Pixels per latent along an axis.
    factor: usize,
    inpainting: bool,
}

/// Numbers that SDXL is told of a picture: original height and width, top and left of the crop, height and width.
const TIME_IDS: usize = 6;

impl Unet {
    /// Opens the bundle's `unet`; reads no weights yet.
    pub fn open(bundle: &Bundle) -> Result<Unet> {
        let guidance_embedding = bundle.manifest.picture.guidance_embedding.is_some();
        let pooled = bundle.manifest.text.second.map(|second| second.pooled);
        let inputs = 3 + usize::from(guidance_embedding) + if pooled.is_some() { 2 } else { 0 };
        let (factor, inpainting) = (bundle.manifest.picture.factor, bundle.manifest.picture.inpainting);
        let network = Network::open(bundle, "unet", inputs)?;
        Ok(Unet { network, guidance_embedding, pooled, factor, inpainting })
    }

    /// Gets ready for predictions of latents of this shape at `timesteps`.
    ///
    /// `embeddings` holds the prompt alone, or the negative prompt and the prompt: then predictions are guided. An
    /// inpainting model also needs `masked`, of the latents' size.
    pub fn start(
        &mut self,
        latents: &Latents,
        embeddings: Embeddings,
        masked: Option<MaskedImage>,
        guidance: f64,
        timesteps: &[f64],
        budget: RunBudget,
    ) -> Result<Steps<'_>> {
        let calls = timesteps.iter().map(|timestep| (*timestep, UnetCall::default())).collect();
        let alone = embeddings.tokens;
        self.start_calls(latents, embeddings, masked, guidance, PlannedCalls { calls, alone }, budget)
    }

    /// The same for `planned` calls, which need not all compute the same.
    pub(crate) fn start_calls(
        &mut self,
        latents: &Latents,
        embeddings: Embeddings,
        masked: Option<MaskedImage>,
        guidance: f64,
        planned: PlannedCalls,
        budget: RunBudget,
    ) -> Result<Steps<'_>> {
        let PlannedCalls { calls, alone } = planned;
        let (batch, channels) = (embeddings.batch, embeddings.channels);
        let guidance_embedding = self.guidance_embedding;
        let side = |latents: usize| (latents * self.factor) as f32;
        let (height, width) = (side(latents.height), side(latents.width));
        let time_ids = self.pooled.map(|_| [height, width, 0.0, 0.0, height, width].to_vec());
        let mut kinds: Vec<UnetCall> = Vec::new();
        let mut order = Vec::new();
        for (_, call) in &calls {
            let known = kinds.iter().position(|kind| kind == call);
            order.push(known.unwrap_or(kinds.len()));
            kinds.extend(Some(*call).filter(|_| known.is_none()));
        }
        let prepare = |kind: &UnetCall| {
            let timesteps = calls.iter().filter(|(_, call)| call == kind).map(|(timestep, _)| *timestep as f32);
            let timesteps: Vec<f32> = timesteps.collect();
            let texts = texts_of(*kind, [batch, embeddings.tokens, channels], alone);
            let signature = self.signature(latents.shape(texts[0]), texts);
            let mut known = vec![];
            if guidance_embedding {
                known.push(KnownInput { index: 3, numbers: vec![guidance_input(guidance); timesteps.len()] });
            }
            known.insert(0, KnownInput { index: 1, numbers: timesteps });
            RunKind { signature, part: kind.part, known }
        };
        let running = self.network.start(kinds.iter().map(prepare).collect(), order, budget)?;
        Ok(Steps {
            running,
            calls: calls.into_iter(),
            texts: embeddings,
            alone,
            time_ids,
            masked,
            guidance,
            guidance_embedding,
            weights: vec![1.0],
        })
    }

    /// What these calls need, given the shapes of latents and embeddings, batch first, and how many tokens the prompt alone
    /// has; and the multiply-adds of each.
    pub(crate) fn demand(
        &mut self,
        latents: &[usize; 4],
        embeddings: [usize; 3],
        alone: usize,
        calls: &[UnetCall],
    ) -> Result<(Demand, Vec<u64>)> {
        let mut kinds: Vec<(UnetCall, Demand)> = Vec::new();
        for call in calls {
            if kinds.iter().all(|(kind, _)| kind != call) {
                let texts = texts_of(*call, embeddings, alone);
                let mut latents = latents.to_vec();
                latents[0] = texts[0];
                let runs = calls.iter().filter(|other| *other == call).count();
                let demand = self.network.demand_part(&self.signature(latents, texts), call.part, runs)?;
                kinds.push((*call, demand));
            }
        }
        let macs_of = |call| kinds.iter().find(|(kind, _)| kind == call).map_or(0, |(_, demand)| demand.work.total());
        let macs = calls.iter().map(macs_of).collect();
        // What runs most often comes first, so that its weights are the ones that stay.
        kinds.sort_by_key(|(kind, _)| !kind.is_shallow());
        let demand = kinds.into_iter().map(|(_, demand)| demand).reduce(Demand::in_turns);
        let demand = demand.ok_or_else(|| Error::Internal("a pass without a call of the UNet".into()))?;
        Ok((demand, macs))
    }

    /// Checks that latents and embeddings of the manifest's sizes give latents again.
    pub(crate) fn check(&self, text: &Text, sizes: &PictureSizes) -> Result<()> {
        let signature = self.signature(sizes.smallest_latents().to_vec(), vec![1, text.tokens, text.channels]);
        let (latents, channels) = (sizes.latent_channels, text.channels);
        self.network.check(&signature, &format!("picture.latent_channels {latents} and text.channels {channels}"))
    }

    /// A prediction has the shape of the latents, of which all prompts see one image.
    fn signature(&self, latents: Vec<usize>, embeddings: Vec<usize>) -> Signature {
        let (batch, mut input) = (latents[0], latents.clone());
        input[0] = 1;
        if let Some(channels) = input.last_mut().filter(|_| self.inpainting) {
            *channels = MaskedImage::input_channels(*channels);
        }
        let mut inputs = vec![InputShape::F32(input), InputShape::F32(vec![1]), InputShape::F32(embeddings)];
        if self.guidance_embedding {
            inputs.push(InputShape::F32(vec![1]));
        }
        inputs
            .extend(self.pooled.into_iter().flat_map(|wide| [wide, TIME_IDS]).map(|n| InputShape::F32(vec![batch, n])));
        Signature { inputs, output: latents }
    }

    /// Frees weights and schedules.
    pub(crate) fn forget(&mut self) {
        self.network.forget();
    }
}

/// The calls that a UNet is started for.
pub(crate) struct PlannedCalls {
    /// The timestep of each, and what it computes.
    pub(crate) calls: Vec<(f64, UnetCall)>,
    /// Tokens of the prompt where it is seen alone.
    pub(crate) alone: usize,
}

/// The shape of what a call attends to, given that of all prompts' embeddings.
fn texts_of(call: UnetCall, [batch, tokens, channels]: [usize; 3], alone: usize) -> Vec<usize> {
    if call.unguided { vec![1, alone, channels] } else { vec![batch, tokens, channels] }
}

/// A UNet in the middle of its steps.
pub struct Steps<'a> {
    running: NetworkRun<'a>,
    /// Those that are still to come.
    calls: std::vec::IntoIter<(f64, UnetCall)>,
    texts: Embeddings,
    /// Tokens of the prompt where it is seen alone.
    alone: usize,
    /// The picture's sizes; they and the pooled embeddings are inputs of SDXL.
    time_ids: Option<Vec<f32>>,
    masked: Option<MaskedImage>,
    guidance: f64,
    guidance_embedding: bool,
    /// What each prompt's guidance is multiplied by.
    weights: Vec<f64>,
}

impl Steps<'_> {
    /// From now on, predictions attend to `embeddings`, of the same shape as those before.
    pub(crate) fn attend(&mut self, embeddings: Embeddings) {
        self.texts = embeddings;
    }

    /// Frees what is kept for the next call's activations, so that another network can run before it.
    pub(crate) fn make_room(&mut self) {
        self.running.make_room();
    }

    /// Several prompts follow the negative one: the guidance of each is multiplied by its weight.
    pub(crate) fn weigh(&mut self, weights: &[f64]) {
        self.weights = weights.to_vec();
    }

    /// What the model predicts for `latents` (already scaled by the sampler) at the next timestep, guidance applied.
    pub fn predict(&mut self, latents: Latents, tick: &mut Tick) -> Result<Vec<f32>> {
        let more = || Error::Internal("a prediction beyond the last timestep".into());
        let (timestep, call) = self.calls.next().ok_or_else(more)?;
        let (own, pixels) = (latents.values.len(), latents.height * latents.width);
        let mut shape = latents.shape(1);
        let values = match &self.masked {
            Some(masked) => masked.beside(&latents),
            None => latents.values,
        };
        shape[3] = values.len() / pixels;
        let input = InputValues::F32(shape, values);
        let (texts, pooled) = self.text_inputs(call);
        let mut inputs = vec![input, InputValues::F32(vec![1], vec![timestep as f32]), texts];
        if self.guidance_embedding {
            inputs.push(InputValues::F32(vec![1], vec![guidance_input(self.guidance)]));
        }
        inputs.extend(pooled.into_iter().flatten());
        let mut predicted = self.running.run(inputs, tick)?;
        if predicted.len() > own {
            let conditional = predicted.split_off(own);
            // Where the guidance scale is an input, each prediction is guided already.
            let scale = if self.guidance_embedding { 1.0 } else { self.guidance };
            let scales: Vec<f32> = self.weights.iter().map(|weight| (weight * scale) as f32).collect();
            guide(&mut predicted, &conditional, &scales);
        }
        Ok(predicted)
    }

    /// What a call attends to, as inputs: the embeddings, and for SDXL the pooled ones and the picture's sizes.
    fn text_inputs(&self, call: UnetCall) -> (InputValues, Option<[InputValues; 2]>) {
        let Embeddings { batch, tokens, channels, values, pooled } = &self.texts;
        let shape = texts_of(call, [*batch, *tokens, *channels], self.alone);
        let rows = shape[0];
        // The prompt is the last row.
        let first = (batch - rows) * tokens * channels;
        let values = values[first..][..shape.iter().product()].to_vec();
        let width = pooled.len() / batch;
        let added = self.time_ids.as_ref().map(|ids| {
            let pooled = pooled[(batch - rows) * width..].to_vec();
            [InputValues::F32(vec![rows, width], pooled), InputValues::F32(vec![rows, TIME_IDS], ids.repeat(rows))]
        });
        (InputValues::F32(shape, values), added)
    }
}

/// The guidance scale as LCM's UNet takes it.
fn guidance_input(scale: f64) -> f32 {
    ((scale - 1.0) * 1000.0) as f32
}

/// Classifier-free guidance (Ho & Salimans 2022): `u + scale · (c - u)`, written over `u`; with several scales, the sum of
/// what each prediction in `conditional` adds.
fn guide(unconditional: &mut [f32], conditional: &[f32], scales: &[f32]) {
    let len = unconditional.len();
    for (i, value) in unconditional.iter_mut().enumerate() {
        let u = *value;
        for (c, scale) in conditional[i..].iter().step_by(len).zip(scales) {
            *value += scale * (c - u);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::RUNS_AHEAD;

    const LATENTS: [usize; 4] = [1, 24, 16, 4];

    fn numbers(shape: &[usize], seed: usize) -> InputValues {
        let number = |i: usize| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0;
        InputValues::F32(shape.to_vec(), (0..shape.iter().product()).map(number).collect())
    }

    /// What the demo model's UNet makes of one image for each of these prompts.
    fn predicted(unet: &mut Unet, prompts: &[InputValues]) -> Vec<f32> {
        let (mut shape, mut texts) = (vec![], vec![]);
        for prompt in prompts {
            let InputValues::F32(own, values) = prompt else { panic!("embeddings are numbers") };
            (shape, texts) = (own.clone(), [texts, values.clone()].concat());
        }
        shape[0] = prompts.len();
        let timestep = InputValues::F32(vec![1], vec![701.0]);
        let inputs = vec![numbers(&LATENTS, 1), timestep, InputValues::F32(shape, texts)];
        let output = [&[prompts.len()], &LATENTS[1..]].concat();
        unet.network.run(inputs, output, RunBudget::streamed(), &mut |_| ()).unwrap()
    }

    fn demo() -> (Unet, [usize; 3]) {
        let bundle = Bundle::demo();
        let text = &bundle.manifest.text;
        (Unet::open(&bundle).unwrap(), [1, text.tokens, text.channels])
    }

    #[test]
    fn each_prompt_gets_what_it_would_get_alone() {
        let (mut unet, text) = demo();
        let prompts = [2, 3, 4].map(|seed| numbers(&text, seed));
        for prompts in [&prompts[..2], &prompts] {
            let alone = prompts.iter().flat_map(|prompt| predicted(&mut unet, std::slice::from_ref(prompt)));
            let alone: Vec<f32> = alone.collect();
            assert!(predicted(&mut unet, prompts) == alone, "{} prompts", prompts.len());
        }
    }

    #[test]
    fn steps_that_are_looked_ahead_to_are_those_taken_one_by_one() {
        let (mut unet, text) = demo();
        let latents = Latents { values: vec![0.25; 4 * 8 * 8], height: 8, width: 8, channels: 4 };
        let timesteps: Vec<f64> = (0..RUNS_AHEAD + 2).map(|i| (7 * i % 1000) as f64 + 0.5).collect();
        let mut predictions = |timesteps: &[f64]| -> Vec<Vec<f32>> {
            let [batch, tokens, channels] = text;
            let InputValues::F32(_, values) = numbers(&text, 5) else { panic!("embeddings are numbers") };
            let embeddings = Embeddings { batch, tokens, channels, values, pooled: vec![] };
            let budget = RunBudget::streamed();
            let mut steps = unet.start(&latents, embeddings, None, 1.0, timesteps, budget).unwrap();
            timesteps.iter().map(|_| steps.predict(latents.clone(), &mut |_| ()).unwrap()).collect()
        };
        let together = predictions(&timesteps);
        let alone: Vec<_> = timesteps.iter().flat_map(|at| predictions(&[*at])).collect();
        assert!(together == alone);
        assert_ne!(together[0], together[1]);
    }

    #[test]
    fn what_prompts_share_takes_work_and_memory_once() {
        let (mut unet, [_, tokens, channels]) = demo();
        let texts = [2, tokens, channels];
        let latents = [2, 64, 64, LATENTS[3]];
        let shared = unet.demand(&latents, texts, tokens, &[UnetCall::default()]).unwrap().0;
        let mut signature = unet.signature(latents.to_vec(), texts.to_vec());
        signature.inputs[0] = InputShape::F32(latents.to_vec());
        let each = unet.network.demand(&signature, 1).unwrap();
        println!(
            "{} of {} multiply-adds, {} of {} bytes",
            shared.work.total(),
            each.work.total(),
            shared.activations,
            each.activations
        );
        let [once, twice] = [shared.work.total(), each.work.total()];
        assert!(once < twice - twice / 100, "{once} of {twice} multiply-adds");
        assert!(shared.activations <= each.activations, "{} of {} bytes", shared.activations, each.activations);
    }

    #[test]
    fn guidance_goes_past_the_prompt() {
        let mut u = [1.0, 0.0];
        guide(&mut u, &[2.0, -1.0], &[7.5]);
        assert_eq!(u, [8.5, -7.5]);
        guide(&mut u, &[9.5, -6.5, 8.5, -8.5], &[2.0, 3.0]);
        assert_eq!(u, [10.5, -8.5]);
    }
}
