"""Upscalers of the kind SRVGGNetCompact: adds to what make_pipeline.py made, and changes nothing of it.

Run as make_pipeline.py is:
    OMP_NUM_THREADS=1 python tests/goldens/make_upscaler.py
Writes models/upscaler-x4.pth, models/upscaler-x2.safetensors and upscaler.safetensors: images of 8 bits and what becomes of
them, height first. The class is Real-ESRGAN's (realesrgan/archs/srvgg_arch.py), written out here from its description; its
sizes are smaller and its weights random.
"""
import pathlib

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

HERE = pathlib.Path(__file__).parent
MODELS = HERE / "models"


class SRVGGNetCompact(nn.Module):
    def __init__(self, features, between, scale):
        super().__init__()
        layers = [nn.Conv2d(3, features, 3, padding=1), nn.PReLU(features)]
        for _ in range(between):
            layers += [nn.Conv2d(features, features, 3, padding=1), nn.PReLU(features)]
        self.body = nn.ModuleList([*layers, nn.Conv2d(features, 3 * scale * scale, 3, padding=1)])
        self.scale = scale

    def forward(self, image):
        x = image
        for layer in self.body:
            x = layer(x)
        return nn.functional.pixel_shuffle(x, self.scale) + nn.functional.interpolate(image, scale_factor=self.scale)


def lively(model, seed):
    """Random weights under which each layer's results are about as large as the pixels, the last one's a fifth of that;
    slopes of either sign."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in model.body:
            if isinstance(layer, nn.PReLU):
                layer.weight.copy_(0.25 + 0.25 * torch.randn(layer.weight.shape, generator=draw))
                continue
            gain = 0.3 if layer is model.body[-1] else 1.3
            inputs = layer.weight[0].numel()
            layer.weight.copy_(gain / inputs**0.5 * torch.randn(layer.weight.shape, generator=draw))
            layer.bias.copy_(0.05 * torch.randn(layer.bias.shape, generator=draw))
    return model.eval()


def bytes_of(values):
    return (values.clamp(0, 1) * 255).round().to(torch.uint8)[0].permute(1, 2, 0).contiguous()


def main():
    torch.set_num_threads(1)
    house = Image.open(HERE / "../../daemon/assets/house.png").convert("RGB")
    x4, x2 = lively(SRVGGNetCompact(12, 3, 4), 21), lively(SRVGGNetCompact(8, 4, 2), 22)
    # Real-ESRGAN's files have the weights under a key, and of some trainings the moving average, which is taken.
    torch.save({"params": lively(SRVGGNetCompact(12, 3, 4), 20).state_dict(), "params_ema": x4.state_dict()},
               MODELS / "upscaler-x4.pth")
    save_file(x2.state_dict(), MODELS / "upscaler-x2.safetensors")
    out = {}
    with torch.no_grad():
        for columns, rows in [(8, 8), (21, 13), (16, 40)]:
            left, top = 3 * columns % 64, 2 * rows % 64
            image = house.resize((128, 128)).crop((left, top, left + columns, top + rows))
            pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).reshape(rows, columns, 3)
            name = f"{rows}x{columns}"
            out[f"{name}.in"] = pixels
            values = pixels.permute(2, 0, 1)[None].float() / 255
            large = x4(values).clamp(0, 1)
            out[f"{name}.x4"] = bytes_of(large)
            out[f"{name}.x4-2"] = bytes_of(nn.functional.avg_pool2d(large, 2))
            out[f"{name}.x2"] = bytes_of(x2(values))
    save_file(out, HERE / "upscaler.safetensors")


if __name__ == "__main__":
    main()
