"""Stages `show` and `finish`: what the model paints by diffusers, and the folder in f16 that model-prep takes."""
import json
import shutil

import numpy
import torch
import transformers
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextModel

from common import MODEL, MODEL_F16, SAMPLING, tokenizer

PARTS = {"vae": AutoencoderKL, "unet": UNet2DConditionModel, "text_encoder": CLIPTextModel}
PROMPTS = [
    "a large red house at night with a moon",
    "a small yellow car on a beach with clouds",
    "a blue fish on the sea",
    "an orange cat in the snow",
    "a green tree on the left, on a meadow with a rainbow",
    "a pink heart on a white background",
    "a white boat on the sea with a sun",
    "a purple flower on the right in the desert",
    "a black star on a yellow background",
    "a large brown square on a pink background",
    "a small red triangle on the left on a blue background",
    "a picture of a blue house at sunset with a sun",
    "an orange boat at night",
    "a yellow circle on the right on a black background",
    "a large green car at sunset",
    "a red flower on a meadow with a sun",
]


def show():
    """Paints PROMPTS, eight in a row: show.png."""
    transformers.logging.set_verbosity_error()
    parts = {name: kind.from_pretrained(MODEL / name) for name, kind in PARTS.items()}
    pipe = StableDiffusionPipeline(**parts, tokenizer=tokenizer(), scheduler=DDIMScheduler(**SAMPLING),
                                   safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    painted = pipe(PROMPTS, num_inference_steps=20, guidance_scale=5.0, height=128, width=128, output_type="np",
                   generator=torch.Generator().manual_seed(1)).images
    rows = [numpy.concatenate(painted[i:i + 8], 1) for i in range(0, len(PROMPTS), 8)]
    Image.fromarray((numpy.concatenate(rows) * 255).round().astype(numpy.uint8)).save("show.png")


def finish():
    """Writes the diffusers folder in f16."""
    DDIMScheduler(**SAMPLING).save_pretrained(MODEL / "scheduler")
    for name, kind in PARTS.items():
        kind.from_pretrained(MODEL / name).half().save_pretrained(MODEL_F16 / name)
    for name in ("tokenizer", "scheduler"):
        shutil.copytree(MODEL / name, MODEL_F16 / name, dirs_exist_ok=True)
    index = {
        "_class_name": "StableDiffusionPipeline",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (MODEL_F16 / "model_index.json").write_text(json.dumps(index, indent=2))
