"""The names of single files: tiny models and the demo model, each written as one, in the original program's layout, and read by diffusers.

Run with torch, transformers, diffusers and safetensors installed, from the repository's root:
    OMP_NUM_THREADS=1 python tests/goldens/make_single_files.py
Writes single_files.json: for each model and each tensor of the file the tensors of the folder that it is made of, stacked on
rows; `^T` behind a name means transposed. What is written is what `from_single_file` reads: with the folder as
configuration it gives the same weights to the bit and paints the same picture. See README.md beside this file.
"""
import json
import pathlib
import re
import shutil
import tempfile

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).parent
FOLDERS = {model: HERE / "models" / model for model in ("sd1", "sd2", "sdxl")}
FOLDERS["demo"] = HERE.parent.parent / "model-prep/demo/model"
RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
          "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
TOP = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2", "conv_in": "input_blocks.0.0",
       "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
       "time_embedding.cond_proj": "time_embed.cond_proj", "conv_norm_out": "out.0", "conv_out": "out.2"}
CLIP = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
        "self_attn.out_proj": "attn.out_proj"}
VAE = {"conv_norm_out": "norm_out", "mid_block.resnets.0": "mid.block_1", "mid_block.resnets.1": "mid.block_2",
       "mid_block.attentions.0.group_norm": "mid.attn_1.norm", "mid_block.attentions.0.to_q": "mid.attn_1.q",
       "mid_block.attentions.0.to_k": "mid.attn_1.k", "mid_block.attentions.0.to_v": "mid.attn_1.v",
       "mid_block.attentions.0.to_out.0": "mid.attn_1.proj_out"}


def unet_names(config):
    """Beginnings of diffusers' names, and the file's."""
    levels = len(config["block_out_channels"])
    layers = config["layers_per_block"]
    layers = layers if isinstance(layers, list) else [layers] * levels
    names, n = {}, 0
    for i in range(levels):
        for j in range(layers[i]):
            n += 1
            names[f"down_blocks.{i}.resnets.{j}."] = f"input_blocks.{n}.0."
            names[f"down_blocks.{i}.attentions.{j}."] = f"input_blocks.{n}.1."
        if i < levels - 1:
            n += 1
            names[f"down_blocks.{i}.downsamplers.0.conv."] = f"input_blocks.{n}.0.op."
    names |= {"mid_block.resnets.0.": "middle_block.0.", "mid_block.attentions.0.": "middle_block.1.",
              "mid_block.resnets.1.": "middle_block.2."}
    n = 0
    for i in range(levels):
        attends = config["up_block_types"][i] == "CrossAttnUpBlock2D"
        for j in range(layers[levels - 1 - i] + 1):
            names[f"up_blocks.{i}.resnets.{j}."] = f"output_blocks.{n}.0."
            names[f"up_blocks.{i}.attentions.{j}."] = f"output_blocks.{n}.1."
            n += 1
        names[f"up_blocks.{i}.upsamplers.0.conv."] = f"output_blocks.{n - 1}.{2 if attends else 1}.conv."
    return names


def unet_name(name, names):
    for old, new in TOP.items():
        if name.startswith(old + "."):
            return new + name[len(old):]
    old = max((old for old in names if name.startswith(old)), key=len)
    rest = name[len(old):]
    if ".resnets." in old:
        part, end = rest.rsplit(".", 1)
        rest = f"{RESNET[part]}.{end}"
    return names[old] + rest


def vae_name(name, levels):
    name = re.sub(r"encoder\.down_blocks\.(\d+)\.resnets", r"encoder.down.\1.block", name)
    name = re.sub(r"encoder\.down_blocks\.(\d+)\.downsamplers\.0", r"encoder.down.\1.downsample", name)
    up = lambda m: f"decoder.up.{levels - 1 - int(m[1])}.{ {'resnets': 'block', 'upsamplers.0': 'upsample'}[m[2]] }"
    name = re.sub(r"decoder\.up_blocks\.(\d+)\.(resnets|upsamplers\.0)", up, name)
    for old, new in VAE.items():
        name = name.replace(old + ".", new + ".")
    return name.replace("conv_shortcut", "nin_shortcut")


def open_clip(names, prefix):
    """OpenCLIP's names; queries, keys and values are one tensor there."""
    made = {}
    for name in names:
        plain = name.removeprefix("text_model.")
        layer = re.fullmatch(r"encoder\.layers\.(\d+)\.(.*)\.(weight|bias)", plain)
        if plain == "text_projection.weight":
            made[prefix + "text_projection"] = [name + "^T"]
        elif plain == "embeddings.position_embedding.weight":
            made[prefix + "positional_embedding"] = [name]
        elif plain == "embeddings.token_embedding.weight":
            made[prefix + "token_embedding.weight"] = [name]
        elif plain.startswith("final_layer_norm"):
            made[prefix + plain.replace("final_layer_norm", "ln_final")] = [name]
        elif layer and "_proj" in layer[2] and "out" not in layer[2]:
            if "q_proj" in name:
                key = f"{prefix}transformer.resblocks.{layer[1]}.attn.in_proj_{layer[3]}"
                made[key] = [name.replace("q_proj", part) for part in ("q_proj", "k_proj", "v_proj")]
        elif layer:
            made[f"{prefix}transformer.resblocks.{layer[1]}.{CLIP[layer[2]]}.{layer[3]}"] = [name]
    return made


def names_of(folder, kind):
    config = json.loads((folder / "unet/config.json").read_text())
    parts = {"unet": load_file(folder / "unet/diffusion_pytorch_model.safetensors"),
             "vae": load_file(folder / "vae/diffusion_pytorch_model.safetensors"),
             "text_encoder": load_file(folder / "text_encoder/model.safetensors")}
    blocks = unet_names(config)
    levels = len(json.loads((folder / "vae/config.json").read_text())["block_out_channels"])
    made = {"unet": {"model.diffusion_model." + unet_name(name, blocks): [name] for name in parts["unet"]},
            "vae": {"first_stage_model." + vae_name(name, levels): [name] for name in parts["vae"]}}
    plain = lambda name: "text_model." + name.removeprefix("text_model.")
    if kind == "sd2":
        made["text_encoder"] = open_clip(parts["text_encoder"], "cond_stage_model.model.")
    else:
        prefix = "cond_stage_model.transformer." if kind == "sd1" else "conditioner.embedders.0.transformer."
        made["text_encoder"] = {prefix + plain(name): [name] for name in parts["text_encoder"]}
    if kind == "xl":
        parts["text_encoder_2"] = load_file(folder / "text_encoder_2/model.safetensors")
        made["text_encoder_2"] = open_clip(parts["text_encoder_2"], "conditioner.embedders.1.model.")
    return made, parts


def write(path, made, parts, kind):
    tensors = {}
    for part, names in made.items():
        for new, old in names.items():
            of = lambda name: parts[part][name.removesuffix("^T")].T if name.endswith("^T") else parts[part][name]
            tensors[new] = torch.cat([of(name) for name in old]).contiguous()
            if re.search(r"mid\.attn_1\.(q|k|v|proj_out)\.weight", new):
                tensors[new] = tensors[new][:, :, None, None]
    if kind == "sd2":
        # The last layer, which Stable Diffusion 2 does not use, and what else of OpenCLIP's is in its files.
        last = max(int(m[1]) for name in tensors if (m := re.search(r"resblocks\.(\d+)\.", name)))
        for name, tensor in list(tensors.items()):
            if f".resblocks.{last}." in name:
                tensors[name.replace(f".resblocks.{last}.", f".resblocks.{last + 1}.")] = torch.rand_like(tensor)
        channels = tensors["cond_stage_model.model.positional_embedding"].shape[1]
        tensors["cond_stage_model.model.text_projection"] = torch.rand(channels, channels)
        tensors["cond_stage_model.model.logit_scale"] = torch.tensor(4.6)
    else:
        name = next(iter(made["text_encoder"])).split("text_model.")[0]
        tensors[name + "text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(tensors, path)


def even(folder, place):
    """The model with as many layers at each resolution: diffusers reads no other single files."""
    config = json.loads((folder / "unet/config.json").read_text())
    if not isinstance(config["layers_per_block"], list):
        return folder
    shutil.copytree(folder, place)
    unet = UNet2DConditionModel.from_config(config | {"layers_per_block": 1, "transformer_layers_per_block": 1})
    unet.save_pretrained(place / "unet")
    return place


def check(folder, path, pipeline):
    """diffusers reads the file as the folder, and paints the same."""
    folder_pipe = pipeline.from_pretrained(folder, torch_dtype=torch.float32)
    file_pipe = pipeline.from_single_file(str(path), config=str(folder), torch_dtype=torch.float32)
    pictures = []
    for pipe in (folder_pipe, file_pipe):
        pipe.set_progress_bar_config(disable=True)
        generator = torch.Generator("cpu").manual_seed(1)
        pictures.append(pipe("a red car", num_inference_steps=4, guidance_scale=5.0, generator=generator, height=32, width=32,
                             output_type="np").images[0])
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        if hasattr(folder_pipe, part):
            state = getattr(file_pipe, part).state_dict()
            for name, tensor in getattr(folder_pipe, part).state_dict().items():
                assert torch.equal(tensor.flatten(), state[name].flatten()), f"{part}: {name}"
    difference = abs(pictures[0] - pictures[1]).max()
    assert difference < 0.5 / 255, difference
    print(f"{folder.name}: the same weights; the pictures differ by {difference * 255:.4f} of 255")


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = {}
    for model, kind in [("sd1", "sd1"), ("sd2", "sd2"), ("sdxl", "xl"), ("demo", "sd1")]:
        folder = FOLDERS[model]
        made, _ = names_of(folder, kind)
        with tempfile.TemporaryDirectory() as place:
            path, regular = pathlib.Path(place) / "model.safetensors", even(folder, pathlib.Path(place) / "model")
            write(path, *names_of(regular, kind), kind)
            check(regular, path, StableDiffusionXLPipeline if kind == "xl" else StableDiffusionPipeline)
        found[model] = made
    text = json.dumps(found, indent=0, separators=(",", ":"), sort_keys=True)
    (HERE / "single_files.json").write_text(re.sub(r"\[\n|\n\]", lambda m: m[0].strip(), text) + "\n")
