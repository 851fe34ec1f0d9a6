"""Small autoencoders, few-step models and inpainting models: adds to what make_pipeline.py made, and changes nothing of it.

Run as make_pipeline.py is, and after it:
    OMP_NUM_THREADS=1 python tests/goldens/make_small.py
Writes models/taesd, models/taesd-halves, models/sdxs, models/turbo and models/inpaint (parts that they share with sd1 and
sd2 are links), taesd.safetensors (tensors, as torch has them) and pictures/ with pictures-small.json.
"""
import json
import os
import pathlib
import shutil

import numpy
import torch
from diffusers import (
    AutoencoderTiny, EulerDiscreteScheduler, PNDMScheduler, StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline,
    StableDiffusionPipeline, UNet2DConditionModel,
)
from PIL import Image
from safetensors.torch import save_file

from make_pipeline import HERE, SD, lively, randn

MODELS = HERE / "models"
# Two levels, as the autoencoder of sd1 has, whose latents it shares.
TAESD = dict(encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), num_encoder_blocks=(1, 2),
             num_decoder_blocks=(2, 1))
# No attention in the outermost blocks and no middle block, one layer a block, three levels, as SDXS has them.
SDXS = dict(block_out_channels=(8, 8, 16), layers_per_block=1, attention_head_dim=4, cross_attention_dim=32,
            norm_num_groups=4, sample_size=8, mid_block_type=None,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"))
# The layout of Stable Diffusion 1, smaller still.
INPAINT = dict(block_out_channels=(8, 16), layers_per_block=1, attention_head_dim=4, cross_attention_dim=32,
               norm_num_groups=4, sample_size=8, in_channels=9,
               down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
               up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"))
PROMPT, NEGATIVE = "a red car", "a tree"


def taesd():
    """The same weights as a diffusers folder and as the files of TAESD's own repository, in which the decoder's layers
    are counted from the clamp before the first convolution."""
    vae = lively(AutoencoderTiny(**TAESD), 11)
    for folder in ["taesd", "taesd-halves"]:
        shutil.rmtree(MODELS / folder, ignore_errors=True)
    vae.save_pretrained(MODELS / "taesd")
    (MODELS / "taesd-halves").mkdir()
    for half, first in [("decoder", 1), ("encoder", 0)]:
        tensors = {}
        for name, tensor in getattr(vae, half).state_dict().items():
            layer, rest = name.removeprefix("layers.").split(".", 1)
            tensors[f"{int(layer) + first}.{rest}"] = tensor.contiguous()
        save_file(tensors, MODELS / "taesd-halves" / f"taesd_{half}.safetensors")
    out = {}
    with torch.no_grad():
        for rows, columns in [(6, 6), (4, 7), (5, 3)]:
            # Beyond the clamp's bounds too.
            latents = 3 * randn(5, 1, 4, rows, columns)
            picture = vae.decode(latents).sample
            out |= {f"decode.{rows}x{columns}.in": latents, f"decode.{rows}x{columns}.out": picture}
            out[f"encode.{rows}x{columns}.in"] = picture.clamp(-1, 1)
            out[f"encode.{rows}x{columns}.out"] = vae.encode(picture.clamp(-1, 1)).latents
    save_file({key: value.contiguous() for key, value in out.items()}, HERE / "taesd.safetensors")
    return vae


def folder(name, pipe, shared, parts):
    """A diffusers folder whose `parts` are links to those of the model `shared`."""
    path = MODELS / name
    shutil.rmtree(path, ignore_errors=True)
    pipe.save_pretrained(path)
    index = json.loads((path / "model_index.json").read_text())
    index.pop("_name_or_path", None)  # where this machine has the model that the parts came from
    (path / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    for part in [*parts, "tokenizer"]:
        shutil.rmtree(path / part)
        os.symlink(f"../{shared}/{part}", path / part)
    return path


def save(picture, name):
    file = f"pictures/{name}.png"
    Image.fromarray((picture * 255).round().astype(numpy.uint8)).save(HERE / file, optimize=True)
    return file


def paint(pictures, pipe, kind, model, sampler, size, seed, steps, cfg, **more):
    """`more` goes into the request: `decoder`, and `init_image` and `strength` for image to image."""
    pipe = kind(vae=pipe.vae, text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer, unet=pipe.unet,
                scheduler=pipe.scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    extra = {}
    if "init_image" in more:
        extra = {"image": Image.open(HERE / more["init_image"]).convert("RGB"), "strength": more["strength"]}
    if kind is StableDiffusionInpaintPipeline:
        # Without a mask everything is repainted: the mask is white, and what it leaves of the image is grey.
        image = extra.get("image") or Image.new("RGB", size, (128, 128, 128))
        white = Image.new("L", size, 255)
        extra = {"image": image, "mask_image": white, "strength": extra.get("strength", 1.0)}
    if kind is not StableDiffusionImg2ImgPipeline:
        extra |= {"width": size[0], "height": size[1]}
    image = pipe(prompt=PROMPT, negative_prompt=NEGATIVE, num_inference_steps=steps, guidance_scale=cfg,
                 generator=torch.Generator("cpu").manual_seed(seed), output_type="np", **extra).images[0]
    request = {"model": model, "sampler": sampler, "prompt": PROMPT, "negative_prompt": NEGATIVE, "seed": seed,
               "steps": steps, "cfg_scale": cfg, "width": size[0], "height": size[1]} | more
    pictures.append(request | {"file": save(image, f"{model}-{len(pictures)}")})


def load(path):
    return StableDiffusionPipeline.from_pretrained(path, torch_dtype=torch.float32, safety_checker=None)


if __name__ == "__main__":
    torch.set_num_threads(1)
    pictures = []
    tiny, text, image = taesd(), StableDiffusionPipeline, StableDiffusionImg2ImgPipeline

    pipe = load(MODELS / "sd1")
    pipe.vae = tiny
    init = "pictures/sd1-init.png"
    with Image.open(HERE / init) as picture:
        size = picture.size
    paint(pictures, pipe, text, "sd1", "pndm", (16, 24), 5, 4, 5.0, decoder="tiny")
    paint(pictures, pipe, image, "sd1", "pndm", size, 6, 7, 5.0, decoder="tiny", init_image=init, strength=0.6)

    unet = lively(UNet2DConditionModel(**SDXS), 12)
    pipe = load(MODELS / "sd1")
    pipe.register_modules(unet=unet, vae=tiny, scheduler=PNDMScheduler(
        **SD, skip_prk_steps=True, set_alpha_to_one=False, timestep_spacing="trailing"))
    folder("sdxs", pipe, "sd1", ["text_encoder"])
    shutil.rmtree(MODELS / "sdxs/vae")
    os.symlink("../taesd", MODELS / "sdxs/vae")
    pipe = load(MODELS / "sdxs")
    paint(pictures, pipe, text, "sdxs", "pndm", (32, 32), 7, 1, 1.0)

    pipe = load(MODELS / "sd2")
    pipe.register_modules(scheduler=EulerDiscreteScheduler(**SD, timestep_spacing="trailing"))
    folder("turbo", pipe, "sd2", ["text_encoder", "unet", "vae"])
    pipe = load(MODELS / "turbo")
    for steps in [1, 3]:
        paint(pictures, pipe, text, "turbo", "euler", (32, 32), 8, steps, 1.0)

    unet = lively(UNet2DConditionModel(**INPAINT, out_channels=4), 13)
    sd1 = load(MODELS / "sd1")
    pipe = StableDiffusionInpaintPipeline(
        vae=sd1.vae, text_encoder=sd1.text_encoder, tokenizer=sd1.tokenizer, unet=unet, scheduler=sd1.scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    folder("inpaint", pipe, "sd1", ["text_encoder", "vae"])
    paint(pictures, pipe, StableDiffusionInpaintPipeline, "inpaint", "pndm", (16, 24), 9, 4, 5.0)
    paint(pictures, pipe, StableDiffusionInpaintPipeline, "inpaint", "pndm", size, 9, 7, 5.0, init_image=init,
          strength=0.6)

    lines = ",\n".join(json.dumps(picture) for picture in pictures)
    pathlib.Path(HERE / "pictures-small.json").write_text(f"[\n{lines}\n]\n")
