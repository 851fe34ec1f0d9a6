//! Files of the published models' true shapes, without values: what is found of them is what their folders say.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use diffused_engine::bundle::Family;
use diffused_kernels::pack::Format;
use serde_json::json;

use super::super::{Configs, UnetConfig};
use super::*;
use crate::arch;

/// The beginnings of diffusers' names and those of a single file's, of all blocks of a UNet.
fn blocks(unet: &UnetConfig) -> BTreeMap<String, String> {
    let (mut names, mut n) = (BTreeMap::new(), 0);
    let mut add = |new: String, old: String| drop(names.insert(new, old));
    for (i, block) in unet.blocks.iter().enumerate() {
        for j in 0..block.layers {
            n += 1;
            add(format!("down_blocks.{i}.resnets.{j}."), format!("input_blocks.{n}.0."));
            add(format!("down_blocks.{i}.attentions.{j}."), format!("input_blocks.{n}.1."));
        }
        n += 1;
        add(format!("down_blocks.{i}.downsamplers.0.conv."), format!("input_blocks.{n}.0.op."));
    }
    for (part, old) in [("resnets.0.", "0."), ("attentions.0.", "1."), ("resnets.1.", "2.")] {
        add(format!("mid_block.{part}"), format!("middle_block.{old}"));
    }
    n = 0;
    for (i, block) in unet.blocks.iter().rev().enumerate() {
        for j in 0..=block.layers {
            add(format!("up_blocks.{i}.resnets.{j}."), format!("output_blocks.{n}.0."));
            add(format!("up_blocks.{i}.attentions.{j}."), format!("output_blocks.{n}.1."));
            n += 1;
        }
        let part = if unet.up[i].is_some() { 2 } else { 1 };
        add(format!("up_blocks.{i}.upsamplers.0.conv."), format!("output_blocks.{}.{part}.conv.", n - 1));
    }
    names
}

/// `name` with the longest beginning replaced that `table` has.
fn replace(name: &str, table: &BTreeMap<String, String>) -> Option<String> {
    let found = table.iter().filter(|(new, _)| name.starts_with(new.as_str())).max_by_key(|(new, _)| new.len());
    found.map(|(new, old)| format!("{old}{}", &name[new.len()..]))
}

/// The inverse of a table.
fn inverse(table: &[(&str, &str)]) -> BTreeMap<String, String> {
    table.iter().rev().map(|(old, new)| ((*new).to_owned(), (*old).to_owned())).collect()
}

fn unet_name(name: &str, blocks: &BTreeMap<String, String>) -> String {
    if let Some(top) = replace(name, &inverse(&layout::UNET_TOP)) {
        return top;
    }
    let old = replace(name, blocks).unwrap();
    let resnet = inverse(&layout::RESNET);
    let part = resnet.iter().find(|(new, _)| name.contains(".resnets.") && old.contains(new.as_str()));
    part.map_or(old.clone(), |(new, part)| old.replace(new.as_str(), part))
}

/// The tensors of OpenCLIP for those of transformers; queries, keys and values are one.
fn open_clip_tensors(name: &str, shape: &[usize]) -> Option<(String, Vec<usize>)> {
    let mut shape = shape.to_vec();
    let name = name
        .replace("self_attn.q_proj.weight", "attn.in_proj_weight")
        .replace("self_attn.q_proj.bias", "attn.in_proj_bias");
    if name.contains("in_proj") {
        shape[0] *= 3;
    }
    let name = name.replace("text_projection.weight", "text_projection");
    let table = inverse(&layout::OPEN_CLIP);
    let name = match name.strip_prefix("encoder.layers.").and_then(|rest| rest.split_once('.')) {
        Some((n, rest)) => format!("transformer.resblocks.{n}.{}", replace(rest, &table).unwrap_or(rest.to_owned())),
        None => replace(&name, &table).unwrap_or(name),
    };
    (!name.contains("k_proj.") && !name.contains("v_proj.")).then_some((name, shape))
}

/// The tensors of a single file, with their shapes.
fn tensors(configs: &Configs) -> BTreeMap<String, Vec<usize>> {
    let mut found = BTreeMap::new();
    let blocks = blocks(&configs.unet);
    let levels = configs.vae.full.as_ref().unwrap().channels.len();
    let xl = configs.text_2.is_some();
    for network in arch::networks(configs, Format::F32) {
        for (name, shape) in network.parameters.iter().flat_map(|parameter| parameter.tensors()) {
            let (name, shape) = match network.name {
                "unet" => (format!("{UNET}{}", unet_name(&name, &blocks)), shape),
                "text_encoder_2" => match open_clip_tensors(&name, &shape) {
                    Some((name, shape)) => (format!("{XL_OPEN_CLIP}{name}"), shape),
                    None => continue,
                },
                "text_encoder" if configs.family() == Family::Sd2 => match open_clip_tensors(&name, &shape) {
                    Some((name, shape)) => (format!("{OPEN_CLIP}{name}"), shape),
                    None => continue,
                },
                "text_encoder" => (format!("{}text_model.{name}", if xl { XL_CLIP } else { CLIP }), shape),
                _ => (format!("{VAE}{}", vae_file_name(&name, levels)), shape),
            };
            found.insert(name, shape);
        }
    }
    if configs.family() == Family::Sd2 {
        found.insert(format!("{OPEN_CLIP}transformer.resblocks.23.ln_1.weight"), vec![1024]);
    }
    found
}

fn vae_file_name(name: &str, levels: usize) -> String {
    let mut name = name.replace("conv_shortcut.", "nin_shortcut.");
    for level in 0..levels {
        let up = levels - 1 - level;
        for (new, old) in [
            (format!("encoder.down_blocks.{level}.resnets."), format!("encoder.down.{level}.block.")),
            (format!("encoder.down_blocks.{level}.downsamplers.0."), format!("encoder.down.{level}.downsample.")),
            (format!("decoder.up_blocks.{level}.resnets."), format!("decoder.up.{up}.block.")),
            (format!("decoder.up_blocks.{level}.upsamplers.0."), format!("decoder.up.{up}.upsample.")),
        ] {
            name = name.replace(&new, &old);
        }
    }
    inverse(&layout::VAE).iter().fold(name, |name, (new, old)| name.replace(new.as_str(), old))
}

/// A safetensors file that has no values on the disk.
fn write(path: &Path, tensors: &BTreeMap<String, Vec<usize>>) {
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for (name, shape) in tensors {
        let start = end;
        end += 2 * shape.iter().product::<usize>();
        header.insert(name.clone(), json!({"dtype": "F16", "shape": shape, "data_offsets": [start, end]}));
    }
    let header = serde_json::Value::Object(header).to_string();
    let file = File::create(path).unwrap();
    file.write_all_at(&(header.len() as u64).to_le_bytes(), 0).unwrap();
    file.write_all_at(header.as_bytes(), 8).unwrap();
    file.set_len((8 + header.len() + end) as u64).unwrap();
}

#[test]
fn published_models_are_found_by_their_shapes() {
    let published: BTreeMap<String, BTreeMap<String, serde_json::Value>> =
        serde_json::from_str(include_str!("../../../tests/published.json")).unwrap();
    for (name, prediction) in [
        ("Stable Diffusion 1.5", None),
        ("Stable Diffusion 2.1", Some(Prediction::VPrediction)),
        ("Stable Diffusion 2.1 base", None),
        ("LCM Dreamshaper v7", None),
        ("Stable Diffusion XL base 1.0", None),
        ("SSD-1B", None),
    ] {
        let folder = tempfile::tempdir().unwrap();
        for (file, json) in &published[name] {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, json.to_string()).unwrap();
        }
        let wanted = Configs::open(&ConfigFiles::folder(folder.path()), &mut Vec::new()).unwrap();
        let path = folder.path().join("model.safetensors");
        write(&path, &tensors(&wanted));
        let (options, mut warnings) = (SourceOptions { prediction, ..SourceOptions::default() }, Vec::new());
        let opened = open(&path, &options, &mut warnings).unwrap();
        let mut found = Configs::open(&opened.files, &mut warnings).unwrap();
        // Sizes are the family's; LCM's is its own.
        if name == "LCM Dreamshaper v7" {
            found.unet.sample_size = wanted.unet.sample_size;
        }
        // The last block of SDXL's first text encoder is not needed, so this file has it not.
        found.text.layers = wanted.text.layers;
        // Without a projection its width is nothing.
        found.text.projection_dim = wanted.text.projection_dim;
        assert_eq!(found.unet, wanted.unet, "{name}");
        assert_eq!(found.vae, wanted.vae, "{name}");
        assert_eq!((found.text, found.text_2), (wanted.text, wanted.text_2), "{name}");
        let networks = arch::networks(&Configs::open(&opened.files, &mut warnings).unwrap(), Format::F32);
        let unet = networks.iter().find(|network| network.name == "unet").unwrap();
        for (name, shape) in unet.parameters.iter().flat_map(|parameter| parameter.tensors()) {
            opened.weights.unet.check(&name, &shape).unwrap();
        }
    }
}
