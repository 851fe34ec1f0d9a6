"""Tiny models of the true classes, and what diffusers computes with them and with the demo model.

Run with torch, transformers, diffusers and safetensors installed, from the repository's root:
    OMP_NUM_THREADS=1 python tests/goldens/make_pipeline.py
Writes models/NAME/ (diffusers folders), NAME.safetensors (tensors, as torch has them: NCHW) and pictures/*.png with
pictures.json (whole pictures and the requests they answer). See README.md beside this file.
"""
import json
import pathlib
import shutil

import numpy
import torch
from diffusers import (
    AutoencoderKL, DDIMScheduler, DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler, EulerDiscreteScheduler,
    LCMScheduler, PNDMScheduler, StableDiffusionImg2ImgPipeline, StableDiffusionPipeline, UNet2DConditionModel,
)
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

HERE = pathlib.Path(__file__).parent
DEMO = HERE.parent.parent / "model-prep/demo/model"
SAMPLERS = {
    # StableDiffusionPipeline switches clip_sample off, too, but only in the scheduler that it is made with.
    "ddim": (DDIMScheduler, {"clip_sample": False}),
    "pndm": (PNDMScheduler, {}),
    "euler": (EulerDiscreteScheduler, {}),
    "euler_ancestral": (EulerAncestralDiscreteScheduler, {}),
    "dpmpp_2m": (DPMSolverMultistepScheduler, {}),
    "dpmpp_2m_karras": (DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
    "lcm": (LCMScheduler, {}),
}
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
TEXT = {"vocab_size": 653, "max_position_embeddings": 77, "bos_token_id": 651, "eos_token_id": 652, "pad_token_id": 652}
MODELS = {
    # The layout of Stable Diffusion 1, small.
    "sd1": dict(
        text=dict(TEXT, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                  hidden_act="quick_gelu"),
        unet=dict(block_out_channels=(16, 32), layers_per_block=2, attention_head_dim=4, cross_attention_dim=32,
                  norm_num_groups=8, sample_size=8,
                  down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
                  up_block_types=("UpBlock2D", "CrossAttnUpBlock2D")),
        vae=dict(block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, latent_channels=4),
        scheduler=PNDMScheduler(**SD, skip_prk_steps=True, set_alpha_to_one=False),
    ),
    # Stable Diffusion 2: linear projections, heads given for each level, velocity; three levels of different depth.
    "sd2": dict(
        text=dict(TEXT, hidden_size=24, intermediate_size=48, num_hidden_layers=3, num_attention_heads=3,
                  hidden_act="gelu"),
        unet=dict(block_out_channels=(16, 24, 32), layers_per_block=(1, 2, 1), attention_head_dim=(2, 3, 4),
                  cross_attention_dim=24, norm_num_groups=4, sample_size=8, use_linear_projection=True,
                  transformer_layers_per_block=(1, 2, 1), flip_sin_to_cos=False, freq_shift=1, downsample_padding=0,
                  down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                  up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")),
        vae=dict(block_out_channels=(8, 12, 16), layers_per_block=2, norm_num_groups=4, latent_channels=4,
                 scaling_factor=0.3),
        scheduler=DDIMScheduler(**SD, clip_sample=False, set_alpha_to_one=False, prediction_type="v_prediction"),
    ),
    # Latent consistency: the guidance scale is an input; no middle block, no attention in the autoencoder.
    "lcm": dict(
        text=dict(TEXT, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
                  hidden_act="quick_gelu"),
        unet=dict(block_out_channels=(16, 16), layers_per_block=1, attention_head_dim=2, cross_attention_dim=16,
                  norm_num_groups=8, sample_size=8, time_cond_proj_dim=32, mid_block_type=None,
                  down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
                  up_block_types=("UpBlock2D", "CrossAttnUpBlock2D")),
        vae=dict(block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4, latent_channels=4,
                 mid_block_add_attention=False, use_quant_conv=False, use_post_quant_conv=False),
        scheduler=LCMScheduler(**SD),
    ),
}


def lively(model, seed):
    """Random weights under which activations keep their size, norms included, so that every layer shows in the output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            noise = torch.randn(p.shape, generator=generator)
            if p.dim() > 1:
                p.copy_(noise / (p[0].numel() ** 0.5) if "embedding" not in name else noise * 0.5)
            else:
                p.copy_((1.0 if "norm" in name and name.endswith("weight") else 0.0) + 0.1 * noise)
    return model.eval()


def make(name, spec):
    tokenizer = CLIPTokenizer.from_pretrained(DEMO / "tokenizer")
    text = lively(CLIPTextModel(CLIPTextConfig(**spec["text"])), 1)
    unet = lively(UNet2DConditionModel(in_channels=4, out_channels=4, **spec["unet"]), 2)
    levels = len(spec["vae"]["block_out_channels"])
    vae = lively(AutoencoderKL(down_block_types=("DownEncoderBlock2D",) * levels,
                               up_block_types=("UpDecoderBlock2D",) * levels, **spec["vae"]), 3)
    pipe = StableDiffusionPipeline(vae=vae, text_encoder=text, tokenizer=tokenizer, unet=unet,
                                   scheduler=spec["scheduler"], safety_checker=None, feature_extractor=None,
                                   requires_safety_checker=False)
    folder = HERE / "models" / name
    shutil.rmtree(folder, ignore_errors=True)
    pipe.save_pretrained(folder)
    for file in ["vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"]:
        shutil.copyfile(DEMO / "tokenizer" / file, folder / "tokenizer" / file)
    (folder / "tokenizer/tokenizer.json").unlink(missing_ok=True)
    return folder


def randn(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def tensors(name, pipe):
    """Inputs and outputs of each network."""
    ids = pipe.tokenizer(["a large red house at night", ""], padding="max_length", max_length=77,
                         return_tensors="pt").input_ids
    text = pipe.text_encoder(ids)[0]
    out = {"text.ids": ids.float(), "text.out": text}
    dim = pipe.unet.config.time_cond_proj_dim
    cond = None
    if dim:
        cond = pipe.get_guidance_scale_embedding(torch.tensor([6.5]), embedding_dim=dim)
    multiple = 2 ** (len(pipe.unet.config.block_out_channels) - 1)
    size = pipe.unet.config.sample_size
    for shape in [(size, size), (size, size + 2 * multiple)]:
        for timestep in [1, 500, 999]:
            x = randn(timestep, 1, 4, *shape)
            key = f"unet.{timestep}.{shape[0]}x{shape[1]}"
            out[key + ".in"] = x
            out[key + ".out"] = pipe.unet(x, timestep, text[:1], timestep_cond=cond)[0]
    for shape in [(6, 6), (4, 7)]:
        z = randn(5, 1, pipe.vae.config.latent_channels, *shape)
        out[f"decode.{shape[0]}x{shape[1]}.in"] = z
        picture = pipe.vae.decode(z)[0]
        out[f"decode.{shape[0]}x{shape[1]}.out"] = picture
        out[f"encode.{shape[0]}x{shape[1]}.in"] = picture.clamp(-1, 1)
        out[f"encode.{shape[0]}x{shape[1]}.out"] = pipe.vae.encode(picture.clamp(-1, 1)).latent_dist.parameters
    save_file({key: value.contiguous() for key, value in out.items()}, HERE / f"{name}.safetensors")


def paint(model, pipe, sampler, prompt, seed, steps, cfg, size, init, pictures, negative="a tree"):
    kind, own = SAMPLERS[sampler]
    pipe.scheduler = pipe.img2img.scheduler = kind.from_config(pipe.original, **own)
    pipe.set_progress_bar_config(disable=True)
    request = {"model": model, "sampler": sampler, "prompt": prompt, "negative_prompt": negative or "", "seed": seed,
               "steps": steps, "cfg_scale": cfg, "width": size[0], "height": size[1]}
    common = dict(prompt=prompt, negative_prompt=negative, num_inference_steps=steps, guidance_scale=cfg,
                  generator=torch.Generator("cpu").manual_seed(seed), output_type="np")
    if init:
        request |= {"init_image": init, "strength": 0.6}
        image = pipe.img2img(image=Image.open(HERE / init).convert("RGB"), strength=0.6, **common).images[0]
    else:
        image = pipe(width=size[0], height=size[1], **common).images[0]
    file = f"pictures/{model}-{sampler}-{len(pictures)}.png"
    Image.fromarray((image * 255).round().astype(numpy.uint8)).save(HERE / file, optimize=True)
    pictures.append(request | {"file": file})


def load(folder):
    pipe = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32, safety_checker=None)
    pipe.original = pipe.scheduler.config
    pipe.img2img = StableDiffusionImg2ImgPipeline(
        vae=pipe.vae, text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer, unet=pipe.unet,
        scheduler=pipe.scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    return pipe


def whole_pictures(model, pipe, pictures):
    factor = 2 ** (len(pipe.vae.config.block_out_channels) - 1)
    multiple = factor * 2 ** (len(pipe.unet.config.block_out_channels) - 1)
    side = pipe.unet.config.sample_size * factor
    demo = model == "demo"
    prompts = ["a large red house at night with a moon", "a small blue fish on the sea"] if demo else ["a red car"]
    names = ["lcm"] if model == "lcm" else SAMPLERS
    for i, prompt in enumerate(prompts):
        for sampler in names:
            steps = 8 if demo else 4
            size = (side, side) if i == 0 else (side, side - multiple)
            paint(model, pipe, sampler, prompt, 7 + i, steps, 5.0, size, None, pictures)
    # The init image has the size that is painted: scaling is not what is compared here.
    init = f"pictures/{model}-init.png"
    Image.open(HERE / pictures[-1]["file"]).save(HERE / init)
    with Image.open(HERE / init) as picture:
        size = picture.size
    for sampler in names:
        paint(model, pipe, sampler, "a yellow star on a beach", 3, 10 if demo else 7, 5.0, size, init, pictures)


if __name__ == "__main__":
    (HERE / "pictures").mkdir(exist_ok=True)
    pictures = []
    for name, spec in MODELS.items():
        pipe = load(make(name, spec))
        tensors(name, pipe)
        whole_pictures(name, pipe, pictures)
    pipe = load(DEMO)
    tensors("demo", pipe)
    whole_pictures("demo", pipe, pictures)
    (HERE / "pictures.json").write_text("[\n" + ",\n".join(json.dumps(p) for p in pictures) + "\n]\n")
