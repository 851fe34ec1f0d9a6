"""What Pillow's Lanczos filter makes of an image, in colours and in grey.

    python tests/goldens/make_resized.py

Writes resized/: noise.png, and it in other sizes.
"""
import pathlib
import shutil

import numpy
from PIL import Image

HERE = pathlib.Path(__file__).parent / "resized"
SIZES = [(16, 16), (64, 50), (37, 60), (11, 29), (90, 3), (1, 1), (36, 30)]

if __name__ == "__main__":
    shutil.rmtree(HERE, ignore_errors=True)
    HERE.mkdir()
    values = numpy.random.default_rng(3).integers(0, 256, (29, 37, 3), dtype=numpy.uint8)
    # Black and white too, where the filter's negative weights are cut off.
    values[:, 20:] = values[:, 20:] // 128 * 255
    noise = Image.fromarray(values)
    noise.save(HERE / "noise.png", optimize=True)
    for width, height in SIZES:
        for mode in ["RGB", "L"]:
            image = Image.fromarray(values[:, :, 0]) if mode == "L" else noise
            image.resize((width, height), Image.LANCZOS).save(HERE / f"{mode}-{width}x{height}.png", optimize=True)
