//! What an observer is shown while an image is painted.

use image::RgbImage;

use super::{Pipeline, Tracker};
use crate::bundle::AutoencoderKind;
use crate::error::Result;
use crate::latents::Latents;
use crate::memory_plan::{RunBudget, StagePlan};
use crate::models::Decoders;
use crate::network::Tick;
use crate::picture;
use crate::preview::{self, LatentColours};
use crate::request::Stage;

impl Pipeline<'_> {
    /// Finds the colours of latents, if there are previews and this decoder's are not known. Less is decoded than in the
    /// end, so that this takes no memory beyond that stage's.
    pub(super) fn find_colours(&mut self) -> Result<()> {
        let needs_colours = |plan: &StagePlan| plan.stage == Stage::Unet && plan.preview.is_none();
        if !self.painting.has_previews() || !self.plan.stages.iter().any(needs_colours) {
            return Ok(());
        }
        let (pass, kind) = (self.painting.last_pass(), self.painting.parameters().decoder);
        let probe = LatentColours::probe(self.models.latents(self.painting.size(pass)));
        let known = self.models.colours.as_ref().filter(|(of, _)| *of == kind);
        if known.is_some_and(|(_, colours)| colours.are_as_good_as_of(&probe)) {
            return Ok(());
        }
        let plan = self.plan.stage(pass, Stage::VaeDecoder)?;
        let decoder = self.models.decoders.get(kind)?;
        let decode = |tick: &mut Tick| decoder.decode(&probe, plan.budget.clone(), tick);
        let pixels = self.tracker.run_aside(plan.stage, decode)?;
        let factor = self.models.manifest.picture.factor;
        self.models.colours = Some((kind, LatentColours::find(&probe, &pixels, factor)));
        self.stage_ended();
        Ok(())
    }
}

/// What previews are made with.
pub(super) struct PreviewMaker<'a> {
    pub(super) decoders: &'a mut Decoders,
    pub(super) colours: Option<&'a LatentColours>,
    /// Pixels for a latent along each axis.
    pub(super) factor: usize,
}

impl PreviewMaker<'_> {
    /// Shows what `latents` look like: by the tiny decoder where there is a budget for it.
    pub(super) fn show(&mut self, latents: &Latents, budget: Option<&RunBudget>, tracker: &mut Tracker) -> Result<()> {
        let image = match budget {
            Some(budget) => self.decode(&preview::reduced(latents), budget, tracker)?,
            None => self.colours.and_then(|colours| colours.image(latents)),
        };
        if let Some(image) = image {
            tracker.observer.preview(image);
        }
        Ok(())
    }

    /// The image of `latents` by the tiny decoder; `None` where it is not finite.
    fn decode(&mut self, latents: &Latents, budget: &RunBudget, tracker: &mut Tracker) -> Result<Option<RgbImage>> {
        let decoder = self.decoders.get(AutoencoderKind::Tiny)?;
        let decode = |tick: &mut Tick| decoder.decode(latents, budget.clone(), tick);
        let pixels = tracker.run_aside(Stage::Unet, decode)?;
        Ok(picture::to_image(&pixels, latents.width * self.factor, latents.height * self.factor).ok())
    }
}
