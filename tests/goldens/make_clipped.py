"""Whole pictures of pipelines that leave `clip_sample` on, as those of latent consistency and SDXL do: adds to what the other
scripts made, and changes nothing of it.

Run as make_pipeline.py is, and after it and make_xl.py:
    OMP_NUM_THREADS=1 python tests/goldens/make_clipped.py
Writes models/lcm-clipped and models/sdxl-clipped (parts that they share with lcm and sdxl are links), pictures/clipped-* and
pictures-clipped.json.
"""
import json
import os
import shutil

import numpy
import torch
from diffusers import (
    DDIMScheduler, LatentConsistencyModelPipeline, LCMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline,
)
from PIL import Image

from make_pipeline import HERE, SD

MODELS = HERE / "models"
PROMPT, NEGATIVE = "a red car", "a tree"


def folder(name, pipe, shared):
    """A diffusers folder that has but its scheduler and its index for itself."""
    path = MODELS / name
    shutil.rmtree(path, ignore_errors=True)
    pipe.save_pretrained(path)
    index = json.loads((path / "model_index.json").read_text())
    index.pop("_name_or_path", None)  # where this machine has the model that the parts came from
    (path / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    for part in (MODELS / shared).iterdir():
        if part.is_dir() and part.name != "scheduler":
            shutil.rmtree(path / part.name)
            os.symlink(f"../{shared}/{part.name}", path / part.name)
    return path


def lcm():
    base = StableDiffusionPipeline.from_pretrained(MODELS / "lcm", torch_dtype=torch.float32, safety_checker=None)
    pipe = LatentConsistencyModelPipeline(
        vae=base.vae, text_encoder=base.text_encoder, tokenizer=base.tokenizer, unet=base.unet, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False, scheduler=LCMScheduler(**SD, clip_sample=True))
    path = folder("lcm-clipped", pipe, "lcm")
    return LatentConsistencyModelPipeline.from_pretrained(path, safety_checker=None), {}


def sdxl():
    base = StableDiffusionXLPipeline.from_pretrained(MODELS / "sdxl", torch_dtype=torch.float16, add_watermarker=False)
    base.register_modules(scheduler=DDIMScheduler(**SD, clip_sample_range=1.5))
    path = folder("sdxl-clipped", base, "sdxl")
    pipe = StableDiffusionXLPipeline.from_pretrained(path, torch_dtype=torch.float32, add_watermarker=False)
    return pipe, {"negative_prompt": NEGATIVE}


if __name__ == "__main__":
    torch.set_num_threads(1)
    pictures = []
    for model, sampler, (pipe, more) in [("lcm-clipped", "lcm", lcm()), ("sdxl-clipped", "ddim", sdxl())]:
        assert pipe.scheduler.config.clip_sample
        pipe.set_progress_bar_config(disable=True)
        for steps, seed in [(1, 5), (4, 6), (7, 7)]:
            image = pipe(prompt=PROMPT, width=16, height=24, num_inference_steps=steps, guidance_scale=4.0, output_type="np",
                         generator=torch.Generator("cpu").manual_seed(seed), **more).images[0]
            file = f"pictures/clipped-{model}-{steps}.png"
            Image.fromarray((image * 255).round().astype(numpy.uint8)).save(HERE / file, optimize=True)
            pictures.append({"model": model, "sampler": sampler, "prompt": PROMPT,
                             "negative_prompt": more.get("negative_prompt", ""), "seed": seed, "steps": steps,
                             "cfg_scale": 4.0, "width": 16, "height": 24, "file": file})
    lines = ",\n".join(json.dumps(picture) for picture in pictures)
    (HERE / "pictures-clipped.json").write_text(f"[\n{lines}\n]\n")
