"""What Pillow's `quantize` makes of pictures with displays' palettes, for tests/panels.rs: ours must be nearer.

    python tests/goldens/make_panels.py

Pillow diffuses in sRGB and knows no paper: it is given each picture as it looks between the palette's black and white,
which is the best that can be done for it.
"""

import tomllib
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PICTURES = {
    "house": ROOT / "daemon/assets/house.png",
    "meadow": HERE / "pictures/demo-ddim-37.png",
    "ramp": HERE / "panels/ramp.png",
}
PALETTES = ["acep-7", "black-white", "black-white-red", "black-white-yellow-red", "grey-4", "grey-16", "spectra-6"]


def light(srgb):
    value = np.asarray(srgb, float) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def srgb(light):
    light = np.clip(light, 0, 1)
    value = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.rint(value * 255).astype(np.uint8)


def main():
    (HERE / "panels").mkdir(exist_ok=True)
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 64, 0).repeat(3, 2)
    Image.fromarray(ramp).save(PICTURES["ramp"])
    table = tomllib.loads((ROOT / "daemon/assets/panels.toml").read_text())
    for palette in PALETTES:
        colours = np.array(table["palettes"][palette]["colours"], np.uint8)
        # Black and white are named first and second, or of greys first and last.
        black, white = light(colours[0]), light(colours[-1 if palette.startswith("grey") else 1])
        chart = Image.new("P", (1, 1))
        chart.putpalette(colours.ravel().tolist() + [0, 0, 0] * (256 - len(colours)))
        for name, path in PICTURES.items():
            seen = black + light(Image.open(path).convert("RGB")) * (white - black)
            made = Image.fromarray(srgb(seen)).quantize(palette=chart, dither=Image.Dither.FLOYDSTEINBERG)
            bits = {2: 1, 3: 2, 4: 2}.get(len(colours), 4)
            made.putpalette(colours.ravel().tolist())
            made.save(HERE / f"panels/{name}-{palette}.png", bits=bits, optimize=True)


main()
