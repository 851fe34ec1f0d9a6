"""Draws the sheet of true scenes that the measuring function of tests/scenes.rs is tested on.

`python tests/scenes/sheet.py` (needs pillow) writes sheet.png, 8 x 6 scenes of 128 x 128, and sheet.txt, their captions
in the same order, with the very code that drew the demo model's training data.
"""
import random
import sys
from pathlib import Path

from PIL import Image

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "model-prep" / "demo" / "train"))
from scenes import scene  # noqa: E402

COLUMNS, ROWS, SIZE = 8, 6, 128


class Recorder(random.Random):
    """Remembers what was chosen, since a caption may leave out where the object stands."""

    def choice(self, options):
        chosen = super().choice(options)
        self.made.append(chosen)
        return chosen


def told_scenes(rng):
    """Scenes whose caption names the object's side wherever it is not in the middle."""
    while True:
        rng.made = []
        picture, caption = scene(rng, SIZE)
        side = next((made for made in rng.made if made in ("on the left", "on the right")), "")
        if side in caption:
            yield picture, caption


def main():
    made = told_scenes(Recorder(2026))
    sheet = Image.new("RGB", (COLUMNS * SIZE, ROWS * SIZE))
    captions = []
    for i in range(COLUMNS * ROWS):
        picture, caption = next(made)
        sheet.paste(picture, (i % COLUMNS * SIZE, i // COLUMNS * SIZE))
        captions.append(caption)
    sheet.save(HERE / "sheet.png", optimize=True)
    (HERE / "sheet.txt").write_text("\n".join(captions) + "\n")


if __name__ == "__main__":
    main()
