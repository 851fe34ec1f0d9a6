"""Stage `unet`: the noise predictor, and the text encoder with it."""
import time

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from transformers import CLIPTextModel

import text_encoder
from autoencoder import latents, set_scale
from common import MODEL, SCHEDULE, Clock, captions, optimize, running_mean, token_ids, tokenizer

PATH = MODEL / "unet"
CONFIG = {
    "sample_size": 16, "layers_per_block": 1, "block_out_channels": (64, 128, 160),
    "cross_attention_dim": text_encoder.CHANNELS, "attention_head_dim": 4, "norm_num_groups": 32,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
}
EMPTY_CAPTIONS = 0.12  # of a batch: what guidance needs
SAVE_EVERY = 300  # seconds


class Average:
    """A moving average of parameters: what is saved instead of the last step's."""

    def __init__(self, parameters):
        self.parameters = parameters
        self.values = [p.detach().clone() for p in parameters]

    def update(self, step):
        keep = min(0.999, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.values, [p.detach() for p in self.parameters], 1 - keep)

    def __enter__(self):
        self.kept = [p.detach().clone() for p in self.parameters]
        self.set(self.values)

    def __exit__(self, *_):
        self.set(self.kept)

    def set(self, values):
        for parameter, value in zip(self.parameters, values):
            parameter.data.copy_(value)


def unet(minutes, batch=32, peak=1e-3):
    """Trains on cached latents. A model that is already there is trained on."""
    encoded = latents()
    scale = float(1 / encoded[:, 0].std())
    set_scale(scale)
    tokenize = tokenizer()
    ids, empty = token_ids(tokenize, captions()), token_ids(tokenize, [""])[0]
    words = CLIPTextModel.from_pretrained(text_encoder.PATH)
    net = UNet2DConditionModel.from_pretrained(PATH) if PATH.is_dir() else UNet2DConditionModel(**CONFIG)
    # The fused attention's backward pass is several times slower on a CPU at these sizes.
    net.set_attn_processor(AttnProcessor())
    words.set_attn_implementation("eager")
    schedule = DDPMScheduler(**SCHEDULE)
    trained = [*net.parameters(), *words.parameters()]
    average = Average(trained)
    optimizer = torch.optim.AdamW(trained, lr=peak, betas=(0.9, 0.99), weight_decay=0.01)
    clock, mean, saved = Clock(minutes, peak, floor=0.02), None, time.time()
    for step in clock.steps(optimizer):
        rows = torch.randint(0, len(encoded), (batch,))
        z = (encoded[rows, 0] + encoded[rows, 1] * torch.randn_like(encoded[rows, 0])) * scale
        tokens = ids[rows].clone()
        tokens[torch.rand(batch) < EMPTY_CAPTIONS] = empty
        noise, t = torch.randn_like(z), torch.randint(0, 1000, (batch,))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            guess = net(schedule.add_noise(z, noise, t), t, words(tokens).last_hidden_state).sample
        loss = weighted(guess.float(), noise, schedule.alphas_cumprod[t])
        optimize(optimizer, loss, trained)
        average.update(step)
        mean = running_mean(mean, loss.item(), 0.99)
        if step % 100 == 0:
            clock.report(f"loss {mean:.4f}")
        if time.time() - saved > SAVE_EVERY:
            save(net, words, average)
            saved = time.time()
    save(net, words, average)


def weighted(guess, noise, alphas):
    """Min-SNR weighting (Hang et al. 2023) with a floor at high noise.

    Where the picture is all noise its layout is decided, and words like "left" are learned there alone.
    """
    snr = alphas / (1 - alphas)
    return ((guess - noise).pow(2).mean((1, 2, 3)) * snr.clamp(0.3, 5) / snr).mean()


def save(net, words, average):
    with average:
        net.save_pretrained(PATH)
        words.save_pretrained(text_encoder.PATH)
