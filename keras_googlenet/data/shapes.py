"""The built-in data set: drawn objects of ten classes, from small to large, with their masks.

`shapes` is an ordinary TensorFlow Datasets builder, so it takes the same path as `imagenet2012`;
it is drawn on first use instead of downloaded. Color, position and size are independent of the
class; only the outline determines it, at sizes a factor of four apart, which is what the branches
of an inception module are for.
"""

import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image, ImageChops, ImageDraw, ImageFilter

SIDE = 128  # pixels of an image
CLASSES = (
    *("arrow", "crescent", "cross", "disc", "heart"),
    *("hourglass", "ring", "square", "star", "triangle"),
)
SPLITS = {"train": 4000, "validation": 1000}
SMALLEST, LARGEST = 27, 108  # diameter of an object in pixels
_SUPERSAMPLING = 2
_MARGIN = 10  # pixels at the border without the object, about what a central crop cuts off
_TILT = np.radians(25)  # greatest rotation of an object
_COLOR_DISTANCE = 140  # least distance in RGB between the textures of object and background
_COLOR_SPREAD = 28  # greatest distance of the two colors of a texture from their mean, a channel
_CONTOUR = 3  # pixels of the dark line around an object, which the mask includes
_CONTOUR_COLOR = (25, 25, 25)
_NOISE = 6.0  # standard deviation of the grain, of 255
_QUALITY = 92  # of the JPEG


class Shapes(tfds.core.GeneratorBasedBuilder):
    """Ten classes of drawn objects, with masks."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description="Drawn objects over textured backgrounds, and their masks.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(SIDE, SIDE, 3), encoding_format="jpeg"),
                    "label": tfds.features.ClassLabel(names=CLASSES),
                    "mask": tfds.features.Image(shape=(SIDE, SIDE, 1), encoding_format="png"),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # nothing to download
        return {
            split: self._generate_examples(number, size)
            for number, (split, size) in enumerate(SPLITS.items())
        }

    def _generate_examples(self, split_number: int, size: int):
        for index in range(size):
            label = index % len(CLASSES)
            image, mask = draw(CLASSES[label], np.random.default_rng([split_number, index]))
            yield index, {"image": _encoded(image, "JPEG"), "label": label, "mask": _encoded(mask)}


def draw(name: str, generator: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    """Draws one object of `CLASSES` at a random position on a busy background.

    Returns:
        Image and mask, RGB and 8-bit gray of 128x128 pixels; the mask is 255 on the object, 0
        elsewhere, and between them on its edge.
    """
    background, ink = _contrasting_colors(generator)
    canvas = _texture(background, generator)
    _scatter_distractors(canvas, generator)
    mask = _object_mask(name, generator)
    canvas.paste(_texture(ink, generator), mask=mask)
    inside = mask.filter(ImageFilter.MinFilter(2 * _CONTOUR + 1))
    canvas.paste(_CONTOUR_COLOR, mask=ImageChops.subtract(mask, inside))
    noise = _NOISE * generator.standard_normal((SIDE, SIDE, 1), dtype="float32")
    return Image.fromarray(np.clip(canvas + noise, 0, 255).astype("uint8")), mask


def _encoded(image: Image.Image, kind: str = "PNG") -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, kind, quality=_QUALITY)
    file.seek(0)
    return file


def _contrasting_colors(generator) -> np.ndarray:
    """Returns `(2, 2, 3)`, two colors for the background and two for the object."""
    while True:
        base = generator.uniform(20, 235, (2, 1, 3))
        if np.linalg.norm(base[0] - base[1]) > _COLOR_DISTANCE:
            spread = generator.uniform(-_COLOR_SPREAD, _COLOR_SPREAD, (2, 2, 3))
            return np.clip(base + spread, 0, 255).astype("float32")


def _texture(colors, generator) -> Image.Image:
    """Mixes two colors, `(2, 3)`, by stripes or by smooth noise."""
    if generator.random() < 0.5:
        amount = _stripes(generator)
    else:
        cells = int(generator.integers(3, 20))
        noise = Image.fromarray(generator.integers(0, 256, (cells, cells), dtype="uint8"))
        amount = np.asarray(noise.resize((SIDE, SIDE), Image.BICUBIC), "float32") / 255
    mixed = colors[0] + amount[..., None] * (colors[1] - colors[0])
    return Image.fromarray(mixed.astype("uint8"))


def _stripes(generator) -> np.ndarray:
    """Returns stripes of any direction and width, `(128, 128)` in [0, 1]."""
    y, x = np.mgrid[:SIDE, :SIDE].astype("float32")
    angle, period = generator.uniform(0, np.pi), np.exp(generator.uniform(np.log(6), np.log(60)))
    phase = (x * np.cos(angle) + y * np.sin(angle)) * (2 * np.pi / period)
    return 0.5 + 0.5 * np.sin(phase + generator.uniform(0, 2 * np.pi))


def _scatter_distractors(canvas: Image.Image, generator):
    """Draws lines and spots of any color, smaller than any object."""
    pen = ImageDraw.Draw(canvas)
    for _ in range(generator.integers(4, 13)):
        color = tuple(int(c) for c in generator.integers(0, 256, 3))
        x, y = generator.uniform(0, SIDE, 2)
        length, angle = generator.uniform(3, 26), generator.uniform(0, 2 * np.pi)
        end = (x + length * np.cos(angle), y + length * np.sin(angle))
        if generator.random() < 0.5:
            pen.line([(x, y), end], fill=color, width=int(generator.integers(1, 4)))
        else:
            spread = generator.uniform(2, 6, (5, 2)) * _circle(5)
            pen.polygon([(x + dx, y + dy) for dx, dy in spread], fill=color)


def _object_mask(name: str, generator) -> Image.Image:
    """Draws the object with a random size, position, angle and slight stretch."""
    diameter = np.exp(generator.uniform(np.log(SMALLEST), np.log(LARGEST)))
    angle = generator.uniform(-_TILT, _TILT)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    stretch = np.exp(generator.uniform(-0.12, 0.12)) ** np.array([1, -1])
    room = max(SIDE / 2 - _MARGIN - diameter / 2, 0)
    center = SIDE / 2 + generator.uniform(-room, room, 2)

    big = Image.new("L", (SIDE * _SUPERSAMPLING,) * 2)
    pen = ImageDraw.Draw(big)
    for outline, fill in OUTLINES[name]:
        points = (outline * stretch @ rotation.T * diameter / 2 + center) * _SUPERSAMPLING
        pen.polygon([tuple(point) for point in points], fill=fill)
    return big.resize((SIDE, SIDE), Image.BOX)


def _circle(points: int = 48, radii=1.0, center=(0.0, 0.0)) -> np.ndarray:
    """Returns points around a center, `(points, 2)`; a list of radii is repeated."""
    angle = np.arange(points) * (2 * np.pi / points)
    radius = np.resize(radii, points)[:, None]
    return radius * np.stack([np.sin(angle), -np.cos(angle)], axis=1) + center


def _heart() -> np.ndarray:
    t = np.arange(48) * (2 * np.pi / 48)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([16 * np.sin(t) ** 3, -y - 2.5], axis=1) / 16


_ARROW = [(0, -1), (0.75, -0.1), (0.28, -0.1), (0.28, 1), (-0.28, 1), (-0.28, -0.1), (-0.75, -0.1)]
_CROSS = [(-0.3, -1), (0.3, -1), (0.3, -0.3), (1, -0.3), (1, 0.3), (0.3, 0.3)]
_CROSS += [(-x, -y) for x, y in _CROSS]
_HOURGLASS = [(-0.7, -0.9), (0.7, -0.9), (0.12, 0), (0.7, 0.9), (-0.7, 0.9), (-0.12, 0)]

# Name -> polygons in [-1, 1], drawn in turn: 255 adds to the object, 0 cuts a hole.
OUTLINES = {
    "arrow": [(np.array(_ARROW), 255)],
    "crescent": [(_circle(), 255), (_circle(radii=0.85, center=(0.5, 0)), 0)],
    "cross": [(np.array(_CROSS), 255)],
    "disc": [(_circle(), 255)],
    "heart": [(_heart(), 255)],
    "hourglass": [(np.array(_HOURGLASS), 255)],
    "ring": [(_circle(), 255), (_circle(radii=0.55), 0)],
    "square": [(_circle(4), 255)],
    "star": [(_circle(10, radii=[1, 0.42]), 255)],
    "triangle": [(_circle(3), 255)],
}
