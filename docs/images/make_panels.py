"""Draws panels.png beside this file: one picture of the demo model on displays of each kind, as they look.

    cargo build --release && python docs/images/make_panels.py
"""

import json
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
PROGRAM = HERE.parent.parent / "target/release/diffused"
KINDS = [
    ["rgb565", "acep-7", "spectra-6", "black-white-yellow-red"],
    ["black-white-red", "grey-16", "grey-4", "black-white"],
]
PICTURE = ["a large yellow house on a meadow with a rainbow", "--seed", "2", "--steps", "25", "--width", "168"]
PICTURE += ["--height", "128"]
WIDTH, HEIGHT, GAP = 232, 176, 8


def shown(palette, folder):
    output = {"palette": palette, "width": WIDTH, "height": HEIGHT}
    command = [PROGRAM, "generate", *PICTURE, "--panel", json.dumps(output), "-o", folder / "picture.png"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return Image.open(folder / "picture-panel.png").convert("RGB")


columns, rows = len(KINDS[0]), len(KINDS)
sheet = Image.new("RGB", (columns * (WIDTH + GAP) - GAP, rows * (HEIGHT + GAP) - GAP), "white")
with tempfile.TemporaryDirectory() as folder:
    for y, row in enumerate(KINDS):
        for x, palette in enumerate(row):
            sheet.paste(shown(palette, Path(folder)), (x * (WIDTH + GAP), y * (HEIGHT + GAP)))
sheet.save(HERE / "panels.png", optimize=True)
