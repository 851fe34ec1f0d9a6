"""Tiny models of the Stable Diffusion XL kind, and what diffusers computes with them: adds to what make_pipeline.py made.

Run as make_pipeline.py is, and after it and make_odd_sizes.py:
    OMP_NUM_THREADS=1 python tests/goldens/make_xl.py
"""
import json
import shutil

import torch
from diffusers import (
    AutoencoderKL, EulerAncestralDiscreteScheduler, EulerDiscreteScheduler, StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline, UNet2DConditionModel,
)
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from make_pipeline import DEMO, HERE, SAMPLERS, SD, TEXT, lively, paint, randn

LEVELS = dict(block_out_channels=(8, 8, 16), layers_per_block=1, norm_num_groups=4, sample_size=8, cross_attention_dim=24,
              use_linear_projection=True, attention_head_dim=(1, 2, 4), addition_embed_type="text_time",
              addition_time_embed_dim=8, projection_class_embeddings_input_dim=12 + 6 * 8,
              down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
              up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"))
MODELS = {
    # The layout of SDXL: no attention outermost, depths that grow, zeros instead of an empty negative prompt. The
    # autoencoder's activations exceed what half precision holds, as those of SDXL's own do.
    "sdxl": dict(
        unet=dict(LEVELS, transformer_layers_per_block=(1, 1, 2)),
        scheduler=EulerDiscreteScheduler(**SD, timestep_spacing="leading"),
        zeros=True,
        large=True,
    ),
    # SSD-1B: depths of each layer, a middle block of one residual block. The scheduler is SDXL-Turbo's.
    "ssd-1b": dict(
        unet=dict(LEVELS, layers_per_block=2, transformer_layers_per_block=[1, [1, 1], [2, 1]],
                  reverse_transformer_layers_per_block=[[1, 1, 2], [2, 1, 1], 1], mid_block_type="UNetMidBlock2D"),
        scheduler=EulerAncestralDiscreteScheduler(**SD, timestep_spacing="trailing"),
        zeros=False,
        large=False,
    ),
}


def make(name, spec):
    text = dict(TEXT, num_hidden_layers=3, hidden_act="quick_gelu")
    first = CLIPTextModel(CLIPTextConfig(**text, hidden_size=8, intermediate_size=16, num_attention_heads=2))
    # SDXL's end token is 2 in its configuration, by which transformers knows to look for the largest id.
    text |= dict(hidden_act="gelu", pad_token_id=1, eos_token_id=2 if name == "sdxl" else 652)
    second = CLIPTextModelWithProjection(CLIPTextConfig(**text, hidden_size=16, intermediate_size=32,
                                                        num_attention_heads=4, projection_dim=12))
    unet = UNet2DConditionModel(in_channels=4, out_channels=4, **spec["unet"])
    vae = AutoencoderKL(block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4, latent_channels=4,
                        scaling_factor=0.13025, force_upcast=True, down_block_types=("DownEncoderBlock2D",) * 2,
                        up_block_types=("UpDecoderBlock2D",) * 2)
    parts = [lively(part, seed) for seed, part in enumerate([first, second, unet, vae], 1)]
    if spec["large"]:
        with torch.no_grad():
            for block in [vae.decoder.up_blocks[1], vae.encoder.down_blocks[0]]:
                block.resnets[0].conv2.weight *= 1e5
    folder = HERE / "models" / name
    shutil.rmtree(folder, ignore_errors=True)
    tokenizers = [CLIPTokenizer.from_pretrained(DEMO / "tokenizer") for _ in range(2)]
    tokenizers[1].pad_token = "!"
    pipe = StableDiffusionXLPipeline(vae=vae, text_encoder=first, text_encoder_2=second, tokenizer=tokenizers[0],
                                     tokenizer_2=tokenizers[1], unet=unet, scheduler=spec["scheduler"],
                                     force_zeros_for_empty_prompt=spec["zeros"])
    for part in parts:
        part.half()
    pipe.save_pretrained(folder)
    for tokenizer in ["tokenizer", "tokenizer_2"]:
        for file in ["vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"]:
            text = (DEMO / "tokenizer" / file).read_text()
            if tokenizer == "tokenizer_2":
                text = text.replace('"pad_token": "<|endoftext|>"', '"pad_token": "!"')
            (folder / tokenizer / file).write_text(text)
        (folder / tokenizer / "tokenizer.json").unlink(missing_ok=True)
    return folder


def load(folder):
    pipe = StableDiffusionXLPipeline.from_pretrained(folder, torch_dtype=torch.float32, add_watermarker=False)
    pipe.original = pipe.scheduler.config
    parts = {name: part for name, part in pipe.components.items() if name not in ["image_encoder", "feature_extractor"]}
    pipe.img2img = StableDiffusionXLImg2ImgPipeline(**parts, add_watermarker=False,
                                                    force_zeros_for_empty_prompt=pipe.config.force_zeros_for_empty_prompt)
    return pipe


@torch.no_grad()
def tensors(name, pipe):
    """Inputs and outputs of each network, as make_pipeline.py has them; of two prompts, the second of which is empty."""
    prompts = ["a large red house at night! A moon", ""]
    ids = [tokenizer(prompts, padding="max_length", max_length=77, return_tensors="pt").input_ids
           for tokenizer in [pipe.tokenizer, pipe.tokenizer_2]]
    text, _, pooled, _ = pipe.encode_prompt(prompts, do_classifier_free_guidance=False)
    out = {"text.ids": ids[0].float(), "text.ids_2": ids[1].float(), "text.out": text, "text.pooled": pooled}
    factor = pipe.vae_scale_factor
    for shape in [(8, 8), (8, 12), (9, 7)]:
        for timestep in [1, 500, 999]:
            x = randn(timestep, 1, 4, *shape)
            sizes = [shape[0] * factor, shape[1] * factor]
            ids = torch.tensor([[*sizes, 0, 0, *sizes]], dtype=torch.float32)
            key = f"unet.{timestep}.{shape[0]}x{shape[1]}"
            added = {"text_embeds": pooled[:1], "time_ids": ids}
            out |= {key + ".in": x, key + ".out": pipe.unet(x, timestep, text[:1], added_cond_kwargs=added)[0]}
    for shape in [(6, 6), (4, 7)]:
        z = randn(5, 1, 4, *shape)
        picture = pipe.vae.decode(z)[0]
        out |= {f"decode.{shape[0]}x{shape[1]}.in": z, f"decode.{shape[0]}x{shape[1]}.out": picture}
        out[f"encode.{shape[0]}x{shape[1]}.in"] = picture.clamp(-1, 1)
        out[f"encode.{shape[0]}x{shape[1]}.out"] = pipe.vae.encode(picture.clamp(-1, 1)).latent_dist.parameters
    save_file({key: value.contiguous() for key, value in out.items()}, HERE / f"{name}.safetensors")


def whole_pictures(name, pipe, pictures):
    for sampler in SAMPLERS:
        paint(name, pipe, sampler, "a red car", 7, 4, 5.0, (16, 16), None, pictures)
    paint(name, pipe, "euler", "a small blue fish! On the sea", 8, 4, 5.0, (16, 24), None, pictures, negative=None)
    init = pictures[-1]["file"]
    # Without guidance, in one step.
    paint(name, pipe, "euler_ancestral", "a small blue fish on the sea", 9, 1, 1.0, (16, 16), None, pictures)
    for sampler in ["euler", "euler_ancestral", "dpmpp_2m_karras"]:
        paint(name, pipe, sampler, "a yellow star on a beach", 3, 7, 5.0, (16, 24), init, pictures)


if __name__ == "__main__":
    path = HERE / "pictures.json"
    known = [picture for picture in json.loads(path.read_text()) if picture["model"] not in MODELS]
    for name, spec in MODELS.items():
        for file in (HERE / "pictures").glob(f"{name}-*"):
            file.unlink()
        pipe = load(make(name, spec))
        tensors(name, pipe)
        pictures = []
        whole_pictures(name, pipe, pictures)
        known += pictures
    path.write_text("[\n" + ",\n".join(json.dumps(p) for p in known) + "\n]\n")
