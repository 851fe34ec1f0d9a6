//! What an observer is shown while an image is painted.

use super::Pipeline;
use crate::bundle::AutoencoderKind;
use crate::error::Result;
use crate::latents::Latents;
use crate::network::Tick;
use crate::preview::LatentColours;
use crate::request::{Observer, Stage};

impl Pipeline<'_> {
    /// Finds the colours of latents, if there are previews and this decoder's are not known. Less is decoded than in the
    /// end, so that this takes no memory beyond that stage's.
    pub(super) fn find_colours(&mut self) -> Result<()> {
        if !self.painting.has_previews() {
            return Ok(());
        }
        let (pass, kind) = (self.painting.last_pass(), self.painting.parameters().decoder);
        let probe = LatentColours::probe(self.models.latents(self.painting.size(pass)));
        let known = self.models.colours.as_ref().filter(|(of, _)| *of == kind);
        if known.is_some_and(|(_, colours)| colours.are_as_good_as_of(&probe)) {
            return Ok(());
        }
        let plan = self.plan.stage(pass, Stage::VaeDecoder)?;
        let decoder = self.models.decoder(kind)?;
        let decode = |tick: &mut Tick| decoder.decode(&probe, plan.budget.clone(), tick);
        // It is no part of the work that progress is measured by.
        let pixels = self.tracker.run(plan.stage, 0, decode)?;
        let factor = self.models.manifest.picture.factor;
        self.models.colours = Some((kind, LatentColours::find(&probe, &pixels, factor)));
        self.stage_ended();
        Ok(())
    }
}

/// Shows what `latents` look like, if that is wanted now.
pub(super) fn show(
    colours: Option<&(AutoencoderKind, LatentColours)>,
    latents: impl FnOnce() -> Latents,
    observer: &mut dyn Observer,
) {
    if !observer.wants_preview() {
        return;
    }
    if let Some(image) = colours.and_then(|(_, colours)| colours.image(&latents())) {
        observer.preview(image);
    }
}
