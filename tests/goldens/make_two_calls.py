"""Inpainting and second passes by samplers that call the UNet twice a step: adds to what the other scripts made, and changes
nothing of it.

Run with torchsde installed, as make_pipeline.py is, and after it, make_inpaint.py and make_hires.py:
    OMP_NUM_THREADS=1 python tests/goldens/make_two_calls.py
Writes inpaint/two-calls-*.png with pictures-inpaint-two-calls.json, and pictures/hires-two-calls-*.png with
pictures-hires-two-calls.json.
"""
import json

import torch

import make_hires
import make_inpaint
import make_pipeline
from make_pipeline import HERE
from make_sampler_options import CLASSES, nearest_f32

MODEL, SEED = "sd1", 5
INIT = f"pictures/{MODEL}-init.png"
MASK = "inpaint/mask-disc-16x16.png"
SAMPLERS = ["heun", "dpm2", "dpm2_ancestral", "dpmpp_sde"]


def lines(name, pictures):
    text = ",\n".join(json.dumps(picture) for picture in pictures)
    (HERE / name).write_text(f"[\n{text}\n]\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    classes = {name: CLASSES[name] for name in SAMPLERS}
    # The motion's seed is the picture's.
    classes["dpmpp_sde"] = (classes["dpmpp_sde"][0], {"noise_sampler_seed": SEED})
    make_inpaint.SAMPLERS.update(classes)
    pipe, masked = make_inpaint.load(MODEL), []
    with nearest_f32():
        for sampler in SAMPLERS:
            for strength in [1.0, 0.6]:
                make_inpaint.paint(masked, pipe, MODEL, sampler, INIT, MASK, strength, SEED, name="two-calls")
    lines("pictures-inpaint-two-calls.json", masked)

    make_hires.SAMPLERS.update(classes)
    pipe, passes = make_pipeline.load(HERE / "models" / MODEL), []
    for sampler in SAMPLERS:
        hires = {"scale": 2.0, "denoising_strength": 0.7, "steps": 3}
        file = f"pictures/hires-two-calls-{sampler}.png"
        with nearest_f32():
            make_hires.paint(pipe, sampler, (16, 16), 4, hires, SEED).save(HERE / file, optimize=True)
        passes.append({"model": MODEL, "sampler": sampler, "prompt": "a red car", "negative_prompt": "a tree", "seed": SEED,
                       "steps": 4, "cfg_scale": 5.0, "width": 16, "height": 16, "hires": hires, "file": file})
    lines("pictures-hires-two-calls.json", passes)
