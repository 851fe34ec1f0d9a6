"""Init images and what Pillow and diffusers make of them.

    python tests/goldens/make_init_images.py

Writes init_images/. `turned-N` are files whose pixels are stored as a camera with EXIF orientation N stores them: upright,
each of them is upright.png. Files with transparency have what Pillow pastes on white and on orange; NAME.EXTENSION.png is the first
frame of a file on white. `wide-*` are wide.png in
another shape, by diffusers' VaeImageProcessor and Pillow's `ImageOps.pad`. a1111.exif is what A1111 writes into a JPEG, by piexif 1.1.3.
"""

import struct
import zlib
from pathlib import Path

import numpy as np
import piexif
import piexif.helper
from diffusers.image_processor import VaeImageProcessor
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

HERE = Path(__file__).parent / "init_images"
ORANGE = (255, 128, 0)
# What undoes the turn that a file's orientation asks for.
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def smooth(width, height):
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    red, green = 255 * x / (width - 1), 255 * y / (height - 1)
    blue = 127 + 100 * np.sin(x / 9) * np.cos(y / 7)
    return np.stack([red, green, blue], axis=-1).round().astype(np.uint8)


def exif_of(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def turned():
    upright = Image.fromarray(smooth(24, 40))
    upright.save(HERE / "upright.png", optimize=True)
    for orientation in range(1, 9):
        stored = upright.transpose(STORED[orientation]) if orientation in STORED else upright
        exif = exif_of(orientation)
        png, jpeg = HERE / f"turned-{orientation}.png", HERE / f"turned-{orientation}.jpg"
        stored.save(png, exif=exif, optimize=True)
        stored.save(jpeg, exif=exif, quality=98, subsampling=0, optimize=True)
        webp = HERE / f"turned-{orientation}.webp"
        stored.save(webp, exif=exif, lossless=True, method=6)
        for path in [png, jpeg, webp]:
            again = ImageOps.exif_transpose(Image.open(path))
            assert again.size == upright.size, path
            assert np.abs(np.asarray(again, int) - np.asarray(upright, int)).max() <= (3 if path == jpeg else 0), path
    # The same where the metadata stands behind the pixels.
    plain, data = HERE / "turned-behind.png", exif_of(6).tobytes().removeprefix(b"Exif\0\0")
    upright.transpose(STORED[6]).save(plain, optimize=True)
    bytes_ = plain.read_bytes()
    chunk = struct.pack(">I", len(data)) + b"eXIf" + data + struct.pack(">I", zlib.crc32(b"eXIf" + data))
    plain.write_bytes(bytes_[:-12] + chunk + bytes_[-12:])
    assert np.array_equal(np.asarray(ImageOps.exif_transpose(Image.open(plain))), np.asarray(upright))
    # The same as ImageMagick has it in a text.
    whole = b"Exif\0\0" + data
    digits = whole.hex()
    lines = "\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
    for name, packed in [("turned-text.png", False), ("turned-packed-text.png", True)]:
        text = PngInfo()
        text.add_text("Raw profile type exif", f"\nexif\n{len(whole):8}\n{lines}\n", zip=packed)
        upright.transpose(STORED[6]).save(HERE / name, optimize=True, pnginfo=text)
        assert np.array_equal(np.asarray(ImageOps.exif_transpose(Image.open(HERE / name))), np.asarray(upright)), name


def transparent():
    colours = smooth(20, 16)
    y, x = np.mgrid[0:16, 0:20]
    alpha = ((x * 13 + y * 7) % 256).astype(np.uint8)
    rgba = Image.fromarray(np.dstack([colours, alpha]))
    rgba.save(HERE / "rgba.png", optimize=True)
    Image.fromarray(np.dstack([colours[..., 0], alpha]), "LA").save(HERE / "grey-alpha.png", optimize=True)
    palette = Image.fromarray(colours).quantize(8)
    palette.save(HERE / "palette.png", optimize=True, transparency=bytes([0, 255, 128, 255, 40, 255, 255, 255]))
    write_rgba16(HERE / "rgba16.png", np.dstack([colours, alpha]).astype(np.uint16) * 257)
    for name in ["rgba", "grey-alpha", "palette", "rgba16"]:
        for background, colour in [("white", (255, 255, 255)), ("orange", ORANGE)]:
            front = Image.open(HERE / f"{name}.png").convert("RGBA")
            back = Image.new("RGBA", front.size, colour + (255,))
            back.paste(front, mask=front)
            back.convert("RGB").save(HERE / f"{name}-{background}.png", optimize=True)


def other_formats():
    image = Image.fromarray(smooth(21, 14))
    image.save(HERE / "lossy.webp", quality=80, method=6)
    image.save(HERE / "plain.bmp")
    front = Image.open(HERE / "rgba.png")
    front.save(HERE / "rgba.webp", lossless=True, method=6, exact=True)
    front.save(HERE / "rgba-lossy.webp", quality=80, method=6)
    frames = [image.quantize(16), image.rotate(180).quantize(16)]
    frames[0].save(HERE / "animated.gif", save_all=True, append_images=frames[1:], duration=100)
    frames = [front, front.rotate(180)]
    frames[0].save(HERE / "animated.webp", save_all=True, append_images=frames[1:], duration=100, lossless=True, exact=True)
    palette = Image.open(HERE / "palette.png")
    palette.save(HERE / "transparent.gif", transparency=3)
    for name in ["lossy.webp", "plain.bmp", "rgba.webp", "rgba-lossy.webp", "animated.gif", "animated.webp", "transparent.gif"]:
        front = Image.open(HERE / name).convert("RGBA")
        back = Image.new("RGBA", front.size, (255, 255, 255, 255))
        back.paste(front, mask=front)
        back.convert("RGB").save(HERE / f"{name}.png", optimize=True)


def write_rgba16(path, values):
    """Pillow does not write a PNG of 16 bits a channel."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = [b"\x89PNG\r\n\x1a\n"]
    header = struct.pack(">IIBBBBB", width, height, 16, 6, 0, 0, 0)
    for name, data in [(b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]:
        parts.append(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)))
    path.write_bytes(b"".join(parts))


def fitted():
    wide = Image.fromarray(smooth(96, 48))
    wide.save(HERE / "wide.png", optimize=True)
    processor = VaeImageProcessor()
    # The second leaves odd margins, halves to round.
    for width, height in [(64, 64), (37, 50), (91, 17)]:
        resized = {
            "stretch": processor.resize(wide, height, width, resize_mode="default"),
            "cover": processor.resize(wide, height, width, resize_mode="crop"),
            "contain": ImageOps.pad(wide, (width, height), Image.Resampling.LANCZOS, color=ORANGE),
        }
        for name, image in resized.items():
            image.save(HERE / f"wide-{name}-{width}x{height}.png", optimize=True)


def commented():
    comment = piexif.helper.UserComment.dump("a red house, 家 😀\nSteps: 20", encoding="unicode")
    exif = piexif.dump({"Exif": {piexif.ExifIFD.UserComment: comment}})
    (HERE / "a1111.exif").write_bytes(exif.removeprefix(b"Exif\0\0"))


HERE.mkdir(exist_ok=True)
turned()
transparent()
other_formats()
fitted()
commented()
