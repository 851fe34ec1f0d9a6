"""Whole pictures of the tiny model by the samplers, noise schedules and etas that make_pipeline.py does not have.

Run with torch, diffusers, transformers, scipy and torchsde installed, from the repository's root:
    OMP_NUM_THREADS=1 python tests/goldens/make_sampler_pictures.py
Writes pictures-samplers.json and its pictures beside those of make_pipeline.py.
"""
import json

import numpy
import torch
from PIL import Image

from make_pipeline import HERE, load
from make_sampler_options import CLASSES, CURVES

MODEL = "sd1"
INIT = f"pictures/{MODEL}-init.png"
SIDE = 16


def paint(pipe, sampler, pictures, init, scheduler=None, eta=None, seed=7):
    kind, own = CLASSES[sampler]
    if sampler == "dpmpp_sde":
        own = own | {"noise_sampler_seed": seed}
    if scheduler:
        own = own | {CURVES[scheduler]: True, "timestep_spacing": "linspace"}
    pipe.scheduler = pipe.img2img.scheduler = kind.from_config(pipe.original, **own)
    steps = 6
    request = {"model": MODEL, "sampler": sampler, "prompt": "a red car", "negative_prompt": "a tree", "seed": seed,
               "steps": steps, "cfg_scale": 5.0, "width": SIDE, "height": SIDE}
    request |= {key: value for key, value in [("scheduler", scheduler), ("eta", eta)] if value is not None}
    # TCD's own default, where the pipeline has 0.
    eta = 0.3 if eta is None and sampler == "tcd" else eta or 0.0
    common = dict(prompt="a red car", negative_prompt="a tree", num_inference_steps=steps, guidance_scale=5.0, eta=eta,
                  generator=torch.Generator("cpu").manual_seed(seed), output_type="np")
    if init:
        request |= {"init_image": INIT, "strength": 0.6}
        image = pipe.img2img(image=Image.open(HERE / INIT).convert("RGB"), strength=0.6, **common).images[0]
    else:
        image = pipe(width=SIDE, height=SIDE, **common).images[0]
    name = "-".join([MODEL, "of", sampler, *([scheduler] if scheduler else []), "image" if init else "noise"])
    file = f"pictures/{name}{'-eta' if request.get('eta') else ''}.png"
    Image.fromarray((image * 255).round().astype(numpy.uint8)).save(HERE / file, optimize=True)
    pictures.append(request | {"file": file})


if __name__ == "__main__":
    torch.set_num_threads(1)
    pipe = load(HERE / "models" / MODEL)
    pipe.set_progress_bar_config(disable=True)
    pipe.img2img.set_progress_bar_config(disable=True)
    pictures = []
    for sampler in CLASSES:
        if sampler not in ["ddim", "pndm", "euler", "euler_ancestral", "dpmpp_2m", "lcm"]:
            paint(pipe, sampler, pictures, init=False)
            paint(pipe, sampler, pictures, init=True)
    for sampler, scheduler in [("euler", "karras"), ("heun", "beta"),
                               ("unipc", "karras"), ("dpmpp_2m_sde", "karras")]:
        paint(pipe, sampler, pictures, init=False, scheduler=scheduler)
    paint(pipe, "ddim", pictures, init=False, eta=0.7)
    paint(pipe, "tcd", pictures, init=True, eta=1.0)
    (HERE / "pictures-samplers.json").write_text("[\n" + ",\n".join(json.dumps(p) for p in pictures) + "\n]\n")
