"""Scenes with captions, drawn by a program: what the demo model was trained on, and the grammar of its prompts.

`python scenes.py` draws a sheet of 32 of them, scenes.png, and prints their captions.
"""
import random

from PIL import Image, ImageDraw

from objects import COLOURS, FLOATING, KINDS, WHITE, Brush, mix

SIZE = 128  # pixels of a side
SUPERSAMPLING = 3
HORIZON = 0.62  # of the height

# name: (sky at the top, sky at the horizon, ground, phrase)
PLACES = {
    "meadow": ((96, 170, 240), (190, 225, 250), (104, 178, 84), "on a meadow"),
    "beach": ((90, 180, 245), (200, 232, 250), (236, 214, 150), "on a beach"),
    "snow": ((160, 195, 225), (222, 232, 240), (244, 247, 250), "in the snow"),
    "desert": ((246, 190, 110), (252, 226, 170), (214, 160, 90), "in the desert"),
    "sea": ((110, 180, 240), (190, 222, 248), (32, 104, 168), "on the sea"),
    "night": ((10, 14, 44), (36, 44, 92), (24, 52, 40), "at night"),
    "sunset": ((88, 50, 120), (250, 140, 70), (84, 62, 58), "at sunset"),
}
PLAIN = {
    "white": (250, 250, 250), "black": (18, 18, 20), "blue": (60, 120, 230), "yellow": (252, 222, 80),
    "pink": (250, 170, 205), "green": (90, 185, 100),
}
RADII = {"small": 0.17, "": 0.26, "large": 0.36}
CENTRES = {"": 0.5, "on the left": 0.28, "on the right": 0.72}
SKIES = {"night": ["", "a moon"], "sunset": ["", "a sun"]}
DAY_SKIES = ["", "", "a sun", "clouds", "a rainbow"]


def scene(rng, size=SIZE):
    """A picture and its caption. All that varies is drawn from `rng`, always in the same order."""
    width = size * SUPERSAMPLING
    picture = Image.new("RGB", (width, width))
    draw = ImageDraw.Draw(picture)
    kind = rng.choice(list(KINDS))
    colour = rng.choice(list(COLOURS))
    plain = rng.random() < 0.35
    large = rng.choice(["small", "", "", "large"])
    radius = RADII[large] * rng.uniform(0.93, 1.07)
    side = rng.choice(["", "", "on the left", "on the right"])
    cx = CENTRES[side] + rng.uniform(-0.02, 0.02)
    if plain:
        where = plain_background(draw, width, rng.choice([name for name in PLAIN if name != colour]))
        cy = 0.5 + rng.uniform(-0.02, 0.02)
    else:
        where = landscape(draw, width, rng, cx)
        cy = HORIZON + (0.02 - radius * 0.3 if kind in FLOATING else 0.12 - radius * 0.62)
    KINDS[kind](Brush(draw, cx * width, cy * width, radius * width), COLOURS[colour])
    caption = describe(rng, " ".join(word for word in (large, colour, kind) if word), side, where)
    return picture.resize((size, size), Image.LANCZOS), caption


def describe(rng, thing, side, where):
    """The caption, in one of three styles; one side in twenty is not told."""
    thing = f"{'an' if thing[0] in 'aeio' else 'a'} {thing}"
    if side and rng.random() < 0.95:
        thing += f" {side}"
    style = rng.random()
    if style < 0.6:
        return f"{thing} {where}"
    return f"{thing}, {where}" if style < 0.8 else f"a picture of {thing} {where}"


def plain_background(draw, width, name):
    draw.rectangle([0, 0, width, width], fill=PLAIN[name])
    return f"on a {name} background"


def landscape(draw, width, rng, cx):
    """A place, and perhaps something in its sky, away from the object at `cx`."""
    place = rng.choice(list(PLACES))
    top, bottom, ground, where = PLACES[place]
    horizon = width * HORIZON
    for y in range(int(horizon) + 1):
        draw.line([(0, y), (width, y)], fill=mix(top, bottom, y / horizon))
    draw.rectangle([0, int(horizon), width, width], fill=ground)
    if place == "sea":
        waves(draw, width, ground)
    if place == "night":
        stars(draw, width)
    sky = rng.choice(SKIES.get(place, DAY_SKIES))
    x = 0.8 if cx <= 0.5 else 0.2
    if sky == "a sun":
        sun(draw, width, x, place, ground)
    elif sky == "a moon":
        moon(draw, width, x, mix(top, bottom, 0.2))
    elif sky == "clouds":
        clouds(draw, width)
    elif sky == "a rainbow":
        rainbow(draw, width)
    return f"{where} with {sky}" if sky else where


def disc(draw, width, x, y, rx, ry, fill):
    draw.ellipse([width * (x - rx), width * (y - ry), width * (x + rx), width * (y + ry)], fill=fill)


def waves(draw, width, water):
    for i in range(7):
        x, y = width * ((i * 0.37) % 0.8), width * (HORIZON + 0.05 + i * 0.055)
        draw.line([(x, y), (x + width * 0.16, y)], fill=mix(water, WHITE, 0.3), width=SUPERSAMPLING)


def stars(draw, width):
    for i in range(26):
        x, y = width * ((i * 0.6180339) % 1.0), width * HORIZON * ((i * 0.381966 + 0.1) % 0.95)
        q = SUPERSAMPLING * (0.5 + (i % 3) * 0.35)
        draw.ellipse([x - q, y - q, x + q, y + q], fill=(240, 240, 220))


def sun(draw, width, x, place, ground):
    """High in the sky by day; half below the horizon at sunset."""
    y, radius, fill = (0.5, 0.11, (255, 214, 120)) if place == "sunset" else (0.16, 0.09, (255, 222, 70))
    disc(draw, width, x, y, radius, radius, fill)
    draw.rectangle([0, int(width * HORIZON), width, width], fill=ground)


def moon(draw, width, x, sky):
    """A crescent: a disc, and another of the sky's colour beside it."""
    disc(draw, width, x, 0.17, 0.085, 0.085, (240, 236, 208))
    disc(draw, width, x + 0.05, 0.15, 0.085, 0.085, sky)


def clouds(draw, width):
    for cx, cy in ((0.2, 0.14), (0.72, 0.2)):
        for x, y, radius in ((-0.07, 0.01, 0.045), (0, -0.01, 0.06), (0.075, 0.012, 0.042)):
            disc(draw, width, cx + x, cy + y, radius, radius * 0.8, (252, 252, 253))


def rainbow(draw, width):
    for i, name in enumerate(["red", "orange", "yellow", "green", "blue", "purple"]):
        radius = 0.52 - i * 0.022
        box = [width * (0.5 - radius), width * (HORIZON - radius), width * (0.5 + radius), width * (HORIZON + radius)]
        draw.arc(box, 180, 360, fill=COLOURS[name], width=int(width * 0.022) + 1)


def sheet(columns=8, rows=4):
    rng = random.Random(7)
    picture = Image.new("RGB", (SIZE * columns, SIZE * rows))
    for i in range(columns * rows):
        tile, caption = scene(rng)
        picture.paste(tile, (i % columns * SIZE, i // columns * SIZE))
        print(i, caption)
    picture.save("scenes.png")


if __name__ == "__main__":
    sheet()
