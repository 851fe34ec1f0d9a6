"""Paints prompts.png: one picture of each kind of object, by the program itself.

From the repository's root, with pillow installed:
    cargo build --release -p diffused --features demo
    python model-prep/demo/sheet.py target/release/diffused
"""
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

COLUMNS, SIZE = 6, 128
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
    "a yellow circle on the right on a black background",
]


def main(program):
    sheet = Image.new("RGB", (COLUMNS * SIZE, len(PROMPTS) // COLUMNS * SIZE))
    with tempfile.TemporaryDirectory() as folder:
        for i, prompt in enumerate(PROMPTS):
            file = Path(folder) / f"{i}.png"
            subprocess.run([program, "generate", prompt, "--seed", str(i + 1), "-o", file], check=True)
            with Image.open(file) as picture:
                sheet.paste(picture.convert("RGB"), (i % COLUMNS * SIZE, i // COLUMNS * SIZE))
    sheet.save(Path(__file__).with_name("prompts.png"), optimize=True)


if __name__ == "__main__":
    main(sys.argv[1])
