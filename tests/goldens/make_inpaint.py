"""Inpainting with masks by diffusers' inpainting pipelines, and A1111's arithmetic on masks: adds to what the other scripts
made, and changes nothing of it.

Run as make_pipeline.py is, and after it, make_small.py and make_xl.py:
    OMP_NUM_THREADS=1 python tests/goldens/make_inpaint.py
Writes models/sdxl-inpaint (a UNet of nine channels; its other parts are links to those of sdxl), inpaint/ with
pictures-inpaint.json (whole pictures and their requests), and inpaint/fill-*.png, blur-*.png, overlay-*.png (arithmetic on
masks).
"""
import json
import math
import os
import shutil

import numpy
import torch
from diffusers import (
    EulerDiscreteScheduler, StableDiffusionInpaintPipeline, StableDiffusionPipeline, StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline, UNet2DConditionModel,
)
from diffusers.image_processor import VaeImageProcessor
from PIL import Image, ImageFilter, ImageOps

from make_pipeline import HERE, SAMPLERS, SD, lively

MODELS, OUT = HERE / "models", HERE / "inpaint"
XL = ["sdxl", "sdxl-inpaint"]
PROMPT, NEGATIVE = "a red car", "a tree"
# Two levels and one layer each, smaller than the model sdxl; the conditions are as large as its text encoders make them.
SDXL_INPAINT = dict(
    block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4, sample_size=8, cross_attention_dim=24,
    use_linear_projection=True, attention_head_dim=(1, 2), transformer_layers_per_block=(1, 1), in_channels=9,
    addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=12 + 6 * 8,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"))


def sdxl_inpaint():
    pipe = StableDiffusionXLPipeline.from_pretrained(MODELS / "sdxl", add_watermarker=False)
    parts = {name: part for name, part in pipe.components.items() if name not in ["image_encoder", "feature_extractor"]}
    parts |= {"unet": lively(UNet2DConditionModel(**SDXL_INPAINT, out_channels=4), 21).half(),
              "scheduler": EulerDiscreteScheduler(**SD, timestep_spacing="leading")}
    path = MODELS / "sdxl-inpaint"
    shutil.rmtree(path, ignore_errors=True)
    StableDiffusionXLInpaintPipeline(**parts, add_watermarker=False).save_pretrained(path)
    index = json.loads((path / "model_index.json").read_text())
    index.pop("_name_or_path", None)
    (path / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    for part in ["tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2", "vae"]:
        shutil.rmtree(path / part)
        os.symlink(f"../sdxl/{part}", path / part)


def load(model):
    if model in XL:
        kind, base, extra = StableDiffusionXLInpaintPipeline, StableDiffusionXLPipeline, dict(add_watermarker=False)
    else:
        kind, base = StableDiffusionInpaintPipeline, StableDiffusionPipeline
        extra = dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    parts = base.from_pretrained(MODELS / model, torch_dtype=torch.float32)
    original = parts.scheduler.config
    own = {name: part for name, part in parts.components.items()
           if name not in ["image_encoder", "feature_extractor", "safety_checker"]}
    if model in XL:
        extra["force_zeros_for_empty_prompt"] = parts.config.force_zeros_for_empty_prompt
    pipe = kind(**own, **extra)
    pipe.original = original
    pipe.set_progress_bar_config(disable=True)
    return pipe


def masks(width, height):
    """Values on both sides of the threshold, and those that nearest neighbours of the latents leave out."""
    x, y = numpy.meshgrid(numpy.arange(width), numpy.arange(height))
    radius = numpy.hypot(x - width * 0.55, y - height * 0.45)
    shapes = {
        "disc": numpy.clip((0.38 * width - radius) * 60 + 128, 0, 255),
        "white": numpy.full_like(x, 255),
        "black": numpy.zeros_like(x),
        "pixel": 255 * ((x == 8) & (y == 6)),
        "grey": numpy.where(x < width // 2, 127, 128),
    }
    found = {}
    for name, values in shapes.items():
        found[name] = f"inpaint/mask-{name}-{width}x{height}.png"
        Image.fromarray(values.astype(numpy.uint8)).save(HERE / found[name], optimize=True)
    return found


def paint(pictures, pipe, model, sampler, init, mask, strength, seed, size=None, padding=None, name=None):
    kind, own = SAMPLERS[sampler]
    pipe.scheduler = kind.from_config(pipe.original, **own)
    image, shape = Image.open(HERE / init).convert("RGB"), Image.open(HERE / mask).convert("L")
    width, height = size or image.size
    crop = {} if padding is None else {"padding_mask_crop": padding}
    picture = pipe(prompt=PROMPT, negative_prompt=NEGATIVE, image=image, mask_image=shape, strength=strength,
                   width=width, height=height, num_inference_steps=5, guidance_scale=4.0, output_type="pil",
                   generator=torch.Generator("cpu").manual_seed(seed), **crop).images[0]
    file = f"inpaint/{name or model}-{len(pictures)}.png"
    picture.save(HERE / file, optimize=True)
    request = {"model": model, "sampler": sampler, "prompt": PROMPT, "negative_prompt": NEGATIVE, "seed": seed, "steps": 5,
               "cfg_scale": 4.0, "width": width, "height": height, "init_image": init, "strength": strength, "mask": mask,
               "file": file}
    pictures.append(request | ({} if padding is None else {"padding": padding}))


def noisy(width, height, seed):
    """Something with edges: smooth colours and blocks."""
    draw = numpy.random.default_rng(seed)
    x, y = numpy.meshgrid(numpy.linspace(0, 1, width), numpy.linspace(0, 1, height))
    values = numpy.stack([x, y, 1 - x * y], axis=-1) * 200
    values[:: 4, :: 3] += draw.integers(0, 55, values[:: 4, :: 3].shape)
    return Image.fromarray(values.round().astype(numpy.uint8))


def fill(image, mask):
    """The web interface's `masking.fill`: colours from around the mask, by blurs of falling radius."""
    filled = Image.new("RGBA", image.size)
    kept = Image.new("RGBa", image.size)
    kept.paste(image.convert("RGBA").convert("RGBa"), mask=ImageOps.invert(mask))
    for radius, repeats in [(256, 1), (64, 1), (16, 2), (4, 4), (2, 2), (0, 1)]:
        blurred = kept.filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
        for _ in range(repeats):
            filled.alpha_composite(blurred)
    return filled.convert("RGB")


def blur(mask, sigma_x, sigma_y):
    """The web interface's blur: OpenCV's Gaussian of 2·⌊2.5·σ + 0.5⌋ + 1 values, mirrored at the borders, x before y."""
    values = numpy.asarray(mask).astype(numpy.float64)
    for axis, sigma in [(1, sigma_x), (0, sigma_y)]:
        if sigma == 0:
            continue
        half = int(2.5 * sigma + 0.5)
        kernel = numpy.exp(-numpy.arange(-half, half + 1) ** 2 / (2 * sigma ** 2))
        kernel /= kernel.sum()
        padded = numpy.pad(values, [(half, half) if a == axis else (0, 0) for a in [0, 1]], mode="reflect")
        sums = sum(k * numpy.take(padded, range(i, i + values.shape[axis]), axis) for i, k in enumerate(kernel))
        values = numpy.floor(sums + 0.5)
    return Image.fromarray(values.astype(numpy.uint8))


def arithmetic():
    for width, height in [(40, 24), (7, 33)]:
        size = f"{width}x{height}"
        image, other = noisy(width, height, 1), ImageOps.invert(noisy(width, height, 2))
        y, x = numpy.indices((height, width))
        soft = Image.fromarray(numpy.clip(260 - 14 * numpy.hypot(x - width / 2, y - height / 2), 0, 255).astype(numpy.uint8))
        for name, picture in [("image", image), ("other", other), ("mask", soft)]:
            picture.save(OUT / f"{name}-{size}.png", optimize=True)
        fill(image, soft).save(OUT / f"fill-{size}.png", optimize=True)
        for sigmas in [(4, 4), (0.7, 0), (0, 9.5)]:
            blur(soft, *sigmas).save(OUT / f"blur-{sigmas[0]}-{sigmas[1]}-{size}.png", optimize=True)
        VaeImageProcessor().apply_overlay(soft, image, other).save(OUT / f"overlay-{size}.png", optimize=True)


def regions():
    """Boxes of masks, and the parts of the image that are painted for them."""
    found, draw = [], numpy.random.default_rng(5)
    for _ in range(60):
        width, height, padding = (int(n) for n in [*draw.integers(1, 60, 2), draw.integers(0, 12)])
        left, top = int(draw.integers(0, width)), int(draw.integers(0, height))
        right, bottom = int(draw.integers(left, width)) + 1, int(draw.integers(top, height)) + 1
        mask = numpy.zeros((height, width), dtype=numpy.uint8)
        mask[top:bottom, left:right] = 255
        target = [int(n) for n in draw.integers(1, 40, 2)]
        region = VaeImageProcessor.get_crop_region(Image.fromarray(mask), *target, pad=padding)
        found.append({"size": [width, height], "box": [left, top, right, bottom], "padding": padding, "target": target,
                      "region": [int(n) for n in region]})
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    sdxl_inpaint()
    pictures = []
    for model, init, samplers in [
        ("sd1", "pictures/sd1-init.png", list(SAMPLERS)),
        ("inpaint", "pictures/sd1-init.png", ["pndm", "euler_ancestral", "dpmpp_2m"]),
        ("sdxl", "pictures/sdxl-euler-9.png", ["euler", "euler_ancestral", "dpmpp_2m_karras"]),
        ("sdxl-inpaint", "pictures/sdxl-euler-9.png", ["euler", "euler_ancestral", "dpmpp_2m"]),
    ]:
        pipe = load(model)
        with Image.open(HERE / init) as picture:
            shapes = masks(*picture.size)
        for sampler in samplers:
            for strength in [1.0, 0.6]:
                paint(pictures, pipe, model, sampler, init, shapes["disc"], strength, 5)
        for shape in ["white", "black", "pixel", "grey"]:
            paint(pictures, pipe, model, samplers[1], init, shapes[shape], 0.6, 6)
    # The mask's part alone, in the size of the box; then scaled.
    noisy(48, 40, 3).save(OUT / "large.png", optimize=True)
    y, x = numpy.indices((40, 48))
    box = numpy.clip(255 - 50 * numpy.abs(numpy.maximum(numpy.abs(x - 24.5), numpy.abs(y - 18.5)) - 3), 0, 255)
    Image.fromarray(box.astype(numpy.uint8)).save(OUT / "large-mask.png", optimize=True)
    for model, sampler in [("sd1", "euler_ancestral"), ("inpaint", "pndm")]:
        pipe = load(model)
        for padding, size in [(0, (16, 16)), (8, (16, 16))]:
            paint(pictures, pipe, model, sampler, "inpaint/large.png", "inpaint/large-mask.png", 0.6, 7, size, padding)
    arithmetic()
    lines = ",\n".join(json.dumps(picture) for picture in pictures)
    (HERE / "pictures-inpaint.json").write_text(f"[\n{lines}\n]\n")
    lines = ",\n".join(json.dumps(region) for region in regions())
    (OUT / "regions.json").write_text(f"[\n{lines}\n]\n")
