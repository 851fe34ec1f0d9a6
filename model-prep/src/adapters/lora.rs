//! A LoRA file: its keys by module, and how they are merged into a model's networks.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use super::NamedNetwork;
use super::family::family;
use super::key::{LoraKey, LoraPart};
use super::merge::{BiasMerge, WeightMerge};
use super::modules::Modules;
use super::parts::ModuleParts;
use super::scale::PeftConfig;
use crate::error::{Error, Result};
use crate::options::LoraOption;
use crate::tensors::TensorFile;

/// Names that a message lists.
const LISTED: usize = 5;

/// The changes of each weight, by network and name, in the order in which they are merged.
pub(super) type Merges = BTreeMap<(&'static str, String), Vec<WeightMerge>>;

/// A module as a file spells it: the network, where it is named, and the module's name.
type Spelled = (Option<&'static str>, String);

/// A LoRA file, or one of its like.
pub(super) struct Lora {
    file: Arc<TensorFile>,
    strength: f32,
    config: PeftConfig,
    modules: BTreeMap<Spelled, ModuleParts>,
    /// Keys that are not spelled as a LoRA's.
    other: Vec<String>,
}

impl Lora {
    /// Opens the file of `option`.
    pub(super) fn open(option: &LoraOption) -> Result<Lora> {
        let file = Arc::new(TensorFile::open(&option.path)?);
        let mut modules = BTreeMap::<Spelled, ModuleParts>::new();
        let mut other = Vec::new();
        for name in file.tensors.keys() {
            match LoraKey::parse(name) {
                Some(LoraKey { network, module, part }) => {
                    let parts = modules.entry((network, module)).or_insert_with(|| ModuleParts::new(&file));
                    parts.add(part, name)?;
                }
                None => other.push(name.clone()),
            }
        }
        if let Some(key) = other.iter().find(|key| key.contains(".oft_")) {
            let message = "is of OFT, which turns weights instead of adding to them; that is not supported";
            return Err(Error::tensor(&file.path, key, message));
        }
        if modules.is_empty() {
            let message = "none of its tensors is named as a LoRA's; a textual inversion is given as --embedding, \
                           an autoencoder as --vae, a whole model as the source";
            return Err(Error::file(&file.path, message));
        }
        let config = PeftConfig::of(&file)?;
        Ok(Lora { strength: option.strength, config, modules, other, file })
    }

    /// Its file.
    pub(super) fn file(&self) -> Arc<TensorFile> {
        Arc::clone(&self.file)
    }

    /// Merges its changes of biases into `networks`, and adds those of weights to `merges`. With `lenient` what fits
    /// nothing is told of in `warnings`, else it is an error.
    pub(super) fn merge(
        self,
        networks: &mut [NamedNetwork],
        merges: &mut Merges,
        lenient: bool,
        warnings: &mut Vec<String>,
    ) -> Result<()> {
        let known: Vec<Modules> = networks.iter().map(|(name, network)| Modules::of(name, network)).collect();
        let cache = Rc::default();
        let mut merged = 0;
        let mut left: Vec<String> = self.other.clone();
        for ((network, spelling), parts) in &self.modules {
            let fits = |name: &str| network.is_none_or(|network| network == name);
            let mut there = networks.iter_mut().zip(&known).filter(|((name, _), _)| fits(name));
            let found = there.find_map(|(named, known)| Some((named, known.find(spelling)?)));
            let Some(((name, checkpoint), module)) = found else {
                left.push(parts.first_key().to_owned());
                continue;
            };
            if let Some(key) = parts.key(LoraPart::DiffBias) {
                BiasMerge::new(&self.file, key, self.strength).add_to(checkpoint, module)?;
            }
            if parts.changes_weight() {
                let scale = |rank| self.config.scale(name, module, rank);
                let merge = WeightMerge::new(parts, self.strength, &scale, &cache)?;
                let merge = merge.fitted_to(checkpoint, module).map_err(|error| self.explained(error))?;
                merges.entry((*name, format!("{module}.weight"))).or_default().push(merge);
            }
            merged += 1;
        }
        match (&left[..], merged, lenient) {
            ([], ..) => Ok(()),
            (_, 1.., true) => {
                warnings.push(Error::file(&self.file.path, self.left_message(&left)).to_string());
                Ok(())
            }
            _ => {
                let advice = if merged > 0 { "; with --lenient they are left out" } else { "" };
                Err(Error::file(&self.file.path, self.left_message(&left) + advice))
            }
        }
    }

    /// What is said of keys that fit nothing.
    fn left_message(&self, left: &[String]) -> String {
        let listed = left.iter().take(LISTED).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = left.len().saturating_sub(LISTED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("fits nothing in this model: {listed}{more}{}", self.made_for())
    }

    /// A wrong shape, with the family that explains it.
    fn explained(&self, error: Error) -> Error {
        match error {
            Error::Tensor { path, tensor, message } => {
                Error::Tensor { path, tensor, message: message + &self.made_for() }
            }
            other => other,
        }
    }

    fn made_for(&self) -> String {
        family(&self.file).map_or_else(String::new, |family| format!(" (the file was made for {family})"))
    }
}
