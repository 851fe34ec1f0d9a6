//! `unet/config.json`: UNet2DConditionModel's configuration, with diffusers' defaults for what is absent.

use diffused_engine::layer::Padding;
use serde_json::{Value, json};

use super::keys::{Keys, MAX_LAYERS};
use crate::error::Result;

/// A resolution of the UNet, as it is built on the way down; the way up mirrors it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct UnetBlock {
    /// Channels of its output.
    pub(crate) channels: usize,
    /// Residual blocks on the way down; on the way up there is one more.
    pub(crate) layers: usize,
    /// Attention heads.
    pub(crate) heads: usize,
    /// Width of the text embeddings that it attends to.
    pub(crate) text_channels: usize,
    /// Its first attention, too, attends to the text instead of the picture.
    pub(crate) only_cross: bool,
    /// On the way down: transformer blocks after each residual block, if there are attentions.
    pub(crate) down: Option<Vec<usize>>,
}

/// The residual block(s) at the lowest resolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Middle {
    /// Two residual blocks with a transformer of so many blocks between them.
    CrossAttention(usize),
    /// One residual block.
    Resnet,
    /// Nothing.
    Absent,
}

/// What SDXL adds to the time embedding: the text's pooled embedding, and sizes of the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AddedEmbedding {
    /// Width of the pooled embedding.
    pub(crate) pooled: usize,
    /// Numbers: original height and width, top and left of the crop, height and width.
    pub(crate) ids: usize,
    /// Width of a number's embedding.
    pub(crate) id_channels: usize,
}

/// The UNet's configuration.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct UnetConfig {
    /// Channels of the latents.
    pub(crate) latent_channels: usize,
    /// The input also holds a mask and the masked image's latents.
    pub(crate) inpainting: bool,
    /// Default width and height of the latents.
    pub(crate) sample_size: usize,
    /// Kernel of the first convolution: 1 or 3.
    pub(crate) conv_in_kernel: usize,
    /// Kernel of the last convolution: 1 or 3.
    pub(crate) conv_out_kernel: usize,
    /// Cosines first in the time embedding.
    pub(crate) flip_sin_to_cos: bool,
    /// Shift of the time embedding's frequencies.
    pub(crate) freq_shift: f32,
    /// Width of the time embedding.
    pub(crate) time_channels: usize,
    /// Width of the guidance-scale embedding (LCM).
    pub(crate) guidance_channels: Option<usize>,
    /// What is part of the time embedding beside the timestep (SDXL).
    pub(crate) added: Option<AddedEmbedding>,
    /// The resolutions, finest first.
    pub(crate) blocks: Vec<UnetBlock>,
    /// Transformer blocks of the way up, coarsest resolution first.
    pub(crate) up: Vec<Option<Vec<usize>>>,
    /// The lowest resolution.
    pub(crate) middle: Middle,
    /// Groups of the norms.
    pub(crate) groups: usize,
    /// Added to the variance by the residual blocks' norms.
    pub(crate) eps: f32,
    /// Padding of the convolutions that halve the resolution.
    pub(crate) downsample_padding: Padding,
}

/// Keys that change nothing of what is computed at inference, given the values that the other keys may have. The last
/// ones are how a moving average of the weights was kept in training.
const INERT: [&str; 15] = [
    "_class_name",
    "_name_or_path",
    "_commit_hash",
    "dropout",
    "upcast_attention",
    "use_linear_projection",
    "addition_embed_type_num_heads",
    "mid_block_only_cross_attention",
    "decay",
    "inv_gamma",
    "min_decay",
    "optimization_step",
    "power",
    "update_after_step",
    "use_ema_warmup",
];

/// The size of the latents where none is given, Stable Diffusion 1's: 512 pixels.
const SAMPLE_SIZE: usize = 64;

impl UnetConfig {
    /// Reads the configuration; what cannot be built is refused by name, what is not known goes into `warnings`.
    pub(crate) fn open(mut keys: Keys, warnings: &mut Vec<String>) -> Result<UnetConfig> {
        keys.only("_class_name", &[json!("UNet2DConditionModel")])?;
        let version = keys.take("_diffusers_version").unwrap_or_default();
        keys.ignore(&INERT);
        refuse_variants(&mut keys)?;
        let channels = keys.levels("block_out_channels", &[320, 640, 1280, 1280])?;
        let (latent_channels, inpainting) = latent_channels(&mut keys)?;
        let blocks = blocks(&mut keys, &channels)?;
        let (down, up, middle) = transformers(&mut keys, &blocks)?;
        let blocks = blocks.into_iter().zip(down).map(|(block, down)| UnetBlock { down, ..block }).collect();
        let kernel = [(json!(1), 1), (json!(3), 3)];
        let padding = [(json!(1), Padding::Same), (json!(0), Padding::End)];
        let config = UnetConfig {
            latent_channels,
            inpainting,
            sample_size: sample_size(&mut keys, &version, warnings)?,
            conv_in_kernel: keys.choice("conv_in_kernel", &kernel)?.unwrap_or(3),
            conv_out_kernel: keys.choice("conv_out_kernel", &kernel)?.unwrap_or(3),
            flip_sin_to_cos: keys.flag("flip_sin_to_cos", true)?,
            freq_shift: keys.single("freq_shift", 0.0)?,
            time_channels: time_channels(&mut keys, &channels)?,
            guidance_channels: keys.optional_count("time_cond_proj_dim")?,
            added: added(&mut keys)?,
            blocks,
            up,
            middle,
            groups: groups(&mut keys, &channels)?,
            eps: keys.epsilon("norm_eps", 1e-5)?,
            downsample_padding: keys.choice("downsample_padding", &padding)?.unwrap_or(Padding::Same),
        };
        warnings.extend(keys.left_over());
        Ok(config)
    }
}

/// Numbers that SDXL's UNet is told of a picture; its refiner is told five.
const TIME_IDS: usize = 6;

/// SDXL's addition to the time embedding.
fn added(keys: &mut Keys) -> Result<Option<AddedEmbedding>> {
    let kinds = [(Value::Null, false), (json!("text_time"), true)];
    let there = keys.choice("addition_embed_type", &kinds)?.unwrap_or(false);
    let (width, id_channels) =
        (keys.take("projection_class_embeddings_input_dim"), keys.take("addition_time_embed_dim"));
    if !there {
        return match width.filter(|width| !width.is_null()) {
            Some(width) => Err(keys.refuse("projection_class_embeddings_input_dim", &width, "null")),
            None => Ok(None),
        };
    }
    let count = |key: &str, value: Option<Value>| keys.as_count(key, &value.unwrap_or_default());
    let width = count("projection_class_embeddings_input_dim", width)?;
    let id_channels = count("addition_time_embed_dim", id_channels)?;
    match TIME_IDS.checked_mul(id_channels).and_then(|ids| width.checked_sub(ids)).filter(|pooled| *pooled > 0) {
        Some(pooled) => Ok(Some(AddedEmbedding { pooled, ids: TIME_IDS, id_channels })),
        None => {
            let more = format!("more than {TIME_IDS} times addition_time_embed_dim, {id_channels}");
            Err(keys.refuse("projection_class_embeddings_input_dim", &json!(width), &more))
        }
    }
}

/// Channels of the latents, and whether the model inpaints: then the input also holds a mask and the masked image's
/// latents.
fn latent_channels(keys: &mut Keys) -> Result<(usize, bool)> {
    let channels = keys.count("in_channels", 4)?;
    let out_channels = keys.count("out_channels", 4)?;
    if channels == out_channels || channels == 2 * out_channels + 1 {
        return Ok((out_channels, channels != out_channels));
    }
    let kind = match channels {
        5 => "; this is a model that takes a depth map beside the latents",
        7 => "; this is an upscaler",
        8 => "; this is InstructPix2Pix, which takes a picture to edit beside the latents",
        _ => "",
    };
    let expected =
        format!("{out_channels}, as out_channels is, or {} of an inpainting model{kind}", 2 * out_channels + 1);
    Err(keys.refuse("in_channels", &json!(channels), &expected))
}

/// Other kinds of networks that diffusers builds with this class.
fn refuse_variants(keys: &mut Keys) -> Result<()> {
    for key in [
        "class_embed_type",
        "cross_attention_norm",
        "encoder_hid_dim",
        "encoder_hid_dim_type",
        "num_attention_heads",
        "num_class_embeds",
        "time_embedding_act_fn",
        "timestep_post_act",
    ] {
        keys.only(key, &[Value::Null])?;
    }
    for key in ["center_input_sample", "class_embeddings_concat", "dual_cross_attention", "resnet_skip_time_act"] {
        keys.only(key, &[json!(false)])?;
    }
    keys.only("act_fn", &[json!("silu"), json!("swish")])?;
    keys.only("attention_type", &[json!("default")])?;
    keys.only("mid_block_scale_factor", &[json!(1)])?;
    keys.only("resnet_out_scale_factor", &[json!(1)])?;
    keys.only("resnet_time_scale_shift", &[json!("default")])?;
    keys.only("time_embedding_type", &[json!("positional")])
}

#[expect(clippy::indexing_slicing, reason = "`Keys::counts` refuses an empty list")]
fn time_channels(keys: &mut Keys, channels: &[usize]) -> Result<usize> {
    Ok(keys.optional_count("time_embedding_dim")?.unwrap_or(channels[0].saturating_mul(4)))
}

/// The resolutions, their attentions left open.
fn blocks(keys: &mut Keys, channels: &[usize]) -> Result<Vec<UnetBlock>> {
    let n = channels.len();
    let layers = keys.count_per_block("layers_per_block", n, 2)?;
    check_total(keys, "layers_per_block", layers.iter().copied())?;
    // diffusers' well-known misnomer: attention_head_dim is the number of heads.
    let heads = keys.count_per_block("attention_head_dim", n, 8)?;
    let text_channels = keys.count_per_block("cross_attention_dim", n, 1280)?;
    let only_cross = only_cross(keys, n)?;
    for (heads, channels) in heads.iter().zip(channels) {
        if !channels.is_multiple_of(*heads) {
            let divides = format!("a number of heads that divides the block's {channels} channels");
            return Err(keys.refuse("attention_head_dim", &json!(heads), &divides));
        }
    }
    let lists = channels.iter().zip(layers).zip(heads).zip(text_channels).zip(only_cross);
    let block = |((((&channels, layers), heads), text_channels), only_cross)| UnetBlock {
        channels,
        layers,
        heads,
        text_channels,
        only_cross,
        down: None,
    };
    Ok(lists.map(block).collect())
}

/// Refuses more layers than any model has.
fn check_total(keys: &Keys, key: &str, counts: impl Iterator<Item = usize>) -> Result<()> {
    match counts.fold(0, usize::saturating_add) {
        total if total > MAX_LAYERS => {
            Err(keys.refuse(key, &json!(total), &format!("at most {MAX_LAYERS} in all blocks together")))
        }
        _ => Ok(()),
    }
}

fn only_cross(keys: &mut Keys, blocks: usize) -> Result<Vec<bool>> {
    let value = keys.take("only_cross_attention").unwrap_or(json!(false));
    let flags = match &value {
        Value::Bool(flag) => Some(vec![*flag; blocks]),
        Value::Array(flags) if flags.len() == blocks => flags.iter().map(Value::as_bool).collect(),
        _ => None,
    };
    flags.ok_or_else(|| {
        keys.refuse("only_cross_attention", &value, &format!("true, false or a list of {blocks}, one for each block"))
    })
}

type Attentions = Vec<Option<Vec<usize>>>;

/// Where there are transformers and of how many blocks: on the way down, on the way up, in the middle.
#[expect(clippy::indexing_slicing, reason = "a UNet has a block, a block has a layer, and a layer has a depth")]
fn transformers(keys: &mut Keys, blocks: &[UnetBlock]) -> Result<(Attentions, Attentions, Middle)> {
    let n = blocks.len();
    let down_types = block_types(keys, "down_block_types", n, ("CrossAttnDownBlock2D", "DownBlock2D"), n - 1)?;
    let up_types = block_types(keys, "up_block_types", n, ("CrossAttnUpBlock2D", "UpBlock2D"), 0)?;
    let down_layers: Vec<usize> = blocks.iter().map(|block| block.layers).collect();
    let up_layers: Vec<usize> = blocks.iter().rev().map(|block| block.layers + 1).collect();
    let down = keys.take("transformer_layers_per_block").unwrap_or(json!(1));
    let (depths, nested) = depths(keys, "transformer_layers_per_block", &down, &down_layers)?;
    let up = match keys.some("reverse_transformer_layers_per_block") {
        Some(value) => self::depths(keys, "reverse_transformer_layers_per_block", &value, &up_layers)?.0,
        None if nested => {
            let other = "a list of integers, or reverse_transformer_layers_per_block beside it";
            return Err(keys.refuse("transformer_layers_per_block", &down, other));
        }
        None => depths.iter().rev().zip(&up_layers).map(|(depth, layers)| vec![depth[0]; *layers]).collect(),
    };
    check_total(keys, "transformer_layers_per_block", depths.iter().chain(&up).flatten().copied())?;
    let lowest = depths[n - 1][0];
    let middle = [
        (json!("UNetMidBlock2DCrossAttn"), Middle::CrossAttention(lowest)),
        (json!("UNetMidBlock2D"), Middle::Resnet),
        (Value::Null, Middle::Absent),
    ];
    let middle = keys.choice("mid_block_type", &middle)?.unwrap_or(Middle::CrossAttention(lowest));
    let only = |types: Vec<bool>, depths: Vec<Vec<usize>>| {
        types.into_iter().zip(depths).map(|(cross, depths)| cross.then_some(depths)).collect()
    };
    Ok((only(down_types, depths), only(up_types, up), middle))
}

/// Which of the blocks have attentions; by default all but block `plain`.
fn block_types(
    keys: &mut Keys,
    key: &str,
    blocks: usize,
    (with, without): (&str, &str),
    plain: usize,
) -> Result<Vec<bool>> {
    let default = |i: usize| json!(if i == plain { without } else { with });
    let value = keys.take(key).unwrap_or_else(|| (0..blocks).map(default).collect());
    let known = |name: &Value| match name.as_str() {
        Some(name) if name == with => Some(true),
        Some(name) if name == without => Some(false),
        _ => None,
    };
    let types: Option<Vec<bool>> = value.as_array().and_then(|names| names.iter().map(known).collect());
    types.filter(|types| types.len() == blocks).ok_or_else(|| {
        keys.refuse(key, &value, &format!("a list of {blocks} (one for each block) of {with}, {without}"))
    })
}

/// Transformer blocks after each residual block: one number, one a resolution, or one a residual block.
/// Says also whether it was the last.
fn depths(keys: &Keys, key: &str, value: &Value, layers: &[usize]) -> Result<(Vec<Vec<usize>>, bool)> {
    let expected = format!("a positive integer, or a list of {} integers or lists of them", layers.len());
    let Some(blocks) = value.as_array() else {
        let depth = keys.as_count(key, value)?;
        return Ok((layers.iter().map(|layers| vec![depth; *layers]).collect(), false));
    };
    if blocks.len() != layers.len() {
        return Err(keys.refuse(key, value, &expected));
    }
    let depths = blocks.iter().zip(layers).map(|(block, layers)| match block.as_array() {
        None => Ok(vec![keys.as_count(key, block)?; *layers]),
        Some(list) if list.len() == *layers => list.iter().map(|depth| keys.as_count(key, depth)).collect(),
        Some(_) => Err(keys.refuse(key, value, &expected)),
    });
    Ok((depths.collect::<Result<_>>()?, blocks.iter().any(Value::is_array)))
}

fn groups(keys: &mut Keys, channels: &[usize]) -> Result<usize> {
    let groups = keys.count("norm_num_groups", 32)?;
    match channels.iter().find(|channels| !channels.is_multiple_of(groups)) {
        Some(channels) => {
            Err(keys.refuse("norm_num_groups", &json!(groups), &format!("a number that divides {channels} channels")))
        }
        None => Ok(groups),
    }
}

/// The default size of the latents. The bundle has one number, so of a rectangle the shorter side is taken.
fn sample_size(keys: &mut Keys, version: &Value, warnings: &mut Vec<String>) -> Result<usize> {
    let path = keys.path().display().to_string();
    let mut tell = |what: String, size: usize| {
        warnings.push(format!("{path}: sample_size {what}; {size} is taken"));
        size
    };
    let Some(value) = keys.some("sample_size") else {
        return Ok(tell("is not set".into(), SAMPLE_SIZE));
    };
    if let Some([height, width]) = value.as_array().map(Vec::as_slice) {
        let (height, width) = (keys.as_count("sample_size", height)?, keys.as_count("sample_size", width)?);
        return Ok(if height == width { height } else { tell(format!("is {value}"), height.min(width)) });
    }
    let size = keys.as_count("sample_size", &value)?;
    match size < SAMPLE_SIZE && is_before_0_9(version) {
        true => Ok(tell(format!("is {size} of a diffusers before 0.9, which did not mean it"), SAMPLE_SIZE)),
        false => Ok(size),
    }
}

/// Whether a version of diffusers, `0.4.0.dev0` for one, is older than 0.9.
fn is_before_0_9(version: &Value) -> bool {
    let parts: Vec<u64> =
        version.as_str().unwrap_or_default().split('.').map_while(|part| part.parse().ok()).take(2).collect();
    matches!(parts[..], [0, minor] if minor < 9)
}
