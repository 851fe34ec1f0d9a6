"""The twelve kinds of objects of the demo model's scenes, and their ten colours.

Every object is drawn about a centre in a circle of radius r; points are given in radii from the centre, y down.
"""
import math

COLOURS = {
    "red": (214, 40, 40), "orange": (244, 134, 28), "yellow": (250, 210, 40), "green": (46, 160, 67),
    "blue": (38, 94, 220), "purple": (128, 60, 180), "pink": (244, 130, 180), "white": (245, 245, 245),
    "black": (28, 28, 30), "brown": (130, 82, 45),
}
WHITE = (255, 255, 255)


def mix(a, b, t):
    """The colour that lies t of the way from a to b."""
    return tuple(int(x + (y - x) * t) for x, y in zip(a, b))


def darker(colour, factor=0.72):
    return tuple(int(value * factor) for value in colour)


class Brush:
    """Draws shapes given in radii from an object's centre."""

    def __init__(self, draw, cx, cy, r):
        self.draw, self.cx, self.cy, self.r = draw, cx, cy, r

    def box(self, left, top, right, bottom):
        return [self.cx + left * self.r, self.cy + top * self.r, self.cx + right * self.r, self.cy + bottom * self.r]

    def ellipse(self, left, top, right, bottom, fill):
        self.draw.ellipse(self.box(left, top, right, bottom), fill=fill)

    def rectangle(self, left, top, right, bottom, fill):
        self.draw.rectangle(self.box(left, top, right, bottom), fill=fill)

    def rounded(self, left, top, right, bottom, radius, fill):
        self.draw.rounded_rectangle(self.box(left, top, right, bottom), radius=radius * self.r, fill=fill)

    def polygon(self, points, fill):
        self.draw.polygon([(self.cx + x * self.r, self.cy + y * self.r) for x, y in points], fill=fill)


def circle(brush, colour):
    brush.ellipse(-1, -1, 1, 1, colour)


def square(brush, colour):
    brush.rectangle(-0.88, -0.88, 0.88, 0.88, colour)


def triangle(brush, colour):
    brush.polygon([(0, -1), (0.95, 0.8), (-0.95, 0.8)], colour)


def star(brush, colour):
    angles = [-math.pi / 2 + i * math.pi / 5 for i in range(10)]
    radii = [1.0, 0.42] * 5
    brush.polygon([(math.cos(a) * q, math.sin(a) * q) for a, q in zip(angles, radii)], colour)


def heart(brush, colour):
    def point(t):
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        return 16 * math.sin(t) ** 3 / 17, -y / 17

    brush.polygon([point(i / 60 * 2 * math.pi) for i in range(60)], colour)


def house(brush, colour):
    brush.rectangle(-0.75, -0.2, 0.75, 0.95, colour)
    brush.polygon([(-0.98, -0.15), (0, -1), (0.98, -0.15)], darker(colour))
    brush.rectangle(-0.18, 0.35, 0.18, 0.95, (92, 60, 40))
    for side in (-0.47, 0.47):
        brush.rectangle(side - 0.16, 0.05, side + 0.16, 0.37, (252, 240, 180))


def tree(brush, colour):
    brush.rectangle(-0.13, 0.2, 0.13, 1.0, (112, 72, 42))
    for x, y, q in ((0, -0.5, 0.5), (-0.4, -0.05, 0.45), (0.4, -0.05, 0.45), (0, 0.0, 0.45)):
        brush.ellipse(x - q, y - q, x + q, y + q, colour)


def boat(brush, colour):
    brush.polygon([(-1, 0.35), (1, 0.35), (0.65, 0.9), (-0.65, 0.9)], darker(colour))
    brush.rectangle(-0.05, -0.95, 0.03, 0.35, (90, 62, 44))
    brush.polygon([(0.07, -0.9), (0.85, 0.22), (0.07, 0.22)], colour)
    brush.polygon([(-0.1, -0.7), (-0.7, 0.22), (-0.1, 0.22)], mix(colour, WHITE, 0.35))


def flower(brush, colour):
    brush.rectangle(-0.06, 0, 0.06, 1.0, (40, 120, 50))
    brush.ellipse(0.02, 0.5, 0.5, 0.75, (56, 140, 62))
    for i in range(6):
        x, y = math.cos(i * math.pi / 3) * 0.42, math.sin(i * math.pi / 3) * 0.42 - 0.35
        brush.ellipse(x - 0.28, y - 0.28, x + 0.28, y + 0.28, colour)
    middle = (250, 214, 70) if colour != COLOURS["yellow"] else (150, 90, 40)
    brush.ellipse(-0.22, -0.57, 0.22, -0.13, middle)


def car(brush, colour):
    glass = (200, 226, 244)
    brush.rounded(-1, -0.05, 1, 0.5, 0.15, colour)
    brush.polygon([(-0.6, 0), (-0.38, -0.48), (0.35, -0.48), (0.65, 0)], darker(colour))
    brush.polygon([(-0.44, -0.04), (-0.3, -0.38), (-0.04, -0.38), (-0.04, -0.04)], glass)
    brush.polygon([(0.04, -0.04), (0.04, -0.38), (0.28, -0.38), (0.48, -0.04)], glass)
    for side in (-0.55, 0.55):
        brush.ellipse(side - 0.24, 0.26, side + 0.24, 0.74, (30, 30, 32))
        brush.ellipse(side - 0.1, 0.4, side + 0.1, 0.6, (190, 190, 195))


def fish(brush, colour):
    brush.polygon([(0.5, 0), (1.0, -0.5), (1.0, 0.5)], darker(colour))
    brush.ellipse(-0.95, -0.5, 0.65, 0.5, colour)
    brush.ellipse(-0.68, -0.22, -0.46, 0, WHITE)
    brush.ellipse(-0.62, -0.16, -0.52, -0.06, (10, 10, 10))


def cat(brush, colour):
    brush.ellipse(-0.6, 0.0, 0.6, 1.0, colour)
    for side in (-1, 1):
        brush.polygon([(side * 0.5, -0.95), (side * 0.08, -0.6), (side * 0.52, -0.3)], darker(colour))
    brush.ellipse(-0.52, -0.78, 0.52, 0.18, colour)
    eyes = (250, 250, 250) if colour != COLOURS["white"] else (60, 60, 60)
    for side in (-0.2, 0.2):
        brush.ellipse(side - 0.1, -0.45, side + 0.1, -0.25, eyes)
    brush.polygon([(-0.08, -0.15), (0.08, -0.15), (0, -0.04)], (230, 120, 130))


KINDS = {
    "circle": circle, "square": square, "triangle": triangle, "star": star, "heart": heart, "house": house,
    "tree": tree, "boat": boat, "flower": flower, "car": car, "fish": fish, "cat": cat,
}
# What has no foot: it hangs about the horizon instead of standing on the ground.
FLOATING = ("circle", "square", "triangle", "star", "heart", "fish")
