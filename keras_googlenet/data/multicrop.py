"""The crops that a network is evaluated on: one, ten, or the 144 of the paper.

A protocol is a product of choices; each of its views is one picture that a network sees of an
image, and the softmax is averaged over all of them (section 7).
"""

import itertools
from collections.abc import Collection
from typing import NamedTuple

import tensorflow as tf

from keras_googlenet.data import preprocessing
from keras_googlenet.data.datasets import Split
from keras_googlenet.data.pipeline import READERS, fetch_examples

PAPER_SIZE = 224  # section 5: the network that the sides below are printed for
SIDES = (256, 288, 320, 352)  # section 7: shorter side of the resized image
SQUARES = {"first": 0, "middle": 1, "last": 2}  # section 7: left or top, center, right or bottom
CORNERS = {"top left": (0, 0), "top right": (0, 2), "bottom left": (2, 0), "bottom right": (2, 2)}
CENTER = {"center": (1, 1)}
WHOLE = "whole square"
PARTS = {**CORNERS, **CENTER}  # where a crop lies in its square, in halves of the free way


class View(NamedTuple):
    """One picture of an image: names of `SQUARES` and `PARTS`, and the choices that they are of."""

    side: int
    mirrored: bool
    square: str
    part: str


class Protocol(NamedTuple):
    """Which views of an image are averaged; those of a protocol are all combinations.

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

    def views(self) -> list[View]:
        """Returns all views in the order in which `crops_at` and `crop_batches` give them."""
        return [View(*choice) for choice in itertools.product(*self)]


def protocol(crops: int, sides: tuple[int, ...] = SIDES) -> Protocol:
    """Returns the protocol of 1, 10 or 144 crops.

    One crop and ten are of the first side alone and are among the 144.

    Args:
        crops: 1: the center. 10: the corners and the center of the middle square, mirrored too
            (Krizhevsky et al. 2012, section 4.1). 144: the paper's own (section 7).
        sides: Shorter sides in pixels for a network of 224; with other than four of them, "144"
            gives 36 crops a side.

    Example:
    >>> [len(protocol(crops).views()) for crops in (1, 10, 144)]
    [1, 10, 144]
    """
    if crops == 1:
        return Protocol(sides[:1], (False,), ("middle",), tuple(CENTER))
    if crops == 10:
        return Protocol(sides[:1], (False, True), ("middle",), tuple(PARTS))
    return Protocol(sides, (False, True), tuple(SQUARES), (*PARTS, WHOLE))


def scaled_side(side: int, size: int) -> int:
    """Returns in pixels what `side` is for a network of `size`: the paper's ratios.

    Example:
    >>> [scaled_side(side, 72) for side in SIDES]
    [82, 93, 103, 113]
    """
    return round(side * size / PAPER_SIZE)


def crops_at(image: tf.Tensor, size: int, side: tf.Tensor, views: Protocol) -> tf.Tensor:
    """Cuts all views at one scale out of an image.

    Args:
        image: `(h, w, 3)`, any dtype.
        size: Side of the crops.
        side: What the shorter side of the image is resized to, at least `size`.
        views: Squares, parts and mirrors; its sides are not looked at.

    Returns:
        `(n, size, size, 3)` float32 in the value range of `image`, in the order of `views()`.
    """
    image = preprocessing.resize_shorter_side(image, side)
    mirror_image = tf.reverse(image, axis=[1])  # once an image costs less than once a crop
    crops = []
    for mirrored, square, part in itertools.product(views.mirrors, views.squares, views.parts):
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
    views: Protocol,
    batch_size: int,
    first: int = 0,
    unreadable: Collection[int] = (),
) -> tf.data.Dataset:
    """One pass over a split, a row a crop: all views of the first image, then of the second, ….

    A batch may begin and end within an image. Images are cut a scale at a time, so that memory
    holds a few batches and, for each worker, one image and its crops at one scale.

    Args:
        split: What to read.
        sizes: Sides of the crops: one for each image size among the networks.
        views: What to cut out of each image.
        batch_size: Crops a batch; the last one may have fewer.
        first: Number of the example to begin with.
        unreadable: Numbers of examples to leave out.

    Returns:
        Dataset of `(images, labels)`: a tuple with `(n, size, size, 3)` float32 RGB in [0, 255]
        for each size, and `(n,)` int64.
    """
    sides = tf.constant([[scaled_side(side, size) for size in sizes] for side in views.sides])
    count = len(views.views()) // len(views.sides)

    def at_each_scale(image, label):
        scales = tf.data.Dataset.from_tensor_slices(sides)
        return scales.map(lambda scale: (image, scale, label))

    def cut(image, scale, label):
        crops = tuple(crops_at(image, size, scale[i], views) for i, size in enumerate(sizes))
        return crops, tf.repeat(label, count)

    def read(number, source):
        encoded, label = split.open(number, source)
        return preprocessing.decode(encoded), label

    left_out = tf.constant(sorted(unreadable), tf.int64)
    numbers = tf.data.Dataset.range(first, split.size)
    if unreadable:
        numbers = numbers.filter(lambda number: tf.reduce_all(number != left_out))
    examples = fetch_examples(split, numbers, READERS)
    images = examples.map(read, num_parallel_calls=tf.data.AUTOTUNE)
    crops = images.flat_map(at_each_scale).map(cut, num_parallel_calls=tf.data.AUTOTUNE)
    return crops.rebatch(batch_size).prefetch(2)
