//! The modules of a network under every name that a LoRA file may give them, with underscores instead of dots.

use std::collections::HashMap;

use super::original_names::OriginalNames;
use crate::tensors::Checkpoint;

/// A network's modules.
pub(super) struct Modules {
    /// The module's own name by each of its spellings.
    names: HashMap<String, String>,
}

impl Modules {
    /// The modules of `network`, which has the tensors of `checkpoint`.
    pub(super) fn of(network: &str, checkpoint: &Checkpoint) -> Modules {
        let modules = || {
            checkpoint.names().filter_map(|tensor| match tensor.rsplit_once('.')? {
                (module, "weight" | "bias") => Some(module),
                _ => None,
            })
        };
        let original = OriginalNames::of(modules());
        let mut names = HashMap::new();
        for module in modules() {
            let spellings = match network {
                "unet" => unet_spellings(module, &original),
                _ => text_spellings(module),
            };
            names.extend(spellings.into_iter().map(|spelling| (spelling, module.to_owned())));
        }
        Modules { names }
    }

    /// The module that a LoRA file spells so.
    pub(super) fn find(&self, spelling: &str) -> Option<&str> {
        self.names.get(spelling).map(String::as_str)
    }
}

/// diffusers' older attention processors name `to_out.0` `to_out`.
fn unet_spellings(module: &str, original: &OriginalNames) -> Vec<String> {
    let own = module.replace('.', "_");
    let older = own.strip_suffix("_to_out_0").map(|attention| format!("{attention}_to_out"));
    let original = original.name(module).map(|name| name.replace('.', "_"));
    [Some(own), older, original].into_iter().flatten().collect()
}

/// transformers' `text_model.` is not part of the names here; older diffusers name projections as in the UNet.
fn text_spellings(module: &str) -> Vec<String> {
    let own = module.replace('.', "_");
    let projection = ["q", "k", "v", "out"].into_iter().find_map(|name| {
        let attention = own.strip_suffix(&format!("_self_attn_{name}_proj"))?;
        Some(format!("{attention}_self_attn_to_{name}"))
    });
    let short = [Some(own), projection].into_iter().flatten();
    short.flat_map(|name| [format!("text_model_{name}"), name]).collect()
}
