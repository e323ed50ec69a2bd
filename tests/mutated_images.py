"""Sends damaged images through `classify`, and prints how many were answered.

The last line is one JSON document: how many were answered, how many were refused with which
messages, and the longest time of one. It runs in its own process, so that a crash is noticed.
"""

import collections
import io
import json
import re
import sys
import time
import zlib

import numpy as np
from PIL import Image
from saved_model_loader import LoaderError, SavedModel

MODES = {"JPEG": ("L", "RGB", "CMYK"), "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")}
MODES |= {"BMP": ("L", "RGB", "RGBA"), "GIF": ("L", "P")}
MODES |= {"WEBP": ("L", "RGB", "RGBA", "lossless", "animated")}


def originals() -> list[tuple[str, bytes]]:
    """Small images of every format in several pixel modes."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 255, (9, 12, 3)).astype("uint8")
    photo = Image.fromarray(coarse).resize((120, 90))
    options = {
        ("JPEG", "RGB"): {"progressive": True},
        ("WEBP", "lossless"): {"lossless": True},
        ("WEBP", "animated"): {"save_all": True, "append_images": [photo.rotate(180)]},
    }
    made = []
    for form, modes in MODES.items():
        for mode in modes:
            pixels = {"I;16": "L", "lossless": "RGBA", "animated": "RGB"}.get(mode, mode)
            image = photo.convert(pixels)
            if form == "WEBP" and pixels == "RGBA":
                image.putalpha(photo.convert("L"))
            if mode == "I;16":
                image = Image.fromarray(np.asarray(image).astype("uint16") * 257)
            file = io.BytesIO()
            image.save(file, form, **options.get((form, mode), {}))
            made.append((f"{form} {mode}", file.getvalue()))
    return made


def damage(content: bytes, generator) -> bytes:
    """Damages one to three places: changed bits or bytes, lost, repeated or inserted pieces."""
    data = bytearray(content)
    for _ in range(generator.integers(1, 4)):
        # a third of the damage is in the header, which decides about memory
        reach = min(64, len(data)) if generator.random() < 0.33 else len(data)
        at = int(generator.integers(0, max(reach, 1)))
        length = int(generator.integers(1, 40))
        match generator.integers(0, 6):
            case 0 if data:
                data[at] ^= 1 << int(generator.integers(0, 8))
            case 1:
                data[at : at + length] = generator.bytes(min(length, 4))
            case 2:
                del data[at:]
            case 3:
                del data[at : at + length]
            case 4:
                data[at:at] = data[at : at + length]
            case 5:
                data[at : at + 4] = generator.choice([b"\xff\xff\xff\xff", b"\x00\x00\x00\x00"])
    return bytes(data)


def with_checksums(png: bytes) -> bytes:
    """Mends the checksums of a damaged PNG, so that the decoder looks further than those."""
    data, at = bytearray(png), 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            break
        data[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(data)


def kind_of(message: str) -> str:
    """The message without numbers and node names, to count alike ones together."""
    return re.sub(r"\d+", "N", message.partition("\n")[0])[:160]


def main(folder, count):
    model = SavedModel(folder)
    generator = np.random.default_rng(5)
    sources = originals()
    model.run("classify", {"image_bytes": np.array([sources[0][1]], object)})  # the first is slow
    answered, slowest, refused = 0, (0.0, ""), collections.Counter()
    for index in range(count):
        name, content = sources[index % len(sources)]
        damaged = damage(content, generator)
        if name.startswith("PNG") and index % 2:
            damaged = with_checksums(damaged)
        print(f"{index} {name} {len(damaged)} bytes", file=sys.stderr)  # the last one, at a crash
        start = time.monotonic()
        try:
            scores = model.run("classify", {"image_bytes": np.array([damaged], object)})["scores"]
            assert 0 < scores.sum() < 1.001, f"{name}: the scores add up to {scores.sum()}"
            answered += 1
        except LoaderError as error:
            assert error.code == "INVALID_ARGUMENT", f"{error.code}: {error.message}"
            refused[kind_of(error.message)] += 1
        slowest = max(slowest, (time.monotonic() - start, f"{index} {name}"))
    counts = {"answered": answered, "refused": sum(refused.values()), "slowest": slowest}
    print(json.dumps({**counts, "messages": dict(refused.most_common())}))
