"""Stages `vae` and `decoder`: pictures to latents and back; and the latents that the other stages learn from."""
import numpy
import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

from common import IMAGES, LATENTS, MODEL, Clock, optimize, pixels, running_mean

CONFIG = {
    "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [16, 32, 64, 64], "layers_per_block": 1, "latent_channels": 4, "norm_num_groups": 16,
    "sample_size": 128,
}
PATH = MODEL / "vae"
CROP = 64  # pixels
WHOLE_FROM = 0.85  # of the time: from then on, whole pictures
KL_WEIGHT = 3e-5


def vae(minutes, decoder_only=False):
    """Trains on crops, then on whole pictures. A model that is already there is trained on."""
    model = AutoencoderKL.from_pretrained(PATH) if PATH.is_dir() else AutoencoderKL(**CONFIG)
    if decoder_only:
        model.encoder.requires_grad_(False)
        model.quant_conv.requires_grad_(False)
    encode, decode = (torch.compile(part, dynamic=False) for part in (model.encoder, model.decoder))
    images = numpy.load(IMAGES)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0)
    clock, mean = Clock(minutes, 1e-3), None
    for step in clock.steps(optimizer):
        x = batch(images, whole=clock.done > WHOLE_FROM)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            with torch.set_grad_enabled(not decoder_only):
                posterior = DiagonalGaussianDistribution(model.quant_conv(encode(x)))
            y = decode(model.post_quant_conv(posterior.sample())).float()
        error = (y - x).abs().mean() + (y - x).pow(2).mean()
        kl = posterior.kl().float().mean() / (x.shape[2] * x.shape[3] / 16)
        loss = error + 0.5 * edge_error(x, y) + (0 if decoder_only else KL_WEIGHT * kl)
        optimize(optimizer, loss, trained)
        mean = running_mean(mean, error.item(), 0.98)
        if step % 200 == 0:
            clock.report(f"error {mean:.4f} kl {kl.item():.2f}")
        if step % 1000 == 0:
            model.save_pretrained(PATH)
    model.save_pretrained(PATH)


def batch(images, whole):
    """Four whole pictures, or sixteen crops of one place, a multiple of 8 from the corner."""
    if whole:
        return pixels(images, numpy.random.randint(0, len(images), 4))
    x = pixels(images, numpy.random.randint(0, len(images), 16))
    top, left = numpy.random.randint(0, 9, 2) * 8
    return x[:, :, top:top + CROP, left:left + CROP].contiguous()


def edge_error(x, y):
    """Differences of neighbouring pixels compared: what keeps outlines sharp."""
    return sum((y.diff(dim=axis) - x.diff(dim=axis)).abs().mean() for axis in (-1, -2))


def latents():
    """Means and deviations of all pictures' latents, [picture][2][4][16][16]; made once."""
    if not LATENTS.exists():
        torch.save(encode_all(AutoencoderKL.from_pretrained(PATH).eval()), LATENTS)
    return torch.load(LATENTS)


@torch.no_grad()
def encode_all(model):
    images, encoded = numpy.load(IMAGES), []
    for i in range(0, len(images), 32):
        distribution = model.encode(pixels(images, slice(i, i + 32))).latent_dist
        encoded.append(torch.stack([distribution.mean, distribution.std], 1))
    return torch.cat(encoded)


def set_scale(scale):
    """Writes the scaling factor down that gives latents the deviation 1."""
    model = AutoencoderKL.from_pretrained(PATH)
    model.register_to_config(scaling_factor=scale)
    model.save_pretrained(PATH)
