"""Multi-crop evaluation: 1 crop, 10 crops or the paper's 144 (section 7)."""

import itertools
from collections.abc import Collection
from typing import NamedTuple

import tensorflow as tf

from keras_googlenet.data import preprocessing
from keras_googlenet.data.datasets import Split
from keras_googlenet.data.pipeline import READERS, fetch_examples

PAPER_SIZE = 224  # section 5: the crop size that SIDES are printed for
SIDES = (256, 288, 320, 352)  # section 7: shorter side of the resized image
SQUARES = {"first": 0, "middle": 1, "last": 2}  # section 7: left or top, center, right or bottom
CORNERS = {"top left": (0, 0), "top right": (0, 2), "bottom left": (2, 0), "bottom right": (2, 2)}
CENTER = {"center": (1, 1)}
PARTS = {**CORNERS, **CENTER}  # position of a crop in its square, in halves of the free space
WHOLE = "whole square"


class Crop(NamedTuple):
    """One crop of an image: one value of each choice of a `CropSet`."""

    side: int
    mirrored: bool
    square: str
    part: str


class CropSet(NamedTuple):
    """The crops of an image whose predictions are averaged: all combinations of four choices.

    Attributes:
        sides: Shorter sides of the resized image, in pixels for a network of 224.
        mirrors: Whether to mirror.
        squares: Keys of `SQUARES`.
        parts: Keys of `PARTS`, or `WHOLE`.
    """

    sides: tuple[int, ...]
    mirrors: tuple[bool, ...]
    squares: tuple[str, ...]
    parts: tuple[str, ...]

    def crops(self) -> list[Crop]:
        """Lists the crops in the order of `cut_crops` and `crop_batches`."""
        return [Crop(*choice) for choice in itertools.product(*self)]


def crop_set(count: int, sides: tuple[int, ...] = SIDES) -> CropSet:
    """Returns the set of 1, 10 or 144 crops; each contains the smaller ones.

    Args:
        count: 1: the center. 10: the corners and the center of the middle square, mirrored too
            (Krizhevsky et al. 2012, section 4.1). 144: the paper's own (section 7).
        sides: Shorter sides in pixels for a network of 224. 1 and 10 crops use the first; "144"
            is 36 crops per side.

    Example:
    >>> [len(crop_set(count).crops()) for count in (1, 10, 144)]
    [1, 10, 144]
    """
    if count == 1:
        return CropSet(sides[:1], (False,), ("middle",), tuple(CENTER))
    if count == 10:
        return CropSet(sides[:1], (False, True), ("middle",), tuple(PARTS))
    return CropSet(sides, (False, True), tuple(SQUARES), (*PARTS, WHOLE))


def scaled_side(side: int, size: int) -> int:
    """Scales a side in pixels from the paper's network of 224 to a network of `size`.

    Example:
    >>> [scaled_side(side, 72) for side in SIDES]
    [82, 93, 103, 113]
    """
    return round(side * size / PAPER_SIZE)


def cut_crops(image: tf.Tensor, size: int, side: tf.Tensor, crop_set: CropSet) -> tf.Tensor:
    """Resizes an image and cuts out all crops of one side.

    Args:
        image: `(h, w, 3)`, any dtype.
        size: Side of the crops.
        side: Shorter side of the resized image, at least `size`.
        crop_set: Squares, parts and mirrors; its sides are ignored.

    Returns:
        `(n, size, size, 3)` float32 in the value range of `image`.
    """
    image = preprocessing.resize_shorter_side(image, side)
    mirror_image = tf.reverse(image, axis=[1])  # once an image costs less than once a crop
    crops = []
    for mirrored, square, part in itertools.product(*crop_set[1:]):
        top, left, extent = _window(tf.shape(image)[:2], size, side, square, part)
        if mirrored:
            left = tf.shape(image)[1] - extent - left
        crop = (mirror_image if mirrored else image)[top : top + extent, left : left + extent]
        crops.append(preprocessing.resize(crop, size, size) if part == WHOLE else crop)
    return tf.ensure_shape(tf.stack(crops), (len(crops), size, size, 3))


def _window(shape, size: int, side, square: str, part: str):
    """Returns top, left and extent; halves are added up before rounding: centers are exact."""
    free = SQUARES[square] * (shape - side)  # along the shorter side this is 0
    if part == WHOLE:
        return *tf.unstack(free // 2), side
    return *tf.unstack((free + tf.constant(PARTS[part]) * (side - size)) // 2), size


def crop_batches(
    split: Split,
    sizes: tuple[int, ...],
    crop_set: CropSet,
    batch_size: int,
    first: int = 0,
    corrupt: Collection[int] = (),
) -> tf.data.Dataset:
    """One pass over a split, one row per crop: all crops of the first image, then of the second, ….

    A batch may start and end within an image. Images are cut one side at a time, so that memory
    holds a few batches and, for each worker, one image and its crops at one side.

    Args:
        split: What to read.
        sizes: Sides of the crops: one for each image size among the networks.
        crop_set: What to cut out of each image.
        batch_size: Crops a batch; the last one may have fewer.
        first: Index of the first example.
        corrupt: Indices of examples to skip.

    Returns:
        Dataset of `(images, labels)`: a tuple with `(n, size, size, 3)` float32 RGB in [0, 255]
        for each size, and `(n,)` int64.
    """
    sides = tf.constant([[scaled_side(side, size) for size in sizes] for side in crop_set.sides])
    crops_a_side = len(crop_set.crops()) // len(crop_set.sides)

    def at_each_side(image, label):
        return tf.data.Dataset.from_tensor_slices(sides).map(lambda row: (image, row, label))

    def cut(image, row, label):
        crops = tuple(cut_crops(image, size, row[i], crop_set) for i, size in enumerate(sizes))
        return crops, tf.repeat(label, crops_a_side)

    def read(index, source):
        encoded, label = split.open(index, source)
        return preprocessing.decode(encoded), label

    indices = tf.data.Dataset.range(first, split.size)
    if corrupt:
        skipped = tf.constant(sorted(corrupt), tf.int64)
        indices = indices.filter(lambda index: tf.reduce_all(index != skipped))
    examples = fetch_examples(split, indices, READERS)
    images = examples.map(read, num_parallel_calls=tf.data.AUTOTUNE)
    crops = images.flat_map(at_each_side).map(cut, num_parallel_calls=tf.data.AUTOTUNE)
    return crops.rebatch(batch_size).prefetch(2)
