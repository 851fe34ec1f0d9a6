"""Second passes at a larger size, as A1111's web interface makes them, written out with diffusers' pipelines: latents of
text to image, scaled by torch (or the image, by Pillow), then image to image over the last steps of a longer schedule.

Run as make_pipeline.py is, and after make_xl.py:
    OMP_NUM_THREADS=1 python tests/goldens/make_hires.py
"""
import json

import numpy
import torch
from PIL import Image
from torch.nn.functional import interpolate

import make_pipeline
import make_xl
from make_pipeline import DEMO, HERE, SAMPLERS, randn

# modules/shared_items.py and modules/processing.py of A1111's stable-diffusion-webui.
MODES = {
    "Latent": dict(mode="bilinear", antialias=False),
    "Latent (antialiased)": dict(mode="bilinear", antialias=True),
    "Latent (bicubic)": dict(mode="bicubic", antialias=False),
    "Latent (bicubic antialiased)": dict(mode="bicubic", antialias=True),
    "Latent (nearest)": dict(mode="nearest", antialias=False),
    "Latent (nearest-exact)": dict(mode="nearest-exact", antialias=False),
}
# Model, sampler, first size, steps, and the second pass.
CASES = [
    ("sd1", "ddim", (16, 16), 4, {"scale": 2.0}),
    ("sd1", "euler_ancestral", (16, 16), 4, {"scale": 1.5, "steps": 3, "denoising_strength": 0.7}),
    ("sd1", "pndm", (16, 24), 5, {"scale": 2.0, "steps": 6, "upscaler": "Latent (bicubic)"}),
    ("sd1", "dpmpp_2m_karras", (16, 24), 4, {"width": 32, "height": 32, "denoising_strength": 0.5,
                                             "upscaler": "Latent (nearest-exact)"}),
    # How Pillow scales is not what is compared here: random autoencoders would enlarge the least difference.
    ("sd1", "ddim", (16, 24), 4, {"scale": 1.0, "denoising_strength": 0.3, "upscaler": "Lanczos"}),
    ("sd2", "dpmpp_2m", (32, 32), 4, {"scale": 2.0, "denoising_strength": 1.0, "upscaler": "Latent (nearest)"}),
    ("lcm", "lcm", (16, 16), 4, {"scale": 2.0, "denoising_strength": 0.5, "upscaler": "Latent (antialiased)"}),
    ("sdxl", "euler", (16, 16), 4, {"scale": 2.0, "upscaler": "Latent (bicubic antialiased)"}),
    ("sdxl", "euler_ancestral", (16, 24), 3, {"scale": 1.0, "denoising_strength": 0.6, "upscaler": "Lanczos"}),
    ("demo", "dpmpp_2m", (128, 96), 8, {"scale": 1.5, "steps": 5, "denoising_strength": 0.6}),
    ("demo", "ddim", (64, 64), 6, {"width": 96, "height": 80, "denoising_strength": 0.5, "upscaler": "Lanczos"}),
]


def target(size, hires, factor):
    """The size that is painted, and the size that covers it in the image's shape (`calculate_target_resolution`)."""
    wide, high = hires.get("width", 0), hires.get("height", 0)
    if wide == 0 and high == 0:
        wide, high = (int(side * hires["scale"]) // factor * factor for side in size)
        return (wide, high), (wide, high)
    if high == 0:
        return (wide, wide * size[1] // size[0] // factor * factor), None
    if wide == 0:
        return (high * size[0] // size[1] // factor * factor, high), None
    if size[0] / size[1] < wide / high:
        return (wide, high), (wide, wide * size[1] // size[0])
    return (wide, high), (high * size[0] // size[1], high)


def middle(tensor, high, wide):
    top, left = (tensor.shape[-2] - high) // 2, (tensor.shape[-1] - wide) // 2
    return tensor[..., top:top + high, left:left + wide]


@torch.no_grad()
def paint(pipe, sampler, size, steps, hires, seed):
    kind, own = SAMPLERS[sampler]
    factor = pipe.vae_scale_factor
    wanted, covering = target(size, hires, factor)
    covering = covering or wanted
    upscaler = hires.get("upscaler", "Latent")
    strength, made = hires.get("denoising_strength", 0.75), hires.get("steps", 0) or steps
    common = dict(prompt="a red car", negative_prompt="a tree", guidance_scale=5.0)
    scheduler = lambda: kind.from_config(pipe.original, **own)
    pipe.set_progress_bar_config(disable=True)
    pipe.img2img.set_progress_bar_config(disable=True)
    pipe.scheduler = scheduler()
    pixels = upscaler == "Lanczos"
    first = pipe(width=size[0], height=size[1], num_inference_steps=steps, output_type="np" if pixels else "latent",
                 generator=torch.Generator().manual_seed(seed), **common).images
    if pixels:
        image = Image.fromarray((first[0] * 255).round().astype(numpy.uint8)).resize(covering, Image.LANCZOS)
        left, top = (covering[0] - wanted[0]) // 2, (covering[1] - wanted[1]) // 2
        larger = image.crop((left, top, left + wanted[0], top + wanted[1]))
    else:
        # The web interface scales to the covering size in latents.
        covering = [side // factor for side in wanted]
        w, h = size[0] // factor, size[1] // factor
        if w * covering[1] < covering[0] * h:
            covering[1] = max(covering[1], covering[0] * h // w)
        else:
            covering[0] = max(covering[0], covering[1] * w // h)
        larger = middle(interpolate(first, size=covering[::-1], **MODES[upscaler]), wanted[1] // factor, wanted[0] // factor)
    schedule = int(made / min(strength, 0.999))
    pipe.img2img.scheduler = scheduler()
    image = pipe.img2img(image=larger, num_inference_steps=schedule, strength=min(1.0, (made + 0.5) / schedule),
                         generator=torch.Generator().manual_seed(seed), output_type="np", **common).images[0]
    assert image.shape[:2] == wanted[::-1], (image.shape, wanted)
    return Image.fromarray((image * 255).round().astype(numpy.uint8))


def resized():
    """Latents of 1×2×5×3, scaled in every mode."""
    latents = randn(1, 1, 2, 5, 3)
    rows = lambda tensor: tensor[0].permute(1, 2, 0).flatten().tolist()
    cases = [{"upscaler": name, "height": high, "width": wide,
              "values": rows(interpolate(latents, size=(high, wide), **mode))}
             for name, mode in MODES.items() for high, wide in [(10, 6), (7, 8), (5, 4)]]
    return {"height": 5, "width": 3, "channels": 2, "values": rows(latents), "cases": cases}


if __name__ == "__main__":
    torch.set_num_threads(1)
    pictures, pipes = [], {}
    for i, (model, sampler, size, steps, hires) in enumerate(CASES):
        if model not in pipes:
            folder = DEMO if model == "demo" else HERE / "models" / model
            pipes[model] = make_xl.load(folder) if model == "sdxl" else make_pipeline.load(folder)
        file = f"pictures/hires-{model}-{sampler}-{i}.png"
        paint(pipes[model], sampler, size, steps, hires, 7 + i).save(HERE / file, optimize=True)
        pictures.append({"model": model, "sampler": sampler, "prompt": "a red car", "negative_prompt": "a tree",
                         "seed": 7 + i, "steps": steps, "cfg_scale": 5.0, "width": size[0], "height": size[1],
                         "hires": hires, "file": file})
    (HERE / "pictures-hires.json").write_text("[\n" + ",\n".join(json.dumps(p) for p in pictures) + "\n]\n")
    (HERE / "hires_latents.json").write_text(json.dumps(resized()) + "\n")
