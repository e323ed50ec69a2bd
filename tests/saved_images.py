"""Small images in files of every format, and how Pillow decodes them."""

import io
import struct

import numpy as np
from PIL import Image, ImageOps

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype="uint8")
PICTURE = Image.fromarray(PIXELS).resize((54, 36), Image.BICUBIC)
ORIENTATION = 0x0112
JPEG_TOLERANCE = 6  # of the decoders' rounding
SENT_TOLERANCE = 3.0  # on average, of a JPEG of quality 95
BIG = (8001, 8000)  # pixels: just over 64 million


def save(path, image=PICTURE, orientation=None, **options):
    if orientation is not None:
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        options["exif"] = exif
    image.save(path, **options)
    return str(path)


def by_pillow(path, upright=True):
    image = Image.open(path)
    return np.asarray((ImageOps.exif_transpose(image) if upright else image).convert("RGB"))


def content_of(kind, image=PICTURE, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def patched(content, position, fmt, *values):
    content = bytearray(content)
    struct.pack_into(fmt, content, position, *values)
    return bytes(content)
